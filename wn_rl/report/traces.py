"""What runs log beside their scores: the norms of weight-normalized layers, and speed."""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from wn_rl.report.comparison import Comparison
from wn_rl.report.records import Arm, Row, Run, series
from wn_rl.stats import FloatArray


@dataclass(frozen=True)
class NormCurve:
    """Mean |v| or |g| of a layer's units against steps, one line a run."""

    layer: str
    steps: FloatArray
    """[rows]"""
    norms: FloatArray
    """[seeds, rows]"""

    @property
    def growth(self) -> float:
        """The last value over that of the first row after initialization, mean over seeds."""
        return float((self.norms[:, -1] / self.norms[:, 0]).mean())


def norm_curves(comparison: Comparison, arm: Arm, game: str, kind: str) -> list[NormCurve]:
    """Of each layer; kind is "v" or "g". Layers in the order of the network; none for a method without norms.

    Rows are those at which every run has the value, those before the first update left out: they show the layers
    before their data-dependent initialization.
    """
    runs = comparison.runs_of(arm, game)
    prefix = f"norm_{kind}/"
    layers = dict.fromkeys(name for run in runs for row in run.rows for name in row if name.startswith(prefix))
    curves = []
    for name in layers:
        lines = [dict(zip(*series(_initialized(run), name), strict=True)) for run in runs]
        steps = sorted(set.intersection(*map(set, lines)))
        steps = [step for step in steps if step <= comparison.horizon]
        if steps:
            norms = np.array([[line[step] for step in steps] for line in lines])
            curves.append(NormCurve(name.removeprefix(prefix), np.array(steps, dtype=float), norms))
    return curves


def _initialized(run: Run) -> list[Row]:
    return [row for row in run.rows if row.get("updates") != 0]


@dataclass(frozen=True)
class Speed:
    """Frames per second of a method's runs of a game on one kind of machine: the median of each run [runs]."""

    method: str
    game: str
    machine: str
    frames_per_second: FloatArray


def speeds(comparison: Comparison) -> list[Speed]:
    """By method, game and machine, runs of all rates together."""
    medians: dict[tuple[str, str, str], list[float]] = {}
    for arm, game in product(comparison.arms, comparison.games):
        for run in comparison.runs_of(arm, game):
            median = frames_per_second(run)
            if not math.isnan(median):
                medians.setdefault((arm.method.label, game, machine(run)), []).append(median)
    return [Speed(*key, np.array(values)) for key, values in medians.items()]


def frames_per_second(run: Run) -> float:
    """Median over the rows of metrics; NaN without one."""
    _, values = series(run.rows, "frames_per_second")
    return float(np.median(values)) if values else math.nan


def machine(run: Run) -> str:
    """Where a run was made, as its record says; older records tell the device and the version of torch alone."""
    recorded = run.record.get("machine")
    if isinstance(recorded, str):
        return recorded
    version = (run.record.get("versions") or {}).get("torch", "unknown")
    return f"{run.config.get('device', 'unknown device')}, torch {version}"
