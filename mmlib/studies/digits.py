"""The chapter on digits seen and heard: what it draws."""

from __future__ import annotations

from matplotlib.figure import Figure

from mmlib.data.avmnist import Pairs
from mmlib.figures.style import new_figure, styled


@styled
def portraits(pairs: Pairs) -> Figure:
    """Two pairs of every digit: the image of the first, and the sound of both.

    Args:
        pairs: with at least two pairs of every digit from 0 to 9.

    Returns:
        A figure of 3 rows and 10 columns. Sound is drawn as 13 coefficients (upwards) over time (to the right).
    """
    figure, axes = new_figure(9, 2.9, 3, 10)
    for digit in range(10):
        first, second = pairs.labels.eq(digit).nonzero().flatten()[:2].tolist()
        image, *sounds = axes[:, digit]
        image.imshow(pairs.images[first, 0], cmap="gray", aspect="auto", interpolation="nearest")
        image.set_title(str(digit))
        for axis, row in zip(sounds, (first, second), strict=True):
            coefficients = pairs.audio[row, 0, :13]
            axis.imshow(coefficients, cmap="cividis", interpolation="nearest", vmin=-2.5, vmax=2.5, origin="lower")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    for axis, name in zip(axes[:, 0], ("image", "audio", "audio of\nanother pair"), strict=True):
        axis.set_ylabel(name)
    return figure
