"""What the scores of the chapter on ShaSpec come to, on made-up scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from made_segmentation import CASES, case_with_tumour, made_runs, made_table, results_of

from mmlib.analysis.statistics import Effect
from mmlib.modalities import MRI
from mmlib.studies import segmentation as study
from mmlib.studies import segmentation_findings as findings


@pytest.fixture
def runs() -> study.Study:
    return made_runs()


@pytest.fixture
def published() -> pd.DataFrame:
    return made_table()


def limits(percent: float) -> pd.Series:
    return pd.Series(percent, index=list(CASES))


def test_without_a_phantom_there_is_no_ceiling(runs: study.Study) -> None:
    own = study.read_study(results_of(runs.results.scores, stand_in=False))
    assert findings.ceiling(own, "shaspec-paper-s0") is None
    assert own.sample.endswith("your own cases")
    assert "not known for these cases" in findings.ceiling_facts(own, None)["known_answer"]
    assert "ET without t1ce: not beyond the ceiling" not in findings.rules(own, None).index


def test_findings_of_one_case_are_said_without_intervals(runs: study.Study) -> None:
    scores = runs.results.scores[runs.results.scores["case"].eq(CASES[0])]
    one = study.read_study(results_of(scores, stand_in=False))
    parts = pd.DataFrame({"id": [], "effect": [], "part": []})
    lead, ablation = findings.lead_rows(one, parts), findings.ablation(one)
    assert len(lead) == 6 and lead["low"].isna().all() and set(lead["verdict"]) == {"UNRESOLVED"}
    assert findings.clear_effects(ablation) == "One case: no interval."
    assert "one case: no interval" in findings.rival_facts(one)["price"]
    assert "nan" not in " ".join(findings.rival_facts(one).values())
    assert "nan" not in " ".join(findings.ceiling_facts(one, None).values())
    assert findings.rules(one, None).shape[1] == 5
    limit = findings.ceiling_from(one, limits(80))
    assert limit.beyond == [] and set(findings.ceiling_table(limit)["95 % interval"]) == {"one case: no interval"}
    findings.to_the_ceiling(limit).canvas.draw()


def test_the_ceiling_is_the_mean_of_its_cases_and_effects_are_points_from_it(runs: study.Study) -> None:
    limit = findings.ceiling_from(runs, limits(80))
    assert limit.mean == pytest.approx(80) and limit.beyond == []
    assert limit.of("u-hemis")["t1"].effect == pytest.approx(-23)
    assert limit.highest()[:2] == ("u-hemis", "t1+t2+flair") and limit.best("zero-fill")[0] == "t1+t2+flair"
    table = findings.ceiling_table(limit).set_index("method")
    assert table.loc["U-HeMIS", "ET Dice"] == pytest.approx(67) and len(table) == 5
    assert len(findings.to_the_ceiling(limit).axes[0].get_yticks()) == 7
    assert findings.ceiling_facts(runs, limit)["known_answer"].endswith("is 67 %, the ceiling is 80 %")


def test_an_arm_beyond_the_ceiling_fails_its_rule_and_needs_an_explanation(runs: study.Study) -> None:
    limit = findings.ceiling_from(runs, limits(10))
    assert ("u-hemis", "t1") in limit.beyond
    said = findings.beyond_text(limit)
    assert said.startswith("**Suspicious:** above the ceiling of 10.0 %") and "U-HeMIS with t1 (+" in said
    assert findings.beyond_text(findings.ceiling_from(runs, limits(80))).startswith("No network finds more")
    assert "needs an explanation" in findings.ceiling_facts(runs, limit)["known_answer"]
    rules = findings.rules(runs, limit)
    assert rules.loc["ET without t1ce: not beyond the ceiling", "U-HeMIS"] == "FAIL: 67.0, 10.0"
    assert findings.failures_in_bold(rules).loc[:, "U-HeMIS"].iloc[-1] == "font-weight: bold"


def test_the_ceiling_of_phantoms_is_computed_from_their_tissues(runs: study.Study) -> None:
    limit = findings.ceiling(runs, "shaspec-paper-s0")
    assert limit is not None and 0 < limit.mean <= 100


def test_rules_are_asked_of_nets_trained_on_subsets_alone(runs: study.Study) -> None:
    rules = findings.rules(runs, None)
    assert rules.loc["WT: flair alone above t1 alone", "ShaSpec (paper)"].startswith("pass: ")
    assert pd.isna(rules.loc["WT: flair alone above t1 alone", "U-Net fed zeros"])
    assert findings.rules_text(rules).startswith(
        "14 of 18 checks pass. Not: WT > 80 with all four (ShaSpec (released)); "
    )


def test_one_seed_has_no_spread_beside_the_paper(runs: study.Study, published: pd.DataFrame) -> None:
    record = runs.record("shaspec-paper-s0")
    rows = findings.beside_paper(runs, published, record)
    assert len(rows) == 18 and rows["ours"].str.contains(" ± 1.4 (2 seeds)", regex=False).all()
    one = runs.results.scores[runs.results.scores["seed"].eq(0)]
    rows = findings.beside_paper(study.read_study(results_of(one)), published, record)
    assert rows["ours"].str.endswith(" (1 seed)").all() and not rows["ours"].str.contains("±").any()
    assert rows["likely reason"].str.startswith("nothing outside t1ce").sum() == 3


def test_ranks_agree_where_the_same_combinations_are_hard(runs: study.Study, published: pd.DataFrame) -> None:
    both = findings.paper_and_ours(runs, published)
    assert len(both) == 45 and findings.rank_agreement(both)["tc"] == pytest.approx(1)
    assert len(findings.against_paper(both).axes) == 3


def test_the_lead_shows_the_verdicts_of_the_ledger_where_there_are_any(runs: study.Study) -> None:
    name = "WT, shaspec paper against u-hemis"
    judged = pd.DataFrame({"id": ["S1", "S1"], "part": [name, ""], "effect": [1.0, np.nan]})
    assert findings.lead_rows(runs, judged)["part"].tolist() == ["WT, against U-HeMIS"]
    rows = findings.lead_rows(runs, judged.iloc[1:])
    assert len(rows) == 6 and rows["part"].iloc[0] == "WT, against U-Net with dropout"
    assert rows["effect"].tolist() == pytest.approx([5] * 3 + [-10] * 3)


def test_the_ablation_compares_the_paper_with_every_variant_that_was_run(runs: study.Study) -> None:
    rows = findings.ablation(runs)
    assert rows["part"].tolist() == ["WT, over released", "TC, over released", "ET, over released"]
    assert findings.clear_effects(rows).startswith("The interval excludes zero for WT, over released (+10.0), ")
    assert findings.clear_effects(rows.assign(low=-1.0)) == "No interval excludes zero."


def test_variants_that_were_not_run_are_said_to_be_in_other_profiles_or_in_none(runs: study.Study) -> None:
    text = findings.variants_not_run(runs, {"full": {"ring", "released"}, "quick": {"released"}})
    assert text.startswith("Not run in this profile; profile `full`: `ring`. In no profile: ")
    assert "released" not in text


def test_a_stray_voxel_goes_with_every_threshold_and_released_rules_need_t1ce() -> None:
    case, predicted = case_with_tumour()
    ways = findings.ways_to_clean(predicted, case, ("t1",))
    assert list(ways) == ["as predicted", *(f"components from {ml:g} ml" for ml in findings.VOLUMES)]
    assert study.dice_percent(case, ways["components from 2 ml"]) == pytest.approx([100, 100, 100])
    assert study.dice_percent(case, ways["as predicted"])[0] < 100
    assert "released rules" in findings.ways_to_clean(predicted, case, MRI)


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
    means = findings.postprocessing_table(tried)
    assert findings.postprocessing_changes(means) == "components from 2 ml WT +2.0, TC +2.0, ET +2.0"
    assert len(findings.postprocessing_lines(means).axes) == 2


def test_post_processing_tries_every_threshold_on_predictions_with_t1ce_and_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, predicted = case_with_tumour()
    monkeypatch.setattr(findings, "predict", lambda model, case, given: predicted)
    assert len(findings.postprocessed(torch.nn.Identity(), {CASES[0]: case}, CASES[:1])) == 3 * (5 + 5 + 4)


def test_the_take_away_says_beats_loses_or_cannot_be_told(runs: study.Study) -> None:
    facts = findings.rival_facts(runs)
    assert facts["rivals"].startswith("beats U-Net with dropout at +5.0 points")
    assert "and loses to U-HeMIS at -10.0 points" in facts["rivals"]
    assert facts["rivals_reason"].startswith("A likely reason") and facts["met_words"] == "gains"
    assert facts["price_words"] == "loses to"
    assert findings.dice_text(runs, study.ALL) == "83/73/73" and findings.poorest_single(runs) in ("t1", "t2")


def test_a_profile_without_rivals_says_so(runs: study.Study) -> None:
    alone = runs.results.scores[runs.results.scores["method"].eq("shaspec")]
    facts = findings.rival_facts(study.read_study(results_of(alone)))
    assert facts["rivals"] == "has no rival (not run in this profile)"
    assert facts["met"] == facts["price"] == "not run in this profile" and facts["rivals_reason"] == ""


def test_the_runs_of_the_chapter_are_those_of_its_arms(runs: study.Study) -> None:
    assert len(findings.run_rows(runs)) == 7


def test_effects_with_infinite_bounds_do_not_count_as_beyond() -> None:
    effect = Effect(1.0, -np.inf, np.inf, np.nan, 0, 1, -np.inf, np.inf)
    assert findings.Ceiling(50.0, {("a", "t1"): effect}).beyond == []
