"""A report as one HTML page that needs nothing else: no script, no font, no file, no network."""

import base64
import re
from collections.abc import Sequence
from html import escape

from wn_rl.report.blocks import Block, Bullets, Caution, Clip, Clips, Code, Figures, Section, Table, Text
from wn_rl.report.figures import FOREGROUND, Figure

MAX_EMBEDDED_BYTES = 2_000_000
"""A larger video is linked."""

_STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --text: #1f2429; --soft: #57606a; --line: #d0d7de;
  --panel: #f6f8fa; --note: #fff4ce; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171b; --text: #e3e7eb; --soft: #a3acb5; --line: #39414a;
    --panel: #1c2127; --note: #3a3013; --link: #79b8ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 1rem 1rem 4rem; background: var(--back); color: var(--text);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { font-size: 1.35rem; margin: 2.5rem 0 .5rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }
h3 { font-size: 1.1rem; margin: 1.8rem 0 .4rem; }
p, ul { max-width: 46rem; }
ul { padding-left: 1.2rem; }
a { color: var(--link); }
nav ul { list-style: none; padding: 0; }
.note { background: var(--note); border-radius: .4rem; padding: .6rem .8rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { padding: .3rem 0 .3rem .9rem; text-align: right; vertical-align: top; }
th, td { border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
th:first-child, td:first-child, .words { text-align: left; }
td.long { white-space: normal; min-width: 12rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) {  /* a row becomes a card: no table is wider than a phone */
  table, tbody, tr, td, caption { display: block; }
  thead { position: absolute; left: -9999rem; }
  tr { border-top: 1px solid var(--line); padding: .4rem 0; }
  td, td.long { border: 0; padding: .05rem 0; white-space: normal; text-align: left; }
  td:first-child { font-weight: 600; }
  td:not(:first-child)::before { content: attr(data-label) ": "; color: var(--soft); }
}
.grid { display: grid; gap: 1rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; max-width: 34rem; }
figure svg { width: 100%; height: auto; display: block; }
figure svg text { font-family: inherit !important; }
figcaption { color: var(--soft); font-size: .85rem; }
video { width: 100%; max-width: 20rem; background: #000; }
pre { overflow-x: auto; background: var(--panel); padding: .8rem; border-radius: .4rem; font-size: .8rem; }
summary { cursor: pointer; }
"""

_NO_NETWORK = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"


def render_page(title: str, sections: Sequence[Section]) -> str:
    """The whole page."""
    chapters = [section for section in sections if section.level == 2]
    links = "".join(f'<li><a href="#{slug(s.title)}">{escape(s.title)}</a></li>' for s in chapters)
    body = "\n".join(_section(section) for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_NO_NETWORK}">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
{body}
</main>
</body>
</html>
"""


def slug(title: str) -> str:
    """A title as the end of a link or the name of a file: "minatar, 300,000 steps" to minatar-300000-steps."""
    return re.sub(r"[^a-z0-9._]+", "-", title.lower().replace(",", "")).strip("-.")


def _section(section: Section) -> str:
    anchor = f' id="{slug(section.title)}"' if section.level == 2 else ""
    heading = f"<h{section.level}{anchor}>{escape(section.title)}</h{section.level}>"
    return "\n".join([heading, *map(_block, section.blocks)])


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Caution(text):
            return f'<p class="note" role="note">{escape(text)}</p>'
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
        case Table():
            return _table(block)
        case Figures(figures):
            return '<div class="grid">' + "\n".join(map(_figure, figures)) + "</div>"
        case Clips(clips):
            return '<div class="grid">' + "\n".join(map(_clip, clips)) + "</div>"
        case Code(summary, text):
            return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


_LONG_CELL = 40  # characters; longer cells are wrapped


def _table(table: Table) -> str:
    columns = list(zip(table.header, *table.rows, strict=True))
    classes = [_class_of(column[1:]) for column in columns]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(table.header, classes, strict=True)
    )
    rows = "".join(f"<tr>{_cells(row, table.header, classes)}</tr>" for row in table.rows)
    caption = escape(table.caption)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _class_of(cells: Sequence[str]) -> str:
    """Words to the left, long ones wrapped; numbers to the right."""
    if any(len(cell) > _LONG_CELL for cell in cells):
        return ' class="long words"'
    numeric = all(cell.lstrip("+\N{MINUS SIGN}")[:1].isdigit() or len(cell) <= 1 for cell in cells)
    return "" if numeric else ' class="words"'


def _cells(row: Sequence[str], header: Sequence[str], classes: Sequence[str]) -> str:
    return "".join(
        f'<td{kind} data-label="{escape(name)}">{escape(cell)}</td>'
        for cell, name, kind in zip(row, header, classes, strict=True)
    )


def _figure(figure: Figure) -> str:
    """Its SVG in the page itself, so that its text takes the page's colour."""
    svg = figure.svg[figure.svg.index("<svg") :].replace(FOREGROUND, "currentColor")
    svg = re.sub(r' (?:width|height)="[^"]*pt"', "", svg, count=2)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(figure.title)}" ', 1)
    return f"<figure>{svg}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _clip(clip: Clip) -> str:
    if len(clip.mp4) > MAX_EMBEDDED_BYTES:
        title = escape(f"{clip.title} (a file beside this page: too large to be in it)")
        return f'<p><a href="{escape(clip.path)}">{title}</a></p>'
    source = f"data:video/mp4;base64,{base64.b64encode(clip.mp4).decode()}"
    return (
        f'<figure><video controls muted playsinline preload="metadata" src="{source}"></video>'
        f"<figcaption>{escape(clip.title)}</figcaption></figure>"
    )
