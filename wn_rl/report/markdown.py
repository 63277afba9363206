"""A report as Markdown, for a repository's own pages. Figures and videos are linked, not held."""

import re
from collections.abc import Sequence

from wn_rl.report.blocks import Block, Bullets, Caution, Clips, Code, Figures, Section, Table, Text


def render_markdown(title: str, sections: Sequence[Section]) -> str:
    """The whole file."""
    parts = [f"# {_escape(title)}"]
    for section in sections:
        parts.append(f"{'#' * section.level} {_escape(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*<|\[\]]|\b_|_\b)", r"\\\1", text)


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return _escape(text)
        case Caution(text):
            return f"> **Note.** {_escape(text)}"
        case Bullets(items):
            return "\n".join(f"- {_escape(item)}" for item in items)
        case Table():
            return _table(block)
        case Figures(figures):
            images = (f"![{_escape(f.title)}](figures/{f.name}.png)\n\n{_escape(f.caption)}" for f in figures)
            return "\n\n".join(images)
        case Clips(clips):
            return "\n".join(f"- [{_escape(clip.title)}]({clip.path})" for clip in clips)
        case Code(summary, text):
            return f"{_escape(summary)}:\n\n```\n{text}\n```"


def _table(table: Table) -> str:
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    rows = [table.header, *table.rows]
    lines = ["| " + " | ".join(map(_escape, row)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join(rule) + "|")
    return f"{_escape(table.caption)}\n\n" + "\n".join(lines)
