"""The tables and figures of the chapter on ShaSpec, on made-up scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import Effect
from mmlib.data.cases import Case
from mmlib.modalities import MRI
from mmlib.studies import segmentation as study

CASES = ("phantom-0001", "phantom-0002", "phantom-0003")
LEVEL = {  # arm -> Dice of a single modality
    ("shaspec", "paper"): 0.5,
    ("shaspec", "released"): 0.4,
    ("dropout-unet", "standard"): 0.45,
    ("u-hemis", "standard"): 0.6,
    ("zero-fill", "standard"): 0.2,
    ("dedicated", "t1ce"): 0.55,
}


def value_of(level: float, available: str, target: str, seed: int, place: int) -> float:
    size = available.count("+") + 1
    blind = target == "et" and "t1ce" not in available
    wt = 0.1 if target == "wt" and "flair" in available else 0.0
    return level + 0.05 * size - 0.1 * blind + wt + 0.02 * seed + 0.02 * place


def rows_of(method: str, variant: str, level: float, **other: Any) -> list[dict[str, Any]]:
    seeds = (0, 1) if method == "shaspec" and variant == "paper" else (0,)
    given = ("t1ce",) if method == "dedicated" else study.COMBINATIONS
    return [
        {"experiment": "segmentation", "run": f"{method}-{variant}-s{seed}", "method": method, "variant": variant}
        | {"seed": seed, "case": case, "available": available, "target": target, "metric": "dice"}
        | {"value": value_of(level, available, target, seed, place), **other}
        for seed in seeds
        for place, case in enumerate(CASES)
        for available in given
        for target in study.REGIONS
    ]


def results_of(scores: pd.DataFrame, **facts: Any) -> Results:
    records = scores[["experiment", "run", "method", "variant", "seed"]].drop_duplicates()
    same: dict[str, Any] = {
        "stand_in": True,
        "availability_sampler": "uniform-subsets",
        "parameters.steps": 1500.0,
        "parameters.batch_size": 4.0,
        "parameter_count": 1000,
        "seconds.train": 10.0,
        "seconds.evaluate": 2.0,
        "peak_memory_mib": 100.0,
        "device": "cpu",
        "threads": 1.0,
        "precision": "bfloat16",
        "git_commit": "0123456789abcdef",
        "fingerprint": "f",
        "spacing": 4.0,
        "folder": "",
        **facts,
    }
    widths = {"parameters.widths": [[16, 32]] * len(records)}
    exposure = [{"fit": {"a": ["t1"], "b": list(MRI)}}] * len(records)
    return Results(records.assign(**same, exposure=exposure, **widths).reset_index(drop=True), scores)


@pytest.fixture
def runs() -> study.Study:
    rows = [row for (method, variant), level in LEVEL.items() for row in rows_of(method, variant, level)]
    hd95 = [{**row, "metric": "hd95", "value": np.nan if row["case"] == CASES[0] else 6.0} for row in rows]
    return study.read_study(results_of(pd.DataFrame(rows + hd95)))


@pytest.fixture
def published() -> pd.DataFrame:
    levels = {"U-HeMIS": 40.0, "mmFormer": 60.0, "ShaSpec": 62.0, "ShaSpec*": 63.0}
    return pd.DataFrame(
        [
            {"method": method, "available": available, "target": target, "dice_percent": level + available.count("+")}
            for method, level in levels.items()
            for available in study.COMBINATIONS
            for target in study.REGIONS
        ]
    )


def limits(percent: float) -> pd.Series:
    return pd.Series(percent, index=list(CASES))


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
    assert study.fall({"a": pd.Series([2.0, 1.0]), "b": pd.Series([4.0, 1.0])}) == "50% to 75%"


def test_the_cost_table_has_a_row_per_arm_and_says_how_it_was_measured(
    runs: study.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Results, "history", lambda self, run, experiment: pd.DataFrame({"loss": np.ones(700)}))
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


def test_without_a_phantom_there_is_no_ceiling(runs: study.Study) -> None:
    own = study.read_study(results_of(runs.results.scores, stand_in=False))
    assert study.ceiling(own, "shaspec-paper-s0") is None
    assert own.sample.endswith("your own cases")
    assert "not known for these cases" in study.ceiling_facts(own, None)["known_answer"]
    assert "ET without t1ce: not beyond the ceiling" not in study.rules(own, None).index


def test_the_ceiling_is_the_mean_of_its_cases_and_effects_are_points_from_it(runs: study.Study) -> None:
    limit = study.ceiling_from(runs, limits(80))
    assert limit.mean == pytest.approx(80) and limit.beyond == []
    assert limit.of("u-hemis")["t1"].effect == pytest.approx(-23)
    assert limit.highest()[:2] == ("u-hemis", "t1+t2+flair") and limit.best("zero-fill")[0] == "t1+t2+flair"
    table = study.ceiling_table(limit).set_index("method")
    assert table.loc["U-HeMIS", "ET Dice"] == pytest.approx(67) and len(table) == 5
    assert len(study.to_the_ceiling(limit).axes[0].get_yticks()) == 7
    assert study.ceiling_facts(runs, limit)["known_answer"].endswith("is 67 %, the ceiling is 80 %")


def test_an_arm_beyond_the_ceiling_fails_its_rule_and_needs_an_explanation(runs: study.Study) -> None:
    limit = study.ceiling_from(runs, limits(10))
    assert ("u-hemis", "t1") in limit.beyond
    assert "needs an explanation" in study.ceiling_facts(runs, limit)["known_answer"]
    rules = study.rules(runs, limit)
    assert rules.loc["ET without t1ce: not beyond the ceiling", "U-HeMIS"] == "FAIL: 67.0, 10.0"
    assert study.failures_in_bold(rules).loc[:, "U-HeMIS"].iloc[-1] == "font-weight: bold"


def test_the_ceiling_of_phantoms_is_computed_from_their_tissues(runs: study.Study) -> None:
    limit = study.ceiling(runs, "shaspec-paper-s0")
    assert limit is not None and 0 < limit.mean <= 100


def test_rules_are_asked_of_nets_trained_on_subsets_alone(runs: study.Study) -> None:
    rules = study.rules(runs, None)
    assert rules.loc["WT: flair alone above t1 alone", "ShaSpec (paper)"].startswith("pass: ")
    assert pd.isna(rules.loc["WT: flair alone above t1 alone", "U-Net fed zeros"])
    assert study.rules_text(rules).startswith("14 of 18 checks pass. Not: WT > 80 with all four (ShaSpec (released)); ")


def test_one_seed_has_no_spread_beside_the_paper(runs: study.Study, published: pd.DataFrame) -> None:
    record = runs.record("shaspec-paper-s0")
    rows = study.beside_paper(runs, published, record)
    assert len(rows) == 18 and rows["ours"].str.contains(" ± 1.4 (2 seeds)", regex=False).all()
    one = runs.results.scores[runs.results.scores["seed"].eq(0)]
    rows = study.beside_paper(study.read_study(results_of(one)), published, record)
    assert rows["ours"].str.endswith(" (1 seed)").all() and not rows["ours"].str.contains("±").any()
    assert rows["likely reason"].str.startswith("nothing outside t1ce").sum() == 3


def test_ranks_agree_where_the_same_combinations_are_hard(runs: study.Study, published: pd.DataFrame) -> None:
    both = study.paper_and_ours(runs, published)
    assert len(both) == 45 and study.rank_agreement(both)["tc"] == pytest.approx(1)
    assert len(study.against_paper(both).axes) == 3


def test_the_lead_shows_the_verdicts_of_the_ledger_where_there_are_any(runs: study.Study) -> None:
    name = "WT, shaspec paper against u-hemis"
    judged = pd.DataFrame({"id": ["S1", "S1"], "part": [name, ""], "effect": [1.0, np.nan]})
    assert study.lead_rows(runs, judged)["part"].tolist() == ["WT, against U-HeMIS"]
    rows = study.lead_rows(runs, judged.iloc[1:])
    assert len(rows) == 6 and rows["part"].iloc[0] == "WT, against U-Net with dropout"
    assert rows["effect"].tolist() == pytest.approx([5] * 3 + [-10] * 3)


def test_the_ablation_compares_the_paper_with_every_variant_that_was_run(runs: study.Study) -> None:
    rows = study.ablation(runs)
    assert rows["part"].tolist() == ["WT, over released", "TC, over released", "ET, over released"]
    assert study.clear_effects(rows).startswith("The interval excludes zero for WT, over released (+10.0), ")
    assert study.clear_effects(rows.assign(low=-1.0)) == "No interval excludes zero."


def test_variants_that_were_not_run_are_said_to_be_in_other_profiles_or_in_none(runs: study.Study) -> None:
    text = study.variants_not_run(runs, {"full": {"ring", "released"}, "quick": {"released"}})
    assert text.startswith("Not run in this profile; profile `full`: `ring`. In no profile: ")
    assert "released" not in text


def case_with_tumour() -> tuple[Case, np.ndarray]:
    labels = np.zeros((12, 12, 12), dtype=int)
    labels[2:8, 2:8, 2:8] = 1
    labels[2:8, 2:8, 2:6] = 4
    images = {name: np.where(labels > 0, 2.0, 1.0) for name in MRI}
    case = Case("a", images, np.diag([4.0, 4.0, 4.0, 1.0]), labels, enhancing_label=4)
    predicted = study.true_regions(case).copy()
    predicted[:, 11, 11, 11] = True
    return case, predicted


def test_a_stray_voxel_goes_with_every_threshold_and_released_rules_need_t1ce() -> None:
    case, predicted = case_with_tumour()
    ways = study.ways_to_clean(predicted, case, ("t1",))
    assert list(ways) == ["as predicted", *(f"components from {ml:g} ml" for ml in study.VOLUMES)]
    assert study.dice_percent(case, ways["components from 2 ml"]) == pytest.approx([100, 100, 100])
    assert study.dice_percent(case, ways["as predicted"])[0] < 100
    assert "released rules" in study.ways_to_clean(predicted, case, MRI)


def test_post_processing_is_averaged_over_cases_and_drawn() -> None:
    tried = pd.DataFrame(
        [
            {"way": way, "available": available, "target": target, "case": case, "dice": dice}
            for way, dice in (("as predicted", 50.0), ("components from 2 ml", 52.0))
            for available in ("all four", "t1")
            for target in study.REGIONS
            for case in ("a", "b")
        ]
    )
    means = study.postprocessing_table(tried)
    assert study.postprocessing_changes(means) == "components from 2 ml WT +2.0, TC +2.0, ET +2.0"
    assert len(study.postprocessing_lines(means).axes) == 2


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
    assert len(study.postprocessed(torch.nn.Identity(), cases, CASES[:1])) == 3 * (5 + 5 + 4)


def test_the_take_away_says_beats_loses_or_cannot_be_told(runs: study.Study) -> None:
    facts = study.rival_facts(runs)
    assert facts["rivals"].startswith("beats U-Net with dropout at +5.0 points")
    assert "and loses to U-HeMIS at -10.0 points" in facts["rivals"]
    assert facts["rivals_reason"].startswith("A likely reason") and facts["met_words"] == "gains"
    assert facts["price_words"] == "loses to"
    assert study.dice_text(runs, study.ALL) == "83/73/73" and study.poorest_single(runs) in ("t1", "t2")


def test_a_profile_without_rivals_says_so(runs: study.Study) -> None:
    alone = runs.results.scores[runs.results.scores["method"].eq("shaspec")]
    facts = study.rival_facts(study.read_study(results_of(alone)))
    assert facts["rivals"] == "has no rival (not run in this profile)"
    assert facts["met"] == facts["price"] == "not run in this profile" and facts["rivals_reason"] == ""


def test_the_runs_of_the_chapter_are_those_of_its_arms(runs: study.Study) -> None:
    assert len(study.run_rows(runs)) == 7


def test_effects_with_infinite_bounds_do_not_count_as_beyond() -> None:
    effect = Effect(1.0, -np.inf, np.inf, np.nan, 0, 1, -np.inf, np.inf)
    assert study.Ceiling(50.0, {("a", "t1"): effect}).beyond == []


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
    monkeypatch.setattr(
        Results, "history", lambda self, run, experiment: pd.DataFrame({"loss": np.ones(taken.get(run, 800))})
    )
    text = study.stops(runs)
    assert text.startswith("ShaSpec (paper) 1,500 and 900; ") and text.endswith("1 of 7 runs took all 1,500 steps")
