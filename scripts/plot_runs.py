"""Plot the learning curves of runs: python scripts/plot_runs.py RUN ... --out FIGURE.png [--baseline SCORE]."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from wn_rl.errors import UserError, say
from wn_rl.plots import plot_learning_curves


@dataclass(frozen=True)
class PlotRuns:
    """Plot raw returns in training and in tests."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    out: Path
    """The picture to write."""
    baseline: float | None = None
    """A score to draw as a line, e.g. the random policy's."""


options = tyro.cli(PlotRuns)
try:
    if not options.runs:
        raise UserError("name the folder of a run")
    plot_learning_curves(options.runs, options.out, baseline=options.baseline)
except (ValueError, OSError) as error:
    say(str(error))
    sys.exit(2)
