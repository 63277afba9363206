"""The report's figures: panels that can be read in light and dark, on paper and on a page."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator

from wn_rl.compare.arms import Arm
from wn_rl.config import flat
from wn_rl.report.comparison import rate_of
from wn_rl.report.findings import Findings
from wn_rl.report.read import series
from wn_rl.report.stats import MIN_SEEDS, Estimate, FloatArray
from wn_rl.report.words import game_title, slug
from wn_rl.run.folder import RunFolder, open_run

FOREGROUND = "#1f2429"
"""Of text and axes; in a page it becomes the colour of the page's text."""
PALETTE = ("#d9690a", "#2a7ee0", "#189a68", "#a45bd6", "#d6488b", "#84850f")
"""Each at least 3:1 against white and against the page's dark background (WCAG 1.4.11)."""
_MARKERS = "soD^vP"  # one for each colour, like the dashes
_DASHES = ("--", "-", "-.", ":", (0, (5, 1)), (0, (1, 1)))
_MAX_COLUMNS = 3
_PANEL_INCHES = (4.7, 3.3)
_STYLE: Any = {
    "text.parse_math": False,  # names of games and arms are not formulas
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(["axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"], FOREGROUND),
    "grid.color": FOREGROUND,
    "grid.alpha": 0.15,
    "axes.grid": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
}

_CAPTIONS = {
    "overview": "Evaluation scores by epoch: means over seeds with pointwise 95% intervals; "
    f"an arm with fewer than {MIN_SEEDS} seeds has a line for each run.",
    "rates-overview": "Maximum score by learning rate: means over seeds with 95% intervals; "
    "chosen rates are ringed.",
}
Draw = Callable[[Axes], None]


@dataclass(frozen=True)
class Picture:
    """A finished figure. Its name is that of its files, without a suffix."""

    name: str
    caption: str
    num_columns: int
    """Panels side by side."""
    png: bytes
    svg: str


def make_picture(name: str, caption: str, panels: Sequence[Draw]) -> Picture:
    """Panels in rows, with one legend above them."""
    columns = min(len(panels), _MAX_COLUMNS)
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure((_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows), layout="constrained")
        for place, draw in enumerate(panels, start=1):
            draw(figure.add_subplot(rows, columns, place))
        entries = [axes.get_legend_handles_labels() for axes in figure.axes]
        legend = {label: handle for pair in entries for handle, label in zip(*pair, strict=True)}
        if legend:
            options = {"fontsize": 9, "columnspacing": 1.2, "handlelength": 2.2, "ncols": 2 * columns}
            figure.legend(legend.values(), legend.keys(), loc="outside upper left", **options)
        png, svg = io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png", dpi=150, facecolor="white")
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Picture(name, caption, columns, png.getvalue(), svg.getvalue())


def pictures_of(findings: Findings) -> dict[str, list[Picture]]:
    """The figures of a comparison by their names in `_CAPTIONS`; an empty list where there is nothing to show."""
    comparison = findings.comparison
    games = [game for game in comparison.games if any((arm, game) in findings.curves for arm in findings.chosen)]
    rates = comparison.games if len(comparison.arms) > len(comparison.methods) else []
    panels: dict[str, list[Draw]] = {
        "overview": [partial(_draw_curves, findings, game) for game in games],
        "rates-overview": [partial(_draw_rates, findings, game) for game in rates],
    }
    prefix = slug(comparison.name)
    return {
        name: [make_picture(f"{prefix}-{name}", _CAPTIONS[name], drawn)] if drawn else []
        for name, drawn in panels.items()
    }


def style_of(method: Arm, methods: Sequence[Arm]) -> dict[str, Any]:
    """Keywords for matplotlib's plot: a method without options looks the same in all reports."""
    plain = [Arm("normal"), Arm("weight_norm"), Arm("batch_norm"), Arm("weight_norm_mean_only_bn")]
    place = [*plain, *(other for other in methods if other not in plain)].index(method) % len(PALETTE)
    return {"color": PALETTE[place], "marker": _MARKERS[place], "linestyle": _DASHES[place]}


