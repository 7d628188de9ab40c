"""IXI folders: the official names, subjects that lack a modality, and images that are not registered."""

from pathlib import Path

import numpy as np
import pytest
from conftest import AFFINE, SHAPE, save, tiny_volumes

from mmlib.data.doctor import examine, faults
from mmlib.data.ixi import IxiFolder
from mmlib.data.phantoms.brain import make_subject, write_ixi
from mmlib.modalities import IXI


def write(folder: Path, case: str, *modalities: str, affine: np.ndarray = AFFINE) -> None:
    """Write images of a case in the official way, a folder per modality."""
    for name, volume in zip(modalities, tiny_volumes().values(), strict=False):
        save(folder / f"IXI-{name}" / f"{case}-{name}.nii.gz", volume, affine)


def test_a_phantom_is_read_as_it_was_made(tmp_path):
    write_ixi(tmp_path, [7, 8], spacing=4.0)
    cases = IxiFolder(tmp_path)
    assert list(cases) == ["IXI0007-Phantom-0007", "IXI0008-Phantom-0008"]
    made, read = make_subject(7, 4.0, layout="ixi"), cases["IXI0007-Phantom-0007"]
    assert tuple(read.images) == IXI == read.modalities and read.labels is None
    for name in IXI:
        np.testing.assert_array_equal(read.images[name], made.images[name])
    np.testing.assert_allclose(read.affine, made.affine)
    assert cases.subject("IXI0007-Phantom-0007") == "IXI0007"


def test_official_names_and_incomplete_subjects(tmp_path):
    write(tmp_path, "IXI002-Guys-0828", "T1", "T2", "PD")
    write(tmp_path, "IXI035-IOP-0873", "T2")
    write(tmp_path, "IXI035-IOP-0873", "MRA")  # official too, and read by nobody
    cases = IxiFolder(tmp_path)
    assert list(cases) == ["IXI002-Guys-0828", "IXI035-IOP-0873"]
    assert cases.subject("IXI002-Guys-0828") == "IXI002"
    assert cases["IXI035-IOP-0873"].available == {"t1": False, "t2": True, "pd": False}
    assert cases["IXI035-IOP-0873"].images["t2"].shape == SHAPE


def test_a_brain_mask_beside_the_images_is_read_and_known_to_the_doctor(tmp_path):
    write(tmp_path, "IXI002-Guys-0828", "T1", "T2", "PD")
    brain = np.zeros(SHAPE, np.uint8)
    brain[2:4, 2:4, 2:4] = 1
    save(tmp_path / "IXI002-Guys-0828-brain.nii.gz", brain)
    save(tmp_path / "IXI099-HH-0001-brain.nii.gz", brain)  # of nobody
    cases = IxiFolder(tmp_path)
    assert list(cases) == ["IXI002-Guys-0828"]
    np.testing.assert_array_equal(cases["IXI002-Guys-0828"].brain_mask, brain)
    assert [Path(one.file).name for one in faults(examine("ixi", tmp_path))] == ["IXI099-HH-0001-brain.nii.gz"]


@pytest.mark.parametrize("pick", [lambda cases: cases, lambda cases: cases[["IXI002-Guys-0828"]]])
def test_a_case_that_is_not_registered_is_refused_with_the_way_to_do_it(tmp_path, pick):
    write(tmp_path, "IXI002-Guys-0828", "T1", "T2", "PD")
    save(tmp_path / "IXI-T1" / "IXI002-Guys-0828-T1.nii.gz", np.ones((5, 5, 5)), AFFINE)
    cases = pick(IxiFolder(tmp_path))
    message = (
        r"-T1.nii.gz: shape \(5, 5, 5\) differs from \(6, 8, 10\) of IXI002-Guys-0828-T2.nii.gz: the case is not "
        r"registered. Register t1 rigidly to t2 .*: flirt -dof 6 -in IXI002-Guys-0828-T1.nii.gz"
    )
    with pytest.raises(ValueError, match=message):
        cases["IXI002-Guys-0828"]
    moved = AFFINE.copy()
    moved[0, 3] += 1
    write(tmp_path, "IXI002-Guys-0828", "T1", affine=moved)
    with pytest.raises(ValueError, match=r"affine\[0, 3\] is 6, but 5 in .*-T2.nii.gz: the case is not registered"):
        cases["IXI002-Guys-0828"]


def test_some_cases_are_a_folder_too(tmp_path):
    for case in ("IXI002-Guys-0828", "IXI012-HH-1211", "IXI013-HH-1212"):
        write(tmp_path, case, "T1", "T2", "PD")
    some = IxiFolder(tmp_path)[["IXI013-HH-1212", "IXI002-Guys-0828"]]
    assert list(some) == ["IXI013-HH-1212", "IXI002-Guys-0828"] and some.subject("IXI013-HH-1212") == "IXI013"
    with pytest.raises(KeyError, match="has no case IXI012-HH-1211; it has 2 cases"):
        some["IXI012-HH-1211"]


def test_a_damaged_file_is_named(tmp_path):
    write(tmp_path, "IXI002-Guys-0828", "T1", "T2", "PD")
    (tmp_path / "IXI-T2" / "IXI002-Guys-0828-T2.nii.gz").write_bytes(b"no image")
    with pytest.raises(ValueError, match="-T2.nii.gz: cannot be read"):
        IxiFolder(tmp_path)["IXI002-Guys-0828"]


def test_a_folder_without_cases_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match="no case found; expected files such as IXI002-Guys-0828-T1.nii.gz"):
        IxiFolder(tmp_path)
