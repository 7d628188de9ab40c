"""M3AE: a U-Net learns to paint masked patches and modalities first; then two situations of one case teach each other.

Paper: Hong Liu, Dong Wei, Donghuan Lu, Jinghan Sun, Liansheng Wang, Yefeng Zheng, "M3AE: Multimodal Representation
Learning for Brain Tumor Segmentation with Missing Modalities", AAAI 2023, arXiv 2303.05302. Implemented: pre-training
as a masked autoencoder, the image that stands for missing modalities (model inversion), and fine-tuning with
self-distillation. Released code consulted: ccarliu/m3ae at 3a5eb45, which has no licence; nothing of it is copied.
What goes beyond the paper's abstract and that code is UNVERIFIED.

What differs
- The U-Net is that of the book's dropout U-Net (released: four scales from the full grid on, group norm, deep
  supervision); give it the same widths. It sees the images, filled, again at full resolution.
- The image that stands for missing content is learnt as in the released code, by the gradient of the reconstruction,
  and held afterwards. There it covers the head, 155 x 240 x 240 voxels, and a crop takes its own part. Crops and
  windows of the book do not know their place, and are flipped, so here it is one patch for each modality, repeated. It
  starts as zeros (released: as noise) and has the learning rate of the rest (released: 17 times as much).
- A patch has 4 voxels a side (released: 16 of 128), so a crop of 32 has as many patches as theirs. The masked share,
  7/8 of all patches, modalities dropped first (none to three), is the released one. So is the loss: squared error of
  the whole image, not of the masked part, + 0.005 times the norm of the learnt image without its mean.
- Pre-training takes as many steps as fine-tuning at most (released: 600 epochs, then 300).
- Distillation pulls the bottlenecks of the two situations together (UNVERIFIED), weight 0.1 as in the released script.
  The released code does so with the logits of its coarsest scale, once more with weights from running means of Dice.
  The variant `logits` takes the logits of the output, without such weights.
- Both situations of a case are drawn here, by the run's sampler; the loss of the task is the mean over both.
- The last layer gives R sigmoids with the book's loss (released: R sigmoids with a Dice loss, at three scales).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmlib.data.batches import Crops
from mmlib.modalities import check_available, draw
from mmlib.networks.unet import FINE, Decoder, Encoder, check_grid, masked_images
from mmlib.tasks.segmentation import segmentation_loss
from mmlib.training import Recipe, fit

PATCH = 4  # voxels a side
MASKED = 7 / 8  # share of all patches
FLAT = 0.005  # weight of the substitute's deviation from its mean


@dataclass(frozen=True)
class Variant:
    """Which parts there are, and how far situations are pulled together.

    Attributes:
        pretrained: have the first stage; without it zeros stand for what is missing.
        read: what the two situations of a case shall share: `bottleneck` or `logits`.
        gamma: weight of that.
    """

    pretrained: bool = True
    read: str = "bottleneck"
    gamma: float = 0.1


VARIANTS = {
    "standard": Variant(),
    "logits": Variant(read="logits"),
    "undistilled": Variant(gamma=0),
    "from-scratch": Variant(pretrained=False),
}


class Output(NamedTuple):
    """Logits (B, R, D, H, W) and the bottleneck (B, C, d, h, w)."""

    logits: Tensor
    bottleneck: Tensor


class M3AE(nn.Module):
    """A U-Net on the stacked modalities, where a learnt image stands for what is missing.

    Args:
        modalities: M names; the order of the modality axis.
        widths: channels per level.
        regions: number of output regions R.
        variant: see `Variant`.

    Raises:
        ValueError: in `forward`, on an empty set or a grid that the stride does not divide.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        widths: Sequence[int] = (32, 64, 128),
        regions: int = 3,
        variant: Variant = VARIANTS["standard"],
    ):
        super().__init__()
        self.modalities = tuple(modalities)
        self.variant = variant
        count = len(self.modalities)
        self.encoder = Encoder(count, widths)
        self.stride = tuple(max(step, PATCH) for step in self.encoder.stride)
        self.decoder = Decoder(widths, 1, regions, count)
        self.painter = nn.Conv3d(FINE[1], count, 1)  # takes the place of the decoder's last layer in pre-training
        self.substitute = nn.Parameter(torch.zeros(count, PATCH, PATCH, PATCH))
        self.take_stage(painting=False)

    def take_stage(self, painting: bool) -> None:
        """Say which parts learn: the painter and the learnt image in the first stage, the last layer in the second."""
        self.painter.requires_grad_(painting)
        self.substitute.requires_grad_(painting)
        self.decoder.out.requires_grad_(not painting)

    def fill(self, images: Tensor, shown: Tensor) -> Tensor:
        """Put the learnt image where nothing is shown.

        Args:
            images: (B, M, D, H, W) or, for one case in B situations, (1, M, D, H, W); what is not shown is not read.
            shown: (B, M, 1, 1, 1) or (B, M, D, H, W) bool.

        Returns:
            (B, M, D, H, W).
        """
        repeated = self.substitute.repeat(1, *(side // PATCH for side in images.shape[2:]))  # M D H W
        return torch.where(shown, images, repeated.to(images.dtype))

    def _maps(self, filled: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, D, H, W) -> the maps at full resolution (B, 16, D, H, W), the bottleneck (B, C, d, h, w)."""
        features, net = self.encoder(filled), self.decoder
        x = features.bottleneck
        for up, reduce, conv, skip in zip(net.ups, net.skips, net.convs, reversed(features.skips), strict=True):
            x = conv(up(x) + reduce(skip))
        return net.fine(torch.cat([net.up(x), filled], dim=1)), features.bottleneck

    def paint(self, images: Tensor, shown: Tensor) -> Tensor:
        """All images from the patches that are shown; (B, M, D, H, W) each."""
        return self.painter(self._maps(self.fill(images, shown))[0])

    def encode(self, images: Tensor, available: Tensor) -> Tensor:
        """Nothing can be computed before the combination is known: the images themselves, zero where missing."""
        check_available(available, self.modalities)
        check_grid(images, available, self.stride)
        return masked_images(images, available)

    def decode(self, encoding: Tensor, available: Tensor) -> Tensor:
        """(1 or B, M, D, H, W) and (B, M) -> logits (B, R, D, H, W)."""
        return self._decode(encoding, available).logits

    def _decode(self, encoding: Tensor, available: Tensor) -> Output:
        maps, bottleneck = self._maps(self.fill(encoding, available[..., None, None, None]))
        return Output(self.decoder.out(maps), bottleneck)

    def forward(self, images: Tensor, available: Tensor) -> Output:
        """(B, M, D, H, W) float and (B, M) bool -> `Output`."""
        return self._decode(self.encode(images, available), available)


def _complete(crops: Crops) -> Crops:
    """The same crops with everything that their cases have."""
    shown = copy.copy(crops)
    shown.complete_steps = sys.maxsize
    return shown


class MaskedPatches(Dataset):
    """Batch number `step` of crops with all that their cases have, and which patches of it are shown.

    Up to three modalities are left out, their number uniform; of the patches of the others so many are shown, at
    random, that 1/8 of all patches of the case is.

    Args:
        crops: their sides must be multiples of 4.
        seed: of these draws.
    """

    def __init__(self, crops: Crops, seed: int):
        self.crops, self.seed = _complete(crops), seed

    def __getitem__(self, step: int) -> dict:
        """`images` (B, M, D, H, W), `available` (B, M), `shown` (B, M, D, H, W) bool, and the rest of the batch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step + 500_000_000)
        batch = self.crops[step]
        sides = [side // PATCH for side in batch["images"].shape[2:]]
        shown = torch.stack([patches_shown(row, sides, generator) for row in batch["available"]])  # B M d h w
        for axis in (2, 3, 4):
            shown = shown.repeat_interleave(PATCH, dim=axis)
        return {**batch, "shown": shown}


def patches_shown(acquired: Tensor, sides: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw the patches of one case that are shown: (M,) bool and d, h, w patches a side -> (M, d, h, w) bool."""
    names = acquired.nonzero().flatten()
    dropped = int(torch.randint(min(3, len(names) - 1) + 1, (), generator=generator))
    kept = names[torch.randperm(len(names), generator=generator)[dropped:]]
    volume = sides[0] * sides[1] * sides[2]
    number = int((1 - MASKED) * len(names) * volume)
    chosen = torch.randperm(len(kept) * volume, generator=generator)[:number]
    found = torch.zeros(len(acquired), volume, dtype=torch.bool)
    found[kept[chosen // volume], chosen % volume] = True
    return found.unflatten(1, tuple(sides))


class Situations(Dataset):
    """Batch number `step` of crops with all that their cases have, and two draws of what the network may see.

    Args:
        crops: their sampler draws both.
        seed: of these draws.
    """

    def __init__(self, crops: Crops, seed: int):
        self.crops, self.seed = _complete(crops), seed

    def __getitem__(self, step: int) -> dict:
        """`available` and `other`, (B, M) bool each; `images` holds more than either."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step + 700_000_000)
        batch, crops = self.crops[step], self.crops
        first, second = (draw(crops.availability, batch["available"], generator, rate=crops.rate) for _ in range(2))
        return {**batch, "available": first, "other": second}

    def exposure(self, steps: int) -> dict[str, list[str]]:
        """Which modalities of which case the first `steps` batches hold, see `Crops.exposure`."""
        return self.crops.exposure(steps)


def painting_loss(model: M3AE, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean squared error of all acquired images + 0.005 ||substitute - its mean per modality||, and the first.

    Args:
        batch: see `MaskedPatches`.
    """
    images, available = batch["images"], batch["available"]
    painted = model.paint(images, batch["shown"])
    error = F.mse_loss(painted[available].float(), images[available])  # n D H W each
    deviation = model.substitute - model.substitute.mean(dim=(1, 2, 3), keepdim=True)  # M 4 4 4
    # a norm has no gradient at zero, where the substitute starts
    uneven = (deviation.square().sum() + 1e-12).sqrt()
    return error + FLAT * uneven, {"painting": error.detach()}


def m3ae_loss(model: M3AE, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """The task's loss, mean over both situations, + gamma times how far these lie apart, and the parts.

    Args:
        batch: see `Situations`; without `other` there is one situation, and no distillation.
    """
    images, available, regions = batch["images"], batch["available"], batch["regions"]
    if "other" not in batch:
        task = segmentation_loss(model(images, available).logits, regions)
        return task, {"task": task.detach()}
    both = torch.cat([available, batch["other"]])  # 2*B M
    output = model(images.repeat(2, 1, 1, 1, 1), both)
    task = segmentation_loss(output.logits, regions.repeat(2, 1, 1, 1, 1))
    read = output.bottleneck if model.variant.read == "bottleneck" else output.logits
    here, there = read.float().chunk(2)  # B ... each
    apart = F.mse_loss(here, there)
    return task + model.variant.gamma * apart, {"task": task.detach(), "apart": apart.detach()}


def pretrain(model: M3AE, batches: Crops, *, seed: int, **settings: Any) -> pd.DataFrame:
    """The first stage, masked autoencoding; the model is changed in place, and its history returned.

    Args:
        batches: of the second stage; only what they draw from is taken.
        seed, settings: as `mmlib.training.fit`.
    """
    loss: Callable[..., Any] = painting_loss
    model.take_stage(painting=True)
    history = fit(model, MaskedPatches(batches, seed), loss, seed=seed, name="pretraining", **settings)
    model.take_stage(painting=False)
    return history


def recipe(method: str, variant: str, modalities: Sequence[str], widths: Sequence[int], regions: int = 3) -> Recipe:
    """What a run of this method trains: the network, the stage before, then the network on pairs of situations.

    Args:
        method: `m3ae`.
        variant: a key of `VARIANTS`.
        modalities: M names.
        widths: channels per level.
        regions: output channels R.

    Raises:
        ValueError: on an unknown method or variant.
    """
    if method != "m3ae" or variant not in VARIANTS:
        raise ValueError(
            f"this file has the method m3ae with the variants {', '.join(VARIANTS)}; got {method}, {variant}"
        )
    chosen = VARIANTS[variant]
    model = M3AE(modalities, widths, regions, chosen)
    return Recipe(model, m3ae_loss, batches=Situations, before=pretrain if chosen.pretrained else None)
