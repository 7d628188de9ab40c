"""The command line: `python -m mmlib doctor`, `networks`, `segment`, `complete`, `compare`, `convert` and `fetch`."""

from __future__ import annotations

import csv
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmlib import published
from mmlib.data import doctor as doctors
from mmlib.data import ms
from mmlib.data.findings import printable

if TYPE_CHECKING:
    from mmlib.data.nifti import Cases
    from mmlib.prediction import Network


class Layout(StrEnum):
    """Layouts that the doctor knows, as words of the command line."""

    BRATS = "brats"
    IXI = "ixi"
    MS = "ms"
    TABLE = "table"
    DERM7PT = "derm7pt"
    RADPATH = "radpath"
    AVMNIST = "avmnist"


class Volumes(StrEnum):
    """Layouts of volumes, which a network can be given, as words of the command line."""

    BRATS = "brats"
    IXI = "ixi"
    MS = "ms"
    TABLE = "table"


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


Given = Annotated[list[str], typer.Argument(help="folders of cases, a table (.csv), or files of one case: t1=FILE ...")]
Named = Annotated[str, typer.Option(help="see `python -m mmlib networks`")]
Output = Annotated[Path, typer.Option(help="folder of what is made; not one of the cases")]
Kind = Annotated[Volumes | None, typer.Option(help="how the files are laid out; found out where it is not given")]


@app.command()
def networks() -> None:
    """List the published networks: task, modalities, scores with 95 % intervals, and the warning."""
    try:
        known = published.networks()
    except published.StoreError as error:
        raise _stop(error) from None
    for name, facts in known.items():
        voxels = f"voxels of {facts['spacing']:g} mm" if facts["spacing"] else "voxels of unknown size"
        typer.echo(f"{name}\n    {facts['task']}, {'+'.join(facts['modalities'])}, {voxels}; {facts['warning']}")
        for one in facts["scores"]:
            mean, low, high = (one[key] for key in ("mean", "low", "high"))
            digits = 1 if one["unit"] else 3
            interval = "one case" if low is None else f"{low:.{digits}f} to {high:.{digits}f}, {one['cases']} cases"
            value = " ".join([f"{mean:.{digits}f}", one["unit"]]).strip()
            typer.echo(f"    {one['metric']} {one['target']}, {one['available']}: {value} ({interval})")
    if not known:
        typer.echo("no network is published yet")


@app.command()
def segment(case: Given, network: Named, output: Output, layout: Kind = None) -> None:
    """Segment cases from whatever modalities they have: exit 0 if written, 1 if a file is refused."""
    _predict(case, network, output, layout, synthesises=False)


@app.command()
def complete(case: Given, network: Named, output: Output, layout: Kind = None) -> None:
    """Synthesise the modalities that cases lack: exit 0 if written, 1 if a file is refused."""
    _predict(case, network, output, layout, synthesises=True)


def _stop(error: Exception) -> typer.Exit:
    typer.echo(f"ERROR   {error}", err=True)
    return typer.Exit(1)


@contextmanager
def _places(given: list[str]) -> Iterator[list[Path]]:
    """The folders and tables that are given; files by modality become a table, named after their folder."""
    pairs = [one.partition("=") for one in given if "=" in one and not Path(one).exists()]
    paths = [Path(one) for one in given if "=" not in one or Path(one).exists()]
    with tempfile.TemporaryDirectory() as folder:
        if pairs:
            files = {kind.strip().lower(): Path(file).expanduser().absolute() for kind, _, file in pairs}
            if len(files) < len(pairs):
                raise ValueError(
                    f"a modality is given twice in {' '.join(given)}: one call takes the files of one case"
                )
            table = Path(folder) / "files.csv"
            with table.open("w", newline="", encoding="utf-8") as stream:
                name = next(iter(files.values())).parent.name or "case"
                csv.writer(stream).writerows([["case", *files], [name, *map(str, files.values())]])
            paths.append(table)
        yield paths


