"""What the doctor says of a file: one finding for each fault, with the remedy; and how a terminal is told of names."""

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


def printable(text: str, keep: str = "") -> str:
    r"""A text as a terminal shows it: what is no visible character is escaped, such as `\x1b`, `\n` and `\u202e`.

    Names of files, cases and columns come from strangers; in a terminal an escape sequence would move its cursor, and a
    mark of direction would turn the letters around.

    Args:
        text: a name, or a message that holds names.
        keep: characters that stay, such as the line breaks of a message.
    """
    return "".join(one if one.isprintable() or one in keep else one.encode("unicode_escape").decode() for one in text)
