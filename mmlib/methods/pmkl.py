"""PMKL-style losses: a student imitates the teacher where the teacher is right, and better than the student.

Paper: Cheng Chen, Qi Dou, Yueming Jin, Quande Liu, Pheng-Ann Heng, "Learning with Privileged Multimodal Knowledge for
Unimodal Segmentation", IEEE Transactions on Medical Imaging 41(3), 2022, doi 10.1109/TMI.2021.3119385. Implemented: its
two transfers from the teacher, pixel-level (predictions) and image-level (embeddings). Released code consulted through
a written description: cchen-cc/PMKL; nothing of it is copied.

What differs
- What the released code embeds is UNVERIFIED; here it is the mean of the bottleneck over voxels, scaled to length 1, so
  that a margin of 1 means the same for every network.
- The form of the contrastive loss is UNVERIFIED beyond its margin and its pairs: here squared distances of positives,
  squared shortfalls of negatives from the margin, and the mean of each.
- The segmentation loss has weight 1 (UNVERIFIED).
- A small number is added to the sum of the weights: where the teacher is nowhere better, the released loss is 0/0 and
  this one 0.
- Optimiser, crop and classes are those of the run (released: SGD, 80^3, five classes).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlib.tasks.distillation import Prediction, Teaching, check_labels, check_pair


@torch.no_grad()
def advantage(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """How much the teacher is better per voxel: relu(CE of the student - CE of the teacher), 0 where it is wrong.

    Args:
        student_logits: (B, K, D, H, W).
        teacher_logits: of the same shape.
        labels: integer classes in [0, K), (B, D, H, W) or (B, 1, D, H, W).

    Returns:
        (B, D, H, W), at least 0, without gradient.

    Raises:
        ValueError: if the shapes disagree, or the labels are no integers in [0, K).
    """
    check_pair(student_logits, teacher_logits, "logits")
    target = check_labels(labels, student_logits, student_logits.shape[1])
    # B D H W each
    ours, theirs = (F.cross_entropy(_float(x), target, reduction="none") for x in (student_logits, teacher_logits))
    return (ours - theirs).relu() * (teacher_logits.argmax(dim=1) == target)


def soft_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 10
) -> Tensor:
    """Soft cross-entropy between the predictions at temperature T, the mean over voxels weighted by `advantage`.

    The student's probability is clipped at 0.005: below, it costs no more and has no gradient.

    Args:
        student_logits: (B, K, D, H, W).
        teacher_logits: of the same shape; no gradient reaches them.
        labels: see `advantage`, which also refuses what does not fit.
        temperature: T > 0, of the soft cross-entropy alone.

    Returns:
        A scalar, at least 0; 0 where the teacher is nowhere better.
    """
    weights = advantage(student_logits, teacher_logits, labels)  # B D H W
    target = (_float(teacher_logits).detach() / temperature).softmax(dim=1)  # B K D H W
    predicted = (_float(student_logits) / temperature).softmax(dim=1).clamp(min=0.005)
    return (weights * -(target * predicted.log()).sum(dim=1)).sum() / (weights.sum() + 1e-8)  # B D H W -> scalar


def contrastive_loss(student: Tensor, teacher: Tensor, margin: float = 1.0) -> Tensor:
    """Draw student and teacher of a case together, and those of different cases apart, up to the margin.

    The mean over cases of d(i, i)^2, plus the mean over pairs i != j of relu(margin - d(i, j))^2, where d is the
    distance of student i from teacher j. A batch of one case has no such pair: the first term is all there is.

    Args:
        student: embeddings (B, E).
        teacher: of the same shape; no gradient reaches them.
        margin: distance from which different cases count as apart.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: if the shapes disagree.
    """
    check_pair(student, teacher, "embeddings")
    student, teacher = _float(student), _float(teacher).detach()
    positive = (student - teacher).square().sum(dim=1).mean()  # d(i, i)^2: B E -> B -> scalar
    if len(student) == 1:
        return positive
    distance = torch.cdist(student, teacher, compute_mode="donot_use_mm_for_euclid_dist")  # d(i, j): B B
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    return positive + (margin - distance[others]).relu().square().mean()  # B B -> B*(B-1), i != j


def pmkl_loss(
    student: Prediction,
    teacher: Prediction,
    labels: Tensor,
    task: Tensor,
    *,
    prediction: float = 0.5,
    contrast: float = 0.5,
    temperature: float = 10.0,
) -> dict[str, Tensor]:
    """Task + prediction `soft_cross_entropy` + contrast `contrastive_loss` of pooled bottlenecks, in parts.

    Args:
        student: logits (B, K, D, H, W) and bottleneck (B, C, d, h, w), which is pooled here.
        teacher: of the same shapes; gets no gradient.
        labels: see `advantage`.
        task: the student's own loss, a scalar.
        prediction: weight of the distillation.
        contrast: weight of the contrastive loss.
        temperature: of the distillation.

    Returns:
        The weighted parts, scalars that add up to the loss.

    Raises:
        ValueError: as the two losses.
    """
    ours, theirs = (F.normalize(_float(one.bottleneck).flatten(2).mean(dim=2)) for one in (student, teacher))  # B C
    return {
        "segmentation": task,
        "distillation": prediction * soft_cross_entropy(student.logits, teacher.logits, labels, temperature),
        "contrast": contrast * contrastive_loss(ours, theirs),
    }


def teaching(method: str, variant: str) -> Teaching:
    """How a PMKL-style student is trained.

    Raises:
        ValueError: unless this is `pmkl` `standard`.
    """
    if (method, variant) != ("pmkl", "standard"):
        raise ValueError(f"there is no {method} {variant}: this file has pmkl standard")
    return Teaching(pmkl_loss)


def _float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
