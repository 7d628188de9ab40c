"""What a teacher is worth by the number of training cases, on made-up scores."""

from __future__ import annotations

import pandas as pd
import pytest

from mmlib.analysis.results import Results
from mmlib.studies import distillation_dial as dial
from mmlib.studies.distillation import ALL, REGION_ORDER, read_study

TESTED = [f"phantom-{number}" for number in range(6)]
COUNTS = {"distillation-12": 12, "distillation-50": 50, "distillation": 100, "distillation-private": 100}
GAINS = {"distillation-12": 0.06, "distillation-50": 0.03, "distillation": 0.01, "distillation-private": 0.0}


@pytest.fixture
def results() -> Results:
    """The teacher at 90, students of t1ce at 50, and taught ones above by `GAINS`; those of t1 at 20, taught or not."""
    rows, records = [], []
    for experiment, count in COUNTS.items():
        level = {"teacher": {ALL: 0.9}, "unimodal": {"t1ce": 0.5, "t1": 0.2}}
        level["protokd"] = {"t1ce": 0.5 + GAINS[experiment], "t1": 0.2}
        for method, networks in level.items():
            for seed in (0, 1):
                run = {"experiment": experiment, "run": f"{method}-s{seed}", "method": method, "seed": seed}
                run["variant"] = "standard"
                exposure = {name: {f"case-{case}": [] for case in range(count)} for name in networks}
                records.append({**run, "stand_in": True, "exposure": exposure})
                rows += [
                    {**run, "case": case, "available": name, "metric": "dice", "target": target, "value": dice}
                    for name, dice in networks.items()
                    for case in TESTED
                    for target in REGION_ORDER
                ]
    return Results(pd.DataFrame(records), pd.DataFrame(rows))


@pytest.fixture
def turned(results: Results) -> pd.DataFrame:
    studies = dial.read_dial(results, ["distillation", "distillation-12", "distillation-25", "distillation-50"])
    return dial.worth(studies, read_study(results, "distillation-private"))


def test_the_dial_has_a_study_for_each_experiment_that_was_run_by_its_number_of_cases(results: Results) -> None:
    studies = dial.read_dial(results, ["distillation", "distillation-12", "distillation-25"])
    assert list(studies) == [12, 100]
    assert set(studies[12].records["experiment"]) == {"distillation-12"}


def test_gain_and_lead_are_over_the_network_without_a_teacher_that_has_the_same_cases(turned: pd.DataFrame) -> None:
    by = turned.set_index(["data", "student", "what", "cases"])["effect"].map(lambda e: e.effect).sort_index()
    assert by[dial.SHARED, "t1ce", dial.GAIN].to_dict() == pytest.approx({12: 6, 50: 3, 100: 1})
    assert by[dial.SHARED, "t1", dial.GAIN].to_dict() == pytest.approx({12: 0, 50: 0, 100: 0}, abs=1e-9)
    assert by[dial.SHARED, "t1", dial.LEAD, 12] == pytest.approx(70)
    assert by[dial.PRIVATE, "t1ce", dial.GAIN].to_dict() == pytest.approx({100: 0}, abs=1e-9)


def test_a_student_that_was_not_trained_is_left_out(results: Results) -> None:
    scores = results.scores[results.scores["available"].ne("t1")]
    points = dial.worth(dial.read_dial(Results(results.records, scores), ["distillation-12"]))
    assert points["student"].unique().tolist() == ["t1ce"]
    assert dial.gain_words(points, "t1") == "not run"
    assert len(dial.dial_figure(points, 3).axes) == 2


def test_the_figure_has_a_line_per_student_an_open_marker_per_control_and_the_least_gain(turned: pd.DataFrame) -> None:
    gain, lead = dial.dial_figure(turned, 3.0).axes
    drawn = {line.get_label(): line for line in gain.lines}
    assert drawn["student of t1ce"].get_ydata() == pytest.approx([6, 3, 1])
    assert drawn[f"student of t1: {dial.PRIVATE}"].get_markerfacecolor() == "white"
    assert any(line.get_linestyle() == ":" and set(line.get_ydata()) == {3.0} for line in gain.lines)
    assert not any(line.get_linestyle() == ":" for line in lead.lines)
    assert [text.get_text() for text in gain.get_xticklabels()] == ["12", "50", "100"]


def test_the_table_and_the_words_have_every_point(turned: pd.DataFrame) -> None:
    table = dial.dial_table(turned)
    assert len(table) == 8 and table["seeds"].eq(2).all()
    assert table["student"].tolist() == ["t1ce"] * 3 + ["t1"] * 3 + ["t1ce", "t1"]
    assert dial.gain_words(turned, "t1ce").startswith("+6.0 (+6.0 to +6.0) with 12 cases, +3.0")
    assert dial.gain_words(turned, "t1ce", dial.PRIVATE).endswith("with 100 cases")


def test_enhancing_tumour_is_held_against_the_ceiling_case_by_case(results: Results) -> None:
    studies = dial.read_dial(results, ["distillation-12"])
    bound = pd.Series(30.0, TESTED[::-1])
    rows = dial.rim_against_ceiling(studies, bound).set_index("network")
    assert rows["ET Dice, %"].to_dict() == pytest.approx({"no teacher, t1": 20, "ProtoKD, t1": 20, "teacher": 90})
    assert rows["above the ceiling"].tolist() == ["no", "no", "yes"]
    assert rows.loc["teacher", "minus the ceiling, points"].startswith("+60.0")
    varied = pd.Series([0, 0, 0, 0, 0, 120.0], TESTED)
    row = dial.rim_against_ceiling(studies, varied).set_index("network").loc["ProtoKD, t1"]
    assert row["minus the ceiling, points"].startswith("+0.0") and row["above the ceiling"] == "cannot be told"
