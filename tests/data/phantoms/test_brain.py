"""The phantom: what is in it, what is not, and that it comes out the same every time."""

import hashlib
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import get_context

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from mmlib.data.cases import Case, raw_labels, regions
from mmlib.data.phantoms import brain as phantom
from mmlib.data.phantoms.brain import (
    TISSUES,
    Tissues,
    ceiling_without_t1ce,
    make_subject,
    make_tissues,
    signal,
    write_brats,
    write_ixi,
)
from mmlib.modalities import IXI, MRI

ENHANCING = [seed for seed in range(16) if (drawn := phantom._draw_tumour(seed, None)) and drawn.share][:8]


@pytest.fixture(scope="module")
def subjects() -> list[tuple[Case, Tissues]]:
    tissues = {seed: make_tissues(seed) for seed in ENHANCING}
    return [(make_subject(seed, tissues=truth), truth) for seed, truth in tissues.items()]


def digest(case: Case) -> str:
    arrays = [*case.images.values(), *([] if case.labels is None else [case.labels])]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def separation(image: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Difference of the means over the pooled standard deviation."""
    x, y = image[a].astype(float), image[b].astype(float)
    return (x.mean() - y.mean()) / np.sqrt((x.var() + y.var()) / 2)


def test_a_fresh_process_makes_the_same_voxels():
    code = """
import hashlib, torch
torch.set_num_threads(2)
from mmlib.data.phantoms.brain import make_subject
case = make_subject(5)
print(hashlib.sha256(b"".join(a.tobytes() for a in (*case.images.values(), case.labels))).hexdigest())
"""
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert fresh == digest(make_subject(5)) != digest(make_subject(6))


@pytest.mark.parametrize(
    ("seed", "spacing", "layout", "expected"),
    [
        (0, 4, "brats", "97ba350f8a741e3e"),
        (7, 4, "ixi", "a1712a6105889382"),
        (11, 3, "brats", "d090c222651c34b3"),
    ],
)
def test_the_plain_phantom_keeps_its_voxels(seed, spacing, layout, expected):
    """Of VERSION 3: raise VERSION when these change, for files on disk are reused by it."""
    assert digest(make_subject(seed, spacing, layout)).startswith(expected)


@pytest.fixture(scope="module")
def fine() -> Case:
    return make_subject(1, 2)


@pytest.mark.parametrize("spacing", [2, 3, 4, 8])
def test_grid_is_made_of_blocks_of_the_template(spacing, fine):
    case = fine if spacing == 2 else make_subject(1, spacing)
    assert case.spacing == (spacing, spacing, spacing)
    assert nibabel.aff2axcodes(case.affine) == ("R", "A", "S")
    outer_corner = case.affine @ (-0.5, -0.5, -0.5, 1)
    assert outer_corner[:3].tolist() == [-98.5, -134.5, -72.5]  # where the 1 mm template begins
    centre = case.affine @ (*(np.argwhere(case.brain_mask).mean(axis=0)), 1)
    assert np.abs(centre[:3] - (0, -20, 10)).max() < 12  # MNI space: the brain lies around (0, -20, 10) mm


def test_another_spacing_shows_the_same_anatomy(fine):
    coarse = make_subject(1, 4)
    brain = coarse.brain_mask[:, :59]
    for name in MRI:
        blocks = fine.images[name].reshape(50, 2, 59, 2, 48, 2).mean(axis=(1, 3, 5))
        assert np.corrcoef(blocks[brain], coarse.images[name][:, :59][brain])[0, 1] > 0.9, name
    volumes = [regions(case.labels, 4).sum(axis=(1, 2, 3)) * size**3 for case, size in ((fine, 2), (coarse, 4))]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.08)
    blocks = regions(fine.labels, 4).reshape(3, 50, 2, 59, 2, 48, 2).mean(axis=(2, 4, 6)) >= 0.5
    truth = regions(coarse.labels, 4)[:, :, :59]
    overlap = 2 * (blocks & truth).sum(axis=(1, 2, 3)) / (blocks.sum(axis=(1, 2, 3)) + truth.sum(axis=(1, 2, 3)))
    assert overlap.min() > 0.9, "masks, as far as a voxel that is in part tumour allows"


def test_fractions_add_up_to_the_brain(subjects):
    for case, tissues in subjects:
        total = sum(tissues.fractions.values())
        assert min(part.min() for part in tissues.fractions.values()) > -1e-5
        assert 0.99 < total.max() < 1.00001
        assert np.array_equal(case.brain_mask, tissues.brain)
        for image in case.images.values():
            assert image.dtype == np.int16
            assert (image[tissues.brain] > 0).all() and not image[~tissues.brain].any()
            assert 100 < image[tissues.brain].mean() < image.max() < 3000


def test_spin_echo_by_hand():
    # white matter: PD 0.74, T1 700, T2 80; e^(-550/700) = 0.45581, e^(-12/80) = 0.86071
    assert signal("t1", 0.74, 700, 80) == pytest.approx(0.74 * 0.54419 * 0.86071, abs=1e-5)
    # e^(-4000/700) = 0.00330, e^(-100/80) = 0.28650, e^(-15/80) = 0.82903
    assert signal("t2", 0.74, 700, 80) == pytest.approx(0.74 * 0.99670 * 0.28650, abs=1e-5)
    assert signal("pd", 0.74, 700, 80) == pytest.approx(0.74 * 0.99670 * 0.82903, abs=1e-5)
    # e^(-2400/700) = 0.03243, e^(-120/80) = 0.22313, e^(-9000/700) < 3e-6
    assert signal("flair", 0.74, 700, 80) == pytest.approx(0.74 * 0.93515 * 0.22313, abs=1e-5)
    # 0.4 mM shortens 1250 ms to 1 / (0.8 + 1.8) s = 384.6 ms; e^(-550/384.6) = 0.23931, e^(-12/120) = 0.90484
    assert signal("t1ce", 0.88, 1250, 120, 0.4) == pytest.approx(0.88 * 0.76069 * 0.90484, abs=1e-5)
    assert signal("flair", 1.0, 4200, 1990) < 0.03  # CSF is nulled


@pytest.mark.parametrize("modality", ["t1", "t2", "flair", "pd"])
def test_gadolinium_enters_t1ce_only(modality):
    assert signal(modality, 0.88, 1250, 120, 0.5) == signal(modality, 0.88, 1250, 120)
    assert signal("t1ce", 0.88, 1250, 120, 0.0) == signal("t1", 0.88, 1250, 120)


def test_the_rim_contrasts_in_t1ce_only(subjects):
    """Standard deviations from enhancing tumour to (a) non-enhancing solid tissue, (b) all tumour within 8 mm.

    Outside t1ce (a) is 0 in truth and chance leaves about 0.6 per subject (texture, bias). (b) is not 0: oedema and
    necrosis differ from any solid tissue, enhancing or not.
    """
    solid, around = {name: [] for name in MRI}, {name: [] for name in MRI}
    for case, tissues in subjects:
        rim, parts = case.labels == 4, tissues.fractions
        others = np.isin(case.labels, (1, 2)) & ndimage.binary_dilation(rim, iterations=2)
        pure = (parts["solid"] > 0.8) & (parts["enhancing"] < 0.05)
        for name, image in case.images.items():
            around[name].append(separation(image, rim, others))
            if pure.sum() >= 20:
                solid[name].append(separation(image, parts["enhancing"] > 0.8, pure))
    assert min(around["t1ce"]) > 2.5 and min(solid["t1ce"]) > 6
    for name in ("t1", "t2", "flair"):
        assert len(solid[name]) >= 6
        assert abs(np.mean(solid[name])) < 0.9, name
        assert abs(np.mean(around[name])) < 1.5, name


def test_other_modalities_do_not_know_which_part_enhances(monkeypatch):
    seed = ENHANCING[0]
    before = make_subject(seed)
    monkeypatch.setattr(phantom, "SHARE_ENHANCING", (0.95, 0.99))
    after = make_subject(seed)
    assert (after.labels == 4).sum() > 1.2 * (before.labels == 4).sum()
    assert np.array_equal(after.labels > 0, before.labels > 0)
    for name in ("t1", "t2", "flair"):
        assert np.abs(after.images[name].astype(int) - before.images[name]).max() <= 1, name  # rounding
    assert np.abs(after.images["t1ce"].astype(int) - before.images["t1ce"]).max() > 100


def test_enhancement_has_no_preferred_side_and_no_tie_to_the_tumour():
    drawn = [tumour for seed in range(160) if (tumour := phantom._draw_tumour(seed, True))]
    assert np.linalg.norm(np.mean([tumour.direction for tumour in drawn], axis=0)) < 0.15
    bright = [tumour for tumour in drawn if tumour.share]
    assert all(0.25 <= tumour.share <= 0.65 for tumour in bright)
    for name in ("core", "rim", "oedema", "mass_effect", "necrosis"):
        visible = [float(getattr(tumour, name)) for tumour in bright]
        assert abs(np.corrcoef(visible, [tumour.share for tumour in bright])[0, 1]) < 0.2, name


def test_empty_regions_occur_in_every_part_of_the_split():
    drawn = [phantom._draw_tumour(seed, None) for seed in range(160)]
    for first, last in ((0, 100), (100, 120), (120, 160)):
        part = drawn[first:last]
        assert 0.02 < np.mean([tumour is None or not tumour.share for tumour in part]) < 0.35
    healthy = next(seed for seed, tumour in enumerate(drawn) if tumour is None)
    dark = next(seed for seed, tumour in enumerate(drawn) if tumour and not tumour.share)
    filled = next(seed for seed, tumour in enumerate(drawn) if tumour and not tumour.necrosis)
    assert not make_subject(healthy).labels.any()
    assert set(np.unique(make_subject(dark).labels)) == {0, 1, 2}
    assert make_tissues(filled).fractions["necrosis"].max() < 1e-6
    assert (make_subject(healthy, tumour=True).labels > 0).sum() > 100


def test_regions_are_nested_and_stop_at_csf(subjects):
    for case, tissues in subjects:
        whole, core, _ = regions(case.labels, case.enhancing_label)
        assert np.array_equal(raw_labels(regions(case.labels, 4)), case.labels)
        volume = whole.sum() * 0.064  # ml
        assert 10 < volume < 180 and whole.sum() > core.sum() > (case.labels == 4).sum() > 0
        assert tissues.fractions["csf"][whole].mean() < 0.1
        necrosis = tissues.fractions["necrosis"] > 0.5
        border = ndimage.binary_dilation(necrosis) & ~necrosis
        assert not border.any() or np.isin(case.labels, (1, 4))[border].mean() > 0.9  # solid tissue wraps necrosis


def test_oedema_follows_white_matter(subjects):
    taken = {"wm": [], "gm": []}
    for seed, (case, _) in zip(ENHANCING, subjects, strict=True):
        core = np.isin(case.labels, (1, 4))
        shell = ndimage.binary_dilation(core, iterations=3) & ~ndimage.binary_dilation(core)
        before = make_tissues(seed, tumour=False).fractions
        for name, shares in taken.items():
            shares.extend((case.labels == 2)[shell & (before[name] > 0.8)])
    assert np.mean(taken["wm"]) > 1.5 * np.mean(taken["gm"])


def test_the_hemispheres_differ():
    white = make_tissues(2, tumour=False).fractions["wm"]
    assert np.abs(white - white[::-1])[make_tissues(2, tumour=False).brain].mean() > 0.1


def test_healthy_on_request():
    case = make_subject(1, tumour=False)
    assert case.labels is not None and not case.labels.any()


def test_ixi_layout_is_healthy_and_unlabelled():
    case = make_subject(7, layout="ixi")
    assert tuple(case.images) == case.modalities == IXI
    assert case.labels is None
    assert case.name == "IXI0007-Phantom-0007"
    same = make_subject(7, tumour=False)
    assert np.array_equal(case.images["t2"], same.images["t2"])


def cube(**voxels: list[float]) -> Tissues:
    """Four voxels in a row; tissues that are not named are 0."""
    zero = np.zeros((4, 1, 1), dtype=np.float32)
    return Tissues({name: zero + np.reshape(voxels.get(name, [0]), (-1, 1, 1)) for name in TISSUES}, np.eye(4))


@pytest.mark.parametrize(
    ("tissues", "expected"),
    [
        # one of three solid voxels enhances, necrosis is told apart: 2 * 1 / (3 + 1)
        (cube(enhancing=[1, 0, 0, 0], solid=[0, 1, 1, 0], necrosis=[0, 0, 0, 1]), 0.5),
        (cube(enhancing=[1, 1, 0, 0], oedema=[0, 0, 1, 1]), 1.0),
        (cube(solid=[1, 1, 0, 0], wm=[0, 0, 1, 1]), 0.0),
        (cube(wm=[1, 1, 1, 1]), 1.0),
    ],
)
def test_ceiling_by_hand(tissues, expected):
    assert ceiling_without_t1ce(tissues) == expected


def test_labels_by_hand():
    mixed = cube(oedema=[0.6, 0.2, 0.1, 0], necrosis=[0, 0.2, 0, 0], solid=[0, 0.2, 0.1, 0], wm=[0.4, 0.4, 0.8, 0])
    assert mixed.labels.ravel().tolist() == [2, 1, 0, 0]
    assert mixed.brain.ravel().tolist() == [True, True, True, False]


def test_brats_files_round_trip(tmp_path):
    (folder,) = write_brats(tmp_path, [7])
    case = make_subject(7)
    assert folder == tmp_path / "phantom-0007"
    assert sorted(file.name for file in folder.iterdir()) == [
        f"phantom-0007_{part}.nii.gz" for part in ("flair", "seg", "t1", "t1ce", "t2")
    ]
    for part, array in (*case.images.items(), ("seg", case.labels)):
        image = nibabel.load(folder / f"phantom-0007_{part}.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj), array) and image.get_data_dtype() == array.dtype
        assert np.array_equal(image.affine, case.affine)
        assert np.allclose(image.get_qform(), case.affine)
        assert image.header.get_zooms() == (4, 4, 4)


def test_ixi_files_round_trip(tmp_path):
    (first,) = write_ixi(tmp_path, [7])
    assert first == tmp_path / "IXI-T1" / "IXI0007-Phantom-0007-T1.nii.gz"
    case = make_subject(7, layout="ixi")
    files = sorted(tmp_path.rglob("*.nii.gz"))
    assert [file.name.split("-")[-1] for file in files] == ["PD.nii.gz", "T1.nii.gz", "T2.nii.gz"]
    for file, part in zip(files, ("pd", "t1", "t2"), strict=True):
        assert np.array_equal(np.asarray(nibabel.load(file).dataobj), case.images[part])
    stamps = [file.stat().st_mtime_ns for file in files]
    write_ixi(tmp_path, [7])
    assert [file.stat().st_mtime_ns for file in files] == stamps


def test_complete_cases_are_kept_and_others_made_anew(tmp_path):
    folder = write_brats(tmp_path, [3])[0]
    file = folder / "phantom-0003_t2.nii.gz"
    content, stamp = file.read_bytes(), file.stat().st_mtime_ns
    write_brats(tmp_path, [3])
    assert file.stat().st_mtime_ns == stamp
    file.unlink()
    write_brats(tmp_path, [3])
    assert file.read_bytes() == content
    write_brats(tmp_path, [3], spacing=3)
    assert nibabel.load(file).header.get_zooms() == (3, 3, 3)


def test_an_interrupted_case_never_appears_under_its_name(tmp_path, monkeypatch):
    save, saved = phantom.save_image, []

    def fail_at_the_third(image, path):
        saved.append(path)
        if len(saved) == 3:
            raise OSError("disk full")
        save(image, path)

    monkeypatch.setattr(phantom, "save_image", fail_at_the_third)
    with pytest.raises(OSError, match="disk full"):
        write_brats(tmp_path, [3])
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(phantom, "save_image", save)
    write_brats(tmp_path, [3])
    assert [path.name for path in tmp_path.iterdir()] == ["phantom-0003"]


def test_files_are_the_same_bytes_as_nibabel_writes(tmp_path):
    (folder,) = write_brats(tmp_path, [3])
    path = folder / "phantom-0003_t1.nii.gz"
    nibabel.save(nibabel.load(path), tmp_path / "again.nii.gz")
    assert (tmp_path / "again.nii.gz").read_bytes() == path.read_bytes()


def test_a_damaged_file_of_a_phantom_is_made_anew(tmp_path):
    (folder,) = write_brats(tmp_path, [3])
    (t1,) = write_ixi(tmp_path / "ixi", [3])
    for path in (folder / "phantom-0003_t2.nii.gz", t1):
        whole = path.read_bytes()
        check_sum = bytes([whole[-8] ^ 1])
        for damaged in (whole[:-100], whole[:-8] + check_sum + whole[-7:], b""):
            path.write_bytes(damaged)
            write_brats(tmp_path, [3])
            write_ixi(tmp_path / "ixi", [3])
            assert path.read_bytes() == whole


def test_two_processes_that_make_the_same_never_show_half_a_file(tmp_path):
    write_brats(tmp_path, [0], spacing=3.0)  # to be replaced
    jobs = [get_context("fork").Process(target=write_brats, args=(tmp_path, range(2))) for _ in range(2)]
    for job in jobs:
        job.start()
    seen = set()
    while any(job.is_alive() for job in jobs):
        with suppress(FileNotFoundError):  # for a moment there may be no file, or no folder
            for path in tmp_path.glob("phantom-*/*.nii.gz"):
                seen.add((path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
        time.sleep(0.02)
    assert [job.exitcode for job in jobs] == [0, 0]
    last = {(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in tmp_path.glob("*/*.nii.gz")}
    assert seen, "files were looked at while they were written"
    assert len(last) == 10 and len(seen | last) <= 15, "a file is the old one or the whole new one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["phantom-0000", "phantom-0001"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed must be an integer >= 0; got -1"),
        ({"seed": 1.5}, "seed must be an integer >= 0; got 1.5"),
        ({"seed": True}, "seed must be an integer >= 0; got True"),
        ({"seed": 1, "spacing": 1}, "spacing must be 2, 3, 4 or 8 mm; got 1"),
        ({"seed": 1, "layout": "nifti"}, "unknown layout 'nifti'; choose one of"),
        ({"seed": 1, "layout": "ixi", "tumour": True}, "healthy volunteers only"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_subject(**arguments)


def test_wrong_arguments_write_nothing(tmp_path):
    for write in (write_brats, write_ixi):
        with pytest.raises(ValueError, match="spacing must be 2, 3, 4 or 8 mm; got 5"):
            write(tmp_path / "new", [0], spacing=5)
    assert not (tmp_path / "new").exists()


def test_unknown_modality_has_no_signal():
    with pytest.raises(ValueError, match="unknown modality 'dwi'; choose one of"):
        signal("dwi", 1, 1000, 100)
