"""Published networks by name: where the store of results lies, what it holds, and a network that is ready to use.

The store is the folder `results` of the repository; an installed package has none beside it, so the environment
variable MMLIB_RESULTS says where it is. `manifest.json` has size and SHA-256 of every file, `networks/index.json` the
networks that have a name, `networks/<name>.md` the card of each. Nothing is read that is not the file of the manifest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import records

if TYPE_CHECKING:
    from mmlib.prediction import Network

VARIABLE = "MMLIB_RESULTS"
STORE = "results"
DIGITS = 7  # of scores, as they are published
MANIFEST = "manifest.json"
INDEX = "networks/index.json"


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
