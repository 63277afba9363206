"""The benchmark page: results as the tables of page.md."""

import statistics
import string
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from bench.measure import Row, Section
from wn_rl.report.render import markdown_table

COMMAND = "python scripts/benchmark.py"
TEMPLATE = Path(__file__).with_name("page.md").read_text()
PLACES = [name for _, name, _, _ in string.Formatter().parse(TEMPLATE) if name]


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
    origin = f"{found['machine']}. `{found['command']}`, {found['date']}, commit {found['commit']}.{interrupted}"
    lines = [{**row.what, **{heading: _result(values) for heading, values in row.results.items()}} for row in rows]
    names = list(dict.fromkeys(chain(*(row.what for row in rows), *(row.results for row in rows))))
    cells = [[str(line.get(name, "")) for name in names] for line in lines]
    return f"{origin}\n\n{markdown_table(names, cells)}"


def _result(values: list[float]) -> str:
    """The median with its spread."""
    spread = f" ({_number(min(values))} to {_number(max(values))})" if len(values) > 1 else ""
    return f"{_number(statistics.median(values))}{spread}"


def _number(value: float) -> str:
    """Three significant digits, and no exponent."""
    rounded = f"{value:.3g}"
    return f"{float(rounded):,.0f}" if abs(value) >= 1000 else rounded
