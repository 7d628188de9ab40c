"""ProtoKD: prototype and pixel-wise distillation of a four-modality teacher into a student of one modality.

Paper: Shuai Wang, Zipei Yan, Daoan Zhang, Haining Wei, Zhongsen Li, Rui Li, "Prototype Knowledge Distillation for
Medical Segmentation with Missing Modality", ICASSP 2023, arXiv 2303.09830. Implemented: the task loss, pixel-wise
distillation, the map of intra- and inter-class feature variation (I2FV) and its distillation. Released code consulted
through a written description: SakurajimaMaiii/ProtoKD; nothing of it is copied. The V-Net is in
`mmlib.networks.vnet`, the task loss and what other distilling methods share in `mmlib.tasks.distillation`.

What differs
- The released student keeps its learning rate while its baseline decays (1 - progress)^0.9; here both decay, and
  `constant` is a variant of both. Weights (10 and 0.1) and temperature (10) are defaults of the released code;
  whether the paper states the same is UNVERIFIED.
- The released code draws crops unseeded; here every draw is seeded.
- A class that some sample of a batch lacks is left out for the whole batch, as released; `per_sample` leaves it out of
  that sample alone.
- Optimiser steps, crops and widths belong to the run, not to this file.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlib.networks.vnet import VNet as VNet
from mmlib.tasks.distillation import CLASSES, Prediction, Teaching, check_labels, check_pair, softened_divergence
from mmlib.tasks.distillation import segmentation_loss as segmentation_loss

EPS = 1e-5  # of prototypes and norms, as released
REDUCTIONS = ("element_mean", "voxel_mean")


@dataclass(frozen=True)
class Variant:
    """The settings of the distillation; the defaults are those of the released code, with the baseline's schedule.

    Attributes:
        pixel: weight of the pixel-wise term.
        prototype: weight of the prototype term.
        temperature: of the pixel-wise term.
        squared: multiply the pixel-wise term by the squared temperature, as is usual elsewhere.
        schedule: of the learning rate: `poly`, or `constant` as released.
        reduction, per_sample: see `pixel_kd_loss` and `prototype_kd_loss`.
    """

    pixel: float = 10.0
    prototype: float = 0.1
    temperature: float = 10.0
    squared: bool = False
    schedule: str = "poly"
    reduction: str = "element_mean"
    per_sample: bool = False


VARIANTS = {
    "standard": Variant(),
    "constant": Variant(schedule="constant"),
    "voxel-mean": Variant(reduction="voxel_mean"),
    "per-sample": Variant(per_sample=True),
    "pixel": Variant(prototype=0),
    "prototype": Variant(pixel=0),
    "temperature-1": Variant(temperature=1),
    "temperature-2": Variant(temperature=2),
    "temperature-5": Variant(temperature=5),
    "temperature-2-squared": Variant(temperature=2, squared=True),
    "temperature-5-squared": Variant(temperature=5, squared=True),
    "temperature-10-squared": Variant(squared=True),
    # the same student; the profile names another teacher
    "half-teacher": Variant(),
    "quarter-teacher": Variant(),
    "shuffled-teacher": Variant(),
}


def pixel_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 10.0,
    reduction: str = "element_mean",
    squared: bool = False,
) -> Tensor:
    """Kullback-Leibler divergence of the student's from the teacher's softened class probabilities, KL(q_t || q_s).

    Args:
        student_logits: (N, K, D, H, W).
        teacher_logits: the same shape; gets no gradient.
        temperature: divides the logits; above 0.
        reduction: `element_mean` divides by N K V as released, `voxel_mean` by N V as is usual (K times as much).
        squared: multiply by the squared temperature (Hinton et al., arXiv 1503.02531); the released code does not.

    Returns:
        A scalar, at least 0, in fp32 or better.

    Raises:
        ValueError: if the shapes differ, the reduction is unknown or the temperature is not positive.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {REDUCTIONS}; got {reduction!r}")
    divergence = softened_divergence(student_logits, teacher_logits, temperature)  # N K D H W, terms of KL(q_t || q_s)
    loss = divergence.mean() if reduction == "element_mean" else divergence.sum(1).mean()
    return loss * temperature**2 if squared else loss


