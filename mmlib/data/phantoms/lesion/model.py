"""The lesion phantom: drawn skin lesions with the seven criteria, a diagnosis, and a known best score per modality.

A case is drawn in three steps. Diagnosis; then, each from the diagnosis alone, the seven criteria of the checklist and
how far the lesion is raised; then, apart from all else, which of these signs an image shows (`VISIBILITY`). An image is
drawn from the signs it shows and from things that say nothing: shape, colour of the skin, hairs, light. A sign that is
not shown is drawn as an absent one. So no method can know more about a case than its shown signs tell, and what they
tell is computed by enumeration (`ceiling`).

The dermoscopic image shows all seven criteria, sharp, and not the height: the glass plate presses the lesion flat. The
clinical photograph is taken from farther away: smaller, blurred, lit unevenly, with glare and hairs. It shows the gross
signs (veil, pigmentation, regression, height) mostly, and the fine ones (network, vessels, streaks, dots) seldom.

By a dial, training cases can have wrong diagnoses (`misread`), and then their dermoscopic image shows either the lesion
or one with the diagnosis that was written down. What is an image worth that knows more than the label?

Probabilities are made up, in the order of size that dermatology describes; none is estimated from patients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from mmlib.data.derm7pt import LABELS, MODALITIES, PARTS, POINTS, TASKS
from mmlib.data.phantoms.lesion.drawing import photograph
from mmlib.records import new_folder

FIRST = {"train": 0, "valid": 100_000, "test": 200_000}  # number of a part's first case: parts grow apart
ELEVATION = ("flat", "palpable", "nodular")
SIGNS = (*POINTS, "elevation")
PRIOR = np.array([0.12, 0.36, 0.26, 0.13, 0.13])  # of the diagnoses BCC, NEV, MEL, MISC, SK
GIVEN_DIAGNOSIS: dict[str, list[tuple[float, ...]]] = {  # rows: diagnoses; columns: classes of the sign
    "PN": [(0.96, 0.03, 0.01), (0.20, 0.68, 0.12), (0.15, 0.12, 0.73), (0.55, 0.38, 0.07), (0.93, 0.05, 0.02)],
    "BWV": [(0.80, 0.20), (0.94, 0.06), (0.40, 0.60), (0.90, 0.10), (0.90, 0.10)],
    "VS": [(0.10, 0.82, 0.08), (0.80, 0.15, 0.05), (0.40, 0.12, 0.48), (0.55, 0.35, 0.10), (0.50, 0.40, 0.10)],
    "PIG": [(0.65, 0.10, 0.25), (0.25, 0.60, 0.15), (0.08, 0.12, 0.80), (0.70, 0.25, 0.05), (0.20, 0.60, 0.20)],
    "STR": [(0.95, 0.03, 0.02), (0.72, 0.24, 0.04), (0.38, 0.12, 0.50), (0.90, 0.07, 0.03), (0.80, 0.15, 0.05)],
    "DaG": [(0.45, 0.10, 0.45), (0.20, 0.65, 0.15), (0.10, 0.15, 0.75), (0.80, 0.15, 0.05), (0.20, 0.65, 0.15)],
    "RS": [(0.88, 0.12), (0.92, 0.08), (0.45, 0.55), (0.85, 0.15), (0.95, 0.05)],
    "elevation": [(0.10, 0.30, 0.60), (0.60, 0.30, 0.10), (0.45, 0.35, 0.20), (0.25, 0.65, 0.10), (0.10, 0.80, 0.10)],
}
VISIBILITY = {  # probability that an image shows the sign of a lesion that has it
    "clinic": {"PN": 0.3, "BWV": 0.8, "VS": 0.3, "PIG": 0.85, "STR": 0.3, "DaG": 0.3, "RS": 0.75, "elevation": 0.9},
    "derm": {**dict.fromkeys(POINTS, 1.0), "elevation": 0.0},
}


# ------------------------------------------------------------------------------------------------------------ the model
@dataclass(frozen=True)
class Lesion:
    """The truth of a case.

    Attributes:
        number: what it was drawn from.
        labels: task -> class id, as `mmlib.data.derm7pt.TASKS`.
        elevation: 0 flat, 1 palpable, 2 nodular.
        visible: modality -> sign -> whether the image would show the sign, if the lesion has it.
    """

    number: int
    labels: dict[str, int]
    elevation: int
    visible: dict[str, dict[str, bool]]

    def shown(self, modality: str) -> dict[str, int]:
        """What an image is drawn from: sign -> class id, 0 where the sign is absent or not shown."""
        signs = {**self.labels, "elevation": self.elevation}
        return {sign: signs[sign] * self.visible[modality][sign] for sign in SIGNS}


def misread(lesion: Lesion, noise: float, decoupled: bool = False) -> tuple[Lesion, Lesion]:
    """Write down a wrong diagnosis in some cases, and draw the lesion that the dermoscopic image shows.

    A wrong diagnosis is any of the others. The image shows the lesion itself or, decoupled, one with signs drawn anew
    from a diagnosis that is to the label as the label is to the truth; so of both kinds label and image tell the same
    about each other.

    Args:
        lesion: as drawn.
        noise: probability of a wrong diagnosis, in [0, 1).
        decoupled: whether the image shows what the label says.

    Returns:
        The lesion with the diagnosis that is written down, and the one that the dermoscopic image shows.

    Raises:
        ValueError: if the noise is outside [0, 1).
    """
    if not 0 <= noise < 1:
        raise ValueError(f"label_noise is the probability of a wrong diagnosis, in [0, 1); got {noise}")
    rng = np.random.default_rng((lesion.number, 6))

    def flipped(diagnosis: int) -> int:
        other = int(rng.choice(np.delete(np.arange(len(PRIOR)), diagnosis)))
        return other if rng.random() < noise else diagnosis

    label = flipped(lesion.labels["DIAG"])
    written = replace(lesion, labels={**lesion.labels, "DIAG": label})
    shown = flipped(label)
    signs = {sign: int(rng.choice(len(rows[0]), p=rows[shown])) for sign, rows in GIVEN_DIAGNOSIS.items()}
    anew = replace(lesion, labels={"DIAG": shown, **{sign: signs[sign] for sign in POINTS}})
    return written, anew if decoupled else lesion


def draw(number: int) -> Lesion:
    """Draw the truth of a case; the same number gives the same lesion.

    Raises:
        ValueError: if `number` is negative.
    """
    if number < 0:
        raise ValueError(f"the number of a lesion is at least 0; got {number}")
    rng = np.random.default_rng((number, 1))
    diagnosis = int(rng.choice(len(PRIOR), p=PRIOR))
    signs = {sign: int(rng.choice(len(rows[0]), p=rows[diagnosis])) for sign, rows in GIVEN_DIAGNOSIS.items()}
    chances = {modality: rng.random(len(SIGNS)) for modality in MODALITIES}
    visible = {
        modality: {
            sign: bool(chance < VISIBILITY[modality][sign])
            for sign, chance in zip(SIGNS, chances[modality], strict=True)
        }
        for modality in MODALITIES
    }
    return Lesion(number, {"DIAG": diagnosis, **{sign: signs[sign] for sign in POINTS}}, signs["elevation"], visible)


@cache
def _joint(modalities: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Per task: P(class, shown signs), (K, E), over all E combinations of what the images show together.

    Two images of a lesion never contradict each other, so together they show a sign where at least one of them does.
    """
    unknown = set(modalities) - set(MODALITIES)
    if unknown or not modalities:
        raise ValueError(f"modalities are {MODALITIES}, at least one of them; got {modalities}")
    tables, channels = {}, {}
    for sign, rows in GIVEN_DIAGNOSIS.items():
        tables[sign] = np.array(rows)
        hidden = np.prod([1 - VISIBILITY[modality][sign] for modality in modalities])
        channels[sign] = (1 - hidden) * np.eye(len(rows[0]))  # rows: the class; columns: what is shown
        channels[sign][:, 0] += hidden
    shown = np.array(list(product(*(range(len(channels[sign])) for sign in SIGNS)))).T  # (8, E)
    alone = {sign: (tables[sign] @ channels[sign])[:, seen] for sign, seen in zip(SIGNS, shown, strict=True)}
    joint = {"DIAG": PRIOR[:, None] * np.prod(list(alone.values()), axis=0)}
    for task, seen in zip(POINTS, shown[:-1], strict=True):  # given the diagnosis, other signs say nothing about it
        others = PRIOR[:, None] * np.prod([alone[sign] for sign in SIGNS if sign != task], axis=0)  # (5, E)
        joint[task] = tables[task].T @ others * channels[task][:, seen]
    return joint


