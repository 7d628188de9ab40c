"""What chapters put on a page: a number of a smoke run never stands without its label."""

import math

import pandas as pd
import pytest

from mmlib.figures.page import Page, code
from mmlib.figures.verdicts import HATCH, claims_forest, claims_table, drawable, verdict_bars, verdict_filter
from mmlib.ledgers.claims import COLUMNS, VERDICTS


def test_a_smoke_run_is_labelled_and_a_result_is_not():
    frame = pd.DataFrame({"method": ["a"], "dice": [81.234]})
    smoke, quick = Page("smoke"), Page("quick")
    assert "Smoke run, not a result. Dice" in smoke.table(frame, "Dice").to_html()
    assert smoke.say("x").data == "*Smoke run, not a result.* x"
    html = quick.table(frame, "Dice", index=False).to_html()
    assert "not a result" not in html and "81.2" in html and "text-align: left" in html
    assert quick.say("x").data == "x" and quick.caveat == ""


def test_a_caller_can_say_that_a_profile_gives_no_results():
    assert Page("lab-a100").is_result and not Page("smoke-own").is_result
    assert "not a result" in Page("lab-a100", is_result=False).say("x").data
    assert Page("smoke", is_result=True).caveat == ""


def test_code_begins_where_it_is_told():
    assert code(Page.say, since="from IPython").data.splitlines()[1].startswith("from IPython")
    with pytest.raises(ValueError, match="not found"):
        code(Page.say, since="no such line")


def test_verdicts_are_the_weakest_parts_of_the_claims_asked_for():
    blank = {"paper": "P", "kind": "measured", "claim": "c", "paper_says": "p", "unit": "points", "on": "on stand-in"}
    blank |= {"reason": "", "n": 5, "seeds": 2, "passes": 1, "parts": 2, "sesoi": 1.0, "rule": "greater"}
    rows = [
        {"id": "A1", "part": "strong", "effect": 3.0, "low": 2.0, "high": 4.0, "verdict": "REPRODUCED"},
        {"id": "A1", "part": "weak", "effect": -3.0, "low": -4.0, "high": -2.0, "verdict": "CONTRADICTED"},
        {"id": "A2", "part": "other", "effect": 3.0, "low": 2.0, "high": 4.0, "verdict": "REPRODUCED"},
    ]
    parts = pd.DataFrame([{**dict.fromkeys(COLUMNS), **blank, **row} for row in rows])
    html = Page("quick").verdicts(parts, "A1").to_html()
    assert "CONTRADICTED on stand-in" in html and "greater, 1 points" in html and "(weak; weakest of 2, 1 pass)" in html
    assert "REPRODUCED" not in html and "A2" not in html
    assert "not a result" in Page("smoke").verdicts(parts, "A1").to_html()


def checks(*rows):
    """Rows of the claims ledger, of the weakest parts: paper, id, unit, sesoi, effect, low, high, verdict."""
    names = ("paper", "id", "unit", "sesoi", "effect", "low", "high", "verdict")
    return pd.DataFrame([dict(zip(names, row, strict=True), kind="measured", rule="greater") for row in rows])


def test_bars_of_verdicts_are_stacked_in_a_fixed_order_and_carry_their_counts():
    counts = pd.DataFrame(0, index=["A", "B"], columns=VERDICTS)
    counts.loc["A", ["REPRODUCED", "CONTRADICTED"]] = [2, 3]
    counts.loc["B", "NOT TESTED HERE"] = 4
    axis = verdict_bars(counts).axes[0]
    bars = [(bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width()) for bar in axis.patches]
    assert [tuple(round(number, 6) for number in bar) for bar in bars if bar[2]] == [(0, 0, 2), (0, 2, 3), (1, 0, 4)]
    assert [text.get_text() for text in axis.texts] == ["2", "3", "4"]
    assert len({bar.get_hatch() for bar in axis.patches}) == 3, "hatches tell verdicts apart without colour"
    assert set(HATCH) == set(VERDICTS) and len(set(HATCH.values())) == len(VERDICTS)
    with pytest.raises(ValueError, match="PROVEN"):
        verdict_bars(pd.DataFrame({"PROVEN": [1]}, index=["A"]))
    with pytest.raises(ValueError, match="0 papers"):
        verdict_bars(counts.iloc[:0])


def test_effects_of_all_papers_share_an_axis_in_smallest_effects_of_interest():
    table = checks(
        ("A", "A1", "Dice points", 2.0, 4.0, 2.0, 6.0, "REPRODUCED"),
        ("B", "B1", "dB", 0.25, -0.5, -1.0, 0.0, "UNDERPOWERED"),
        ("B", "B2", "dB", 0.25, 1.0, -math.inf, math.inf, "UNDERPOWERED"),
        ("B", "B3", "dB", 0.25, math.nan, math.nan, math.nan, "NOT TESTED HERE"),
    )
    rows = drawable(table).set_index("id")
    assert rows[["effect", "low", "high"]].to_numpy().tolist() == [[2, 1, 3], [-2, -4, 0]]
    figure = claims_forest(table)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["A", "B"]
    assert [label.get_text() for axis in figure.axes for label in axis.get_yticklabels()] == ["A1", "B1"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["REPRODUCED", "UNDERPOWERED", "below the smallest effect of interest"]
    equal = claims_forest(table.assign(rule="equivalent"))
    assert equal.axes[0].get_yticklabels()[0].get_text() == "A1 (equal)"
    with pytest.raises(ValueError, match="measured effect"):
        claims_forest(table.assign(kind="arithmetic"))


def test_a_table_of_claims_scrolls_and_every_verdict_can_be_chosen():
    row = dict.fromkeys(COLUMNS, "") | {"id": "A1", "paper": "P", "kind": "measured", "claim": "c"}
    row |= dict.fromkeys(("effect", "low", "high", "p", "p_holm", "sesoi", "n", "seeds"), float("nan"))
    table = pd.DataFrame([row | {"verdict": "NOT TESTED HERE", "passes": 0, "parts": 0}])
    html = claims_table(table, "P")
    assert "overflow-x: auto" in html and "claims" in html and "NOT TESTED HERE" in html
    assert all(f"<option>{verdict}</option>" in verdict_filter() for verdict in VERDICTS)
