"""A decision tree as a drawing that fits a phone and follows the theme: questions, answers, leaves with an interval.

It is nested lists with lines between them, so that it can be read aloud and its leaves lead to their chapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

from mmlib.analysis.statistics import Effect
from mmlib.figures.style import Shown

SPAN = 6.0  # smallest effects of interest on each side of zero that the small drawing of an interval has
TREE_CSS = """
.tree { margin: 1em 0; font-size: 14px; line-height: 1.4; }
.tree ul { list-style: none; margin: 0; padding: 0; }
.tree li { margin: 0; padding: .25em 0 .25em 1.3em; position: relative; }
.tree li::before { content: ""; position: absolute; left: .25em; top: 0; bottom: 0;
  border-left: 2px solid var(--pst-color-border, #bbb); }
.tree li:last-child::before { bottom: auto; height: 1.15em; }
.tree li::after { content: ""; position: absolute; left: .25em; top: 1.15em; width: .8em;
  border-top: 2px solid var(--pst-color-border, #bbb); }
.tree .question { font-weight: 600; }
.tree .answer { display: inline-block; padding: 0 .5em; border: 1px solid var(--pst-color-border, #999);
  border-radius: 1em; }
.tree .leaf { margin: .35em 0 .35em; padding: .4em .7em; border-left: 4px solid var(--pst-color-primary, #0072B2);
  outline: 1px solid var(--pst-color-border, #ccc); outline-offset: -1px; }
.tree .leaf.unknown { border-left-color: var(--pst-color-border, #999); }
.tree .leaf svg { display: block; width: 180px; height: 16px; margin: .25em 0; }
.tree .leaf a { white-space: nowrap; }
.tree .line { stroke: var(--pst-color-border, #999); }
.tree .small { fill: currentColor; opacity: .14; }
.tree .bar { stroke: currentColor; stroke-width: 2; }
.tree .dot { fill: currentColor; }
.tree figcaption { margin: .4em 0; text-align: left; font-weight: 400; color: var(--pst-color-text-muted, inherit); }
"""


@dataclass(frozen=True)
class Question:
    """A question with its answers; an answer leads to another question, or to the name of a leaf."""

    text: str
    answers: Mapping[str, Question | str]

    @property
    def leaves(self) -> list[str]:
        """Names of all leaves below, from top to bottom."""
        parts = [[one] if isinstance(one, str) else one.leaves for one in self.answers.values()]
        return [name for part in parts for name in part]


@dataclass(frozen=True)
class Leaf:
    """What stands at the end of a way.

    Attributes:
        advice: what to take.
        reason: why, a sentence with the numbers.
        effect: that decided; None where nothing is known.
        sesoi: smallest effect of interest, in the unit of the effect.
        link: of the page with the numbers, empty for none.
        page: its name.
    """

    advice: str
    reason: str
    effect: Effect | None = field(default=None)
    sesoi: float = 1.0
    link: str = ""
    page: str = ""


def tree(root: Question, leaves: Mapping[str, Leaf], *, alt: str, caption: str) -> Shown:
    """Draw a tree.

    Args:
        root: the first question.
        leaves: by name; every one that the tree names.
        alt: what the drawing shows, for those who do not see it.
        caption: stands below.

    Raises:
        KeyError: if a leaf is lacking.
    """
    return Shown(
        f'<style>{TREE_CSS}</style><figure class="tree" aria-label="{escape(alt)}">{_question(root, leaves)}'
        f"<figcaption>{escape(caption)}</figcaption></figure>",
        alt,
    )


def _question(question: Question, leaves: Mapping[str, Leaf]) -> str:
    rows = []
    for answer, leads in question.answers.items():
        below = _leaf(leaves[leads]) if isinstance(leads, str) else _question(leads, leaves)
        rows.append(f'<li><span class="answer">{escape(answer)}</span>{below}</li>')
    return f'<div class="question">{escape(question.text)}</div><ul>{"".join(rows)}</ul>'


def _leaf(leaf: Leaf) -> str:
    link = f' <a href="{escape(leaf.link)}">{escape(leaf.page)}</a>' if leaf.link else ""
    drawn = _interval(leaf.effect, leaf.sesoi) if leaf.effect else ""
    kind = "leaf" if leaf.effect else "leaf unknown"
    why = f"<div>{escape(leaf.reason)}{link}</div>"
    return f'<div class="{kind}"><strong>{escape(leaf.advice)}</strong>{drawn}{why}</div>'


def _interval(effect: Effect, sesoi: float) -> str:
    """A small drawing: zero, the band below the smallest effect of interest, and the interval, cut at the ends."""

    def place(value: float) -> float:
        return 50 + 48 * max(-1.0, min(1.0, value / (SPAN * sesoi)))

    low, high = (effect.effect, effect.effect) if effect.low != effect.low else (effect.low, effect.high)
    left, right = place(-sesoi), place(sesoi)
    return (
        f'<svg aria-hidden="true"><rect class="small" x="{left:.1f}%" width="{right - left:.1f}%" y="1" height="14"/>'
        '<line class="line" x1="0" x2="100%" y1="8" y2="8"/><line class="line" x1="50%" x2="50%" y1="1" y2="15"/>'
        f'<line class="bar" x1="{place(low):.1f}%" x2="{place(high):.1f}%" y1="8" y2="8"/>'
        f'<circle class="dot" cx="{place(effect.effect):.1f}%" cy="8" r="3.5"/></svg>'
    )
