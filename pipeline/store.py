"""The published results: finished runs go from `build/results` to `results/`, and what lies there comes back unchanged.

`results/<profile>/<experiment>.tar.xz` holds a folder for each run: record, the scores that chapters read, a thinned
history, and the arrays that chapters draw. Weights that chapters load lie beside it, `<experiment>/<run>/<file>`, for
they change seldom and git packs them badly; those of a network that has a name have their record there too (see
`pipeline.networks`).
`results/manifest.json` has size and SHA-256 of every file. A restored record has the key `published`, one that was made
here has not; nothing that was made here is ever replaced. Scores are published to seven digits, as many as float32
holds, histories to six, arrays and weights in 16 bits; in the archive a table of scores lies by columns (`by_columns`),
which xz packs in half the room or less, and comes out as the text that went in; under `left_out` a record says which
files a run had that are not here, or not as they were.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load, save

from mmlib import records
from mmlib.published import (
    COLUMNS,
    DIGITS,
    MANIFEST,
    STORE,
    WEIGHTS,
    Files,
    archive_of,
    open_experiment,
    read_manifest,
    size_and_sum,
)
from pipeline.frame import stale_runs
from pipeline.profiles import FOLDERS, RESULTS, list_runs, profile, project_root

STAGED = ".staged"  # where a change of the store is written before it is made
ROWS = 200  # of a training in a history that are kept, about
MOST = 6_000  # rows of a history of many trainings
TRAININGS = ("variant", "seed", "student", "network", "stage")  # columns of a history that tell its trainings apart


# ------------------------------------------------------------------------------------------------------ publishing
def publish(
    store: Path,
    runs: Iterable[Path],
    about: Mapping[str, Any],
    networks: Iterable[str] = (),
    undrawn: Iterable[str] = (),
    folders: Mapping[str, str] | None = None,
    unread: Mapping[str, Iterable[str]] | None = None,
) -> list[str]:
    """Add finished runs to the store; one that is there already is replaced.

    Args:
        store: the folder `results`.
        runs: folders of runs, `.../<profile>/<experiment>/<run>`.
        about: goes into each record under `published`, such as the commit and the day.
        networks: shell patterns of `<profile>/<experiment>/<run>/<file>`: weights that are kept; others are left out.
        undrawn: such patterns of arrays that are left out, since no chapter draws them.
        folders: where a reader's data lie -> what records name instead: where they lie is nobody's business.
        unread: such patterns of scores -> the metrics that no chapter reads there, which are left out, as in `rounded`.

    Returns:
        The names `<profile>/<experiment>/<run>` of what was added.

    Raises:
        FileNotFoundError, RecordError: as `mmlib.records.read_record`.
        StoreError: if the store is damaged.
    """
    added: dict[str, dict[str, Files]] = {}
    for folder in runs:
        profile, experiment, run = folder.resolve().parts[-3:]
        place = f"{profile}/{experiment}/{run}/"
        files = _published(folder, place, about, networks, undrawn, folders or {}, unread or {})
        added.setdefault(f"{profile}/{experiment}", {})[run] = files
    with records.one_at_a_time(store):
        settle(store)
        sums = read_manifest(store)
        changed: Files = {}
        for experiment, new in added.items():
            known = open_experiment(store, experiment, sums) if archive_of(experiment) in sums else {}
            changed |= _laid_out(experiment, {**known, **new}, sums)
        change_store(store, changed, sums)
    return sorted(f"{experiment}/{run}" for experiment, new in added.items() for run in new)


def withdraw(store: Path, experiment: str, runs: Iterable[str] = ()) -> list[str]:
    """Take runs out of the store, such as those whose settings the profile has changed since; the rest stays.

    Args:
        store: the folder `results`.
        experiment: `<profile>/<experiment>`.
        runs: names; all of the experiment where none is given.

    Returns:
        The names of what was taken out.

    Raises:
        ValueError: if a run is not published.
        StoreError: if the store is damaged.
    """
    with records.one_at_a_time(store):
        settle(store)
        sums = read_manifest(store)
        known = open_experiment(store, experiment, sums) if archive_of(experiment) in sums else {}
        gone = sorted(set(runs) or known)
        if unknown := [run for run in gone if run not in known] or ([] if gone else ["no run"]):
            raise ValueError(f"not published in {store / experiment}: {', '.join(unknown)}; {', '.join(known)} are")
        left = {run: files for run, files in known.items() if run not in gone}
        change_store(store, _laid_out(experiment, left, sums), sums)
    return gone


def _laid_out(experiment: str, runs: Mapping[str, Files], sums: dict[str, Any]) -> Files:
    """The files of an experiment that has these runs; what it has no more leaves the manifest."""
    files = {f"{experiment}/{run}/{name}": content for run, name, content in _weights(runs)}
    if runs:
        files[archive_of(experiment)] = _packed(runs)
    for gone in [name for name in sums if name.startswith(f"{experiment}/") or name == archive_of(experiment)]:
        if gone not in files:
            del sums[gone]
    return files


def change_store(store: Path, changed: Files, sums: dict[str, Any]) -> None:
    """Write files and the manifest, and remove what it no longer lists: all of it, or nothing until `settle`.

    Args:
        store: the folder `results`.
        changed: what is written.
        sums: the new manifest, but for the sums of these.
    """
    staged = store / STAGED
    sums |= {name: size_and_sum(content) for name, content in changed.items()}
    manifest = (records.to_json(sums, MANIFEST) + "\n").encode()
    for name, content in {**changed, MANIFEST: manifest}.items():  # the manifest last: with it, all are there
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        records.write_whole(staged / name, partial(write_bytes, content))
    settle(store)


def settle(store: Path) -> None:
    """End what a killed process began: the change is made if all of it is there, else it is forgotten."""
    staged = store / STAGED
    if (staged / MANIFEST).is_file():
        new = read_manifest(staged)
        places = {name: staged / name if (staged / name).is_file() else store / name for name in new}
        if all(path.is_file() and size_and_sum(path.read_bytes()) == new[name] for name, path in places.items()):
            for name, path in places.items():
                (store / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, store / name)
            for gone in set(read_manifest(store)) - set(new):
                (store / gone).unlink(missing_ok=True)
            os.replace(staged / MANIFEST, store / MANIFEST)
    shutil.rmtree(staged, ignore_errors=True)


def _published(
    folder: Path,
    place: str,
    about: Mapping[str, Any],
    networks: Iterable[str],
    undrawn: Iterable[str],
    folders: Mapping[str, str],
    unread: Mapping[str, Iterable[str]],
) -> Files:
    """The files of a run as they are published; its record lists these, and under `left_out` those that are not."""
    record = records.read_record(folder)
    for key in ("root", "data"):
        if (value := record["parameters"].get(key)) in folders:
            record["parameters"][key] = folders[value]
    wanted = ("*.npz", "*/scores.csv", "*/history.csv", *networks)
    names = [name for name in record["files"] if any(fnmatchcase(place + name, pattern) for pattern in wanted)]
    names = [name for name in names if not any(fnmatchcase(place + name, pattern) for pattern in undrawn)]
    files = {name: (folder / name).read_bytes() for name in names}
    return shortened(files, record, about, unread_of(place, unread))


def unread_of(place: str, unread: Mapping[str, Iterable[str]]) -> list[str]:
    """The metrics that no chapter reads of a run, `<profile>/<experiment>/<run>/`."""
    return [metric for pattern, metrics in unread.items() if fnmatchcase(place, pattern) for metric in metrics]


def shortened(files: Files, record: dict[str, Any], about: Mapping[str, Any], unread: Iterable[str] = ()) -> Files:
    """Files as they are published, and the record that lists them."""
    change: dict[str, Callable[[bytes], bytes]] = {
        "scores.csv": partial(rounded, unread=unread),
        "history.csv": thinned,
        ".npz": half_arrays,
        WEIGHTS: half_weights,
    }
    for ending, shorten in change.items():
        files |= {name: shorten(content) for name, content in files.items() if name.endswith(ending)}
    facts = {name: size_and_sum(content) for name, content in sorted(files.items())}
    changed = {name: made for name, made in record["files"].items() if facts.get(name) != made}
    record |= {"files": facts, "left_out": record.get("left_out", {}) | changed}
    record["published"] = dict(about)
    return {**files, "record.json": records.signed(record).encode()}


def thinned(history: bytes, rows: int = ROWS) -> bytes:
    """About so many rows of each training in a history, evenly, to six digits; first, last and scored ones are kept.

    Seconds have three digits: more of them are noise, and noise takes room.

    Args:
        history: a `history.csv`.
        rows: of a training; fewer where there are so many trainings that it would have more than `MOST`.
    """
    if not history.strip():
        return history
    table = pd.read_csv(io.BytesIO(history))
    parts = [table[name].astype(str) for name in TRAININGS if name in table]
    training = pd.Series("", table.index).str.cat(parts, sep="|") if parts else pd.Series("", table.index)
    place = table.groupby(training, sort=False).cumcount()
    length = training.map(training.value_counts())
    rows = max(1, min(rows, MOST // max(1, training.nunique())))
    keep = (place % np.ceil(length / rows).astype(int) == 0) | (place == length - 1)
    if "score" in table:
        keep |= table["score"].notna()
    if "seconds" in table:
        table["seconds"] = table["seconds"].map(lambda value: float(f"{value:.3g}"))
    return table[keep].to_csv(index=False, lineterminator="\n", float_format="%.6g").encode()


def rounded(scores: bytes, unread: Iterable[str] = ()) -> bytes:
    """A `scores.csv` with values to `DIGITS` digits, without metrics (`dice`, or of one variant `paper/dice`).

    The same table again gives the same bytes.
    """
    table = pd.read_csv(io.BytesIO(scores), dtype=str, keep_default_na=False)
    left_out = list(unread)
    of_variant = table["variant"] + "/" + table["metric"] if "variant" in table else table["metric"]
    table = table[~(table["metric"].isin(left_out) | of_variant.isin(left_out))].copy()
    table["value"] = pd.to_numeric(table["value"].replace("", None))
    return table.to_csv(index=False, lineterminator="\n", float_format=f"%.{DIGITS}g").encode()


def _half(array: np.ndarray) -> np.ndarray:
    """Numbers of 32 or 64 bits in 16, unless one is too large."""
    if array.dtype not in (np.float32, np.float64) or np.nanmax(np.abs(array), initial=0) > np.finfo(np.float16).max:
        return array
    return array.astype(np.float16)


def half_arrays(content: bytes) -> bytes:
    """An `.npz` with numbers in 16 bits; not compressed, for archives pack it better."""
    buffer = io.BytesIO()
    with np.load(io.BytesIO(content)) as arrays:
        halved: dict[str, Any] = {name: _half(arrays[name]) for name in arrays.files}
        np.savez(buffer, **halved)
    return buffer.getvalue()


def half_weights(content: bytes) -> bytes:
    """Weights (safetensors) in 16 bits; a network that loads them has 32 again."""
    packed: bytes = save({name: _half(array) for name, array in load(content).items()})
    return packed


def by_columns(table: bytes) -> bytes | None:
    """A CSV table as its columns, each the distinct values and a number for every row.

    `mmlib.published.from_columns` turns it back. Parquet's dictionaries do the same; pyarrow would be the largest
    package of the book but torch, and its files pack no better.

    Args:
        table: a header, then rows, a line each.

    Returns:
        A line of JSON (column -> distinct values, sorted), then for each column the rows' numbers, 32 bits without a
        sign, the lowest bytes of all rows first; None where fields are quoted or rows have not the same length.
    """
    head, *rows = [line.split(b",") for line in table.split(b"\n")[:-1]] or [[]]
    if not rows or b'"' in table or not table.endswith(b"\n") or {len(row) for row in rows} != {len(head)}:
        return None
    columns, numbers = {}, b""
    for name, column in zip(head, zip(*rows, strict=True), strict=True):
        values, number = np.unique(np.array(column), return_inverse=True)
        columns[name.decode()] = [value.decode() for value in values.tolist()]
        numbers += number.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes()
    return json.dumps(columns).encode() + b"\n" + numbers


def write_bytes(content: bytes, path: Path) -> None:
    """For `records.write_whole`, by `partial`."""
    path.write_bytes(content)


def _weights(runs: Mapping[str, Files]) -> Iterator[tuple[str, str, bytes]]:
    for run, files in runs.items():
        yield from ((run, name, content) for name, content in files.items() if name.endswith(WEIGHTS))


def _packed(runs: Mapping[str, Files]) -> bytes:
    """The same runs give the same bytes: sorted, without times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for run, files in sorted(runs.items()):
            for name, content in sorted(files.items()):
                if name.endswith(WEIGHTS):
                    continue
                if name.endswith("scores.csv") and (columns := by_columns(content)):
                    name, content = name + COLUMNS, columns
                entry = tarfile.TarInfo(f"{run}/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return lzma.compress(buffer.getvalue(), preset=6)


def publish_profile(profile_name: str, experiments: Iterable[str]) -> None:
    """Publish what a profile has finished, of these experiments or of all.

    Raises:
        ValueError: if files differ from the commit, for published is only what a commit made.
    """
    root = project_root()
    commit, dirty = records.git_state(root)
    if dirty is not False:
        raise ValueError(f"{root} is at commit {commit} with changes (or no git folder): commit them, then publish")
    settings, wanted = profile(profile_name), list(experiments)
    refused: dict[str, str] = {}
    runs: list[Path] = []
    for experiment in wanted or settings["experiments"]:
        asked = list_runs(profile_name, experiment)
        stale = stale_runs(profile_name, experiment, asked, settings["experiments"][experiment]["notebook"])
        runs += [root / RESULTS / profile_name / experiment / name for name in asked if name not in stale]
        refused |= {f"{experiment}/{name}": why for name, why in stale.items() if why != "there is no record"}
    own = [run for run in runs if "published" not in records.read_record(run)]
    about = {"commit": commit, "day": datetime.now(UTC).date().isoformat()}
    kept = [f"{profile_name}/{place}" for place in settings.get("networks", {}).values()]
    folders = {str(root / Path(given).expanduser()): name for name in FOLDERS if (given := os.environ.get(name))}
    weights = [*settings.get("weights", ()), *kept]
    added = publish(root / STORE, own, about, weights, settings.get("undrawn", ()), folders, settings.get("unread"))
    size = _list_networks(root, profile_name, settings)
    print(f"{len(added)} runs published, {len(runs) - len(own)} were; {STORE}/ has {size:.1f} MB: git add {STORE}")
    for name, why in refused.items():
        print(f"not published: {name}: {why}")


def withdraw_runs(profile_name: str, experiment: str, names: Iterable[str]) -> None:
    """Take published runs of an experiment out of the store, or all of them; git keeps what was published before.

    Raises:
        ValueError, StoreError: as `withdraw`.
    """
    root = project_root()
    gone = withdraw(root / STORE, f"{profile_name}/{experiment}", names)
    size = _list_networks(root, profile_name, profile(profile_name))
    print(f"{len(gone)} runs withdrawn: {', '.join(gone)}; {STORE}/ has {size:.1f} MB: git add {STORE}")


def _list_networks(root: Path, profile_name: str, settings: Mapping[str, Any]) -> float:
    """Write the index of networks anew, say who is in it, and return the size of the store in MB."""
    from pipeline.networks import publish_networks

    phantoms = {name: data.get("phantom", {}).get("spacing", 0.0) for name, data in settings["data"].items()}
    spacings = {name: phantoms.get(asked.get("data"), 0.0) for name, asked in settings["experiments"].items()}
    networks = publish_networks(root / STORE, profile_name, settings.get("networks", {}), spacings)
    print(f"networks with a name: {', '.join(networks) or 'none'}")
    return sum(facts["bytes"] for facts in read_manifest(root / STORE).values()) / 1e6


# --------------------------------------------------------------------------------------------------------- reading
def read_records(store: Path, profile: str) -> dict[str, dict[str, Any]]:
    """`<experiment>/<run>` -> record, of what is published of a profile.

    Raises:
        StoreError: if a published file is missing or damaged.
    """
    sums = read_manifest(store)
    found = {}
    for file in sorted(sums):
        if file.startswith(f"{profile}/") and file.endswith(".tar.xz"):
            experiment = file.removesuffix(".tar.xz")
            for run, files in open_experiment(store, experiment, sums).items():
                found[f"{experiment.partition('/')[2]}/{run}"] = json.loads(files["record.json"])
    return found


def restore(store: Path, profile: str, target: Path) -> dict[str, list[str]]:
    """Put the published runs of a profile where chapters read them; those that are published no more go away.

    Args:
        store: the folder `results`.
        profile: its name.
        target: the folder `build/results`.

    Returns:
        "restored", "there" (restored before, and unchanged) and "kept" (made here, left alone) -> names
        `<experiment>/<run>`.

    Raises:
        StoreError: if a published file is missing or damaged; nothing of its experiment is restored.
    """
    sums = read_manifest(store)
    stamp = target / f".restored-{profile}.json"  # where no file changed since, nothing is unpacked
    with suppress(OSError, ValueError, KeyError):
        known = json.loads(stamp.read_text(encoding="utf-8"))
        if known["files"] == _state(store, target / profile):
            said = known["done"]
            return {"restored": [], "there": sorted(said["restored"] + said["there"]), "kept": said["kept"]}
    done: dict[str, list[str]] = {"restored": [], "there": [], "kept": []}
    for file in sorted(sums):
        if not file.startswith(f"{profile}/") or not file.endswith(".tar.xz"):
            continue
        experiment = file.removesuffix(".tar.xz")
        for run, files in open_experiment(store, experiment, sums).items():
            folder = target / experiment / run
            done[_put(folder, files)].append(f"{experiment.partition('/')[2]}/{run}")
    kept = {target / profile / name for names in done.values() for name in names}
    for folder in {path.parent for path in (target / profile).glob("*/*/record.json")} - kept:
        with suppress(records.RecordError):
            if "published" in records.read_record(folder):
                shutil.rmtree(folder)
    if sums:
        target.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"files": _state(store, target / profile), "done": done}).encode()
        records.write_whole(stamp, partial(write_bytes, content))
    return done


def _state(*folders: Path) -> dict[str, list[int]]:
    """Size and time of every file below some folders."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in files}


def _put(folder: Path, files: Files) -> str:
    try:
        there = records.read_record(folder)
        if "published" not in there:
            return "kept"
        if (folder / "record.json").read_bytes() == files["record.json"]:
            return "there"
    except (FileNotFoundError, records.RecordError):
        pass
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").unlink(missing_ok=True)  # it never describes other files
    for left in [path for ending in (".npz", WEIGHTS) for path in folder.rglob(f"*{ending}")]:
        if left.relative_to(folder).as_posix() not in files:
            left.unlink()
    for name, content in sorted(files.items(), key=lambda item: item[0] == "record.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        records.write_whole(folder / name, partial(write_bytes, content))
    return "restored"
