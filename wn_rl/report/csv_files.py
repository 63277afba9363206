"""The report's numbers as CSV, unrounded: one row an observation, an empty cell where there is no number."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from wn_rl.report.records import LeftOut, Run
from wn_rl.report.results import METRICS, Contrast, Findings
from wn_rl.report.traces import frames_per_second, machine, norm_curves
from wn_rl.report.words import reading
from wn_rl.stats import Estimate

Cells = dict[str, Any]


def csv_files(every: Sequence[Findings], left_out: Sequence[LeftOut]) -> dict[str, str]:
    """File names and contents."""
    tables = {
        "runs.csv": [*_runs(every), *_left_out(left_out)],
        "tests.csv": _tests(every),
        "table3.csv": _table_3(every),
        "scores.csv": _scores(every),
        "differences.csv": _differences(every),
        "spreads.csv": _spreads(every),
        "over_games.csv": _over_games(every),
        "human_normalized.csv": _human(every),
        "curves.csv": _curves(every),
        "norms.csv": _norms(every),
    }
    return {name: text for name, rows in tables.items() if (text := _written(list(rows)))}


def _written(rows: list[Cells]) -> str:
    """Rows under the names of all their cells; empty without rows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    if rows:
        writer.writeheader()
        writer.writerows(rows)
    return file.getvalue()


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _estimate(name: str, estimate: Estimate | None) -> Cells:
    if estimate is None:
        return {}
    return {name: estimate.point, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _run(run: Run) -> Cells:
    arm = run.arm
    return {
        "folder": str(run.folder),
        "suite": run.suite,
        "game": run.game,
        "method": arm.method.label,
        "rate": arm.rate,
        "seed": run.seed,
        "steps": run.steps,
        "status": run.status,
        "last_step": run.last_step,
        "frames_per_second": _number(frames_per_second(run)),
        "machine": machine(run),
    }


def _runs(every: Sequence[Findings]) -> Iterator[Cells]:
    for findings in every:
        comparison = findings.comparison
        for run in comparison.runs:
            scores = run.scores(comparison.num_epochs)[None]
            metrics = {name: _number(metric(scores)[0]) for name, metric in METRICS.items()}
            missing = int(np.isnan(scores).sum())
            yield {
                "comparison": comparison.name,
                **_run(run),
                **metrics,
                "tests_without_score": missing,
                "left_out": None,
            }


def _tests(every: Sequence[Findings]) -> Iterator[Cells]:
    for findings in every:
        comparison = findings.comparison
        for run in comparison.runs:
            for epoch, score in enumerate(run.scores(comparison.num_epochs), start=1):
                yield {
                    "comparison": comparison.name,
                    "game": run.game,
                    "method": run.arm.method.label,
                    "rate": run.arm.rate,
                    "seed": run.seed,
                    "epoch": epoch,
                    "step": epoch * comparison.test_period,
                    "score": _number(score),
                }


def _left_out(left_out: Sequence[LeftOut]) -> Iterator[Cells]:
    for entry in left_out:
        known = _run(entry.run) if entry.run else {"folder": str(entry.folder)}
        yield {**known, "left_out": entry.reason}


def _table_3(every: Sequence[Findings]) -> Iterator[Cells]:
    for findings in every:
        for game in findings.comparison.games:
            row: Cells = {"comparison": findings.comparison.name, "game": game}
            for arm in findings.chosen:
                found = findings.score(arm, game, "maximum")
                if found:
                    row |= {**_estimate(arm.label, found.mean), f"{arm.label}_seeds": found.scores.size}
            published = findings.references.scores.get(game, {}) if findings.references else {}
            yield {**row, **{f"published_{source}": score for source, score in published.items()}}


def _scores(every: Sequence[Findings]) -> Iterator[Cells]:
    for findings in every:
        for score in findings.scores:
            yield {
                "comparison": findings.comparison.name,
                "game": score.game,
                "method": score.arm.method.label,
                "rate": score.arm.rate,
                "chosen": score.arm in findings.chosen,
                "metric": score.metric,
                "seeds": score.scores.size,
                **_estimate("mean", score.mean),
                "runs_left_out": findings.comparison.num_left_out(score.arm, score.game),
            }


def _contrasts(every: Sequence[Findings]) -> Iterator[tuple[Cells, Contrast]]:
    for findings in every:
        for question, contrasts in (("own", findings.own_rates), ("equal", findings.equal_rates)):
            for contrast in contrasts:
                yield (
                    {
                        "comparison": findings.comparison.name,
                        "rates": question,
                        "method": contrast.treatment.method.label,
                        "rate": contrast.treatment.rate,
                        "baseline": findings.comparison.baseline.label,
                        "baseline_rate": contrast.baseline.rate,
                    },
                    contrast,
                )


def _differences(every: Sequence[Findings]) -> Iterator[Cells]:
    for cells, contrast in _contrasts(every):
        for game in contrast.games:
            yield {
                **cells,
                "game": game.game,
                "metric": game.metric,
                "seeds": game.treatment.size,
                "baseline_seeds": game.baseline.size,
                "mean": float(game.treatment.mean()),
                "baseline_mean": float(game.baseline.mean()),
                **_estimate("difference", game.difference),
                **_estimate("probability_of_improvement", game.improvement),
                "reading": reading(game.difference, contrast.treatment.method.label, game.seeds),
            }


def _spreads(every: Sequence[Findings]) -> Iterator[Cells]:
    for findings in every:
        for spread in findings.spreads:
            yield {
                "comparison": findings.comparison.name,
                "method": spread.method.label,
                "baseline": findings.comparison.baseline.label,
                "game": spread.game,
                "metric": spread.metric,
                "rates": " ".join(f"{rate:g}" for rate in spread.rates),
                "fewest_seeds": min(spread.seeds),
                "most_seeds": max(spread.seeds),
                **_estimate("spread", spread.treatment),
                **_estimate("baseline_spread", spread.baseline),
                **_estimate("difference", spread.difference),
            }


def _over_games(every: Sequence[Findings]) -> Iterator[Cells]:
    for cells, contrast in _contrasts(every):
        for aggregate in contrast.over_games:
            yield {
                **cells,
                "metric": aggregate.metric,
                "games": " ".join(aggregate.games),
                **_estimate("iqm", aggregate.treatment_iqm),
                **_estimate("baseline_iqm", aggregate.baseline_iqm),
                **_estimate("iqm_difference", aggregate.iqm_difference),
                **_estimate("probability_of_improvement", aggregate.improvement),
            }


def _human(every: Sequence[Findings]) -> Iterator[Cells]:
    for findings in every:
        for human in findings.human:
            yield {
                "comparison": findings.comparison.name,
                "method": human.arm.method.label,
                "rate": human.arm.rate,
                "metric": human.metric,
                "games": " ".join(human.games),
                **_estimate("iqm", human.iqm),
            }


def _curves(every: Sequence[Findings]) -> Iterator[Cells]:
    for findings in every:
        for curve in findings.curves:
            band = curve.band
            for test in range(findings.comparison.num_epochs):
                yield {
                    "comparison": findings.comparison.name,
                    "game": curve.game,
                    "method": curve.arm.method.label,
                    "rate": curve.arm.rate,
                    "epoch": test + 1,
                    "step": (test + 1) * findings.comparison.test_period,
                    "seeds": int((~np.isnan(curve.scores[:, test])).sum()),
                    "mean": _number(band.mean[test]),
                    "mean_low": _number(band.low[test]),
                    "mean_high": _number(band.high[test]),
                }


def _norms(every: Sequence[Findings]) -> Iterator[Cells]:
    for findings in every:
        comparison = findings.comparison
        for arm in comparison.arms:
            for game in comparison.games:
                for kind in "vg":
                    for curve in norm_curves(comparison, arm, game, kind):
                        yield {
                            "comparison": comparison.name,
                            "game": game,
                            "method": arm.method.label,
                            "rate": arm.rate,
                            "norm": kind,
                            "layer": curve.layer,
                            "first_step": curve.steps[0],
                            "last_step": curve.steps[-1],
                            "first": float(curve.norms[:, 0].mean()),
                            "last": float(curve.norms[:, -1].mean()),
                            "growth": curve.growth,
                        }
