"""The report's figures: small panels, readable one above the other on a phone, in light and dark."""

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, NullLocator

from wn_rl.report.other_curves import OtherCurve
from wn_rl.report.records import Arm, Method
from wn_rl.report.results import ArmCurve, ArmScore
from wn_rl.report.traces import NormCurve
from wn_rl.run.folder import file_name
from wn_rl.stats import MIN_SEEDS

FOREGROUND = "#1f2429"
"""Of text and axes; in a page it becomes the colour of the page's text."""
PALETTE = ("#d9690a", "#2a7ee0", "#189a68", "#a45bd6", "#d6488b", "#84850f")
"""Each at least 3:1 against white and against the page's dark background (WCAG 1.4.11)."""
_MARKERS = "soD^vP"
_DASHES = ("--", "-", "-.", ":", (0, (5, 1)), (0, (1, 1)))
_PANEL_INCHES = (4.7, 3.3)
_PNG_DPI = 150
_STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FOREGROUND,
    "axes.labelcolor": FOREGROUND,
    "text.color": FOREGROUND,
    "xtick.color": FOREGROUND,
    "ytick.color": FOREGROUND,
    "grid.color": FOREGROUND,
    "grid.alpha": 0.15,
    "axes.grid": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
}

Draw = Callable[[Axes], None]


@dataclass(frozen=True)
class Figure:
    """A finished picture. Its name is that of its files, without an ending."""

    name: str
    title: str
    caption: str
    png: bytes
    svg: str


def make_figure(name: str, title: str, caption: str, panels: Sequence[Draw]) -> Figure:
    """Panels side by side with one legend above them."""
    width, height = _PANEL_INCHES
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        canvas = Canvas(figsize=(width * len(panels), height), layout="constrained")
        for number, draw in enumerate(panels):
            draw(canvas.add_subplot(1, len(panels), number + 1))
        entries = [axes.get_legend_handles_labels() for axes in canvas.axes]
        legend = {label: handle for pair in entries for handle, label in zip(*pair, strict=True)}
        if legend:
            labels = {"fontsize": 9, "columnspacing": 1.2, "handlelength": 2.2}
            canvas.legend(
                legend.values(), legend.keys(), loc="outside upper left", ncols=2 * len(panels), **labels
            )
        png, svg = io.BytesIO(), io.StringIO()
        canvas.savefig(png, format="png", dpi=_PNG_DPI, facecolor="white")
        canvas.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Figure(file_name(name), title, caption, png.getvalue(), svg.getvalue())


_OF_ONE_COLOUR = ("normal", "weight_norm", "batch_norm", "weight_norm_mean_only_bn")


class Look:
    """Colour, marker and line of each method: the same in all figures, for plain methods in all reports."""

    def __init__(self, methods: Sequence[Method]) -> None:
        others = [m for m in methods if m.options or m.parameterization not in _OF_ONE_COLOUR]
        self._order = [*map(Method, _OF_ONE_COLOUR), *others]

    def of(self, method: Method) -> dict[str, Any]:
        """Keywords for matplotlib's plot and errorbar."""
        number = self._order.index(method)
        return {
            "color": PALETTE[number % len(PALETTE)],
            "marker": _MARKERS[number % len(_MARKERS)],
            "linestyle": _DASHES[number % len(_DASHES)],
        }


def draw_curves(
    curves: Sequence[ArmCurve], others: Sequence[OtherCurve], look: Look, test_period: int, title: str
) -> Draw:
    """Test scores against epochs, as the paper's Figure 4: means with bands, or single runs if these are few.

    others: means of other people's runs.
    """

    def draw(axes: Axes) -> None:
        for other, dashes in zip(others, itertools.cycle(_DASHES)):
            line: dict[str, Any] = {"color": FOREGROUND, "alpha": 0.6, "linewidth": 1.3, "linestyle": dashes}
            axes.plot(other.steps / test_period, other.returns, label=other.name, **line)
        for curve in curves:
            style = look.of(curve.arm.method)
            epochs = np.arange(1, curve.scores.shape[1] + 1)
            _draw_curve(axes, curve, epochs, style)
        axes.set_title(title)
        axes.set_xlabel(f"epoch ({test_period:,} agent steps each)")
        axes.set_ylabel("test score")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))

    return draw


def _draw_curve(axes: Axes, curve: ArmCurve, epochs: np.ndarray, style: dict[str, Any]) -> None:
    line = {**style, "markersize": 4 if epochs.size <= 40 else 0, "label": curve.arm.label}
    if len(curve.scores) < MIN_SEEDS:
        for run in curve.scores:
            axes.plot(epochs, run, linewidth=1.3, **line)
        return
    axes.plot(epochs, curve.band.mean, linewidth=1.8, **line)
    axes.fill_between(epochs, curve.band.low, curve.band.high, color=str(style["color"]), alpha=0.2, linewidth=0)


def draw_robustness(scores: Sequence[ArmScore], chosen: Sequence[Arm], look: Look, title: str) -> Draw:
    """Mean maximum test score against the learning rate, chosen rates ringed (the claim of section 6.2)."""

    def draw(axes: Axes) -> None:
        methods = list(dict.fromkeys(score.arm.method for score in scores))
        for number, method in enumerate(methods):
            aside = 1 + 0.06 * (number - (len(methods) - 1) / 2)  # side by side, or bars would hide each other
            mine = [score for score in scores if score.arm.method == method]
            _draw_rates(axes, mine, aside, look.of(method), method.label)
            for ringed in [score for score in mine if score.arm in chosen]:
                place = aside * ringed.arm.rate, ringed.mean.point
                axes.scatter(*place, s=130, facecolors="none", edgecolors=FOREGROUND, zorder=3)
        rates = sorted({score.arm.rate for score in scores})
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.08)
        axes.set_title(title)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("maximum test score")

    return draw


def _draw_rates(axes: Axes, scores: Sequence[ArmScore], aside: float, style: dict[str, Any], label: str) -> None:
    """One method. aside: what its rates are multiplied by."""
    means = np.array([score.mean.point for score in scores])
    low, high = (
        np.array([np.nan if end is None else end for end in ends])
        for ends in ([score.mean.low for score in scores], [score.mean.high for score in scores])
    )
    errors = np.array([means - low, high - means])  # NaN draws no bar
    rates = [aside * score.arm.rate for score in scores]
    axes.errorbar(rates, means, errors, capsize=3, markersize=5, label=label, **style)


def draw_norms(curves: Sequence[NormCurve], symbol: str, title: str) -> Draw:
    """Each layer's norm over that of its first row, against steps: mean over seeds, and all of them as a band."""

    def draw(axes: Axes) -> None:
        for number, curve in enumerate(curves):
            colour = PALETTE[number % len(PALETTE)]
            growth = curve.norms / curve.norms[:, :1]
            dashes = _DASHES[number % len(_DASHES)]
            axes.plot(curve.steps, growth.mean(0), color=colour, linestyle=dashes, label=curve.layer)
            axes.fill_between(curve.steps, growth.min(0), growth.max(0), color=colour, alpha=0.15, linewidth=0)
        axes.set_title(title)
        axes.set_xlabel("agent steps")
        axes.set_ylabel(f"{symbol}, 1 at the first row")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.xaxis.set_major_formatter(lambda value, _: steps_label(value))

    return draw


def steps_label(value: float) -> str:
    """A number of steps for an axis: 250k, 1.5M."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value else "0"
