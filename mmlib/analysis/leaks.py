"""Four questions that find a network which knows what it cannot know. Each returns what is wrong, in sentences.

- `reads_absent`: does what lies where a modality is missing change the output?
- `beats_ceiling`: does it find more enhancing tumour without t1ce than the images of the phantom hold?
- `shared_cases`: are cases of the test among those of the training, under another name or a little changed?
- `learns_shuffled`: does a training on the labels of other cases still find the tumours?

An empty answer means that nothing was found, not that nothing is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import zoom
from torch import Tensor

from mmlib.analysis.statistics import by_seed_and_case, paired_effects
from mmlib.data.cases import Case, Frame, tensors, zscore
from mmlib.data.phantoms.options import PLAIN, Options
from mmlib.modalities import combinations, label, mask
from mmlib.tasks.any_network import as_segmenter, logits_of
from mmlib.tasks.segmentation import evaluate_combinations

THUMBNAIL = 16  # voxels a side, of what is compared between cases
ALIKE = 0.9  # correlation of thumbnails: of different phantoms up to 0.5, of a noisy copy above 0.99
NOISE = 10.0  # standard deviations of the images


@torch.inference_mode()
def reads_absent(network: Any, case: Case) -> list[str]:
    """Combinations in which noise, or NaN, in place of a missing modality changes the output.

    The network is called as it stands: one whose `forward` takes `available` (or one with `encode` and `decode`) must
    see to it itself. One that takes stacked channels alone knows nothing of what is missing and is never given it here.

    Args:
        network: see `mmlib.tasks.any_network`.
        case: with every modality of the network.
    """
    wrapped = as_segmenter(network, case.modalities)
    raw = getattr(wrapped, "network", None)
    if raw is not None and not wrapped.asks:
        return []
    was_training = network.training
    network.train(False)
    sample, _ = tensors(case, wrapped.modalities, max(wrapped.stride))
    images = sample["images"][None].to(next(network.parameters(), sample["images"]).device)  # 1 M D H W

    def logits(given: Tensor, available: Tensor) -> Tensor:
        if raw is None:
            return wrapped.decode(wrapped.encode(given, available), available)
        return logits_of(raw(given, available))

    noise = NOISE * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    faults = []
    for one in combinations(wrapped.modalities)[:-1]:
        available = mask(one, wrapped.modalities)[None].to(images.device)
        there = available[..., None, None, None]
        clean = logits(torch.where(there, images, 0), available)
        for content, fill in (("noise", noise), ("NaN", torch.full_like(images, torch.nan))):
            if not torch.equal(logits(torch.where(there, images, fill), available), clean):
                faults.append(f"{label(one, wrapped.modalities)}: {content} in a missing modality changes the output")
    network.train(was_training)
    return faults


def phantom_limits(cases: Iterable[str], spacing: float, options: Options = PLAIN) -> dict[str, float]:
    """Phantom, such as `phantom-0120` -> the highest Dice for enhancing tumour without t1ce, in [0, 1].

    See `mmlib.data.phantoms.brain.ceiling_without_t1ce`.

    Args:
        cases: whose number is the seed.
        spacing: of their grid, mm.
        options: what they were made with.
    """
    from mmlib.data.phantoms.brain import ceiling_without_t1ce, make_tissues  # packages that the library does without

    tissues = {name: make_tissues(int(name.rpartition("-")[2]), spacing, options=options) for name in cases}
    return {name: ceiling_without_t1ce(one, options.predictable) for name, one in tissues.items()}


def beats_ceiling(
    scores: pd.DataFrame, limits: Mapping[str, float], blind: str = "t1ce", target: str = "et"
) -> list[str]:
    """Combinations without a modality whose Dice lies above what the other images hold.

    Args:
        scores: of `evaluate_combinations`, with a column `seed` where there are several.
        limits: case -> the highest Dice without the modality, in [0, 1]; of phantoms `phantom_limits`.
        blind: the modality.
        target: the region that it alone shows.

    Returns:
        The combinations whose interval, 95 % for all of them together, lies above the mean limit.

    Raises:
        KeyError: if there is no limit for a case.
    """
    rows = scores[scores["metric"].eq("dice") & scores["target"].eq(target)]
    rows = rows[[blind not in one.split("+") for one in rows["available"]]]
    rows = rows if "seed" in rows else rows.assign(seed=0)
    names = list(dict.fromkeys(rows["available"]))
    tables = [by_seed_and_case(rows[rows["available"].eq(one)]) for one in names]
    known = [table * 0 + np.array([limits[case] for case in table.columns]) for table in tables]
    effects = paired_effects(list(zip(tables, known, strict=True))) if tables else []
    return [
        f"{name}: {target} Dice lies {100 * one.effect:.1f} points above the ceiling "
        f"({100 * one.family_low:.1f} to {100 * one.family_high:.1f})"
        for name, one in zip(names, effects, strict=True)
        if one.family_low > 0
    ]


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """The box of an image, z-scored, as few voxels: what a copy shares with it, whatever its grid and scale."""
    inside = image != 0
    box = Frame.around(inside).to_box(zscore(image, inside))
    small = zoom(box, [THUMBNAIL / side for side in box.shape], order=1, grid_mode=True, mode="nearest").ravel()
    return (small - small.mean()) / small.std()


def shared_cases(train: Mapping[str, Case], test: Mapping[str, Case]) -> list[str]:
    """Cases of the test that look like one of the training in a modality; those of one name count too.

    Scaled, shifted, cropped to the brain, resampled or noisy copies are found; mirrored or turned ones are not.

    Args:
        train, test: by name; read one at a time.
    """
    faults = [f"{name} is in both" for name in test if name in train]
    known: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name in train:
        for kind, image in train[name].images.items():
            known.setdefault(kind, []).append((name, _thumbnail(image)))
    for name in test:
        for kind, image in test[name].images.items():
            if kind not in known:
                continue
            alike = np.stack([one for _, one in known[kind]]) @ _thumbnail(image) / THUMBNAIL**3
            best = int(alike.argmax())
            other = known[kind][best][0]
            if alike[best] > ALIKE and other != name:
                faults.append(f"{name} looks like {other} of the training in {kind} (correlation {alike[best]:.3f})")
                break
    return faults


def shuffled(cases: Mapping[str, Case]) -> dict[str, Case]:
    """The cases, each with the labels of the next one.

    Raises:
        ValueError: if there are fewer than two, one has no labels, or two lie on different grids.
    """
    names = list(cases)
    if len(names) < 2:
        raise ValueError(f"labels of {len(names)} cases cannot be shuffled: give at least two")
    found = {}
    for name, other in zip(names, [*names[1:], names[0]], strict=True):
        one, labels = cases[name], cases[other].labels
        if labels is None or labels.shape != next(iter(one.images.values())).shape:
            raise ValueError(f"case {other} has no labels on the grid of {name}: bring all cases to one grid first")
        found[name] = replace(one, labels=labels)
    return found


def learns_shuffled(
    train: Callable[[Mapping[str, Case]], Any],
    cases: Mapping[str, Case],
    test: Mapping[str, Case],
    target: str = "wt",
    margin: float = 0.1,
) -> list[str]:
    """Whether a network that was trained on shuffled labels finds tumours better than one marking for all cases does.

    Args:
        train: cases -> network: the reader's whole training, data pipeline included.
        cases: for training; their labels are shuffled here.
        test: with their own labels, on the grid of the others.
        target: the region that is scored.
        margin: of mean Dice, what it may lie above by chance.

    Raises:
        ValueError: as `shuffled`.
    """
    network = train(shuffled(cases))
    scores = evaluate_combinations(network, test, [next(iter(test.values())).modalities], hausdorff=False)
    reached = float(scores.loc[scores["target"].eq(target), "value"].mean())
    masks = np.stack([one.regions[one.targets.index(target)] for one in test.values()])
    chance = best_fixed_marking(masks)
    if reached <= chance + margin:
        return []
    return [f"trained on labels of other cases: {target} Dice {reached:.2f}; one marking for all cases: {chance:.2f}"]


def best_fixed_marking(masks: np.ndarray) -> float:
    """The highest mean Dice of one marking that is the same for all subjects: a level set of how often tumour is there.

    Args:
        masks: (N, X, Y, Z) bool, the tumours; empty ones are left out.

    Returns:
        In [0, 1]. It is found on the subjects that it is scored on, so it errs upwards.

    Raises:
        ValueError: if no mask holds anything.
    """
    flat = masks.reshape(len(masks), -1)
    flat = flat[flat.any(axis=1)]
    if not len(flat):
        raise ValueError("none of the masks holds a tumour")
    chance = flat.mean(axis=0)
    scores = []
    for cut in np.unique(np.quantile(chance[chance > 0], np.linspace(0, 0.995, 25))):
        marked = chance >= cut
        scores.append((2 * flat[:, marked].sum(axis=1) / (flat.sum(axis=1) + marked.sum())).mean())
    return float(max(scores))


def examine(network: Any, case: Case, scores: pd.DataFrame, limits: Mapping[str, float]) -> Sequence[str]:
    """What `reads_absent` and `beats_ceiling` find; the other two questions need the training."""
    return [*reads_absent(network, case), *(beats_ceiling(scores, limits) if limits else [])]