def ceiling(*modalities: str) -> pd.DataFrame:
    """The best scores that anything can attain, of infinitely many cases: exact, by enumeration.

    Balanced accuracy is highest for who names the class under which the shown signs are most probable; accuracy, for
    who names the most probable class. What is lost in drawing, by blur or under glare, comes on top.

    Args:
        modalities: what is available, such as `ceiling("clinic")` or `ceiling("clinic", "derm")`.

    Returns:
        One row per task, columns balanced_accuracy and accuracy.

    Raises:
        ValueError: if a modality is unknown, or there is none.
    """
    rows = {
        task: {
            "balanced_accuracy": (table / table.sum(axis=1, keepdims=True)).max(axis=0).sum() / len(table),
            "accuracy": table.max(axis=0).sum(),
        }
        for task, table in _joint(modalities).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")


def melanoma_ceiling(*modalities: str) -> float:
    """The best attainable AUROC of melanoma against all other diagnoses; arguments as `ceiling`."""
    table = _joint(modalities)["DIAG"]
    melanoma = TASKS["DIAG"].index("MEL")
    positive, negative = table[melanoma], np.delete(table, melanoma, axis=0).sum(axis=0)
    seen = positive + negative > 0
    positive, negative = positive[seen], negative[seen]
    score = np.round(positive / (positive + negative), 12)  # equal evidence is a tie
    frame = pd.DataFrame({"score": score, "positive": positive, "negative": negative}).groupby("score").sum()
    below = frame.negative.cumsum() - frame.negative / 2
    return float((frame.positive * below).sum() / (frame.positive.sum() * frame.negative.sum()))


# ------------------------------------------------------------------------------------------------------------ the files
def render(lesion: Lesion, modality: str, size: int = 64) -> np.ndarray:
    """Draw an image of a lesion, from the signs that it shows in this modality and from nothing else of its truth.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        ValueError: if the modality is unknown.
    """
    if modality not in MODALITIES:
        raise ValueError(f"unknown modality {modality!r}; choose one of {MODALITIES}")
    return photograph(lesion.number, lesion.shown(modality), modality, size)


def write_derm7pt(
    folder: str | Path,
    train: int,
    valid: int,
    test: int,
    size: int = 64,
    label_noise: float = 0.0,
    decoupled: bool = False,
) -> Path:
    """Write phantom lesions in the layout of the Derm7pt release: meta/ and images/, read by `mmlib.data.derm7pt.load`.

    Case n of a part is the same however many there are. Its number in meta.csv is what `draw` takes. A folder of the
    same name is replaced, when the new one is complete.

    Args:
        folder: where to.
        train, valid, test: numbers of cases.
        size: sides of the images, pixels.
        label_noise, decoupled: of the training cases, see `misread`; other cases keep their diagnoses and images.

    Returns:
        The folder.

    Raises:
        ValueError: if a part has no case or more than 100,000, or the noise is no probability.
    """
    target = Path(folder)
    counts = dict(zip(PARTS, (train, valid, test), strict=True))
    for part, count in counts.items():
        if not 0 < count <= FIRST["valid"]:
            raise ValueError(f"the part {part} has between 1 and {FIRST['valid']} lesions; got {count}")
    with new_folder(target) as made:
        for below in ("meta", *(f"images/{modality}" for modality in MODALITIES)):
            (made / below).mkdir(parents=True)
        numbers = {part: range(FIRST[part], FIRST[part] + count) for part, count in counts.items()}
        rows = []
        for number in tqdm([number for part in PARTS for number in numbers[part]], desc="lesion phantom", unit="case"):
            lesion = draw(number)
            seen = {modality: lesion for modality in MODALITIES}
            if label_noise and number in numbers["train"]:
                lesion, seen["derm"] = misread(lesion, label_noise, decoupled)
            files = {modality: f"{modality}/{number:06d}.png" for modality in MODALITIES}
            for modality, file in files.items():
                Image.fromarray(render(seen[modality], modality, size)).save(made / "images" / file)
            rows.append({**_row(lesion), **files})
        pd.DataFrame(rows).to_csv(made / "meta" / "meta.csv", index=False)
        first = 0
        for part, count in counts.items():
            indexes = pd.DataFrame({"indexes": range(first, first + count)})
            indexes.to_csv(made / "meta" / f"{part}_indexes.csv", index=False)
            first += count
    return target


def _row(lesion: Lesion) -> dict[str, str | int]:
    """A row of meta.csv; where a class groups several labels of the release, one of them is taken at random."""
    rng = np.random.default_rng((lesion.number, 5))
    row: dict[str, str | int] = {"case_num": lesion.number}
    for task, (column, classes) in LABELS.items():
        row[column] = str(rng.choice(list(classes.values())[lesion.labels[task]]))
    row["seven_point_score"] = sum(p * (lesion.labels[task] == len(TASKS[task]) - 1) for task, p in POINTS.items())
    row["elevation"] = ELEVATION[lesion.elevation]
    return row
