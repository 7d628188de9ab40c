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
from scipy import ndimage

from mmlib.analysis.results import Results
from mmlib.data.cases import Case
from mmlib.data.nifti import CaseFiles, Cases
from mmlib.data.phantoms.brain import make_subject
from mmlib.data.phantoms.options import PLAIN, Options
from mmlib.figures.explorer import Fixed, pack
from mmlib.methods import baselines
from mmlib.modalities import MRI, combinations
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


def test_a_tumour_unlike_those_of_training_has_foci_beside_the_first() -> None:
    drawn, (why, rule), limit, closer = exploring.ragged("phantom-0003", 8.0, 4.0, PLAIN)
    plain = make_subject(3, 4.0, tumour=True)
    assert drawn.name == closer.name == "phantom-0003-ragged" and why == "several foci"
    assert drawn.spacing == (8.0,) * 3 and closer.spacing == (4.0,) * 3
    assert ndimage.label(plain.labels)[1] < ndimage.label(closer.labels)[1], "further foci"
    assert f"{np.count_nonzero(drawn.labels) * 0.512:.0f} ml of tumour" in rule and 0 < limit < 1
    with_dial = exploring.ragged("phantom-0003", 8.0, 4.0, Options(predictable=1.0))
    assert with_dial[2] == 1, "what enhances shows in t2 and flair"


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


class Finds:
    """A network of a run that finds the truth where it is given t1ce, and nothing elsewhere."""

    modalities, record = MRI, {"method": "shaspec", "variant": "paper"}

    def used(self, one):
        return "+".join(name for name in MRI if name in one.images)

    def segment_each(self, one, onto, chosen=None):
        truth = np.zeros((3, *onto.brain.shape), bool)
        wanted = chosen or [have for have in combinations(MRI) if set(have) <= set(one.images)]
        return {"+".join(have): truth | ("t1ce" in have) for have in wanted}


def test_a_reader_s_case_is_looked_at_with_what_it_has() -> None:
    whole = case()
    less = replace(whole, images={name: whole.images[name] for name in ("t1ce", "t2", "flair")}, labels=None)
    seen = exploring.look_at(less, Finds())
    assert len(seen.predicted["shaspec paper"]) == 7 and seen.dice == {} and seen.known is None
    assert seen.why == "made-1"
    assert seen.rule.replace("\u00a0", " ") == "t1ce, t2, flair; without t1. Voxels of 2 x 3 x 4 mm."
    assert list(exploring.look_at(less, Finds(), every=False).predicted["shaspec paper"]) == ["t1ce+t2+flair"]
    scored = exploring.look_at(whole, Finds()).dice["shaspec paper"]
    assert len(scored) == 15 and scored["t1"] == [0, 0, 0] and scored["t1ce"][0] > 0
    alone = exploring.look_at(whole)
    assert alone.predicted == alone.dice == {} and alone.case.labels is not None


def test_what_is_looked_at_is_cut_to_the_brain_and_fits() -> None:
    shape, affine = (16, 20, 24), np.array([[-1.0, 0, 0, 10], [0, -1, 0, 20], [0, 0, 3, -5], [0, 0, 0, 1]])

    def world(one: Case) -> np.ndarray:  # x + 2 y + 3 z, mm, at the centres of voxels
        index = np.stack(np.meshgrid(*map(np.arange, one.brain_mask.shape), indexing="ij"), -1)
        return (index @ one.affine[:3, :3].T + one.affine[:3, 3]) @ (1, 2, 3)

    brain, labels = np.zeros(shape, bool), np.zeros(shape, np.int16)
    brain[2:-2, 2:-2, 2:-2] = True
    labels[5:9, 5:9, 4:8] = 4
    one = Case("ramp", {}, affine, labels, brain=brain)
    ramp = np.where(brain, world(replace(one, images={"t1": brain})), -500)  # a background that is not 0
    one = replace(one, images={"t1": ramp, "t2": ramp})
    cut = exploring.coarser(one, 10**6)
    assert cut.images["t1"].shape == cut.labels.shape == (14, 18, 22) and cut.brain.sum() == brain.sum()
    np.testing.assert_allclose(cut.images["t1"][cut.brain], world(cut)[cut.brain], rtol=1e-5)
    coarse = exploring.coarser(one, 2 * 7 * 9 * 22)
    assert coarse.spacing == pytest.approx((2, 2, 3)) and coarse.axes == one.axes, "thick slices stay as they are"
    assert coarse.images["t2"].shape == coarse.labels.shape == (7, 9, 22)
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(coarse.images["t1"][inner], world(coarse)[inner], rtol=1e-5)
    assert (coarse.labels > 0).sum() == 2 * 2 * 4, "even steps, even edges"
    for most in (2, 5, 100, 1000):
        assert 2 * exploring.coarser(one, most).brain.size <= most
    with pytest.raises(ValueError, match="case ramp: 0 voxels of brain"):
        exploring.coarser(replace(one, brain=np.zeros_like(brain)), 1000)
    with pytest.raises(ValueError, match="and 1 may be shown"):
        exploring.coarser(one, 1)


def test_a_scan_of_full_size_takes_what_is_said_of_a_page() -> None:
    """As BraTS has them, 240 x 240 x 155 voxels of 1 mm, with four images, a truth and fifteen predictions."""
    shape = (240, 240, 155)
    x, y, z = np.ogrid[:240, :240, :155]
    inside = ((x - 120) / 70) ** 2 + ((y - 120) / 88) ** 2 + ((z - 77) / 70) ** 2 < 1
    labels = np.zeros(shape, np.int16)
    labels[90:140, 100:150, 60:100] = 4
    noise = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32) * inside
    one = Case("large", dict.fromkeys(MRI, noise), np.eye(4), labels)
    seen = exploring.look_at(one, Finds())
    assert seen.case.spacing == pytest.approx((2, 2, 2)) and "shown and measured here with 2" in seen.rule
    (packed,) = pack([seen], {}, 0, own=True)["cases"]
    assert 3e5 < len(json.dumps(packed)) < 1e6, "bytes of a case, as the notebook says"


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
