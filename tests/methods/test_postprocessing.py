"""The rules of ShaSpec*, on volumes whose outcome can be told by counting."""

import numpy as np
import pytest

from mmlib.methods.shaspec.postprocessing import (
    drop_components,
    drop_enhancing,
    relabel_by_kmeans,
    released,
    released_on_regions,
    remove_small,
)

SHAPE = (40, 40, 60)


def boxes(*parts: tuple[int, slice, slice, slice]) -> np.ndarray:
    """Label maps from (label, x, y, z)."""
    labels = np.zeros(SHAPE, np.uint8)
    for value, *place in parts:
        labels[tuple(place)] = value
    return labels


def box(low: int, side: int) -> slice:
    return slice(low, low + side)


# ------------------------------------------------------------------------------------------------- as in the paper
def test_components_below_the_threshold_go_and_those_at_it_stay() -> None:
    mask = np.zeros((1, 6, 6, 6), bool)
    mask[0, 0, 0, :3] = True  # three voxels
    mask[0, 4, 4, 0:2] = True  # two voxels
    kept = remove_small(mask, smallest=3)
    assert kept.sum() == 3 and kept[0, 0, 0, :3].all()


def test_neighbours_share_a_face_or_an_edge_but_not_a_mere_corner() -> None:
    edge, corner = np.zeros((2, 1, 3, 3, 3), bool)
    edge[0, 0, 0, 0] = edge[0, 1, 1, 0] = True
    corner[0, 0, 0, 0] = corner[0, 1, 1, 1] = True
    assert remove_small(edge, smallest=2).sum() == 2
    assert remove_small(corner, smallest=2).sum() == 0


def test_regions_do_not_support_each_other() -> None:
    mask = np.zeros((3, 4, 4, 4), bool)
    mask[0, :2] = True  # 32 voxels of wt
    mask[1, 0, 0, 0] = mask[2, 0, 0, 0] = True  # one voxel each of tc and et, inside
    assert remove_small(mask, smallest=2).sum(axis=(1, 2, 3)).tolist() == [32, 0, 0]


def test_the_threshold_is_a_volume() -> None:
    mask = np.ones((1, 1, 1, 2), bool)  # 2 voxels of 24 mm3
    assert remove_small(mask, 48, (2, 3, 4)).all() and not remove_small(mask, 48.1, (2, 3, 4)).any()


def test_threshold_zero_and_an_empty_region_change_nothing() -> None:
    mask = np.zeros((2, 4, 4, 4), bool)
    mask[0, 1, 1, 1] = True
    assert (remove_small(mask, 0) == mask).all()
    assert (remove_small(mask, 1) == mask).all()


def test_a_negative_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative; got -1"):
        remove_small(np.zeros((1, 2, 2, 2), bool), -1)


# ------------------------------------------------------------------------------------------ the released code: rule 1
def test_a_component_below_a_tenth_of_the_largest_goes() -> None:
    large = (2, box(0, 10), box(0, 10), box(30, 10))  # 1000 voxels, so the threshold is 100
    at, below = (1, box(20, 5), box(0, 5), box(40, 4)), (1, box(20, 9), box(20, 11), box(40, 1))  # 100 and 99
    cleaned = drop_components(boxes(large, at, below))
    assert (cleaned > 0).sum() == 1100 and not cleaned[20:29, 20:31].any()


def test_above_2000_mm3_a_component_stays_however_large_the_largest_is() -> None:
    large = (2, box(0, 40), box(0, 20), box(30, 28))  # 22,400 voxels: a tenth would be 2,240
    at, below = (1, box(0, 20), box(22, 5), box(30, 20)), (1, box(0, 1), box(38, 1), box(30, 1))  # 2,000 and 1
    cleaned = drop_components(boxes(large, at, below))
    assert (cleaned == 1).sum() == 2000


def test_a_component_that_ends_at_slice_25_goes_and_one_that_reaches_slice_26_stays() -> None:
    low, high = (2, box(0, 5), box(0, 5), slice(20, 26)), (2, box(20, 5), box(0, 5), slice(21, 27))
    cleaned = drop_components(boxes(low, high))
    assert not cleaned[:10].any() and (cleaned > 0).sum() == 150


def test_thresholds_are_millimetres() -> None:
    labels = boxes((2, box(0, 3), box(0, 3), slice(4, 7)))  # the highest slice is number 6
    assert not drop_components(labels).any()
    assert not drop_components(labels, (4, 4, 4)).any()  # 24 mm
    assert (drop_components(labels, (4, 4, 4.2)) == labels).all()  # 25.2 mm


# ------------------------------------------------------------------------------------------ the released code: rule 2
def graded(labels: np.ndarray) -> np.ndarray:
    """t1ce in which the oedema has the intensities 10, 50 and 90 in turns, along x."""
    return np.broadcast_to((np.arange(SHAPE[0]) % 3 * 40 + 10)[:, None, None], SHAPE).astype(float)


OEDEMA = (2, box(0, 30), box(0, 10), box(30, 10))  # 3,000 voxels, label values sum to 6,000


