"""Slices of cases: their range, what is missing, the way back, and which modalities training hides."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import AFFINE, RECENT, SHAPE, save, tiny_volumes

from mmlib.data.batches import Minibatches
from mmlib.data.brats import BratsFolder
from mmlib.data.ixi import IxiFolder
from mmlib.data.phantoms.brain import write_ixi
from mmlib.data.slices import Masked, Slices, axial_slices, patterns, volumes
from mmlib.data.splits import read_split
from mmlib.modalities import IXI, MRI


@pytest.fixture
def folder(tmp_path, write_case):
    """A complete case in the old naming, and one in the new that lacks t1ce."""
    write_case(tmp_path / "a")
    write_case(tmp_path / "b", seed=1, endings=RECENT, without=("t1ce",))
    return tmp_path


def cut(folder, *names: str, **settings) -> Slices:
    """Slices of 8 x 8, the brain of 6 x 4 in the middle."""
    return axial_slices(BratsFolder(folder)[list(names)], MRI, **{"size": (8, 8), "stride": 8, **settings})


def test_values_run_from_the_percentiles_to_one(folder):
    slices = cut(folder, "a")
    volume = tiny_volumes()["flair"].astype(np.float64)
    high = np.percentile(volume, 99.9)  # the lower one is 0: background
    assert slices.images.shape == (8, 4, 8, 8) and slices.images.dtype == torch.float32
    assert slices.position.tolist() == list(range(1, 9))
    # the axes on disk grow to the left and to the back, so both are turned
    expected = (volume.clip(0, high) / high * 2 - 1)[1:5, 1:7, 3][::-1, ::-1].T
    np.testing.assert_allclose(slices.images[2, 3, 1:7, 2:6], expected, atol=1e-6)
    assert slices.images.max() == 1
    assert (slices.images[~slices.brain[:, None].expand_as(slices.images)] == -1).all()
    assert slices.brain.sum() == 4 * 6 * 8


def test_a_skull_outside_the_mask_is_background(tmp_path):
    volume = 100 + np.random.default_rng(0).random(SHAPE)
    brain = np.zeros(SHAPE, np.uint8)
    brain[2:5, 2:6, 3:7] = 1
    for name, image in (("T1", volume), ("T2", 2 * volume), ("PD", -volume), ("brain", brain)):
        save(tmp_path / f"IXI002-Guys-0828-{name}.nii.gz", image)
    slices = axial_slices(IxiFolder(tmp_path), IXI, size=(8, 8), stride=8)
    assert len(slices) == 4 and slices.subject == ("IXI002",) * 4 and slices.labels is None
    assert (slices.images[~slices.brain[:, None].expand_as(slices.images)] == -1).all()
    torch.testing.assert_close(slices.images[:, 0], slices.images[:, 1])


def test_what_is_missing_is_zero_and_flagged(folder):
    slices = cut(folder, "a", "b")
    assert slices.available.tolist() == [[True] * 4] * 8 + [[True, False, True, True]] * 8
    assert (slices.images[8:, 1] == 0).all() and (slices.images[8:, 0] != 0).any()
    assert set(slices.complete.case) == {"a"} and len(slices.complete) == 8
    assert slices.exposure == {"a": list(MRI), "b": ["t1", "t2", "flair"]}


def test_enhancing_tumour_is_4_in_both_namings(folder):
    old, new = cut(folder, "a").labels, cut(folder, "b").labels
    assert old.unique().tolist() == new.unique().tolist() == [0, 1, 2, 4]
    assert (old == 4).sum() == (new == 4).sum() == 2


def test_which_slices_are_taken(folder):
    assert cut(folder, "a", every=3).position.tolist() == [1, 4, 7]
    assert len(cut(folder, "a", least_brain=24 / 64)) == 8
    with pytest.raises(ValueError, match="no slice of 1 cases has brain on 40% of the canvas: lower least_brain"):
        cut(folder, "a", least_brain=0.4)


def test_they_are_batches(folder):
    slices = cut(folder, "a", "b")
    batch = slices[torch.tensor([9, 0])]
    assert set(batch) == {"images", "available", "case"} and batch["case"] == ["b", "a"]
    assert torch.equal(batch["images"], slices.images[[9, 0]])
    seen = [case for step in range(4) for case in Minibatches(slices, 4, seed=0)[step]["case"]]
    assert Counter(seen) == {"a": 8, "b": 8}
    some = slices.subset(slices.available[:, 1] & (slices.position > 6))
    assert some.case == ("a", "a") and some.position.tolist() == [7, 8] and some.labels.shape == (2, 8, 8)


def test_there_and_back(folder):
    case = BratsFolder(folder)["a"]
    slices = cut(folder, "a", least_brain=0)
    restored = volumes(case, slices, slices.images)
    volume = case.images["t2"]
    high = np.percentile(volume, 99.9)
    np.testing.assert_allclose(restored["t2"], volume.clip(0, high) / high, atol=1e-6)
    with pytest.raises(ValueError, match=r"the slices are of \['a'\], but the case is b: give its own"):
        volumes(BratsFolder(folder)["b"], slices, slices.images)
    some = slices.subset(slice(3))
    with pytest.raises(ValueError, match="case a: 5 of 8 slices with brain lack; cut with every=1, least_brain=0"):
        volumes(case, some, some.images)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda volume: volume * 0 + 5, "case c, modality t2: the image is constant or not finite"),
        (lambda volume: np.where(volume > 0, np.inf, 0.0), "case c, modality t2: the image is constant or not finite"),
        (
            lambda volume: np.where(np.arange(10) == 4, 7 * (volume > 0), volume),
            "case c, modality t2: slice 4 is constant in the brain",
        ),
    ],
)
def test_a_constant_image_or_slice_is_named(tmp_path, write_case, values, message):
    folder = write_case(tmp_path / "c")
    save(folder / "c_t2.nii.gz", values(tiny_volumes()["t2"]).astype(np.float32), AFFINE)
    with pytest.raises(ValueError, match=message):
        cut(tmp_path, "c")


def test_a_case_without_the_modalities_asked_for_is_named(folder):
    with pytest.raises(ValueError, match=r"case b has .* none of \('t1ce',\) that are asked for: leave it out"):
        axial_slices(BratsFolder(folder)[["b"]], ("t1ce",), size=(8, 8), stride=8)


def empty_slices(modalities: tuple[str, ...], available: list[list[bool]]) -> Slices:
    """Slices of one pixel, in which only availability matters."""
    count = len(available)
    names = tuple(f"case-{index}" for index in range(count))
    images, brain = torch.ones(count, len(modalities), 1, 1), torch.ones(count, 1, 1, dtype=torch.bool)
    return Slices(images, torch.tensor(available), brain, None, names, names, torch.arange(count), modalities)


@pytest.mark.parametrize(("modalities", "count"), [(MRI, 14), (IXI, 6)])
def test_all_patterns_are_drawn_and_about_equally_often(modalities, count):
    assert len(patterns(modalities)) == count
    slices = empty_slices(modalities, [[True] * len(modalities)] * 10)
    masked = Masked(Minibatches(slices, 100, seed=3), modalities, seed=3)
    drawn = torch.cat([masked[step]["available"] for step in range(14 * count // 2)])
    seen = Counter(map(tuple, drawn.tolist()))
    assert len(seen) == count and all(0 < sum(pattern) < len(modalities) for pattern in seen)
    expected = len(drawn) / count
    chi_square = sum((found - expected) ** 2 / expected for found in seen.values())
    assert chi_square < 2.5 * (count - 1)  # exceeded in fewer than 1 of 100 draws


def test_masks_depend_on_seed_and_step_alone_and_images_stay_whole():
    slices = empty_slices(MRI, [[True] * 4] * 8)
    batches = Minibatches(slices, 8, seed=0)
    one, same, other = (Masked(batches, MRI, seed)[5] for seed in (1, 1, 2))
    assert torch.equal(one["available"], same["available"]) and not torch.equal(one["available"], other["available"])
    assert not torch.equal(one["available"], Masked(batches, MRI, 1)[6]["available"])
    assert (one["images"] == 1).all() and one["acquired"].all()


def test_an_incomplete_case_is_masked_within_what_it_has():
    slices = empty_slices(MRI, [[True, False, True, False]])
    masked = Masked(Minibatches(slices, 50, seed=0), MRI, seed=0)[0]
    assert set(map(tuple, masked["available"].tolist())) == {(True, False, False, False), (False, False, True, False)}
    assert masked["acquired"].tolist() == [[True, False, True, False]] * 50


def test_one_fixed_pattern_for_a_dedicated_network():
    slices = empty_slices(IXI, [[True] * 3] * 4)
    fixed = torch.tensor([True, False, True])
    masked = Masked(Minibatches(slices, 4, seed=0), IXI, seed=0, fixed=fixed)
    assert masked[0]["available"].tolist() == [fixed.tolist()] * 4
    lacking = replace(slices, available=fixed.expand(4, 3))
    with pytest.raises(ValueError, match="case case-. has 2 modalities, of which no pattern asked for"):
        Masked(Minibatches(lacking, 4, seed=0), IXI, seed=0, fixed=fixed)[0]


def test_a_lone_modality_cannot_be_trained_on():
    slices = empty_slices(IXI, [[False, True, False]])
    with pytest.raises(ValueError, match=r"case case-0 has 1 modalities, .* leave it out \(`Slices.complete`\)"):
        Masked(Minibatches(slices, 1, seed=0), IXI, seed=0)[0]


def test_the_committed_split_is_by_subject_and_of_the_phantom(tmp_path):
    split = read_split("ixi-phantom")
    assert [len(part) for part in (split.train, split.valid, split.test)] == [100, 20, 40]
    seed = int(split.test[0].rsplit("-", 1)[1])
    write_ixi(tmp_path, [seed], spacing=4.0)
    cases = IxiFolder(tmp_path)
    assert list(cases) == [split.test[0]] and cases.subject(split.test[0]) == split.subjects[split.test[0]]
    slices = axial_slices(cases, IXI, size=(64, 64), least_brain=0.1)
    assert len(slices) > 20 and slices.images.min() == -1 and slices.images.max() == 1
    assert (slices.brain.float().mean(dim=(1, 2)) >= 0.1).all()
