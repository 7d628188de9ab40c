"""What chapters put on a page: a number of a smoke run never stands without its label."""

import math

import pandas as pd
import pytest

from mmlib.figures.page import Page, code, provenance_anchor
from mmlib.figures.style import VERDICT
from mmlib.figures.verdicts import (
    HATCH,
    claims_filter,
    claims_forest,
    claims_table,
    drawable,
    verdict_bars,
    verdict_filter,
)
from mmlib.ledgers.claims import COLUMNS, QUESTIONS, REAL, STAND_IN, TABLES, page


def test_a_smoke_run_is_labelled_and_a_result_is_not():
    frame = pd.DataFrame({"method": ["a"], "dice": [81.234]})
    smoke, quick = Page("smoke"), Page("quick")
    assert "Smoke run, not a result. Dice" in smoke.table(frame, "Dice").to_html()
    assert smoke.say("x").data == "*Smoke run, not a result.* x"
    html = quick.table(frame, "Dice", index=False).to_html()
    assert "not a result" not in html and "81.2" in html and "text-align: left" in html
    assert Page("book").say("x").data == "x" and Page("book").caveat == ""
    assert quick.caveat == Page("quick-own").caveat == "Profile quick, short trainings. "
    assert quick.say("x").data == "*Profile quick, short trainings.* x"


@pytest.mark.parametrize(("columns", "smaller"), [(7, False), (16, True)])
def test_a_table_of_many_columns_is_set_smaller(columns, smaller):
    frame = pd.DataFrame([[92.25] * columns])
    assert ("font-size" in Page("book").table(frame, "Dice").to_html()) == smaller


def test_a_caller_can_say_that_a_profile_gives_no_results():
    assert Page("lab-a100").is_result and not Page("smoke-own").is_result
    assert "not a result" in Page("lab-a100", is_result=False).say("x").data
    assert Page("smoke", is_result=True).caveat == ""


def test_numbers_of_the_prose_are_printed_where_a_notebook_is_open(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, str] = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: given.update({name: value}))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    Page("quick").glue(gain="3 points")
    assert given == {"gain": "3 points"} and not capsys.readouterr().out
    monkeypatch.setenv("JPY_SESSION_NAME", "05_protokd.md")
    Page("smoke").glue(gain="4 points")
    assert given["gain"].startswith("4 points [smoke") and capsys.readouterr().out == f"gain: {given['gain']}\n"


def test_published_runs_lead_to_their_place_on_the_page_on_provenance():
    records = pd.DataFrame(
        {"experiment": ["dial<1>", "dial<1>"], "run": ["a", "b"], "git_commit": ["c0ffee", "c0ffee"]}
    )
    assert "href" not in Page("quick").runs(records).to_html()
    html = Page("quick").runs(records.assign(**{"published.commit": ["c0ffee", None]})).to_html()
    assert html.count('<a href="94_provenance.html#runs-dial&lt;1&gt;">dial&lt;1&gt;</a>') == 1
    assert html.count("dial&lt;1&gt;") == 3 and "dial<1>" not in html, "the other run was made here"
    assert provenance_anchor("dial<1>") == '<span id="runs-dial&lt;1&gt;"></span>'


def test_code_begins_where_it_is_told():
    assert code(Page.say, since="from IPython").data.splitlines()[1].startswith("from IPython")
    with pytest.raises(ValueError, match="not found"):
        code(Page.say, since="no such line")


def claim_rows(*given, id="A1", paper="P"):
    """Parts of one claim under every question: each given is a change to a part on the stand-in."""
    blank = {
        **dict.fromkeys(COLUMNS, ""),
        "id": id,
        "paper": paper,
        "sentence": "paper",
        "claim": "c",
        "parts": 0,
        "passes": 0,
    }
    blank |= dict.fromkeys(("effect", "low", "high", "sesoi", "n", "seeds"), math.nan)
    rest = [
        {**blank, "question": TABLES, "verdict": "NOT CHECKABLE"},
        {**blank, "question": REAL, "verdict": "NOT RUN"},
    ]
    part = {**blank, "question": STAND_IN, "unit": "points", "sesoi": 1.0, "rule": "greater", "n": 5, "seeds": 2}
    part |= {"parts": len(given), "passes": 1, "registered": "2026-11-22"}
    return [*({**part, **change, "judged": change["verdict"]} for change in given), *rest]


def test_verdicts_are_the_weakest_parts_of_the_claims_asked_for():
    strong = {"part": "strong", "effect": 3.0, "low": 2.0, "high": 4.0, "verdict": "SHOWN"}
    weak = {"part": "weak", "effect": -3.0, "low": -4.0, "high": -2.0, "verdict": "REVERSED"}
    parts = pd.DataFrame([*claim_rows(strong, weak), *claim_rows(strong, id="A2")])
    html = Page("quick").verdicts(parts, "A1").to_html()
    assert "REVERSED" in html and "greater, 1 points; 2026-11-22" in html and "(weak; weakest of 2, 1 pass)" in html
    assert "SHOWN" not in html and "A2" not in html and "NOT CHECKABLE" in html and "NOT RUN" in html
    assert "not a result" in Page("smoke").verdicts(parts, "A1").to_html()


