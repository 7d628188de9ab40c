"""What training cases lack: drawn once for each case, so that no step of a training ever meets it.

It is not the dropout of a step, which hides some of what a case has and comes on top (`mmlib.modalities.draw`).
Three mechanisms, with the same chance that a modality of a case is not there:

random      every modality of every case by itself;
hospital    whole hospitals lack a sequence: the draw is one for all their cases;
disease     the mask tells of the label: contrast is given where a tumour is suspected. As at random, but those that
            lack t1ce are the ones with the smallest enhancing tumour (with one region: the smallest lesion).

Every case keeps a modality, and every modality is kept by a case. So less is missing than the chance says: with four
modalities and a chance of 0.9 each, 71 % (`share_missing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mmlib.data.cases import regions
from mmlib.data.nifti import CaseFiles, Cases, as_labels, read_volume
from mmlib.modalities import draw, mask

MECHANISMS = ("random", "hospital", "disease")
CONTRAST = "t1ce"  # given where a tumour is suspected
OFFSET = 900_000_000  # of the seed: no other draw of a run begins there


def share_missing(chance: float, count: int) -> float:
    """The share of modalities that is missing, where each of `count` is with a chance and one is kept, in [0, 1)."""
    return (chance - chance**count) / (1 - chance**count)


def draw_hospitals(subjects: Sequence[str], count: int, seed: int) -> list[int]:
    """The hospital of each case: all cases of a subject have the same one.

    Args:
        subjects: of the cases, in order.
        count: of hospitals.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + OFFSET + 1)
    unique = list(dict.fromkeys(subjects))
    drawn = torch.randint(count, (len(unique),), generator=generator).tolist()
    return [drawn[unique.index(one)] for one in subjects]


def suspected(files: CaseFiles) -> float:
    """Volume of the last region of a case (enhancing tumour, or the lesion), mm3; only the segmentation is opened.

    Raises:
        ValueError: if there is no segmentation, or as `mmlib.data.nifti.read_volume`.
    """
    if files.seg is None:
        raise ValueError(f"case {files.name} has no segmentation: nothing tells whether a tumour was suspected")
    volume, affine, _ = read_volume(files.seg)
    labels = as_labels(volume, files.seg)
    marked = labels > 0 if len(files.targets) == 1 else regions(labels, files.enhancing_label)[-1]
    return float(marked.sum() * abs(np.linalg.det(affine[:3, :3])))


def draw_lacking(
    has: Tensor,
    chance: float,
    seed: int,
    *,
    hospitals: Sequence[int] | None = None,
    sizes: Sequence[float] | None = None,
    contrast: int = 1,
) -> Tensor:
    """What each case keeps of its modalities.

    Without `hospitals` and `sizes` at random. The first cases keep the same however many follow, but for a modality
    that nobody would have.

    Args:
        has: (N, M) bool, what each case has.
        chance: that a modality is not there, in [0, 1).
        seed: of the draw.
        hospitals: of each case: one draw for each of them. A case that would be left with nothing keeps what it has.
        sizes: of what is suspected in each case; the smallest lack the contrast.
        contrast: column of that modality.

    Returns:
        (N, M) bool, a non-empty subset of `has` in every row; a modality that a case had, a case keeps.

    Raises:
        ValueError: if the chance is out of range, or a case has no modality (as `mmlib.modalities.draw`).
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + OFFSET)
    if hospitals is not None:
        number = max(hospitals) + 1
        every = torch.ones(number, has.shape[1], dtype=torch.bool)
        there = torch.zeros(number, dtype=torch.bool).index_fill(0, torch.tensor(hospitals), True)
        rows = _somewhere(draw("bernoulli", every, generator, rate=chance), every & there[:, None], generator)
        kept = rows[torch.tensor(hospitals)] & has
        return torch.where(kept.any(dim=1, keepdim=True), kept, has)
    kept = _somewhere(draw("bernoulli", has, generator, rate=chance), has, generator)
    if sizes is None:
        return kept
    order = [case for case in np.argsort(-np.asarray(sizes), kind="stable").tolist() if has[case, contrast]]
    given = order[: int(kept[:, contrast].sum())]
    kept[:, contrast] = False
    kept[given, contrast] = True
    for case in (~kept.any(dim=1)).nonzero().flatten().tolist():  # its only one was the contrast
        others = [one for one in has[case].nonzero().flatten().tolist() if one != contrast] or [contrast]
        kept[case, others[int(torch.randint(len(others), (), generator=generator))]] = True
    return kept


def _somewhere(kept: Tensor, has: Tensor, generator: torch.Generator) -> Tensor:
    """A modality that nobody kept is given back to one who had it: no network learns what it never met."""
    for column in (has.any(dim=0) & ~(kept & has).any(dim=0)).nonzero().flatten().tolist():
        rows = has[:, column].nonzero().flatten()
        kept[rows[int(torch.randint(len(rows), (), generator=generator))], column] = True
    return kept


def lacking(
    cases: Cases,
    names: Sequence[str],
    modalities: Sequence[str],
    chance: float,
    mechanism: str = "random",
    *,
    seed: int,
    hospitals: Sequence[int] | None = None,
) -> Cases:
    """The same cases, of which some lack modalities: the files of what is missing are never opened.

    Args:
        cases: all of them.
        names: the training cases; the others stay as they are.
        modalities: M names.
        chance: that a modality of a training case is not there, in [0, 1); 0 changes nothing.
        mechanism: one of `MECHANISMS`.
        seed: of the draw.
        hospitals: for `hospital`: that of each training case, such as `draw_hospitals` gives.

    Raises:
        ValueError: if the mechanism is unknown or lacks its hospitals, or as `draw_lacking` and `suspected`.
    """
    if mechanism not in MECHANISMS or (mechanism == "hospital") != (hospitals is not None):
        raise ValueError(
            f"missing is one of {MECHANISMS}, and 'hospital' takes the hospital of each case; got {mechanism!r}"
        )
    if not chance:
        return cases
    files = [cases.files[name] for name in names]
    has = torch.stack([mask(one.images, modalities) for one in files])
    sizes = [suspected(one) for one in files] if mechanism == "disease" else None
    kept = draw_lacking(has, chance, seed, hospitals=hospitals, sizes=sizes, contrast=modalities.index(CONTRAST))
    changed = dict(cases.files)
    for one, row in zip(files, kept.tolist(), strict=True):
        left = [name for name, there in zip(modalities, row, strict=True) if there]
        changed[one.name] = replace(one, images={name: one.images[name] for name in left})
    return Cases(changed.values(), cases.source, cases.prepare)


def complete_in(cases: Cases, names: Sequence[str], combination: Sequence[str]) -> list[str]:
    """The cases that a network for one combination can be trained on: those with all of it.

    Raises:
        ValueError: if there is none.
    """
    found = [name for name in names if set(combination) <= set(cases.files[name].images)]
    if not found:
        raise ValueError(
            f"none of {len(names)} training cases has {'+'.join(combination)}: a network for it cannot be trained; "
            "lower missing_share, or take a network for any combination"
        )
    return found
