"""`wn-rl report`: compare finished runs, as a page, Markdown, tables and figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wn_rl.commands._shared import parse_flags
from wn_rl.config_checks import CountOrNone


@dataclass(frozen=True)
class Report:
    """Compare finished runs: parameterizations at their own and at equal learning rates."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUNS...")]
    """Folders of runs, or folders that hold them."""
    out: Path
    """Folder to write report.html, report.md, tables/ and figures/ to."""
    rates_from: tuple[Path, ...] = ()
    """Other runs to choose each parameterization's learning rate on, so that the seeds reported are fresh."""
    until: CountOrNone = None
    """Compare all runs that reached this step, up to it. None: finished runs, each with those of its length."""
    videos: bool = True
    """Record one episode by the best network of each parameterization at its chosen rate."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl report`."""
    print(write(parse_flags(Report, arguments or ["--out", "report"])))  # without words, folders are missed first
    return 0


def write(options: Report) -> Path:
    """Write the report that the options ask for; the page's path. See `write_report` for what it raises."""
    from wn_rl.report.writer import write_report

    if not options.runs:
        raise ValueError("name the folders of the runs to report: wn-rl report runs/A runs/B --out report")
    return write_report(
        options.runs,
        options.out,
        rates_from=options.rates_from,
        until=options.until,
        record_episode=record_best_episode if options.videos else None,
    )


def record_best_episode(run: Path, video: Path) -> str:
    """Let a run's best network play one episode on the CPU; returns which network it was and its return."""
    from wn_rl.run.loading import load_run
    from wn_rl.run.play import record_episode

    loaded = load_run(run)
    played = record_episode(loaded.config, loaded.network, video, seed=0, tick=lambda: None)
    return f"{loaded.name}, return {played.returns[0]:g}"
