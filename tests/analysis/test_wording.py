"""Effects in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmlib.analysis.statistics import paired_effects
from mmlib.analysis.wording import format_effect, format_effects, format_interval, outcome, quick, select
from mmlib.ledgers.claims import effect_rows, judge, what_it_would_take


@pytest.fixture
def of_one_case():
    (effect,) = paired_effects([(pd.DataFrame({"a": [3.0, 4.0]}), pd.DataFrame({"a": [1.0, 1.0]}))])
    return effect


def test_an_interval_is_written_with_its_digits_sign_and_dash() -> None:
    assert format_interval(0.25, 2.75) == "0.2 to 2.8"
    assert format_interval(-0.25, 2.75, 2, "+") == "-0.25 to +2.75"
    assert format_interval(0.25, 2.75, 0, between="-") == "0-3"
    assert format_interval(np.nan, np.nan) == "one case: no interval"


def test_an_effect_of_one_case_says_that_it_has_no_interval(of_one_case) -> None:
    assert format_effect(of_one_case, unit="points") == "+2.5 points (one case: no interval)"
    assert outcome(of_one_case) == "cannot be told from"


@pytest.mark.parametrize("rule", ["greater", "no-worse", "equivalent", "at-least"])
def test_no_rule_is_met_by_one_case(of_one_case, rule: str) -> None:
    assert judge(of_one_case, 1.0, rule) == "UNRESOLVED"
    assert what_it_would_take(of_one_case, 1.0, rule) == "One case: no interval."


def test_rows_of_one_case_are_drawn_and_written(of_one_case) -> None:
    from mmlib.figures.results import forest

    rows = effect_rows(["wt", "tc"], [of_one_case, of_one_case])
    assert format_effects(rows) == "wt +2.5 (one case: no interval); tc +2.5 (one case: no interval)"
    figure = forest(rows, ["wt", "tc"])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["wt", "tc"]
    figure.canvas.draw()


def test_selecting_from_categories_gives_the_same_table() -> None:
    rows = [(arm, seed, case, seed + len(case)) for arm in "ab" for seed in (0, 1) for case in ("x", "yy")]
    scores = pd.DataFrame(rows, columns=["arm", "seed", "case", "value"])
    found = select(quick(scores), arm="b")
    assert isinstance(quick(scores)["arm"].dtype, pd.CategoricalDtype)
    assert found.to_numpy().tolist() == select(scores, arm="b").to_numpy().tolist() == [[1, 2], [2, 3]]
    with pytest.raises(ValueError, match="no scores with"):
        select(quick(scores), arm="c")
    with pytest.raises(ValueError, match="a value is NaN .*'arm': 'a'"):
        select(scores.assign(value=scores["value"].where(scores["arm"].eq("b"))), seed=1)
