"""From files to files: own grid, any part of the modalities, and nothing is written where an input is refused."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from networks_store import AFFINE, NAMES, SHAPE, make_store, write_case
from typer.testing import CliRunner

import mmlib
from mmlib import prediction, published
from mmlib.__main__ import app
from mmlib.data.brats import load_case
from mmlib.data.cases import raw_labels
from mmlib.data.resample import resample
from mmlib.modalities import MRI


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("networks"))


@pytest.fixture(autouse=True)
def store(made, monkeypatch):
    monkeypatch.setenv(published.VARIABLE, str(made))
    return made


def run(command, *arguments):
    return CliRunner().invoke(app, [command, *map(str, arguments)])


def failed(command, *arguments):
    done = run(command, *arguments)
    assert done.exit_code == 1 and not isinstance(done.exception, ValueError)
    return done.output + done.stderr


def test_segmentations_lie_on_the_scan_and_come_from_what_is_there(tmp_path):
    write_case(tmp_path / "cases" / "a", seed=1)
    write_case(tmp_path / "cases" / "b", seed=1, kinds=("flair", "t1"))
    out = tmp_path / "out"
    done = run("segment", tmp_path / "cases", "--network", "tiny-segmenter", "--output", out)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("WARNING tiny-segmenter: trained on phantoms: not for patients")
    assert "b: from t1+flair: b_seg.nii.gz (wt " in done.output
    network, images = mmlib.load("tiny-segmenter"), {}
    for name in "ab":
        images[name] = nibabel.load(out / f"{name}_seg.nii.gz")
        assert images[name].shape == SHAPE and np.allclose(images[name].affine, AFFINE, atol=1e-5)
        assert bytes(images[name].header["descrip"]).startswith(b"tiny-segmenter: trained on phantoms: not for pat")
        expected = network.segment(load_case(tmp_path / "cases" / name))
        assert np.array_equal(np.asarray(images[name].dataobj), raw_labels(expected))
    assert (np.asarray(images["a"].dataobj) != np.asarray(images["b"].dataobj)).any()
    table = (out / "predictions.csv").read_text().splitlines()
    assert table[0] == "case,used,wt (ml),tc (ml),et (ml),file,network,warning" and len(table) == 3
    assert (out / "tiny-segmenter.md").read_text() == published.card("tiny-segmenter")
    voxels = np.count_nonzero(np.asarray(images["a"].dataobj))
    assert float(table[1].split(",")[2]) == pytest.approx(voxels * 1.5 * 1.5 * 2 / 1000, rel=1e-6)


def test_files_of_one_case_are_given_by_modality(tmp_path):
    folder = write_case(tmp_path / "anna", seed=2)
    (folder / "anna_t1.nii.gz").rename(folder / "first.nii.gz")
    files = [f"t1={folder / 'first.nii.gz'}", f"flair={folder / 'anna_flair.nii.gz'}"]
    done = run("segment", *files, "--network", "tiny-segmenter", "--output", tmp_path / "out")
    assert done.exit_code == 0 and "anna: from t1+flair: anna_seg.nii.gz" in done.output
    said = failed("segment", *files, files[0], "--network", "tiny-segmenter", "--output", tmp_path / "new")
    assert "a modality is given twice" in said and not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["tiny-translator", "tiny-diffusion"])
def test_what_is_missing_is_synthesised_on_the_scan_s_grid(tmp_path, name):
    write_case(tmp_path / "cases" / "a", seed=1, kinds=("t1", "t2"))
    write_case(tmp_path / "cases" / "whole", seed=3)
    written = []
    for out in (tmp_path / "one", tmp_path / "two"):
        done = run("complete", tmp_path / "cases", "--network", name, "--output", out)
        assert done.exit_code == 0, done.output
        assert "a: from t1+t2: a_t1ce-synthesised.nii.gz, a_flair-synthesised.nii.gz" in done.output
        assert "whole: from t1+t1ce+t2+flair: nothing is missing" in done.output
        images = [nibabel.load(out / f"a_{kind}-synthesised.nii.gz") for kind in ("t1ce", "flair")]
        assert len(list(out.glob("*.nii.gz"))) == 2
        written.append(np.stack([image.get_fdata() for image in images]))
    assert np.array_equal(*written)
    case = load_case(tmp_path / "cases" / "a")
    assert images[0].shape == SHAPE and np.allclose(images[0].affine, AFFINE, atol=1e-5)
    assert written[0].min() >= 0 and written[0].max() <= 1 and not written[0][:, ~case.brain_mask].any()
    assert np.ptp(written[0][:, case.brain_mask], axis=1).min() > 0
    assert b"not for patients" in bytes(images[0].header["descrip"])


def test_an_image_of_the_network_s_own_grid_comes_back_as_it_was():
    generator = np.random.default_rng(0)
    image = generator.uniform(1, 2, SHAPE).astype(np.float32)
    case = prediction.Case("a", {"t1": image}, AFFINE)
    assert np.allclose(prediction._on_grid_of(case, image, case), image, atol=1e-5)
    coarse = prediction.resample(case, 3.0)
    back = prediction._on_grid_of(case, np.full(coarse.images["t1"].shape, 0.25, np.float32), coarse)
    assert np.allclose(back, 0.25)  # a constant stays one, also at the edges


def test_a_student_needs_what_it_reads_and_nothing_else(tmp_path):
    write_case(tmp_path / "cases" / "a", seed=1, kinds=("t1",))
    write_case(tmp_path / "whole" / "a", seed=1)
    network = mmlib.load("tiny-student")
    alone, among = (network.segment(load_case(tmp_path / part / "a")) for part in ("cases", "whole"))
    assert alone.shape == (3, *SHAPE) and np.array_equal(alone, among)
    write_case(tmp_path / "cases" / "b", kinds=("t2",))
    said = failed("segment", tmp_path / "cases", "--network", "tiny-student", "--output", tmp_path / "out")
    assert "case b has t2, but tiny-student takes all of t1: leave the case out" in said
    assert not (tmp_path / "out").exists()


def test_every_combination_of_a_case_is_segmented_as_alone(tmp_path):
    network = mmlib.load("tiny-segmenter")
    case = load_case(write_case(tmp_path / "a", seed=1, kinds=("t1", "t1ce", "flair")))
    found = network.segment_each(case, case)
    assert list(found) == ["t1", "t1ce", "flair", "t1+t1ce", "t1+flair", "t1ce+flair", "t1+t1ce+flair"]
    for have in ("t1ce", "t1+flair"):
        alone = network.segment(replace(case, images={name: case.images[name] for name in have.split("+")}))
        assert np.array_equal(raw_labels(found[have]), raw_labels(alone)) and found[have][0].any()
        assert not (found[have][2] & ~found[have][1]).any(), "as a file has it"
    coarse = resample(case, 3.0)
    (one,) = network.segment_each(case, coarse, [("t1",)]).values()
    assert one.shape[1:] == coarse.brain.shape != case.brain_mask.shape
    (student,) = mmlib.load("tiny-student").segment_each(case, case)
    assert student == "t1"
    with pytest.raises(ValueError):
        network.segment_each(replace(case, images={"pd": case.images["t1"]}), case)


def test_what_the_doctor_refuses_is_not_segmented_and_nothing_is_written(tmp_path):
    for name in "ab":
        write_case(tmp_path / "cases" / name, seed=ord(name))
    path = tmp_path / "cases" / "b" / "b_t2.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    said = failed("segment", tmp_path / "cases", "--network", "tiny-segmenter", "--output", tmp_path / "out")
    assert "ERROR   b  b_t2.nii.gz" in said and "remedy: download or convert it again" in said
    assert "the doctor found errors" in said and not (tmp_path / "out").exists()
    assert "segmentation is missing" not in said  # none is needed here


def test_wrong_places_are_told_in_a_sentence(tmp_path):
    folder = write_case(tmp_path / "cases" / "a")
    (tmp_path / "empty").mkdir()
    rest = ["--network", "tiny-segmenter", "--output"]
    scan = folder / "a_t1.nii.gz"
    for given, output, expected in (
        (tmp_path / "none", "out", "none: no such file or folder; check the path"),
        (tmp_path / "empty", "out", "empty: no case found; expected a CSV (layout table) or a folder with"),
        (scan, "out", f"is one file: say which modality it is, such as t1={scan}"),
        (tmp_path / "cases", "cases/out", "among the cases: give another folder"),
        (f"t1={scan}", "cases/a", "cases/a holds files of case a: give another folder"),
    ):
        assert expected in failed("segment", given, *rest, tmp_path / output)
    assert "is a network of segmentation: use the command segment" in failed(
        "complete", folder, *rest, tmp_path / "out"
    )
    wrong = failed("segment", folder, "--network", "none", "--output", tmp_path / "out")
    assert "there are tiny-diffusion, tiny-segmenter, tiny-student, tiny-translator" in wrong
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"a_{kind}.nii.gz" for kind in MRI)
    assert not (tmp_path / "out").exists()


def test_a_run_is_loaded_where_it_lies_and_a_task_without_volumes_is_refused(store, tmp_path):
    folder = store.parent / "made" / "book" / "segmentation" / "dropout-unet-s0"
    network = prediction.Network.of_run(folder)
    assert network.name == "book/segmentation/dropout-unet-s0" and network.spacing == 3.0
    run, member, stage = NAMES["tiny-translator"].split("/")[1:]
    network = prediction.Network.of_run(store.parent / "made" / "book" / "synthesis" / run, f"{member}/{stage}")
    case = load_case(write_case(tmp_path / "a", kinds=("t1",)))
    with pytest.raises(ValueError, match="does not say on what voxels it was trained"):
        network.complete(case)
    with pytest.raises(ValueError, match="synthesises images: use complete"):
        network.segment(case)