def _predict(given: list[str], name: str, output: Path, layout: Volumes | None, synthesises: bool) -> None:
    """From files to files; everything that can be refused is refused before anything is written."""
    try:
        facts = published.networks().get(name)
        if facts is not None and (facts["task"] == "synthesis") != synthesises:
            raise ValueError(f"{name} is a network of {facts['task']}: use the command {_command(not synthesises)}")
        network = published.load(name)
        card = published.card(name)
        typer.echo(f"WARNING {name}: {network.warning}")
        with _places(given) as places:
            _run(network, places, output, layout, card)
    except (ValueError, OSError) as error:
        raise _stop(error) from None


def _command(synthesises: bool) -> str:
    return "complete" if synthesises else "segment"


def _checked_cases(places: list[Path], layout: Volumes | None, labelled: bool = False) -> Cases:
    """The cases of folders and tables; what the doctor finds is printed, and an error of his stops."""
    from mmlib import prediction  # torch and MONAI take seconds

    sets, findings = [], []
    for place in places:
        kind = layout.value if layout else prediction.find_layout(place)
        findings += doctors.examine(kind, place, progress=True, labelled=labelled)
        if not any(one.severity == "error" for one in findings):
            sets.append(prediction.open_cases(kind, place))
    faults = doctors.faults(findings)
    if faults:
        typer.echo(doctors.report(faults))
    if any(one.severity == "error" for one in findings):
        raise ValueError("the doctor found errors, each with its remedy above: nothing was written")
    return prediction.joined(sets)


def _run(network: Network, places: list[Path], output: Path, layout: Volumes | None, card: str) -> None:
    from tqdm.auto import tqdm

    from mmlib import prediction  # torch and MONAI take seconds

    cases = _checked_cases(places, layout)
    prediction.check_files(network, cases, output, places)
    rows = []
    files = prediction.complete_files if network.synthesises else prediction.segment_files
    for made in files(network, cases, output, progress=True):
        rows.append(prediction.row(network, made))
        sizes = ", ".join(f"{region} {size:.1f} ml" for region, size in made.volumes.items())
        written = ", ".join(file.name for file in made.files) or "nothing is missing"
        tqdm.write(f"{made.case}: from {made.used}: {written}{sizes and f' ({sizes})'}")
    prediction.write_about(network, rows, output, card)
    count = "1 case" if len(rows) == 1 else f"{len(rows)} cases"
    typer.echo(f"{output}: {count}, {prediction.TABLE}, {network.name}.md. {network.warning.capitalize()}.")


@app.command()
def compare(
    network: Annotated[
        str, typer.Option(help="module:function that returns a torch.nn.Module; see the page Your network")
    ],
    output: Annotated[Path, typer.Option(help="folder of the tables, the page and the figure")],
    data: Annotated[
        Path | None, typer.Option(help="cases with segmentations; the phantom's test cases if left out")
    ] = None,
    layout: Kind = None,
    name: Annotated[str, typer.Option(help="of your network in the table")] = "yours",
    cases: Annotated[int, typer.Option(help="at most so many cases; 0: all", min=0)] = 0,
) -> None:
    """Score your network in every combination, beside the published ones: exit 0 if written, 1 if it is refused."""
    from mmlib.analysis import leaks  # torch and MONAI take seconds
    from mmlib.studies import own_network

    try:
        found = own_network.read_network(network)
        if data is None:
            given = own_network.phantom_cases(output / "phantom", cases or own_network.TESTED)
            about, beside = "Test cases of the phantom", own_network.published_on_phantoms(list(given))
        else:
            given = _checked_cases([data], layout, labelled=True)
            given = given[list(given)[: cases or None]]
            about, beside = f"Cases of {data}", own_network.published_on(given)
        scores = own_network.compare(found, given, beside, name)
        limits = {} if data else leaks.phantom_limits(given, own_network.SPACING)
        complete = next((one for one in given.values() if all(one.available.values())), None)
        suspicious = leaks.examine(found, complete, scores[scores["arm"].eq(name)], limits) if complete else []
        kinds = next(iter(given.values())).modalities
        written = own_network.write(scores, name, about, output, suspicious, kinds)
    except (ValueError, OSError) as error:
        raise _stop(error) from None
    typer.echo(written[2].read_text(encoding="utf-8"))
    typer.echo(f"{output}: {', '.join(file.name for file in written)}")


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
