"""From folders of runs to a folder with the report in it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wn_rl.errors import UserError
from wn_rl.report.blocks import Clips, Section
from wn_rl.report.comparison import Comparison, compare
from wn_rl.report.csv_files import csv_files
from wn_rl.report.explanations import METHOD_SECTION
from wn_rl.report.figures import Figure
from wn_rl.report.gallery import Gallery, RecordGame, record_clips
from wn_rl.report.grids import GridFile, read_grids
from wn_rl.report.markdown import render_markdown
from wn_rl.report.page import render_page
from wn_rl.report.rates import choose_rates
from wn_rl.report.records import LeftOut, Run, read_runs
from wn_rl.report.results import Findings, References, examine
from wn_rl.report.sections import (
    comparison_sections,
    grids_section,
    left_out_section,
    sources_section,
)
from wn_rl.report.summary import summary_section
from wn_rl.run.files import alone_in
from wn_rl.run.folder import RunFolder

TITLE = "Weight normalization in deep Q-networks: what these runs show"
BOOTSTRAP_SEED = 0
FILES = "files.txt"  # what lies in these folders of a report, so that the next one takes nothing else away
_FOLDERS = (Path("figures"), Path("tables"), Path("videos"))


@dataclass(frozen=True)
class Request:
    """What to report."""

    runs: Sequence[Path]
    """Run folders, or folders that hold them."""
    out: Path
    """Folder of the report."""
    rates_from: Sequence[Path] = ()
    """Other runs to choose learning rates on; none: choose on the runs themselves."""
    until: int | None = None
    """Use scores up to this step of all runs that reached it, `rates_from` aside. None: all of finished runs."""
    references: Mapping[str, References] = field(default_factory=dict)
    """Published scores by suite."""
    record_game: RecordGame | None = None
    """Records a game of a run; None for no videos."""


def write_report(request: Request) -> Path:
    """Write report.html, report.md, tables/, figures/, videos/, their list and configs.json; the page's path.

    Raises:
        UserError: there is no run that can be compared, or the folder cannot be written.
    """
    if request.out.exists() and not request.out.is_dir():
        raise UserError(f"{request.out} is a file: name a folder for the report")
    if RunFolder(request.out).config_file.exists():
        raise UserError(f"{request.out} is the folder of a run: name another one for the report")
    runs, left_out = read_runs(request.runs)
    comparisons, unfit = compare(runs, request.until)
    grids, unreadable_grids = read_grids(request.runs, [run.folder for run in runs])
    left_out += unreadable_grids + unfit + [entry for file in grids for entry in file.missing()]
    others: list[Comparison] = []
    if request.rates_from:
        other_runs, unread = read_runs(request.rates_from)
        others, unused = compare(other_runs)  # all of them, wherever these are cut
        left_out += unread + unused
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    every = [
        examine(comparison, choose_rates(comparison, others), request.references.get(comparison.suite), rng)
        for comparison in comparisons
    ]
    request.out.mkdir(parents=True, exist_ok=True)
    with alone_in(request.out):  # two invocations of one comparison end at once
        return _write_anew(request, every, grids, left_out, runs)


def _write_anew(
    request: Request,
    every: Sequence[Findings],
    grids: Sequence[GridFile],
    left_out: Sequence[LeftOut],
    runs: Sequence[Run],
) -> Path:
    _remove_old_report(request.out)
    written: list[str] = []
    comparisons = [findings.comparison for findings in every]
    sections = [summary_section(every)]
    for findings in every:
        gallery = Gallery(findings)
        figures = gallery.figures()
        flat = [figure for group in figures.values() for figure in group]
        written += _write_figures(request.out, [*flat, *gallery.overviews()])
        clips = record_clips(findings, request.out, request.record_game) if request.record_game else []
        written += [clip.path for block in clips if isinstance(block, Clips) for clip in block.clips]
        sections += comparison_sections(findings, figures, clips, comparisons, grids)
    sections += [grids_section(grids), METHOD_SECTION] if grids else [METHOD_SECTION]
    published = sources_section(every)
    sections += [published] if published else []
    sections.append(left_out_section(left_out))
    written += _write_tables(request.out, csv_files(every, left_out))
    (request.out / FILES).write_text("".join(f"{name}\n" for name in sorted(written)))
    return _write_pages(request.out, sections, runs)


def _remove_old_report(out: Path) -> None:
    """The files of a report that was written here before; figures of another set of runs would mislead."""
    for name in (out / FILES).read_text().splitlines() if (out / FILES).exists() else ():
        if Path(name).parent in _FOLDERS:
            (out / name).unlink(missing_ok=True)


def _write_tables(out: Path, tables: Mapping[str, str]) -> list[str]:
    (out / "tables").mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        (out / "tables" / name).write_text(text)
    return [f"tables/{name}" for name in tables]


def _write_pages(out: Path, sections: Sequence[Section], runs: Sequence[Run]) -> Path:
    configs = {str(run.folder): run.record for run in runs}
    (out / "configs.json").write_text(json.dumps(configs, indent=1) + "\n")
    (out / "report.md").write_text(render_markdown(TITLE, sections))
    page = out / "report.html"
    page.write_text(render_page(TITLE, sections))
    return page


def _write_figures(out: Path, figures: Sequence[Figure]) -> list[str]:
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for figure in figures:
        (out / f"figures/{figure.name}.png").write_bytes(figure.png)
        (out / f"figures/{figure.name}.svg").write_text(figure.svg)
    return [f"figures/{figure.name}.{kind}" for figure in figures for kind in ("png", "svg")]
