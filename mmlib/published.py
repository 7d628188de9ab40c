"""Published networks by name: where the store of results lies, what it holds, and a network that is ready to use.

The store is the folder `results` of the repository; an installed package has none beside it, so the environment
variable MMLIB_RESULTS says where it is. `manifest.json` has size and SHA-256 of every file, `networks/index.json` the
networks that have a name, `networks/<name>.md` the card of each. Nothing is read that is not the file of the manifest.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmlib import records

if TYPE_CHECKING:
    from mmlib.prediction import Network

VARIABLE = "MMLIB_RESULTS"
STORE = "results"
DIGITS = 7  # of scores, as they are published
MANIFEST = "manifest.json"
INDEX = "networks/index.json"
WEIGHTS = ".safetensors"
COLUMNS = ".columns"  # ending of a table that lies by columns
Files = dict[str, bytes]  # of a run, by their names


class StoreError(ValueError):
    """There is no store, or a published file is missing or damaged; the message names it and the remedy."""


def find_store() -> Path:
    """The folder of the published results: what MMLIB_RESULTS names, else `results` of a checkout.

    The checkout is the one around this package, or the working directory.

    Raises:
        StoreError: if there is none; says where was looked.
    """
    if given := os.environ.get(VARIABLE):
        store = Path(given).expanduser()
        if not (store / MANIFEST).is_file():
            raise StoreError(f"{VARIABLE}={given}: there is no {MANIFEST} in it; give the folder {STORE} of a checkout")
        return store
    looked = [Path(__file__).resolve().parents[1] / STORE, Path.cwd() / STORE]
    for store in looked:
        if (store / MANIFEST).is_file():
            return store
    raise StoreError(
        f"no published results found in {' or '.join(map(str, dict.fromkeys(looked)))}: clone the repository of the "
        f"book, and set the environment variable {VARIABLE} to its folder {STORE}"
    )


def read_manifest(store: Path) -> dict[str, dict[str, Any]]:
    """File -> its size and SHA-256; empty where nothing is published.

    Raises:
        StoreError: if the manifest is damaged.
    """
    path = store / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}): git checkout -- {path}") from None


def size_and_sum(content: bytes) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"bytes": len(content), "sha256": records.digest(content)}


def read_file(store: Path, name: str, sums: Mapping[str, Any]) -> bytes:
    """A published file, checked against the manifest.

    Args:
        store: its folder.
        name: of the file, from there.
        sums: of `read_manifest`.

    Raises:
        StoreError: if the file is missing or another one; names it and the remedy.
    """
    path = store / name
    remedy = f"git checkout -- {path}"
    if name not in sums:
        raise StoreError(f"{path} is not listed in {MANIFEST}: git checkout -- {store}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error}): {remedy}") from None
    if size_and_sum(content) != sums[name]:
        raise StoreError(f"{path} is not the file that {MANIFEST} lists (changed or cut): {remedy}")
    return content


def archive_of(experiment: str) -> str:
    """The file of the runs of an experiment `<profile>/<experiment>`, from the store."""
    return f"{experiment}.tar.xz"


def from_columns(content: bytes) -> bytes:
    """The text of a table from what `pipeline.store.by_columns` made of it."""
    line, _, numbers = content.partition(b"\n")
    columns = json.loads(line)
    planes = np.frombuffer(numbers, np.uint8).reshape(len(columns), 4, -1)
    rows = np.ascontiguousarray(planes.transpose(0, 2, 1)).view("<u4")[..., 0]  # columns rows
    fields = (map(values.__getitem__, row.tolist()) for values, row in zip(columns.values(), rows, strict=True))
    lines = (",".join(row) for row in zip(*fields, strict=True))
    return ("\n".join([",".join(columns), *lines]) + "\n").encode()


def open_experiment(store: Path, experiment: str, sums: Mapping[str, Any]) -> dict[str, Files]:
    """The runs of a published experiment, checked against the manifest.

    Args:
        store: the folder `results`.
        experiment: `<profile>/<experiment>`.
        sums: of `read_manifest`.

    Raises:
        StoreError: if a file is missing or damaged.
    """
    runs: dict[str, Files] = {}
    packed = lzma.decompress(read_file(store, archive_of(experiment), sums))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for entry in archive:
            run, _, name = entry.name.partition("/")
            stream = archive.extractfile(entry)
            assert stream is not None  # the store holds plain files only
            content = stream.read()
            if name.endswith(COLUMNS):
                name, content = name.removesuffix(COLUMNS), from_columns(content)
            runs.setdefault(run, {})[name] = content
    for file in sums:
        if file.startswith(f"{experiment}/") and file.endswith(WEIGHTS):
            run, _, name = file.removeprefix(f"{experiment}/").partition("/")
            runs[run][name] = read_file(store, file, sums)
    return runs


def scores(experiment: str, store: Path | None = None) -> pd.DataFrame:
    """The published scores of an experiment.

    Args:
        experiment: such as `book/segmentation`.
        store: its folder; None: as `find_store`.

    Returns:
        Tidy: run, method, variant, seed, then as `mmlib.records.SCORE_COLUMNS`.

    Raises:
        StoreError: if there is no store, or the experiment is not in it or damaged.
    """
    store = store or find_store()
    tables = []
    for run, files in open_experiment(store, experiment, read_manifest(store)).items():
        record, table = json.loads(files["record.json"]), pd.read_csv(io.BytesIO(files["scores.csv"]))
        known = {"run": run, **{name: record[name] for name in ("method", "variant", "seed")}}
        tables.append(table.assign(**{name: value for name, value in known.items() if name not in table}))
    return pd.concat(tables, ignore_index=True)


def networks(store: Path | None = None) -> dict[str, dict[str, Any]]:
    """Name of each published network -> facts about it.

    The facts: `file` (from the store), `task`, `method`, `modalities`, `spacing` (mm) and `axes` of the voxels it was
    trained with, `warning`, and `scores`: rows of metric, target, available, mean, low, high (95 %), unit and cases.

    Args:
        store: its folder; None: as `find_store`.

    Raises:
        StoreError: if there is no store, or its index is damaged.
    """
    store = store or find_store()
    sums = read_manifest(store)
    return json.loads(read_file(store, INDEX, sums)) if INDEX in sums else {}


def _facts(name: str, store: Path) -> dict[str, Any]:
    known = networks(store)
    if name not in known:
        raise ValueError(f"no published network is called {name!r}; there are {', '.join(sorted(known)) or 'none'}")
    return known[name]


def card(name: str, store: Path | None = None) -> str:
    """The card of a published network, Markdown; raises as `load`."""
    store = store or find_store()
    _facts(name, store)
    return read_file(store, f"networks/{name}.md", read_manifest(store)).decode()


def load(name: str, store: Path | None = None) -> Network:
    """A published network, in evaluation mode on the CPU, with what was done to the images that it learned from.

    Args:
        name: one of `networks`.
        store: its folder; None: as `find_store`.

    Raises:
        ValueError: if no network has this name; lists those that there are.
        StoreError: if there is no store, or a file of the network is missing or damaged.
    """
    store = store or find_store()
    facts, sums = _facts(name, store), read_manifest(store)
    profile, experiment, run, *below = facts["file"].split("/")
    folder = f"{profile}/{experiment}/{run}"
    for file in (facts["file"], f"{folder}/record.json"):
        read_file(store, file, sums)

    from mmlib.prediction import Network  # torch and MONAI take seconds

    return Network.of_run(store / folder, "/".join(below), name=name, spacing=facts["spacing"])
