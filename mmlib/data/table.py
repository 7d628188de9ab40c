"""One's own data: a CSV that names the files of each case; an empty cell means that there is none.

    case,t1,t1ce,t2,flair,seg,brain,subject,enhancing_label
    A-1,A/t1.nii.gz,A/t1c.nii.gz,,A/flair.nii.gz,A/seg.nii.gz,,A,4

Only `case` and one modality are needed. Paths are relative to the CSV, or absolute. `brain` is a mask of the brain,
for images whose background is not 0. Cases of one `subject` are never split apart.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mmlib.data.csv_files import name_fault, quoted, read_rows
from mmlib.data.nifti import CaseFiles, Cases
from mmlib.modalities import MRI

OPTIONAL = ("seg", "brain", "subject", "enhancing_label")


def read_table(path: Path | str, modalities: Sequence[str] = MRI) -> tuple[list[CaseFiles], list[str]]:
    """Read the table and list everything that is wrong with it; no image is opened.

    Returns:
        The files of each row that can be used, and one message per problem, with its row (the header is row 1).

    Raises:
        ValueError: if the file is not a CSV (as `mmlib.data.csv_files.read_rows`) with the columns described above.
    """
    path = Path(path).resolve()
    expected = f"a CSV with the columns case and {', '.join(modalities)}"
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such file; expected {expected}")
    columns, rows = read_rows(path, expected)
    known = ("case", *modalities, *OPTIONAL)
    unknown = [name for name in columns if name not in known]
    if unknown:
        raise ValueError(f"{path}: unknown column {quoted(unknown[0])}; columns are {', '.join(known)}")
    if "case" not in columns or not set(columns) & set(modalities):
        raise ValueError(f"{path}: needs the column case and at least one of {', '.join(modalities)}")

    found: list[CaseFiles] = []
    problems: list[str] = []
    first_rows: dict[str, int] = {}
    for number, cells in rows:
        where = f"{path.name}, row {number}"
        if len(cells) > len(columns):
            problems.append(f"{where}: {len(cells)} cells, but there are {len(columns)} columns; quote commas")
            continue
        row = {name: cell for name, cell in zip(columns, cells, strict=False) if cell}
        case = row.get("case", "")
        if not case:
            problems.append(f"{where}: the case has no name; fill the column case")
            continue
        faults = [f"column {name}: {fault}" for name, cell in row.items() if (fault := name_fault(cell))]
        if faults or {"/", "\\"} & set(case) or case in (".", ".."):
            what = (
                faults[0] if faults else f"the case is called {quoted(case)}, but no / or \\ can be in a name of files"
            )
            problems.append(f"{where}: {what}; give the case another name, or correct the cell")
            continue
        if case in first_rows:
            problems.append(f"{where}: case {case} is in row {first_rows[case]} too; give every case a name of its own")
            continue
        first_rows[case] = number
        paths = {name: path.parent / row[name] for name in (*modalities, "seg", "brain") if name in row}
        missing = [name for name, file in paths.items() if not os.path.isfile(file)]
        for name in missing:
            problems.append(
                f"{where}: case {case}, {name}: file not found: {paths[name]}; correct the path (relative to the "
                "table), or empty the cell if there is none"
            )
        if not set(paths) & set(modalities):
            problems.append(f"{where}: case {case} has no modality at all; fill one of {', '.join(modalities)}")
        label = row.get("enhancing_label", "")
        if label not in ("", "3", "4"):
            problems.append(f"{where}: case {case}: enhancing_label must be 3, 4 or empty; found {quoted(label)}")
        elif not missing and set(paths) & set(modalities):
            images = {name: paths[name] for name in modalities if name in paths}
            found.append(
                CaseFiles(
                    name=case,
                    images=images,
                    seg=paths.get("seg"),
                    brain=paths.get("brain"),
                    subject=row.get("subject", ""),
                    modalities=tuple(modalities),
                    enhancing_label=int(label) if label else None,
                )
            )
    return found, problems


class TableCases(Cases):
    """The cases of a table, by name; each is read when it is asked for."""

    def __init__(self, path: Path | str, modalities: Sequence[str] = MRI) -> None:
        """Read the table, not the images.

        Raises:
            ValueError: if a column is unknown, a case occurs twice, a file does not exist, a row has no modality, or
                the table has no row; the row is named (the header is row 1).
        """
        files, problems = read_table(path, modalities)
        if problems:
            more = f"\n(and {len(problems) - 10} more)" if len(problems) > 10 else ""
            raise ValueError("\n".join(problems[:10]) + more)
        if not files:
            raise ValueError(f"{path}: the table has no row; add one row for each case")
        self.root = Path(path).resolve()
        super().__init__(files, str(path))
