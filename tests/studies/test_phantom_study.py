"""The tables and figures of the chapter on the brain phantom."""

import numpy as np
import pandas as pd
import pytest

from mmlib.data.phantoms.brain import ceiling_without_t1ce, make_subject, make_tissues
from mmlib.data.phantoms.options import PLAIN, Options
from mmlib.modalities import MRI
from mmlib.studies import phantom as study


def test_overlap_has_a_row_per_data_set_and_means_over_subjects():
    def table(first: float, second: float) -> pd.DataFrame:
        rows = [
            (subject, name, "others", value, "r2-trees")
            for subject, value in (("a", first), ("b", second))
            for name in MRI
        ]
        rows += [("a", "t1ce", "t1", 0.5, "correlation"), ("b", "t1ce", "t1", 0.7, "correlation")]
        return pd.DataFrame(rows, columns=["subject", "target", "source", "value", "kind"])

    found = study.overlap_table({"plain": table(0.2, 0.4), "patients": table(0.8, 1.0)})
    assert found.index.tolist() == ["plain", "patients"]
    assert found.columns.tolist() == [*[f"R² {name}" for name in MRI], "r t1, t1ce"]
    assert found.loc["plain", "R² t2"] == pytest.approx(0.3)
    assert found.loc["patients", "r t1, t1ce"] == pytest.approx(0.6)


def test_the_best_fixed_marking_by_hand():
    masks = np.zeros((3, 1, 1, 4), dtype=bool)
    masks[0, 0, 0, :2] = masks[1, 0, 0, 1:3] = True  # the third is empty and does not count
    # the middle voxel alone: 2 * 1 / (2 + 1) for both; all three: 2 * 2 / (2 + 3) for both, which is more
    assert study.best_fixed_marking(masks) == pytest.approx(4 / 5)


def test_without_a_tumour_there_is_nothing_to_mark():
    with pytest.raises(ValueError, match="none of the masks holds a tumour"):
        study.best_fixed_marking(np.zeros((2, 1, 1, 3), dtype=bool))


def test_what_subjects_hold_is_filed_as_scores_and_read_again():
    seeds = range(100, 103)
    facts, masks = study.facts_of_subjects(seeds, 4.0)
    found = study.overlap_of(PLAIN, (0, 1), 4.0, 400)
    named = {"subject": "case", "source": "available", "kind": "metric"}
    filed = found.rename(columns=named).assign(case="plain: " + found["subject"])
    dial = study.as_score("predictable 0.5", "et", "ceiling", 0.4)
    scores = pd.concat([facts, filed, dial], ignore_index=True)
    assert not scores.duplicated(["case", "available", "target", "metric"]).any(), "a run would refuse them"

    sizes, ceilings = study.read_facts(scores)
    truths = {seed: make_tissues(seed, 4.0) for seed in seeds}
    for place, (seed, truth) in enumerate(truths.items()):
        assert sizes.loc[seed, "et"] == pytest.approx((truth.labels == 4).sum() * 0.064), "voxels of 4 mm in ml"
        assert np.array_equal(masks[place], truth.labels > 0)
    assert ceilings.to_dict() == {seed: ceiling_without_t1ce(truth) for seed, truth in truths.items()}
    (name, alike), *others = study.read_overlap(scores).items()
    assert name == "plain" and not others
    pd.testing.assert_frame_equal(study.overlap_table({name: alike}), study.overlap_table({name: found}))


def test_phantom_modalities_predict_each_other_in_part():
    found = study.overlap_table({"plain": study.overlap_of(PLAIN, (0, 1), 4.0, 800)})
    assert ((found.filter(like="R²") > 0.2) & (found.filter(like="R²") < 1)).to_numpy().all()


def test_a_closer_look_is_at_the_same_subject_and_leaves_voxels_that_are_not_made_of_finer_ones():
    options = Options(irregular=1.0)
    closer = study.look_closer(make_subject(3, 8.0, options=options), 4.0, options)
    assert closer.name == "phantom-0003" and closer.spacing == (4.0,) * 3
    np.testing.assert_array_equal(closer.labels, make_tissues(3, 4.0, options=options).labels)
    thirds = make_subject(3, 3.0)
    assert study.look_closer(thirds, 2.0) is thirds


def test_figures_have_a_panel_for_everything_they_name():
    options = study.draw_options(1, 4.0).axes
    assert [axes.get_title(loc="left") for axes in options] == [*study.SHOWN, *[""] * len(study.SHOWN)]
    assert [len(axes.collections) for axes in options] == [0] * len(study.SHOWN) + [1] * len(study.SHOWN), "outlines"
    shared = study.draw_shared(1, 4.0, blind=0.2).axes
    assert [axes.get_title(loc="left") for axes in shared[:4]] == list(MRI)
    assert len(shared[4].lines) == 4
    predictable = study.draw_predictable(1, 4.0, {0.0: 0.5, 1.0: 1.0}).axes
    assert predictable[4].lines[0].get_ydata()[-1] == pytest.approx(1.0)
    assert list(predictable[4].lines[1].get_xdata()) == [0.0, 1.0]
