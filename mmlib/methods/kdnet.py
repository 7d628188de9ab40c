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

from torch import Tensor

from mmlib.tasks.distillation import Prediction, Teaching, softened_divergence


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
    return softened_divergence(student, teacher).sum() / len(student)  # B C ... -> scalar


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
    return softened_divergence(student_logits, teacher_logits, temperature).sum(1).mean()  # B K ... -> B ... -> scalar


def kdnet_loss(
    student: Prediction,
    teacher: Prediction,
    task: Tensor,
    *,
    weight: float = 0.5,
    beta: float = 0.1,
    temperature: float = 1.0,
) -> dict[str, Tensor]:
    """(1 - weight) task + weight `prediction_kl` + beta `feature_kl` per voxel of the bottleneck, in parts.

    Args:
        student: logits (B, K, D, H, W) and bottleneck (B, C, d, h, w).
        teacher: of the same shapes; gets no gradient.
        task: the student's own loss, a scalar.
        weight: lambda, the teacher's share against that of the labels, in [0, 1].
        beta: at least 0, whatever the crop.
        temperature: see `prediction_kl`.

    Returns:
        The weighted parts, scalars that add up to the loss.

    Raises:
        ValueError: as the two divergences, or if `weight` is not in [0, 1].
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight is the teacher's share of the loss and must lie in [0, 1]; got {weight}")
    features = feature_kl(student.bottleneck, teacher.bottleneck) / student.bottleneck[0, 0].numel()  # d*h*w
    return {
        "segmentation": (1 - weight) * task,
        "prediction": weight * prediction_kl(student.logits, teacher.logits, temperature),
        "features": beta * features,
    }


def teaching(method: str, variant: str) -> Teaching:
    """How a KD-Net-style student is trained.

    Raises:
        ValueError: unless this is `kd-net` `standard`.
    """
    if (method, variant) != ("kd-net", "standard"):
        raise ValueError(f"there is no {method} {variant}: this file has kd-net standard")
    return Teaching(lambda student, teacher, labels, task: kdnet_loss(student, teacher, task))
