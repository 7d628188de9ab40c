"""The tables and figures of the chapter on ProtoKD, on made-up scores."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mmlib.analysis.results import Results
from mmlib.studies import distillation as studied

CASES = [f"case-{number}" for number in range(6)]
LEVEL = {"teacher": 0.9, "unimodal": 0.5, "protokd": 0.6, "protokd pixel": 0.55, "protokd prototype": 0.52}


def scores_of(arm: str, seed: int, available: str, level: float) -> list[dict]:
    method, _, variant = arm.partition(" ")
    same = {"experiment": "distillation", "method": method, "variant": variant or "standard", "seed": seed}
    return [
        {**same, "run": f"{arm}-s{seed}", "case": case, "available": available, "metric": "dice", "target": target}
        | {"value": level + 0.01 * place}
        for place, case in enumerate(CASES)
        for target in studied.REGION_ORDER
    ]


@pytest.fixture
def study() -> studied.Study:
    rows = [
        row
        for arm, level in LEVEL.items()
        for seed in ((0, 1) if arm in ("unimodal", "protokd") else (0,))
        for name in ([studied.ALL] if arm == "teacher" else ["t1", "flair"])
        for row in scores_of(arm, seed, name, level + 0.02 * seed)
    ]
    scores = pd.DataFrame(rows)
    records = scores[["experiment", "run", "method", "variant", "seed"]].drop_duplicates().assign(stand_in=True)
    return studied.read_study(Results(records, scores), "distillation")


def test_a_study_knows_its_students_cases_and_arms(study: studied.Study) -> None:
    assert study.students == ["t1", "flair"]
    assert study.tested == CASES
    assert study.arms == ["teacher", "unimodal", "protokd", "protokd pixel", "protokd prototype"]
    assert study.have(["protokd", "protokd pixel"]) == ["t1", "flair"] and study.have(["pmkl"]) == []


def test_the_sample_is_written_with_the_number_of_seeds(study: studied.Study) -> None:
    assert "6 test cases, 2 seeds of ProtoKD" in study.sample and study.sample.endswith("phantom")


def test_a_gain_is_in_points_over_the_seeds_that_both_have(study: studied.Study) -> None:
    assert study.gain("protokd", "unimodal", "t1").effect == pytest.approx(10)
    assert [round(e.effect) for e in study.gains("protokd", "unimodal").values()] == [10, 10]
    one_seed = study.gain("protokd pixel", "unimodal", "t1", "et")
    assert one_seed.effect == pytest.approx(5) and one_seed.seeds == 1


def test_the_teacher_is_the_same_in_every_column_of_the_grid(study: studied.Study) -> None:
    grid = studied.dice_grid(study)
    assert np.allclose(grid.loc["teacher"], 92.5)
    bold = studied.best_in_bold(grid)
    assert set(bold.loc["ProtoKD"]) == {"font-weight: bold"} and set(bold.loc["teacher"]) == {""}


def test_what_was_not_run_is_a_dash_or_nan(study: studied.Study) -> None:
    assert np.isnan(studied.entry(study, "protokd", "t2", "et"))
    assert list(studied.average_intervals(study)) == ["trained", "t1", "flair"]


def test_the_seeds_of_an_arm_lie_apart_by_the_range_of_their_means(study: studied.Study) -> None:
    apart = studied.seed_distances(study)
    assert len(apart) == 4 and np.allclose(apart, 2)


def test_the_interaction_is_both_and_none_minus_the_terms(study: studied.Study) -> None:
    names, effects = studied.term_effects(study)
    assert names[3] == "t1: interaction"
    assert effects[3].effect == pytest.approx(60 + 50 - 55 - 52)


def test_arms_that_were_not_run_give_empty_tables(study: studied.Study) -> None:
    assert studied.rate_effects(study) == ([], [])
    assert studied.temperatures(study).empty


def test_the_comparison_counts_seeds_and_names_the_reason(study: studied.Study) -> None:
    columns = pd.MultiIndex.from_product([studied.SINGLES, studied.TARGETS])
    grid = pd.DataFrame([[1.0] * 16, [3.0] * 16], index=["Unimodal", "ProtoKD"], columns=columns)
    rows = studied.comparison(study, grid, "other cases").set_index(["train with / test with", "metric"])
    assert rows["ours"].str.contains("(2 seeds)", regex=False).all()
    assert rows["gap"].eq("+8.0").all()
    assert rows["likely reason"].str.startswith("no rim").sum() == 2


def test_gain_and_gap_have_a_point_per_student_and_region(study: studied.Study) -> None:
    points = studied.gains_and_gaps(study)
    assert len(points) == 6
    assert np.allclose(points["gain"], 10) and np.allclose(points["gap"], 92.5 - 53.5)
    assert studied.gain_and_gap(points).axes
    plt.close("all")


def test_the_gain_of_a_region_is_the_mean_over_students(study: studied.Study) -> None:
    assert {target: round(e.effect) for target, e in studied.region_gains(study).items()} == dict.fromkeys(
        studied.REGION_ORDER, 10
    )


def test_every_opponent_and_student_is_a_row_of_the_tests(study: studied.Study) -> None:
    tests = studied.paired_tests(study)
    assert len(tests) == 6 and {"p, Wilcoxon, Holm"} <= set(tests)


def test_an_arm_without_a_name_is_named_by_its_method() -> None:
    assert studied.arm_name("protokd half-teacher") == "ProtoKD, half-teacher"


def test_task_losses_are_kept_apart_by_network() -> None:
    history = pd.DataFrame({"student": ["t1", "t2"] * 3, "step": [0, 0, 1, 1, 2, 2], "segmentation": [1, 5] * 3})
    losses = studied.task_losses(history)
    assert losses["t1"].tolist() == [1, 1, 1] and losses["t2"].tolist() == [5, 5, 5]
    assert studied.loss_panels({"a": losses, "b": losses}).axes
    plt.close("all")


def test_maps_are_drawn_with_a_row_per_network() -> None:
    planes = {name: np.random.default_rng(0).random((4, 8, 8)) for name in ("teacher", "student")}
    truth = np.zeros((3, 8, 8), bool)
    truth[:, 2:5, 2:5] = True
    figure = studied.variation_maps(planes, truth, np.ones((8, 8), bool))
    assert len(figure.axes) == 9
    plt.close("all")
