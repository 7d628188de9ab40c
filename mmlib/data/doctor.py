"""Check a data folder before hours are spent on it: one finding per fault, with the file and the remedy.

A note is worth knowing but is no fault: a case may lack a modality, that is what this book is about. A warning may
spoil results silently. An error stops the loader, or makes what it reads meaningless.
"""

from __future__ import annotations

import hashlib
import os
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from nibabel import aff2axcodes
from tqdm.auto import tqdm

from mmlib.data import brats, ixi, ms, table
from mmlib.data.checkups import CHECKUPS
from mmlib.data.csv_files import name_fault
from mmlib.data.findings import Finding, printable
from mmlib.data.nifti import CaseFiles, as_labels, grid_difference, read_volume, shown
from mmlib.records import folders_below

FOLDERS = {"brats": brats, "ixi": ixi, "ms": ms}  # the modules of layouts that are folders
LAYOUTS = (*FOLDERS, "table", *CHECKUPS)
CAVITY = 4  # label of the resection cavity in BraTS 2024, where enhancing tumour is 3
SEVERITIES = ("error", "warning", "note")
OUTSIDE = 0.05  # a larger share of the tumour than this in the background means that image and labels do not match
CORNERS = 0.1  # a brain without its skull leaves the corners of its box empty; a larger share there is noise


