"""SimMLM: a U-Net for every modality, a gate that mixes their outputs, and the rule that more may not be worse.

Paper: Sijie Li, Chen Chen, Jungong Han, "SimMLM: A Simple Framework for Multi-modal Learning with Missing Modality",
ICCV 2025, arXiv 2507.19264. Implemented: the dynamic mixture of modality experts (DMoME) at the level of outputs,
its two stages, and the More vs. Fewer (MoFe) ranking loss. Released code consulted: Tony-Khor/simmlm at aa1aea2, which
has no licence and whose read-me calls it that of the paper (the paper names LezJ/SimMLM); nothing of it is copied.
What goes beyond the paper's abstract, its first figure and that code is UNVERIFIED.

Why this one of the methods of 2024 to 2026: on BraTS 2018 it is quoted with mean Dice 87.67 (WT), 80.20 (TC), 67.16
(ET) over the 15 combinations, where ShaSpec has 85.92, 77.45, 61.58 and no other method has more on average
(UNVERIFIED). It needs no kernels of a GPU, and as its fusion comes last it is the opposite of
all others here.

What differs
- Experts are U-Nets of the book's blocks, with the image at full resolution (released: six scales from the full grid
  on, widths 8 to 80).
- The gate has three strided convolutions and reads a grid of 4^3, to which others are averaged, so that a net takes
  volumes of any size (released: five, for crops of 128^3 alone). It sees zeros for what is missing, as there.
- Experts learn apart first, each from its own modality of all cases, in one `fit` (released: one training each, with
  best checkpoints). It takes as many steps as the second stage at most. The variant `from-scratch` leaves it out.
- The book's loss takes the place of Dice plus cross-entropy, both means over voxels there. The ranking is taken of
  each, case by case and region by region, as released; both sides have a gradient, as there; weight 0.1.
- Of a pair, both sets see the same crop (released: two crops of one case at the same indices of the batch, so that the
  ranking compares different places). Sets are drawn by the run's sampler until one is a proper subset of the other
  and the first drawn is not everything, as released. `unranked` leaves the ranking out, not the pairs.
- Mixtures of probabilities and of features, which the released code has too, are left out.
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
from mmlib.networks.unet import Decoder, Encoder, InstanceNorm, check_grid, masked_images
from mmlib.tasks.segmentation import segmentation_loss
from mmlib.training import Recipe, fit

GRID = 4  # side of the grid that the gate reads
TRIES = 1000  # pairs of sets that are drawn until one holds the other


@dataclass(frozen=True)
class Variant:
    """Which parts there are.

    Attributes:
        apart: have the first stage, in which experts learn by themselves.
        alpha: weight of the ranking.
    """

    apart: bool = True
    alpha: float = 0.1


VARIANTS = {
    "standard": Variant(),
    "unranked": Variant(alpha=0),
    "from-scratch": Variant(apart=False),
}


class Output(NamedTuple):
    """Logits (B, R, D, H, W), those of the experts (B, M, R, D, H, W) and weights (B, M, R), zero where missing."""

    logits: Tensor
    experts: Tensor
    weights: Tensor


class Expert(nn.Module):
    """A U-Net on one modality."""

    def __init__(self, widths: Sequence[int], regions: int):
        super().__init__()
        self.encoder = Encoder(1, widths)
        self.stride = self.encoder.stride
        self.decoder = Decoder(widths, 1, regions, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, D, H, W) -> logits (N, R, D, H, W)."""
        features = self.encoder(image)
        return self.decoder(features.bottleneck, features.skips, image)


class Gate(nn.Module):
    """How much each expert counts in each region, from all available images."""

    def __init__(self, count: int, regions: int):
        super().__init__()
        layers = [(nn.Conv3d(count, count, 3, 2, 1), InstanceNorm(count), nn.ReLU()) for _ in range(3)]
        self.convolutions = nn.Sequential(*(layer for three in layers for layer in three))
        self.out = nn.Linear(count * GRID**3, count * regions)

    def forward(self, images: Tensor, available: Tensor) -> Tensor:
        """(B, M, D, H, W), zero where missing, and (B, M) -> (B, M, R), which sum to one over the available."""
        read = F.adaptive_avg_pool3d(self.convolutions(images), GRID)  # B M 4 4 4
        scores = self.out(read.flatten(1)).unflatten(1, (images.shape[1], -1)).float()  # B M R
        return scores.masked_fill(~available[..., None], -torch.inf).softmax(dim=1)


