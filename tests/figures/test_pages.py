"""What chapters put on a page: a number of a smoke run never stands without its label."""

import pandas as pd
import pytest

from mmlib.figures.page import Page, code
from mmlib.ledgers.claims import COLUMNS


def test_a_smoke_run_is_labelled_and_a_result_is_not():
    frame = pd.DataFrame({"method": ["a"], "dice": [81.234]})
    smoke, quick = Page("smoke"), Page("quick")
    assert "Smoke run, not a result. Dice" in smoke.table(frame, "Dice").to_html()
    assert smoke.say("x").data == "*Smoke run, not a result.* x"
    html = quick.table(frame, "Dice", index=False).to_html()
    assert "not a result" not in html and "81.2" in html and "text-align: left" in html
    assert quick.say("x").data == "x" and quick.caveat == ""


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
