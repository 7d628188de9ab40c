"""Breast tumours of The Cancer Genome Atlas as tables: miRNA, mRNA, in part proteins, and three subtypes.

Data: `breast.TCGA` of the R package mixOmics (Singh and others 2019), a selection from the open-access data of The
Cancer Genome Atlas Network 2012: 150 training and 70 test samples, the latter without proteins. They are not part of
this project. In R::

    library(mixOmics); data(breast.TCGA)
    for (part in c("train", "test")) for (name in names(breast.TCGA[[paste0("data.", part)]])) {
      table <- as.data.frame(breast.TCGA[[paste0("data.", part)]][[name]])
      if (name == "subtype") names(table) <- "subtype"
      write.csv(table, paste0(part, "_", name, ".csv"), row.names = FALSE)
    }

A folder holds these files, as .csv or .csv.gz; names of columns do not matter, but for that of the subtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmlib.data.csv_files import quoted, read_csv

SUBTYPES = ("Basal", "Her2", "LumA")
PARTS = ("train", "test")
REMEDY = "the header of mmlib/data/tcga.py tells how to write the folder with R's mixOmics"


@dataclass(frozen=True)
class Tumours:
    """Samples with two tables.

    Attributes:
        inferior, superior: (n, F) float64, as measured (log scale).
        subtype: (n,) int64, places in `SUBTYPES`.
    """

    inferior: np.ndarray
    superior: np.ndarray
    subtype: np.ndarray

    def __len__(self) -> int:
        return len(self.subtype)

    def __getitem__(self, rows) -> Tumours:
        return Tumours(self.inferior[rows], self.superior[rows], self.subtype[rows])


def load(folder: str | Path, inferior: str = "mirna", superior: str = "mrna") -> tuple[Tumours, Tumours]:
    """Read the training and the test samples.

    Args:
        folder: see the header.
        inferior, superior: names of tables, such as `mirna`.

    Raises:
        FileNotFoundError: if a table is missing.
        ValueError: if a table is no CSV (as `mmlib.data.csv_files.read_csv`), holds anything but finite numbers, has
            another number of rows or of columns than it should, or a subtype is unknown.
    """
    return _part(Path(folder), "train", inferior, superior), _part(Path(folder), "test", inferior, superior)


def pooled(*parts: Tumours) -> Tumours:
    """All samples of some parts, in this order."""
    columns = zip(*((part.inferior, part.superior, part.subtype) for part in parts), strict=True)
    return Tumours(*(np.concatenate(column) for column in columns))


def _part(folder: Path, part: str, inferior: str, superior: str) -> Tumours:
    path, table = _read(folder, f"{part}_subtype")
    if "subtype" not in table:
        raise ValueError(f"{path}: has no column subtype but {', '.join(map(quoted, table.columns[:20]))}; {REMEDY}")
    unknown = sorted(set(table["subtype"]) - set(SUBTYPES))
    if unknown:
        raise ValueError(f"{path}: unknown subtype {quoted(unknown[0])}; known are {', '.join(SUBTYPES)}")
    subtype = table["subtype"].map(SUBTYPES.index).to_numpy()
    tables = []
    for name in (inferior, superior):
        path, table = _read(folder, f"{part}_{name}")
        values = table.apply(pd.to_numeric, errors="coerce").to_numpy(float)
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(
                f"{path}: row {table.index[row]}, column {quoted(table.columns[column])} holds no finite number but "
                f"{quoted(table.iloc[row, column])}; write the tables without names of rows, see mmlib/data/tcga.py"
            )
        if len(values) != len(subtype):
            raise ValueError(f"{path}: {len(values)} samples, but {len(subtype)} subtypes; {REMEDY}")
        tables.append(values)
    return Tumours(tables[0], tables[1], subtype)


def _read(folder: Path, name: str) -> tuple[Path, pd.DataFrame]:
    for path in (folder / f"{name}.csv.gz", folder / f"{name}.csv"):
        if path.is_file():
            return path, read_csv(path)
    raise FileNotFoundError(f"{folder / name}.csv: no such file, nor with .gz; {REMEDY}")
