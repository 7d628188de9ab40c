"""The two auxiliary losses of ShaSpec, for segmentation and classification alike (paper, section 3.3; Eq. 5-8)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlib.modalities import check_available

KINDS = ("l1", "mse", "kl", "ce")  # of the alignment loss
LOW = 8  # dimension that `kl` projects to; the paper says no more than "low" (UNVERIFIED)


def alignment_head(kind: str, channels: int, modalities: int) -> nn.Module | None:
    """The learnt part of an alignment loss: a projection for `kl` (Eq. 7), a classifier for `ce` (Eq. 6), else None.

    It is trained by the same loss as the features, so it may lower `kl` and `ce` on its own: zero weights reach the
    least value of both.

    Args:
        kind: of the alignment loss.
        channels: C of the shared features.
        modalities: their number M.
    """
    outputs = {"kl": LOW, "ce": modalities}
    return nn.Linear(channels, outputs[kind]) if kind in outputs else None


def alignment_loss(
    shared: Tensor, available: Tensor, kind: str = "l1", pairs: str = "all", head: nn.Module | None = None
) -> Tensor:
    """Distribution alignment objective: draw the shared features of a case's modalities together (Eq. 6-8).

    `l1` and `mse` (Eq. 8): mean absolute or squared difference, summed over the pairs of available modalities. `kl`
    (Eq. 7): symmetric Kullback-Leibler divergence between softmaxes of pooled features. `ce` (Eq. 6): cross-entropy of
    a modality classifier against the uniform distribution, averaged over the available modalities.

    Args:
        shared: (B, M, C, ...).
        available: (B, M) bool; pass all True to use missing modalities too, as the released code does.
        kind: `l1`, `mse`, `kl` or `ce`.
        pairs: `all` M (M - 1) / 2 pairs, or the `ring` (0, 1), ..., (M - 1, 0) of the released code.
        head: maps pooled features (B, M, C) to a low dimension (`kl`) or to M logits (`ce`); None: no mapping.

    Returns:
        A scalar, averaged over cases; zero where a case has one modality (but for `ce`).

    Raises:
        ValueError: on an unknown `kind` or `pairs`, or an empty set.
    """
    check_available(available)
    if kind not in KINDS or pairs not in ("all", "ring"):
        raise ValueError(f"kind must be l1, mse, kl or ce and pairs all or ring; got {kind!r}, {pairs!r}")
    shared, count = shared.to(torch.promote_types(shared.dtype, torch.float32)), shared.shape[1]
    if kind in ("kl", "ce"):
        pooled = shared.flatten(3).mean(dim=3) if shared.ndim > 3 else shared  # B M C
        log_p = (head(pooled) if head else pooled).to(shared.dtype).log_softmax(dim=-1)  # B M LOW, or B M M
    if kind == "ce":
        return -log_p.mean(dim=-1)[available].mean()  # Eq. (6); B M -> what is available -> scalar
    chosen = (
        list(itertools.combinations(range(count), 2))
        if pairs == "all"
        else [(m, (m + 1) % count) for m in range(count)]
    )
    if count == 2:
        chosen = [(0, 1)]
    total = shared.new_zeros(())
    for a, b in chosen:
        both = available[:, a] & available[:, b]  # B
        if not both.any():
            continue
        if kind == "kl":
            # Eq. (7), both ways; n LOW -> n, the cases that have both
            distance = ((log_p[both, a].exp() - log_p[both, b].exp()) * (log_p[both, a] - log_p[both, b])).sum(dim=-1)
        else:
            difference = shared[both, a] - shared[both, b]  # n C ..., the cases that have both
            distance = (difference.abs() if kind == "l1" else difference.square()).flatten(1).mean(dim=1)  # Eq. (8); n
        total = total + distance.sum() / len(available)
    return total


def domain_loss(domain_logits: Tensor, available: Tensor) -> Tensor:
    """Domain classification objective: tell the modality from its specific feature (Eq. 5).

    Args:
        domain_logits: (B, M, M), row m of a case being classified as one of M modalities.
        available: (B, M) bool; missing modalities are left out (section 3.3.3).
    """
    check_available(available)
    target = torch.arange(domain_logits.shape[1], device=domain_logits.device).expand(available.shape)  # M -> B M
    return F.cross_entropy(  # Eq. (5); n M, n: what is available
        domain_logits[available].to(torch.promote_types(domain_logits.dtype, torch.float32)), target[available]
    )
