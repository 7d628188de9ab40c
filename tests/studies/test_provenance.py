"""Published runs as a table, and runs made anew beside them: differences per arm, and one sentence."""

import numpy as np
import pandas as pd
import pytest

from mmlib.studies import provenance

RECORD = {
    "experiment": "segmentation", "run": "shaspec-paper-s0", "task": "segmentation", "method": "shaspec", "seed": 0,
    "git_commit": "0123456789abcdef", "git_dirty": False, "written": "2026-11-28T01:02:03+00:00", "device": "cpu",
    "precision": "float32", "seconds": {"train": 7199.0, "evaluate": 1.0},
}  # fmt: skip
OUTCOME = {
    "kind": "losses", "run": "segmentation/shaspec-paper-s0", "notebook": "train_segmentation", "method": "shaspec",
    "passed": True, "text": "equal",
}  # fmt: skip
VERIFIED = {"day": "2026-11-28", "commit": "fedcba9876543210", "machine": "a processor, 2 cores", "outcomes": [OUTCOME]}


def scores(seed, *values, run="shaspec-paper"):
    rows = [(case, "t1", "wt", "dice", value) for case, value in zip("ab", values, strict=False)]
    table = pd.DataFrame(rows, columns=["case", "available", "target", "metric", "value"])
    return table.assign(run=f"{run}-s{seed}", method="shaspec", variant="paper", seed=seed)


def test_a_row_of_a_run_says_its_commit_device_seconds_and_whether_its_losses_were_verified():
    row = provenance.runs({"segmentation/shaspec-paper-s0": RECORD}, {"segmentation/shaspec-paper-s0": True}, VERIFIED)
    assert row.iloc[0].to_dict() == {
        "experiment": "segmentation", "run": "shaspec-paper-s0", "commit": "0123456789", "made": "2026-11-28",
        "device": "cpu, float32", "seconds": 7200, "seeds": "0", "code since": "changed", "losses verified": "yes",
    }  # fmt: skip
    text = provenance.said(row, VERIFIED)
    assert "1 run in 1 experiment, 2.0 hours" in text and "code of 1 has changed" in text and "for 1 of those" in text
    assert "1 of 1 check passed" in text


def test_another_method_s_check_vouches_for_nothing_and_a_failed_one_says_no():
    other = {**VERIFIED, "outcomes": [{**OUTCOME, "method": "u-hemis"}]}
    assert provenance.vouched(RECORD, other) == provenance.vouched(RECORD, {}) == "not checked"
    assert provenance.vouched(RECORD, {"outcomes": [{**OUTCOME, "passed": False}]}) == "no"
    assert provenance.vouched(RECORD, {"outcomes": [{**OUTCOME, "passed": None}]}) == "open"
    left = {**VERIFIED, "outcomes": [OUTCOME, {**OUTCOME, "passed": None}]}
    assert "1 of 2 checks passed, 1 left open" in provenance.said(
        provenance.runs({"a": RECORD}, {"a": False}, left), left
    )


def test_an_empty_store_and_a_machine_without_a_check_are_sentences():
    assert provenance.said(provenance.runs({}, {}, {}), {}) == "nothing of this profile is published"
    row = provenance.runs({"a": RECORD}, {"a": False}, {})
    assert "nothing was verified on this machine" in provenance.said(row, {})


def test_failed_checks_come_first():
    found = provenance.outcomes({"outcomes": [OUTCOME, {**OUTCOME, "kind": "scores", "passed": False}]})
    assert list(found[""]) == ["FAILED", "passed"]


def test_equal_scores_are_said_to_be_equal_also_where_both_are_undefined():
    published = scores(0, 0.5, np.nan)
    both = provenance.beside(published, published)
    sentence = provenance.verdict("segmentation", both, provenance.arms(both, published))
    assert sentence == (
        "segmentation, 1 run made anew: all 2 scores are equal to the published ones, the difference is zero."
    )


def test_scores_are_compared_at_the_digits_that_are_published():
    both = provenance.beside(scores(0, 0.6666667, 0.5), scores(0, 2 / 3, 0.500001))
    assert (both["published"] == both["remade"]).tolist() == [True, False]


def test_the_difference_of_an_arm_stands_beside_the_spread_of_its_seeds():
    every = pd.concat([scores(0, 0.4, 0.6), scores(1, 0.6, 0.8)])  # means 0.5 and 0.7, standard deviation 0.1414
    both = provenance.beside(every, scores(0, 0.4, 0.7))
    (row,) = provenance.arms(both, every).itertuples()
    assert (row.arm, row.metric, row.runs) == ("shaspec-paper", "dice", 1)
    assert (row.published, row.remade, row.difference) == pytest.approx((0.5, 0.55, 0.05))
    assert row.spread == pytest.approx(0.2 / 2**0.5)
    sentence = provenance.verdict("segmentation", both, provenance.arms(both, every))
    assert "1 of 2 scores differ; the means of an arm by +0.05 at most" in sentence
    assert "by 0.35 of the spread between seeds" in sentence
    assert len(provenance.scatter(both).axes) == 1


def test_scores_of_other_cases_are_refused():
    with pytest.raises(ValueError, match="other cases or arms"):
        provenance.beside(scores(0, 0.5, 0.6), scores(0, 0.5))
