"""Equations as MathML, which every current browser draws by itself: no script, no font and no network."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

BOLD = {chr(0x1D400 + i): chr(0x41 + i) for i in range(26)} | {chr(0x1D41A + i): chr(0x61 + i) for i in range(26)}


def to_mathml(tex: str, *, block: bool) -> str:
    """A <math> element. Bold letters are ordinary ones in bold: few fonts have the mathematical ones."""
    mathml = tex2mathml(tex, as_block=block).replace('class="ams-align"', 'class="ams-align" displaystyle="true"')
    mathml = re.sub(r"<mo[^>]*>\|</mo>", '<mo lspace="0" rspace="0">|</mo>', mathml)
    return re.sub(
        "<mi>([\U0001d400-\U0001d433])</mi>", lambda found: f'<mi class="bold">{BOLD[found[1]]}</mi>', mathml
    )


def visit_inline(writer: Any, node: nodes.math) -> None:
    """An equation in a line."""
    writer.body.append(to_mathml(node.astext(), block=False))
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.math_block) -> None:
    """An equation of its own, with its number if it has one."""
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    writer.body.append(f'<div class="math-block">{to_mathml(node.astext(), block=True)}{number}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the renderer `mathml`."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
