import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import AFFINE, RECENT, SHAPE, save, tiny_volumes

from mmlib.data import brats, nifti, splits
from mmlib.data.cases import raw_labels, regions, zscore
from mmlib.modalities import MRI

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "brats_like"


def test_classic_names_are_read_by_modality_in_native_intensities(tmp_path, write_case):
    case = brats.load_case(write_case(tmp_path / "Brats18_X_1"))
    truth = tiny_volumes()
    assert case.name == "Brats18_X_1" and tuple(case.images) == MRI and all(case.available.values())
    for name in MRI:
        assert case.images[name].dtype == np.float32
        np.testing.assert_array_equal(case.images[name], truth[name])
    np.testing.assert_array_equal(case.labels, truth["seg"])
    np.testing.assert_array_equal(case.affine, AFFINE)
    assert case.spacing == (1, 1, 2) and case.enhancing_label is None
    assert case.labels.dtype.kind == "i"


def test_recent_names_mean_that_3_is_enhancing(tmp_path, write_case):
    case = brats.load_case(write_case(tmp_path / "BraTS-GLI-00005-100", endings=RECENT))
    truth = tiny_volumes(enhancing=3)
    for name in MRI:
        np.testing.assert_array_equal(case.images[name], truth[name])
    assert case.enhancing_label == 3
    wt, tc, et = regions(case.labels, case.enhancing_label)
    assert (wt.sum(), tc.sum(), et.sum()) == (8, 5, 2)


def test_both_label_sets_give_the_same_regions(tmp_path, write_case):
    old = brats.load_case(write_case(tmp_path / "old"))
    new = brats.load_case(write_case(tmp_path / "new", endings=RECENT))
    np.testing.assert_array_equal(regions(old.labels, old.enhancing_label), regions(new.labels, new.enhancing_label))


def test_uncompressed_files_and_a_last_axis_of_one_are_read(tmp_path, write_case):
    folder = write_case(tmp_path / "a", suffix=".nii")
    save(folder / "a_t1.nii", tiny_volumes()["t1"][..., None])
    np.testing.assert_array_equal(brats.load_case(folder).images["t1"], tiny_volumes()["t1"])


def test_scaled_integers_are_read_in_their_unit(tmp_path, write_case):
    folder = write_case(tmp_path / "a")
    image = nibabel.Nifti1Image(np.full(SHAPE, 7, np.int16), AFFINE)
    image.header.set_slope_inter(0.5, 1)
    image.to_filename(folder / "a_t1.nii.gz")
    stored = nibabel.load(folder / "a_t1.nii.gz").get_fdata()
    np.testing.assert_allclose(brats.load_case(folder).images["t1"], stored)


def test_a_missing_file_is_a_modality_that_is_not_available(tmp_path, write_case):
    case = brats.load_case(write_case(tmp_path / "a", without=("t1ce", "seg")))
    assert case.available == {"t1": True, "t1ce": False, "t2": True, "flair": True}
    assert set(case.images) == {"t1", "t2", "flair"} and case.labels is None


def test_folder_finds_cases_below_hgg_and_lgg_and_reads_them_late(tmp_path, write_case):
    for grade, name in (("HGG", "b"), ("LGG", "a")):
        write_case(tmp_path / grade / name)
    (tmp_path / ".a.partial").mkdir()
    save(tmp_path / ".a.partial" / "a_t1.nii.gz", tiny_volumes()["t1"])
    (tmp_path / "LGG" / "a" / "a_t1.nii.gz").write_bytes(b"broken")
    cases = brats.BratsFolder(tmp_path)
    assert list(cases) == ["a", "b"] and len(cases) == 2 and "a" in cases and "c" not in cases
    assert cases["b"].name == "b"
    some = cases[["b"]]
    assert list(some) == ["b"] and list(cases[("b", "a")]) == ["b", "a"]
    assert list(pickle.loads(pickle.dumps(some))) == ["b"]
    with pytest.raises(ValueError, match="a_t1"):
        cases["a"]
    with pytest.raises(KeyError, match="no case c; it has 2"):
        cases["c"]
    with pytest.raises(KeyError, match="no case c"):
        cases[["a", "c"]]


def test_the_same_name_twice_is_refused(tmp_path, write_case):
    write_case(tmp_path / "HGG" / "a")
    write_case(tmp_path / "LGG" / "a")
    with pytest.raises(ValueError, match="case a occurs twice; give every case a name of its own"):
        brats.BratsFolder(tmp_path)


