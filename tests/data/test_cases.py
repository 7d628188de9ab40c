from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlib.data.cases import Case, Frame, raw_labels, regions, tensors, zscore

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])


def brain_box() -> np.ndarray:
    """(7, 8, 9) bool: x 1-4, y 2-6, z 3-7."""
    brain = np.zeros((7, 8, 9), bool)
    brain[1:5, 2:7, 3:8] = True
    return brain


def case(**changes) -> Case:
    rng = np.random.default_rng(0)
    images = {name: np.where(brain_box(), rng.uniform(1, 9, (7, 8, 9)), 0).astype(np.float32) for name in ("t1", "t2")}
    labels = np.zeros((7, 8, 9), np.uint8)
    labels[2, 3, 4:8] = (2, 1, 4, 4)
    return replace(Case("one", images, AFFINE, labels), **changes)


# --- regions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "enhancing", "wt", "tc", "et"),
    [
        ((0, 1, 2, 4), None, (0, 1, 1, 1), (0, 1, 0, 1), (0, 0, 0, 1)),  # 2017-2021
        ((0, 1, 2, 3), None, (0, 1, 1, 1), (0, 1, 0, 1), (0, 0, 0, 1)),  # 2023
        ((0, 1, 2, 3), 3, (0, 1, 1, 1), (0, 1, 0, 1), (0, 0, 0, 1)),
        ((0, 1, 2, 3, 4), None, (0, 1, 1, 1, 1), (0, 1, 0, 1, 1), (0, 0, 0, 0, 1)),  # 2012-2015: 3 does not enhance
        ((0, 1, 2, 3), 4, (0, 1, 1, 1), (0, 1, 0, 1), (0, 0, 0, 0)),  # the same, without enhancement
        ((0, 1, 2, 3, 4), 3, (0, 1, 1, 1, 0), (0, 1, 0, 1, 0), (0, 0, 0, 1, 0)),  # 2024: 4 is the cavity
        ((0, 1, 2), None, (0, 1, 1), (0, 1, 0), (0, 0, 0)),  # low grade: an empty region
        ((0, 0), None, (0, 0), (0, 0), (0, 0)),  # healthy
    ],
)
def test_regions_of_every_label_set(labels, enhancing, wt, tc, et):
    found = regions(np.array(labels), enhancing)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, np.array([wt, tc, et], bool))


@pytest.mark.parametrize("wrong", [5, -1, 1.5])
def test_other_labels_are_refused(wrong):
    with pytest.raises(ValueError, match=f"labels must be 0-4 .*{wrong}.*map them first"):
        regions(np.array([0, wrong]))


@pytest.mark.parametrize("enhancing", [3, 4])
def test_regions_become_labels_again(enhancing):
    labels = np.array([0, 2, 1, enhancing], np.uint8)
    back = raw_labels(regions(labels, enhancing), enhancing)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, labels)


def test_a_voxel_of_an_inner_region_alone_takes_the_inner_label():
    np.testing.assert_array_equal(raw_labels(np.eye(3, dtype=bool)), [2, 1, 4])


# --- normalisation ---------------------------------------------------------------------------------------------


def test_zscore_by_hand():
    scaled = zscore(np.array([5.0, 2.0, 4.0, 6.0, 8.0]), np.array([False, True, True, True, True]))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [0, -3 / 5**0.5, -1 / 5**0.5, 1 / 5**0.5, 3 / 5**0.5], rtol=1e-6)


def test_zscore_does_not_depend_on_gain_offset_or_background():
    image, brain = np.random.default_rng(1).normal(100, 20, (4, 5, 6)), np.zeros((4, 5, 6), bool)
    brain[1:3, 1:4, 1:5] = True
    other = np.where(brain, 3 * image + 7, -999)
    np.testing.assert_allclose(zscore(image, brain), zscore(other, brain), atol=1e-5)
    assert (zscore(other, brain)[~brain] == 0).all()


@pytest.mark.parametrize("values", [(0.1, 0.1, 0.1), (7, 7, 7), (1, np.nan, 2), (1, np.inf, 2)])
def test_zscore_refuses_constant_and_broken_images(values):
    with pytest.raises(ValueError, match="constant or not finite"):
        zscore(np.array(values, np.float32), np.ones(3, bool))


def test_zscore_refuses_an_empty_brain():
    with pytest.raises(ValueError, match="brain mask is empty"):
        zscore(np.ones(3), np.zeros(3, bool))


# --- frame -----------------------------------------------------------------------------------------------------


def test_frame_by_hand():
    frame = Frame.around(brain_box(), multiple=4)
    assert (frame.low, frame.high, frame.padding) == ((1, 2, 3), (5, 7, 8), (0, 3, 3))
    native = np.arange(7 * 8 * 9).reshape(7, 8, 9)
    box = frame.to_box(native)
    assert box.shape == (8, 8, 4)
    assert box[0, 0, 0] == native[1, 2, 3] and box[4, 4, 3] == native[4, 6, 7] and box[1, 2, 3] == native[4, 4, 4]
    assert not box[5:].any() and not box[:, 5:].any()


