"""RadPath: volumes and bags of patches of a case, batches of bags of many sizes, and folders that lack something."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from mmlib.data.batches import Minibatches
from mmlib.data.radpath import CLASSES, load, read_findings

CASES = {f"case-{k}": name for k, name in enumerate("GOAAOGGOA")}


def save_volume(path: Path, seed: int, affine=None) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = np.random.default_rng(seed).integers(0, 900, (3, 4, 5)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4) if affine is None else affine), path)
    return volume


def write(root: Path) -> Path:
    """Nine cases, three a part; case k has 2 + k patches, patch j of which has the grey level 10 k + j."""
    (root / "mri").mkdir(parents=True)
    for k, name in enumerate(CASES):
        for m, modality in enumerate(("t1", "t1ce")):
            save_volume(root / "mri" / name / f"{name}_{modality}.nii.gz", 10 * k + m)
        (root / "patches" / name).mkdir(parents=True)
        for j in range(2 + k):
            grey = np.full((6, 7, 3), 10 * k + j, np.uint8)
            Image.fromarray(grey).save(root / "patches" / name / f"{j:02d}.png")
    (root / "classes.csv").write_text("case,class\n" + "".join(f"{case},{name}\n" for case, name in CASES.items()))
    parts = [f"case-{k},{part}\n" for k, part in enumerate(["train"] * 3 + ["valid"] * 3 + ["test"] * 3)]
    (root / "split.csv").write_text("case,part\n" + "".join(parts))
    return root


def test_each_case_has_its_class_volume_and_patches(tmp_path: Path) -> None:
    data = load(write(tmp_path), modality="t1")
    assert CLASSES == ("G", "O", "A")
    assert data.train.labels.tolist() == [0, 1, 2] and data.valid.labels.tolist() == [2, 1, 0]
    assert data.test.case == ("case-6", "case-7", "case-8")
    batch = data.valid[[2, 0]]
    assert batch["case"] == ["case-5", "case-3"] and batch["label"].tolist() == [0, 2]
    native = nibabel.load(tmp_path / "mri" / "case-5" / "case-5_t1.nii.gz").get_fdata()
    scaled = ((native - native.mean()) / native.std()).transpose(2, 1, 0)
    assert batch["inputs"]["mri"].shape == (2, 1, 5, 4, 3)
    assert np.allclose(batch["inputs"]["mri"][0, 0], scaled, atol=1e-5)
    assert batch["inputs"]["slide"][1, :5, 0, 0, 0].mul(255).tolist() == pytest.approx([30, 31, 32, 33, 34], abs=1e-3)
    assert str(data).splitlines()[0] == "train: 3 cases (G 1, O 1, A 1), t1 and slide"


def test_findings_are_numbered_by_value_and_batches_carry_them(tmp_path: Path) -> None:
    data, seen = load(write(tmp_path)), ("mri_oedema", "slide_necrosis")
    rows = [f"{case},{('much', 'little', 'none')[k % 3]},{'yes' if k else 'no'}\n" for k, case in enumerate(CASES)]
    (tmp_path / "findings.csv").write_text("case,mri_oedema,slide_necrosis\n" + "".join(rows))
    labels, values = read_findings(tmp_path, seen, data.train.case)
    assert labels.tolist() == [[1, 0], [0, 1], [2, 1]] and values == {"mri_oedema": 3, "slide_necrosis": 2}
    batch = data.train.with_labels(labels).subset([2, 0])[:]
    assert (
        batch["labels"].tolist() == [[2, 1], [1, 0]] and "label" not in batch and batch["case"] == ["case-2", "case-0"]
    )
    with pytest.raises(ValueError, match="finding 'oedema': a finding is named mri_... or slide_..."):
        read_findings(tmp_path, ["oedema"], data.train.case)
    with pytest.raises(ValueError, match=r"findings.csv: has no column 'mri_ring'"):
        read_findings(tmp_path, ["mri_ring"], data.train.case)
    (tmp_path / "findings.csv").write_text("case,mri_oedema,slide_necrosis\n" + "".join(rows[1:]))
    with pytest.raises(ValueError, match=r"findings.csv: case case-0 has no row; add it"):
        read_findings(tmp_path, seen, data.train.case)
    (tmp_path / "findings.csv").write_text("case,mri_oedema,slide_necrosis\n" + "".join([*rows, rows[3]]))
    with pytest.raises(ValueError, match=r"findings.csv: case case-3 is listed twice"):
        read_findings(tmp_path, seen, data.train.case)
    (tmp_path / "findings.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"findings.csv: no such file; expected a table of case, mri_oedema"):
        read_findings(tmp_path, seen, data.train.case)


def test_bags_are_padded_with_flagged_zeros(tmp_path: Path) -> None:
    batch = load(write(tmp_path)).train[[0, 2]]
    assert batch["inputs"]["slide"].shape == (2, 4, 3, 6, 7)
    assert batch["patches"].tolist() == [[True, True, False, False], [True] * 4]
    assert batch["inputs"]["slide"][0, 2:].count_nonzero() == 0
    assert batch["available"].tolist() == [[True, True]] * 2


def test_a_large_slide_gives_patches_from_all_over_it(tmp_path: Path) -> None:
    batch = load(write(tmp_path), patches=3).test[[2]]
    assert batch["inputs"]["slide"][0, :, 0, 0, 0].mul(255).round().tolist() == [80, 84, 89]  # of ten


def test_volumes_are_turned_to_ras(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "mri" / "case-0" / "case-0_t1ce.nii.gz"
    native = save_volume(path, 0)
    straight = load(tmp_path).train[[0]]["inputs"]["mri"]
    turned = np.eye(4)[[1, 0, 2, 3]] @ np.diag(
        [-1, 1, 1, 1]
    )  # the first axis runs to the back, the second to the right
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(native.transpose(1, 0, 2)[::-1]), turned), path)
    assert torch.equal(load(tmp_path).train[[0]]["inputs"]["mri"], straight)


def test_batches_and_subsets(tmp_path: Path) -> None:
    train = load(write(tmp_path), keep=False).train
    assert set(Minibatches(train, 2, seed=0)[0]) == {"inputs", "patches", "available", "label", "case"}
    some = train.subset([2, 0])
    assert some.case == ("case-2", "case-0") and not some.keep
    assert torch.equal(some[[0]]["inputs"]["mri"], train[[2]]["inputs"]["mri"])
    assert train[torch.tensor([False, True, True])]["case"] == ["case-1", "case-2"]


def test_what_was_read_is_kept_only_when_asked(tmp_path: Path) -> None:
    kept, fresh = (load(write(tmp_path / str(keep)), keep=keep).train for keep in (True, False))
    for cases in (kept, fresh):
        assert len(cases[:]["case"]) == 3
    for folder in (tmp_path / "True", tmp_path / "False"):
        (folder / "mri" / "case-0" / "case-0_t1ce.nii.gz").unlink()
    assert kept[[0]]["case"] == ["case-0"]
    with pytest.raises(ValueError, match="case-0_t1ce.nii.gz: no such file"):
        fresh[[0]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.csv", "case,class\ncase-0,B\n", "classes.csv: case case-0 has the class 'B', known are G, O, A"),
        (
            "split.csv",
            "case,part\ncase-0,later\n",
            "split.csv: case case-0 has the part 'later', known are train, valid",
        ),
        ("split.csv", "case,fold\ncase-0,1\n", "split.csv: has no column 'part' but 'case', 'fold', expected a CSV"),
        ("split.csv", "", "split.csv: is empty, expected a CSV in UTF-8 that has case, part in its header; save"),
        ("classes.csv", 'case,class\n"case-0,G\n', "classes.csv: is not a CSV, row 2: a quotation mark stays open"),
        ("classes.csv", "case,class\ncase-0\n", "classes.csv: row 2 has 1 cell, but there are 2 columns; complete"),
        ("split.csv", "case,part\n" + 300 * "a" + ",train\n", "split.csv: row 2, column case: 300 characters, but"),
        ("split.csv", "case,part\n../../x,train\n", "split.csv: case '../../x' is no name of a folder; give it"),
        ("split.csv", "case,part\ncase-0,train\ncase-0,test\n", "split.csv: case case-0 is listed twice"),
        ("split.csv", "case,part\ncase-99,train\n", "classes.csv: case case-99 of split.csv has no class"),
        ("split.csv", "case,part\ncase-0,train\ncase-1,train\n", "no training case of class A; nothing can learn"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (write(tmp_path) / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_a_class_absent_from_a_later_part_is_a_warning(tmp_path: Path) -> None:
    split = write(tmp_path) / "split.csv"
    split.write_text(split.read_text().replace("case-7,test\n", ""))
    with pytest.warns(UserWarning, match="the part test has no case of class O; balanced accuracy there"):
        assert len(load(tmp_path).test) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="classes.csv: no such file; expected classes.csv, split.csv, mri/"):
        load(tmp_path)
    write(tmp_path)
    with pytest.raises(ValueError, match="case case-0: no flair volume in .*case-0; add it, or take it out"):
        load(tmp_path, modality="flair")
    for path in (tmp_path / "patches" / "case-4").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="case case-4: no .png in .*case-4; cut patches out of its slide"):
        load(tmp_path)
    (tmp_path / "patches" / "case-4").rmdir()
    with pytest.raises(
        ValueError, match=r"case case-4: .*case-4 cannot be listed \(No such file.*\), expected its patches"
    ):
        load(tmp_path)


def test_images_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    train = load(write(tmp_path), keep=False).train
    (tmp_path / "patches" / "case-0" / "00.png").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match="case case-0: .*00.png cannot be decoded .unknown format.*; copy or unpack it again"
    ):
        train[[0]]
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "patches" / "case-1" / "00.png")
    with pytest.raises(ValueError, match=r"the patch of 01.png has the shape \(3, 6, 7\), that of 00.png \(3, 9, 9\)"):
        train[[1]]
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 5)), np.eye(4)), tmp_path / "mri" / "case-2" / "case-2_t1ce.nii.gz")
    with pytest.raises(ValueError, match="case case-2, .*case-2_t1ce.nii.gz: cannot normalise: intensities"):
        train[[2]]


def test_volumes_of_two_sizes_do_not_make_a_batch(tmp_path: Path) -> None:
    write(tmp_path)
    other = np.random.default_rng(0).random((3, 4, 6))
    nibabel.save(nibabel.Nifti1Image(other, np.eye(4)), tmp_path / "mri" / "case-1" / "case-1_t1ce.nii.gz")
    with pytest.raises(ValueError, match=r"the volume of case-1 has the shape \(6, 4, 3\), that of case-0 \(5, 4, 3\)"):
        load(tmp_path).train[:]


def test_arguments_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown modality 'pd'; choose one of"):
        load(tmp_path, modality="pd")
    with pytest.raises(ValueError, match="patches is the most that are taken of a slide, at least 1; got 0"):
        load(tmp_path, patches=0)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
@pytest.mark.parametrize("name", ["classes.csv", "split.csv"])
def test_a_table_in_another_encoding_is_refused(tmp_path: Path, name: str, encoding: str) -> None:
    path = write(tmp_path) / name
    path.write_bytes(path.read_text().replace("case-0", "c\xe4se-0").encode(encoding))
    with pytest.raises(ValueError, match=f"{name}: is (not )?text in UTF-.*; save the table again as CSV in UTF-8"):
        load(tmp_path)


def test_tables_of_a_spreadsheet_are_read(tmp_path: Path) -> None:
    before = load(write(tmp_path))
    for name in ("classes.csv", "split.csv"):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b",", b";").replace(b"\n", b"\r\n"))
    after = load(tmp_path)
    assert after.test.case == before.test.case and torch.equal(after.train.labels, before.train.labels)


def test_a_case_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    save_volume(write(tmp_path) / "mri" / "more" / "case-4" / "case-4_t1ce.nii.gz", 99)
    with pytest.raises(
        ValueError, match="case case-4: two folders of .*mri or two files for one modality hold it; keep"
    ):
        load(tmp_path)


def test_patches_are_read_to_their_check_sum_and_have_a_limit_of_size(tmp_path, monkeypatch) -> None:
    path = write(tmp_path) / "patches" / "case-0" / "00.png"
    sound = path.read_bytes()
    (tmp_path / "patches" / "case-0" / "._00.png").write_bytes(b"left by another operating system")
    assert len(load(tmp_path).train.slides[0]) == 2
    path.write_bytes(sound[:-18] + bytes([sound[-18] ^ 1]) + sound[-17:])
    with pytest.raises(ValueError, match="case case-0: .*00.png cannot be decoded .*; copy or unpack it again"):
        load(tmp_path).train[[0]]
    path.write_bytes(sound)
    monkeypatch.setattr("mmlib.data.radpath.PATCH_PIXELS", 6 * 7)
    assert load(tmp_path).train[[0]]["patches"].sum() == 2
    monkeypatch.setattr("mmlib.data.radpath.PATCH_PIXELS", 6 * 7 - 1)
    with pytest.raises(ValueError, match="case case-0: .*00.png: has more than 41 pixels; make it smaller"):
        load(tmp_path).train[[0]]
