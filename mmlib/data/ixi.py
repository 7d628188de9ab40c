"""IXI folders: `IXI002-Guys-0828-T1.nii.gz`, `-T2`, `-PD`, in one folder or in one folder per modality.

As downloaded, T1 lies on another grid than T2 and PD, and the skull is there. T1 must be registered to the grid of T2
first; reading a case that is not says so. A brain mask that you make goes beside an image, as `<case>-brain.nii.gz`: it
is no part of IXI. Without it the brain is where an image is not zero, which is right after the skull was stripped. A
subject without T1, T2 or PD is read as it is. IXI has no segmentations.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

from mmlib.data.nifti import CaseFiles, Cases, OnError, grid_difference, open_volume, refuse, shown
from mmlib.modalities import IXI
from mmlib.records import folders_below

NAME = re.compile(r"(?P<case>.+)-(?P<place>T1|T2|PD|brain)\.nii(\.gz)?", re.IGNORECASE)
LAYOUT = "files such as IXI002-Guys-0828-T1.nii.gz, -T2 and -PD"


def find_cases(root: Path | str, onerror: OnError = refuse) -> list[CaseFiles]:
    """List the cases below a folder, links included, sorted by name; nothing is opened.

    Args:
        root: the folder.
        onerror: is given the error where a folder cannot be listed.

    Raises:
        ValueError: as `onerror`.
    """
    files: dict[str, dict[str, Path]] = {}
    ambiguous: dict[str, list[Path]] = {}
    below = folders_below(Path(root).resolve(), onerror)
    for path in sorted(folder / name for folder, names in below for name in names):
        match = NAME.fullmatch(path.name)
        if match is None:
            continue
        found = files.setdefault(match["case"], {})
        if match["place"].lower() in found:
            ambiguous.setdefault(match["case"], []).append(path)
        found.setdefault(match["place"].lower(), path)
    return [
        CaseFiles(
            name=case,
            images={name: found[name] for name in IXI if name in found},
            brain=found.get("brain"),
            subject=case.split("-")[0] if re.match(r"IXI\d+-", case) else case,
            modalities=IXI,
            ambiguous=tuple(ambiguous.get(case, ())),
        )
        for case, found in sorted(files.items())
        if set(found) & set(IXI)
    ]


def check_registered(files: CaseFiles) -> None:
    """Compare the grids of a case's images by their headers alone; what cannot be opened is left to the reader.

    Raises:
        ValueError: if two differ in shape or affine; says how to register.
    """
    try:
        headers = {name: open_volume(path) for name, path in files.images.items()}
    except ValueError:
        return
    reference = next(name for name in ("t2", "pd", "t1") if name in headers)
    fixed = headers[reference]
    for name, image in headers.items():
        if difference := grid_difference(image.shape[:3], image.affine, fixed.shape[:3], fixed.affine):
            path, target = files.images[name], files.images[reference]
            raise ValueError(
                f"{path}: {difference} {target.name}: the case is not registered. Register {name} rigidly to "
                f"{reference} and write it on that grid under the same name, for instance with FSL: "
                f"flirt -dof 6 -in {path.name} -ref {target.name} -out registered/{path.name}"
            )


class IxiFolder(Cases):
    """All IXI cases below a folder, by name; each is read, and its grids compared, when it is asked for."""

    def __init__(self, root: Path | str) -> None:
        """Look for files.

        Raises:
            ValueError: if there is none, or a folder below cannot be listed.
        """
        files = find_cases(root)
        if not files:
            raise ValueError(f"{shown(Path(root).resolve())}: no case found; expected {LAYOUT}")
        self.root = Path(root).resolve()
        super().__init__(files, str(root))

    def __getitem__(self, key):
        """One case, or the same folder with only some of its cases; raises as `check_registered` and `read_case`."""
        if isinstance(key, str) and key in self:
            check_registered(self.files[key])
        chosen = super().__getitem__(key)
        if isinstance(key, str):
            return chosen
        some = copy.copy(self)
        some.files = chosen.files
        return some
