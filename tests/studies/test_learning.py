import numpy as np
import pandas as pd
import pytest

from mmlib.analysis.results import Results
from mmlib.modalities import MRI, label
from mmlib.studies import learning as study

ALL = label(MRI, MRI)


def rows(experiment, run, method, variant, values, metric="dice", cases=("a", "b", "c")):
    """One score per case of every (available, target) -> value."""
    return [
        (experiment, run, method, variant, 0, case, available, target, metric, value)
        for (available, target), value in values.items()
        for case in cases
    ]


def results(scores, **parameters):
    columns = ["experiment", "run", "method", "variant", "seed", "case", "available", "target", "metric", "value"]
    table = pd.DataFrame(scores, columns=columns)
    records = table[["experiment", "run"]].drop_duplicates().reset_index(drop=True)
    for name, values in parameters.items():
        records[f"parameters.{name}"] = records["run"].map(values)
    return Results(records, table)


def test_the_best_of_the_settings_tried_is_marked_and_what_it_would_give_more():
    runs = {
        "dropout-unet-s100-learning_rate=0.004-weight_decay=0.0001": 0.70,
        "dropout-unet-s100-learning_rate=0.004-weight_decay=1e-05": 0.74,
    }
    scores = [
        row
        for run, value in runs.items()
        for row in rows("tuning", run, "dropout-unet", "standard", {("t1", "wt"): value}, "valid-dice")
    ]
    scores += rows("segmentation", "dropout-unet-s0", "dropout-unet", "standard", {("t1", "wt"): 0.1})
    found = results(scores, learning_rate={"dropout-unet-s0": 0.004}, weight_decay={"dropout-unet-s0": 0.0001})
    table = study.tried(found, "tuning")
    assert list(table.columns) == [
        "learning rate 0.004, weight decay 0.0001",
        "learning rate 0.004, weight decay 1e-05",
    ]
    assert table.to_numpy().tolist() == [[pytest.approx(70), pytest.approx(74)]]
    used = study.taken(found, "tuning")
    assert used == {"dropout-unet": "learning rate 0.004, weight decay 0.0001"}
    shown = study.choices(table, used)
    assert shown.index.tolist() == ["U-Net with dropout"]
    (chosen,) = shown.to_numpy().tolist()
    assert chosen == ["70.00", "74.00 *", "learning rate 0.004, weight decay 0.0001", "4.00"]


@pytest.mark.parametrize(
    ("arm", "name"),
    [
        ("rfnet", "RFNet"),
        ("dropout standard@20", "fused net, dropped audio"),
        ("smil released@20", "SMIL (released)"),
        ("guidance wider", "wider head on I"),
        ("kd-net", "KD-Net-style"),
        ("m2dn unet", "M2DN, U-Net"),
        ("of a reader", "of a reader"),
    ],
)
def test_arms_of_all_studies_have_the_names_of_their_chapters(arm, name):
    assert study.name_of(arm) == name


def test_test_scores_choose_no_setting():
    run = "dropout-unet-s100-learning_rate=0.004"
    found = results(rows("tuning", run, "dropout-unet", "standard", {("t1", "wt"): 0.9}))
    assert study.tried(found, "tuning").empty


def trees(value):
    every = [(names, "a", target, value) for names in [*MRI, ALL] for target in study.REGIONS]
    return pd.DataFrame(every, columns=["available", "case", "target", "value"])


def segmentation(single, complete):
    values = {(name, target): single for name in MRI for target in study.REGIONS}
    values |= {(ALL, target): complete for target in study.REGIONS}
    return rows("segmentation", "shaspec-paper-s0", "shaspec", "paper", values)


def test_bars_say_what_is_passed_and_what_is_not_run():
    found = study.bars(results(segmentation(0.5, 0.88)), trees(0.6)).set_index("bar, fixed before the runs")["measured"]
    assert found["ET with all four modalities at least 85"] == "ShaSpec (paper) 88.0, passed"
    assert found["WT with all four modalities at least 90"] == "ShaSpec (paper) 88.0, not passed"
    below = found["no network below the trees with the same modalities"]
    assert below == "12 of 15 cells below; lowest: ShaSpec (paper), t1, ET -10.0, not passed"
    assert found["one modality: a run three times as long gains at most 3"] == "not run in this profile"


