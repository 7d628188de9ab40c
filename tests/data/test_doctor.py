"""A healthy folder is clean; each way of breaking it gives its own message."""

import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import AFFINE, RECENT, SHAPE, save, tiny_volumes
from typer.testing import CliRunner

from mmlib.__main__ import app
from mmlib.data import doctor
from mmlib.data.findings import Finding

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def folder(tmp_path, write_case):
    """Three sound cases."""
    for seed, name in enumerate("abc"):
        write_case(tmp_path / "data" / name, seed=seed)
    return tmp_path / "data"


def faults(folder, layout="brats"):
    return doctor.faults(doctor.examine(layout, folder))


def only(folder, layout="brats"):
    (finding,) = faults(folder, layout)
    return finding


def run(*arguments):
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def test_a_sound_folder_is_clean_and_counted(folder):
    (note,) = doctor.examine("brats", folder)
    assert (note.severity, note.what) == ("note", "3 cases: t1 3, t1ce 3, t2 3, flair 3, seg 3")
    result = run("brats", folder)
    assert result.exit_code == 0 and "clean: 0 errors, 0 warnings, 1 note" in result.output


def test_a_missing_modality_is_a_note_and_no_fault(folder):
    (folder / "b" / "b_t1ce.nii.gz").unlink()
    notes = doctor.examine("brats", folder)
    assert doctor.faults(notes) == []
    assert ("note", "b", "missing: t1ce") in [(one.severity, one.case, one.what) for one in notes]
    assert run("brats", folder).exit_code == 0


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])


def test_truncated_gz(folder):
    _cut(folder / "a" / "a_t2.nii.gz")
    found = only(folder)
    assert (found.severity, found.case, found.file) == ("error", "a", "a_t2.nii.gz")
    assert found.what.startswith("cannot be read: truncated, damaged or not a NIfTI file (EOFError")
    assert found.remedy == "download or convert it again"


def test_damage_after_the_last_voxel_is_found_by_the_check_sum(folder):
    path = folder / "a" / "a_t2.nii.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 255
    path.write_bytes(content)
    found = only(folder)
    assert found.file == "a_t2.nii.gz" and "CRC check failed" in found.what


def test_not_a_nifti(folder):
    (folder / "a" / "a_flair.nii.gz").write_text("a web page saying that you must log in" * 50)
    found = only(folder)
    assert (found.severity, found.file) == ("error", "a_flair.nii.gz") and "cannot be read" in found.what


def test_wrong_affine(folder):
    moved = AFFINE.copy()
    moved[2, 3] = 0
    save(folder / "a" / "a_t1ce.nii.gz", tiny_volumes(0)["t1ce"], moved)
    found = only(folder)
    assert found.file == "a_t1ce.nii.gz" and found.what == "affine[2, 3] is 0, but -3 in a_t1.nii.gz"
    assert found.remedy == "resample or re-register the case to one grid"


def test_singular_affine(folder):
    image = nibabel.Nifti1Image(tiny_volumes()["t1ce"], AFFINE)
    image.header.set_sform(np.diag([1.0, 1, 0, 1]), 1)
    image.header.set_data_dtype(np.int16)
    path = folder / "a" / "a_t1ce.nii.gz"
    nibabel.Nifti1Image(tiny_volumes()["t1ce"], None, image.header).to_filename(path)
    assert only(folder).what == "the affine is singular or not finite: voxels have no place or size"


def test_swapped_shapes(folder):
    save(folder / "a" / "a_flair.nii.gz", tiny_volumes(0)["flair"].transpose(2, 1, 0))
    found = only(folder)
    assert found.what == "shape (10, 8, 6), the same axes in another order, differs from (6, 8, 10) of a_t1.nii.gz"


def test_nan_and_inf(folder):
    volume = tiny_volumes(0)["t1"].astype(np.float32)
    volume[2, 2, 2], volume[3, 3, 3] = np.nan, np.inf
    save(folder / "a" / "a_t1.nii.gz", volume)
    found = only(folder)
    assert (found.severity, found.what) == ("error", "2 voxels are NaN or infinite")