class SimMLM(nn.Module):
    """Segments regions by a mixture of experts, one for each modality.

    Args:
        modalities: M names; the order of the modality axis.
        widths: channels per level of an expert.
        regions: number of output regions R.
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
        self.regions = regions
        experts = [Expert(widths, regions) for _ in self.modalities]
        self.experts = nn.ModuleList(experts)
        self.stride = experts[0].stride
        self.gate = Gate(len(self.modalities), regions)

    def encode(self, images: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, M, D, H, W) and what every expert makes of its own (B, M, R, D, H, W); zero where missing."""
        check_available(available, self.modalities)
        check_grid(images, available, self.stride)
        given = masked_images(images, available)
        logits = [self._run(net, given[:, m], available[:, m]) for m, net in enumerate(self.experts)]  # B R D H W each
        return given, torch.stack(logits, dim=1)

    def _run(self, expert: Any, volumes: Tensor, rows: Tensor) -> Tensor:
        """An expert on the rows that are True, zeros elsewhere; (B, D, H, W) and (B,) bool -> (B, R, D, H, W)."""
        empty = torch.zeros(len(rows), self.regions, *volumes.shape[1:], device=volumes.device)
        if not rows.any():
            # every weight has a gradient, of zero, in every step; why four strides a side: see `encode_rows` of a U-Net
            few = volumes.new_zeros(1, 1, *(4 * step for step in expert.stride))
            return empty + 0 * expert(few).float().sum()
        found = expert(volumes[rows].unsqueeze(1)).float()  # n R D H W
        return empty.index_copy(0, rows.nonzero().flatten(), found)

    def decode(self, encoding: tuple[Tensor, Tensor], available: Tensor) -> Tensor:
        """Images and logits of the experts, of B cases or one, and (B, M) -> logits (B, R, D, H, W)."""
        return self._mix(encoding, available)[0]

    def _mix(self, encoding: tuple[Tensor, Tensor], available: Tensor) -> tuple[Tensor, Tensor]:
        images, experts = encoding
        weights = self.gate(masked_images(images, available), available)  # B M R
        there = available[..., None, None, None, None]  # B M 1 1 1 1
        shown = torch.where(there, experts, 0)  # B M R D H W; 0 x NaN would be NaN
        return torch.einsum("bmr,bmrdhw->brdhw", weights, shown), weights

    def forward(self, images: Tensor, available: Tensor) -> Output:
        """(B, M, D, H, W) float and (B, M) bool -> `Output`."""
        encoding = self.encode(images, available)
        logits, weights = self._mix(encoding, available)
        return Output(logits, encoding[1], weights)


class Nested(Dataset):
    """Batch number `step` of crops with all that their cases have, and two sets, of which one holds the other.

    Args:
        crops: their sampler draws the sets.
        seed: of these draws.
    """

    def __init__(self, crops: Crops, seed: int):
        self.crops, self.seed = copy.copy(crops), seed
        self.crops.complete_steps = sys.maxsize

    def __getitem__(self, step: int) -> dict:
        """`available`, the larger set, and `fewer`, (B, M) bool each; `images` may hold more than either."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step + 700_000_000)
        batch = self.crops[step]
        pairs = [self._pair(row[None], generator) for row in batch["available"]]
        more, fewer = (torch.cat(sets) for sets in zip(*pairs, strict=True))
        return {**batch, "available": more, "fewer": fewer}

    def _pair(self, acquired: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(1, M) bool -> more and fewer modalities; equal where a case has one, or no pair is found."""
        for _ in range(TRIES if acquired.sum() > 1 else 1):
            one, other = (
                draw(self.crops.availability, acquired, generator, rate=self.crops.rate, fixed=self.crops.fixed)
                for _ in range(2)
            )
            nested = torch.equal(one & other, one) or torch.equal(one & other, other)
            if nested and not torch.equal(one, other) and not torch.equal(one, acquired):
                return one | other, one & other
        return one, one

    def exposure(self, steps: int) -> dict[str, list[str]]:
        """Which modalities of which case the first `steps` batches hold, see `Crops.exposure`."""
        return self.crops.exposure(steps)


