"""The tables and figures of the chapter on ShaSpec, on made-up scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_segmentation import CASES, case_with_tumour, made_runs, made_table, results_of, rows_of

from mmlib.analysis.results import Results
from mmlib.data.cases import Case
from mmlib.figures.results import combination_dots, combination_heatmap
from mmlib.studies import segmentation as study


@pytest.fixture
def runs() -> study.Study:
    return made_runs()


@pytest.fixture
def published() -> pd.DataFrame:
    return made_table()


def test_the_study_names_its_arms_and_its_sample(runs: study.Study) -> None:
    assert runs.arms == list(study.ARMS) and "dedicated" not in runs.whole
    assert runs.rivals == ["dropout-unet", "u-hemis"]
    assert runs.sample == "n = 3 test cases, 1 to 2 seeds, phantom"
    assert runs.scores["value"].max() > 1, "percent"


def test_a_case_that_lacks_a_modality_is_left_out() -> None:
    scores = pd.DataFrame(rows_of("shaspec", "paper", 0.5))
    scores = scores[scores["case"].ne(CASES[0]) | ~scores["available"].str.contains("t2")]
    total = scores.iloc[:1].assign(case="all", metric="probe-shared")
    kept = study.read_study(results_of(pd.concat([scores, total], ignore_index=True)))
    assert kept.tested == list(CASES[1:]) and set(kept.results.scores["case"]) == {*CASES[1:], "all"}


def test_one_test_case_has_scores_and_no_interval(runs: study.Study) -> None:
    scores = runs.results.scores[runs.results.scores["case"].eq(CASES[0])]
    one = study.read_study(results_of(scores, stand_in=False))
    assert one.sample == "n = 1 test cases, 1 to 2 seeds, your own cases"
    assert study.middle_table(one).loc["U-HeMIS", "WT"].endswith("(one case: no interval)")
    texts, _ = study.region_table(one, "et")
    assert texts.notna().to_numpy().sum() > 60 and "nan" not in " ".join(texts.stack().dropna())
    gain = one.gain(study.ME, "u-hemis", target="wt")
    assert gain.n == 1 and np.isnan(gain.low)
    for figure in (study.against_count(one), combination_dots(scores), combination_heatmap(scores)):
        figure.canvas.draw()
        assert not [text for axis in figure.axes for text in axis.texts if "nan" in text.get_text()]


def test_gains_are_over_the_seeds_that_both_arms_have(runs: study.Study) -> None:
    effect = runs.gain(study.ME, "dropout-unet")
    assert effect.effect == pytest.approx(5) and (effect.n, effect.seeds) == (3, 1)
    assert len(runs.gains(study.ME, "u-hemis", target=study.REGIONS)) == 3
    assert runs.gain("dropout-unet", "zero-fill", size=[1, 2, 3]).effect == pytest.approx(25)


def test_means_are_over_combinations_of_all_or_of_one_size(runs: study.Study) -> None:
    assert len(runs.middle) == 15 and set(runs.by_size["available"]) == {1, 2, 3, 4}
    assert runs.dice(study.ME).loc[study.ALL].tolist() == pytest.approx([83, 73, 73])
    assert study.middle_table(runs).columns.tolist() == ["WT", "TC", "ET"]
    assert study.middle_texts(runs).startswith("ShaSpec (paper) 69/64/59; ")
    assert study.one_and_four(runs).startswith("ShaSpec (paper), ET: 51 with one, 73 with four; ")


def test_the_gains_of_the_paper_are_over_its_best_other_network(published: pd.DataFrame) -> None:
    means = study.printed_means(published)
    assert list(means.columns) == ["WT", "TC", "ET"] and means.index[0] == "U-HeMIS"
    assert study.printed_gains(means).startswith("+2.00 (WT, over mmFormer), +2.00 (TC")


def test_samplers_are_shown_with_their_users_and_what_they_draw(runs: study.Study) -> None:
    assert study.sampler_users(runs)["uniform-subsets"][0] == "ShaSpec (paper)"
    met = study.combinations_met(["uniform-subsets", "uniform-subsets", "uniform-size"], 400)
    assert met.shape == (15, 2) and met.sum().tolist() == pytest.approx([100, 100])
    assert met.loc[study.ALL, "uniform-size"] > met.loc[study.ALL, "uniform-subsets"]
    assert len(study.sampler_bars(met).axes) == 2
    record = runs.record("shaspec-paper-s0")
    assert study.examples_of(record) == 6000 and study.complete_cases(record) == (2, 1)


def test_losses_are_read_of_every_run_and_their_fall_is_a_range(runs: study.Study, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("step,loss,lr,seconds\n0,2.0,1,0\n1,1.0,1,0\n")
    records = runs.results.records.assign(folder=str(tmp_path))
    curves = study.losses(study.read_study(Results(records, runs.results.scores)))
    assert len(curves) == len(records) and curves["shaspec-paper-s0"].tolist() == [2.0, 1.0]
    assert study.count_on(np.array([0, 11, 99, 0, 49, 0, 1])).tolist() == [0, 11, 99, 100, 149, 150, 151]
    assert study.fall({"a": pd.Series([2.0, 1.0]), "b": pd.Series([4.0, 1.0])}) == "50% to 75%"


def test_the_cost_table_has_a_row_per_arm_and_says_how_it_was_measured(
    runs: study.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [*range(0, 690, 10), 699]  # published is about every tenth
    thinned = pd.DataFrame({"step": steps, "loss": np.ones(len(steps))})
    monkeypatch.setattr(Results, "history", lambda self, run, experiment: thinned)
    cost = study.cost_table(runs)
    assert (
        (cost["steps"] == 700).all()
        and cost.loc["ShaSpec (paper)", "runs"] == 2
        and cost.loc["U-HeMIS", "parameters"] == "1,000"
    )
    assert study.setting(runs.record("u-hemis-standard-s0")) == "1500 steps of 4 crops, cpu, 1 thread, bfloat16"


def test_the_table_of_a_region_marks_the_highest_of_each_row(runs: study.Study) -> None:
    texts, bold = study.region_table(runs, "et")
    assert texts.shape == bold.shape == (15, 6) and list(texts.index) == list(study.COMBINATIONS)
    assert (bold["U-HeMIS"] == "font-weight: bold").all() and (bold["ShaSpec (paper)"] == "").all()
    assert study.highest_counts(runs) == "U-HeMIS in 45"
    assert len(study.against_count(runs).axes) == 3


def test_undefined_distances_are_counted_beside_the_mean(runs: study.Study) -> None:
    table = study.distance_table(runs)
    assert table.loc["U-HeMIS", ("WT", 1)] == "6.0 (33%)" and table.shape == (5, 12)


def test_the_cost_of_a_missing_modality_is_what_all_give_minus_what_is_left() -> None:
    dice = pd.DataFrame({"wt": [90, 80, 85], "et": [70, 71, 30]}, index=["t1+t1ce", "t1ce", "t1"])
    lost = study.cost_of_missing(dice, ("t1", "t1ce"))
    assert lost.loc["t1"].tolist() == [10, -1] and lost.loc["t1ce"].tolist() == [5, 40]
    assert study.hardest_to_miss(lost) == "WT t1 (10.0 points) and ET t1ce (40.0 points)"


def test_the_cost_of_a_missing_modality_needs_the_complete_combination() -> None:
    with pytest.raises(KeyError):
        study.cost_of_missing(pd.DataFrame({"wt": [90]}, index=["t1"]), ("t1", "t1ce"))


def test_a_case_without_labels_cannot_be_compared() -> None:
    case, predicted = case_with_tumour()
    bare = Case(case.name, case.images, case.affine)
    with pytest.raises(ValueError, match="has no labels"):
        study.dice_percent(bare, predicted)


def test_the_example_shows_an_enhancing_part_that_does_not_fill_the_core() -> None:
    case, _ = case_with_tumour()
    filled = Case("b", case.images, case.affine, np.where(case.labels, 4, 0), enhancing_label=4)
    part = Case("c", case.images, case.affine, np.where(case.labels == 4, 1, 4 * (case.labels == 1)), enhancing_label=4)
    assert study.example_case({"b": filled, "c": part}, ["b", "c"]) == "c"
    assert study.example_case({"b": filled}, ["b"]) == "b"


def test_a_copy_at_half_the_resolution_keeps_full_blocks_and_loses_thin_ones() -> None:
    labels = np.zeros((8, 8, 9), dtype=np.int16)
    labels[2:4, 2:4, 2:4] = 4  # a block of the coarse grid
    case = Case("a", {"t1": np.ones(labels.shape)}, np.eye(4), labels, enhancing_label=4)
    assert study.half_resolution_dice({"a": case}, ["a"]) == 100
    shifted = Case("b", case.images, case.affine, np.roll(labels, 1, axis=0), enhancing_label=4)
    # half of each of two blocks: both are marked, twice as many voxels
    assert study.half_resolution_dice({"b": shifted}, ["b"]) == pytest.approx(100 * 2 * 8 / (8 + 16))
    thin = Case("c", case.images, case.affine, np.where(np.arange(8)[:, None, None] == 3, labels, 0), enhancing_label=4)
    assert study.half_resolution_dice({"a": case, "c": thin}, ["a", "c"]) == pytest.approx((100 + 100 * 2 * 4 / 12) / 2)


def test_the_text_of_stops_names_the_runs_that_took_all_steps(
    runs: study.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = {"shaspec-paper-s0": 1500, "shaspec-paper-s1": 900}

    def thinned(self: Results, run: str, experiment: str) -> pd.DataFrame:
        steps = [*range(0, 700, 10), taken.get(run, 800) - 1]
        return pd.DataFrame({"step": steps, "loss": np.ones(len(steps))})

    monkeypatch.setattr(Results, "history", thinned)
    text = study.stops(runs)
    assert text.startswith("ShaSpec (paper) 1,500 and 900; ") and text.endswith("1 of 7 runs took all 1,500 steps")


def test_examples_are_the_best_the_median_the_worst_and_the_median_without_t1ce(
    runs: study.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, predicted = case_with_tumour()
    cases = {name: Case(name, case.images, case.affine, case.labels, enhancing_label=4) for name in CASES}
    monkeypatch.setattr(study, "predict", lambda model, case, given: predicted)
    ranked = study.enhancing_cases(runs, "shaspec-paper-s0", cases)
    assert ranked == list(CASES[::-1])
    rows = study.examples(torch.nn.Identity(), cases, ranked)
    assert [row.case.name for row in rows] == [CASES[2], CASES[1], CASES[0], CASES[1]]
    assert (
        rows[-1].available == study.WITHOUT_T1CE and rows[0].title == f"best, {CASES[2]}: Dice WT 100, TC 100, ET 100"
    )
