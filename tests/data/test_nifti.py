"""What a file or a folder may hold is read right, or refused in one sentence by the loader and told by the doctor."""

import gzip
import resource
import struct
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import AFFINE, RECENT, SHAPE, save, tiny_volumes

from mmlib.data import doctor, nifti
from mmlib.data.batches import Samples
from mmlib.data.brats import BratsFolder, load_case
from mmlib.data.ixi import IxiFolder
from mmlib.data.ms import MsFolder
from mmlib.data.nifti import read_volume
from mmlib.data.slices import axial_slices
from mmlib.data.table import TableCases
from mmlib.modalities import MRI
from mmlib.records import data_fingerprint, folders_below, new_folder


def refused(folder: Path, *words: str) -> None:
    """Loader and doctor both refuse a case folder, with these words, the file's name and a remedy."""
    with pytest.raises(ValueError) as caught:
        load_case(folder)
    message = str(caught.value)
    assert all(word in message for word in words) and "; " in message and len(message) < 700, message
    findings = [one for one in doctor.examine("brats", folder.parent) if one.severity == "error"]
    assert findings and all(one.remedy for one in findings), message
    assert any(all(word in f"{one.file}: {one.what}" for word in words) for one in findings), findings


def edit(path: Path, at: int, kind: str, *values: float) -> None:
    """Overwrite numbers of a header, in a file that is compressed or not."""
    zipped = path.suffix == ".gz"
    content = bytearray(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
    struct.pack_into(f"<{kind}", content, at, *values)
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)


@pytest.fixture
def case(tmp_path, write_case) -> Path:
    return write_case(tmp_path / "data" / "a")


