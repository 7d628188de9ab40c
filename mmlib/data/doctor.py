"""Check a data folder before hours are spent on it: one finding per fault, with the file and the remedy.

A note is worth knowing but is no fault: a case may lack a modality, that is what this book is about. A warning may
spoil results silently. An error stops the loader, or makes what it reads meaningless.
"""

from __future__ import annotations

import gzip
import hashlib
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from mmlib.data import brats, ixi, ms, table
from mmlib.data.checkups import CHECKUPS
from mmlib.data.findings import Finding
from mmlib.data.nifti import UNREADABLE, CaseFiles, as_labels, grid_difference, read_volume

FOLDERS = {"brats": brats, "ixi": ixi, "ms": ms}  # the modules of layouts that are folders
LAYOUTS = (*FOLDERS, "table", *CHECKUPS)
SEVERITIES = ("error", "warning", "note")
OUTSIDE = 0.05  # a larger share of the tumour than this in the background means that image and labels do not match


def examine(layout: str, path: Path | str, progress: bool = False) -> list[Finding]:
    """Open every file of a data folder and list what is wrong with it.

    Args:
        layout: "brats", "ixi", "ms", "table", "derm7pt", "radpath" or "avmnist".
        path: the folder, or the CSV of the layout "table".
        progress: show a bar over the cases.

    Returns:
        Findings, errors first, then by case.

    Raises:
        ValueError: if the layout is unknown or the path does not exist.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
    path = Path(path).resolve()
    if not path.exists():
        raise ValueError(f"{path}: no such {'file' if layout == 'table' else 'folder'}; check the path")
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
        cases, expected = FOLDERS[layout].find_cases(path), FOLDERS[layout].LAYOUT
    if not cases and not findings:
        return [Finding("error", "", path.name, "no case found", f"expected {expected}")]

    findings += _census(cases, path, layout) + _names(cases)
    if layout != "ixi":
        findings += _segmentations(cases)
    seen: dict[str, list[tuple[str, str]]] = defaultdict(list)
    spacings: dict[str, tuple[float, ...]] = {}
    for files in tqdm(cases, desc="doctor", unit="case", disable=None if progress else True):
        findings += _files(files)
        findings += _volumes(files, seen, spacings, stripped=layout != "ixi")
    findings += _duplicates(seen)
    findings += _outliers(spacings)
    return _sorted(findings)


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), one.case, one.file))


def report(findings: Iterable[Finding]) -> str:
    """Tidy text: one block for each finding, then the counts."""
    findings = list(findings)
    blocks = []
    for one in findings:
        place = "  ".join(part for part in (one.case, one.file) if part) or "all cases"
        body = textwrap.fill(one.what, 110, initial_indent="    ", subsequent_indent="    ")
        remedy = textwrap.fill(one.remedy, 110, initial_indent="    remedy: ", subsequent_indent="            ")
        blocks.append(f"{one.severity.upper():8}{place}\n{body}\n{remedy}")
    counts = Counter(one.severity for one in findings)
    totals = ", ".join(f"{counts[name]} {name}{'' if counts[name] == 1 else 's'}" for name in SEVERITIES)
    verdict = "clean" if not faults(findings) else "not clean"
    return "\n\n".join([*blocks, f"{verdict}: {totals}"])


def faults(findings: Iterable[Finding]) -> list[Finding]:
    """Errors and warnings, without the notes."""
    return [one for one in findings if one.severity != "note"]


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
        for path in (*files.images.values(), *files.ambiguous, *files.extra, files.seg, files.brain)
    }
    expected = FOLDERS[layout].LAYOUT
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.is_file() and not hidden and brats.NIFTI.search(path.name) and path not in known:
            what = "an image whose name belongs to no case: it is not read"
            findings.append(Finding("warning", "", str(path.relative_to(root)), what, f"rename it ({expected})"))
        elif path.is_dir() and not hidden and not any(path.iterdir()):
            what, remedy = "an empty folder", "copy the images again, or remove the folder"
            findings.append(Finding("warning", "", str(path.relative_to(root)), what, remedy))
    return findings


def _names(cases: list[CaseFiles]) -> list[Finding]:
    findings = []
    for name, count in Counter(files.name for files in cases).items():
        if count > 1:
            what = f"{count} folders hold a case of this name"
            findings.append(Finding("error", name, "", what, "remove the copy, or rename one of the cases"))
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
    spacings: dict[str, tuple[float, ...]],
    stripped: bool,
) -> list[Finding]:
    """Check every volume of a case, and the volumes against each other; fill `seen` and `spacings`."""
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
            _read_to_end(path)
        except ValueError as error:
            what, _, remedy = str(error).removeprefix(f"{path}: ").rpartition("; ")
            add("error", what, remedy)
            continue
        except UNREADABLE as error:
            add("error", f"damaged: {error}", "download or copy it again")
            continue
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            add("error", "the affine is singular or not finite: voxels have no place or size", "write a valid header")
            continue
        if grid is None:
            grid = (path.name, volume.shape, affine)
            spacings[files.name] = tuple(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).round(4).tolist())
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
        if inside.mean() > 0.98:
            what = "hardly any background voxel is 0: the image would be normalised over the whole volume"
            remedy = "strip the skull, or name a brain mask in a table (column brain)"
            findings.append(Finding("warning" if stripped else "note", files.name, "", what, remedy))
    if files.seg is not None and "seg" in volumes:
        findings += _labels(files, files.seg, volumes["seg"], inside)
    return findings


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
    unknown = [value for value in values if value not in (0, 1, 2, 3, 4)]
    if unknown:
        add("error", f"unknown label {', '.join(map(str, unknown))}; labels are 0-4", "map the labels to 0-4")
    if values == [0]:
        add("note", "the segmentation is empty", "none is needed if the case is healthy")
    if files.enhancing_label is None and 3 in values and 4 not in values:
        what = "label 3 without label 4: 3 is read as enhancing tumour, as from 2023 on"
        add("note", what, "if 3 means non-enhancing tumour (2012-2015), say enhancing_label 4 in a table")
    if files.enhancing_label == 3 and 4 in values:
        what = "label 4 where enhancing tumour is 3: it is read as resection cavity (2024), in no region"
        add("warning", what, "if 4 means enhancing tumour, map it to 3 or use the file names of 2018-2021")
    tumour = labels > 0
    if inside is not None and inside.shape == tumour.shape and tumour.any():
        share = np.count_nonzero(tumour & ~inside) / np.count_nonzero(tumour)
        if share > OUTSIDE:
            what = f"{share:.0%} of the segmentation lies where there is no brain"
            add("warning", what, "check that image and segmentation are of one scan and not flipped")
    return findings


def _read_to_end(path: Path) -> None:
    """Read a compressed file to its check sum, which nibabel does not reach."""
    if path.suffix == ".gz":
        with gzip.open(path) as stream:
            while stream.read(1 << 24):
                pass


def _duplicates(seen: dict[str, list[tuple[str, str]]]) -> list[Finding]:
    findings = []
    for places in seen.values():
        first_case, first_file = places[0]
        for case, file in places[1:]:
            what = f"the same voxels as {first_file}" + ("" if case == first_case else f" of case {first_case}")
            remedy = "remove the copy; a copy in training and test makes the test worthless"
            findings.append(Finding("warning", case, file, what, remedy))
    return findings


def _outliers(spacings: dict[str, tuple[float, ...]]) -> list[Finding]:
    if not spacings:
        return []
    usual, _ = Counter(spacings.values()).most_common(1)[0]
    return [
        Finding(
            "warning",
            case,
            "",
            f"voxels of {' x '.join(f'{size:g}' for size in spacing)} mm, "
            f"but {' x '.join(f'{size:g}' for size in usual)} mm in most cases",
            "bring all cases to one voxel size (mmlib.data.resample)",
        )
        for case, spacing in spacings.items()
        if not np.allclose(spacing, usual, rtol=0.01)
    ]