def _draw_curves(findings: Findings, game: str, axes: Axes) -> None:
    """Figure 4 of the paper for one game: means with their bands, or the single runs if these are few."""
    period = findings.comparison.evaluation_period
    for arm in [arm for arm in findings.chosen if (arm, game) in findings.curves]:
        runs = findings.comparison.scores(arm, game)
        means, low, high = _ends(findings.curves[arm, game])
        epochs = np.arange(1, len(means) + 1)
        style = style_of(arm.method, findings.comparison.methods)
        few = len(runs) < MIN_SEEDS
        line = {**style, "markersize": 4 if len(epochs) <= 40 else 0, "linewidth": 1.3 if few else 1.8}
        for scores in runs if few else [means]:
            axes.plot(epochs, scores, label=arm.label, **line)
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.2, linewidth=0)
    axes.set(title=game_title(game), xlabel=f"epoch ({period:,} agent steps each)", ylabel="evaluation score")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _ends(estimates: Sequence[Estimate]) -> FloatArray:
    """Points, low ends and high ends [3, estimates]; NaN, which draws nothing, where there is no interval."""
    ends = [(estimate.point, estimate.low, estimate.high) for estimate in estimates]
    return np.array(ends, dtype=float).reshape(-1, 3).T


def _draw_rates(findings: Findings, game: str, axes: Axes) -> None:
    """Mean maximum score against the learning rate (the claim of the paper's section 6.2)."""
    methods = findings.comparison.methods
    for place, method in enumerate(methods):
        shift = 1 + 0.06 * (place - (len(methods) - 1) / 2)  # side by side, or bars would hide each other
        arms = [arm for arm in findings.comparison.arms if arm.method == method]
        means = [mean for arm in arms if (mean := findings.find("mean", "maximum", arm, game))]
        points, low, high = _ends([mean.estimate for mean in means])
        rates = shift * np.array([rate_of(mean.arm) for mean in means])
        style = {"capsize": 3, "markersize": 5, **style_of(method, methods)}
        axes.errorbar(rates, points, [points - low, high - points], label=method.label, **style)
        ringed = [mean.arm in findings.chosen for mean in means]
        axes.scatter(rates[ringed], points[ringed], s=130, facecolors="none", edgecolors=FOREGROUND, zorder=3)
    ticks = sorted({rate_of(arm) for arm in findings.comparison.arms})
    axes.set(title=game_title(game), xlabel="learning rate", ylabel="maximum score", xscale="log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08)


class _NotebookFigure(Figure):
    """A figure that a notebook shows without pyplot, which would choose a backend for the whole process."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png", facecolor="white")
        return png.getvalue()


def plot_learning_curves(runs: str | Path | Sequence[str | Path], *, baseline: float | None = None) -> Figure:
    """Raw return in training (mean of the last 100 episodes) and in evaluations against agent steps.

    runs: the folder of a run, or several; each run, finished or not, has a colour. baseline: a horizontal line,
    e.g. the random policy's score. A notebook shows the figure; elsewhere, `savefig` writes it.

    Raises:
        UserError: a run has no metrics.
    """
    figure = _NotebookFigure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for place, run in enumerate([runs] if isinstance(runs, (str, Path)) else runs):
        rows = RunFolder(Path(run)).read_rows()
        folder, _, config = open_run(run)
        folder.require_unchanged(flat(config))
        axes.plot(*series(rows, "train/return_last_100"), color=f"C{place}", alpha=0.5, linewidth=1)
        _, deviations = series(rows, "eval/return_std")
        style: Any = {"color": f"C{place}", "marker": "o", "markersize": 4, "capsize": 2}
        label = f"{config.game}, {config.parameterization}, seed {config.seed}"
        axes.errorbar(*series(rows, "eval/return_mean"), deviations, label=label, **style)
    if baseline is not None:
        axes.axhline(baseline, color="grey", linestyle="--", linewidth=1, label=f"random policy: {baseline:.2f}")
    axes.set(xlabel="agent steps", ylabel="raw return of an episode")
    axes.set_title("dots: evaluations, mean and standard deviation over episodes; thin line: training", fontsize=9)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
