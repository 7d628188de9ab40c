"""The task loss that every segmentation method of the book shares."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor

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
    return _dice(logits, target) + F.binary_cross_entropy_with_logits(logits, target) * logits.shape[1]
