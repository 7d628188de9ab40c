"""A made-up case for the explorer, and two networks: without t1ce they find half of what enhances, or nothing.

And lesions, with networks of which each knows some of the diagnoses.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from mmlib.data.cases import Case
from mmlib.data.derm7pt import TASKS
from mmlib.data.phantoms.lesion.model import FIRST, draw
from mmlib.figures.explorer import Explored, Filled, Fixed
from mmlib.modalities import MRI, combinations, label
from mmlib.studies.lesions import Answers
from mmlib.tasks.segmentation import dice

ARMS = {"shaspec paper": 0.5, "dropout-unet": 0.0}
FIXED = {"teacher": Fixed("teacher", "#CC79A7", "t1+t1ce+t2+flair"), "protokd": Fixed("student", "#009E73", "t1")}
LABELS = [label(names, MRI) for names in combinations(MRI)]


def case(name: str = "made-1") -> Case:
    """A brain of 10 x 8 x 6 voxels of 2 x 3 x 4 mm with a tumour whose rim is bright in t1ce alone."""
    brain = np.zeros((12, 14, 10), bool)
    brain[1:-1, 3:-3, 2:-2] = True
    labels = np.zeros(brain.shape, int)
    labels[2:8, 4:9, 3:7], labels[3:7, 5:8, 4:6], labels[3:7, 5:7, 4:6] = 2, 1, 4
    slope = np.indices(brain.shape).sum(axis=0)
    images = {kind: np.where(brain, 100.0 + slope + 50 * (labels > 0) * (kind != "t1"), 0.0) for kind in MRI}
    images["t1ce"] = np.where(brain, 100.0 + slope + 100 * (labels == 4), 0.0)
    return Case(name, images, np.diag([2.0, 3.0, 4.0, 1.0]), labels, enhancing_label=4)


def filled() -> Filled:
    """A slice of 4 x 5 pixels, and a network that makes every missing image grey, with the same error."""
    acquired = {kind: np.linspace(-1, 1, 20).reshape(4, 5) for kind in MRI}
    grey = np.zeros((4, 5))
    made = {have: {kind: (grey, 12.34) for kind in MRI if kind not in have.split("+")} for have in LABELS[:-1]}
    return Filled(3, acquired, {"regression unet": made})


def closer(one: Case) -> Case:
    """The same in voxels of half the size, without the last slice; there, t1 is brighter at the back of each voxel."""
    fine = {kind: image.repeat(2, 0).repeat(2, 1).repeat(2, 2)[..., :-1] for kind, image in one.images.items()}
    fine["t1"][:, ::2] += 30 * (fine["t1"][:, ::2] > 0)
    affine = one.affine / 2
    affine[:3, 3] = one.affine[:3, 3] - np.diag(affine)[:3] / 2
    affine[3, 3] = 1
    labels = np.asarray(one.labels).repeat(2, 0).repeat(2, 1).repeat(2, 2)[..., :-1]
    return replace(one, images=fine, affine=affine, labels=labels)


def explored(name: str = "made-1", why: str = "easy", rule: str = "the first one", finer: bool = False) -> Explored:
    """With t1ce all is found; without it the share of `ARMS` of what enhances."""
    one = case(name)
    truth = one.regions
    predicted: dict[str, dict[str, np.ndarray]] = {}
    for arm, share in ARMS.items():
        blind = truth.copy()
        voxels = np.argwhere(truth[2])
        for voxel in voxels[round(share * len(voxels)) :]:
            blind[(2, *voxel)] = False
        predicted[arm] = {have: (truth if "t1ce" in have.split("+") else blind).copy() for have in LABELS}
    predicted["teacher"] = {LABELS[-1]: truth}  # which reads all images
    predicted["protokd"] = {"t1": predicted["dropout-unet"]["t1"]}  # which reads t1 alone
    scored = {
        arm: {
            have: dice(torch.from_numpy(found)[None], torch.from_numpy(truth))[0].tolist() for have, found in by.items()
        }
        for arm, by in predicted.items()
    }
    return Explored(one, why, rule, predicted, scored, 0.6, filled(), closer(one) if finer else None)


def means() -> dict[str, dict[str, list[float]]]:
    whole = {arm: {have: [0.9, 0.8, 0.7 if "t1ce" in have else 0.4] for have in LABELS} for arm in ARMS}
    return whole | {"teacher": {LABELS[-1]: [0.9, 0.8, 0.7]}, "protokd": {"t1": [0.7, 0.6, 0.2]}}


KNOWN = {
    "inferior": "1100110",
    "combined": "1010110",
    "both": "1111010",
}  # case by case, whether the diagnosis is right


def answers() -> Answers:
    """Seven test lesions of the phantom: signs are told rightly, and diagnoses as `KNOWN` says; always with 70 %."""
    case = [str(FIRST["test"] + place) for place in range(7)]
    labels = np.array([list(draw(int(name)).labels.values()) for name in case])
    predicted, probabilities = {}, {}
    for row, right in KNOWN.items():
        predicted[row] = labels.copy()
        predicted[row][:, 0] = np.where(np.array(list(right)) == "1", labels[:, 0], (labels[:, 0] + 1) % 5)
        parts = []
        for column, classes in enumerate(TASKS.values()):
            part = np.full((len(case), len(classes)), 0.3 / (len(classes) - 1), dtype=np.float32)
            np.put_along_axis(part, predicted[row][:, [column]], 0.7, axis=1)
            parts.append(part)
        probabilities[row] = np.concatenate(parts, axis=1)
    return Answers("s0, seed 0", tuple(case), labels, predicted, probabilities)


def lesion_scores() -> pd.DataFrame:
    """Balanced accuracy of two seeds, 0.5 and 0.6 for every row and task."""
    rows = [(row, seed, task, "balanced", 0.5 + seed / 10) for row in KNOWN for seed in (0, 1) for task in TASKS]
    return pd.DataFrame(rows, columns=["variant", "seed", "target", "metric", "value"])
