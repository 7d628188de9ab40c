"""Names of cases come from folders and tables of others: as part of a path, or in a spreadsheet, they stay names."""

from __future__ import annotations

import hashlib
import re

import pandas as pd

LONGEST = 150  # bytes of a name; file systems allow 255 for it and what is put around it


def file_name(case: str) -> str:
    """The name of a case as part of a file name: it never leads out of a folder, hides a file or reads as an option.

    Letters (of any alphabet), digits, spaces and `._-+=,@()` stay, other characters are percent-encoded, and so is a
    first character that is no letter or digit. Different names stay different; a long one is cut and ends in its hash.

    Raises:
        ValueError: if the name is empty.
    """
    if not case:
        raise ValueError("a case has an empty name, of which no file name can be made; give it a name")
    made = re.sub(r"^[^\w]|^_|[^\w ._+=,@()-]", _encoded, case)
    if len(made.encode()) <= LONGEST:
        return made
    cut = made.encode()[: LONGEST - 17].decode(errors="ignore")
    return f"{cut}-{hashlib.sha256(case.encode(errors='surrogateescape')).hexdigest()[:16]}"


def _encoded(found: re.Match[str]) -> str:
    """Every byte as %XX, also those that `urllib.parse.quote` leaves as they are."""
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="surrogateescape"))


def for_spreadsheets(table: pd.DataFrame) -> pd.DataFrame:
    """A table to be opened by people: a text that a spreadsheet would compute, such as `=cmd()`, begins with `'`.

    Args:
        table: its index, columns and cells of text are looked at; numbers stay numbers.
    """
    return table.map(_inert).rename(index=_inert, columns=_inert)


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
