"""Render mathematics as MathML while the book is built, so that no page needs a script or a network."""

import html
import re
from typing import Any

from docutils import nodes
from math_core import LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html import HTML5Translator

logger = logging.getLogger(__name__)
converter = LatexToMathML()
NUMBERED = re.compile(r"^\\begin\{(equation|split)\*?\}|\\end\{(equation|split)\*?\}$")


def mathml(tex: str, block: bool, where: nodes.Node) -> str:
    """Convert; what cannot be converted is shown as source, and is a warning, which the book's build does not pass."""
    try:
        return converter.convert_with_local_state(tex, displaystyle=block)
    except Exception as error:
        logger.warning("could not convert %r to MathML: %s", tex, error, type="native_mathml", location=where)
        return f"<code>{html.escape(tex)}</code>"


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    """A formula in a line of text."""
    self.body.append(self.starttag(node, "span", "", CLASS="math notranslate nohighlight"))
    self.body.append(mathml(node.astext(), False, node) + "</span>")
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """A formula of its own, with its number and a link to it."""
    self.body.append(self.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node.get("number"):
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(mathml(NUMBERED.sub("", node.astext().strip()), True, node) + "</div>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Offer the renderer `native_mathml`."""
    app.add_html_math_renderer("native_mathml", (visit_inline, None), (visit_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
