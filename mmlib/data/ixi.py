"""IXI folders: `IXI002-Guys-0828-T1.nii.gz`, `-T2`, `-PD`, in one folder or in one folder per modality.

As downloaded, T1 lies on another grid than T2 and PD: such cases must be registered to one grid first, and reading
them says so. IXI has no segmentations.
"""

from __future__ import annotations

import re
from pathlib import Path

from mmlib.data.nifti import CaseFiles, Cases
from mmlib.modalities import IXI

NAME = re.compile(r"(?P<case>.+)-(?P<modality>T1|T2|PD)\.nii(\.gz)?")
LAYOUT = "files such as IXI002-Guys-0828-T1.nii.gz, -T2 and -PD"


def find_cases(root: Path | str) -> list[CaseFiles]:
    """List the cases below a folder, sorted by name; nothing is opened."""
    images: dict[str, dict[str, Path]] = {}
    ambiguous: dict[str, list[Path]] = {}
    for path in sorted(Path(root).resolve().rglob("*.nii*")):
        match = NAME.fullmatch(path.name)
        if match is None or path.name.startswith("."):
            continue
        found = images.setdefault(match["case"], {})
        if match["modality"].lower() in found:
            ambiguous.setdefault(match["case"], []).append(path)
        found.setdefault(match["modality"].lower(), path)
    return [
        CaseFiles(
            name=case,
            images={name: found[name] for name in IXI if name in found},
            subject=case.split("-")[0] if re.match(r"IXI\d+-", case) else case,
            modalities=IXI,
            ambiguous=tuple(ambiguous.get(case, ())),
        )
        for case, found in sorted(images.items())
    ]


class IxiFolder(Cases):
    """All IXI cases below a folder, by name; each is read when it is asked for."""

    def __init__(self, root: Path | str) -> None:
        """Look for files.

        Raises:
            ValueError: if there is none.
        """
        files = find_cases(root)
        if not files:
            raise ValueError(f"{Path(root).resolve()}: no case found; expected {LAYOUT}")
        self.root = Path(root).resolve()
        super().__init__(files, str(root))
