"""Lanes: what is drawn where, and that every point says what it is."""

import math
import re

import pandas as pd
import pytest

from mmlib.figures.lanes import SHAPES, lanes
from mmlib.figures.style import METHOD

GROUPS = {"With": ["t1+t1ce", "t1ce"], "Without": ["t1"]}


def cells(**change):
    rows = [
        ("shaspec paper", "t1+t1ce", 90.0, 85.0, 102.0),
        ("dedicated", "t1+t1ce", 70.0, 60.0, 80.0),
        ("shaspec paper", "t1", 40.0, math.nan, math.nan),
    ]
    frame = pd.DataFrame(rows, columns=["arm", "available", "mean", "low", "high"])
    return frame.assign(n=3, seeds=2, **change)


def drawn(**more):
    return lanes(cells(), GROUPS, alt="what <it> shows", caption="n = 3 & more", unit="Dice, %", **more).html


def test_every_point_stands_at_its_mean_and_says_what_it_is():
    html = drawn()
    assert html.count('<g class="point"><title>') == 3
    assert "ShaSpec (paper) with t1+t1ce: 90.0 (85.0 to 102.0); Dice, %, 95 % interval, 3 cases, seeds: 2" in html
    assert '<svg x="90.00%"' in html and 'x1="85.00%" x2="100.00%"' in html, "an interval ends with the scale"
    assert "one case: no interval" in html and 'x1="40.00%" x2="40.00%"' in html
    assert 'aria-label="what &lt;it&gt; shows"' in html and "n = 3 &amp; more" in html


def test_what_is_there_is_filled_and_black_follows_the_theme():
    html = drawn()
    assert len(re.findall(r'<circle [^>]*class="absent"', html)) == 2 + 3 + 3
    assert "#000000" not in html and 'fill="currentColor"' in html


def test_what_can_be_known_is_drawn_in_its_group_alone():
    assert "not in the images" not in drawn()
    html = drawn(known={"Without": 56.0})
    assert html.count('class="known"') == 1 and 'x="56.00%" width="44.00%"' in html


def test_there_is_a_shape_for_every_marker_of_a_method_and_nothing_is_drawn_of_nothing():
    assert {marker for _, marker, _ in METHOD.values()} <= set(SHAPES)
    with pytest.raises(ValueError, match="no scores"):
        lanes(cells().iloc[:0], GROUPS, alt="a", caption="", unit="")
