"""What chapters put on a page: a number of a smoke run never stands without its label."""

import pandas as pd
import pytest

from mmlib.pages import Page, code


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