def _members(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """(N, D, H, W) -> (N, K, V), 1 where a voxel is of a class."""
    return F.one_hot(labels.flatten(1), num_classes).transpose(1, 2).to(dtype)  # N V -> N V K -> N K V


def prototypes(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean feature vector of every class in every sample, under the true labels.

    Args:
        features: (N, C, D, H, W).
        labels: (N, 1, D, H, W) or (N, D, H, W), integers below `num_classes`.
        num_classes: K, background included.

    Returns:
        (N, K, C); zero where a sample lacks the class.

    Raises:
        ValueError: if the labels are of another size or lie outside the classes.
    """
    members = _members(check_labels(labels, features, num_classes), num_classes, features.dtype)  # N K V
    sums = torch.einsum("nkv,ncv->nkc", members, features.flatten(2))  # N K V, N C V -> N K C
    return sums / (members.sum(2, keepdim=True) + EPS)  # the prototype of a class: N K C / N K 1 -> N K C


def i2fv(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Map of intra- and inter-class feature variation: cosine of every voxel's feature with every class prototype.

    Both are normalised first, so that one matrix product of (K, C) and (C, V) per sample gives the map, and no tensor
    over classes, channels and voxels is ever held.

    Args:
        features: (N, C, D, H, W).
        labels: (N, 1, D, H, W) or (N, D, H, W), integers below `num_classes`.
        num_classes: K, background included.

    Returns:
        (N, K, D, H, W) in [-1, 1], in [0, 1] for features that are not negative; 0 for a class that a sample lacks.

    Raises:
        ValueError: as `prototypes`.
    """
    centres = F.normalize(prototypes(features, labels, num_classes), dim=2, eps=EPS)  # N K C
    flat = features.flatten(2)  # N C V
    length = flat.square().sum(1, keepdim=True).clamp(min=EPS**2).sqrt()  # N 1 V
    return (torch.bmm(centres, flat) / length).unflatten(2, features.shape[2:])  # the I2FV map: N K V -> N K D H W


def prototype_kd_loss(
    student_features: Tensor, teacher_features: Tensor, labels: Tensor, num_classes: int, per_sample: bool = False
) -> Tensor:
    """Mean squared difference of the student's and the teacher's I2FV maps.

    The gradient reaches the student through its features and through its prototypes.

    Args:
        student_features: (N, C, D, H, W).
        teacher_features: (N, C', D, H, W); gets no gradient.
        labels: (N, 1, D, H, W) or (N, D, H, W), integers below `num_classes`.
        num_classes: K, background included.
        per_sample: count a class in every sample that has it, not only where all samples of the batch have it.

    Returns:
        A scalar, at least 0, in fp32 or better.

    Raises:
        ValueError: if features or labels differ in size, or no class is in every sample of the batch.
    """
    check_pair(student_features[:, 0], teacher_features[:, 0], "feature grids")
    labels = check_labels(labels, student_features, num_classes)
    present = torch.stack([(labels == one).flatten(1).any(1) for one in range(num_classes)], dim=1)  # N K
    kept = present if per_sample else present.all(0).expand_as(present)  # N K
    if not kept.any():
        raise ValueError(
            f"none of the {num_classes} classes is in every sample of the batch: take larger crops, or per_sample=True"
        )
    kind = torch.promote_types(student_features.dtype, torch.float32)
    with torch.autocast(labels.device.type, enabled=False):  # cosines near 1 differ by less than bfloat16 can tell
        with torch.no_grad():
            known = i2fv(teacher_features.to(kind), labels, num_classes)
        found = i2fv(student_features.to(kind), labels, num_classes)  # N K D H W
    return ((found - known).square().flatten(2).mean(2) * kept).sum() / kept.sum()  # N K V -> N K -> scalar


def teaching(method: str, variant: str) -> Teaching:
    """How a student of ProtoKD is trained.

    Args:
        method: `protokd`.
        variant: a key of `VARIANTS`.

    Raises:
        ValueError: on an unknown method or variant.
    """
    if method != "protokd" or variant not in VARIANTS:
        raise ValueError(f"there is no {method} {variant}: this file has protokd {', '.join(VARIANTS)}")
    chosen = VARIANTS[variant]

    def term(student: Prediction, teacher: Prediction, labels: Tensor, task: Tensor) -> dict[str, Tensor]:
        parts = {"segmentation": task}
        if chosen.pixel:
            kd = pixel_kd_loss(student.logits, teacher.logits, chosen.temperature, chosen.reduction, chosen.squared)
            parts["pixel"] = chosen.pixel * kd
        if chosen.prototype:
            difference = prototype_kd_loss(student.features, teacher.features, labels, len(CLASSES), chosen.per_sample)
            parts["prototype"] = chosen.prototype * difference
        return parts

    return Teaching(term, chosen.schedule)
