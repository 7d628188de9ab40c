"""Canvases: orientation, the middle, and the way back."""

import numpy as np
import pytest

from mmlib.data.canvas import Canvas
from mmlib.data.cases import Case


def case(affine: np.ndarray, shape: tuple[int, ...] = (6, 8, 5)) -> Case:
    """A box of brain away from the middle; each voxel holds another number."""
    volume = np.zeros(shape)
    volume[1:4, 2:7, 1:3] = 1 + np.arange(30).reshape(3, 5, 2)
    return Case("a", {"t1": volume}, affine)


def test_slices_grow_to_the_front_and_to_the_right():
    one = case(np.diag([1.0, 1, 2, 1]))
    canvas = Canvas.around(one, (8, 4))
    slices = canvas.to_slices(one.images["t1"])
    assert slices.shape == (5, 8, 4)
    # 5 rows in 8: the box begins at row 1; 3 columns in 4: at column 0
    np.testing.assert_array_equal(slices[1, 1:6, 0:3], one.images["t1"][1:4, 2:7, 1].T)
    assert slices.sum() == one.images["t1"].sum()


@pytest.mark.parametrize("flips", [(-1, -1, 1), (1, -1, -1)])
def test_the_order_of_axes_on_disk_does_not_matter(flips):
    """The same head stored with other axes gives the same slices, and goes back to its own axes."""
    one = case(np.eye(4))
    volume = one.images["t1"]
    affine = np.diag([*map(float, flips), 1.0])
    stored = volume[tuple(slice(None, None, flip) for flip in flips)]
    for flip, axis, length in zip(flips, range(3), volume.shape, strict=True):
        affine[axis, 3] = length - 1 if flip < 0 else 0
    turned = Case("b", {"t1": stored.transpose(2, 0, 1)}, affine[:, [2, 0, 1, 3]])
    expected = Canvas.around(one, (8, 8)).to_slices(volume)
    canvas = Canvas.around(turned, (8, 8))
    np.testing.assert_array_equal(canvas.to_slices(turned.images["t1"]), expected)
    np.testing.assert_array_equal(canvas.to_native(expected), turned.images["t1"])


def test_a_canvas_larger_than_the_volume_is_filled_up():
    one = case(np.eye(4))
    canvas = Canvas.around(one, (16, 16))
    slices = canvas.to_slices(one.images["t1"], outside=-1)
    assert (slices == -1).sum() == 5 * (16 * 16 - 6 * 8)
    np.testing.assert_array_equal(canvas.to_native(slices), one.images["t1"])


def test_illegal_sizes_name_the_next_legal_one():
    with pytest.raises(ValueError, match=r"stride of 16 does not divide the size \(70, 64\); .* size: \(80, 64\)"):
        Canvas.around(case(np.eye(4)), (70, 64), 16)
    with pytest.raises(ValueError, match=r"case a: its brain measures 5 x 3 voxels .* legal size: \(8, 4\)"):
        Canvas.around(case(np.eye(4)), (4, 4), 4)


def test_an_empty_brain_is_named():
    with pytest.raises(ValueError, match="case a: the brain mask is empty"):
        Canvas.around(Case("a", {"t1": np.zeros((4, 4, 4))}, np.eye(4)), (4, 4))
