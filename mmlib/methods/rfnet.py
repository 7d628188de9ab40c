"""RFNet: each region of the tumour weighs the modalities anew; a decoder that all share keeps every encoder of use.

Paper: Yuhang Ding, Xin Yu, Yi Yang, "RFNet: Region-aware Fusion Network for Incomplete Multi-modal Brain Tumor
Segmentation", ICCV 2021. Implemented: the region-aware fusion module (RFM) with its probability maps, and the
segmentation-based regulariser. Released code consulted: dyh127/RFNet at 6938e79, which has no licence; nothing of it
is copied. Equations are named in words, for their numbers in the paper are UNVERIFIED.

What differs
- Encoders and decoders are the book's own blocks: a strided stem, as many scales as widths (released: four, from the
  full grid on), one convolution on the images at full resolution. A map of the decoder and a fused map are added there
  (released: stacked). The small net that weighs modalities is as wide as the maps (released: 128).
- The last layer gives R sigmoids with the book's loss; the released one has a softmax over background and exclusive
  classes. The probability maps keep such a softmax, over R + 1 classes: the class of a voxel is the number of nested
  regions that hold it, so regions must be nested (as WT, TC, ET are) or one.
- A batch holds images of the available modalities only. So the regulariser runs over these (released: over all
  four), summed over modalities as there.
- The weights of modalities are free sigmoids, summed, as in the released code, whose comment says that this does as
  well as another way. We take that other way, UNVERIFIED, to divide by the sum of the available weights: the variant
  `normalised`. `unregularised` leaves the shared decoder out (the paper's own ablation).
- The released code trains its first epochs without the loss of the fused output (100 of 300, 20 in its job script).
  Here it counts from the first step on: the stopping rule scores that output from the first step on.
- The Dice term of the probability maps leaves out voxels and classes in nothing, as released; it is a sum over the
  batch. Probability maps are raised to the full grid by trilinear interpolation, and get no gradient from the fusion,
  both as released.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from mmlib.modalities import check_available
from mmlib.networks.unet import (
    INSTANCE,
    LEAKY,
    Decoder,
    Encoder,
    check_grid,
    encode_levels,
    masked_images,
    where_available,
)
from mmlib.tasks.segmentation import segmentation_loss
from mmlib.training import Recipe

LEAST = 0.005  # probabilities below this cost no more (released code)


@dataclass(frozen=True)
class Variant:
    """Where readings of the paper differ.

    Attributes:
        normalised: divide the weights of a region by their sum over the available modalities.
        regularised: segment each modality alone as well, by the shared decoder.
    """

    normalised: bool = False
    regularised: bool = True


VARIANTS = {
    "standard": Variant(),
    "normalised": Variant(normalised=True),
    "unregularised": Variant(regularised=False),
}


class Output(NamedTuple):
    """Logits (B, R, D, H, W), and what the regularisers see in training.

    Attributes:
        logits: of the fused features.
        maps: probability maps from coarse to fine, each (B, R + 1, d, h, w): background, then exclusive classes.
        alone: (n, R, D, H, W), the logits of every available modality by itself, in the order of `available.nonzero()`.
    """

    logits: Tensor
    maps: list[Tensor]
    alone: Tensor


def _unit(inputs: int, outputs: int, kernel: int) -> nn.Module:
    return Convolution(3, inputs, outputs, kernel_size=kernel, act=LEAKY, norm=INSTANCE)


def _squeezed(inputs: int, inner: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_unit(inputs, inner, 1), _unit(inner, inner, 3), _unit(inner, outputs, 1))


class RegionAwareFusion(nn.Module):
    """Fuse the maps of one scale: find the regions, weigh the modalities in each, and join the regions.

    Args:
        count: modalities M.
        width: channels c of the maps.
        classes: exclusive classes K, background among them.
        above: whether there is a map of the decoder from the scale above.
        normalised: see `Variant`.
    """

    def __init__(self, count: int, width: int, classes: int, above: bool, normalised: bool = False):
        super().__init__()
        self.normalised = normalised
        self.embedding = _squeezed(count * width, width // 4, width)
        self.classifier = nn.Sequential(_unit((1 + above) * width, 16, 1), nn.Conv3d(16, classes, 1))
        self.weighers = nn.ModuleList(
            nn.Sequential(nn.Linear(count * width + 1, width), nn.LeakyReLU(0.2), nn.Linear(width, count))
            for _ in range(classes)
        )
        self.regions = _squeezed(classes * width, width, width // 2)
        self.shortcut = _squeezed(count * width, width, width // 2)

    def weigh(self, features: Tensor, maps: Tensor, available: Tensor) -> Tensor:
        """How much each modality counts in each region.

        Args:
            features: (B, M, c, d, h, w), zero where missing.
            maps: (B, K, d, h, w) probabilities.
            available: (B, M) bool.

        Returns:
            (B, K, M), zero where missing, each in [0, 1].
        """
        size = maps.mean(dim=(2, 3, 4)) + 1e-7  # B K
        pooled = torch.einsum("bmcdhw,bkdhw->bkmc", features, maps) / maps[0, 0].numel()  # mean over the grid
        pooled = (pooled / size[..., None, None]).flatten(2)  # B K M*c: the mean over the region
        described = torch.cat([pooled, size[..., None]], dim=2)  # B K M*c+1
        weights = [net(row) for net, row in zip(self.weighers, described.unbind(1), strict=True)]  # B M each
        found = torch.stack(weights, dim=1).sigmoid() * available[:, None]  # B K M
        return found / found.sum(dim=2, keepdim=True) if self.normalised else found

    def forward(self, features: Tensor, available: Tensor, above: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, M, c, d, h, w), zero where missing, and the decoder's map (B, c, d, h, w) -> fused map, regions' map."""
        stacked = features.flatten(1, 2)  # B M*c d h w
        embedded = self.embedding(stacked)  # B c d h w
        given = embedded if above is None else torch.cat([above, embedded], dim=1)  # B c or 2*c d h w
        maps = self.classifier(given).softmax(dim=1)  # B K d h w
        held = maps.detach()
        weights = self.weigh(features, held, available)
        # in region k: the map of k times the weighted sum of the modalities
        summed = torch.einsum("bkm,bmcdhw->bkcdhw", weights, features) * held[:, :, None]  # B K c d h w
        return torch.cat([self.regions(summed.flatten(1, 2)), self.shortcut(stacked)], dim=1), maps  # B c ..., B K ...


