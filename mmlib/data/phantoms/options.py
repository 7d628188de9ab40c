"""What a brain phantom may have beyond the plain one: realism, and two dials of what modalities tell of each other.

Realism: irregular and multifocal tumours, sites that differ in gain field, noise and timing, a shift and a turn between
modalities, brains stripped of the fluid around them, and a flair image with structure of its own.

**`shared`: how much of the target the modalities have in common.** A feature that modalities share helps a method with
a missing modality only if it tells of the tumour and if more than one modality shows it; anatomy that all show is no
part of the target, so it stays common. With probability `shared` all modalities show the subject's tumour; otherwise
only one does, drawn with equal chances, and in the place of the tumour the others show the tissue that would be there
without it. 1: what any modality shows of the tumour, all do. 0: no two modalities ever show the same tumour, and a
feature that they have in common can say nothing of it. Below 1 a tumour does not push its surroundings away, which
would show everywhere, and each modality takes the share 1 - `shared` of the variance of its texture from a field of its
own.

**`predictable`: how much t2 and flair tell of what only t1ce shows.** Above 0 a sector of the
solid tissue, dense in cells, has a T2 of 90 instead of 120 ms and is dark in t2 and flair. It is drawn by the law of
the enhancing sector, nothing at all in 12 % of the tumours included. With probability `predictable` it is the enhancing
sector itself; otherwise it is another draw, independent of it. Nothing in the images tells which is the case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from mmlib.modalities import MRI

SHARE_ENHANCING = (0.25, 0.65)  # of the solid tissue, uniform
ENHANCES, HEALTHY = 0.88, 0.04  # chances: a tumour enhances; a subject has no tumour
TIMES = {  # repetition, echo and, where there is one, inversion time in ms
    "t1": (550.0, 12.0),
    "t1ce": (550.0, 12.0),
    "t2": (4000.0, 100.0),
    "flair": (9000.0, 120.0, 2400.0),
    "pd": (4000.0, 15.0),
}


@dataclass(frozen=True)
class Options:
    """How a phantom departs from the plain one; without arguments, not at all.

    Attributes:
        irregular: roughness of the tumour's outline, in [0, 1].
        multifocal: chance that a tumour has one or two smaller foci elsewhere, in [0, 1].
        sites: number of simulated sites, 0 for none; the seed gives a subject its site.
        misregistration: mm and degrees, at least 0: standard deviations of the shift of every modality but t1 along
            each axis, and of its turn about each.
        stripped: whether fluid around the brain is removed, as brain extraction does.
        flair_texture: standard deviation of multiplicative structure that only flair shows, at least 0.
        shared: in [0, 1], see above.
        predictable: in [0, 1], see above.

    Raises:
        ValueError: if a value is out of its range.
    """

    irregular: float = 0.0
    multifocal: float = 0.0
    sites: int = 0
    misregistration: float = 0.0
    stripped: bool = False
    flair_texture: float = 0.0
    shared: float = 1.0
    predictable: float = 0.0

    def __post_init__(self) -> None:
        for name in ("irregular", "multifocal", "shared", "predictable"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1]; got {getattr(self, name)!r}")
        for name in ("misregistration", "flair_texture"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be at least 0; got {getattr(self, name)!r}")
        if isinstance(self.sites, bool) or not isinstance(self.sites, int) or self.sites < 0:
            raise ValueError(f"sites must be an integer >= 0; got {self.sites!r}")

    def __str__(self) -> str:
        """What is not plain, as in `sites=6 shared=0.5`; empty for the plain phantom."""
        changed = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        return " ".join(f"{name}={value:g}" for name, value in changed.items())


PLAIN = Options()
REALISTIC = Options(irregular=0.5, multifocal=0.3, sites=6, misregistration=0.2, stripped=True, flair_texture=0.08)
PRESETS = {"plain": PLAIN, "realistic": REALISTIC}


def read_options(preset: str = "plain", **changes: float) -> Options:
    """The options that a profile's `phantom:` names: a preset, and what differs from it.

    Raises:
        ValueError: if the preset or an option is unknown, or a value is out of its range.
    """
    known = [one.name for one in fields(Options)]
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; choose one of {tuple(PRESETS)}")
    if unknown := sorted(set(changes) - set(known)):
        raise ValueError(f"unknown options of the phantom {unknown}; choose from {known}")
    return replace(PRESETS[preset], **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Site:
    """Where and how a subject was scanned.

    Attributes:
        field: standard deviation of the log of the gain field.
        noise: factor on the noise.
        times: modality -> repetition, echo and inversion time, ms.
    """

    field: float = 0.08
    noise: float = 1.0
    times: dict[str, tuple[float, ...]] | None = None


def site_of(seed: int, sites: int) -> Site:
    """The site of a subject; the same for every subject of that site. Without sites all scan alike."""
    if not sites:
        return Site(times=TIMES)
    number = int(np.random.default_rng((seed, 8)).integers(sites))
    rng = np.random.default_rng((number, 0, 9))  # of three numbers: no subject draws from it
    strength, noise = rng.uniform(0.04, 0.2), np.exp(rng.uniform(-1.2, 0.2))
    times = {
        name: tuple(usual * np.exp(rng.normal(0, 0.08)).clip(0.85, 1.18) for usual in times)
        for name, times in TIMES.items()
    }
    return Site(float(strength), float(noise), times)


def best_marking(predictable: float, sign: float, steps: int = 101) -> float:
    """The share of the solid tissue that is best marked as enhancing by who sees a sign on the share `sign` of it.

    Marking m >= `sign` means the sign and a part of the rest. It finds all that enhances if the sign is the enhancing
    sector, and the share m of it otherwise, so its expected Dice is

        predictable 2 sign / (m + sign) + (1 - predictable) E[2 m p / (m + p)],

    p the share that enhances: 0 in 12 % of the tumours, else uniform. Marking nothing is right where nothing enhances.

    Args:
        predictable: the dial.
        sign: share of the solid tissue that bears the sign, in [0, 1].
        steps: of the grid on which m is searched.

    Returns:
        The best m: 0, or in [`sign`, 1].
    """
    return _marking(predictable, sign, steps)[0]


def _marking(predictable: float, sign: float, steps: int) -> tuple[float, float]:
    """The best share to mark and its expected Dice."""
    p = np.linspace(*SHARE_ENHANCING, 2 * 50 + 1)[1::2]  # midpoints of 50 equal parts
    shares = np.linspace(max(sign, 1e-6), 1, steps)[:, None]
    other = ENHANCES * (2 * shares * p / (shares + p)).mean(axis=1)
    expected = predictable * (2 * sign / (shares[:, 0] + sign)) + (1 - predictable) * other
    nothing = predictable * float(sign == 0) + (1 - predictable) * (1 - ENHANCES)
    best = int(len(expected) - 1 - np.argmax(expected[::-1]))  # of equals the largest
    return (0.0, nothing) if nothing > expected[best] else (float(shares[best, 0]), float(expected[best]))


def enhancement_ceiling(predictable: float) -> float:
    """The highest Dice for enhancing tumour that can be expected without t1ce, of subjects with solid tissue.

    By enumeration over the share that bears the sign, with the best marking for each: see `best_marking`. At 0 it is
    the mean of 2 p / (1 + p), 0 where nothing enhances; at 1 it is 1. In between it is convex, being a mean of maxima
    of straight lines, and starts level, so it never falls.
    """
    signs = np.linspace(*SHARE_ENHANCING, 2 * 50 + 1)[1::2]
    with_sign = np.mean([_marking(predictable, float(sign), 101)[1] for sign in signs])
    return float(ENHANCES * with_sign + (1 - ENHANCES) * _marking(predictable, 0.0, 101)[1])


def tumour_ceiling(shared: float, available: Sequence[str], blind: float) -> float:
    """The highest Dice for whole tumour that can be expected from a set of modalities.

    Who sees the tumour marks it; the chance of that is shared + (1 - shared) k / 4 with k of four modalities. Who sees
    none either marks where tumours usually are or marks nothing, which is right in healthy subjects (4 %).

    Args:
        shared: the dial.
        available: modalities of the set, out of t1, t1ce, t2, flair.
        blind: the highest mean Dice of one fixed marking over subjects with a tumour, in [0, 1].

    Raises:
        ValueError: if the set is empty or has a modality of another name, or one twice.
    """
    if not available or set(available) - set(MRI) or len(set(available)) < len(available):
        raise ValueError(f"available must be some of {MRI}, each once; got {tuple(available)}")
    seen = shared + (1 - shared) * len(available) / len(MRI)
    return (1 - HEALTHY) * seen + max((1 - HEALTHY) * (1 - seen) * blind, HEALTHY)