def checks(*rows):
    """Rows of the claims ledger, of the weakest parts: paper, id, unit, sesoi, effect, low, high, verdict."""
    names = ("paper", "id", "unit", "sesoi", "effect", "low", "high", "verdict")
    return pd.DataFrame([dict(zip(names, row, strict=True), question=STAND_IN, rule="greater") for row in rows])


def test_bars_of_verdicts_have_a_panel_for_every_question_and_carry_their_counts():
    counts = {name: pd.DataFrame(0, index=["A", "B"], columns=words) for name, words in QUESTIONS.items()}
    counts[STAND_IN].loc["A", ["SHOWN", "REVERSED"]] = [2, 3]
    counts[STAND_IN].loc["B", "NOT RUN"] = 4
    figure = verdict_bars(counts)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Paper's tables", "Stand-in", "Real data"]
    axis = figure.axes[1]
    bars = [(bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width()) for bar in axis.patches]
    assert [tuple(round(number, 6) for number in bar) for bar in bars if bar[2]] == [(0, 0, 2), (0, 2, 3), (1, 0, 4)]
    assert [text.get_text() for text in axis.texts] == ["2", "3", "4"]
    assert len({bar.get_hatch() for bar in axis.patches}) == 3, "hatches tell verdicts apart without colour"
    assert all(len({HATCH[word] for word in words}) == len(words) for words in QUESTIONS.values())
    assert len({marker for _, marker in VERDICT.values()}) == len(VERDICT), "so do markers"
    with pytest.raises(ValueError, match="PROVEN"):
        verdict_bars({REAL: pd.DataFrame({"PROVEN": [1]}, index=["A"])})
    with pytest.raises(ValueError, match="0 papers"):
        verdict_bars({REAL: counts[REAL].iloc[:0]})


def test_effects_of_all_papers_share_an_axis_in_smallest_effects_of_interest():
    table = checks(
        ("A", "A1", "Dice points", 2.0, 4.0, 2.0, 6.0, "SHOWN"),
        ("B", "B1", "dB", 0.25, -0.5, -1.0, 0.0, "UNRESOLVED"),
        ("B", "B2", "dB", 0.25, 1.0, -math.inf, math.inf, "UNRESOLVED"),
        ("B", "B3", "dB", 0.25, math.nan, math.nan, math.nan, "NOT RUN"),
    )
    rows = drawable(table).set_index("id")
    assert rows[["effect", "low", "high"]].to_numpy().tolist() == [[2, 1, 3], [-2, -4, 0]]
    figure = claims_forest(table)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["A", "B"]
    assert [label.get_text() for axis in figure.axes for label in axis.get_yticklabels()] == ["A1", "B1"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["SHOWN", "UNRESOLVED", "below the smallest effect of interest"]
    equal = claims_forest(table.assign(rule="equivalent"))
    assert equal.axes[0].get_yticklabels()[0].get_text() == "A1 (equal)"
    with pytest.raises(ValueError, match="measured effect"):
        claims_forest(table.assign(question=TABLES))


def test_a_table_of_claims_scrolls_has_its_words_in_bold_and_every_word_can_be_chosen():
    table = pd.DataFrame(claim_rows({"verdict": "NOT TESTABLE", "reason": "a < b"}))
    html = claims_table(table, "P")
    assert "overflow-x: auto" in html and "ledger" in html
    assert "<strong>NOT TESTABLE</strong>" in html and "a &lt; b" in html
    chosen = verdict_filter(page(table))
    columns = list(page(table).columns)
    for question, words in QUESTIONS.items():
        assert all(f'value="{columns.index(question)}:{word}"' in chosen for word in words)


def test_claims_can_be_chosen_by_paper_sentence_and_rule():
    table = pd.DataFrame(
        [*claim_rows({"verdict": "SHOWN"}, paper="P"), *claim_rows({"verdict": "SHOWN"}, id="B1", paper="<Q>")]
    )
    table["sentence"] = ["paper"] * 3 + ["ours"] * 3
    html = claims_filter(table)
    assert "<option>P</option><option>&lt;Q&gt;</option>" in html, "every paper can be chosen"
    assert "<option>the paper&#x27;s</option><option>ours</option>" in html
    assert '<select data-fact="rule"><option value="">every rule</option><option>greater</option></select>' in html
    assert '"sentence": {"A1": "the paper\'s", "B1": "ours"}' in html
