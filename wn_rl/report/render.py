"""A report as one HTML page that needs nothing else, and as Markdown; and the sentences in both."""

import base64
import html
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wn_rl.errors import counted, in_one_line
from wn_rl.report.figures import FOREGROUND, Picture
from wn_rl.report.stats import COVERAGE, MIN_SEEDS, NUM_RESAMPLES
from wn_rl.report.words import game_title, listed, score

MAX_EMBEDDED_BYTES = 2_000_000
"""A larger video is linked."""


@dataclass(frozen=True)
class Table:
    """Cells as they are shown."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Clip:
    """A video. Its path is relative to the report's folder."""

    title: str
    path: str
    mp4: bytes


@dataclass(frozen=True)
class Fold:
    """A part of the report that a reader has to open."""

    title: str
    texts: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    clips: Sequence[Clip] = ()
    code: str = ""


@dataclass(frozen=True)
class Chapter:
    """One comparison: what a reader sees first, and what is folded."""

    title: str
    intro: Sequence[str]
    pictures: Sequence[Picture]
    table: Table
    notes: Sequence[str]
    folds: Sequence[Fold]


def render_page(title: str, chapters: Sequence[Chapter], folds: Sequence[Fold]) -> str:
    """The HTML page: it has no script, and loads no font, file or address."""
    return str(_template("report.html.j2").render(title=title, chapters=chapters, folds=folds))


def render_markdown(title: str, chapters: Sequence[Chapter], folds: Sequence[Fold]) -> str:
    """Markdown for a repository's own pages; figures and videos are linked."""
    text = _template("report.md.j2").render(title=title, chapters=chapters, folds=folds)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def say(macro: str, **values: Any) -> list[str]:
    """The paragraphs of a macro of texts.j2, as plain text."""
    text: str = getattr(_template("texts.j2").module, macro)(**values)
    return [line.strip() for line in text.splitlines() if line.strip()]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; all cells are shown as they are."""
    lines = ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in (header, *rows)]
    lines.insert(1, "|" + "---|" * len(header))
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """Text on one line that Markdown shows as it is."""
    return re.sub(r"([\\`*<|\[\]]|\b_|_\b)", r"\\\1", in_one_line(text))


@cache
def _template(name: str) -> Any:
    finalize = {
        "report.md.j2": lambda value: value if isinstance(value, Markup) else escape_markdown(str(value)),
        "texts.j2": lambda value: re.sub(r"[\r\n]+", " ", value) if isinstance(value, str) else value,
    }
    environment = Environment(
        loader=PackageLoader("wn_rl.report", ""),
        autoescape=name == "report.html.j2",
        finalize=finalize.get(name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(counted=counted, listed=listed, score=score, max_embedded=MAX_EMBEDDED_BYTES)
    environment.globals.update(coverage=COVERAGE, min_seeds=MIN_SEEDS, num_resamples=NUM_RESAMPLES)
    environment.filters |= {
        "base64": lambda data: base64.b64encode(data).decode(),
        "html": lambda text: Markup(html.escape(text, quote=False)),
        "inline_svg": _inline_svg,
        "join_words": shlex.join,
        "markdown_table": lambda t: Markup(f"{escape_markdown(t.caption)}\n\n{markdown_table(t.header, t.rows)}"),
        "title_of": game_title,
    }
    return environment.get_template(name)


def _inline_svg(picture: Picture) -> Markup:
    """The SVG itself, so that its text takes the colour of the page's."""
    svg = picture.svg[picture.svg.index("<svg") :].replace(FOREGROUND, "currentColor")
    svg = re.sub(r' (?:width|height)="[^"]*pt"', "", svg, count=2)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(picture.caption)}" ', 1))