def examine(layout: str, path: Path | str, progress: bool = False, labelled: bool = True) -> list[Finding]:
    """Open every file of a data folder and list what is wrong with it; what cannot be examined is a finding too.

    Args:
        layout: "brats", "ixi", "ms", "table", "derm7pt", "radpath" or "avmnist".
        path: the folder, or the CSV of the layout "table".
        progress: show a bar over the cases.
        labelled: whether a case should have a segmentation; not where it is only to be predicted.

    Returns:
        Findings, errors first, then by case.

    Raises:
        ValueError: if the layout is unknown or the path does not exist.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
    path = Path(os.path.realpath(path))  # Path.resolve raises on a link to itself
    if not os.path.exists(path):
        raise ValueError(f"{shown(path)}: no such {'file' if layout == 'table' else 'folder'}; check the path")
    findings: list[Finding] = []
    if layout in CHECKUPS:
        return _sorted(CHECKUPS[layout](path, progress))
    if layout == "table":
        try:
            cases, problems = table.read_table(path)
        except ValueError as error:
            problem, _, remedy = str(error).partition("; ")
            return [Finding("error", "", path.name, problem, remedy)]
        for text in problems:
            problem, _, remedy = text.partition("; ")
            findings.append(Finding("error", "", path.name, problem, remedy))
        expected = "a table with one row for each case"
    else:
        unlisted: list[OSError] = []
        cases, expected = FOLDERS[layout].find_cases(path, unlisted.append), FOLDERS[layout].LAYOUT
        findings += _unlisted(unlisted, path)
    if not cases and not findings:
        return [Finding("error", "", path.name, "no case found", f"expected {expected}")]

    findings += _guarded("", _census, cases, path, layout) + _names(cases)
    if layout != "ixi" and labelled:
        findings += _segmentations(cases)
    seen: dict[str, list[tuple[str, str]]] = defaultdict(list)
    grids: dict[str, np.ndarray] = {}
    cavities: list[tuple[str, bool, bool]] = []
    for files in tqdm(cases, desc="doctor", unit="case", disable=None if progress else True):
        findings += _guarded(files.name, _files, files)
        findings += _guarded(files.name, _volumes, files, seen, grids, cavities)
    findings += _duplicates(seen) + _outliers(grids) + _cavities(cavities)
    return _sorted(findings)


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), one.case, one.file))


def report(findings: Iterable[Finding]) -> str:
    """Tidy text for a terminal: one block for each finding, then the counts."""
    findings = list(findings)
    blocks = []
    for one in findings:
        place = printable("  ".join(part for part in (one.case, one.file) if part) or "all cases")
        body = textwrap.fill(printable(one.what), 110, initial_indent="    ", subsequent_indent="    ")
        remedy = textwrap.fill(
            printable(one.remedy), 110, initial_indent="    remedy: ", subsequent_indent="            "
        )
        blocks.append(f"{one.severity.upper():8}{place}\n{body}\n{remedy}")
    counts = Counter(one.severity for one in findings)
    totals = ", ".join(f"{counts[name]} {name}{'' if counts[name] == 1 else 's'}" for name in SEVERITIES)
    verdict = "clean" if not faults(findings) else "not clean"
    return "\n\n".join([*blocks, f"{verdict}: {totals}"])


def faults(findings: Iterable[Finding]) -> list[Finding]:
    """Errors and warnings, without the notes."""
    return [one for one in findings if one.severity != "note"]


def _guarded(case: str, check: Callable[..., list[Finding]], *arguments: object) -> list[Finding]:
    """What a check finds; where it fails itself, that is the finding."""
    try:
        return check(*arguments)
    except Exception as error:  # of whatever the files hold: the other cases are still to be examined
        reason = " ".join(str(error).split())[:200]
        what = f"could not be examined ({type(error).__name__}: {reason})"
        return [Finding("error", case, "", what, "convert or copy the files again, or leave them out")]


def _unlisted(errors: Iterable[OSError], root: Path) -> list[Finding]:
    remedy = "give yourself the right to read it, or move it away: the loader stops here"
    return [
        Finding("error", "", os.path.relpath(error.filename, root), f"cannot be listed ({error.strerror})", remedy)
        for error in errors
    ]


def _census(cases: list[CaseFiles], root: Path, layout: str) -> list[Finding]:
    """How many files there are of each kind, and which images and folders belong to no case."""
    places = Counter(place for files in cases for place in files.images)
    names = cases[0].modalities if cases else ()
    counts = [f"{name} {places[name]}" for name in names]
    if layout != "ixi":
        counts.append(f"seg {sum(files.seg is not None for files in cases)}")
    plural = "" if len(cases) == 1 else "s"
    findings = [Finding("note", "", "", f"{len(cases)} case{plural}: {', '.join(counts)}", "none is needed")]
    if layout == "table":
        return findings
    known = {
        path
        for files in cases
        for path in (*files.images.values(), *files.ambiguous, *files.foreign, *files.extra, files.seg, files.brain)
    }
    expected = FOLDERS[layout].LAYOUT
    for folder, files_there in folders_below(root, lambda error: None):  # what cannot be listed is found before
        for name in files_there:
            path = folder / name
            if brats.NIFTI.search(path.name) and path not in known:
                what = "an image whose name belongs to no case: it is not read"
                findings.append(Finding("warning", "", str(path.relative_to(root)), what, f"rename it ({expected})"))
        if not files_there and not os.listdir(folder):
            what, remedy = "an empty folder", "copy the images again, or remove the folder"
            findings.append(Finding("warning", "", str(folder.relative_to(root)), what, remedy))
    return findings


def _names(cases: list[CaseFiles]) -> list[Finding]:
    findings = []
    for name, count in Counter(files.name for files in cases).items():
        if count > 1:
            what = f"{count} folders hold a case of this name"
            findings.append(Finding("error", name, "", what, "remove the copy, or rename one of the cases"))
        if fault := name_fault(name):
            findings.append(Finding("error", name, "", f"its name: {fault}", "rename its folder and files"))
    subjects = defaultdict(set)
    for files in cases:
        subjects[files.subject or files.name].add(files.name)
    for subject, names in subjects.items():
        if len(names) > 1:
            what = f"the subject {subject} was scanned {len(names)} times: {', '.join(sorted(names))}"
            remedy = "split by subject, as make_split does, so that no subject is in training and test"
            findings.append(Finding("note", min(names), "", what, remedy))
    return findings


def _segmentations(cases: list[CaseFiles]) -> list[Finding]:
    without = [files.name for files in cases if files.seg is None]
    remedy = "add the file; without it the case can be predicted, but neither trained on nor scored"
    if cases and len(without) == len(cases):
        return [Finding("warning", "", "", f"no case has a segmentation ({len(cases)} cases)", remedy)]
    return [Finding("warning", name, "", "the segmentation is missing", remedy) for name in without]


def _files(files: CaseFiles) -> list[Finding]:
    findings = []
    if not files.images:
        what = f"no file of any modality ({', '.join(files.modalities)})"
        findings.append(Finding("error", files.name, "", what, "add the images, or remove the case"))
    else:
        missing = [name for name in files.modalities if name not in files.images]
        if missing:
            remedy = "none is needed: what is missing is read as not available"
            findings.append(Finding("note", files.name, "", f"missing: {', '.join(missing)}", remedy))
    for path in files.ambiguous:
        what = "another file of this folder takes the same place"
        findings.append(Finding("error", files.name, path.name, what, "keep one file for each modality"))
    for path in files.foreign:
        what = "an image that is named after another case than the other files of this folder"
        remedy = "move it to its own folder, or name all files of a case alike"
        findings.append(Finding("error", files.name, path.name, what, remedy))
    for path in files.extra:
        if brats.NIFTI.search(path.name):
            what = "an image whose name says no modality: it is not read"
            remedy = f"rename it if it belongs to the case ({brats.LAYOUT}), else remove it"
            findings.append(Finding("warning", files.name, path.name, what, remedy))
        else:
            findings.append(Finding("note", files.name, path.name, "a file that is not read", "none is needed"))
    return findings


def _volumes(
    files: CaseFiles,
    seen: dict[str, list[tuple[str, str]]],
    grids: dict[str, np.ndarray],
    cavities: list[tuple[str, bool, bool]],
) -> list[Finding]:
    """Check every volume of a case, and the volumes against each other; fill `seen`, `grids` (affines), `cavities`."""
    findings: list[Finding] = []
    volumes: dict[str, np.ndarray] = {}
    grid: tuple[str, tuple[int, ...], np.ndarray] | None = None
    for place, path in {**files.images, "seg": files.seg, "brain": files.brain}.items():
        if path is None:
            continue

        def add(severity: str, what: str, remedy: str, file: str = path.name) -> None:
            findings.append(Finding(severity, files.name, file, what, remedy))

        try:
            volume, affine, _ = read_volume(path)
        except ValueError as error:
            what, _, remedy = str(error).removeprefix(f"{path}: ").rpartition("; ")
            add("error", what, remedy)
            continue
        if grid is None:
            grid = (path.name, volume.shape, affine)
            grids[files.name] = affine
        elif difference := grid_difference(volume.shape, affine, grid[1], grid[2]):
            add("error", f"{difference} {grid[0]}", "resample or re-register the case to one grid")
        broken = np.size(volume) - np.count_nonzero(np.isfinite(volume))
        if broken:
            add("error", f"{broken} voxels are NaN or infinite", "repair them, or leave the file out")
        elif place not in ("seg", "brain") and volume.min() == volume.max():
            add("error", f"constant: every voxel is {volume.flat[0]:g}", "export it again, or leave the file out")
        elif place == "brain" and not (volume > 0.5).any():
            add("error", "the brain mask is empty", "make it again, or empty the cell")
        else:
            volumes[place] = volume
            if volume.any():
                digest = hashlib.sha256(str(volume.shape).encode() + volume.tobytes()).hexdigest()
                seen[digest].append((files.name, path.name))
    images = [volume for place, volume in volumes.items() if place in files.images]
    inside = volumes["brain"] > 0.5 if "brain" in volumes else None
    if inside is None and images and all(image.shape == images[0].shape for image in images):
        inside = np.any([image != 0 for image in images], axis=0)
        if (share := _corners(inside)) > CORNERS:
            what = f"{share:.0%} of the voxels in the corners are not 0: the images are normalised over background too"
            remedy = "strip the skull and set the background to 0, or give a brain mask (column brain of a table)"
            findings.append(Finding("warning", files.name, "", what, remedy))
    if files.seg is not None and "seg" in volumes:
        findings += _labels(files, files.seg, volumes["seg"], inside)
        if files.enhancing_label == 3 and (CAVITY in volumes["seg"] or 3 in volumes["seg"]):
            cavities.append((files.name, CAVITY in volumes["seg"], 3 in volumes["seg"]))
    return findings


def _corners(inside: np.ndarray) -> float:
    """Share of the eight corners, each a tenth of every side, that is not 0."""
    corners = inside
    for axis, side in enumerate(inside.shape):
        edge = max(1, side // 10)
        corners = np.take(corners, [*range(edge), *range(side - edge, side)], axis=axis)
    return float(corners.mean())


def _labels(files: CaseFiles, path: Path, volume: np.ndarray, inside: np.ndarray | None) -> list[Finding]:
    findings: list[Finding] = []

    def add(severity: str, what: str, remedy: str) -> None:
        findings.append(Finding(severity, files.name, path.name, what, remedy))

    try:
        labels = as_labels(volume, path)
    except ValueError as error:
        what, _, remedy = str(error).removeprefix(f"{path}: ").partition("; ")
        add("error", what, remedy)
        return findings
    values = np.unique(labels).tolist()
    if values == [0]:
        add("note", "the segmentation is empty", "none is needed if the case is healthy")
    if files.enhancing_label is None and 3 in values and 4 not in values:
        what = "label 3 without label 4: 3 is read as enhancing tumour, as from 2023 on"
        add("note", what, "if 3 means non-enhancing tumour (2012-2015), say enhancing_label 4 in a table")
    tumour = (labels > 0) & (labels != CAVITY) if files.enhancing_label == 3 else labels > 0
    if inside is not None and inside.shape == tumour.shape and tumour.any():
        share = np.count_nonzero(tumour & ~inside) / np.count_nonzero(tumour)
        if share > OUTSIDE:
            what = f"{share:.0%} of the segmentation lies where there is no brain"
            add("warning", what, "check that image and segmentation are of one scan and not flipped")
    return findings


def _duplicates(seen: dict[str, list[tuple[str, str]]]) -> list[Finding]:
    findings = []
    for places in seen.values():
        first_case, first_file = places[0]
        for case, file in places[1:]:
            what = f"the same voxels as {first_file}" + ("" if case == first_case else f" of case {first_case}")
            remedy = "remove the copy; a copy in training and test makes the test worthless"
            findings.append(Finding("warning", case, file, what, remedy))
    return findings


def _outliers(grids: Mapping[str, np.ndarray]) -> list[Finding]:
    """Cases of other voxels than most (a note), or stored along other axes (a warning)."""
    if not grids:
        return []
    spacings = {case: tuple(np.sqrt((one[:3, :3] ** 2).sum(axis=0)).round(4).tolist()) for case, one in grids.items()}
    axes = {case: "".join(aff2axcodes(affine)) for case, affine in grids.items()}
    (usual, _), (along, _) = (Counter(one.values()).most_common(1)[0] for one in (spacings, axes))
    findings = []
    for case, spacing in spacings.items():
        if not np.allclose(spacing, usual, rtol=0.01):
            what = f"voxels of {_by(spacing)} mm, but {_by(usual)} mm in most cases"
            remedy = "none is needed where cases are resampled (mmlib.data.resample); else a network sees two sizes"
            findings.append(Finding("note", case, "", what, remedy))
        if axes[case] != along:
            what = f"stored along {axes[case]}, most cases along {along}: to a network a mirror image, or turned"
            remedy = "bring all to one orientation (nibabel.as_closest_canonical) or grid (mmlib.data.resample)"
            findings.append(Finding("warning", case, "", what, remedy))
    return findings


def _cavities(found: list[tuple[str, bool, bool]]) -> list[Finding]:
    """Label 4 where 3 is enhancing tumour: BraTS 2024, or the labels of 2018-2021 under the names of 2023."""
    with_cavity = [case for case, cavity, _ in found if cavity]
    if not with_cavity:
        return []
    what = f"label 4 in {len(with_cavity)} of the cases where enhancing tumour is 3: read as resection cavity (2024)"
    if any(enhancing for _, _, enhancing in found):
        return [Finding("note", "", "", f"{what}, in no region", "none is needed")]
    remedy = "if 4 means enhancing tumour, map it to 3, or use the file names of 2018-2021"
    return [Finding("warning", with_cavity[0], "", f"{what}, and 3 in none", remedy)]


def _by(sides: Iterable[float]) -> str:
    return " x ".join(f"{side:g}" for side in sides)
