"""The command line: `python -m mmlib doctor`, `convert` (released weights) and `fetch` (open data)."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mmlib.data import doctor as doctors
from mmlib.data import ms
from mmlib.data.findings import printable


class Layout(StrEnum):
    """Layouts that the doctor knows, as words of the command line."""

    BRATS = "brats"
    IXI = "ixi"
    MS = "ms"
    TABLE = "table"
    DERM7PT = "derm7pt"
    RADPATH = "radpath"
    AVMNIST = "avmnist"


class Method(StrEnum):
    """Whose released weights `convert` takes, as words of the command line."""

    SHASPEC = "shaspec"
    PROTOKD = "protokd"
    SMIL = "smil"
    GUIDANCE_RAD = "guidance-rad"
    GUIDANCE_G = "guidance-g"
    GUIDANCE_DC = "guidance-dc"


class DataSet(StrEnum):
    """Data sets that may be downloaded without asking anybody, as words of the command line."""

    OPEN_MS = "open-ms"


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
        raise typer.BadParameter(printable(str(error))) from None
    typer.echo(doctors.report(findings))
    raise typer.Exit(1 if doctors.faults(findings) else 0)


@app.command()
def convert(
    method: Annotated[Method, typer.Argument(help="whose weights they are")],
    official: Annotated[list[Path], typer.Argument(help="released files, in order where a model has several")],
    out: Annotated[Path, typer.Argument(help="the safetensors file to write")],
    names: Annotated[Path | None, typer.Option(help="YAML: regular expression -> replacement, for keys")] = None,
    entry: Annotated[list[str] | None, typer.Option(help="state dict in the file; may be repeated, in order")] = None,
    pickled: Annotated[bool, typer.Option("--pickled", help="open whole pickled models too; runs nothing")] = False,
) -> None:
    """Convert released weights to this package's: exit 0 if written, 1 if a file is refused, 2 on a wrong call."""
    from mmlib import official as released  # the networks take seconds to import

    try:
        found = {
            f"{place}.{key}" if len(official) > 1 else key: tensor
            for place, path in enumerate(official)
            for key, tensor in released.read(path, entries=entry or (), pickled=pickled).items()
        }
        weights = released.convert(method.value, found, released.read_names(names) if names else None)
        released.write(weights, out)
    except (ValueError, OSError) as error:
        typer.echo(f"ERROR   {printable(str(error))}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{out}: {len(weights)} tensors, {sum(one.numel() for one in weights.values()):,} values")


@app.command()
def fetch(
    data_set: Annotated[DataSet, typer.Argument(help="open-ms: 30 patients with multiple sclerosis, 0.5 GB")],
    folder: Annotated[Path, typer.Argument(help="where to put it; called again, it goes on where it stopped")],
) -> None:
    """Download a data set and check every file: exit 0 if all are there, 1 if one could not be had."""
    typer.echo(f"{data_set.value}: {ms.CREDIT}")
    try:
        fetched = ms.fetch(folder)
    except ValueError as error:
        typer.echo(printable(str(error)), err=True)
        raise typer.Exit(1) from None
    given = shlex.quote(f"MS={folder}")
    typer.echo(
        f"{len(fetched)} files downloaded to {folder}, the others were there. Next: make book PROFILE=full {given}"
    )


if __name__ == "__main__":
    app(prog_name="python -m mmlib")
