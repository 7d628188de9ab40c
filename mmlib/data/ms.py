"""Patients with multiple sclerosis (Lesjak et al. 2017): four modalities and a consensus of three raters on lesions.

Paper: Ž. Lesjak, F. Pernuš, B. Likar, Ž. Špiclin, "A Novel Public MR Image Dataset of Multiple Sclerosis Patients With
Lesion Segmentations Based on Multi-rater Consensus", Neuroinformatics 2017, DOI 10.1007/s12021-017-9348-7. CC BY.
Files: github.com/muschellij2/open_ms_data, folder cross_sectional/MNI: corrected for bias, skull-stripped, registered
to FLAIR and then to MNI space, 1 mm, 182 x 218 x 182. In the folder of a patient: `FLAIR_*.nii.gz`, `T1_*`, `T1POST_*`
(after gadolinium: `t1ce` here), `T2_*`, `GOLD_STANDARD_*` (1: lesion).

A patient who lacks the file of a modality is a case in which this modality is not available.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mmlib.data.cases import Case
from mmlib.data.nifti import CaseFiles, Cases, OnError, find_folders, read_folder, refuse, shown
from mmlib.modalities import MRI

LESION = ("lesion",)  # the one region
NAMED = re.compile(r"(FLAIR|T1|T1POST|T2|GOLD_STANDARD)_.*\.nii(\.gz)?", re.IGNORECASE)
PLACES = {"T1": "t1", "T1POST": "t1ce", "T2": "t2", "FLAIR": "flair", "GOLD_STANDARD": "seg"}
LAYOUT = "<patient>/FLAIR_*.nii.gz, T1_*, T1POST_*, T2_*, GOLD_STANDARD_*"
CREDIT = (
    "30 patients with multiple sclerosis: Lesjak et al., Neuroinformatics (2017), DOI 10.1007/s12021-017-9348-7, "
    "CC BY; registered copies from github.com/muschellij2/open_ms_data"
)
SOURCE = (
    "https://raw.githubusercontent.com/muschellij2/open_ms_data/"
    "ab6737647be9665e5448d18be2d715e0a89f7170/cross_sectional/MNI"
)
PUBLISHED = Path(__file__).parent / "ms-files.csv"  # the columns file and git_blob: what SOURCE holds


def _files(folder: Path, names: Sequence[str]) -> CaseFiles | None:
    """Sort the files of one folder into places; None where no file is named as in this data set."""
    places: dict[str, Path] = {}
    ambiguous = []
    for name in sorted(names):
        named = NAMED.fullmatch(name)
        if named is None:
            continue
        place = PLACES[named[1].upper()]
        if place in places:
            ambiguous.append(folder / name)
        else:
            places[place] = folder / name
    if not places:
        return None
    return CaseFiles(
        name=folder.name,
        images={name: places[name] for name in MRI if name in places},
        seg=places.get("seg"),
        subject=folder.name,
        targets=LESION,
        ambiguous=tuple(ambiguous),
    )


def find_cases(root: Path | str, onerror: OnError = refuse) -> list[CaseFiles]:
    """List every folder under `root` that holds files of this data set; as `mmlib.data.nifti.find_folders`."""
    return find_folders(root, _files, onerror)


def load_case(folder: Path | str) -> Case:
    """Read one patient's folder.

    Returns:
        The case; `images` holds the acquired modalities, native intensities, float32, (X, Y, Z); its one region is
        `lesion`.

    Raises:
        ValueError: if the folder holds no file of this data set, or as `mmlib.data.nifti.read_case`.
    """
    return read_folder(folder, _files, "no file is named as in this data set", LAYOUT)


class MsFolder(Cases):
    """All patients below a folder, by name; each is read when it is asked for."""

    def __init__(self, root: Path | str, prepare: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        """Look for patients.

        Args:
            root: the folder.
            prepare: applied to every image as it is read.

        Raises:
            ValueError: if there is none, two have the same name, or a folder below cannot be listed.
        """
        files = find_cases(root)
        if not files:
            raise ValueError(
                f"{shown(Path(root).resolve())}: no patient found; expected {LAYOUT}. "
                "To download the data: python -m mmlib fetch open-ms FOLDER"
            )
        self.root = Path(root).resolve()
        super().__init__(sorted(files, key=lambda one: one.name), str(root), prepare)


def git_blob(path: Path | str) -> str:
    """Git's id of a file's content: SHA-1 of `blob <size>`, a zero byte and the content, 40 hex digits."""
    content = Path(path).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def fetch(folder: Path | str, source: str = SOURCE, published: Path | str = PUBLISHED, retries: int = 2) -> list[Path]:
    """Download the data set, file by file; what is there already and whole is not downloaded again.

    A file appears under its name only when its content is the published one (by the id that git gives it), so an
    interrupted download is taken up by the same call.

    Args:
        folder: is made; gets a folder for each patient.
        source: address below which the files lie.
        published: CSV with the columns file and git_blob.
        retries: of a download that fails.

    Returns:
        The files downloaded now.

    Raises:
        ValueError: if a file cannot be had, or is not the published one; it names the file and the remedy.
    """
    import pooch
    from requests.exceptions import RequestException
    from tqdm.auto import tqdm

    folder = Path(folder).resolve()
    blobs = pd.read_csv(published, index_col="file")["git_blob"].to_dict()
    there = [name for name in blobs if (folder / name).is_file()]
    for name in there:
        if git_blob(folder / name) != blobs[name]:
            raise ValueError(f"{folder / name} is not the published file; move it away and call again")
    pooch.get_logger().setLevel("ERROR")
    files = pooch.create(folder, source + "/", registry=dict.fromkeys(blobs), retry_if_failed=retries)
    wanted = [name for name in blobs if name not in there]
    for name in tqdm(wanted, unit="file"):

        def checked(url: str, output_file: str, manager: pooch.Pooch, name: str = name) -> None:
            pooch.HTTPDownloader(timeout=60)(url, output_file, manager)
            if git_blob(output_file) != blobs[name]:
                raise ValueError(f"{url} is not the published file: cut short on its way, or changed")

        try:
            files.fetch(name, downloader=checked)
        except (RequestException, ValueError) as error:
            kept = sum((folder / one).is_file() for one in blobs)
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{name} could not be downloaded ({type(error).__name__}: {reason}); check the network and call again: "
                f"{kept} of {len(blobs)} files are in {folder} and are kept"
            ) from error
    return [folder / name for name in wanted]
