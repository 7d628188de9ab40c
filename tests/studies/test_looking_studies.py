"""What the first page, the explorer and the page that is asked are made from, on made-up scores and small networks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from made_explorer import case
from made_segmentation import CASES, made_runs, results_of, rows_of

from mmlib.analysis.results import Results
from mmlib.data.nifti import CaseFiles, Cases
from mmlib.figures.explorer import Fixed
from mmlib.methods import baselines
from mmlib.modalities import MRI
from mmlib.studies import asking, exploring, overview
from mmlib.studies import segmentation as study
from mmlib.studies import segmentation_findings as findings
from mmlib.tasks.distillation import CombinationVNet
from mmlib.tasks.segmentation import predict


@pytest.fixture(scope="module")
def runs() -> study.Study:
    return made_runs()


# --------------------------------------------------------------------------------------------------------- first page
def test_the_first_page_says_what_the_scores_say(runs: study.Study) -> None:
    limit = findings.ceiling_from(runs, pd.Series(80.0, index=list(CASES)))
    picture, said = overview.first_page(runs, limit, "Smoke run. ")
    assert said["missing"] == (
        "Without t1ce no network reaches a Dice above 67 % for the enhancing tumour (U-HeMIS, from t1+t2+flair); the "
        "images hold 80 %. With all four images the same network reaches 82 %."
    )
    assert said["gaps"].startswith("A U-Net that met incomplete sets in training gains +25.0 points")
    assert picture.alt.startswith("Smoke run. Dice of the enhancing tumour, 5 networks, 15 combinations")
    assert picture.html.count('<g class="point"><title>') == 5 * 15 and "not in the images" in picture.html
    assert "nobody knows" in overview.first_page(runs, None)[1]["missing"]


def test_a_profile_without_the_study_says_so(runs: study.Study) -> None:
    picture, said = overview.first_page(None, None)
    assert "not run" in picture.html and set(said) == {"missing", "gaps"}
    alone = study.read_study(results_of(pd.DataFrame(rows_of("shaspec", "paper", 0.5))))
    assert "was not run" in overview.training_with_gaps(alone)


# ----------------------------------------------------------------------------------------------------------- explorer
def test_cases_are_chosen_by_the_rules_that_are_stated() -> None:
    names = ["a", "b", "c", "d", "e", "f", "g"]
    sizes = pd.DataFrame(
        {"wt": [50, 40, 30, 2, 60, 70, 0], "tc": [20, 20, 10, 1, 20, 30, 0], "et": [9, 9, 5, 1, 0, 0, 0]}, index=names
    )
    scores = pd.Series([90.0, 80, 70, 60, 50, 40, 30], index=names)
    chosen = exploring.choose(sizes, scores)
    assert {why: name for name, (why, _) in chosen.items()} == {
        "easy": "a", "typical": "c", "hard": "d", "small": "b", "no enhancement": "f", "no tumour": "g",
    }  # fmt: skip
    assert chosen["a"][1] == (
        "the highest mean Dice of those with enhancing tumour, of 7 test cases; "
        "it has 50 ml of tumour, 9 ml of it enhancing."
    )
    assert chosen["b"][1].startswith("the smallest tumour, of the 4 test cases that are left")
    few = exploring.choose(sizes.loc[["a"]], scores.loc[["a"]])
    assert list(few) == ["a"]


def test_all_combinations_are_predicted_as_one_by_one() -> None:
    torch.manual_seed(0)
    model = baselines.recipe("dropout-unet", "standard", MRI, [4, 8]).network.eval()
    one = case()
    found = exploring.predict_all(model, one)
    assert len(found) == 15
    for have in ("t1ce", "t1+flair", "t1+t1ce+t2+flair"):
        np.testing.assert_array_equal(found[have], predict(model, one, have.split("+")))
    explored = exploring.explore(one, ("easy", "a rule"), {"dropout-unet": model}, None)
    assert set(explored.dice["dropout-unet"]) == set(found) and explored.known is None


def test_networks_without_weights_are_left_out(runs: study.Study, tmp_path) -> None:
    assert exploring.kept_runs(runs) == {}
    folders = [str(tmp_path / run) for run in runs.results.records["run"]]
    records = runs.results.records.assign(folder=folders)
    (tmp_path / "shaspec-paper-s1").mkdir()
    (tmp_path / "shaspec-paper-s1" / "fit.safetensors").touch()
    with_folders = study.read_study(Results(records, runs.results.scores))
    assert exploring.kept_runs(with_folders) == {"shaspec paper": "shaspec-paper-s1"}


def test_a_teacher_and_its_student_are_predicted_from_what_they_read(tmp_path) -> None:
    made = results_of(pd.DataFrame(rows_of("teacher", "standard", 0.5) + rows_of("protokd", "standard", 0.2)))
    made = Results(made.records.assign(folder=str(tmp_path)), made.scores)
    assert exploring.read_taught(made, list(CASES)) == {}, "without weights there is nothing to show"
    assert exploring.taught_mean(made, "protokd", "t1", CASES[:1])[2] == pytest.approx(0.15)
    torch.manual_seed(0)
    model = CombinationVNet(MRI, ("t1",), 4).eval()
    taught = {"protokd": exploring.Taught(Fixed("student", "#000000", "t1"), "run", model, [0.1, 0.2, 0.3])}
    one = case()
    explored = exploring.explore(one, ("easy", "a rule"), {}, None, taught=taught)
    assert list(explored.predicted["protokd"]) == list(explored.dice["protokd"]) == ["t1"]
    np.testing.assert_array_equal(explored.predicted["protokd"]["t1"], predict(model, one, ("t1",)))


class One(Cases):
    """A data set of the made-up case."""

    def __init__(self) -> None:
        super().__init__([CaseFiles("made-1", {})], "made")

    def __getitem__(self, key):
        return case()


def test_missing_images_are_filled_in_the_slice_with_most_tumour(tmp_path) -> None:
    seen: list[torch.Tensor] = []

    def synthesise(images: torch.Tensor, available: torch.Tensor) -> torch.Tensor:
        assert images[~available].abs().max() == 0, "what is missing is not given"
        seen.append(available)
        return torch.full_like(images, 0.5)

    filler = exploring.Filler("grey", "run", synthesise, (16, 16), 8)
    filled = exploring.fill(One(), {"regression unet": filler})
    assert filled is not None and filled.number in (3, 4) and seen[0].shape == (14, 4)
    image, error = filled.made["regression unet"]["t1+t2"]["t1ce"]
    assert image.shape == (16, 16) and (image == 0.5).all() and 0 < error < 30
    assert set(filled.made["regression unet"]["t1+t2"]) == {"t1ce", "flair"}
    assert filled.acquired["t1ce"].max() == pytest.approx(1)
    assert exploring.fill(One(), {}) is None
    assert exploring.read_fillers(results_of(pd.DataFrame(rows_of("shaspec", "paper", 0.5)))) == {}


def test_volumes_and_means_are_in_ml_and_shares(runs: study.Study) -> None:
    one = case()
    table = exploring.volumes({"a": one}, ["a"])
    assert table.loc["a", "wt"] == pytest.approx((one.labels > 0).sum() * 24 / 1000)
    assert exploring.means(runs, ["zero-fill"])["zero-fill"]["t1"][0] == pytest.approx(0.27)


# ---------------------------------------------------------------------------------------------------------- asked page
def test_scores_are_packed_with_intervals_and_the_runs_behind_them(runs: study.Study) -> None:
    packed = asking.pack(runs.results, "Smoke run. ")
    json.dumps(packed, allow_nan=False)
    (task,) = packed["tasks"]
    assert task["title"] == "segmentation" and [one["key"] for one in task["metrics"]] == ["dice", "hd95"]
    assert task["combinations"][0] == "t1+t1ce+t2+flair" and task["targets"][task["opens"]] == "enhancing tumour"
    arms = [one["key"] for one in task["arms"]]
    place = [arms.index("shaspec paper"), task["combinations"].index("t1"), 2, 0]
    (row,) = [row for row in task["rows"] if row[:4] == place]
    cell = runs.cells[runs.cells["arm"].eq("shaspec paper") & runs.cells["available"].eq("t1")]
    cell = cell[cell["target"].eq("et")].iloc[0]
    assert row[4:7] == pytest.approx([cell["mean"], cell["low"], cell["high"]], abs=1e-3) and row[7:9] == [3, 2]
    assert task["runs"][row[9]] == ["segmentation/shaspec-paper-s0", "segmentation/shaspec-paper-s1"]
    assert all(
        row[1] == task["combinations"].index("t1ce") for row in task["rows"] if row[0] == arms.index("dedicated")
    )


def test_a_topic_without_scores_is_left_out(runs: study.Study) -> None:
    none = Results(runs.results.records.iloc[:0], runs.results.scores.iloc[:0])
    assert asking.pack(none)["tasks"] == []
    moved = replace(asking.TOPICS[0], arms={})
    assert asking.cells(moved, runs.results).empty
