"""The benchmark page: results as the tables of page.md."""

import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from bench.measure import Row, Section
from wn_rl.report.render import markdown_table

COMMAND = "python scripts/benchmark.py"
TEMPLATE = Path(__file__).with_name("page.md").read_text()
PLACES = [name for _, name, _, _ in string.Formatter().parse(TEMPLATE) if name]
SB3 = "SB3 DQN, float32"  # the loop that all others are compared with
IN_SHORT = (
    "These are medians of agent steps per second. In brackets is the speed-up over SB3 (which has normal layers "
    "only), first with the same number of lanes, then against SB3's usual single lane:"
)
LOOPS_IN_SHORT = (
    SB3,
    "ours, normal, float32",
    "ours, weight_norm, float32",
    "ours, normal, bfloat16",
    "ours, normal, bfloat16, compile",
)


def place_of(section: str, on_cuda: bool) -> str:
    """The place of a section on the page: a CUDA device's results have one of their own beside those of a CPU."""
    return f"cuda_{section}" if on_cuda and f"cuda_{section}" in PLACES else section


def render(results: dict[str, Any]) -> str:
    """The page in Markdown. A section without rows says that it was not measured, and how to measure it."""
    return TEMPLATE.format(**{place: _section(place, results.get(place, {"rows": []})) for place in PLACES})


def _section(place: str, found: dict[str, Any]) -> str:
    rows = [Row(**row) for row in found["rows"]]
    if not rows:
        flags = place if place in get_args(Section) else f"{place.removeprefix('cuda_')} --device cuda"
        return f"Not measured. `{COMMAND} {flags}` fills this in on a machine that has what it needs."
    interrupted = "" if found["complete"] else " Interrupted: rows are missing."
    parts = [f"{found['machine']}. `{found['command']}`, {found['date']}, commit {found['commit']}.{interrupted}"]
    if place.endswith("peers"):
        parts += [IN_SHORT, peers_in_short(rows), "All loops, with their spreads:"]
    columns = list(dict.fromkeys(name for row in rows for name in row.what))
    cells = [[*(str(row.what.get(name, "")) for name in columns), _result(row)] for row in rows]
    sources = dict.fromkeys(row.limit_source for row in rows if row.limit is not None)
    if not sources:
        return "\n\n".join([*parts, markdown_table([*columns, "result"], cells)])
    for row, line in zip(rows, cells, strict=True):
        line.append("" if row.limit is None else f"{row.median / row.limit:.2f} x {_number(row.limit)}")
    parts.append(markdown_table([*columns, "result", "of the reference"], cells))
    return "\n\n".join([*parts, f"References: {'; '.join(sources)}."])


def _result(row: Row) -> str:
    """The median with its spread."""
    spread = f" ({_number(min(row.values))} to {_number(max(row.values))})" if len(row.values) > 1 else ""
    return f"{_number(row.median)} {row.unit}{spread}"


def peers_in_short(rows: Iterable[Row]) -> str:
    """A table with a line for each game and number of lanes, from the rows of the section peers."""
    medians: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        *names, loop = map(str, row.what.values())
        medians.setdefault(tuple(names), {})[loop] = row.median
    loops = [loop for loop in LOOPS_IN_SHORT if any(loop in found for found in medians.values())]
    lines = [[*names, *(_in_short(loop, found) for loop in loops)] for names, found in medians.items()]
    return markdown_table(["suite", "game", "lanes", *loops], lines)


def _in_short(loop: str, medians: dict[str, float]) -> str:
    """The steps per second of a loop, with its ratios; empty if it was not measured."""
    times = [
        f"{medians[name]:.2f}" for name in (f"{loop} / SB3", f"{loop} / SB3 with one lane") if name in medians
    ]
    rate = _number(medians[loop]) if loop in medians else ""
    return f"{rate} ({', '.join(times)})" if times else rate


def _number(value: float) -> str:
    """Three significant digits, and no exponent."""
    rounded = f"{value:.3g}"
    return f"{float(rounded):,.0f}" if abs(value) >= 1000 else rounded
