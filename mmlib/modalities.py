"""Modalities by name: canonical order, combinations of available ones, and seeded samplers of availability.

An availability mask is bool, (B, M) or (M,), True where the modality was acquired. The empty set is refused
everywhere: a case without any modality holds nothing to learn from and nothing to predict from.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

MRI = ("t1", "t1ce", "t2", "flair")  # BraTS
IXI = ("t1", "t2", "pd")
SAMPLERS = ("uniform-subsets", "uniform-size", "bernoulli", "fixed")


def combinations(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """List all 2^M - 1 non-empty combinations, small ones first, each in canonical order.

    Args:
        modalities: M distinct names in canonical order.

    Raises:
        ValueError: if `modalities` is empty or a name occurs twice.
    """
    names = tuple(modalities)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"modalities must be distinct names, at least one; got {names}")
    return [subset for size in range(1, len(names) + 1) for subset in itertools.combinations(names, size)]


def label(combination: Iterable[str], modalities: Sequence[str]) -> str:
    """Name a combination in canonical order, as tables and file names do: `"t1+flair"`.

    Raises:
        ValueError: if the combination is empty or holds a name that is not in `modalities`.
    """
    chosen = set(combination)
    unknown = chosen - set(modalities)
    if not chosen or unknown:
        raise ValueError(f"a combination needs at least one of {tuple(modalities)}; got {sorted(chosen)}")
    return "+".join(name for name in modalities if name in chosen)


def parse(text: str, modalities: Sequence[str]) -> tuple[str, ...]:
    """Read a combination label; `"all"` means every modality. The inverse of `label`.

    Raises:
        ValueError: as `label`.
    """
    return tuple(label(modalities if text == "all" else text.split("+"), modalities).split("+"))


def mask(combination: Iterable[str], modalities: Sequence[str]) -> Tensor:
    """Turn a combination into an availability mask, (M,) bool.

    Raises:
        ValueError: as `label`.
    """
    chosen = parse(label(combination, modalities), modalities)
    return torch.tensor([name in chosen for name in modalities])


def check_available(available: Tensor, modalities: Sequence[str] | None = None) -> None:
    """Refuse a mask that is not bool (B, M), or that has a case without any modality.

    Raises:
        ValueError: with the offending dtype, shape or case positions.
    """
    if available.dtype != torch.bool or available.ndim != 2:
        raise ValueError(f"available must be bool (B, M); got {available.dtype} {tuple(available.shape)}")
    if modalities is not None and available.shape[1] != len(modalities):
        raise ValueError(
            f"available has {available.shape[1]} columns but there are {len(modalities)} modalities {tuple(modalities)}"
        )
    empty = (~available.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"no modality is available in batch positions {empty}: leave such cases out, nothing can be predicted"
        )


def draw(
    sampler: str, acquired: Tensor, generator: torch.Generator, *, rate: float = 0.5, fixed: Tensor | None = None
) -> Tensor:
    """Draw which of the acquired modalities a training step may use, one row per case.

    The papers differ here, so the sampler is data and is written into every run record:
    `uniform-subsets`: every non-empty subset of the acquired ones is equally likely;
    `uniform-size`: first the size k, then a subset of that size (ShaSpec, U-HVED);
    `bernoulli`: each is kept with probability 1 - `rate`, empty draws are drawn again (RobustMSeg);
    `fixed`: always `fixed`, as in dedicated training.

    Args:
        acquired: (B, M) bool, what each case has.
        generator: the seeded source of randomness.
        rate: probability of hiding an acquired modality, in [0, 1); only for `bernoulli`.
        fixed: (M,) bool; only for `fixed`.

    Returns:
        (B, M) bool, a non-empty subset of `acquired` in every row.

    Raises:
        ValueError: if the sampler is unknown, `rate` is out of range, a case has no modality at all, or a case lacks
            every modality of `fixed`.
    """
    check_available(acquired)
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown availability sampler {sampler!r}; choose one of {SAMPLERS}")
    if sampler == "fixed":
        if fixed is None or fixed.shape != acquired.shape[1:]:
            raise ValueError(f"the sampler 'fixed' needs fixed=(M,) bool with M = {acquired.shape[1]}; got {fixed}")
        drawn = acquired & fixed
        check_available(drawn)
        return drawn
    if sampler == "bernoulli" and not 0 <= rate < 1:
        raise ValueError(f"rate is the probability of hiding a modality and must lie in [0, 1); got {rate}")
    rows = []
    for row in acquired:
        names = row.nonzero().flatten()
        if sampler == "uniform-size":
            size = int(torch.randint(1, len(names) + 1, (1,), generator=generator))
            kept = names[torch.randperm(len(names), generator=generator)[:size]]
        else:
            probability = 0.5 if sampler == "uniform-subsets" else 1 - rate
            kept = names[:0]
            while len(kept) == 0:
                kept = names[torch.rand(len(names), generator=generator) < probability]
        rows.append(torch.zeros_like(row).index_fill(0, kept, True))
    return torch.stack(rows)