@pytest.mark.parametrize("value", [0, 7])
def test_constant_volume(folder, value):
    save(folder / "a" / "a_t1.nii.gz", np.full(SHAPE, value, np.int16))
    found = faults(folder)[0]
    assert (found.severity, found.file, found.what) == ("error", "a_t1.nii.gz", f"constant: every voxel is {value}")


def test_unknown_and_interpolated_labels(folder):
    labels = tiny_volumes(0)["seg"]
    labels[2, 2, 2] = 7
    save(folder / "a" / "a_seg.nii.gz", labels)
    save(folder / "b" / "b_seg.nii.gz", np.where(labels == 7, 0.5, labels).astype(np.float32))
    one, other = faults(folder)
    assert (one.file, one.what) == ("a_seg.nii.gz", "unknown label 7, labels are 0-4")
    assert (other.file, other.what) == ("b_seg.nii.gz", "holds 0.5, which is no label")
    assert other.remedy.endswith("nearest neighbours")


def test_missing_segmentation(folder):
    (folder / "c" / "c_seg.nii.gz").unlink()
    found = only(folder)
    assert (found.severity, found.case, found.what) == ("warning", "c", "the segmentation is missing")
    for name in "ab":
        (folder / name / f"{name}_seg.nii.gz").unlink()
    assert only(folder).what == "no case has a segmentation (3 cases)"


def test_duplicate_case_under_another_name(folder):
    for path in sorted((folder / "a").iterdir()):
        (folder / "d").mkdir(exist_ok=True)
        shutil.copy(path, folder / "d" / path.name.replace("a_", "d_"))
    found = faults(folder)
    names = ("t1", "t1ce", "t2", "flair", "seg")
    assert {one.what for one in found} == {f"the same voxels as a_{name}.nii.gz of case a" for name in names}
    assert {one.case for one in found} == {"d"} and "worthless" in found[0].remedy


def test_duplicates_are_found_whatever_the_type_and_compression(folder):
    save(folder / "b" / "b_t1.nii.gz", tiny_volumes(0)["t1"].astype(np.float32))
    assert only(folder).what == "the same voxels as a_t1.nii.gz of case a"
    save(folder / "b" / "b_t1.nii.gz", tiny_volumes(1)["t2"])
    assert only(folder).what == "the same voxels as b_t1.nii.gz"


def test_the_same_name_in_two_folders(folder, write_case):
    write_case(folder / "HGG" / "a", seed=9)
    found = faults(folder)[0]
    assert (found.severity, found.case, found.what) == ("error", "a", "2 folders hold a case of this name")


def test_two_time_points_of_a_subject_are_a_note(tmp_path, write_case):
    for seed, time in enumerate(("000", "100")):
        write_case(tmp_path / f"BraTS-GLI-00005-{time}", seed=seed, endings=RECENT)
    findings = doctor.examine("brats", tmp_path)
    assert doctor.faults(findings) == []
    texts = [one.what for one in findings]
    assert "the subject BraTS-GLI-00005 was scanned 2 times: BraTS-GLI-00005-000, BraTS-GLI-00005-100" in texts


def test_extra_files(folder):
    save(folder / "a" / "W39_1998.09.19_Segm.nii.gz", tiny_volumes()["seg"])
    save(folder / "stray" / "scan.nii.gz", tiny_volumes()["t1"])
    (folder / "a" / "licence.txt").write_text("terms")
    (folder / "a" / "._a_t1.nii.gz").write_text("left by another operating system")
    (folder / "empty").mkdir()
    findings = doctor.examine("brats", folder)
    assert [(one.case, one.file, one.what) for one in doctor.faults(findings)] == [
        ("", "empty", "an empty folder"),
        ("", "stray/scan.nii.gz", "an image whose name belongs to no case: it is not read"),
        ("a", "W39_1998.09.19_Segm.nii.gz", "an image whose name says no modality: it is not read"),
    ]
    assert [one.file for one in findings if one.what == "a file that is not read"] == ["licence.txt"]


