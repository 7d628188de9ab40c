"""What the doctor looks at in layouts of pairs: Derm7pt, RadPath and avMNIST.

The loaders say what is wrong with a file. Every function takes the folder, opens every file that its loader may read,
and returns findings in the order in which they were met. It raises nothing that comes from the folder.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm.auto import tqdm

from mmlib.data import avmnist, derm7pt, radpath
from mmlib.data.brats import find_cases
from mmlib.data.csv_files import count_of
from mmlib.data.findings import Finding
from mmlib.data.nifti import CaseFiles
from mmlib.data.pictures import read_rgb

NO_REMEDY = "none is needed"


def examine_derm7pt(root: Path, progress: bool = False) -> list[Finding]:
    """Findings in a folder that `mmlib.data.derm7pt.load` reads."""
    findings: list[Finding] = []
    lists = {}
    with _noting(findings, root):
        lists = derm7pt.read_lists(root)
    meta = root / "meta" / "meta.csv"
    seen: dict[str, tuple[str, str]] = {}
    for part, rows in lists.items():
        alike = []
        for _, row in _bar(list(rows.iterrows()), progress):
            case = row.case_num
            paths: list[Path] = []
            for name in derm7pt.MODALITIES:
                with _noting(findings, root, case, meta.name):
                    paths.append(derm7pt.image_path(root, row, name))
            if len(set(paths)) < len(paths):
                what = f"photograph and dermoscopic image are one file, {paths[0].name}: the pair is refused"
                findings.append(Finding("note", case, meta.name, what, NO_REMEDY))
                alike.append(row.name)
                continue
            for path in paths:
                with _noting(findings, root, case, path.name):
                    derm7pt.read_image(path, size=8)
                    _note_copy(findings, seen, case, path.name, path.read_bytes())
        pairs = rows.drop(index=alike)
        findings.append(Finding("note", "", f"{part}_indexes.csv", count_of(len(pairs), "pair"), NO_REMEDY))
        labels = []
        for number, case in pairs.case_num.items():
            with _noting(findings, root, case, meta.name):
                labels.append(derm7pt.class_ids(pairs.loc[[number]], meta))
        if len(labels) == len(pairs):
            ids = torch.cat([torch.empty(0, len(derm7pt.TASKS), dtype=torch.long), *labels])
            _note_classes(findings, part, derm7pt.lacking_classes(ids), f"{part}_indexes.csv")
        for case, count in Counter(pairs.case_num).items():
            if count > 1:
                what = f"{count} rows of the part {part} have this case_num"
                findings.append(Finding("warning", case, meta.name, what, "number every case once"))
    return findings


def examine_radpath(root: Path, progress: bool = False) -> list[Finding]:
    """Findings in a folder that `mmlib.data.radpath.load` reads."""
    findings: list[Finding] = []
    classes: dict[str, str] = {}
    split: dict[str, str] = {}
    found: list[CaseFiles] = []
    with _noting(findings, root):
        classes, split = radpath.read_lists(root)
        found = find_cases(root / "mri")
    if findings:
        return findings
    volumes = {files.name: files for files in found}
    for name, count in Counter(files.name for files in found).items():
        if count > 1:
            findings.append(Finding("error", name, "", f"{count} folders of mri/ hold it", "keep one of them"))
    seen: dict[str, tuple[str, str]] = {}
    scans: dict[str, dict[tuple[str, str], tuple[int, ...]]] = defaultdict(dict)  # modality -> (case, file) -> shape
    patches: dict[tuple[str, str], tuple[int, ...]] = {}
    for case in _bar(list(split), progress):
        if case not in classes:
            findings.append(Finding("error", case, "classes.csv", "it has no class", "add it, or take the case out"))
        files = volumes.get(case)
        if files is None:
            what = f"no volume in mri/{case}, expected {case}_t1.nii.gz, _t1ce, _t2 or _flair"
            findings.append(Finding("error", case, "", what, "add one, or take the case out"))
        for path in files.ambiguous if files else ():
            what = "another file of this folder takes the same place"
            findings.append(Finding("error", case, path.name, what, "keep one file for each modality"))
        for modality, path in files.images.items() if files else ():
            with _noting(findings, root, case, path.name):
                scan = radpath.read_scan(path, case)
                scans[modality][case, path.name] = tuple(scan.shape)
                _note_copy(findings, seen, case, path.name, scan.numpy().tobytes())
        shapes: dict[tuple[str, str], tuple[int, ...]] = {}
        with _noting(findings, root, case, "patches"):
            for path in radpath.patch_files(root / "patches" / case, case):
                with _noting(findings, root, case, path.name):
                    shapes[case, path.name] = read_rgb(path, pixels=radpath.PATCH_PIXELS).shape
        if shapes:
            _note_shapes(findings, shapes, "patches of the slide")
            patches[case, "patches"] = Counter(shapes.values()).most_common(1)[0][0]
    _note_shapes(findings, patches, "slides")
    for modality, of_case in scans.items():
        _note_shapes(findings, of_case, f"volumes of {modality}")
    usable = [name for name, of_case in scans.items() if split and len(of_case) == len(split)]
    if usable:
        what = f"{count_of(len(split), 'case')}; an experiment can take {' or '.join(usable)}, which all of them have"
        findings.append(Finding("note", "", "mri", what, NO_REMEDY))
    else:
        what = "there is no modality that every case has, and an experiment takes one"
        findings.append(Finding("error", "", "mri", what, "add the volumes, or take cases out of split.csv"))
    for part in radpath.PARTS:
        here = {classes.get(case) for case, its_part in split.items() if its_part == part}
        _note_classes(findings, part, [name for name in radpath.CLASSES if name not in here], "split.csv")
    return findings


def examine_avmnist(root: Path, progress: bool = False) -> list[Finding]:
    """Findings in a folder that `mmlib.data.avmnist.load` reads."""
    findings: list[Finding] = []
    counts: dict[str, int] = {}
    others = []
    for name in avmnist.MNIST_MD5:
        path = avmnist.find_idx(root, name)
        if path is None:
            what = f"it is missing (or {name}.gz), in the folder, in {' or in '.join(avmnist.MNIST_FOLDERS[1:])}"
            findings.append(Finding("error", "", name, what, "put the file there, or load with download=True"))
            continue
        with _noting(findings, root, "", path.name):
            values, known = avmnist.read_idx(path)
            counts[name] = len(values)
            others += [] if known else [path.name]
            if "labels" in name:
                avmnist.rows_by_name(
                    values, *((avmnist.TRAIN, "training") if "train" in name else (avmnist.TEST, "test"))
                )
    for part in ("train", "t10k"):
        images, labels = (counts.get(f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        if images is not None and labels is not None and images != labels:
            what = f"{count_of(images, 'image')}, but {count_of(labels, 'label')}"
            findings.append(Finding("error", "", f"{part}-images-idx3-ubyte", what, "take both from one download"))
    recordings: dict[tuple[int, str, int], Path] = {}
    with _noting(findings, root):
        recordings, problems = avmnist.find_recordings(root)
        findings += [_finding(problem, root) for problem in problems]
    sound = []
    for path in _bar(list(recordings.values()), progress):
        with _noting(findings, root, "", path.name):
            avmnist.read_wav(path)
            sound.append(path)
    if sound and len(sound) == len(recordings) and avmnist.recordings_hash(sound) != avmnist.FSDD_SHA256:
        others.append("recordings")
    if others:
        findings.append(_finding(f"{', '.join(others)}: {avmnist.OTHER}", root, severity="warning"))
    what = ", ".join([*(f"{name} {count}" for name, count in counts.items()), f"recordings {len(sound)}"])
    findings.append(Finding("note", "", "", what, NO_REMEDY))
    return findings


CHECKUPS = {"derm7pt": examine_derm7pt, "radpath": examine_radpath, "avmnist": examine_avmnist}


def _bar(items: list, progress: bool) -> Iterable:
    return tqdm(items, desc="doctor", disable=None if progress else True)


def _finding(text: str, root: Path, case: str = "", file: str = "", severity: str = "error") -> Finding:
    """A finding of a loader's sentence, which ends in the remedy."""
    what, _, remedy = text.replace(f"{root}/", "").rpartition("; ")
    return Finding(severity, case, file, what or remedy, remedy if what else "correct the file")


