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


def results_of(scores: pd.DataFrame, **facts: object) -> Results:
    records = scores[["experiment", "run", "method", "variant", "seed"]].drop_duplicates()
    return Results(records.assign(stand_in=True, **facts), scores)


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
    return studied.read_study(results_of(scores), "distillation")


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
    figure = studied.curve_panels({"a": losses, "b": losses}, "task loss")
    assert [len(axis.lines) for axis in figure.axes] == [2, 2]
    assert figure.axes[0].get_ylabel() == "task loss"


def test_maps_are_drawn_with_a_row_per_network() -> None:
    planes = {name: np.random.default_rng(0).random((4, 8, 8)) for name in ("teacher", "student")}
    truth = np.zeros((3, 8, 8), bool)
    truth[:, 2:5, 2:5] = True
    figure = studied.variation_maps(planes, truth, np.ones((8, 8), bool))
    assert len(figure.axes) == 9
    plt.close("all")


def rows_of(arm: str, *students: str, **facts: object) -> list[dict]:
    return [{**row, **facts} for name in students for row in scores_of(arm, 0, name, LEVEL.get(arm, 0.5))]


def test_a_student_counts_where_it_was_trained_with_and_without_a_teacher() -> None:
    rows = rows_of("unimodal", "t1", "t2") + rows_of("protokd", "t1", "flair") + rows_of("teacher", studied.ALL)
    study = studied.read_study(results_of(pd.DataFrame(rows)), "distillation")
    assert study.students == ["t1"] and list(study.gains("protokd", "unimodal")) == ["t1"]
    alone = pd.DataFrame(rows_of("unimodal", "t2") + rows_of("protokd", "t1"))
    with pytest.raises(ValueError, match="scored with .'t1'., unimodal with .'t2'.; give"):
        studied.read_study(results_of(alone), "distillation")


def test_another_experiment_enters_a_study_only_where_it_is_named() -> None:
    own = rows_of("unimodal", "t1") + rows_of("protokd", "t1") + rows_of("teacher", studied.ALL)
    few = [{**row, "experiment": "distillation-12", "value": 0.0} for row in own]
    other = rows_of("u-hved", "t1", experiment="subsets")
    results = results_of(pd.DataFrame(own + few + other))
    study = studied.read_study(results, "distillation", ["subsets"])
    assert "u-hved" in study.arms and studied.entry(study, "protokd", "t1", "wt") == pytest.approx(62.5)
    assert "u-hved" not in studied.read_study(results, "distillation").arms


def test_scores_of_the_stopping_rule_are_kept_at_the_steps_that_were_scored() -> None:
    history = pd.DataFrame({"student": ["t1", "t1", "t2", "t2"], "step": [0, 1, 0, 1], "segmentation": 1.0})
    assert studied.validation_scores(history) == {}
    scored = studied.validation_scores(history.assign(score=[np.nan, 0.5, np.nan, 0.25]))
    assert {name: line.to_dict() for name, line in scored.items()} == {"t1": {1: 50}, "t2": {1: 25}}


