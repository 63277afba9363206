"""The report's numbers as CSV, unrounded: a cell is empty if there is no number."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from wn_rl.compare.arms import Arm
from wn_rl.report.findings import METRICS, Findings
from wn_rl.report.published_scores import SOURCES
from wn_rl.report.read import LeftOut, Run, series
from wn_rl.report.stats import Estimate
from wn_rl.report.words import reading

Cells = dict[str, Any]


def csv_tables(examined: Sequence[Findings], left_out: Sequence[LeftOut]) -> dict[str, str]:
    """File names and contents; tables without rows are left out."""
    makers: dict[str, Callable[[Findings], Iterator[Cells]]] = {
        "findings.csv": _findings,
        "evaluations.csv": _evaluations,
        "runs.csv": _runs,
        "norms.csv": _norms,
    }
    rows = {
        name: [{"comparison": each.comparison.name, **cells} for each in examined for cells in make(each)]
        for name, make in makers.items()
    }
    for entry in left_out:
        known = _run(entry.run) if entry.run else {"folder": str(entry.folder)}
        rows["runs.csv"].append({**known, "left_out": entry.reason})
    return {name: _written(cells) for name, cells in rows.items() if cells}


def _written(rows: Sequence[Cells]) -> str:
    """The rows under the names of all their cells; NaN leaves a cell empty."""
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell for name, cell in row.items() if cell == cell} for row in rows)
    return file.getvalue()


def _arm(arm: Arm) -> Cells:
    return {"method": arm.method.label, "rate": arm.learning_rate}


def _estimate(estimate: Estimate) -> Cells:
    return {"value": estimate.point, "low": estimate.low, "high": estimate.high}


def _findings(findings: Findings) -> Iterator[Cells]:
    """The numbers, the means of single evaluations (metric evaluation, at a step), and published scores."""
    for found in findings.numbers:
        pair = found.arm, found.baseline
        own = found.arm in findings.chosen if found.baseline is None else pair in findings.own.items()
        yield {
            "quantity": found.quantity,
            "metric": found.metric,
            "step": None,
            "games": " ".join(found.games),
            **_arm(found.arm),
            "baseline": found.baseline and found.baseline.method.label,
            "baseline_rate": found.baseline and found.baseline.learning_rate,
            "rates": " and ".join(["own"] * own + ["equal"] * (pair in findings.equal.items())),
            **_estimate(found.estimate),
            "seeds": found.seeds,
            "baseline_seeds": found.baseline_seeds,
            "reading": reading(found.estimate, found.fewest_seeds) if found.quantity == "difference" else None,
        }
    for (arm, game), curve in findings.curves.items():
        seeds = (~np.isnan(findings.comparison.scores(arm, game))).sum(0)
        for epoch, mean in enumerate(curve, start=1):
            step = epoch * findings.comparison.evaluation_period
            place = {"quantity": "mean", "metric": "evaluation", "step": step, "games": game, **_arm(arm)}
            yield {**place, **_estimate(mean), "seeds": seeds[epoch - 1]}
    for game in findings.comparison.games:
        for source, score in findings.published.get(game, {}).items():
            place = {"quantity": "published", "metric": "maximum", "games": game}
            yield {**place, "method": SOURCES[source], "value": score}


def _evaluations(findings: Findings) -> Iterator[Cells]:
    comparison = findings.comparison
    for run in comparison.runs:
        for epoch, score in enumerate(run.scores(comparison.num_epochs), start=1):
            place = {"seed": run.seed, "epoch": epoch, "step": epoch * comparison.evaluation_period}
            yield {"game": run.game, **_arm(run.arm), **place, "score": score}


def _run(run: Run) -> Cells:
    which = {"folder": str(run.folder), "suite": run.suite, "game": run.game, **_arm(run.arm), "seed": run.seed}
    progress = {"steps": run.steps, "status": run.status.status, "last_step": run.last_step}
    return {**which, **progress, "frames_per_second": run.frames_per_second, "machine": run.machine}


def _runs(findings: Findings) -> Iterator[Cells]:
    for run in findings.comparison.runs:
        scores = run.scores(findings.comparison.num_epochs)[None]
        metrics = {name: metric(scores)[0] for name, metric in METRICS.items()}
        yield {**_run(run), **metrics, "evaluations_without_score": int(np.isnan(scores).sum()), "left_out": None}


def _norms(findings: Findings) -> Iterator[Cells]:
    """Mean |v| or |g| over the units of each layer, at a run's first and last row; means over the seeds of an arm.

    Rows before the first update show the layers before their data-dependent initialization, so they are left out.
    """
    comparison = findings.comparison
    for arm, game in product(comparison.arms, comparison.games):
        runs = [
            [row for row in run.rows if row.get("updates") != 0 and row["step"] <= comparison.horizon]
            for run in comparison.runs_of(arm, game)
        ]
        for name in dict.fromkeys(name for rows in runs for row in rows for name in row):
            curves = [series(rows, name) for rows in runs]
            if name.startswith("norm_") and all(steps for steps, _ in curves):
                kind, _, layer = name.removeprefix("norm_").partition("/")
                steps = {"first_step": curves[0][0][0], "last_step": curves[0][0][-1]}
                first, last = np.array([(norms[0], norms[-1]) for _, norms in curves]).T
                ends = {"first": first.mean(), "last": last.mean(), "growth": (last / first).mean()}
                yield {"game": game, **_arm(arm), "norm": kind, "layer": layer, **steps, **ends}
