"""Figures of finished and unfinished runs, from their metrics.jsonl alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wn_rl.errors import UserError
from wn_rl.runs import RunFolder


def read_rows(run: Path) -> list[dict[str, Any]]:
    """The whole rows of metrics.jsonl; a live run may be writing another. UserError if the folder has none."""
    try:
        text = RunFolder(run).metrics_file.read_text()
    except OSError as error:
        raise UserError(f"{run} has no metrics: {error.strerror}") from None
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def series(rows: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, rows without it left out."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def plot_learning_curves(runs: Sequence[Path], path: Path, *, baseline: float | None = None) -> None:
    """Raw return in training (mean of the last 100 games) and in tests against agent steps, one colour a run.

    baseline: a horizontal line, e.g. the random policy's score on the tests' protocol.

    Raises:
        UserError: a run has no metrics.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for number, run in enumerate(runs):
        rows = read_rows(run)
        config = RunFolder(run).read_config()["config"]
        label = f"{config['game']}, {config['parameterization']}, seed {config['seed']}"
        colour = f"C{number}"
        axes.plot(*series(rows, "train/return_last_100"), color=colour, alpha=0.5, linewidth=1)
        steps, means = series(rows, "eval/return_mean")
        _, deviations = series(rows, "eval/return_std")
        axes.errorbar(
            steps, means, yerr=deviations, color=colour, marker="o", markersize=4, capsize=2, label=label
        )
    if baseline is not None:
        axes.axhline(baseline, color="grey", linestyle="--", linewidth=1, label=f"random policy: {baseline:.2f}")
    axes.set_xlabel("agent steps")
    axes.set_ylabel("raw return of a game")
    axes.set_title("dots: tests, mean and standard deviation over games; thin line: training", fontsize=9)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}k")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
