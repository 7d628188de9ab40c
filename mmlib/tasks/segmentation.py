"""Segmentation from any combination: the task loss, and scores of every combination, region and whole volume.

What a `Segmenter` encodes does not depend on the combination that is decoded later, so a case is encoded once and
decoded 2^M - 1 times. Combinations whose images show the brain in the same box share an encoding: that is all of them
where the case was skull-stripped by one mask. What a combination is given never depends on an image outside it.

Dice of two empty masks is 1. The 95th percentile of the Hausdorff distance (HD95, mm) of two empty masks is 0, and NaN
where one of the two is empty: no distance is defined.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from monai.data.utils import dense_patch_slices
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss
from monai.metrics import compute_hausdorff_distance
from torch import Tensor
from tqdm.auto import tqdm

from mmlib import modalities as names
from mmlib.data.cases import REGIONS, Case, Frame, Orientation, box_of, tensors, usable
from mmlib.modalities import MRI
from mmlib.tasks.any_network import Sample, as_segmenter, samples

WINDOW = 128  # voxels a side, where the training crops of a network are not known
OVERLAP = 1 / 3  # of neighbouring windows, as in the released ShaSpec code
DECODED_VOXELS = 4_000_000  # combinations are decoded side by side up to this many voxels
_dice = DiceLoss(sigmoid=True, smooth_nr=0, smooth_dr=1)


def segmentation_loss(logits: Tensor, regions: Tensor) -> Tensor:
    """Dice loss, mean over regions, plus binary cross-entropy, summed over regions (released ShaSpec code).

    The paper names Dice only. Per case and region Dice = 2 sum(p t) / (sum(p) + sum(t) + 1): no squares, and the 1 in
    the denominator alone, so that an empty region keeps a cost of 1 whatever is predicted.

    Args:
        logits: (B, R, D, H, W), one sigmoid a region.
        regions: (B, R, D, H, W), bool or {0, 1}.

    Returns:
        A scalar, computed in fp32 or better.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    target = regions.to(logits.dtype)
    # the cross-entropy is a mean over B R D H W: times R it is summed over regions
    return _dice(logits, target) + F.binary_cross_entropy_with_logits(logits, target) * logits.shape[1]


class Segmenter(Protocol):
    """What a network offers to be evaluated; every method of the book does, as an `nn.Module`.

    Attributes:
        modalities: M names, the order of the modality axis.
        stride: the grid must be divisible by it, (D, H, W).
        training: as in `nn.Module`.
    """

    modalities: tuple[str, ...]
    stride: tuple[int, int, int]
    training: bool

    def encode(self, images: Tensor, available: Tensor) -> Any:
        """(1, M, D, H, W) and (1, M) bool -> whatever `decode` takes."""

    def decode(self, encoding: Any, available: Tensor) -> Tensor:
        """The encoding of one case and (K, M) bool -> logits (K, R, D, H, W)."""

    def parameters(self) -> Iterator[Any]:
        """The weights, as in `nn.Module`."""

    def train(self, mode: bool = True) -> Any:
        """As in `nn.Module`."""