def test_no_case_names_the_expected_layout(tmp_path):
    for read in (brats.BratsFolder, brats.load_case):
        with pytest.raises(ValueError, match=r"_flair.nii.gz.*-t2f.nii.gz"):
            read(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        brats.load_case(tmp_path / "none")


def test_a_case_with_a_segmentation_only_is_refused(tmp_path, write_case):
    folder = write_case(tmp_path / "a", without=MRI)
    with pytest.raises(ValueError, match="case a: no file of any modality"):
        brats.load_case(folder)


def test_two_files_for_one_modality_are_refused(tmp_path, write_case):
    folder = write_case(tmp_path / "a")
    save(folder / "a_t1.nii", tiny_volumes()["t1"])
    with pytest.raises(ValueError, match="a_t1.nii.*keep one file for each modality"):
        brats.load_case(folder)


def _truncate(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("keep", [0, 0.1, 0.7])
def test_a_truncated_file_is_named_with_its_remedy(tmp_path, write_case, suffix, keep):
    folder = write_case(tmp_path / "a", suffix=suffix)
    _truncate(folder / f"a_t2{suffix}", keep)
    with pytest.raises(ValueError, match=rf"a_t2{suffix}: cannot be read: truncated.*download or convert it again"):
        brats.load_case(folder)


@pytest.mark.parametrize("content", [b"no image at all" * 100, b"\x1f\x8b" + b"\x00" * 500])
def test_a_file_of_another_format_is_named(tmp_path, write_case, content):
    folder = write_case(tmp_path / "a")
    (folder / "a_flair.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a_flair.nii.gz: cannot be read"):
        brats.load_case(folder)


def test_volumes_of_one_case_must_share_shape_and_affine(tmp_path, write_case):
    folder = write_case(tmp_path / "shape")
    save(folder / "shape_flair.nii.gz", tiny_volumes()["flair"].transpose(2, 1, 0))
    with pytest.raises(ValueError, match=r"shape_flair.*\(10, 8, 6\), the same axes in another order.*shape_t1.nii.gz"):
        brats.load_case(folder)
    folder = write_case(tmp_path / "affine")
    moved = AFFINE.copy()
    moved[0, 3] = 9
    save(folder / "affine_seg.nii.gz", tiny_volumes()["seg"], moved)
    with pytest.raises(ValueError, match=r"affine_seg.nii.gz: affine\[0, 3\] is 9, but 5 in affine_t1.nii.gz; res"):
        brats.load_case(folder)
    folder = write_case(tmp_path / "flat")
    save(folder / "flat_t1.nii.gz", np.zeros((6, 8, 10, 2), np.int16))
    with pytest.raises(ValueError, match=r"flat_t1.nii.gz: expected one 3-D volume, found shape \(6, 8, 10, 2\)"):
        brats.load_case(folder)


def test_rounding_in_an_affine_is_no_difference(tmp_path, write_case):
    folder = write_case(tmp_path / "a")
    save(folder / "a_t2.nii.gz", tiny_volumes()["t2"], AFFINE + 1e-4 * np.eye(4)[[3, 0, 1, 2]])
    np.testing.assert_array_equal(brats.load_case(folder).affine, AFFINE)


def test_interpolated_labels_are_refused(tmp_path, write_case):
    folder = write_case(tmp_path / "a")
    save(folder / "a_seg.nii.gz", np.full(SHAPE, 1.5, np.float32))
    with pytest.raises(ValueError, match="a_seg.nii.gz: holds 1.5.*nearest neighbours"):
        brats.load_case(folder)


# --- writing ---------------------------------------------------------------------------------------------------


def test_a_segmentation_round_trips_with_the_geometry_of_the_input(tmp_path, write_case):
    folder = write_case(tmp_path / "a")
    source = nibabel.Nifti1Image(tiny_volumes()["t1"], AFFINE)
    source.set_qform(AFFINE, 1)
    source.set_sform(AFFINE, 4)
    source.header.set_xyzt_units("mm", "sec")
    nibabel.save(source, folder / "a_t1.nii.gz")
    case = brats.load_case(folder)
    path = brats.write_segmentation(tmp_path / "out" / "a.nii.gz", case.labels, case)
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), case.labels)
    np.testing.assert_array_equal(image.affine, source.affine)
    kept = ["dim", "pixdim", "qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z"]
    kept += ["quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"]
    for field in kept:
        np.testing.assert_array_equal(image.header[field], source.header[field], err_msg=field)
    assert [one.name for one in path.parent.iterdir()] == ["a.nii.gz"]