def test_two_files_for_one_place_and_a_case_without_images(folder):
    save(folder / "a" / "a_t1.nii", tiny_volumes(5)["t1"])
    for name in ("t1", "t1ce", "t2", "flair"):
        (folder / "b" / f"b_{name}.nii.gz").unlink()
    one, other = faults(folder)
    assert (one.file, one.what) == ("a_t1.nii.gz", "another file of this folder takes the same place")
    assert (other.case, other.what) == ("b", "no file of any modality (t1, t1ce, t2, flair)")


def test_another_voxel_size_is_a_note(folder):
    for name, volume in tiny_volumes(0).items():
        save(folder / "a" / f"a_{name}.nii.gz", volume, 2 * AFFINE)
    findings = doctor.examine("brats", folder)
    assert doctor.faults(findings) == []
    assert ("a", "voxels of 2 x 2 x 4 mm, but 1 x 1 x 2 mm in most cases") in [(one.case, one.what) for one in findings]


def test_background_that_is_not_zero(folder):
    for name in ("t1", "t1ce", "t2", "flair"):
        save(folder / "a" / f"a_{name}.nii.gz", tiny_volumes(0)[name] - 3)
    found = only(folder)
    assert found.severity == "warning" and found.what.startswith("100% of the voxels in the corners are not 0")


def test_a_flipped_segmentation(folder):
    save(folder / "a" / "a_seg.nii.gz", np.roll(tiny_volumes(0)["seg"], -2, axis=0))
    found = only(folder)
    assert found.what == "50% of the segmentation lies where there is no brain" and "not flipped" in found.remedy


def test_empty_segmentations_are_a_note_and_no_duplicates(folder):
    for name in "ab":
        save(folder / name / f"{name}_seg.nii.gz", np.zeros(SHAPE, np.uint8))
    findings = doctor.examine("brats", folder)
    assert doctor.faults(findings) == []
    assert [one.case for one in findings if one.what == "the segmentation is empty"] == ["a", "b"]


def test_labels_that_may_be_read_wrongly(tmp_path, write_case):
    new, old = write_case(tmp_path / "new", endings=RECENT), write_case(tmp_path / "old", seed=1)
    save(new / "new-seg.nii.gz", tiny_volumes(enhancing=4)["seg"])
    save(old / "old_seg.nii.gz", tiny_volumes(enhancing=3)["seg"])
    warning, *notes = doctor.examine("brats", tmp_path)
    assert warning.case == "new" and "resection cavity (2024), and 3 in none" in warning.what
    assert any(one.case == "old" and "3 is read as enhancing" in one.what for one in notes)


def test_the_cavity_of_brats_2024_is_no_fault(tmp_path, write_case):
    write_case(tmp_path / "a", endings=RECENT)
    cavity = write_case(tmp_path / "b", seed=1, endings=RECENT)
    labels = tiny_volumes(1)["seg"]
    labels[0, 0, 0:4] = 4  # fluid whose intensity is 0 lies outside the brain as the images show it
    save(cavity / "b-seg.nii.gz", labels)
    findings = doctor.examine("brats", tmp_path)
    assert doctor.faults(findings) == []
    assert "label 4 in 1 of the cases where enhancing tumour is 3" in " ".join(one.what for one in findings)


def test_ixi(tmp_path):
    for seed, case in enumerate(("IXI002-Guys-0828", "IXI012-HH-1211")):
        for name in ("T1", "T2", "PD"):
            volume = tiny_volumes(seed)[{"T1": "t1", "T2": "t2", "PD": "flair"}[name]]
            save(tmp_path / f"IXI-{name}" / f"{case}-{name}.nii.gz", volume)
    (note,) = doctor.examine("ixi", tmp_path)
    assert note.what == "2 cases: t1 2, t2 2, pd 2"
    save(tmp_path / "IXI-T1" / "IXI012-HH-1211-T1.nii.gz", np.ones((5, 5, 5)) * np.arange(5), 2 * AFFINE)
    found = faults(tmp_path, "ixi")
    assert [one.file for one in found[:2]] == ["IXI012-HH-1211-PD.nii.gz", "IXI012-HH-1211-T2.nii.gz"]
    assert found[0].what == "shape (6, 8, 10) differs from (5, 5, 5) of IXI012-HH-1211-T1.nii.gz"


