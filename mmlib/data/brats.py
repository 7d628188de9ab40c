"""BraTS folders as they are downloaded, and the clipping of the released code.

Read by modality name, in both official namings:
2018-2021: `<case>/<case>_flair.nii.gz`, `_t1`, `_t1ce`, `_t2`, `_seg` (in 2018 and 2019 under HGG/ and LGG/);
2023 on:   `<case>/<case>-t2f.nii.gz`, `-t1n`, `-t1c`, `-t2w`, `-seg`; enhancing tumour is label 3 there, not 4.
A case that lacks the file of a modality is a case in which this modality is not available; nothing is filled in.
Upper and lower case are alike in endings (`_T1.NII.GZ`). All files of a folder are named after one case.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mmlib.data.cases import Case
from mmlib.data.nifti import CaseFiles, Cases, OnError, find_folders, read_folder, refuse, shown, write_segmentation
from mmlib.modalities import MRI

__all__ = [
    "BratsFolder", "clip_tail", "find_cases", "load_case", "subject_of", "write_segmentation",
]  # fmt: skip

CLASSIC = {"_t1": "t1", "_t1ce": "t1ce", "_t2": "t2", "_flair": "flair", "_seg": "seg"}
RECENT = {"-t1n": "t1", "-t1c": "t1ce", "-t2w": "t2", "-t2f": "flair", "-seg": "seg"}
NIFTI = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
LAYOUT = (
    "<case>/<case>_flair.nii.gz, _t1, _t1ce, _t2, _seg (2018-2021) or <case>/<case>-t2f.nii.gz, -t1n, -t1c, -t2w, -seg"
)


def subject_of(case: str) -> str:
    """Name the person behind a case: from 2023 on the last number is a time point, in 2017-2019 a scan number."""
    recent = re.fullmatch(r"(BraTS-[A-Za-z-]+-\d+)-\d+", case)
    classic = re.fullmatch(r"(Brats1[789]_.+)_\d+", case, flags=re.IGNORECASE)
    match = recent or classic
    return match.group(1) if match else case


def _files(folder: Path, names: Sequence[str]) -> CaseFiles | None:
    """Sort the files of one folder into places; None where no file has an official name."""
    found: list[tuple[str, str, Path]] = []  # after whom, ending, file
    extra = []
    for name in sorted(names):
        stem = NIFTI.sub("", name)
        ending = next((one for one in (*CLASSIC, *RECENT) if stem != name and stem.lower().endswith(one)), None)
        if ending is None:
            extra.append(folder / name)
        else:
            found.append((stem[: -len(ending)].lower(), ending, folder / name))
    if not found:
        return None
    named = Counter(case for case, _, _ in found)
    own = folder.name.lower() if folder.name.lower() in named else named.most_common(1)[0][0]
    places: dict[str, Path] = {}
    ambiguous = []
    for case, ending, path in found:
        if case != own:
            continue
        if (place := (CLASSIC | RECENT)[ending]) in places:
            ambiguous.append(path)
        else:
            places[place] = path
    return CaseFiles(
        name=folder.name,
        images={name: places[name] for name in MRI if name in places},
        seg=places.get("seg"),
        subject=subject_of(folder.name),
        enhancing_label=3 if any(ending in RECENT for _, ending, _ in found) else None,
        ambiguous=tuple(ambiguous),
        foreign=tuple(path for case, _, path in found if case != own),
        extra=tuple(extra),
    )


def find_cases(root: Path | str, onerror: OnError = refuse) -> list[CaseFiles]:
    """List every folder under `root` that holds files with official names; as `mmlib.data.nifti.find_folders`."""
    return find_folders(root, _files, onerror)


def load_case(folder: Path | str) -> Case:
    """Read one case folder.

    Returns:
        The case; `images` holds the acquired modalities, native intensities, float32, (X, Y, Z).

    Raises:
        ValueError: if the folder holds no file with an official name, or as `mmlib.data.nifti.read_case`.
    """
    return read_folder(folder, _files, "no file is named as in BraTS", LAYOUT)


class BratsFolder(Cases):
    """All cases below a folder, however deep (so HGG/ and LGG/ too), by name; each is read when it is asked for."""

    def __init__(self, root: Path | str, prepare: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        """Look for case folders.

        Args:
            root: the folder.
            prepare: applied to every image as it is read, such as `clip_tail`.

        Raises:
            ValueError: if there is none, two have the same name, or a folder below cannot be listed.
        """
        files = find_cases(root)
        if not files:
            raise ValueError(f"{shown(Path(root).resolve())}: no case found; expected {LAYOUT}")
        self.root = Path(root).resolve()
        super().__init__(sorted(files, key=lambda one: one.name), str(root), prepare)


def clip_tail(volume: np.ndarray, fewest: int = 50) -> np.ndarray:
    """Cut the sparse bright end of the histogram, as the released ShaSpec code does before normalising.

    The histogram has int(maximum) bins over the volume's range. The index of the last bin that holds at least
    `fewest` voxels becomes the largest intensity. The index serves as an intensity: true for data that start at 0.

    Args:
        volume: native intensities, (X, Y, Z), maximum at least 1.
        fewest: voxels a bin must hold to count.

    Raises:
        ValueError: if the maximum is below 1 (already normalised?) or no bin holds that many voxels.
    """
    highest = volume.max()
    if not highest >= 1:
        raise ValueError(f"clip_tail needs native intensities, with a maximum of 1 or more; the maximum is {highest}")
    counts, _ = np.histogram(volume, bins=int(highest))
    full = np.flatnonzero(counts >= fewest)
    if full.size == 0:
        raise ValueError(f"no bin of the histogram holds {fewest} voxels; the volume has only {volume.size}")
    return np.minimum(volume, full[-1])
