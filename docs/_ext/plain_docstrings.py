"""Docstrings of this project are plain text, with `code` in single backticks; here they become reStructuredText.

Without this, |v| would be a substitution, *O emphasis, and a table drawn with spaces a paragraph.
"""

import re
from typing import Any

from sphinx.application import Sphinx

SECTION = re.compile(r"(Args|Raises|Returns|Yields):$")


def escape(line: str) -> str:
    """One line of text: `code` as code, the rest as it stands."""
    parts = re.split(r"(`[^`]+`)", line)
    for index, part in enumerate(parts):
        is_code = index % 2 == 1
        parts[index] = f"`{part}`" if is_code else re.sub(r"([*|`\\]|(?<=\w)_(?!\w))", r"\\\1", part)
    return "".join(parts)


def convert(lines: list[str]) -> list[str]:
    """A docstring. Paragraphs that are indented, but for those of a section, are kept as they are drawn."""
    converted: list[str] = []
    in_section = in_drawing = False
    for number, line in enumerate(lines):
        if line and not line.startswith(" "):
            in_section, in_drawing = bool(SECTION.match(line)), False
        after_blank = number > 0 and not lines[number - 1]
        if line.startswith("  ") and after_blank and not in_section and not in_drawing:
            converted += ["::", ""]
            in_drawing = True
        is_literal = in_drawing or line.startswith((">>>", "Traceback", "ValueError:")) or SECTION.match(line)
        converted.append(line if is_literal else escape(line))
    return converted


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Called for each docstring, before napoleon."""
    lines[:] = convert(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Convert every docstring that autodoc reads."""
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
