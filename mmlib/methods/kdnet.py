"""KD-Net-style losses: a student imitates the teacher's predictions and its bottleneck.

Paper: Minhao Hu, Matthis Maillard, Ya Zhang, Tommaso Ciceri, Giammarco La Barbera, Isabelle Bloch, Pietro Gori,
"Knowledge distillation from multi-modal to mono-modal segmentation networks", MICCAI 2020, arXiv 2106.09564.
Implemented: what its abstract says, generalised distillation from a teacher of many modalities to a student of one;
as a third party describes it, with a distance of predictions and one of features. No released code was found.

What differs
- The equations are UNVERIFIED, hence "KD-Net-style": that the features are those of the bottleneck, that both distances
  are KL(teacher || student), how the terms are weighted, and every default below. They are to be tuned on validation.
- No factor T^2. The defaults therefore have T = 1, where the divergence of the predictions is in the units of the
  cross-entropy that it shares its weight with; at T = 10 its gradient would be about a hundredth.
- The feature divergence is summed over voxels and divided by the batch size, so that it grows with the crop. In the
  whole loss it is divided by the voxels of the bottleneck: `beta` then means the same for every crop and network. Its
  default is 0.1, as features should help and not lead (0.1 is also ProtoKD's weight of its prototype loss).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) over channels, summed over voxels and divided by the batch size.

    Args:
        student: features (B, C, ...), such as the bottleneck's.
        teacher: of the same shape; no gradient reaches them.

    Returns:
        A scalar, at least 0, in fp32 or better.

    Raises:
        ValueError: if the shapes disagree.
    """
    _check_pair(student, teacher, "features")
    dtype = torch.promote_types(student.dtype, torch.float32)
    ours, theirs = student.to(dtype).log_softmax(dim=1), teacher.detach().to(dtype).log_softmax(dim=1)
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def prediction_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)) over classes, the mean over voxels and cases, without T^2.

    Args:
        student_logits: (B, K, ...), K exclusive classes.
        teacher_logits: of the same shape; no gradient reaches them.
        temperature: T > 0.

    Returns:
        A scalar, at least 0, in fp32 or better.

    Raises:
        ValueError: if the shapes disagree, or the temperature is not positive.
    """
    _check_pair(student_logits, teacher_logits, "logits")
    if temperature <= 0:
        raise ValueError(f"temperature divides the logits and must be positive; got {temperature}")
    return feature_kl(student_logits / temperature, teacher_logits / temperature) / student_logits[0, 0].numel()


def kdnet_loss(
    segmentation: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_bottleneck: Tensor,
    teacher_bottleneck: Tensor,
    *,
    weight: float = 0.5,
    beta: float = 0.1,
    temperature: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """(1 - weight) segmentation + weight `prediction_kl` + beta `feature_kl` per voxel of the bottleneck.

    Args:
        segmentation: the student's own loss, a scalar.
        student_logits: (B, K, D, H, W).
        teacher_logits: of the same shape; no gradient reaches them.
        student_bottleneck: (B, C, d, h, w).
        teacher_bottleneck: of the same shape; no gradient reaches it.
        weight: lambda, the teacher's share against that of the labels, in [0, 1].
        beta: at least 0, whatever the crop.
        temperature: see `prediction_kl`.

    Returns:
        The scalar to minimise, and its parts before they are weighted.

    Raises:
        ValueError: as the two divergences, or if `weight` is not in [0, 1].
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight is the teacher's share of the loss and must lie in [0, 1]; got {weight}")
    prediction = prediction_kl(student_logits, teacher_logits, temperature)
    features = feature_kl(student_bottleneck, teacher_bottleneck) / student_bottleneck[0, 0].numel()
    total = (1 - weight) * segmentation + weight * prediction + beta * features
    parts = {"task": segmentation, "prediction": prediction, "features": features}
    return total, {name: part.detach() for name, part in parts.items()}


def _check_pair(student: Tensor, teacher: Tensor, what: str) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"{what} of student and teacher must have one shape; got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}: take both from the same layer, on the same crop"
        )