class RFNet(nn.Module):
    """Segments regions from features that are fused region by region at every scale.

    Args:
        modalities: M names; the order of the modality axis.
        widths: channels per level, multiples of 4.
        regions: number of nested output regions R.
        variant: see `Variant`.

    Raises:
        ValueError: in `forward`, on an empty set or a grid that the stride does not divide.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        widths: Sequence[int] = (16, 32, 64),
        regions: int = 3,
        variant: Variant = VARIANTS["standard"],
    ):
        super().__init__()
        self.modalities = tuple(modalities)
        self.variant = variant
        count = len(self.modalities)
        encoders = [Encoder(1, widths) for _ in self.modalities]
        self.encoders = nn.ModuleList(encoders)
        self.stride = encoders[0].stride
        self.fusions = nn.ModuleList(
            RegionAwareFusion(count, width, regions + 1, above=level > 0, normalised=variant.normalised)
            for level, width in enumerate(reversed(widths))  # from coarse to fine
        )
        self.decoder = Decoder(widths, 1, regions, count)
        self.shared_decoder = Decoder(widths, 1, regions, 1) if variant.regularised else None

    def encode(self, images: Tensor, available: Tensor) -> list[Tensor]:
        """Images and maps of every available modality, zero at missing ones: from fine to coarse, each (B, M, ...)."""
        check_available(available, self.modalities)
        check_grid(images, available, self.stride)
        return encode_levels(self.encoders, images, available)

    def decode(self, encoding: list[Tensor], available: Tensor) -> Tensor:
        """Images and maps (1 or B, M, ...) and (B, M) -> logits (B, R, D, H, W)."""
        return self._decode(encoding, available)[0]

    def _decode(self, encoding: list[Tensor], available: Tensor) -> tuple[Tensor, list[Tensor]]:
        images, *levels = encoding
        # B M c d h w each, from coarse to fine; 0 x NaN would be NaN
        coarse, *finer = [where_available(available, level, level.new_zeros(())) for level in reversed(levels)]
        net = self.decoder
        x, found = self.fusions[0](coarse, available)
        maps = [found]
        for fusion, up, reduce, conv, features in zip(
            self.fusions[1:], net.ups, net.skips, net.convs, finer, strict=True
        ):
            x = up(x)  # B c d h w
            fused, found = fusion(features, available, x)
            x = conv(x + reduce(fused))
            maps.append(found)
        raised = torch.cat([net.up(x), masked_images(images, available)], dim=1)  # B 8+M D H W
        return net.out(net.fine(raised)), maps  # B R D H W

    def forward(self, images: Tensor, available: Tensor) -> Output:
        """(B, M, D, H, W) float and (B, M) bool -> `Output`; `alone` has no rows outside training."""
        encoding = self.encode(images, available)
        logits, maps = self._decode(encoding, available)
        if self.shared_decoder is None or not self.training:
            return Output(logits, maps, logits[:0])
        given, *levels = [level[available] for level in encoding]  # n D H W, then n c ... each
        *skips, bottleneck = levels
        return Output(logits, maps, self.shared_decoder(bottleneck, skips, given.unsqueeze(1)))


def classes_of(regions: Tensor) -> Tensor:
    """Nested regions (B, R, D, H, W) as exclusive classes, one-hot (B, R + 1, D, H, W) float32.

    The class of a voxel is the number of regions that hold it: 0 background, 1 in WT alone, 2 in TC too, 3 in ET too.
    """
    return F.one_hot(regions.long().sum(dim=1), regions.shape[1] + 1).movedim(-1, 1).float()


def class_loss(maps: Tensor, target: Tensor) -> Tensor:
    """Weighted cross-entropy plus Dice of exclusive classes, of maps that may be coarser than the target.

    A class weighs 1 minus its share of the case's voxels; the cross-entropy is a mean over voxels and cases. The Dice
    term is 1 minus the mean over classes of 2 sum(p t) / (sum(p) + sum(t)), summed over the batch.

    Args:
        maps: (B, K, d, h, w) probabilities.
        target: (B, K, D, H, W) one-hot.
    """
    p = maps.float()
    if p.shape != target.shape:
        p = F.interpolate(p, target.shape[2:], mode="trilinear")  # B K D H W
    weights = 1 - target.mean(dim=(2, 3, 4), keepdim=True)  # B K 1 1 1
    cross_entropy = -(weights * target * p.clamp(min=LEAST).log()).sum(dim=1).mean()
    overlap, sizes = ((p * target).sum(dim=(0, 2, 3, 4)), (p + target).sum(dim=(0, 2, 3, 4)))  # K each
    return cross_entropy + 1 - (2 * overlap / (sizes + 1e-7)).mean()


def rfnet_loss(model: RFNet, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the fused logits + that of each modality alone + that of the probability maps, and the parts.

    Args:
        model: in training mode, or the second term is missing.
        batch: `images`, `available` and `regions` of the batch contract.
    """
    available, regions = batch["available"], batch["regions"]
    output = model(batch["images"], available)
    task = segmentation_loss(output.logits, regions)
    target = classes_of(regions)
    maps = torch.stack([class_loss(one, target) for one in output.maps]).sum()  # over scales
    alone = task.new_zeros(())
    if len(output.alone):
        case, _ = available.nonzero(as_tuple=True)  # n
        # a mean over n, made a sum over modalities and a mean over cases
        alone = segmentation_loss(output.alone, regions[case]) * len(case) / len(available)
    parts = {"task": task, "alone": alone, "maps": maps}
    return task + alone + maps, {name: part.detach() for name, part in parts.items()}


def recipe(method: str, variant: str, modalities: Sequence[str], widths: Sequence[int], regions: int = 3) -> Recipe:
    """What a run of this method trains: the network and its loss; it departs from the run's settings in nothing.

    Args:
        method: `rfnet`.
        variant: a key of `VARIANTS`.
        modalities: M names.
        widths: channels per level.
        regions: output channels R.

    Raises:
        ValueError: on an unknown method or variant.
    """
    if method != "rfnet" or variant not in VARIANTS:
        raise ValueError(
            f"this file has the method rfnet with the variants {', '.join(VARIANTS)}; got {method}, {variant}"
        )
    return Recipe(RFNet(modalities, widths, regions, VARIANTS[variant]), rfnet_loss)
