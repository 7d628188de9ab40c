"""What the doctor says of a file: one finding for each fault, with the remedy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        severity: "error", "warning" or "note"; a note is no fault.
        case: its name, or "" for the folder as a whole.
        file: its name, or "".
        what: what was found and what was expected.
        remedy: what to do.
    """

    severity: str
    case: str
    file: str
    what: str
    remedy: str
