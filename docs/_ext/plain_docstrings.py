"""Docstrings of this project are plain text, with `code` in single backticks; here they become reStructuredText.

Without this, |v| would be a substitution, *O emphasis, and a table drawn with spaces a paragraph.
"""

import re
from typing import Any

from sphinx.application import Sphinx

SECTION = re.compile(r"(Args|Raises):$")
ENTRY = re.compile(r"    (?! )([^:]+): (.*)")


def escape(text: str) -> str:
    """One line of text: `code` as code, the rest as it stands."""
    parts = re.split(r"(`[^`]+`)", text)
    for index, part in enumerate(parts):
        is_code = index % 2 == 1
        parts[index] = f"`{part}`" if is_code else re.sub(r"([*|`\\]|(?<=\w)_(?!\w))", r"\\\1", part)
    return "".join(parts)


def convert(lines: list[str]) -> list[str]:
    """A docstring. Entries of a section become a list; other indented paragraphs are kept as they are drawn."""
    converted: list[str] = []
    in_section = in_drawing = False
    for number, line in enumerate(lines):
        if line and not line.startswith(" "):
            in_section, in_drawing = bool(SECTION.match(line)), False
        entry = ENTRY.match(line) if in_section else None
        if SECTION.match(line):
            converted += [line, ""]
        elif entry is not None:
            converted.append(f"- ``{entry[1]}``: {escape(entry[2])}")
        elif in_section:
            converted.append(f"  {escape(line.strip())}" if line else "")
        elif in_drawing or line.startswith((">>>", "Traceback", "ValueError:")):
            converted.append(line)
        elif line.startswith("  ") and number > 0 and not lines[number - 1]:
            converted += ["::", "", line]
            in_drawing = True
        else:
            converted.append(escape(line))
    return converted


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Called for each docstring."""
    lines[:] = convert(lines)


def skip(app: Sphinx, what: str, name: str, obj: Any, is_skipped: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, whose docstrings say their numbers: the class says what they are."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Convert every docstring that autodoc reads."""
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-skip-member", skip)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
