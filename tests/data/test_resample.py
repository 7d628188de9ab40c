from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from mmlib.data.brats import BratsFolder
from mmlib.data.cases import Case, regions
from mmlib.data.phantoms.brain import make_subject
from mmlib.data.resample import back_to, resample

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "brats_like"
LPS = np.array([[-1.0, 0, 0, 10], [0, -1, 0, 20], [0, 0, 1, -5], [0, 0, 0, 1]])


def ramp(shape=(16, 20, 24), affine=LPS, background=0.0) -> Case:
    """An image that is 100 + x + 2 y + 3 z (mm, world) in a brain two voxels from the edge, and a tumour."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    brain = np.zeros(shape, bool)
    brain[2:-2, 2:-2, 2:-2] = True
    labels = np.zeros(shape, np.int16)
    labels[4:12, 4:12, 4:16] = 2
    labels[4:8, 4:12, 4:12] = 4
    image = np.where(brain, 100 + world @ (1, 2, 3), background).astype(np.float32)
    return Case("ramp", {"t1": image}, affine, labels, brain=brain)


def values_at_centres(case: Case) -> np.ndarray:
    """What the ramp is at the voxel centres of a case."""
    shape = next(iter(case.images.values())).shape
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return 100 + (index @ case.affine[:3, :3].T + case.affine[:3, 3]) @ (1, 2, 3)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SPL"])
def test_a_ramp_stays_where_it_is_in_the_world(axes):
    coarse = resample(ramp(), 2.0, axes)
    assert nibabel.aff2axcodes(coarse.affine) == tuple(axes) and coarse.spacing == pytest.approx((2, 2, 2))
    shape = {"L": 8, "R": 8, "P": 10, "A": 10, "S": 12}
    assert coarse.images["t1"].shape == tuple(shape[letter] for letter in axes) and coarse.header is None
    inner = np.zeros(coarse.brain.shape, bool)
    inner[3:-3, 3:-3, 3:-3] = True
    np.testing.assert_allclose(coarse.images["t1"][inner], values_at_centres(coarse)[inner], atol=1e-3)
    assert (coarse.images["t1"][~coarse.brain] == 0).all()
    assert coarse.brain.sum() == 6 * 8 * 10


def test_the_outer_faces_of_both_grids_coincide():
    coarse = resample(ramp(), 4.0, "LPS")
    assert coarse.images["t1"].shape == (4, 5, 6)
    np.testing.assert_allclose(coarse.affine @ (-0.5, -0.5, -0.5, 1), LPS @ (-0.5, -0.5, -0.5, 1))
    np.testing.assert_allclose(coarse.affine @ (3.5, 4.5, 5.5, 1), LPS @ (15.5, 19.5, 23.5, 1))
    assert resample(ramp(), 3.0, "LPS").images["t1"].shape == (6, 7, 8)


def test_the_same_grid_changes_nothing():
    one = ramp()
    same = resample(one, 1.0, "LPS")
    np.testing.assert_allclose(same.affine, one.affine)
    np.testing.assert_allclose(same.images["t1"], one.images["t1"], atol=1e-4)
    np.testing.assert_array_equal(same.labels, one.labels)


def test_the_background_takes_no_part():
    one, other = resample(ramp(background=0), 3.0), resample(ramp(background=-500), 3.0)
    np.testing.assert_allclose(one.images["t1"], other.images["t1"], atol=1e-3)
    flat = ramp()
    flat.images["t1"][flat.brain] = 7
    coarse = resample(flat, 4.0)
    np.testing.assert_allclose(coarse.images["t1"][coarse.brain], 7, atol=1e-5)


def test_averaging_lowers_noise_as_a_box_would():
    noise = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
    one = Case("noise", {"t1": noise}, LPS, brain=np.ones(noise.shape, bool))
    inner = resample(one, 4.0, "LPS").images["t1"][2:-2, 2:-2, 2:-2]
    box = noise.reshape(10, 4, 10, 4, 10, 4).mean((1, 3, 5))[2:-2, 2:-2, 2:-2]
    assert 0.5 < inner.std() / box.std() < 1.5 and np.corrcoef(inner.flat, box.flat)[0, 1] > 0.8


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SAR"])
@pytest.mark.parametrize("tilt", [0, 10])
def test_blocks_come_back_to_their_own_voxels(axes, tilt):
    turn = np.eye(4)
    c, s = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    turn[:2, :2] = [[c, -s], [s, c]]
    one = ramp(affine=turn @ LPS)
    coarse = resample(one, 2.0, axes)
    truth = regions(one.labels)
    back = back_to(one, regions(coarse.labels), coarse)
    assert back.dtype == bool and back.shape == truth.shape
    for found, expected in zip(back, truth, strict=True):
        overlap = 2 * (found & expected).sum() / (found.sum() + expected.sum())
        assert overlap > 0.97  # corners of a block become round
    assert not back_to(one, np.zeros(coarse.brain.shape, bool), coarse).any()
    assert back_to(one, np.ones(coarse.brain.shape, bool), coarse).all()


def test_probabilities_come_back_by_interpolation():
    one = ramp()
    coarse = resample(one, 2.0, "LPS")
    probability = np.zeros(coarse.brain.shape, np.float32)
    probability[4:] = 1
    expected = np.zeros((16, 20, 24), bool)
    expected[8:] = True  # native centres 7 and 8 lie a quarter of a coarse voxel on either side of the middle
    np.testing.assert_array_equal(back_to(one, probability, coarse), expected)


def test_anisotropic_voxels_and_finer_grids():
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    one = ramp(shape=(20, 20, 10), affine=affine)
    fine = resample(one, 2.0)
    assert fine.images["t1"].shape == (10, 10, 25)
    inner = np.zeros(fine.brain.shape, bool)
    inner[2:-2, 2:-2, 8:-8] = True
    np.testing.assert_allclose(fine.images["t1"][inner], values_at_centres(fine)[inner], rtol=1e-4)


def test_wrong_arguments_are_refused():
    for spacing in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="spacing must be a positive number of mm"):
            resample(ramp(), spacing)
    for axes in ("RA", "RRS", "RLS", "XYZ", "RASA"):
        with pytest.raises(ValueError, match="axes must name three different directions"):
            resample(ramp(), 2.0, axes)
    coarse = resample(ramp(), 2.0)
    with pytest.raises(ValueError, match=r"regions have shape \(2, 2, 2\), but the resampled case ramp has"):
        back_to(ramp(), np.zeros((3, 2, 2, 2), bool), coarse)


def test_a_phantom_at_2_mm_becomes_nearly_the_phantom_at_4_mm():
    fine, coarse = make_subject(3, spacing=2.0), make_subject(3, spacing=4.0)
    made = resample(fine, 4.0)
    np.testing.assert_allclose(made.affine, coarse.affine)
    common = tuple(slice(0, side) for side in np.minimum(made.brain.shape, coarse.brain_mask.shape))
    both = made.brain[common] & coarse.brain_mask[common]
    assert both.sum() / (made.brain[common] | coarse.brain_mask[common]).sum() > 0.95
    assert np.corrcoef(made.images["flair"][common][both], coarse.images["flair"][common][both])[0, 1] > 0.9


@pytest.mark.skipif(not REAL.is_dir(), reason="the real scan of shared/data/brats_like is not here")
def test_a_real_scan_to_4_mm_and_back():
    case = BratsFolder(REAL)["TCGA-DU-7294"]
    coarse = resample(case, 4.0)
    assert coarse.images["t1"].shape == (60, 60, 39) and nibabel.aff2axcodes(coarse.affine) == ("R", "A", "S")
    truth = regions(case.labels)
    back = back_to(case, regions(coarse.labels), coarse)
    dice = [2 * (b & t).sum() / max(b.sum() + t.sum(), 1) for b, t in zip(back, truth, strict=True)]
    assert dice[0] > 0.85 and dice[1] > 0.85 and dice[2] == 0  # what 4 mm voxels can say at best; no enhancement
    assert replace(coarse, labels=None).brain.sum() * 64 == pytest.approx(case.brain_mask.sum(), rel=0.03)
