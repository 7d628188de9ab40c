"""CSV files that somebody else wrote: what cannot be read as such is told in one sentence, with file, row and remedy.

Read is UTF-8, with or without a byte order mark, with commas; or with semicolons or tabs, where the header has no
comma. Cells lose the blanks around them, empty lines do not count. pandas alone takes rows that were cut short or
quotation marks that never close without a word, and its other errors name no file.
"""

from __future__ import annotations

import csv
import gzip
import io
import reprlib
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

BYTES = 1 << 24  # the most text of a file, unpacked; a list of 100,000 cases has less
NAME = 255  # the most bytes in the name of a file or folder that usual file systems take
PATH = 4000  # the most bytes of a path, a little less than they take
BEGINNINGS = {
    b"\xff\xfe": "is text in UTF-16",
    b"\xfe\xff": "is text in UTF-16",
    b"PK\x03\x04": "is a workbook or an archive",
    b"\xd0\xcf\x11\xe0": "is a workbook",
    b"\x1f\x8b": "is packed by gzip",
}
SAVE = "save the table again as CSV in UTF-8"


def read_rows(path: Path, expected: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a CSV as text; rows may be longer or shorter than the header.

    Args:
        path: the file; unpacked if its name ends in .gz.
        expected: what it should hold, for messages.

    Returns:
        The names of the columns, and the cells of each row with the row's number in the file (the header is row 1).

    Raises:
        ValueError: if the file cannot be read, is empty, no text in UTF-8 or too large, a quotation mark stays open,
            or a column occurs twice.
    """
    text = _text(path, expected)
    header = io.StringIO(text.lstrip(), newline="").readline()
    separator = next((one for one in ",;\t" if one in header), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows: list[tuple[int, list[str]]] = []
    begins = 1
    try:
        for cells in reader:
            begins = reader.line_num + 1
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        what = "a quotation mark stays open" if "unexpected end" in str(error) else error
        raise ValueError(
            f"{path}: is not a CSV, row {begins}: {what}, expected {expected}; correct the row, or {SAVE}"
        ) from None
    (_, columns), *rows = rows
    while not columns[-1]:
        columns.pop()  # spreadsheets leave separators behind the last cell
    twice = [name for place, name in enumerate(columns) if name in columns[:place]]
    if twice:
        raise ValueError(f"{path}: the column {quoted(twice[0])} occurs twice; name every column once")
    return columns, [(number, _without_blanks(cells, len(columns))) for number, cells in rows]


def read_csv(path: Path, columns: Sequence[str] = (), filled: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV in which every row has as many cells as the header.

    Args:
        path: as `read_rows`.
        columns: must be there, in any order and among others; their cells are names of cases or files, or labels.
        filled: those of them that may have no empty cell.

    Returns:
        All columns as text; the index has the number of each row in the file (the header is row 1).

    Raises:
        ValueError: as `read_rows`; or if a column is not there, a row has more or fewer cells than the header, or a
            cell of `columns` is empty, or longer than the name of a file can be.
    """
    expected = "a CSV in UTF-8" + (f" that has {', '.join(columns)} in its header" if columns else "")
    names, rows = read_rows(path, expected)
    lacking = [name for name in columns if name not in names]
    if lacking:
        found = ", ".join(quoted(name) for name in names[:20])
        raise ValueError(f"{path}: has no column {lacking[0]!r} but {found}, expected {expected}; correct the header")
    for number, cells in rows:
        if len(cells) != len(names):
            raise ValueError(
                f"{path}: row {number} has {count_of(len(cells), 'cell')}, but there are "
                f"{count_of(len(names), 'column')}; complete the row, or put text with a separator in quotation marks"
            )
        for name in columns:
            fault = name_fault(cells[names.index(name)]) if cells[names.index(name)] or name in filled else ""
            if fault:
                raise ValueError(f"{path}: row {number}, column {name}: {fault}; correct the cell")
    return pd.DataFrame([cells for _, cells in rows], [number for number, _ in rows], names, dtype=str)


def name_fault(name: str) -> str:
    """Say why a text cannot be the name or the path of a file; an empty string if it can."""
    if not name:
        return "the cell is empty"
    longest = max(len(part.encode()) for part in name.split("/"))
    if longest > NAME or len(name.encode()) > PATH:
        return f"{len(name):,} characters, but a name has at most {NAME} bytes, a path {PATH:,}: {quoted(name)}"
    if any(unicodedata.category(one) == "Cc" for one in name):
        return f"{quoted(name)} holds a line break or another control character"
    return ""


def quoted(text: str) -> str:
    """A text as messages show it: in quotation marks, and without its middle if it is long."""
    short = reprlib.Repr()
    short.maxstring = 60
    return short.repr(text)


def count_of(number: int, noun: str) -> str:
    """A number with its noun, such as 1 cell or 2 cells."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _text(path: Path, expected: str) -> str:
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            content = stream.read(BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: cannot be read ({reason}), expected {expected}; copy it again") from None
    if len(content) > BYTES:
        raise ValueError(f"{path}: holds more than {BYTES:,} bytes, expected {expected}; give the right file")
    what = next((what for start, what in BEGINNINGS.items() if content.startswith(start)), "")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        what = what or f"is not text in UTF-8 (byte {content[error.start]:#04x} in row {row}, as in Latin-1)"
        text = ""
    if not what and any(ord(one) < 32 and not one.isspace() for one in set(text)):
        what = "is text in UTF-16, or no text at all"
    if not what and not text.strip():
        what = "is empty"
    if what:
        raise ValueError(f"{path}: {what}, expected {expected}; {SAVE}")
    return text


def _without_blanks(cells: list[str], columns: int) -> list[str]:
    """Cut empty cells behind the last column."""
    while len(cells) > columns and not cells[-1]:
        cells = cells[:-1]
    return cells