def costs(logits: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """Dice loss and cross-entropy of each case and region, (B, R) each; the mean of their sum is `segmentation_loss`.

    Args:
        logits, regions: as for `segmentation_loss`.
    """
    target = regions.to(logits.dtype)
    p, space = logits.sigmoid(), (2, 3, 4)
    dice = 1 - 2 * (p * target).sum(dim=space) / (p.sum(dim=space) + target.sum(dim=space) + 1)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=space)
    return dice, entropy * logits.shape[1]


def apart_loss(model: SimMLM, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Of every expert by itself: the sum over modalities of the task's loss.

    Args:
        batch: `images`, `available` and `regions` of the batch contract.
    """
    available, regions = batch["available"], batch["regions"]
    experts = model.encode(batch["images"], available)[1]
    losses = {
        name: segmentation_loss(experts[rows, m], regions[rows])
        for m, (name, rows) in enumerate(zip(model.modalities, available.unbind(1), strict=True))
        if rows.any()
    }
    # every expert that nobody has a modality for: its logits are zero and so is their sum
    total = torch.stack(list(losses.values())).sum() + experts.sum() * 0
    return total, {name: losses[name].detach() if name in losses else total.new_zeros(()) for name in model.modalities}


def simmlm_loss(model: SimMLM, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """The task's loss, mean over both sets, + alpha times what the larger set costs more than the smaller, and parts.

    Args:
        batch: see `Nested`; without `fewer` there is one set, and no ranking.
    """
    images, available, regions = batch["images"], batch["available"], batch["regions"]
    encoding = model.encode(images, available)  # the smaller set needs no other
    more = model.decode(encoding, available)
    if "fewer" not in batch:
        task = segmentation_loss(more, regions)
        return task, {"task": task.detach()}
    fewer = model.decode(encoding, batch["fewer"])
    task = (segmentation_loss(more, regions) + segmentation_loss(fewer, regions)) / 2
    pairs = zip(costs(more, regions), costs(fewer, regions), strict=True)
    ranking = torch.stack([F.relu(much - little).mean() for much, little in pairs]).sum()  # MoFe
    return task + model.variant.alpha * ranking, {"task": task.detach(), "ranking": ranking.detach()}


def pretrain(model: SimMLM, batches: Crops, *, seed: int, **settings: Any) -> pd.DataFrame:
    """The first stage: experts learn apart; the model is changed in place, and its history returned.

    Args:
        batches: of the second stage; all that their cases have is shown.
        seed, settings: as `mmlib.training.fit`.
    """
    whole = copy.copy(batches)
    whole.complete_steps = sys.maxsize
    loss: Callable[..., Any] = apart_loss
    model.gate.requires_grad_(False)
    history = fit(model, whole, loss, seed=seed, name="pretraining", **settings)
    model.gate.requires_grad_(True)
    return history


def recipe(method: str, variant: str, modalities: Sequence[str], widths: Sequence[int], regions: int = 3) -> Recipe:
    """What a run of this method trains: the experts apart, then the mixture on pairs of sets.

    Args:
        method: `simmlm`.
        variant: a key of `VARIANTS`.
        modalities: M names.
        widths: channels per level.
        regions: output channels R.

    Raises:
        ValueError: on an unknown method or variant.
    """
    if method != "simmlm" or variant not in VARIANTS:
        raise ValueError(
            f"this file has the method simmlm with the variants {', '.join(VARIANTS)}; got {method}, {variant}"
        )
    chosen = VARIANTS[variant]
    model = SimMLM(modalities, widths, regions, chosen)
    return Recipe(model, simmlm_loss, batches=Nested, before=pretrain if chosen.apart else None)
