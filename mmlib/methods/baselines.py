"""Baselines that every method is compared with: early fusion fed zeros, modality dropout, U-HeMIS, dedicated nets.

- `zero-fill`: one U-Net on the stacked modalities, trained on complete sets, fed zeros where one is missing.
- `dropout-unet`: the same net, trained on random subsets: the baseline to beat.
- `dedicated`: the same net, trained and used on one combination only; 2^M - 1 nets for M modalities.
- `u-hemis`: Havaei et al., "HeMIS: Hetero-Modal Image Segmentation", MICCAI 2016, arXiv 1607.05194, in the U-Net form
  of Dorent et al. (MICCAI 2019): an encoder per modality, mean and variance of the available ones at every scale.

What differs: all share the blocks, the full-resolution path, the loss (Dice plus cross-entropy), the schedule and the
data of the small ShaSpec net, so that a difference in scores is one of fusion. HeMIS's curriculum from complete to
incomplete sets is left out. The variance is the population variance, zero for one modality (the original's divisor is
UNVERIFIED).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmlib.modalities import check_available, label, parse
from mmlib.networks.unet import Decoder, Encoder, available_mean, check_grid, encode_levels, masked_images
from mmlib.tasks.segmentation import segmentation_loss
from mmlib.training import Recipe


class Output(NamedTuple):
    """Logits (B, R, D, H, W)."""

    logits: Tensor


class EarlyFusionUNet(nn.Module):
    """A U-Net on the stacked modalities; missing ones are zero.

    Args:
        modalities: M names; the order of the modality axis.
        widths: channels per level.
        regions: number of output regions R.

    Raises:
        ValueError: in `forward`, on an empty set or a grid that the stride does not divide.
    """

    def __init__(self, modalities: Sequence[str], widths: Sequence[int] = (16, 32, 64), regions: int = 3):
        super().__init__()
        self.modalities = tuple(modalities)
        self.encoder = Encoder(len(self.modalities), widths)
        self.stride = self.encoder.stride
        self.decoder = Decoder(widths, 1, regions, len(self.modalities))

    def encode(self, images: Tensor, available: Tensor) -> Tensor:
        """Nothing can be computed before the combination is known: the images themselves, zero where missing."""
        check_available(available, self.modalities)
        check_grid(images, available, self.stride)
        return masked_images(images, available)

    def decode(self, encoding: Tensor, available: Tensor) -> Tensor:
        """(1 or B, M, D, H, W) and (B, M) -> logits (B, R, D, H, W)."""
        images = masked_images(encoding, available)  # B M D H W
        features = self.encoder(images)
        return self.decoder(features.bottleneck, features.skips, images)

    def forward(self, images: Tensor, available: Tensor) -> Output:
        """(B, M, D, H, W) float and (B, M) bool -> `Output`."""
        return Output(self.decode(self.encode(images, available), available))


class UHeMIS(nn.Module):
    """An encoder per modality, fused by mean and variance over the available ones at every scale.

    Arguments and errors as `EarlyFusionUNet`.
    """

    def __init__(self, modalities: Sequence[str], widths: Sequence[int] = (16, 32, 64), regions: int = 3):
        super().__init__()
        self.modalities = tuple(modalities)
        encoders = [Encoder(1, widths) for _ in self.modalities]
        self.encoders = nn.ModuleList(encoders)
        self.stride = encoders[0].stride
        self.decoder = Decoder(widths, 2, regions, len(self.modalities))

    def encode(self, images: Tensor, available: Tensor) -> list[Tensor]:
        """Images and maps of every available modality, zero at missing ones: from fine to coarse, each (B, M, ...)."""
        check_available(available, self.modalities)
        check_grid(images, available, self.stride)
        return encode_levels(self.encoders, images, available)

    def decode(self, encoding: list[Tensor], available: Tensor) -> Tensor:
        """Images and maps (1 or B, M, ...) and (B, M) -> logits (B, R, D, H, W)."""
        images, *maps = encoding
        *skips, bottleneck = [moments(features, available).flatten(1, 2) for features in maps]  # B 2*c ... each
        return self.decoder(bottleneck, skips, masked_images(images, available))

    def forward(self, images: Tensor, available: Tensor) -> Output:
        """(B, M, D, H, W) float and (B, M) bool -> `Output`."""
        return Output(self.decode(self.encode(images, available), available))


def moments(features: Tensor, available: Tensor) -> Tensor:
    """Mean and population variance over the available modalities.

    Args:
        features: (B, M, c, ...) or, for one case in B combinations, (1, M, c, ...).
        available: (B, M) bool.

    Returns:
        (B, 2, c, ...): mean, variance; the variance of one modality is 0.
    """
    mean = available_mean(features, available)  # B 1 c ...
    square = available_mean((features - mean).square(), available)  # B M c ... -> B 1 c ...
    return torch.cat([mean, square], dim=1)  # B 2 c ...


def baseline_loss(model: nn.Module, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """The task loss alone; (model, batch) -> (scalar, no further parts)."""
    return segmentation_loss(model(batch["images"], batch["available"]).logits, batch["regions"]), {}


def recipe(method: str, variant: str, modalities: Sequence[str], widths: Sequence[int], regions: int = 3) -> Recipe:
    """What a run of a baseline trains.

    Args:
        method: `zero-fill`, `dropout-unet`, `u-hemis` or `dedicated`.
        variant: for `dedicated` the combination that it is trained and used on, such as `t1+flair`.
        modalities: M names.
        widths: channels per level.
        regions: output channels R.

    Raises:
        ValueError: on an unknown method or combination.
    """
    networks = {
        "zero-fill": EarlyFusionUNet,
        "dropout-unet": EarlyFusionUNet,
        "dedicated": EarlyFusionUNet,
        "u-hemis": UHeMIS,
    }
    if method not in networks:
        raise ValueError(f"this file has the methods {', '.join(networks)}; got {method}")
    model = networks[method](modalities, widths, regions)
    alone = {"zero-fill": label(modalities, modalities), "dedicated": variant}
    return Recipe(model, baseline_loss, combination=parse(alone[method], modalities) if method in alone else None)