def test_a_longer_run_is_compared_on_the_same_cases_and_seeds():
    usual = [("comparison-twice", *row[1:]) for row in segmentation(0.5, 0.9)]
    longer = [("comparison-longer", *row[1:]) for row in segmentation(0.53, 0.9)]
    both = results(segmentation(0.5, 0.9) + usual + longer)
    gains = study.gained_by_time(both, "comparison-twice", "comparison-longer")
    assert list(gains["available"]) == list(MRI)
    np.testing.assert_allclose([one.effect for one in gains["effect"]], 3)
    found = study.bars(both, trees(0.1)).set_index("bar, fixed before the runs")["measured"]
    assert found["no network below the trees with the same modalities"].endswith(", passed")
    assert found["one modality: a run three times as long gains at most 3"].startswith("ShaSpec (paper), t1 +3.0")


def test_networks_on_equal_terms_are_asked_what_twice_their_steps_gain():
    equal = [("comparison", *row[1:]) for row in segmentation(0.5, 0.9)]
    equal += [("comparison-twice", *row[1:]) for row in segmentation(0.6, 0.9)]
    found = study.bars(results(equal), trees(0.1)).set_index("bar, fixed before the runs")["measured"]
    (bar,) = [bar for bar in found.index if "twice the steps" in bar]
    assert "results known" in bar and found[bar].startswith("ShaSpec (paper), t1 +10.0")
    assert found[bar].endswith(", not passed")


def test_a_row_for_each_modality_says_what_each_length_gains_over_the_one_before():
    lengths = {"comparison": 2000, "comparison-twice": 4000, "comparison-longer": 12000}
    scores = [
        (experiment, *row[1:])
        for experiment, value in zip(lengths, (0.5, 0.6, 0.62), strict=True)
        for row in segmentation(value, 0.9)
    ]
    found = results(scores)
    assert study.gains_by_steps(Results(found.records.assign(**{"parameters.steps": 0})[:0], found.scores)).empty
    found.records["parameters.steps"] = found.records["experiment"].map(lengths)
    table = study.gains_by_steps(found).set_index(["network", "modality"])
    assert list(table) == ["4,000 steps over 2,000", "12,000 steps over 4,000"]
    assert list(table.loc["ShaSpec (paper)"].index) == list(MRI)
    assert [cell.split()[0] for cell in table.loc[("ShaSpec (paper)", "t1")]] == ["+10.0", "+2.0"]
    assert table.loc[("ShaSpec (paper)", "t1")].str.endswith("1 seed").all()


def test_the_lead_of_a_teacher_is_over_the_best_student_of_each_modality():
    scores = []
    for method, available, value in (
        ("teacher", ALL, 0.9),
        ("unimodal", "t1", 0.6),
        ("protokd", "t1", 0.7),
        ("unimodal", "t1ce", 0.85),
    ):
        run = f"{method}-{available}"
        scores += rows("distillation", run, method, "standard", {(available, "wt"): value})
    found = study.teacher_leads(results(scores))
    assert found.round(6).to_dict() == {"t1": 20.0, "t1ce": 5.0}


def test_quality_of_diffusion_counts_patterns_with_one_modality_missing():
    three = label(("t1", "t2", "flair"), MRI)
    scores = rows("synthesis", "m2dn-unet", "m2dn", "unet", {(three, "t1ce"): 23.0, ("t1", "t1ce"): 10.0}, "psnr")
    scores += rows("synthesis", "regression-unet", "regression", "unet", {(three, "t1ce"): 23.5}, "psnr")
    scores += segmentation(0.5, 0.9)
    found = study.bars(results(scores), trees(0.1)).set_index("bar, fixed before the runs")["measured"]
    assert found["M2DN within 0.7 dB of regression, both as U-Net"] == "0.50, passed"
    assert not any("noise" in bar for bar in found.index)
