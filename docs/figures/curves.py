"""The curves of one run as small figures for a page: python docs/figures/curves.py (the data lie beside it).

Lines and texts take their colours from site.css, so that they can be read on a light and on a dark page.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WIDTH, HEIGHT = 330, 200
LEFT, RIGHT, TOP, BOTTOM = 38, 10, 10, 24

PANELS: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (
    (
        "Raw return",
        (("train/return_last_100", "training, last 100 episodes"), ("eval/return_mean", "evaluations")),
    ),
    ("Loss", (("loss", "mean Huber loss"),)),
    ("Action values", (("q_mean", "mean Q, batches"), ("held_out_q", "maximum Q, held out"))),
    ("Norm of v", (("norm_v/conv", "conv"), ("norm_v/dense", "dense"), ("norm_v/output", "output"))),
)


def series(rows: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """(step, value) of the rows that have a value."""
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]


def ticks(maximum: float) -> list[float]:
    """Three to six round numbers from 0 on."""
    step = 10.0 ** math.floor(math.log10(maximum))
    step = next(step * part for part in (0.1, 0.2, 0.5, 1, 2) if maximum / (step * part) < 6)
    return [step * number for number in range(int(maximum / step * 1.0001) + 1)]


def panel(title: str, lines: Sequence[tuple[str, list[tuple[int, float]]]]) -> Iterator[str]:
    """One figure: title, legend and plot."""
    maximum = max(value for _, points in lines for _, value in points) * 1.05
    last = max(step for _, points in lines for step, _ in points)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / maximum

    legend = " ".join(f'<span class="curve-{number}">{name}</span>' for number, (name, _) in enumerate(lines))
    yield f"<figure><figcaption><b>{title}</b> {legend}</figcaption>"
    yield f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} against agent steps">'
    for value in ticks(maximum):
        yield f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
    for step in (0, last // 2, last):
        anchor = "end" if step == last else "middle"
        yield f'<text x="{x(step):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{step:,}</text>'
    for number, (_, points) in enumerate(lines):
        path = "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in points)
        yield f'<path class="curve-{number}" d="M{path}"/>'
    yield "</svg></figure>"


def curves(file: Path) -> str:
    """The figures of a run, from its metrics.jsonl."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    figures = []
    for title, keys in PANELS:
        lines = [(name, series(rows, key)) for key, name in keys]
        figures += panel(title, [(name, points) for name, points in lines if points])
    return '<div class="curves">\n' + "\n".join(figures) + "\n</div>\n"


if __name__ == "__main__":
    for file in sorted(HERE.glob("*.jsonl")):
        file.with_suffix(".html").write_text(curves(file))
