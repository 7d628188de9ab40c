"""Axial slices of whole cases in [-1, 1], held in memory, and training batches with modalities hidden at random.

A volume is clipped to the percentiles 0.1 and 99.9 of all its voxels, background included; these two become -1 and 1.
Whatever is outside the brain is then set to -1, so images may have their skulls where a brain mask is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from mmlib.data.canvas import Canvas
from mmlib.data.cases import Case, Orientation, raw_labels, regions
from mmlib.data.nifti import Cases
from mmlib.modalities import combinations, mask

PERCENTILES = (0.1, 99.9)  # of all voxels of a volume
FEWEST = 16  # voxels of brain from which on a constant slice is a fault of the image


@dataclass(frozen=True)
class Slices:
    """Axial slices of several cases; a missing modality holds zeros and is flagged.

    Attributes:
        images: (N, M, H, W) float32 in [-1, 1]; -1 outside the brain.
        available: (N, M) bool, what was acquired.
        brain: (N, H, W) bool.
        labels: (N, H, W) uint8: 1 necrosis or non-enhancing tumour, 2 oedema, 4 enhancing tumour, however the files
            name them; None if a case has no segmentation.
        case, subject: N names.
        position: (N,) int64, number of the slice in its volume, from below.
        modalities: M names.
    """

    images: Tensor
    available: Tensor
    brain: Tensor
    labels: Tensor | None
    case: tuple[str, ...]
    subject: tuple[str, ...]
    position: Tensor
    modalities: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> dict:
        """The batch of some slices: images, available, case."""
        rows = torch.arange(len(self))[index]
        case = [self.case[row] for row in rows.tolist()]
        return {"images": self.images[rows], "available": self.available[rows], "case": case}

    def subset(self, index: Tensor | slice | Sequence[int]) -> Slices:
        """Some of the slices, by positions, a slice, or a bool for each."""
        rows = torch.arange(len(self))[index]
        return Slices(
            self.images[rows],
            self.available[rows],
            self.brain[rows],
            None if self.labels is None else self.labels[rows],
            tuple(self.case[row] for row in rows.tolist()),
            tuple(self.subject[row] for row in rows.tolist()),
            self.position[rows],
            self.modalities,
        )

    @property
    def complete(self) -> Slices:
        """The slices of cases that have every modality."""
        return self.subset(self.available.all(dim=1))

    @property
    def exposure(self) -> dict[str, list[str]]:
        """What training on all of these shows: case -> its acquired modalities."""
        return {
            case: [name for name, has in zip(self.modalities, row, strict=True) if has]
            for case, row in zip(self.case, self.available.tolist(), strict=True)
        }


def axial_slices(
    cases: Cases,
    modalities: Sequence[str],
    *,
    size: tuple[int, int],
    stride: int = 16,
    every: int = 1,
    least_brain: float = 0.05,
) -> Slices:
    """Cut cases into slices on canvases of one size, the brain in the middle.

    Args:
        cases: such as `IxiFolder(root)[names]` or `BratsFolder(root)[names]`; read one at a time.
        modalities: M names, the order of the modality axis.
        size: (H, W) of the canvas, in voxels.
        stride: of the network, which must divide H and W.
        every: take every n-th slice, from the lowest one with brain.
        least_brain: keep slices in which at least this share of the canvas is brain; 0: every slice with any.

    Returns:
        The slices, case by case, from below upwards.

    Raises:
        ValueError: as `Canvas.around`; if a case has none of the modalities; if an image is constant or not finite, or
            constant in the brain of a slice (names case and modality); if a case is stored along other axes than the
            first; or if no slice holds enough brain.
    """
    parts, orientation = [], Orientation()
    for name in tqdm(cases, desc="slices", unit="case", mininterval=10):
        case = cases[name]
        orientation.check(name, case.axes)
        canvas = Canvas.around(case, size, stride)
        share = canvas.to_slices(case.brain_mask).mean(axis=(1, 2))
        first, last = np.flatnonzero(share)[[0, -1]]
        chosen = np.arange(first, last + 1, every)
        parts.append(
            _cut(case, cases.subject(name), modalities, canvas, chosen[share[chosen] >= max(least_brain, 1e-9)])
        )
    if not any(len(part) for part in parts):
        raise ValueError(
            f"no slice of {len(parts)} cases has brain on {least_brain:.0%} of the canvas: lower least_brain"
        )
    labels = [part.labels for part in parts if part.labels is not None]
    return Slices(
        torch.cat([part.images for part in parts]),
        torch.cat([part.available for part in parts]),
        torch.cat([part.brain for part in parts]),
        torch.cat(labels) if len(labels) == len(parts) else None,
        tuple(name for part in parts for name in part.case),
        tuple(name for part in parts for name in part.subject),
        torch.cat([part.position for part in parts]),
        tuple(modalities),
    )


def _cut(case: Case, subject: str, modalities: Sequence[str], canvas: Canvas, chosen: np.ndarray) -> Slices:
    """The chosen slices of one case."""
    available = torch.tensor([name in case.images for name in modalities])
    if not available.any():
        raise ValueError(
            f"case {case.name} has {sorted(case.images)}, none of {tuple(modalities)} that are asked for: leave it out"
        )
    brain = canvas.to_slices(case.brain_mask)[chosen]
    images = np.zeros((len(chosen), len(modalities), *canvas.size), dtype=np.float32)
    for index, name in enumerate(modalities):
        if name in case.images:
            images[:, index] = canvas.to_slices(_scaled(case, name), outside=-1)[chosen]
    for z, stack, inside in zip(chosen, images, brain, strict=True):
        for name, image in zip(modalities, stack, strict=True):
            if name in case.images and inside.sum() >= FEWEST and np.ptp(image[inside]) == 0:
                raise ValueError(
                    f"case {case.name}, modality {name}: slice {z} is constant in the brain: look at the image, "
                    "then leave the file out or raise least_brain"
                )
    labels = None
    if case.labels is not None:
        labels = torch.from_numpy(canvas.to_slices(raw_labels(regions(case.labels, case.enhancing_label)))[chosen])
    count = len(chosen)
    return Slices(
        torch.from_numpy(images),
        available.expand(count, -1),
        torch.from_numpy(brain),
        labels,
        (case.name,) * count,
        (subject,) * count,
        torch.from_numpy(chosen),
        tuple(modalities),
    )


def _scaled(case: Case, modality: str) -> np.ndarray:
    """(X, Y, Z) float32 in [-1, 1], as the module says."""
    volume = case.images[modality].astype(np.float32)
    low, high = np.percentile(volume, PERCENTILES) if np.isfinite(volume).all() else (np.nan, np.nan)
    if not low < high:
        raise ValueError(
            f"case {case.name}, modality {modality}: the image is constant or not finite between its percentiles "
            f"{PERCENTILES[0]} and {PERCENTILES[1]} ({low:g} and {high:g}): export it again, or leave the file out"
        )
    scaled = (volume.clip(low, high) - low) / (high - low) * 2 - 1
    return np.where(case.brain_mask, scaled, np.float32(-1)).astype(np.float32)


def volumes(case: Case, slices: Slices, images: Tensor) -> dict[str, np.ndarray]:
    """Put images of a case's slices back into its grid, so that a segmenter can be given what was synthesised.

    Args:
        case: as read.
        slices: of this case alone, all that have brain: made with `every=1, least_brain=0`.
        images: (N, M, H, W) in [-1, 1], one for each of the slices.

    Returns:
        Modality name -> (X, Y, Z) float32: (image + 1) / 2 in the brain, so in [0, 1]; 0 outside it.

    Raises:
        ValueError: if the slices are of another case, or some with brain lack.
    """
    if set(slices.case) != {case.name}:
        raise ValueError(f"the slices are of {sorted(set(slices.case))[:3]}, but the case is {case.name}: give its own")
    canvas = Canvas.around(case, (images.shape[-2], images.shape[-1]))
    brain = np.array([one.any() for one in canvas.to_slices(case.brain_mask)])
    if lacking := int(brain.sum()) - len(slices):
        raise ValueError(
            f"case {case.name}: {lacking} of {brain.sum()} slices with brain lack; cut with every=1, least_brain=0"
        )
    placed = np.zeros((len(brain), len(slices.modalities), *canvas.size), dtype=np.float32)
    placed[slices.position.numpy()] = (images.float().cpu().numpy() + 1) / 2
    restored = {name: canvas.to_native(placed[:, index]) for index, name in enumerate(slices.modalities)}
    return {name: volume * case.brain_mask for name, volume in restored.items()}


def patterns(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """The combinations in which something is available and something missing: 2^M - 2, 14 of four and 6 of three."""
    return combinations(modalities)[:-1]


class Masked(Dataset):
    """Batches in which a part of what each slice has is to be synthesised from the rest.

    Every pattern that leaves something available and something missing is equally likely, for each slice apart. The
    images stay complete, for they are the targets too: a network must not read what is not `available`.

    Args:
        batches: `batches[step]` has images, available and case, such as `Minibatches` of `Slices`.
        modalities: M names.
        seed: of the patterns.
        fixed: (M,) bool, the one pattern of a dedicated network; None: all are drawn.

    Each batch also has `acquired` (B, M) bool: only these modalities have a target.
    """

    def __init__(self, batches: Dataset, modalities: Sequence[str], seed: int, fixed: Tensor | None = None):
        self.batches, self.seed = batches, seed
        known = torch.stack([mask(one, modalities) for one in patterns(modalities)])
        self.patterns = known if fixed is None else fixed[None]

    def __getitem__(self, step: int) -> dict:
        """The batch of a step.

        Raises:
            ValueError: if a case has too little for any pattern; names it.
        """
        batch = self.batches[step]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        drawn = []
        for case, acquired in zip(batch["case"], batch["available"], strict=True):
            possible = self.patterns[(self.patterns <= acquired).all(dim=1) & (self.patterns != acquired).any(dim=1)]
            if len(possible) == 0:
                raise ValueError(
                    f"case {case} has {int(acquired.sum())} modalities, of which no pattern asked for leaves "
                    "something available and something to synthesise: leave it out (`Slices.complete`)"
                )
            drawn.append(possible[torch.randint(len(possible), (), generator=generator)])
        return {**batch, "available": torch.stack(drawn), "acquired": batch["available"]}
