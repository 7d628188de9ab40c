"""Lesions to look at: what networks say of a photograph, guided by dermoscopy or not, and of both images.

A run keeps the probabilities of its main rows for every test case, beside its latents. Cases are shown by a rule: the
first by name of each way in which the photograph, guidance and both images can be right or wrong about the diagnosis.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import gaussian_filter

from mmlib.analysis.results import Results, read_arrays
from mmlib.data.derm7pt import LABELS, MODALITIES, POINTS, TASKS
from mmlib.data.phantoms.lesion.drawing import photograph
from mmlib.data.phantoms.lesion.model import ELEVATION, Lesion, draw, render
from mmlib.figures.style import BLACK, new_figure, styled
from mmlib.studies.guidance import ROWS

NAMES = {  # row -> what it is given
    "inferior": "photograph alone",
    "guided": "guided features alone",
    "combined": "guided photograph",
    "superior": "dermoscopy alone",
    "both": "both images",
}
OPENS = ("inferior", "combined", "both")  # what the view opens with; by their answers cases are chosen
KINDS = {  # -> which answers about the diagnosis are of the kind
    "guidance helps": "from the photograph wrong, guided right",
    "guidance harms": "from the photograph right, guided wrong",
    "dermoscopy helps": "from the photograph wrong, guided or not; from both images right",
    "dermoscopy harms": "from the photograph right, guided or not; from both images wrong",
    "all right": "right from the photograph, guided or not, and from both images",
    "all wrong": "wrong from the photograph, guided or not, and from both images",
}
PICTURES = {"clinic": "clinical photograph", "derm": "dermoscopic image"}
CLASSES = {
    "BCC": "basal cell carcinoma",
    "NEV": "nevus",
    "MEL": "melanoma",
    "MISC": "miscellaneous",
    "SK": "seborrheic keratosis",
    "ABS": "absent",
    "TYP": "typical",
    "ATP": "atypical",
    "PRS": "present",
    "REG": "regular",
    "IR": "irregular",
}
SIZE, QUALITY = 320, 88  # pixels a side of the pictures, and of their JPEG
APART = 0.12  # share of a picture's side that lies between two signs that are pointed at
MODEL = 200_007  # the lesion on which each sign is shown alone: it has no hair in dermoscopy


@dataclass(frozen=True)
class Answers:
    """What the networks of one run and seed said of the test lesions.

    Attributes:
        run: with its seed, as it is printed.
        case: names of the lesions.
        labels: (n, 8) class ids, columns as `mmlib.data.derm7pt.TASKS`.
        predicted: row -> (n, 8) class ids.
        probabilities: row -> (n, 24), the classes of all tasks one after the other.
    """

    run: str
    case: tuple[str, ...]
    labels: np.ndarray
    predicted: Mapping[str, np.ndarray]
    probabilities: Mapping[str, np.ndarray]

    def of_case(self, row: str, place: int) -> list[np.ndarray]:
        """The probabilities of one case, task by task."""
        bounds = np.cumsum([len(classes) for classes in TASKS.values()])[:-1]
        return np.split(self.probabilities[row][place], bounds)


def read_answers(runs: Results) -> Answers | None:
    """The answers of the first run and seed on phantom lesions that kept its probabilities; None where none did."""
    for row in runs.records.itertuples():
        if not row.stand_in:  # images of patients may not be passed on
            continue
        for path in sorted(Path(row.folder).glob("latents-s*.npz")):
            file = read_arrays(path)
            kept = [name for name in NAMES if f"probabilities_{name}" in file]
            if set(OPENS) <= set(kept):
                return Answers(
                    f"{row.run}, seed {path.stem.rsplit('-s', 1)[1]}",
                    tuple(file["case"].tolist()),
                    file["labels"],
                    {name: file[f"predicted_{name}"] for name in kept},
                    {name: file[f"probabilities_{name}"] for name in kept},
                )
    return None


def kinds(answers: Answers) -> pd.Series:
    """Test lesion -> which of `KINDS` it is."""
    alone, guided, both = (answers.predicted[row][:, 0] == answers.labels[:, 0] for row in OPENS)
    meet = [~alone & guided, alone & ~guided, ~alone & ~guided & both, alone & guided & ~both, alone & guided & both]
    *names, rest = KINDS
    return pd.Series(np.select(meet, names, rest), index=list(answers.case))


def choose(found: pd.Series) -> dict[str, str]:
    """Kind -> its first lesion by name, of what `kinds` gives; kinds that no lesion is of are left out."""
    first = found.sort_index().drop_duplicates()
    return {kind: str(first.index[first == kind][0]) for kind in KINDS if (first == kind).any()}


def pack(answers: Answers, scores: pd.DataFrame, caveat: str = "") -> dict[str, Any]:
    """What the page needs, as plain values.

    Args:
        scores: of all seeds, as `Results.scores`; their means stand beside the answers of one.
        caveat: stands before numbers that are no results.

    Raises:
        ValueError: if a lesion is not the one of the phantom with its number.
    """
    found = kinds(answers)
    counts = found.value_counts()
    balanced = scores[scores["metric"].eq("balanced") & scores["variant"].isin(NAMES)]
    means = 100 * balanced.groupby(["variant", "target"], observed=True)["value"].mean()
    return {
        "caveat": caveat,
        "n": len(found),
        "seeds": int(balanced["seed"].nunique()),
        "opens": list(OPENS),
        "tasks": [
            {"key": task, "name": _name(task), "classes": [CLASSES[name] for name in classes]}
            for task, classes in TASKS.items()
        ],
        "networks": [
            {
                "key": row,
                "name": NAMES[row],
                "colour": "currentColor" if ROWS[row][1] == BLACK else ROWS[row][1],
                "means": [round(float(means[row, task]), 1) for task in TASKS],
            }
            for row in answers.predicted
        ],
        "pictures": PICTURES,
        "kinds": [{"name": kind, "rule": rule, "count": int(counts.get(kind, 0))} for kind, rule in KINDS.items()],
        "cases": [_packed(answers, kind, case) for kind, case in choose(found).items()],
    }


def _packed(answers: Answers, kind: str, case: str) -> dict[str, Any]:
    place, lesion = answers.case.index(case), draw(int(case))
    truth = answers.labels[place].tolist()
    if truth != [lesion.labels[task] for task in TASKS]:
        raise ValueError(f"lesion {case} has other labels than the phantom's of this number: was it drawn otherwise?")
    return {
        "name": case,
        "kind": kind,
        "truth": truth,
        "images": {modality: _picture(render(lesion, modality, SIZE)) for modality in MODALITIES},
        "shows": {modality: _signs(lesion.shown(modality)) for modality in MODALITIES},
        "places": {modality: find_signs(lesion, modality) for modality in MODALITIES},
        "said": {
            row: [[round(float(one), 4) for one in task] for task in answers.of_case(row, place)]
            for row in answers.predicted
        },
        "answers": {row: predicted[place].tolist() for row, predicted in answers.predicted.items()},
    }


def find_signs(lesion: Lesion, modality: str) -> dict[str, list[float]]:
    """Criterion that an image shows -> where it changes the image most, without lying on another that was found.

    A sign that is there moves nothing else, so an image without it differs where the sign lies and nowhere else.

    Returns:
        Shares of the picture's side, from the left and from the top.
    """
    shown, places = lesion.shown(modality), {}
    whole = photograph(lesion.number, shown, modality, SIZE).astype(float)
    free = np.ones((SIZE, SIZE))
    down, across = (np.indices(free.shape) + 0.5) / SIZE
    for sign in (sign for sign in POINTS if shown[sign]):
        change = np.abs(whole - photograph(lesion.number, {**shown, sign: 0}, modality, SIZE)).sum(axis=-1)
        place = np.argmax(gaussian_filter(change, SIZE / 50) * free)
        x, y = across.flat[place], down.flat[place]
        free[np.hypot(across - x, down - y) < APART] = 0
        places[sign] = [round(float(x), 3), round(float(y), 3)]
    return places


@styled
def atlas() -> Figure:
    """The criteria of the seven-point checklist, each alone on one lesion of the phantom, as dermoscopy shows it."""
    every = [(sign, k) for sign in POINTS for k in range(1, len(TASKS[sign]))]
    figure, axes = new_figure(9, 2 * 1.9, 2, len(every) // 2)
    for axis, (sign, k) in zip(axes.flat, every, strict=True):
        axis.imshow(photograph(MODEL, {**dict.fromkeys(POINTS, 0), sign: k}, "derm", SIZE))
        points = POINTS[sign] if k == len(TASKS[sign]) - 1 else 0
        name, worth = _named(sign, k), f"{points} point{'s' * (points != 1)}"
        axis.set_title(f"{textwrap.fill(name, 19)}\n{worth}", fontsize=8)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    return figure


def _named(sign: str, k: int) -> str:
    """A class of a criterion, as a dermatologist calls it."""
    how, name = TASKS[sign][k], _name(sign)
    return name if how == "PRS" else f"{CLASSES[how]} {name}"


def _signs(shown: Mapping[str, int]) -> dict[str, str]:
    """Sign that an image shows -> in words."""
    raised = {"elevation": ELEVATION[shown["elevation"]]} if shown["elevation"] else {}
    return {sign: _named(sign, shown[sign]) for sign in POINTS if shown[sign]} | raised


def _name(task: str) -> str:
    return LABELS[task][0].replace("_", " ").replace("blue w", "blue-w")


def _picture(pixels: np.ndarray) -> str:
    """RGB (H, W, 3) uint8 as the address of a JPEG that holds it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def called() -> str:
    """What the rows are called where their scores are compared, as a sentence."""
    names = ", ".join(f"{ROWS[row][0]} ({name})" for row, name in NAMES.items())
    return f"Networks are named in the chapter on guidance as {names}."
