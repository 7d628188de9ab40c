"""Latents with a dial: pairs of feature vectors in which guidance can help, and pairs in which it cannot.

A case has a state u, -1 or +1, that nobody sees; its label y is u, flipped with probability `noise`. The inferior
latent is u along one direction plus unit noise. The superior latent is rectified and shows a state v clearly: v is u
where the two are *coupled*; where they are *decoupled*, v is drawn anew from the label. Given the label, both have the
same distribution, so that every classifier of the superior latent alone scores the same on labels; only a coupled one
holds what the label does not say.

What can be gained is known. The mean of v z_I over n cases points along the direction with the strength s |mu|, where
s = E[uv], among noise of length sqrt(d / n). Read along it, a new case is classified rightly with the probability of
`expected_accuracy`. A label has s = 1 - 2 noise, a coupled v has s = 1, and a decoupled one (1 - 2 noise)^2: guidance
helps where the superior latent witnesses the state better than the label does, or where there are more pairs than
labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import norm
from torch import Tensor

DIMENSIONS = 128  # of the inferior latent
STRENGTH = 1.5  # |mu|, distance of a class from the middle of both, in standard deviations of the noise
SUPERIOR = 32, 4.0  # dimensions and strength of the superior latent, before it is rectified


@dataclass(frozen=True)
class PairedLatents:
    """Latents of n cases.

    Attributes:
        inferior: (n, `DIMENSIONS`).
        superior: (n, 32), not negative.
        label: (n,) int64, 0 or 1; wrong in a share of cases.
        state: (n,) int64, 0 or 1: the truth.
    """

    inferior: Tensor
    superior: Tensor
    label: Tensor
    state: Tensor


def draw(count: int, noise: float, coupled: bool, seed: int, part: str = "train") -> PairedLatents:
    """Draw cases; the parts of a seed share the directions and nothing else.

    Args:
        count: number of cases; the first n of a longer draw are other cases than a draw of n.
        noise: probability that a label is wrong, in [0, 0.5].
        coupled: whether the superior latent shows the state, or what the label says.
        seed: of directions and cases.
        part: `train` or `test`.

    Raises:
        ValueError: if the noise is outside [0, 0.5], there is no case, or the part is unknown.
    """
    if not 0 <= noise <= 0.5:
        raise ValueError(f"noise is the probability that a label is wrong, in [0, 0.5]; got {noise}")
    if count < 1:
        raise ValueError(f"at least one case is drawn; got {count}")
    if part not in ("train", "test"):
        raise ValueError(f"unknown part {part!r}; choose train or test")
    generator = torch.Generator().manual_seed(seed)
    inferior, superior = (
        strength * torch.nn.functional.normalize(torch.randn(size, generator=generator), dim=0)
        for size, strength in ((DIMENSIONS, STRENGTH), SUPERIOR)
    )
    if part == "test":
        generator.manual_seed(-1 - seed)

    def flipped(signs: Tensor) -> Tensor:
        return torch.where(torch.rand(count, generator=generator) < noise, -signs, signs)

    u = 2 * torch.randint(2, (count,), generator=generator) - 1  # n
    y = flipped(u)
    drawn_anew = flipped(y)
    v = u if coupled else drawn_anew
    z_i = u[:, None] * inferior + torch.randn(count, len(inferior), generator=generator)  # n 128
    z_s = (v[:, None] * superior + torch.randn(count, len(superior), generator=generator)).relu()  # n 32
    return PairedLatents(z_i, z_s, (y + 1) // 2, (u + 1) // 2)


def witness(noise: float, coupled: bool | None = None) -> float:
    """How well something witnesses the state: its mean product s with it, in [0, 1].

    Args:
        noise: of the label.
        coupled: of the superior latent; None: of the label itself.
    """
    label = 1 - 2 * noise
    return label if coupled is None else 1.0 if coupled else label**2


def expected_accuracy(s: float, cases: float, strength: float = STRENGTH, dimensions: int = DIMENSIONS) -> float:
    """Accuracy against the state of a classifier along the mean of v z_I: Phi(s m^2 / sqrt(s^2 m^2 + d / n)).

    Exact but for terms of order m^2 / n in the variance; the best for who knows neither direction nor state.

    Args:
        s: how well v witnesses the state, see `witness`.
        cases: n, of which the mean is taken; infinity gives Phi(m), the best that the latent allows.
        strength: m. dimensions: d.
    """
    if s == 0:
        return 0.5
    return float(norm.cdf(s * strength**2 / (s**2 * strength**2 + dimensions / cases) ** 0.5))


def expected_gain(noise: float, coupled: bool, labels: int, pairs: int) -> float:
    """What guidance by these pairs can be expected to add to the labels alone, in points of accuracy."""
    guided = expected_accuracy(witness(noise, coupled), pairs)
    return 100 * (guided - expected_accuracy(witness(noise), labels))