def test_regions_are_written_as_labels_of_the_cases_own_convention(tmp_path, write_case):
    for name, endings, enhancing in (("old", None, 4), ("new", RECENT, 3)):
        folder = write_case(tmp_path / name, **({"endings": endings} if endings else {}))
        case = brats.load_case(folder)
        path = brats.write_segmentation(tmp_path / f"{name}.nii", regions(case.labels, enhancing), case)
        np.testing.assert_array_equal(np.asarray(nibabel.load(path).dataobj), case.labels)
    assert raw_labels(np.zeros((3, 1, 1, 1), bool)).dtype == np.uint8


def test_writing_refuses_what_is_not_on_the_native_grid(tmp_path, write_case):
    case = brats.load_case(write_case(tmp_path / "a"))
    with pytest.raises(ValueError, match=r"shape \(10, 8, 6\), but case a has \(6, 8, 10\); bring it back"):
        brats.write_segmentation(tmp_path / "x.nii.gz", case.labels.T, case)
    with pytest.raises(ValueError, match="written as .nii or .nii.gz"):
        brats.write_segmentation(tmp_path / "x.mha", case.labels, case)
    with pytest.raises(ValueError, match="run from -1 to 3"):
        brats.write_segmentation(tmp_path / "x.nii", case.labels - 1, case)


def test_a_failed_write_leaves_nothing_and_keeps_what_was_there(tmp_path, write_case, monkeypatch):
    case = brats.load_case(write_case(tmp_path / "a"))
    path = brats.write_segmentation(tmp_path / "out" / "x.nii.gz", case.labels, case)
    before = path.read_bytes()

    def fail(image, stream):
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(nibabel.Nifti1Image, "to_stream", fail)
    with pytest.raises(OSError, match="disk full"):
        brats.write_segmentation(path, case.labels, case)
    assert [one.name for one in path.parent.iterdir()] == ["x.nii.gz"] and path.read_bytes() == before


# --- splits ----------------------------------------------------------------------------------------------------


def test_the_phantom_split():
    split = splits.read_split("brats-phantom")
    assert (len(split.train), len(split.valid), len(split.test)) == (100, 20, 40)
    assert (split.train[0], split.valid[0], split.test[-1]) == ("phantom-0000", "phantom-0100", "phantom-0159")
    assert split.hash == "f98dce46554dffdf"
    few = split.head(4, 2, 1)
    assert few.train == ("phantom-0000", "phantom-0001", "phantom-0002", "phantom-0003")
    assert few.test == ("phantom-0120",) and few.hash != split.hash and split.head(100, 20, 40).hash == split.hash
    with pytest.raises(ValueError, match="part valid has 20 cases; cannot take 21"):
        split.head(1, 21, 1)


def test_the_larger_split_begins_with_the_same_cases():
    usual, larger = splits.read_split("brats-phantom"), splits.read_split("brats-phantom-200")
    assert larger.train[:100] == usual.train and len(larger.train) == 200
    assert (larger.valid, larger.test) == (usual.valid, usual.test)


