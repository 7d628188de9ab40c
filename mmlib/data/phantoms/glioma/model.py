"""The glioma phantom: classes that overlap in MRI and separate under the microscope, with known best scores.

A case is drawn in two steps. The class, in the shares of the released split of CPM-RadPath; then, each from the class
alone, what MRI shows (enhancement, oedema) and what the slide looks like. `drawing` beside this file draws the images
from these three and from nothing else of the case, so no method can know more than they tell, and what they tell is
computed by enumeration (`ceiling`). Ring enhancement and much oedema set G apart; O and A look nearly alike in
MRI. A slide looks like another class than it is of in 10 to 18 % of cases: so it is not perfect, and MRI adds to it.

By a dial, training cases can have wrong classes (`misread`), and then their slide shows either the tumour or one of the
class that was written down. What guidance by these slides can give is counted out by `expected_scores`.

Probabilities are made up, in the order of size that neuroradiology and neuropathology describe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from mmlib.data.phantoms.glioma.drawing import ENHANCEMENT, LOOKS, OEDEMA, SPACING, patches, volumes
from mmlib.data.radpath import CLASSES, PARTS
from mmlib.modalities import MRI
from mmlib.records import new_folder

FIRST = {"train": 0, "valid": 100_000, "test": 200_000}  # number of a part's first case: parts grow apart
PRIOR = np.array([133, 34, 54]) / 221  # of G, O and A: all cases of the released split
GIVEN_CLASS = {  # rows: classes; columns: what is found
    "enhancement": np.array([(0.08, 0.12, 0.80), (0.46, 0.46, 0.08), (0.64, 0.28, 0.08)]),
    "oedema": np.array([(0.25, 0.75), (0.72, 0.28), (0.62, 0.38)]),
    "look": np.array([(0.88, 0.02, 0.10), (0.03, 0.90, 0.07), (0.10, 0.08, 0.82)]),
}
SLIDE = "slide"


@dataclass(frozen=True)
class Glioma:
    """The truth of a case.

    Attributes:
        number: what it was drawn from.
        label: position in `mmlib.data.radpath.CLASSES`.
        enhancement, oedema, look: what there is to see, in the words of `mmlib.data.phantoms.glioma.drawing`.
    """

    number: int
    label: int
    enhancement: str
    oedema: str
    look: str


def draw(number: int) -> Glioma:
    """Draw the truth of a case; the same number gives the same glioma.

    Raises:
        ValueError: if `number` is negative.
    """
    if number < 0:
        raise ValueError(f"the number of a glioma is at least 0; got {number}")
    rng = np.random.default_rng((number, 1))
    label = int(rng.choice(len(PRIOR), p=PRIOR))
    found = {sign: int(rng.choice(len(rows[label]), p=rows[label])) for sign, rows in GIVEN_CLASS.items()}
    return Glioma(number, label, ENHANCEMENT[found["enhancement"]], OEDEMA[found["oedema"]], LOOKS[found["look"]])


def misread(glioma: Glioma, noise: float, decoupled: bool = False) -> tuple[Glioma, str]:
    """Write down a wrong class in some cases, and say how the slide looks.

    A wrong class is any of the others. The slide looks as drawn or, decoupled, as one of a class that is to the label
    as the label is to the truth; so of both kinds label and slide tell the same about each other.

    Args:
        glioma: as drawn.
        noise: probability of a wrong class, in [0, 1).
        decoupled: whether the slide shows what the label says.

    Returns:
        The glioma with the class that is written down, and the look of its slide.

    Raises:
        ValueError: if the noise is outside [0, 1).
    """
    if not 0 <= noise < 1:
        raise ValueError(f"label_noise is the probability of a wrong class, in [0, 1); got {noise}")
    rng = np.random.default_rng((glioma.number, 6))
    label = _flipped(rng, np.array([glioma.label]), noise)
    shown = int(_flipped(rng, label, noise)[0])
    anew = LOOKS[int(rng.choice(len(LOOKS), p=GIVEN_CLASS["look"][shown]))]
    return replace(glioma, label=int(label[0])), anew if decoupled else glioma.look


def _flipped(rng: np.random.Generator, classes: np.ndarray, noise: float) -> np.ndarray:
    """The classes (n,), each with this probability another one, any of the others alike."""
    others = (classes + rng.integers(1, len(PRIOR), len(classes))) % len(PRIOR)
    return np.where(rng.random(len(classes)) < noise, others, classes)


def expected_scores(
    labelled: int, pairs: int, noise: float, decoupled: bool = False, repeats: int = 500
) -> dict[str, float]:
    """What somebody gets who sees the findings in t1ce and in slides without fail, and learns by counting.

    From cases with labels: the label given what MRI shows, or given the look of the slide. From all pairs: the look
    given what MRI shows; guidance puts the last two together. A network has to learn to see besides.

    Args:
        labelled: cases whose label is known. pairs: cases with both modalities, the labelled ones among them.
        noise, decoupled: of the cases, see `misread`.
        repeats: of the simulation, seed 0.

    Returns:
        Balanced accuracy against the true class, in expectation over cases to learn from: `inferior`, of labels alone,
        `superior`, `guided`.
    """
    rng, shape = np.random.default_rng(0), (len(CLASSES), GIVEN_CLASS["enhancement"].shape[1] * 2)
    mri = np.einsum("ke,ko->keo", GIVEN_CLASS["enhancement"], GIVEN_CLASS["oedema"]).reshape(shape)  # P(seen | class)
    look = GIVEN_CLASS["look"]

    def drawn(rows: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """A finding for each case, (n,), by the probabilities of its class."""
        return (rng.random((len(classes), 1)) > rows[classes].cumsum(axis=1)[:, :-1]).sum(axis=1)

    def counted(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
        """P(second | first) from the cases: (K, count)."""
        table = np.full((len(CLASSES), count), 1 / count)  # as if each had been seen once in all
        np.add.at(table, (first, second), 1)
        return table / table.sum(axis=1, keepdims=True)  # every class weighs the same

    def balanced(rows: np.ndarray, says: np.ndarray) -> float:
        """Balanced accuracy of naming the class `says` for each finding."""
        return float(np.mean([rows[k, says == k].sum() for k in range(len(CLASSES))]))

    scores: dict[str, list[float]] = {"inferior": [], "superior": [], "guided": []}
    for _ in range(repeats):
        truth = rng.choice(len(PRIOR), pairs, p=PRIOR)
        label, seen = _flipped(rng, truth, noise), drawn(mri, truth)
        looks = drawn(look, _flipped(rng, label, noise) if decoupled else truth)
        by_mri = counted(label[:labelled], seen[:labelled], mri.shape[1])
        by_look = counted(label[:labelled], looks[:labelled], len(LOOKS))
        look_given_mri = counted(looks, seen, mri.shape[1]) * np.bincount(looks, minlength=len(LOOKS))[:, None]
        guided = (by_look / by_look.sum(axis=0)) @ (look_given_mri / look_given_mri.sum(axis=0))
        scores["inferior"].append(balanced(mri, by_mri.argmax(axis=0)))
        scores["superior"].append(balanced(look, by_look.argmax(axis=0)))
        scores["guided"].append(balanced(mri, guided.argmax(axis=0)))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def ceiling(*modalities: str) -> dict[str, float]:
    """The best scores that anything can attain, of infinitely many cases: exact, by enumeration.

    Every MRI modality shows oedema and whether there is a ring. Only t1ce tells patchy enhancement from none.

    Args:
        modalities: what is available: of t1, t1ce, t2, flair and slide, such as `ceiling("t1ce", "slide")`.

    Returns:
        balanced_accuracy and accuracy.

    Raises:
        ValueError: if a modality is unknown, or there is none.
    """
    known = (*MRI, SLIDE)
    if not modalities or not set(modalities) <= set(known):
        raise ValueError(f"modalities are {known}, at least one of them; got {modalities}")
    given = []
    if set(modalities) & set(MRI):
        enhancement = GIVEN_CLASS["enhancement"]
        ring_or_not = np.stack([enhancement[:, :2].sum(axis=1), enhancement[:, 2]], axis=1)
        given += [enhancement if "t1ce" in modalities else ring_or_not, GIVEN_CLASS["oedema"]]
    if SLIDE in modalities:
        given.append(GIVEN_CLASS["look"])
    seen = np.array([np.prod(columns, axis=0) for columns in product(*(table.T for table in given))]).T  # (3, E)
    return {
        "balanced_accuracy": float(seen.max(axis=0).sum() / len(CLASSES)),
        "accuracy": float((PRIOR[:, None] * seen).max(axis=0).sum()),
    }


def write_radpath(
    folder: str | Path,
    train: int,
    valid: int,
    test: int,
    modalities: Sequence[str] = MRI,
    count: int = 12,
    size: int = 32,
    label_noise: float = 0.0,
    decoupled: bool = False,
    findings: bool = False,
) -> Path:
    """Write phantom gliomas in the layout that `mmlib.data.radpath.load` reads.

    Case n of a part is the same however many there are. The number in its name is what `draw` takes. A folder of the
    same name is replaced, when the new one is complete.

    Args:
        folder: where to.
        train, valid, test: numbers of cases.
        modalities: of the MRI that are written.
        count: patches of a slide.
        size: sides of a patch, pixels.
        label_noise, decoupled: of the training cases, see `misread`; other cases keep their classes and slides.
        findings: whether findings.csv is written too: enhancement, oedema and the look, as MRI and slide show them.

    Returns:
        The folder.

    Raises:
        ValueError: if a part has no case or more than 100,000, a modality is unknown, or the noise is no probability.
    """
    target = Path(folder)
    counts = dict(zip(PARTS, (train, valid, test), strict=True))
    for part, cases in counts.items():
        if not 0 < cases <= FIRST["valid"]:
            raise ValueError(f"the part {part} has between 1 and {FIRST['valid']} gliomas; got {cases}")
    if not set(modalities) <= set(MRI):
        raise ValueError(f"modalities are {MRI}; got {tuple(modalities)}")
    with new_folder(target) as made:
        listed = [(FIRST[part] + k, part) for part, cases in counts.items() for k in range(cases)]
        affine = np.diag([SPACING, SPACING, SPACING, 1.0])
        rows = []
        for number, part in tqdm(listed, desc="glioma phantom", unit="case"):
            glioma, name = draw(number), f"phantom-{number:06d}"
            images, look = volumes(number, glioma.enhancement, glioma.oedema), glioma.look
            if label_noise and part == "train":
                glioma, look = misread(glioma, label_noise, decoupled)
            mri, slide = made / "mri" / name, made / "patches" / name
            mri.mkdir(parents=True)
            slide.mkdir(parents=True)
            for modality in modalities:
                nibabel.save(nibabel.Nifti1Image(images[modality], affine), mri / f"{name}_{modality}.nii.gz")
            for k, patch in enumerate(patches(number, look, count, size)):
                Image.fromarray(patch).save(slide / f"{k:03d}.png")
            seen = {"mri_enhancement": glioma.enhancement, "mri_oedema": glioma.oedema, "slide_look": look}
            rows.append({"case": name, "class": CLASSES[glioma.label], "part": part, **seen})
        table = pd.DataFrame(rows)
        table[["case", "class"]].to_csv(made / "classes.csv", index=False)
        table[["case", "part"]].to_csv(made / "split.csv", index=False)
        if findings:
            table[["case", *seen]].to_csv(made / "findings.csv", index=False)
    return target