# --- content ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(5))
def test_a_flipped_bit_in_a_compressed_file_is_an_error_or_changes_nothing(case, at):
    path = case / "a_t1.nii.gz"
    whole = path.read_bytes()
    volume = read_volume(path)[0]
    silent = 0
    for place in range(20 + at, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            silent += not np.array_equal(read_volume(path)[0], volume)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ") and "; " in str(error)
    assert silent == 0


def test_a_wrong_check_sum_is_an_error_of_the_loader(case):
    path = case / "a_t1.nii.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 255
    path.write_bytes(content)
    refused(case, "a_t1.nii.gz: cannot be read", "CRC check failed")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("side", [2000, 32767])
def test_a_header_that_claims_more_voxels_than_the_file_can_hold(tmp_path, write_case, suffix, side):
    case = write_case(tmp_path / "data" / "a", suffix=suffix)
    edit(case / f"a_t2{suffix}", 42, "3h", side, side, side)
    tracemalloc.start()
    refused(case, f"a_t2{suffix}: cannot be read", f"{side} x {side} x {side} voxels")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "mebibytes", "words"),
    [
        ((1000, 1000, 800), 1600, "1000 x 1000 x 800 voxels are more than the 1.34e+08 that are read; crop it"),
        ((600, 500, 400), 3, "120000000 voxels are claimed"),  # and a file that is large enough to hold them
    ],
)
def test_a_small_file_that_unpacks_to_much_takes_no_memory(case, shape, mebibytes, words):
    path = case / "a_t2.nii.gz"
    header = bytearray(gzip.decompress(path.read_bytes())[:352])
    struct.pack_into("<3h", header, 42, *shape)
    zeros = gzip.compress(bytes(1 << 20), mtime=0) * mebibytes
    path.write_bytes(gzip.compress(header) + zeros + gzip.compress(np.random.default_rng(0).bytes(1 << 18)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(case, "a_t2.nii.gz: ", words.split(";")[0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 2**10, "KiB"


def test_more_bytes_than_a_header_explains(case):
    path = case / "a_t2.nii.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(512), mtime=0))
    np.testing.assert_array_equal(load_case(case).images["t2"], tiny_volumes()["t2"], "padding is no fault")
    path.write_bytes(gzip.compress(content + bytes(2 << 20), mtime=0))
    refused(case, "a_t2.nii.gz: cannot be read", "follow the 480 voxels")


@pytest.mark.parametrize("offset", [np.inf, -np.inf, np.nan, -1, 1e9, 1e30])
def test_voxels_that_begin_nowhere(tmp_path, write_case, offset):
    case = write_case(tmp_path / "data" / "a", suffix=".nii")
    edit(case / "a_t2.nii", 108, "f", offset)
    refused(case, "a_t2.nii: cannot be read", "the voxels begin at byte")


@pytest.mark.parametrize("value", [0, np.nan, np.inf, 1e30, 1e-30])
def test_an_affine_that_is_none(tmp_path, write_case, value):
    case = write_case(tmp_path / "data" / "a", suffix=".nii")
    edit(case / "a_t2.nii", 280, "12f", *[value] * 12)
    refused(case, "a_t2.nii: the affine is singular or not finite")


def test_every_voxel_size_from_a_micrometre_to_a_metre_is_one(tmp_path):
    for size in (1e-3, 0.05, 1, 100):
        path = save(tmp_path / "x.nii", np.ones(SHAPE, np.uint8), np.diag([size, size, size, 1]))
        assert read_volume(path)[1][0, 0] == pytest.approx(size)


@pytest.mark.parametrize(
    ("dtype", "word"),
    [
        (np.complex64, "complex numbers"),
        (np.complex128, "complex numbers"),
        ([("R", "u1"), ("G", "u1"), ("B", "u1")], "colours"),
        ([("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")], "colours"),
    ],
)
def test_what_is_not_one_real_number_per_voxel(case, dtype, word):
    save(case / "a_t1ce.nii.gz", np.ones(SHAPE, np.dtype(dtype)))
    refused(case, f"a_t1ce.nii.gz: holds {word}")


@pytest.mark.parametrize("label", [77, -1, 5, 65537, 65540, 2.0**31, 3e38])
def test_labels_that_are_none_are_named_with_their_file(case, label):
    labels = tiny_volumes()["seg"].astype(np.float64)
    labels[2, 2, 2] = label
    save(case / "a_seg.nii.gz", labels)
    refused(case, f"a_seg.nii.gz: unknown label {np.float32(label):.10g}, labels are 0-4")


def test_many_unknown_labels_are_not_all_listed(case):
    save(case / "a_seg.nii.gz", np.arange(480, dtype=np.int16).reshape(SHAPE))
    refused(case, "unknown label 5, 6, 7, 8, 9 and 470 more")


def test_every_stored_type_is_read_as_nibabel_reads_it(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("u1", "i1", "<i2", ">i2", "u2", "i4", "u4", "i8", "u8", "f4", ">f4", "f8"):
        array = (rng.normal(size=(3, 4, 5)) * 50 + 60).astype(kind)
        for slope, inter in ((None, None), (0.037, -2.5), (3, 0)):
            for image_class in (nibabel.Nifti1Image, nibabel.Nifti2Image):
                image = image_class(array, AFFINE, dtype=array.dtype)
                image.header.set_slope_inter(slope, inter)
                image.to_filename(tmp_path / "x.nii.gz")
                expected = np.asarray(nibabel.load(tmp_path / "x.nii.gz").dataobj, dtype=np.float32)
                np.testing.assert_array_equal(read_volume(tmp_path / "x.nii.gz")[0], expected, f"{kind} {slope}")


def test_a_volume_of_many_chunks_is_put_together_in_order(tmp_path, monkeypatch):
    array = np.arange(480, dtype=np.int16).reshape(SHAPE)
    path = save(tmp_path / "x.nii.gz", array)
    monkeypatch.setattr(nifti, "CHUNK", 7)
    np.testing.assert_array_equal(read_volume(path)[0], array)


@pytest.mark.parametrize("length", [300, 5000])
def test_a_path_too_long_for_the_system(tmp_path, length):
    with pytest.raises(ValueError, match=r"xxx.*: no such file; check the path") as caught:
        read_volume(tmp_path / ("x" * length))
    assert len(str(caught.value)) < 500
    for folder in (BratsFolder, IxiFolder, MsFolder):
        with pytest.raises(ValueError, match=r"xxx.*: cannot be listed \(File name too long\)"):
            folder(tmp_path / ("x" * length))
    with pytest.raises(ValueError, match="xxx.*: no such folder"):
        doctor.examine("brats", tmp_path / ("x" * length))


# --- folders ---------------------------------------------------------------------------------------------------


def test_linked_cases_are_cases(tmp_path, write_case):
    data = tmp_path / "data"
    write_case(data / "a")
    write_case(tmp_path / "elsewhere" / "b", seed=1)
    before = data_fingerprint(data)
    (data / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (data / "round").symlink_to(data)
    (data / "a" / "up").symlink_to("..")
    assert list(BratsFolder(data)) == ["a", "b"], "and a link in a circle is followed once"
    assert doctor.faults(doctor.examine("brats", data)) == []
    linked = data_fingerprint(data)
    save(tmp_path / "elsewhere" / "b" / "b_t1.nii.gz", tiny_volumes(7)["t1"])
    assert len({before, linked, data_fingerprint(data)}) == 3, "linked files count"


def test_a_link_that_leads_nowhere_is_an_error(tmp_path, case):
    (case / "a_t1.nii.gz").unlink()
    (case / "a_t1.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    refused(case, "a_t1.nii.gz: no such file")


def test_linked_folders_of_the_other_layouts(tmp_path):
    save(tmp_path / "x" / "IXI002-Guys-0828-T2.NII.GZ", tiny_volumes()["t2"])
    (tmp_path / "ixi").mkdir()
    (tmp_path / "ixi" / "IXI-T2").symlink_to(tmp_path / "x")
    assert IxiFolder(tmp_path / "ixi")["IXI002-Guys-0828"].available == {"t1": False, "t2": True, "pd": False}
    save(tmp_path / "y" / "T2_x.NII.GZ", tiny_volumes()["t2"])
    (tmp_path / "ms").mkdir()
    (tmp_path / "ms" / "patient07").symlink_to(tmp_path / "y")
    assert list(MsFolder(tmp_path / "ms")["patient07"].images) == ["t2"]


@pytest.mark.parametrize("folder", [BratsFolder, IxiFolder, MsFolder])
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, write_case, monkeypatch, folder):
    data = tmp_path / "data"
    for name in ("a", "b"):
        write_case(data / name)
    listed = nifti.os.scandir

    def scandir(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(nifti.os, "scandir", scandir)
    with pytest.raises(ValueError, match=r"data/b: cannot be listed \(Permission denied\), so its cases would be left"):
        folder(data)
    found = [one for one in doctor.examine("brats", data) if one.severity == "error"]
    assert [(one.file, one.what) for one in found] == [("b", "cannot be listed (Permission denied)")]


def test_upper_case_endings_are_read(tmp_path, write_case):
    case = write_case(tmp_path / "data" / "A", without=("t1", "flair"))
    (case / "A_T1.NII.GZ").write_bytes((case / "A_t2.nii.gz").read_bytes())
    save(case / "A_FLAIR.NII", tiny_volumes()["flair"])
    assert list(load_case(case).images) == list(MRI)
    save(case / "A_t1.nii.gz", tiny_volumes()["t1"])
    refused(case, "A_t1.nii.gz")


@pytest.mark.parametrize("place", ["t1", "seg"])
def test_the_file_of_another_patient_in_a_case_folder(case, place):
    (case / f"a_{place}.nii.gz").unlink()
    save(case / f"b_{place}.nii.gz", tiny_volumes(1)[place])
    with pytest.raises(
        ValueError, match=rf"case a: b_{place}.nii.gz in .*/a is named after another case than the rest"
    ):
        load_case(case)
    (found,) = [one for one in doctor.examine("brats", case.parent) if one.severity == "error"]
    assert (found.case, found.file) == ("a", f"b_{place}.nii.gz") and "named after another case" in found.what


def test_another_time_point_of_the_same_patient_is_another_case(tmp_path, write_case):
    case = write_case(tmp_path / "BraTS-GLI-00005-100", endings=RECENT)
    (case / "BraTS-GLI-00005-100-t1c.nii.gz").rename(case / "BraTS-GLI-00005-101-t1c.nii.gz")
    with pytest.raises(ValueError, match="BraTS-GLI-00005-101-t1c.nii.gz .* named after another case"):
        load_case(case)


def test_a_folder_with_a_name_of_its_own_is_a_case(tmp_path, write_case):
    write_case(tmp_path / "scan").rename(tmp_path / "P01")
    assert load_case(tmp_path / "P01").name == "P01"


# --- orientation -----------------------------------------------------------------------------------------------


@pytest.fixture
def mirrored(tmp_path, write_case) -> Path:
    """Two cases along LPS, one along RPS."""
    for seed, name in enumerate("abc"):
        write_case(tmp_path / "data" / name, seed=seed)
    for path in (tmp_path / "data" / "c").iterdir():
        image = nibabel.load(path)
        flip = nibabel.orientations.axcodes2ornt("RPS"), nibabel.orientations.axcodes2ornt("LPS")
        image.as_reoriented(nibabel.orientations.ornt_transform(*flip)).to_filename(path)
    return tmp_path / "data"


def test_cases_along_different_axes_are_not_trained_on_together(mirrored):
    cases = BratsFolder(mirrored)
    assert [cases[name].axes for name in cases] == ["LPS", "LPS", "RPS"], "one at a time they may be anything"
    message = "case c is stored along RPS, case a along LPS: as they are, one is a mirror image"
    samples = Samples(cases.__getitem__, list(cases), MRI)
    with pytest.raises(ValueError, match=message):
        samples[:]
    with pytest.raises(ValueError, match=message):
        axial_slices(cases, MRI, size=(16, 16))
    with pytest.raises(ValueError, match=message):
        nifti.check_orientation(cases)
    nifti.check_orientation(cases[["a", "b"]])


def test_the_doctor_sees_cases_along_different_axes(mirrored):
    (found,) = doctor.faults(doctor.examine("brats", mirrored))
    assert (found.severity, found.case) == ("warning", "c")
    assert found.what == "stored along RPS, most cases along LPS: to a network a mirror image, or turned"


# --- the doctor ------------------------------------------------------------------------------------------------


def test_noise_around_a_head_is_a_warning(tmp_path, write_case):
    """Half of the background is 0 after rounding: noise has no clear edge."""
    case = write_case(tmp_path / "data" / "a")
    rng = np.random.default_rng(0)
    for name, volume in tiny_volumes().items():
        if name in MRI:
            noise = np.hypot(*rng.normal(0, 1, (2, *SHAPE))).round().astype(np.int16)
            save(case / f"a_{name}.nii.gz", np.maximum(volume, np.where(rng.random(SHAPE) < 0.2, noise, 0)))
    (found,) = doctor.faults(doctor.examine("brats", tmp_path / "data"))
    assert found.severity == "warning" and "in the corners are not 0" in found.what


def test_the_doctor_goes_on_where_a_check_fails(tmp_path, write_case, monkeypatch):
    for name in "ab":
        write_case(tmp_path / name, seed=ord(name))
    check = doctor._files

    def fail(files):
        if files.name == "a":
            raise MemoryError("no memory for this")
        return check(files)

    monkeypatch.setattr(doctor, "_files", fail)
    (found,) = doctor.faults(doctor.examine("brats", tmp_path))
    assert (found.case, found.what) == ("a", "could not be examined (MemoryError: no memory for this)")


def test_the_doctor_never_raises_on_any_header(tmp_path, write_case):
    """200 headers with random bytes: a finding or a sound file, and the loader agrees."""
    case = write_case(tmp_path / "data" / "a", suffix=".nii", without=("t1ce", "flair"))
    path = case / "a_t2.nii"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        content = bytearray(whole)
        place = rng.integers(0, 348)
        content[place : place + 4] = rng.bytes(4)
        path.write_bytes(content)
        errors = [one for one in doctor.examine("brats", tmp_path / "data") if one.severity == "error"]
        try:
            load_case(case)
        except ValueError as error:
            assert errors and "a_t2.nii" in str(error)


# --- writing ---------------------------------------------------------------------------------------------------


def test_a_folder_takes_the_place_of_another_one_when_it_is_whole(tmp_path):
    target = tmp_path / "data"
    for content in ("one", "two"):
        with new_folder(target) as made:
            (made / "file").write_text(content)
            assert not target.exists() or (target / "file").read_text() == "one"
        assert (target / "file").read_text() == content
    with pytest.raises(OSError, match="disk full"), new_folder(target) as made:
        (made / "file").write_text("half")
        raise OSError("disk full")
    assert (target / "file").read_text() == "two" and [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_a_killed_process_left_goes_and_that_of_another_one_stays(tmp_path):
    target = tmp_path / "data"
    left = tmp_path / ".data-killed.tmp"
    (left / "new").mkdir(parents=True)
    with new_folder(target) as first:
        assert not left.exists()
        with new_folder(target) as second:
            assert first.exists()
            (second / "file").write_text("second")
        (first / "file").write_text("first")
    assert (target / "file").read_text() == "first" and [path.name for path in tmp_path.iterdir()] == ["data"]


def test_hidden_folders_are_not_walked(tmp_path):
    for name in ("b/c", "a", ".hidden/d", "lost+found"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    walked = [(folder.relative_to(tmp_path).as_posix(), names) for folder, names in folders_below(tmp_path)]
    assert walked == [(".", []), ("a", ["file"]), ("b", []), ("b/c", ["file"])]


def test_a_table_with_the_images_of_another_orientation_is_read(mirrored):
    (mirrored / "t.csv").write_text("case,t1\na,a/a_t1.nii.gz\nc,c/c_t1.nii.gz\n")
    cases = TableCases(mirrored / "t.csv")
    assert {name: cases[name].axes for name in cases} == {"a": "LPS", "c": "RPS"}, "the notebook 02 resamples them"
