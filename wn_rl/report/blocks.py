"""What a report is made of, before it becomes a page or Markdown: sections of texts, tables and pictures."""

from dataclasses import dataclass

from wn_rl.report.figures import Figure


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    text: str


@dataclass(frozen=True)
class Caution:
    """One paragraph that must not be overlooked."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Cells as they are shown. The first column names the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figures:
    """Pictures that belong together."""

    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Clip:
    """A video. Its path is relative to the report's folder."""

    title: str
    path: str
    mp4: bytes


@dataclass(frozen=True)
class Clips:
    """Videos side by side."""

    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class Code:
    """Commands or settings, to be unfolded."""

    summary: str
    text: str


Block = Text | Caution | Bullets | Table | Figures | Clips | Code


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; level 2 is a chapter, level 3 a part of it."""

    title: str
    blocks: tuple[Block, ...]
    level: int = 2
