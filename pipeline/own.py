"""What a folder of the reader's own cases allows: looked up before anything is trained, and nothing else is begun.

A case counts as complete with every modality of its layout and, where regions are learned, a segmentation. Complete
cases are tested, so that every combination of modalities is scored on the same cases; others help to train.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlib.data.nifti import Cases
    from mmlib.data.splits import Split

FEWEST = 3  # subjects: two to train on and one to test
COMPARED = 6  # tested subjects: of fewer, no signed-rank test reaches 5 % (all five on one side: 2 / 2**5)
COMPARED_PATIENTS = 10  # in the chapter on patients, see SAMPLE of mmlib.studies.patients
FOLDS = 3  # as profiles have for patients
STRIDE = 8  # divides the sides of a canvas, as the notebooks on synthesis ask
COMPLETE = "-complete"  # ends the name of a split without incomplete cases
VARIABLES = {"brats": "DATA", "ixi": "IXI", "ms": "MS"}  # layouts that are looked into
# The chapters that read the runs of several folds, with the run that they show: its network tests the first fold alone.
IN_FOLDS = {"01_shaspec_segmentation": "shaspec-paper-s0-fold1", "02_your_data": "shaspec-paper-s0-fold1"}


@dataclass(frozen=True)
class Own:
    """What a folder holds.

    Attributes:
        layout, folder: as the profile names them.
        modalities: of a complete case.
        cases: their number.
        labelled: cases with a segmentation; all of them where none is needed.
        complete: names of the complete cases.
        subjects: number of the subjects that these are of.
    """

    layout: str
    folder: str
    modalities: tuple[str, ...]
    cases: int
    labelled: tuple[str, ...]
    complete: tuple[str, ...]
    subjects: int

    @property
    def in_folds(self) -> bool:
        """Whether every subject is tested once, by cross-validation; else one split holds a fifth of them out."""
        return self.layout == "ms" or (self.layout == "brats" and _held_out(self.subjects) < COMPARED)

    @property
    def tested(self) -> int:
        """Number of subjects that are tested."""
        return self.subjects if self.in_folds else _held_out(self.subjects)

    @property
    def incomplete(self) -> int:
        """Number of cases that help to train and are not tested."""
        return len(self.labelled) - len(self.complete)

    @property
    def counted(self) -> str:
        """The cases of the folder in one sentence."""
        if self.layout == "ms":
            return f"MS={self.folder}: {_count(self.cases, 'case')} of {_count(self.subjects, 'subject')}"
        needed = f"{', '.join(self.modalities)}{' and a segmentation' if self.layout == 'brats' else ''}"
        return (
            f"{VARIABLES[self.layout]}={self.folder}: {_count(self.cases, 'case')}, {len(self.complete)} complete "
            f"({needed}), of {_count(self.subjects, 'subject')}"
        )

    def check(self) -> None:
        """Refuse a folder that nothing can be trained on.

        Raises:
            ValueError: says what there is, what is needed, and what the folder allows all the same.
        """
        if self.subjects >= FEWEST:
            return
        needs = f"training and testing need complete cases of at least {FEWEST} subjects"
        advice = f"It allows segmentation only; nothing is trained. {segment_command(self.folder, 'brats')}"
        raise ValueError(f"{self.counted}: {needs}. {advice if self.layout == 'brats' else 'Nothing is trained.'}")

    def describe(self) -> str:
        """What the folder allows, in sentences, for a person who is about to wait for it.

        Raises:
            ValueError: as `check`.
        """
        self.check()
        lines = [f"{self.counted}."]
        least = COMPARED_PATIENTS if self.layout == "ms" else COMPARED
        if self.tested >= least:
            lines.append(f"It allows training, and comparison with intervals: {self.tested} subjects are tested.")
        else:
            few = "1 subject is tested: no interval" if self.tested == 1 else f"{self.tested} subjects are tested"
            lines.append(f"It allows training. {few}; to tell methods apart takes {least} or more.")
        if self.in_folds:
            lines.append(f"Cross-validation by subject in {FOLDS} folds: every subject is tested once.")
        if self.incomplete:
            apart = "networks for one combination are left out" if self.in_folds else "by nets that can use them"
            lines.append(f"{_count(self.incomplete, 'incomplete case')}: trained on, not tested; {apart}.")
        if unlabelled := self.cases - len(self.labelled):
            lines.append(f"{_count(unlabelled, 'case')} without a segmentation: not used.")
        return "\n  ".join(lines)


def _held_out(subjects: int) -> int:
    """Test subjects of `mmlib.data.splits.make_split`."""
    return subjects - round(0.8 * subjects)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def segment_command(place: str, layout: str) -> str:
    """How to segment cases with a network of the book, which trains nothing on them."""
    return (
        "Segment its cases with the notebook 02_your_data:\n  jupytext --to ipynb notebooks/02_your_data.md -o - | "
        f"papermill - build/your-data.ipynb -k python3 --cwd notebooks -p data {shlex.quote(place)} -p layout {layout}"
    )


def _read(layout: str, folder: str) -> Cases:
    if layout == "ixi":
        from mmlib.data.ixi import IxiFolder

        return IxiFolder(folder)
    if layout == "ms":
        from mmlib.data.ms import MsFolder

        return MsFolder(folder)
    from mmlib.data.brats import BratsFolder

    return BratsFolder(folder)


@cache
def look(layout: str, folder: str) -> Own:
    """Count the cases of a folder; no image is opened. Once in a process, so that its plans agree.

    Raises:
        ValueError: if the folder holds no case of the layout, or one whose name cannot stand in a table.
    """
    from mmlib.data.csv_files import name_fault

    cases = _read(layout, folder)
    files = list(cases.files.values())
    if fault := next(filter(None, (name_fault(one.name) for one in files)), ""):
        raise ValueError(f"{VARIABLES[layout]}={folder}: the name of a case: {fault}; rename its folder and files")
    modalities = files[0].modalities
    labelled = [one for one in files if layout != "brats" or one.seg is not None]
    complete = [one.name for one in labelled if layout == "ms" or set(modalities) <= set(one.images)]
    subjects = {cases.subject(name) for name in complete}
    named = tuple(one.name for one in labelled)
    return Own(layout, folder, modalities, len(files), named, tuple(complete), len(subjects))


@cache
def widest(layout: str, folder: str) -> tuple[int, int]:
    """Height and width of a canvas on which every axial slice of the complete cases fits, by the headers of images.

    Both are multiples of `STRIDE`. A header that cannot be read counts for nothing: where it is read, it is refused.
    """
    from nibabel.orientations import io_orientation

    from mmlib.data.nifti import open_volume

    height = width = STRIDE
    files = _read(layout, folder).files
    for name in look(layout, folder).complete:
        path = next(iter(files[name].images.values()))
        try:
            image = open_volume(path)
        except ValueError:
            continue
        right, front, _ = io_orientation(image.affine)[:, 0].argsort()  # the axes on disk that go there
        height, width = max(height, image.shape[front]), max(width, image.shape[right])
    return -(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE


def make_splits(layout: str, folder: str, folds: int = 0) -> dict[str, Split]:
    """One split, or one for each fold, by subject: complete cases are tested, the others join what trains.

    Args:
        layout, folder: as the profile names them.
        folds: of the cross-validation; 0: one split.

    Returns:
        What is appended to the name of the data set -> split: "" or "-fold1" and so on; and COMPLETE, where one split
        has incomplete cases: the same without them.

    Raises:
        ValueError: if the folder is too small, see `Own.check`.
    """
    from mmlib.data.splits import Split, make_folds, make_split

    found, cases = look(layout, folder), _read(layout, folder)
    found.check()
    complete = cases[found.complete]
    if folds:
        splits = {f"-fold{fold}": split for fold, split in enumerate(make_folds(complete, folds, seed=0), start=1)}
    else:
        splits = {"": make_split(complete, seed=0)}
    others = {name: cases.subject(name) for name in found.labelled if name not in found.complete}
    joined = {COMPLETE: splits[""]} if others and not folds else {}
    for ending, split in splits.items():
        held_out = {split.subjects[name] for name in (*split.valid, *split.test)}
        more = tuple(name for name, subject in others.items() if subject not in held_out)
        joined[ending] = Split((*split.train, *more), split.valid, split.test, {**split.subjects, **others})
    return joined


def allow(settings: dict[str, Any], place: str) -> None:
    """Leave in a profile what the reader's folders allow; chapters that are left out stand under `left_out_chapters`.

    Args:
        settings: the profile; changed in place.
        place: where the splits of its data sets are written.

    Raises:
        ValueError: if a folder allows no training, or holds no case.
    """
    left_out = settings["left_out_chapters"]
    for name, data in settings["data"].items():
        if "folder" not in data or data["layout"] not in VARIABLES:
            continue
        found = look(data["layout"], data["folder"])
        found.check()
        experiments = [asked for asked in settings["experiments"].values() if asked.get("data") == name]
        for asked in experiments:
            _widen(asked, data)
        if data["layout"] != "brats":
            continue
        if found.in_folds:
            data["folds"] = FOLDS
        for asked in experiments:
            _adapt(asked, found, f"{place}/{name}{COMPLETE}.csv")
    folded = [name for name, data in settings["data"].items() if data["layout"] == "brats" and "folds" in data]
    if folded:
        _only_in_folds(settings, folded, left_out)


def _widen(asked: dict[str, Any], data: dict[str, Any]) -> None:
    """Give an experiment on slices a canvas that holds those of the folder, and more time in that measure."""
    if asked["notebook"] != "train_synthesis":
        return
    before = asked["common"]["size"]
    size = [max(sides) for sides in zip(before, widest(data["layout"], data["folder"]), strict=True)]
    asked["common"] = {**asked["common"], "size": size}
    times = size[0] * size[1] / (before[0] * before[1])
    asked["runs"] = [{**group, "minutes": times * group["minutes"]} for group in asked["runs"]]


def _adapt(asked: dict[str, Any], found: Own, complete: str) -> None:
    """Give an experiment settings that the folder can meet."""
    if found.in_folds:  # nobody is left to validate on: the number of steps is fixed
        for settings in (asked["common"], *asked["runs"]):
            settings.update({key: 0 * settings[key] for key in ("patience", "cases_valid") if key in settings})
    dedicated = [group for group in asked["runs"] if group["method"] == "dedicated"]
    if found.incomplete and found.in_folds:
        asked["runs"] = [group for group in asked["runs"] if group not in dedicated]
    elif found.incomplete:  # what is trained with fixed modalities takes cases that have them
        for settings in [asked["common"]] if asked["notebook"] == "train_distillation" else dedicated:
            settings["split"] = complete


def _only_in_folds(settings: dict[str, Any], folded: Sequence[str], left_out: dict[str, str]) -> None:
    why = "the folder has few subjects, and only chapters that read a cross-validation are made"
    given = {name for name, data in settings["data"].items() if "folder" in data}
    chapters: dict[str, Any] = {}
    for name, asked in settings["chapters"].items():
        reads = (asked or {}).get("experiments", [])
        on_given = bool(reads) and all(settings["experiments"][one].get("data") in given for one in reads)
        if name in IN_FOLDS:
            chapters[name] = {**asked, "parameters": {**asked.get("parameters", {}), "run": IN_FOLDS[name]}}
        elif on_given and not any(settings["experiments"][one]["data"] in folded for one in reads):
            chapters[name] = asked
        else:
            left_out[name] = why
    used = {one for asked in chapters.values() for one in asked.get("experiments", [])}
    settings["chapters"] = chapters
    settings["experiments"] = {name: asked for name, asked in settings["experiments"].items() if name in used}
    needed = {asked.get("data") for asked in settings["experiments"].values()} | given
    settings["data"] = {name: data for name, data in settings["data"].items() if name in needed}