@pytest.mark.parametrize("multiple", [1, 2, 4, 16])
def test_frame_round_trip(multiple):
    frame, brain = Frame.around(brain_box(), multiple), brain_box()
    native = np.random.default_rng(0).normal(size=(3, 7, 8, 9)) * brain
    box = frame.to_box(native)
    assert all(side % multiple == 0 for side in box.shape[1:])
    np.testing.assert_array_equal(frame.to_native(box), native)
    full = frame.to_native(np.ones(box.shape[1:], bool))
    assert full.dtype == bool
    np.testing.assert_array_equal(full, brain)


def test_frame_of_a_brain_at_the_edges():
    frame = Frame.around(np.ones((3, 4, 5), bool), multiple=8)
    native = np.arange(60).reshape(3, 4, 5)
    assert frame.to_box(native).shape == (8, 8, 8)
    np.testing.assert_array_equal(frame.to_native(frame.to_box(native)), native)


def test_frame_refuses_an_empty_brain():
    with pytest.raises(ValueError, match="brain mask is empty"):
        Frame.around(np.zeros((2, 2, 2), bool))


# --- case ------------------------------------------------------------------------------------------------------


def test_available_is_what_was_acquired():
    assert case().available == {"t1": True, "t1ce": False, "t2": True, "flair": False}


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_spacing_does_not_depend_on_flips_or_tilt(flip):
    assert case(affine=AFFINE @ np.diag([*flip, 1])).spacing == (2, 3, 4)
    assert case(affine=AFFINE @ np.diag([*flip, 1])).axes == "".join(
        ending[step < 0] for ending, step in zip(("RL", "AP", "SI"), flip, strict=True)
    )
    turn = np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert case(affine=turn @ AFFINE).spacing == pytest.approx((2, 3, 4))


def test_brain_is_where_any_image_is_not_zero_unless_given():
    one, other = case(), case()
    one.images["t1"][1, 2, 3] = 0
    np.testing.assert_array_equal(one.brain_mask, brain_box())
    other.images["t1"][1, 2, 3] = other.images["t2"][1, 2, 3] = 0
    assert other.brain_mask.sum() == brain_box().sum() - 1 and not other.brain_mask[1, 2, 3]
    given = np.zeros((7, 8, 9))
    given[2, 2, 2] = 1
    assert case(brain=given).brain_mask.sum() == 1 and case(brain=given).brain_mask.dtype == bool


# --- tensors ---------------------------------------------------------------------------------------------------


def test_tensors_hold_the_box_in_axial_order():
    one = case()
    sample, frame = tensors(one, ("t1", "t1ce", "t2"), multiple=4)
    assert sample["images"].shape == (3, 8, 8, 4) and sample["images"].dtype == torch.float32
    assert sample["available"].tolist() == [True, False, True] and sample["case"] == "one"
    assert not sample["images"][1].any()
    expected = (one.images["t2"][2, 3, 4] - one.images["t2"][brain_box()].mean()) / one.images["t2"][brain_box()].std()
    assert sample["images"][2, 1, 1, 1].item() == pytest.approx(expected, abs=1e-5)
    assert sample["regions"].dtype == torch.bool and sample["regions"].shape == (3, 8, 8, 4)
    assert sample["regions"].flatten(1).sum(1).tolist() == [4, 3, 2]
    np.testing.assert_array_equal(frame.to_native(sample["regions"].numpy()), regions(one.labels))


def test_the_order_of_the_network_decides_not_that_of_the_files():
    one, _ = tensors(case(), ("t2", "t1"))
    other, _ = tensors(case(), ("t1", "t2"))
    assert torch.equal(one["images"].flip(0), other["images"])


def test_a_case_without_labels_has_no_regions():
    assert "regions" not in tensors(case(labels=None), ("t1",))[0]


def test_what_cannot_be_a_tensor_names_the_case():
    with pytest.raises(ValueError, match=r"case one has \['t1', 't2'\] but the network takes \('flair',\)"):
        tensors(case(), ("flair",))
    broken = case()
    broken.images["t2"][brain_box()] = 5
    with pytest.raises(ValueError, match="case one, modality t2: cannot normalise"):
        tensors(broken, ("t1", "t2"))
    empty = case(images={"t1": np.zeros((7, 8, 9), np.float32)})
    with pytest.raises(ValueError, match="case one: the brain mask is empty"):
        tensors(empty, ("t1",))


def test_an_image_that_is_not_used_changes_nothing():
    one, other = case(), case()
    other.images["t2"][:] = np.nan
    for first, second in (tensors(each, ("t1", "t2"), combination=("t1",)) for each in (one, other)):
        assert second == tensors(one, ("t1",))[1]
        assert torch.equal(first["images"][:1], tensors(one, ("t1",))[0]["images"])
        assert first["available"].tolist() == [True, False] and not first["images"][1].any()


def test_each_image_is_normalised_within_its_own_voxels():
    one = case()
    one.images["t1"][1, 2, 3] = 7
    sample, frame = tensors(one, ("t1", "t2"))
    inside = brain_box()
    expected = (one.images["t2"] - one.images["t2"][inside].mean()) / one.images["t2"][inside].std()
    native = frame.to_native(sample["images"].numpy())
    np.testing.assert_allclose(native[1][inside], expected[inside], atol=1e-5)
    assert not native[1][~inside].any()
