"""What chapters put on a page in the same way: tables and sentences, labelled where they are no result; and code."""

from __future__ import annotations

import inspect
import os
import textwrap
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas.io.formats.style import Styler

from mmlib.analysis.results import run_table
from mmlib.figures.style import text_table
from mmlib.ledgers import claims
from mmlib.ledgers.claims import QUESTIONS, gives_results, weakest

if TYPE_CHECKING:
    from IPython.display import Markdown

CAVEAT = "Smoke run, not a result. "
SHORT = "Profile quick, short trainings. "
VERDICT_WIDTHS = {"claim": 12, "verdict": 15, "rule with its date, and why": 17}  # columns, em: a page holds them
WIDE = 7  # columns of a table; with more it is set smaller, for all to be seen at once


@dataclass(frozen=True)
class Page:
    """A chapter made from the runs of one profile.

    Args:
        profile: its name.
        is_result: whether its numbers are results; None: what `mmlib.ledgers.claims.gives_results` says of the name.
    """

    profile: str
    is_result: bool | None = None

    def __post_init__(self) -> None:
        if self.is_result is None:
            object.__setattr__(self, "is_result", gives_results(self.profile))

    @property
    def caveat(self) -> str:
        """What stands before sentences and captions: that numbers are no results, or come from short trainings."""
        if not self.is_result:
            return CAVEAT
        return SHORT if self.profile.removesuffix("-own") == "quick" else ""

    def say(self, text: str) -> Markdown:
        """A sentence made from results, with the caveat in front.

        Args:
            text: Markdown; names of cases and columns in it go through `mmlib.figures.style.as_text`.
        """
        from IPython.display import Markdown

        return Markdown(f"*{self.caveat.strip()}* {text}" if self.caveat else text)

    def glue(self, **values: object) -> None:
        """Hand numbers to the prose of a page: the text names a value given here by the role `glue:text`.

        Where the profile gives no results, every value carries the label that says so. JupyterLab knows no such role
        and shows the names, so there the values are printed.
        """
        from myst_nb import glue

        for name, value in values.items():
            text = str(value) if self.is_result else f"{value} [smoke run, not a result]"
            glue(name, text, display=False)
            if "JPY_SESSION_NAME" in os.environ:  # set by the server of a notebook that somebody has opened
                print(f"{name}: {text}")

    def table(self, frame: pd.DataFrame, caption: str, precision: int = 1, index: bool = True) -> Styler:
        """A table with its caption, which carries the label; without an index, texts are left aligned.

        What stands in the table and its caption is text, not markup. `format` called on the result begins anew, so
        give it `escape="html"` too.
        """
        styler = frame.rename_axis(columns=None if frame.columns.nlevels == 1 else frame.columns.names).style
        styler = styler.format(precision=precision, na_rep="-", escape="html").set_caption(
            escape(self.caveat + caption)
        )
        for axis in (0, 1):
            styler = styler.format_index(escape="html", axis=axis)
        room = "0.6em" if frame.shape[1] <= WIDE else "0.25em; font-size: 0.85em"
        apart: list[Any] = [{"selector": "td, th", "props": f"padding: 0.2em {room}"}]
        styler = styler.set_table_styles(apart)
        if index:
            return styler
        texts = frame.columns.get_indexer(frame.select_dtypes(exclude="number").columns)
        left: list[Any] = [{"selector": f".col{place}", "props": "text-align: left"} for place in texts]
        return styler.hide(axis="index").set_table_styles(left, overwrite=False)

    def runs(self, records: pd.DataFrame) -> Styler:
        """The runs that a page read, with commit, fingerprint, machine and seconds; published ones lead to their page.

        Args:
            records: as `mmlib.analysis.results.Results.records`.
        """
        rows = run_table(records).reset_index(drop=True)
        shown = self.table(rows, f"Runs of the profile {self.profile} that this page read", index=False)
        if "published.commit" not in records:
            return shown
        linked = rows.index[records["published.commit"].notna()]
        return shown.format(lambda name: provenance_link(str(name)), subset=(linked, ["experiment"]))

    def verdicts(self, parts: pd.DataFrame, *ids: str) -> Styler:
        """What the claims ledger says of some claims.

        Args:
            parts: as `mmlib.ledgers.claims.evidence` returns them.
            ids: of the claims.
        """
        rows = weakest(parts)
        told = claims.page(rows[rows["id"].isin(ids)]).map(escape)

        def answer(row: pd.Series, question: str) -> str:
            word, _, text = row[question].partition("\n")
            return f'<span class="answer">{question}: <strong>{word}</strong> {text}</span>'

        named = "<strong>" + told["id"] + '</strong> <span class="claim">' + told["claim"] + "</span>"
        cells = {
            "claim": named + "<br>Paper: " + told["paper says"],
            "verdict": told.apply(lambda row: "<br>".join(answer(row, question) for question in QUESTIONS), axis=1),
            "rule with its date, and why": told["rule, and its date"] + ".<br>" + told["why"],
        }
        caption = (
            f"From the claims ledger, profile {self.profile}: the weakest part of each claim. A rule names the "
            "smallest effect of interest and the day it was committed."
        )
        return text_table(pd.DataFrame(cells), VERDICT_WIDTHS).format(str).set_caption(escape(self.caveat + caption))


def provenance_anchor(experiment: str) -> str:
    """The place of an experiment on the page on provenance, as HTML; what `provenance_link` leads to."""
    return f'<span id="runs-{escape(experiment)}"></span>'


def provenance_link(experiment: str) -> str:
    """An experiment's name as HTML that leads to its runs on the page on provenance."""
    name = escape(experiment)
    return f'<a href="94_provenance.html#runs-{name}">{name}</a>'


def code(thing: Any, since: str = "") -> Markdown:
    """The source of a function or method on a page, from the first line that holds `since`.

    Raises:
        ValueError: if the source does not hold it.
    """
    from IPython.display import Markdown

    source = textwrap.dedent(inspect.getsource(thing))
    return Markdown(f"```python\n{textwrap.dedent(source[source.index(since) :]).rstrip()}\n```")
