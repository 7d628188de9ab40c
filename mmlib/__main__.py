"""The command line: `python -m mmlib doctor LAYOUT PATH`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mmlib.data import doctor as doctors


class Layout(StrEnum):
    """Layouts that the doctor knows, as words of the command line."""

    BRATS = "brats"
    IXI = "ixi"
    TABLE = "table"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Tools of the book for your own data.")


@app.callback()
def main() -> None:
    """Tools of the book for your own data."""


@app.command()
def doctor(
    layout: Annotated[Layout, typer.Argument(help="how the files are laid out")],
    path: Annotated[Path, typer.Argument(help="the data folder, or the CSV of the layout table")],
) -> None:
    """Check a data folder: exit 0 if it is clean (notes are no fault), 1 with findings, 2 if the call is wrong."""
    try:
        findings = doctors.examine(layout.value, path, progress=True)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(doctors.report(findings))
    raise typer.Exit(1 if doctors.faults(findings) else 0)


if __name__ == "__main__":
    app(prog_name="python -m mmlib")
