"""From folders of runs to a folder with the report in it."""

import json
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from wn_rl.compare.grid import Grid
from wn_rl.errors import UserError
from wn_rl.report.comparison import Comparison, choose_rates, compare
from wn_rl.report.content import make_chapter
from wn_rl.report.figures import pictures_of
from wn_rl.report.findings import Findings, examine
from wn_rl.report.published_scores import REFERENCE_SCORES
from wn_rl.report.read import LeftOut, read_grids, read_runs
from wn_rl.report.render import Clip, Fold, Table, render_markdown, render_page, say
from wn_rl.report.tables import csv_tables
from wn_rl.report.words import game_title, slug
from wn_rl.run.files import alone_in
from wn_rl.run.folder import RunFolder

TITLE = "Weight normalization in deep Q-networks: what these runs show"
BOOTSTRAP_SEED = 0
FILES = "files.txt"  # what is in these folders of a report, so that the next one removes nothing else
_FOLDERS = (Path("figures"), Path("tables"), Path("videos"))

RecordEpisode = Callable[[Path, Path], str]
"""Run folder and mp4 file to write, to what played the episode and how it went; the seed is always the same."""


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    rates_from: Sequence[Path] = (),
    until: int | None = None,
    record_episode: RecordEpisode | None = None,
) -> Path:
    """Write report.html, report.md, tables/, figures/, videos/, their list and configs.json; the page's path.

    runs: run folders, or folders that hold them. rates_from: other runs to choose learning rates on; without any,
    they are chosen on the runs themselves. until: compare all runs that reached this step, up to it, but use all
    of `rates_from`; without it, finished runs. record_episode: without it, no videos.

    Raises:
        UserError: none of the runs can be compared, or the folder could not be written.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: name a folder for the report")
    if RunFolder(out).config_file.exists():
        raise UserError(f"{out} is the folder of a run: name another one for the report")
    all_runs, left_out = read_runs(runs)
    comparisons, unfit = compare(all_runs, until)
    grids, missing = read_grids(runs, [run.folder for run in all_runs])
    left_out += [*unfit, *missing]
    others: list[Comparison] = []
    if rates_from:
        other_runs, unread = read_runs(rates_from)
        others, unused = compare(other_runs)  # whole, wherever the reported runs are cut
        left_out += [*unread, *unused]
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    examined = [
        examine(each, choose_rates(each, others), REFERENCE_SCORES if each.suite == "atari" else {}, rng)
        for each in comparisons
    ]
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out):  # two invocations of one comparison may end at once
        _remove_old_report(out)
        files = _report_files(examined, grids, left_out, out, record_episode)
        configs = {str(run.folder): run.record for run in all_runs}
        files["configs.json"] = (json.dumps(configs, indent=1) + "\n").encode()
        for name, data in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
    return out / "report.html"


def _remove_old_report(out: Path) -> None:
    """The files of a report that was written here before; figures of another set of runs would mislead."""
    for name in (out / FILES).read_text().splitlines() if (out / FILES).exists() else ():
        if Path(name).parent in _FOLDERS:
            (out / name).unlink(missing_ok=True)


def _report_files(
    examined: Sequence[Findings],
    grids: Sequence[Grid],
    left_out: Sequence[LeftOut],
    out: Path,
    record: RecordEpisode | None,
) -> dict[str, bytes]:
    """Names and contents; videos are written on the way."""
    files = {f"tables/{name}": text.encode() for name, text in csv_tables(examined, left_out).items()}
    chapters = []
    for findings in examined:
        pictures = pictures_of(findings)
        episodes = _record(findings, out, record) if record else Fold("No episodes")
        comparisons = [each.comparison for each in examined]
        chapters.append(make_chapter(findings, pictures, episodes, comparisons, len(left_out)))
        for picture in chain(*pictures.values()):
            files[f"figures/{picture.name}.png"] = picture.png
            files[f"figures/{picture.name}.svg"] = picture.svg.encode()
        files |= {clip.path: clip.mp4 for clip in episodes.clips}
    files[FILES] = "".join(f"{name}\n" for name in sorted(files)).encode()
    folds = [Fold("How the numbers are made", say("method"))]
    if grids:
        folds.append(Fold("Commands that asked for these runs", say("commands", grids=grids)))
    if left_out:
        rows = [[str(entry.folder), entry.reason] for entry in left_out]
        table = Table("Not in the numbers", ["folder", "reason"], rows)
        folds.append(Fold(f"Left out ({len(left_out)})", say("left_out", left_out=left_out), [table]))
    files["report.md"] = render_markdown(TITLE, chapters, folds).encode()
    files["report.html"] = render_page(TITLE, chapters, folds).encode()
    return files


def _record(findings: Findings, out: Path, record: RecordEpisode) -> Fold:
    """An episode by the best network of each chosen arm, on one seed; and why some could not be recorded."""
    comparison = findings.comparison
    clips, failures = [], []
    for game in comparison.games:
        for arm in [arm for arm in findings.chosen if comparison.runs_of(arm, game)]:
            run = max(comparison.runs_of(arm, game), key=lambda run: np.nanmax(run.scores(comparison.num_epochs)))
            path = f"videos/{slug(f'{comparison.name} {game} {arm.label}')}.mp4"
            try:
                played = record(run.folder, out / path)
                title = f"{game_title(game)}, {arm.label}, training seed {run.seed}: {played}"
                clips.append(Clip(title, path, (out / path).read_bytes()))
            except Exception as error:  # whatever a game or a file may raise: the numbers are worth more
                failures.append(f"No video of {arm.label} on {game_title(game)}: {error}")
    return Fold("Recorded episodes", [*say("clips"), *failures], clips=clips)
