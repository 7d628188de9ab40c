"""The few network pieces that MONAI lacks: two U-shaped encoder and decoder pairs with the same interface.

`Encoder` and `Decoder` are small and made for a CPU: a strided stem halves the grid before the first block, where most
of the work of a U-Net lies. A transposed convolution brings the full grid back, where one convolution sees the images
once more: without this full-resolution path no output is sharper than half the grid. `ResNetEncoder` and
`ResNetDecoder` are the weight-standardised 3D ResNet-50 with ASPP of the released ShaSpec code.

An encoder maps (N, C, D, H, W) to `Features`; a decoder maps stacked bottlenecks and skips to (N, R, D, H, W) logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import Tensor, nn

FINE = 8, 16  # maps that come up to the full grid, maps of the convolution there
INSTANCE = ("INSTANCE", {"affine": True})
LEAKY = ("LEAKYRELU", {"negative_slope": 0.01})


class Features(NamedTuple):
    """What an encoder returns.

    Attributes:
        skips: maps from fine to coarse, each (N, c, d, h, w).
        bottleneck: (N, C, d, h, w).
        pooled: (N, C), the spatial mean that a classifier of modalities reads.
    """

    skips: tuple[Tensor, ...]
    bottleneck: Tensor
    pooled: Tensor


class Encoder(nn.Module):
    """Strided stem, then one residual block per width, each halving the grid.

    Args:
        in_channels: channels of the input.
        widths: channels per level, fine to coarse; the last is the bottleneck. Multiples of 8 are fast on a CPU.

    The grid of the input must be divisible by `stride`.
    """

    def __init__(self, in_channels: int, widths: Sequence[int]):
        super().__init__()
        self.stride = (2 ** len(widths),) * 3
        self.stem = Convolution(3, in_channels, widths[0], strides=2, kernel_size=3, act=LEAKY, norm=INSTANCE)
        blocks = [UnetResBlock(3, widths[0], widths[0], 3, 1, INSTANCE, LEAKY)]
        blocks += [UnetResBlock(3, a, b, 3, 2, INSTANCE, LEAKY) for a, b in zip(widths, widths[1:], strict=False)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Features:
        x = self.stem(x)
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return Features(tuple(maps[:-1]), x, x.mean(dim=(2, 3, 4)))  # pooled: N C


class Decoder(nn.Module):
    """The expanding path: transposed convolution, plus a 1x1x1 convolution of the skip, then one convolution.

    Args:
        widths: as those of the encoders.
        sources: how many encoders' maps are stacked on the channel axis.
        regions: output channels R.
        images: channels of the images that the full-resolution path takes; 0: there is no such path, as where images
            are the output.
    """

    def __init__(self, widths: Sequence[int], sources: int, regions: int = 3, images: int = 0):
        super().__init__()
        inputs = [*widths[:-1], sources * widths[-1]]
        levels = range(len(widths) - 2, -1, -1)
        self.ups = nn.ModuleList(
            nn.ConvTranspose3d(inputs[level + 1], widths[level], 2, 2, bias=False) for level in levels
        )
        self.skips = nn.ModuleList(
            Convolution(3, sources * widths[level], widths[level], kernel_size=1, act=LEAKY, norm=INSTANCE)
            for level in levels
        )
        self.convs = nn.ModuleList(
            Convolution(3, widths[level], widths[level], kernel_size=3, act=LEAKY, norm=INSTANCE) for level in levels
        )
        if images:
            raised, maps = FINE
            self.up = nn.ConvTranspose3d(widths[0], raised, 2, 2, bias=False)
            self.fine = Convolution(3, raised + images, maps, kernel_size=3, act=LEAKY, norm=INSTANCE)
            self.out: nn.Module = nn.Conv3d(maps, regions, 1)
        else:
            self.out = nn.ConvTranspose3d(widths[0], regions, 2, 2)

    def forward(self, bottleneck: Tensor, skips: Sequence[Tensor], images: Tensor | None = None) -> Tensor:
        """Stacked bottlenecks and skips, and the images (N, images, D, H, W), zero where missing -> logits."""
        x = bottleneck
        for up, reduce, conv, skip in zip(self.ups, self.skips, self.convs, reversed(skips), strict=True):
            x = conv(up(x) + reduce(skip))  # N c d h w, the skip's grid
        if images is not None:
            x = self.fine(torch.cat([self.up(x), images], dim=1))  # N 8+M D H W -> N 16 D H W
        return self.out(x)  # N R D H W


class StandardisedConv3d(nn.Conv3d):
    """A convolution whose filters are standardised: mean 0, unbiased variance 1 (Qiao et al., arXiv 1903.10520)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int | tuple = 1, dilation: int = 1):
        super().__init__(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.flatten(1)  # outputs inputs*k*k*k
        flat = flat - flat.mean(dim=1, keepdim=True)  # mean: outputs 1
        flat = flat / torch.sqrt(flat.var(dim=1, keepdim=True) + 1e-12)
        # filters: outputs inputs k k k
        return F.conv3d(x, flat.view_as(self.weight), None, self.stride, self.padding, self.dilation)


class InstanceNorm(nn.InstanceNorm3d):
    """Affine instance norm that also takes a map of one voxel, which it turns into its bias.

    torch refuses that case; the released code switches the check off, and so makes its pooled branch a constant.
    """

    def __init__(self, channels: int):
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        if x[0, 0].numel() == 1:
            return (x - x) + self.bias.view(1, -1, 1, 1, 1)  # N C 1 1 1, of which the bias is 1 C 1 1 1
        return super().forward(x)


def _unit(
    inputs: int, outputs: int, kernel: int, stride: int | tuple = 1, dilation: int = 1, act: bool = True
) -> nn.Sequential:
    layers = [StandardisedConv3d(inputs, outputs, kernel, stride, dilation), InstanceNorm(outputs)]
    return nn.Sequential(*layers, *([nn.LeakyReLU(0.01)] if act else []))


class _Residual(nn.Module):
    """body(x) + shortcut(x), then LeakyReLU."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None):
        super().__init__()
        self.body = body
        self.shortcut = shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.body(x) + self.shortcut(x), 0.01)


def _bottleneck(inputs: int, width: int, stride: int, first: bool) -> _Residual:
    body = nn.Sequential(_unit(inputs, width, 1), _unit(width, width, 3, stride), _unit(width, 4 * width, 1, act=False))
    return _Residual(body, _unit(inputs, 4 * width, 1, stride, act=False) if first else None)


class ResNetEncoder(nn.Module):
    """Weight-standardised 3D ResNet-50 with ASPP: 35,127,872 parameters for one input channel.

    Released ShaSpec code, DualNet_SS.py and Res50.py. The grid of the input must be divisible by (16, 32, 32).
    """

    stride = (16, 32, 32)

    def __init__(self, in_channels: int = 1):
        super().__init__()
        self.stem = _unit(in_channels, 64, 7, (1, 2, 2))
        self.pool = nn.MaxPool3d(3, 2, 1)
        stages, inputs = [], 64
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (320, 3, 2)):
            stage = []
            for index in range(blocks):
                stage.append(_bottleneck(inputs, width, stride if index == 0 else 1, first=index == 0))
                inputs = 4 * width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.reduce = _unit(1280, 256, 1)
        self.branches = nn.ModuleList([_unit(256, 256, 1), *(_unit(256, 256, 3, dilation=d) for d in (2, 4, 8))])
        self.image_pooling = _unit(256, 256, 1)
        self.project = _unit(5 * 256, 256, 1)

    def forward(self, x: Tensor) -> Features:
        x = self.stem(x)
        skips = [x]
        x = self.pool(x)
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        x = self.reduce(x)
        pooled = x.mean(dim=(2, 3, 4), keepdim=True)  # N 256 1 1 1
        context = self.image_pooling(pooled).expand(-1, -1, *x.shape[2:])  # N 256 d h w
        # N 5*256 d h w -> N 256 d h w
        out = self.project(torch.cat([*(branch(x) for branch in self.branches), context], dim=1))
        return Features(tuple(skips[:-1]), out, pooled.flatten(1))  # pooled: N 256


class ResNetDecoder(nn.Module):
    """The decoder that goes with `ResNetEncoder`: 8,528,800 parameters for four sources and three regions."""

    def __init__(self, sources: int, regions: int = 3):
        super().__init__()
        widths, inputs, skips = (256, 128, 64, 32), (256 * sources, 256, 128, 64), (1024, 512, 256, 64)
        self.ups = nn.ModuleList(
            nn.ConvTranspose3d(a, b, 2, 2, bias=False) for a, b in zip(inputs, widths, strict=True)
        )
        self.skips = nn.ModuleList(_unit(sources * a, b, 1) for a, b in zip(skips, widths, strict=True))
        self.blocks = nn.ModuleList(_Residual(nn.Sequential(_unit(w, w, 3), _unit(w, w, 3, act=False))) for w in widths)
        self.out = nn.Conv3d(32, regions, 1, bias=False)

    def forward(self, bottleneck: Tensor, skips: Sequence[Tensor]) -> Tensor:
        x = bottleneck
        for up, reduce, block, skip in zip(self.ups, self.skips, self.blocks, reversed(skips), strict=True):
            x = block(up(x) + reduce(skip))
        return F.interpolate(self.out(x), scale_factor=(1, 2, 2), mode="trilinear", align_corners=False)  # N R D H W


def encode_rows(encoder: nn.Module, volumes: Tensor, rows: Tensor, blank: bool = False) -> Features:
    """Run an encoder on the rows that are True; the others, and one more row at the end, get what stands for nothing.

    That is zero, or with `blank` the encoding of a zero volume. (N, D, H, W) and (N,) bool -> maps (N + 1, ...).
    Where no row is True and zeros are wanted, the encoder runs on four strides a side only: its weights get a gradient
    of zero, as in every other step. Not on two, which leave the coarsest grid 2 voxels: there oneDNN 3.12 reads memory
    that nobody wrote for the gradient of a 3x3x3 convolution, in bfloat16 on a CPU without AMX, and 0 x NaN is NaN.
    """
    volumes = volumes.as_subclass(Tensor)  # of MONAI's batches no row can be taken while they carry their metadata
    inputs = volumes[rows]  # n D H W, n rows being True
    grid = volumes.shape[1:]
    if blank:
        inputs = torch.cat([inputs, torch.zeros_like(volumes[:1])])  # n+1 D H W
    elif len(inputs) == 0:
        few: Any = encoder.stride
        inputs = volumes.new_zeros(1, *(min(side, 4 * step) for side, step in zip(grid, few, strict=True)))  # 1 d h w
    run = inputs.shape[1:]
    features = encoder(inputs.unsqueeze(1))  # in: n or n+1, 1 D H W

    def place(values: Tensor) -> Tensor:
        if not blank:
            found = values[: int(rows.sum())]  # n ...
            whole = [side * full // part for side, full, part in zip(values.shape[2:], grid, run, strict=False)]
            nothing = values.new_zeros(1, values.shape[1], *whole)  # 1 ...
            values = torch.cat([found, nothing]) if len(found) else nothing + found.sum()  # n+1 ...
        last = len(values) - 1
        position = (rows.cumsum(0) - 1).masked_fill(~rows, last)  # N
        return values[torch.cat([position, position.new_tensor([last])])]  # N+1 ...

    return Features(tuple(place(skip) for skip in features.skips), place(features.bottleneck), place(features.pooled))


def available_mean(features: Tensor, available: Tensor) -> Tensor:
    """Mean over the available modalities, (B, 1, ...); features (B, M, ...) or, for one case, (1, M, ...)."""
    weights = available.to(features.dtype) / available.sum(dim=1, keepdim=True)  # B M
    kept = where_available(available, features, features.new_zeros(()))  # B M ...; 0 x NaN would be NaN
    return torch.einsum("bm,bm...->b...", weights, kept).unsqueeze(1)  # B 1 ...


def where_available(available: Tensor, features: Tensor, substitute: Tensor) -> Tensor:
    """Features where available, else the substitute; (B, M, ...)."""
    # mask: B M 1 ... 1
    return torch.where(available.view(*available.shape, *(1,) * (features.ndim - 2)), features, substitute)


def encode_levels(encoders: Iterable[nn.Module], images: Tensor, available: Tensor) -> list[Tensor]:
    """Images, and the maps of every available modality by its own encoder; zero at missing ones.

    Args:
        encoders: one a modality, M of them; each (N, 1, D, H, W) -> `Features`.
        images: (B, M, D, H, W); a missing one is not read.
        available: (B, M) bool.

    Returns:
        From fine to coarse, each (B, M, ...).
    """
    encoded = [encode_rows(net, images[:, m], available[:, m]) for m, net in enumerate(encoders)]  # B+1 rows
    levels = zip(*((*features.skips, features.bottleneck) for features in encoded), strict=True)
    maps = [torch.stack([rows[:-1] for rows in level], dim=1) for level in levels]  # B M c ... each
    return [masked_images(images, available), *maps]


def masked_images(images: Tensor, available: Tensor) -> Tensor:
    """The available images, zero where missing.

    Args:
        images: (B, M, D, H, W) or, for one case in B combinations, (1, M, D, H, W); a missing one is not read.
        available: (B, M) bool.

    Returns:
        (B, M, D, H, W).
    """
    plain = images.as_subclass(Tensor)  # MONAI's tensors with metadata are tensors here
    return torch.where(available[..., None, None, None], plain, 0)  # mask: B M 1 1 1


def check_grid(images: Tensor, available: Tensor, stride: Sequence[int]) -> None:
    """Refuse images that do not fit the mask, or whose grid the network cannot halve often enough.

    Raises:
        ValueError: with the shape and, for the grid, the next legal size.
    """
    if images.ndim != 5 or images.shape[:2] != available.shape:
        raise ValueError(
            f"images must be (B, M, D, H, W) with (B, M) = {tuple(available.shape)}; got {tuple(images.shape)}"
        )
    grid = tuple(images.shape[2:])
    legal = tuple(-(-size // step) * step for size, step in zip(grid, stride, strict=True))
    if legal != grid:
        raise ValueError(f"the grid {grid} is not divisible by {tuple(stride)}: pad it to {legal}")