@torch.inference_mode()
def probabilities(
    model: Segmenter,
    images: Tensor,
    available: Tensor,
    window: int | Sequence[int] | None = None,
    overlap: float = OVERLAP,
) -> Tensor:
    """Predict one case in several combinations, by sliding windows where the volume is larger than `window`.

    Instance norm takes its statistics from what it is shown: in a whole volume a network that has learned on crops
    meets others than it has learned with.

    Args:
        model: in evaluation mode.
        images: (M, D, H, W).
        available: (K, M) bool, the combinations; all of their modalities must be acquired.
        window: side of a window, a multiple of the network's stride; None: `model.window`, the training crop's, where
            the network has it, else 128.
        overlap: share of a window that its neighbour covers too; probabilities are averaged there.

    Returns:
        (K, R, D, H, W) probabilities in [0, 1], on the CPU.
    """
    names.check_available(available, model.modalities)
    device = next(model.parameters(), images).device  # a rule has no parameters
    acquired = available.any(dim=0)  # M
    grid = images.shape[1:]
    stride = model.stride
    asked = getattr(model, "window", WINDOW) if window is None else window
    sides = [asked] * 3 if isinstance(asked, int) else asked
    roi = [min(side, -(-size // step) * step) for side, size, step in zip(sides, grid, stride, strict=True)]
    # MONAI rounds the step between windows down, the released code up; the half keeps MONAI's product off an integer
    strides = [math.ceil(side * (1 - overlap)) for side in roi]
    shares = [max(0.0, 1 - (step + 0.5) / side) for step, side in zip(strides, roi, strict=True)]
    together = max(1, DECODED_VOXELS // int(np.prod(roi)))

    def predict(patch: Tensor) -> Tensor:
        encoding = model.encode(patch, acquired[None].to(device))  # in: 1 M d h w, 1 M
        # k R d h w each, k combinations at a time
        decoded = [model.decode(encoding, part.to(device)).sigmoid() for part in available.split(together)]
        return torch.cat(decoded).flatten(0, 1)[None]  # K R d h w -> K*R d h w -> 1 K*R d h w

    flat = sliding_window_inference(  # 1 M D H W -> 1 K*R D H W
        images[None], roi, 1, predict, overlap=shares, sw_device=device, device=torch.device("cpu")
    )
    return flat[0].unflatten(0, (len(available), -1))  # K R D H W


def evaluate_combinations(
    model: Any,
    cases: Iterable[Case | Mapping[str, Any]] | Mapping[str, Case],
    combinations: Sequence[Sequence[str]] | None = None,
    *,
    regions: Sequence[str] = (),
    window: int | Sequence[int] | None = None,
    hausdorff: bool = True,
    calibration: bool = False,
) -> pd.DataFrame:
    """Score a network on whole volumes, for every combination of the modalities that a case has.

    Args:
        model: a `Segmenter`, or any `nn.Module`: see `mmlib.tasks.any_network`.
        cases: with labels; a mapping by name is read one case at a time. Or dictionaries, as a data set or a loader of
            MONAI gives them: these go to the network as they are, see `mmlib.tasks.any_network.samples`.
        combinations: modality names each; None: all 2^M - 1.
        regions: what the outputs of the network mark, in their order; empty: the regions of the cases.
        window: see `probabilities`.
        hausdorff: compute HD95 too, the slower half of the metrics.
        calibration: compute `calibration_error` (ece) and `entropy` in the brain and in the tumour too.

    Scores are of the whole grid of the case, whatever the box.

    Returns:
        Tidy: case, available (label of the combination), target (a region of the case: wt, tc, et, or lesion), metric
        (dice in [0, 1], hd95 in mm; ece in [0, 1], entropy and entropy-inside in bits), value. Combinations with a
        modality that a case lacks are left out for that case.

    Raises:
        ValueError: if a case has no labels or is stored along other axes than the first, if the network has not one
            output for each region or refuses the images, or if nothing at all could be scored.
    """
    every = (cases[name] for name in cases) if isinstance(cases, Mapping) else cases
    total = len(cases) if isinstance(cases, Sized) else None
    wanted = None if combinations is None else [tuple(one) for one in combinations]
    rows: list[tuple] = []
    orientation = Orientation()
    was_training = model.training
    model.train(False)
    for item in tqdm(every, total=total, desc="evaluate", mininterval=10):
        if isinstance(item, Case):
            orientation.check(item.name, item.axes)
            network = as_segmenter(model, item.modalities)
            found = _of_case(network, item, wanted, regions, window, calibration)
        elif isinstance(item, Mapping):
            batch = samples(item, tuple(regions) or REGIONS, len({row[0] for row in rows}))
            found = _of_samples(as_segmenter(model, MRI), batch, wanted, tuple(regions) or REGIONS, window)
        else:
            raise ValueError(f"cases must be `Case` or dictionaries with image and label; got {type(item).__name__}")
        for one in found:
            if len(one.marked) != len(one.targets):
                raise ValueError(
                    f"case {one.case}: the network has {len(one.marked)} outputs, but the regions are "
                    f"{', '.join(one.targets)}: name those that it marks, in their order, with regions=(...)"
                )
            marked = one.marked > 0.5  # R ...
            overlap = dice(marked[None], one.truth)[0]  # R
            for region, target in enumerate(one.targets):
                rows.append((one.case, one.available, target, "dice", float(overlap[region])))
                if hausdorff:
                    value = hd95(marked[region], one.truth[region], one.spacing)
                    rows.append((one.case, one.available, target, "hd95", value))
                if calibration:
                    share, true = one.marked[region].double(), one.truth[region]
                    tumour = entropy(share[one.truth.any(dim=0)])
                    rows.append((one.case, one.available, target, "ece", calibration_error(share, true, one.inside)))
                    rows.append((one.case, one.available, target, "entropy", entropy(share[one.inside])))
                    rows.append((one.case, one.available, target, "entropy-inside", tumour))
    model.train(was_training)
    if not rows:
        raise ValueError(f"nothing to score: no case has all modalities of one of {wanted or 'its combinations'}")
    return pd.DataFrame(rows, columns=["case", "available", "target", "metric", "value"])


class _Scored(NamedTuple):
    """What was marked of a case in one combination, and the truth: (R, ...), spacing in mm.

    Marked is bool, or probabilities where they are asked for; truth is bool; `inside` (...) bool is the brain.
    """

    case: str
    available: str
    targets: Sequence[str]
    marked: Tensor
    truth: Tensor
    inside: Tensor
    spacing: Sequence[float]


def shares_of(
    model: Segmenter,
    case: Case,
    combinations: Sequence[tuple[str, ...]] | None = None,
    window: int | Sequence[int] | None = None,
    whole: bool = False,
) -> dict[tuple[str, ...], Tensor]:
    """What a network marks of a case in every combination that the case has.

    Args:
        model, combinations, window: as `evaluate_combinations`; the model is in evaluation mode.
        whole: give probabilities; else where they are above one half.

    Returns:
        Combination -> (R, X, Y, Z) on the grid of the case, in the order of the combinations.
    """
    wanted = names.combinations(model.modalities) if combinations is None else combinations
    possible = [one for one in wanted if all(name in case.images for name in one)]
    boxes: dict[Frame, list[tuple[str, ...]]] = {}
    for one in possible:
        boxes.setdefault(box_of(case, one), []).append(one)
    predicted: dict[tuple[str, ...], Tensor] = {}
    for frame, together in boxes.items():
        used = usable(case, model.modalities, sum(together, ()))
        sample, _ = tensors(case, model.modalities, combination=used)
        available = torch.stack([names.mask(one, model.modalities) for one in together])  # K M
        found = probabilities(model, sample["images"], available, window)  # K R D H W
        for one, part in zip(together, found if whole else found > 0.5, strict=True):
            predicted[one] = torch.from_numpy(frame.to_native(part.numpy()))  # R X Y Z
    return {one: predicted[one] for one in possible}


def _of_case(
    model: Segmenter,
    case: Case,
    combinations: Sequence[tuple[str, ...]] | None,
    regions: Sequence[str],
    window: int | Sequence[int] | None,
    calibration: bool,
) -> Iterator[_Scored]:
    """A case in every combination that it has: what shows the brain in the same box is predicted together."""
    if case.labels is None:
        raise ValueError(f"case {case.name} has no labels, so it cannot be scored: leave it out, or use `predict`")
    targets = tuple(regions) or case.targets
    if unknown := [name for name in targets if name not in case.targets]:
        raise ValueError(f"case {case.name} has the regions {', '.join(case.targets)}, not {', '.join(unknown)}")
    predicted = shares_of(model, case, combinations, window, whole=calibration)
    truth = torch.from_numpy(case.regions)[[case.targets.index(name) for name in targets]]  # R X Y Z
    inside = torch.from_numpy(case.brain_mask)
    for one, share in predicted.items():
        label = names.label(one, case.modalities)
        yield _Scored(case.name, label, targets, share, truth, inside, case.spacing)


def _of_samples(
    model: Segmenter,
    cases: Iterable[Sample],
    combinations: Sequence[tuple[str, ...]] | None,
    targets: Sequence[str],
    window: int | Sequence[int] | None,
) -> Iterator[_Scored]:
    """As `_of_case`, of images that go to the network as they are."""
    order = model.modalities
    for one in cases:
        if len(one.images) != len(order):
            raise ValueError(f"case {one.case} has {len(one.images)} images, but the network takes {'+'.join(order)}")
        every = names.combinations(order) if combinations is None else combinations
        masks = {names.label(each, order): names.mask(each, order) for each in every}
        possible = {label: mask for label, mask in masks.items() if not (mask & ~one.available).any()}
        if possible:
            found = probabilities(model, one.images, torch.stack(list(possible.values())), window)  # K R D H W
            inside = (one.images[one.available] != 0).any(dim=0).cpu()
            for label, marked in zip(possible, found, strict=True):
                yield _Scored(one.case, label, targets, marked, one.truth.cpu(), inside, one.spacing)


def watched_dice(cases: Iterable[Case], combination: Sequence[str] | None = None) -> Callable[[Segmenter], float]:
    """A validation score to stop by: mean Dice in [0, 1] over cases, regions and combinations.

    Args:
        cases: with labels, and every modality that is asked for.
        combination: what the network is trained with, where that is always the same; None: the combinations are all
            modalities and each alone.

    Returns:
        network in evaluation mode -> score.
    """
    prepared: dict[tuple[str, ...], list[dict]] = {}

    def score(model: Segmenter) -> float:
        order = model.modalities
        wanted = [tuple(order), *((name,) for name in order)] if combination is None else [tuple(combination)]
        available = torch.stack([names.mask(one, order) for one in wanted])  # K M
        samples = prepared.setdefault(order, [tensors(case, order)[0] for case in cases])
        values = [dice(probabilities(model, one["images"], available) > 0.5, one["regions"]).mean() for one in samples]
        return float(torch.stack(values).mean())

    return score


@torch.inference_mode()
def predict(
    model: Segmenter, case: Case, combination: Sequence[str] | None = None, *, window: int | Sequence[int] | None = None
) -> np.ndarray:
    """Segment one case from what it has.

    Args:
        combination: the modalities to use, the others are not read; None: all that the case and the model share.

    Returns:
        (R, X, Y, Z) bool on the grid of the case's own arrays.

    Raises:
        ValueError: if the case has none of the model's modalities, or lacks one of `combination`.
    """
    if combination is not None:
        names.mask(combination, model.modalities)
        lacking = [name for name in combination if name not in case.images]
        if lacking:
            raise ValueError(f"case {case.name} lacks {lacking}; it has {sorted(case.images)}")
    sample, frame = tensors(case, model.modalities, combination=combination)
    was_training = model.training
    model.train(False)
    probability = probabilities(model, sample["images"], sample["available"][None], window)[0]  # 1 R D H W -> R D H W
    model.train(was_training)
    return frame.to_native((probability > 0.5).numpy())


def dice(predicted: Tensor, truth: Tensor) -> Tensor:
    """Dice per combination and region, 2 |P and T| / (|P| + |T|); 1 where both are empty.

    Args:
        predicted: (K, R, D, H, W) bool.
        truth: (R, D, H, W) bool.

    Returns:
        (K, R) in [0, 1].
    """
    space = (-3, -2, -1)
    both = (predicted & truth).sum(space).double()  # K R; the truth is broadcast over K
    total = (predicted.sum(space) + truth.sum(space)).double()
    return torch.where(total > 0, 2 * both / total, 1.0)


def calibration_error(probability: Tensor, truth: Tensor, inside: Tensor, bins: int = 15) -> float:
    """Expected calibration error of one region: how far probabilities lie from frequencies, weighted by how many.

    Guo et al., On calibration of modern neural networks, ICML 2017, for a probability of its own each voxel.

    Args:
        probability: (...) in [0, 1].
        truth: (...) bool.
        inside: (...) bool, the voxels that count.
        bins: of equal width.

    Returns:
        In [0, 1]; NaN where no voxel counts.
    """
    share, true = probability[inside].double(), truth[inside].double()
    if not len(share):
        return float("nan")
    place = (share * bins).long().clamp(max=bins - 1)
    sums = torch.zeros(2, bins, dtype=torch.float64)
    sums[0].index_add_(0, place, share)
    sums[1].index_add_(0, place, true)
    return float((sums[0] - sums[1]).abs().sum() / len(share))


def entropy(probability: Tensor) -> float:
    """Mean entropy of voxels that are region or not, bits in [0, 1]; NaN of no voxel."""
    share = probability.double()
    return float(-(share.xlogy(share) + (1 - share).xlogy(1 - share)).mean() / math.log(2))


def hd95(predicted: Tensor, truth: Tensor, spacing: Sequence[float]) -> float:
    """95th percentile of the symmetric surface distance, mm; 0 where both masks are empty, NaN where one is.

    Args:
        predicted: (D, H, W) bool.
        truth: (D, H, W) bool.
        spacing: voxel size along the axes, mm.
    """
    if not predicted.any() or not truth.any():
        return float("nan") if predicted.any() or truth.any() else 0.0
    found, true = (mask[None, None].float() for mask in (predicted, truth))  # 1 1 D H W each
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges", FutureWarning)  # MONAI's own call
        return float(compute_hausdorff_distance(found, true, True, percentile=95, spacing=list(spacing)))


@torch.inference_mode()
def pooled_features(model: Segmenter, cases: Iterable[Case]) -> dict[str, np.ndarray]:
    """Spatial means of the shared and the specific features of every modality, from complete cases; on the CPU.

    A volume is encoded window by window, as it is predicted (see `probabilities`).

    Args:
        model: its `encode` returns `shared` and `specific`, each (1, M, C, d, h, w).
        cases: with every modality of the model; others are left out.

    Returns:
        `shared` and `specific` -> (n, M, C).
    """
    found: dict[str, list[np.ndarray]] = {"shared": [], "specific": []}
    device = next(model.parameters()).device
    for case in cases:
        sample, _ = tensors(case, model.modalities, max(model.stride))
        if not sample["available"].all():
            continue
        grid, available = sample["images"].shape[1:], sample["available"][None].to(device)
        asked = getattr(model, "window", WINDOW)
        sides = [min(one) for one in zip([asked] * 3 if isinstance(asked, int) else asked, grid, strict=True)]
        windows = [sample["images"][(slice(None), *place)] for place in dense_patch_slices(grid, sides, sides)]
        encodings = [model.encode(window[None].to(device), available) for window in windows]  # in: 1 M d h w, 1 M
        for name, rows in found.items():
            means = [getattr(one, name)[0].mean(dim=(-3, -2, -1)) for one in encodings]  # M C d h w -> M C
            rows.append(torch.stack(means).mean(dim=0).cpu().numpy())
    return {name: np.stack(rows) for name, rows in found.items()}  # n M C each