def test_table(folder):
    path = folder / "table.csv"
    path.write_text("case,t1,seg\na,a/a_t1.nii.gz,a/a_seg.nii.gz\nb,b/none.nii.gz,\nc,c/c_t1.nii.gz,c/c_seg.nii.gz\n")
    found = only(path, "table")
    assert (found.severity, found.file) == ("error", "table.csv") and "row 3: case b, t1: file not found" in found.what
    assert found.remedy.startswith("correct the path")
    path.write_text("case,t1,seg\na,a/a_t1.nii.gz,a/a_seg.nii.gz\n")
    assert faults(path, "table") == []
    path.write_text("case,t7\na,a/a_t1.nii.gz\n")
    assert "unknown column 't7'" in only(path, "table").what


def test_no_case(tmp_path):
    found = only(tmp_path)
    assert (found.severity, found.what) == ("error", "no case found") and "_flair.nii.gz" in found.remedy


def test_command_line_prints_findings_and_exits_1(folder):
    _cut(folder / "a" / "a_t2.nii.gz")
    result = run("brats", folder)
    assert result.exit_code == 1
    assert result.output.startswith("ERROR   a  a_t2.nii.gz\n    cannot be read: truncated, damaged")
    assert "\n    remedy: download or convert it again\n" in result.output
    assert "not clean: 1 error, 0 warnings, 1 note" in result.output


@pytest.mark.parametrize(
    ("sign", "told"),
    [("\x1b[31m", r"\x1b[31m"), ("\n", r"\n"), ("\u202e", r"\u202e"), ("\udcff", r"\udcff"), ("é", "é")],
)
def test_a_name_is_text_in_the_report_whatever_signs_it_holds(sign, told):
    finding = Finding("error", f"a{sign}b", f"c{sign}d", f"e{sign}f", f"g{sign}h")
    assert doctor.report([finding]).splitlines()[:3] == [
        f"ERROR   a{told}b  c{told}d", f"    e{told}f", f"    remedy: g{told}h"
    ]  # fmt: skip


def test_a_case_whose_name_steers_a_terminal_is_an_error_and_steers_none(folder, write_case):
    write_case(folder / "\x1b[31mred\nred", seed=7)
    result = run("brats", folder)
    assert result.exit_code == 1 and "\x1b" not in result.output and "\nred" not in result.output
    assert r"ERROR   \x1b[31mred\nred" in result.output
    assert "holds a line break or another control character" in result.output
    wrong = re.sub(r"[\s│]", "", run("brats", folder / "no\x1b[2Jfolder").output)  # in a frame
    assert r"no\x1b[2Jfolder:nosuchfolder" in wrong and "\x1b" not in wrong


@pytest.mark.parametrize("arguments", [(), ("brats",), ("dicom", "."), ("brats", "/no/such/folder")])
def test_wrong_calls_exit_2(arguments):
    assert run(*arguments).exit_code == 2


def test_wrong_calls_from_python(tmp_path):
    with pytest.raises(
        ValueError, match="unknown layout 'dicom'; choose one of brats, ixi, ms, table, derm7pt, radpath, avmnist"
    ):
        doctor.examine("dicom", tmp_path)
    with pytest.raises(ValueError, match="none: no such folder"):
        doctor.examine("brats", tmp_path / "none")


@pytest.mark.skipif(not (SHARED / "brats_like").is_dir(), reason="the real scan of shared/data/brats_like is not here")
def test_a_real_scan_is_clean():
    assert faults(SHARED / "brats_like") == []