@pytest.mark.parametrize(
    ("case", "subject"),
    [
        ("BraTS-GLI-00005-100", "BraTS-GLI-00005"),
        ("BraTS-GLI-00005-000", "BraTS-GLI-00005"),
        ("BraTS-MEN-RT-0001-1", "BraTS-MEN-RT-0001"),
        ("Brats18_CBICA_AAB_1", "Brats18_CBICA_AAB"),
        ("BraTS19_2013_10_1", "BraTS19_2013_10"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("BraTS2021_00005", "BraTS2021_00005"),
        ("BraTS-GoAT-00012", "BraTS-GoAT-00012"),
        ("TCGA-DU-7294", "TCGA-DU-7294"),
        ("phantom-0007", "phantom-0007"),
    ],
)
def test_the_person_behind_a_case(case, subject):
    assert brats.subject_of(case) == subject


def _files(names):
    return [nifti.CaseFiles(name, {}, subject=brats.subject_of(name)) for name in names]


def test_own_splits_keep_time_points_together_and_do_not_depend_on_order():
    names = [f"BraTS-GLI-{person:05d}-10{time}" for person in range(20) for time in range(1 + person % 3)]
    cases = nifti.Cases(_files(names), "here")
    split = splits.make_split(cases, seed=3, fractions=(0.6, 0.2, 0.2))
    assert sorted(split.train + split.valid + split.test) == sorted(names)
    people = [{brats.subject_of(name) for name in part} for part in (split.train, split.valid, split.test)]
    assert [len(part) for part in people] == [12, 4, 4] and not (people[0] & people[1] | people[1] & people[2])
    again = splits.make_split(nifti.Cases(_files(names[::-1]), "there"), seed=3, fractions=(0.6, 0.2, 0.2))
    other = splits.make_split(cases, seed=4, fractions=(0.6, 0.2, 0.2))
    assert again.hash == split.hash != other.hash
    with pytest.raises(ValueError, match="sum to 1"):
        splits.make_split(cases, seed=0, fractions=(0.5, 0.2, 0.2))


def test_split_files_round_trip_and_their_faults_are_named(tmp_path):
    split = splits.Split(("a-1", "a-2"), ("b",), (), {"a-1": "a", "a-2": "a", "b": "b"})
    path = tmp_path / "mine.csv"
    splits.write_split(split, path)
    assert splits.read_split(path) == split and splits.read_split(str(path)).hash == split.hash

    def refused(text: str, message: str) -> None:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            splits.read_split(path)

    refused("case,subject,part\na-1,a,train\na-2,a,test\n", r"subject a \(case a-2\) is in train and in test")
    refused("case,subject,part\na,a,train\na,a,train\n", "case a is listed twice")
    refused("case,subject,part\na,a,training\n", r"part must be one of .*training")
    refused("subject,part\na,train\n", "has no column 'case' but 'subject', 'part', expected a CSV")
    refused("part,case,subject\ntrain,a,a\n", "columns must be case, subject, part; found part, case, subject")
    refused("case,subject,part\n", "mine.csv: has no row; add one for each case")
    refused("case,subject,part\na,,train\n", "mine.csv: row 2, column subject: the cell is empty; correct the cell")
    with pytest.raises(ValueError, match="no split 'aaaaa.{20,80}': give one of"):
        splits.read_split("a" * 5000 + ".csv")
    known = r"\['brats-phantom', 'brats-phantom-200', 'ixi-phantom'\]"
    with pytest.raises(ValueError, match=rf"no split 'nosuch': give one of {known}"):
        splits.read_split("nosuch")


# --- the released code's normalisation -------------------------------------------------------------------------


def test_golden_check_of_the_released_normalisation():
    k = np.arange(8000)
    volume = np.where(k < 2000, 0, (k * 7919) % 100 + 1)
    volume[-1] = 5000
    volume = volume.reshape(20, 20, 20)
    assert brats.clip_tail(volume).max() == 100
    scaled = zscore(brats.clip_tail(volume), volume > 0, dtype=np.float64)
    foreground = scaled[volume > 0]
    assert abs(foreground.mean()) < 1e-12 and abs(foreground.std() - 1) < 1e-12
    assert scaled[-1, -1, -1] == pytest.approx(1.71446215, abs=5e-9)
    assert volume[5, 0, 0] == 1 and scaled[5, 0, 0] == pytest.approx(-1.71466997, abs=5e-9)
    assert (scaled[volume == 0] == 0).all()


def test_clipping_needs_native_intensities():
    with pytest.raises(ValueError, match="maximum is 0.5"):
        brats.clip_tail(np.full((2, 2, 2), 0.5))
    with pytest.raises(ValueError, match="no bin of the histogram holds 50 voxels"):
        brats.clip_tail(np.arange(8.0).reshape(2, 2, 2))


def test_images_are_prepared_as_they_are_read(tmp_path, write_case):
    write_case(tmp_path / "a-1")
    halved = brats.BratsFolder(tmp_path, prepare=lambda image: image / 2)
    plain = brats.BratsFolder(tmp_path)["a-1"].images["t1"]
    for cases in (halved, halved[["a-1"]]):
        assert np.array_equal(cases["a-1"].images["t1"], plain / 2)


# --- a real scan -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason="the real scan of shared/data/brats_like is not here")
def test_a_real_scan_is_read_and_written_back(tmp_path):
    cases = brats.BratsFolder(REAL)
    assert list(cases) == ["TCGA-DU-7294"]
    case = cases["TCGA-DU-7294"]
    assert all(case.available.values()) and case.images["t1"].shape == (240, 240, 155) and case.spacing == (1, 1, 1)
    assert case.images["t1ce"].min() == -105 and case.images["t1ce"].max() == 2030
    wt, tc, et = regions(case.labels, case.enhancing_label)
    assert (wt.sum(), tc.sum(), et.sum()) == (9281 + 14907, 9281, 0)
    path = brats.write_segmentation(tmp_path / "seg.nii.gz", case.labels, case)
    written, source = nibabel.load(path), nibabel.load(REAL / case.name / f"{case.name}_t1.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), case.labels)
    np.testing.assert_array_equal(written.affine, source.affine)
    for code in ("qform_code", "sform_code"):
        assert written.header[code] == source.header[code]
