"""The V-Net-shaped network of ProtoKD: one for the teacher, one for each student.

Released code of ProtoKD (`code/networks.py`, class VNet), consulted through a written description; nothing is copied.
It has no residual blocks, and skips are added, not concatenated. With 16 filters it has 9,446,820 parameters for one
input channel and 9,448,116 for four.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn

ENCODER_CONVS = (1, 2, 3, 3, 3)  # per level, fine to coarse
DECODER_CONVS = (3, 3, 2, 1)  # per level, coarse to fine
STRIDE = 2 ** (len(ENCODER_CONVS) - 1)


class Output(NamedTuple):
    """What a `VNet` returns.

    Attributes:
        features: (N, width, D, H, W), after the last ReLU, before the 1x1x1 head; none is negative.
        logits: (N, K, D, H, W).
    """

    features: Tensor
    logits: Tensor


def _unit(conv: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm3d(channels), nn.ReLU(inplace=True))


def _block(channels: int, convs: int, inputs: int | None = None) -> nn.Sequential:
    sizes = [inputs or channels, *[channels] * convs]
    return nn.Sequential(*(_unit(nn.Conv3d(a, b, 3, padding=1, bias=False), b) for a, b in pairwise(sizes)))


class _Rise(nn.Module):
    """To the next finer level: transposed convolution, plus the skip, then convolutions."""

    def __init__(self, inputs: int, channels: int, convs: int):
        super().__init__()
        self.up = _unit(nn.ConvTranspose3d(inputs, channels, 2, 2), channels)
        self.convs = _block(channels, convs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.convs(self.up(x) + skip)  # N channels d h w, the skip's grid


class VNet(nn.Module):
    """Encoder and decoder of five levels with added skips.

    Args:
        in_channels: modalities of the input.
        num_classes: classes K of the softmax, background included.
        width: filters at full resolution; they double four times.

    Raises:
        ValueError: in `forward`, on another number of channels, or a grid that 16 does not divide.
    """

    def __init__(self, in_channels: int, num_classes: int = 4, width: int = 16):
        super().__init__()
        self.in_channels, self.num_classes, self.width = in_channels, num_classes, width
        widths = [width * 2**level for level in range(len(ENCODER_CONVS))]
        self.first = _block(width, ENCODER_CONVS[0], in_channels)
        self.downs = nn.ModuleList(
            nn.Sequential(_unit(nn.Conv3d(a, b, 2, 2), b), _block(b, convs))
            for (a, b), convs in zip(pairwise(widths), ENCODER_CONVS[1:], strict=True)
        )
        coarse_to_fine = list(pairwise(reversed(widths)))
        self.ups = nn.ModuleList(
            _Rise(a, b, convs) for (a, b), convs in zip(coarse_to_fine, DECODER_CONVS, strict=True)
        )
        self.head = nn.Conv3d(width, num_classes, 1)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Maps of the five levels, fine to coarse; the last, (N, 16 width, D/16, H/16, W/16), is the bottleneck."""
        if images.ndim != 5 or images.shape[1] != self.in_channels:
            raise ValueError(f"images must be (N, {self.in_channels}, D, H, W); got {tuple(images.shape)}")
        grid = tuple(images.shape[2:])
        legal = tuple(-(-size // STRIDE) * STRIDE for size in grid)
        if legal != grid:
            raise ValueError(f"the grid {grid} is not divisible by {STRIDE}: pad it to {legal}")
        maps = [self.first(images)]  # N width D H W
        for down in self.downs:
            maps.append(down(maps[-1]))
        return maps

    def decode(self, maps: list[Tensor]) -> Output:
        """Maps as `encode` returns them -> `Output`."""
        *skips, x = maps  # x: N 16*width D/16 H/16 W/16
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = up(x, skip)
        return Output(x, self.head(x))  # N width D H W, N K D H W

    def forward(self, images: Tensor) -> Output:
        """(N, in_channels, D, H, W) -> `Output`."""
        return self.decode(self.encode(images))