@contextmanager
def _noting(findings: list[Finding], root: Path, case: str = "", file: str = "") -> Iterator[None]:
    """Turn what a reader raises into a finding."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        findings.append(_finding(str(error), root, case, file))
    except Exception as error:  # whatever a file holds, the others are looked at
        what = f"cannot be checked ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        findings.append(Finding("error", case, file, what, "look at its permissions, or copy it again"))


def _note_copy(findings: list[Finding], seen: dict[str, tuple[str, str]], case: str, file: str, content: bytes) -> None:
    first = seen.setdefault(hashlib.sha256(content).hexdigest(), (case, file))
    if first != (case, file):
        what = f"the same as {first[1]} of case {first[0]}"
        remedy = "remove the copy, since one in training and test makes the test worthless"
        findings.append(Finding("warning", case, file, what, remedy))


def _note_classes(findings: list[Finding], part: str, lacking: list[str], file: str) -> None:
    if lacking:
        severity = "error" if part == "train" else "warning"
        what = f"the part {part} has no case of {', '.join(lacking)}"
        findings.append(Finding(severity, "", file, what, "add such cases, or do without the class"))


def _note_shapes(findings: list[Finding], shapes: dict[tuple[str, str], tuple[int, ...]], of: str) -> None:
    """Name those of another shape than most."""
    usual = Counter(shapes.values()).most_common(1)
    for (case, file), shape in shapes.items():
        if shape != usual[0][0]:
            what = f"the shape {shape}, but {usual[0][0]} in most {of}"
            findings.append(Finding("error", case, file, what, "bring all to one size, else they make no batch"))
