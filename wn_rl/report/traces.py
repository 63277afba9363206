"""What runs log beside their scores: the norms of weight-normalized layers, and speed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from wn_rl.arms import Arm
from wn_rl.report.comparison import Comparison
from wn_rl.report.read import series
from wn_rl.report.stats import FloatArray


@dataclass(frozen=True)
class NormCurve:
    """Mean |v| or |g| over the units of one layer against steps, one line a run of the arm in the game."""

    arm: Arm
    game: str
    kind: str
    """v or g."""
    layer: str
    steps: FloatArray
    """[rows]"""
    norms: FloatArray
    """[seeds, rows]"""

    @property
    def growth(self) -> float:
        """The last value over the first one after initialization, mean over seeds."""
        return float((self.norms[:, -1] / self.norms[:, 0]).mean())


def norm_curves(comparison: Comparison) -> Iterator[NormCurve]:
    """Of every arm with norms in every game: v, then g, each by layer in the order of the network.

    Rows are those in which every run has the value. Rows before the first update show the layers before their
    data-dependent initialization, so they are left out.
    """
    for arm, game, kind in product(comparison.arms, comparison.games, "vg"):
        runs = [[row for row in run.rows if row.get("updates") != 0] for run in comparison.runs_of(arm, game)]
        names = dict.fromkeys(name for rows in runs for row in rows for name in row)
        for name in [name for name in names if name.startswith(f"norm_{kind}/")]:
            lines = [dict(zip(*series(rows, name), strict=True)) for rows in runs]
            steps = sorted(set.intersection(*map(set, lines)))
            steps = [step for step in steps if step <= comparison.horizon]
            if steps:
                norms = np.array([[line[step] for step in steps] for line in lines])
                layer = name.partition("/")[2]
                yield NormCurve(arm, game, kind, layer, np.array(steps, dtype=float), norms)


def speeds(comparison: Comparison) -> dict[tuple[Arm, str, str], FloatArray]:
    """Frames per second by method, game and machine: the median of each run [runs], runs of all rates together."""
    medians: dict[tuple[Arm, str, str], list[float]] = {}
    for arm, game in product(comparison.arms, comparison.games):
        for run in comparison.runs_of(arm, game):
            if not math.isnan(run.frames_per_second):
                medians.setdefault((arm.method, game, run.machine), []).append(run.frames_per_second)
    return {key: np.array(values) for key, values in medians.items()}