def trainings(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A teacher that the limit stops, students that the rule stops, and one with a fixed number of steps."""
    taken = {"teacher-s0": {studied.ALL: 100}, "protokd-s0": {"t1": 60, "t1ce": 100}, "protokd-s1": {"t1": 80}}
    arms = [(name.partition("-s")[0], "standard", int(name[-1]), name) for name in taken]
    arms.append(("unimodal", "constant", 0, "unimodal-constant-s0"))
    taken["unimodal-constant-s0"] = {"t1": 100}

    def history(self: Results, run: str, experiment: str) -> pd.DataFrame:
        kept = {name: [*range(0, count - 1, 7), count - 1] for name, count in taken[run].items()}  # as is published
        parts = [pd.DataFrame({"student": name, "step": steps}) for name, steps in kept.items()]
        score = {} if "constant" in run else {"score": 0.5}
        return pd.concat(parts, ignore_index=True).assign(**score)

    monkeypatch.setattr(Results, "history", history)
    records = pd.DataFrame(arms, columns=["method", "variant", "seed", "run"])
    records = records.assign(experiment="distillation", **{"parameters.steps": 100})
    return studied.training_ends(Results(records, pd.DataFrame()), "distillation")


def test_a_training_ends_by_the_rule_the_limit_or_a_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = trainings(monkeypatch).set_index(["arm", "student", "seed"])["ended"]
    assert ends["protokd", "t1", 0] == ends["protokd", "t1", 1] == "rule"
    assert ends["protokd", "t1ce", 0] == ends["teacher", studied.ALL, 0] == "limit"
    assert ends["unimodal constant", "t1", 0] == "schedule"


def test_the_words_on_trainings_count_the_rule_and_name_who_met_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = trainings(monkeypatch)
    assert studied.ends_in_words(ends) == (
        "The rule ended 2 trainings, the limit of steps 2: teacher (all four), ProtoKD (t1ce). "
        "Without a rule, over a fixed number of steps: no teacher, constant."
    )
    assert studied.ends_in_words(ends[ends["ended"].eq("rule")]).endswith("2 trainings, the limit of steps 0. ")


def test_the_table_of_steps_has_a_number_a_seed_and_marks_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    table = studied.steps_taken(trainings(monkeypatch)).set_index("trained")
    assert list(table) == ["all four", "t1", "t1ce"]
    assert table.loc["ProtoKD"].tolist() == ["-", "60; 80", "100 (limit)"]
    assert table.loc["no teacher, constant"].tolist() == ["-", "100 (fixed)", "-"]


def test_temperatures_meet_on_the_seeds_that_all_of_them_have() -> None:
    rows = rows_of("unimodal", "t1") + rows_of("teacher", studied.ALL)
    rows += [row for seed in (0, 1) for row in scores_of("protokd", seed, "t1", 0.6 + 0.1 * seed)]
    rows += scores_of("protokd temperature-1", 1, "t1", 0.5)
    swept = studied.temperatures(studied.read_study(results_of(pd.DataFrame(rows)), "distillation"))
    assert swept["temperature"].tolist() == [1, 10] and swept["seeds"].tolist() == [1, 1]
    assert swept["average, %"].tolist() == pytest.approx([52.5, 72.5])


def test_worse_teachers_are_shown_with_their_steps() -> None:
    rows = rows_of("unimodal", "t1") + rows_of("protokd", "t1") + rows_of("protokd quarter-teacher", "t1")
    rows += rows_of("teacher", studied.ALL) + rows_of("teacher quarter", studied.ALL)
    ends = pd.DataFrame({"arm": ["teacher", "teacher quarter"], "steps": [1200, 75]})
    table = studied.worse_teachers(studied.read_study(results_of(pd.DataFrame(rows)), "distillation"), ends)
    assert table["teacher"].tolist() == ["whole", "quarter"] and table["its steps"].tolist() == ["1,200", "75"]
    assert table["its own Dice, average, %"].tolist() == pytest.approx([92.5, 52.5])


def test_what_serves_is_counted_with_the_steps_that_networks_took() -> None:
    facts = {"parameter_count": 10, "seconds.train": 6.0, "peak_memory_mib": 5, "networks": 2, "device": "cpu"}
    runs = pd.DataFrame([{"arm": arm, **facts} for arm in ("teacher", "protokd")])
    ends = pd.DataFrame({"arm": ["teacher", "protokd", "protokd"], "steps": [900, 500, 700]})
    rival = pd.DataFrame([{**facts, "parameters.steps": 1500, "parameters.patience": 0.2}])
    ours, theirs = studied.serving_costs(runs, rival, ends).to_dict("records")
    assert ours["steps"] == f"{900 + 4 * 600:,}" and ours["training / s"] == 6 + 4 * 3
    assert theirs["steps"] == "at most 1,500"
    elsewhere = studied.serving_costs(runs, rival.assign(device="cuda"), ends)
    assert {"training / s", "peak memory / MiB"}.isdisjoint(elsewhere) and elsewhere["steps"].tolist() == [
        "3,300",
        "at most 1,500",
    ]
