"""Figures of finished and unfinished runs, from their metrics.jsonl alone."""

from collections.abc import Sequence
from pathlib import Path

from wn_rl.report.figures import steps_label
from wn_rl.report.records import read_rows, series
from wn_rl.run.folder import open_run


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
        _, _, config = open_run(run)
        label = f"{config.game}, {config.parameterization}, seed {config.seed}"
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
    axes.xaxis.set_major_formatter(lambda value, _: steps_label(value))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
