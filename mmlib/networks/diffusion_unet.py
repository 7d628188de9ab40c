"""The usual U-Net of diffusion models: full resolution, concatenated skips, attention at the lowest level, the time.

J. Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv 2006.11239, appendix B. The residual
blocks and the halving are MONAI's. Its own `DiffusionModelUNet` puts them together in the same way, but its attention
needs einops and has more layers than a CPU has time for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.diffusion_model_unet import (
    DiffusionUnetDownsample,
    DiffusionUNetResnetBlock,
    get_timestep_embedding,
)
from torch import Tensor, nn

GROUPS = 8  # of GroupNorm; every width must be a multiple of it
AVERAGE = 0.99  # of the weights in training: a moving average over about the last hundred steps


class Attention(nn.Module):
    """Every pixel attends to all others; the result is added to the input, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.attend = nn.MultiheadAttention(width, max(1, width // 32), batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # B C H W -> B H*W C
        found, _ = self.attend(tokens, tokens, tokens, need_weights=False)
        return x + found.transpose(1, 2).unflatten(2, x.shape[2:])  # B H*W C -> B C H W


class DiffusionUNet(nn.Module):
    """One residual block per level on the way down, one on the way up, two around the attention in the middle.

    Args:
        inputs, outputs: channels.
        widths: channels per level, fine to coarse; the first level has the full resolution, each next one half of it.

    Attributes:
        stride: the sides of the images must be multiples of it.

    Raises:
        ValueError: if a width is no multiple of 8; in `forward`, if the stride does not divide the sides.
    """

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int] = (16, 32, 64)):
        super().__init__()
        if any(width % GROUPS for width in widths):
            raise ValueError(f"every width must be a multiple of {GROUPS}; got {list(widths)}")
        self.stride = 2 ** (len(widths) - 1)
        self.width, time = widths[0], 4 * widths[0]

        def block(wide: int, narrow: int) -> DiffusionUNetResnetBlock:
            return DiffusionUNetResnetBlock(2, wide, time, narrow, norm_num_groups=GROUPS)

        self.time = nn.Sequential(nn.Linear(self.width, time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv2d(inputs, self.width, 3, padding=1)
        above = [self.width, *widths[:-1]]
        self.down = nn.ModuleList(block(a, b) for a, b in zip(above, widths, strict=True))
        self.shrink = nn.ModuleList(DiffusionUnetDownsample(2, width, use_conv=True) for width in widths[:-1])
        self.middle = nn.ModuleList(
            [block(widths[-1], widths[-1]), Attention(widths[-1]), block(widths[-1], widths[-1])]
        )
        self.up = nn.ModuleList(block(2 * width, width) for width in widths[::-1])
        self.grow = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), _conv(coarse, fine))
            for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.last = nn.Sequential(nn.GroupNorm(GROUPS, self.width), nn.SiLU(), _conv(self.width, outputs))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, inputs, H, W) and times (B,) -> (B, outputs, H, W), float32 and without bounds."""
        check_grid(x, self.stride)
        time = self.time(get_timestep_embedding(t, self.width))  # B -> B width -> B 4*width
        x = self.first(x)
        maps: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x, time)
            maps.append(x)
            x = self.shrink[level](x) if level < len(self.shrink) else x
        before, attend, after = self.middle
        x = after(attend(before(x, time)), time)
        for level, block in enumerate(self.up):
            x = block(torch.cat([x, maps.pop()], dim=1), time)  # B 2*width h w -> B width h w
            x = self.grow[level](x) if level < len(self.grow) else x
        return self.last(x).float()


def check_grid(x: Tensor, stride: int) -> None:
    """Refuse a grid (..., H, W) that a network cannot halve often enough.

    Raises:
        ValueError: if the stride does not divide H and W; says which size does.
    """
    grid = tuple(x.shape[-2:])
    legal = tuple(-(-side // stride) * stride for side in grid)
    if legal != grid:
        raise ValueError(f"the grid {grid} is not divisible by {stride}: pad it to {legal}")


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)