def test_the_darker_part_of_oedema_becomes_necrosis_since_zeros_fill_the_darkest_cluster() -> None:
    """Intensities 60, 70, 90, 100: beside 93,000 zeros the clusters are 0, {60, 70} and {90, 100}."""
    labels = boxes((2, box(0, 32), box(0, 10), box(30, 10)))
    t1ce = np.broadcast_to(np.array([60, 70, 90, 100])[np.arange(SHAPE[0]) % 4][:, None, None], SHAPE)
    changed = relabel_by_kmeans(labels, t1ce)
    assert (changed == np.where((labels == 2) & (t1ce < 80), 1, labels)).all() and (changed == 1).sum() == 1600


def test_label_1_of_the_whole_case_is_counted() -> None:
    far = (1, box(32, 8), box(0, 40), box(0, 32))  # 10,240 voxels in another component
    assert (relabel_by_kmeans(boxes(OEDEMA, far), graded(boxes(OEDEMA))) == boxes(OEDEMA, far)).all()


@pytest.mark.parametrize(("voxels", "applies"), [(76, True), (77, False)])
def test_only_where_the_label_values_of_enhancing_tumour_are_below_a_twentieth(voxels: int, applies: bool) -> None:
    # k voxels of oedema become enhancing: 4 k < 0.05 (2 (3000 - k) + 4 k) holds for k < 76.93
    labels = boxes(OEDEMA)
    labels[tuple(np.argwhere(labels)[:voxels].T)] = 4
    assert ((relabel_by_kmeans(labels, graded(labels)) == 1).any()) == applies


@pytest.mark.parametrize(("voxels", "applies"), [(112, True), (113, False)])
def test_only_below_a_sum_of_450(voxels: int, applies: bool) -> None:
    labels = boxes((2, box(0, 30), box(0, 20), box(30, 10)))  # 6,000 voxels: a twentieth would allow 153
    labels[tuple(np.argwhere(labels)[:voxels].T)] = 4
    assert ((relabel_by_kmeans(labels, graded(labels)) == 1).any()) == applies


@pytest.mark.parametrize(("voxels", "applies"), [(409, True), (410, False)])
def test_only_where_the_whole_case_hardly_enhances(voxels: int, applies: bool) -> None:
    # a second component enhances wholly; k < 0.12 (3000 + k) holds for k < 409.09
    labels = boxes(OEDEMA)
    place = np.argwhere(boxes((4, box(32, 8), box(20, 10), box(30, 10))))[:voxels]
    labels[tuple(place.T)] = 4
    assert ((relabel_by_kmeans(labels, graded(labels)) == 1).any()) == applies


@pytest.mark.parametrize(("slices", "applies"), [(24, True), (25, False)])
def test_not_where_necrosis_is_large(slices: int, applies: bool) -> None:
    labels = boxes(OEDEMA, (1, box(0, 20), box(10, 20), slice(30, 30 + slices)))  # 400 voxels a slice: 9,600 or 10,000
    changed = relabel_by_kmeans(labels, graded(labels))
    assert ((changed != labels).any()) == applies


def test_oedema_without_three_intensities_stays() -> None:
    labels = boxes(OEDEMA)
    assert (relabel_by_kmeans(labels, np.ones(SHAPE)) == labels).all()


# ------------------------------------------------------------------------------------- the released code: rule 3, all
@pytest.mark.parametrize(("side", "becomes"), [(499, 1), (500, 4)])
def test_little_enhancing_tumour_becomes_necrosis(side: int, becomes: int) -> None:
    labels = np.zeros((1, 1, 600), np.uint8)
    labels[..., :side] = 4
    assert (drop_enhancing(labels)[..., :side] == becomes).all()
    assert (drop_enhancing(labels, (1, 1, 2))[..., :side] == 4).all()


def test_the_rules_follow_each_other() -> None:
    labels = boxes(OEDEMA, (4, box(0, 5), box(0, 4), box(30, 2)), (4, box(35, 2), box(35, 2), box(40, 2)))
    cleaned = released(labels, graded(labels))
    # 8 voxels far away go (rule 1); of 2,960 voxels of oedema a third is relabelled (rule 2); 40 lose label 4 (rule 3)
    assert not cleaned[35:].any() and not (cleaned == 4).any()
    middle = (labels[:30] == 2) & (np.arange(30) % 3 == 1)[:, None, None]
    assert (cleaned == 1).sum() == middle.sum() + 40


def test_regions_come_back_nested() -> None:
    regions = np.zeros((3, *SHAPE), bool)
    regions[0][OEDEMA[1:]] = True
    regions[2][box(0, 10), box(0, 10), box(30, 10)] = True  # enhancing outside the core: 1,000 voxels stay
    cleaned = released_on_regions(regions, np.ones(SHAPE))
    assert cleaned.sum(axis=(1, 2, 3)).tolist() == [3000, 1000, 1000]


def test_an_empty_prediction_stays_empty() -> None:
    assert not released(np.zeros(SHAPE, np.uint8), np.ones(SHAPE)).any()


def test_other_labels_and_other_grids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be 0, 1, 2 or 4 .* found \[3\]"):
        released(boxes((3, box(0, 2), box(0, 2), box(0, 2))), np.ones(SHAPE))
    with pytest.raises(ValueError, match=r"grid \(2, 2, 2\) and t1ce \(3, 2, 2\)"):
        released(np.zeros((2, 2, 2), int), np.ones((3, 2, 2)))
