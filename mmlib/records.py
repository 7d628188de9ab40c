"""Run records: write one, read many, and tell whether one is still current.

A run is a folder `root/<profile>/<experiment>/<run>/` that holds `history.csv`, `scores.csv` and, written last,
`record.json`: a folder with a record is complete, a folder without one is not read. Every table, figure and sentence
with a number is made from these files.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import io
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SCHEMA = 2
FACTS = (
    "device",  # "cpu" or the name of the accelerator
    "threads",  # of torch, in this process
    "precision",  # "float32", "bfloat16"
    "seconds",  # {"train": s, "evaluate": s}
    "parameter_count",
    "stand_in",  # True: made-up data with a known answer; False: patients
    "data_fingerprint",
    "split_hash",
    "availability_sampler",
    "exposure",  # {stage: {case: [modalities seen]}}
    "fingerprint",
)
PLACE = ("profile", "experiment", "run")  # the folders of a record, from the root of results
OTHERS = ("method", "variant", "seed", "parameters", "files", "sha256")
SCORE_COLUMNS = ("case", "available", "target", "metric", "value")
PACKAGES = ("torch", "monai", "numpy", "scipy", "pandas", "scikit-learn", "statsmodels", "nibabel", "nilearn", "mmlib")
NOT_INPUTS = ("force", "results")  # parameters that cannot change a result
TEMPORARY = ".tmp"  # ends the hidden name under which a file is written
_SAMPLE = 1 << 16  # bytes read from each end of a large file


# --------------------------------------------------------------------------------------------------- fingerprints
def digest(content: bytes) -> str:
    """SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def fingerprint(parameters: Mapping[str, Any], files: Iterable[str | Path] = ()) -> str:
    """Hash what a result depends on: parameter values and source code. Equal hashes mean that a run may be reused.

    `force` and `results` are left out, for they cannot change a result. Put the data in as a value, not as a path:
    `fingerprint({**parameters, "data": data_fingerprint(root)}, sources)`. Where a source file lies does not count,
    its name and content do.

    Args:
        parameters: name -> value; anything JSON can hold, and paths.
        files: source files the run executes.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: if a parameter is NaN, infinite or of a type JSON does not know.
        FileNotFoundError: if a source file does not exist.
    """
    inputs = {name: value for name, value in parameters.items() if name not in NOT_INPUTS}
    sources = sorted((Path(file).name, digest(Path(file).read_bytes())) for file in files)
    return digest(to_json({"parameters": inputs, "sources": sources}, "parameters").encode())[:16]


def folders_below(
    root: str | Path, onerror: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Walk through a folder and those below it, links included; hidden files and folders are left out.

    A link to a folder above itself is not followed. `lost+found`, which belongs to a disk, is left out too.

    Args:
        root: the folder.
        onerror: is given the error where a folder cannot be listed; None: it is raised.

    Yields:
        A folder, and the sorted names of what is no folder in it; sorted by path.
    """

    def visit(folder: Path, above: frozenset[str]) -> Iterator[tuple[Path, list[str]]]:
        here = os.path.realpath(folder)
        if here in above:
            return
        try:
            with os.scandir(folder) as entries:
                found = {one.name: _is_folder(one) for one in entries if not one.name.startswith(".")}
        except OSError as error:
            if onerror is None:
                raise
            onerror(error)
            return
        yield folder, sorted(name for name, below in found.items() if not below)
        for name in sorted(name for name, below in found.items() if below and name != "lost+found"):
            yield from visit(folder / name, above | {here})

    yield from visit(Path(root), frozenset())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def data_fingerprint(root: str | Path, files: Iterable[str | Path] | None = None) -> str:
    """Hash a data set: relative names, sizes and contents (of files above 128 KiB, the first and last 64 KiB).

    Args:
        root: a folder, read with its sub-folders, links included, and without hidden ones; or one file.
        files: only these files below `root`, for instance the ones a table names.

    Returns:
        16 hexadecimal digits; the same for a copy of the folder elsewhere.

    Raises:
        FileNotFoundError: if `root` or one of `files` does not exist, or no file is found.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist: give the folder of the data, or make the phantom first")
    if files is not None:
        found = [Path(file) for file in files]
    elif root.is_file():
        found = [root]
    else:
        found = [path for folder, names in folders_below(root) for name in names if (path := folder / name).is_file()]
    base = root.parent if root.is_file() else root
    named = {os.path.relpath(path, base): path for path in found if not path.name.startswith(".")}
    if not named:
        raise FileNotFoundError(f"{root} holds no files: give the folder of the data, or make the phantom first")
    total = hashlib.sha256()
    for name, path in sorted(named.items()):
        size = path.stat().st_size
        with path.open("rb") as stream:
            content = stream.read(_SAMPLE) if size > 2 * _SAMPLE else stream.read()
            if size > 2 * _SAMPLE:
                stream.seek(-_SAMPLE, os.SEEK_END)
                content += stream.read()
        total.update(f"{Path(name).as_posix()}\0{size}\0{digest(content)}\n".encode())
    return total.hexdigest()[:16]


def _plain(value: Any) -> Any:
    """Turn what numpy and pathlib bring along into what JSON knows."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{value!r} of type {type(value).__name__}")


def to_json(content: Mapping[str, Any], what: str) -> str:
    """Strict JSON with sorted keys; NaN and infinity are refused."""
    try:
        return json.dumps(content, default=_plain, allow_nan=False, sort_keys=True, indent=1)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what}: cannot be written as JSON ({error}); use finite numbers, text, lists, dicts; got {dict(content)}"
        ) from None


# ------------------------------------------------------------------------------------------------------- writing
class RecordError(ValueError):
    """A record on disk is damaged or of another schema; the message names the file and the remedy."""


class NoSpaceError(OSError):
    """A disk or quota is full; the message names the file, what it needs and what is free, and the remedy."""


NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# what torch and safetensors say of it, whose errors bear no number
NO_SPACE_WORDS = ("No space left", "Disk quota exceeded", "File too large", "iostream error", "unexpected pos")


@contextmanager
def naming_a_full_disk(path: Path, written: Path | None = None) -> Iterator[None]:
    """Say which file could not be written for want of space; other errors pass as they are.

    Args:
        path: what is written.
        written: the file that holds what was written so far, where that is another one.

    Raises:
        NoSpaceError: in place of the error of a full disk, whoever raised it.
    """
    try:
        yield
    except NoSpaceError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) not in NO_SPACE and not any(words in str(error) for words in NO_SPACE_WORDS):
            raise
        sizes = [one.stat().st_size for one in (path, written) if one is not None and one.is_file()]
        place = next(folder for folder in path.absolute().parents if folder.is_dir())
        raise NoSpaceError(
            f"{path}: no space to write it: it needs {max(sizes, default=0) / 2**20:.1f} MiB or more, and "
            f"{shutil.disk_usage(place).free / 2**20:.1f} MiB are free there, or a quota is reached; nothing that was "
            "finished is lost: make room, and the same command goes on"
        ) from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a name of its own beside the target, then rename: a reader sees the old file or the whole new one.

    Args:
        path: the target.
        write: writes the file whose path it is given.

    Raises:
        NoSpaceError: if there is no space for it; an older file stays as it was.
    """
    with naming_a_full_disk(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=TEMPORARY)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming_a_full_disk(path, temporary):
            write(temporary)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())  # else a power cut may leave the new name on an empty file
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for the same folder, which is made; a killed one waits for none.

    Where the disk knows no locks nobody waits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; False where another process holds it, the folder is none, or is gone."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write in that takes the place of `target` where the block ends without an error.

    A reader sees the old folder or the whole new one, or for a moment none; also where several processes write the
    same: then the last one stays. What a killed process left goes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}-"
    for left in {path.parent for path in target.parent.glob(glob.escape(prefix) + f"*{TEMPORARY}/*")}:
        with _held(left) as dead:  # who is alive holds it before anything is in it
            if dead:
                shutil.rmtree(left, ignore_errors=True)
    place = tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix, suffix=TEMPORARY, ignore_cleanup_errors=True)
    with place, _held(Path(place.name)):
        made = Path(place.name) / "new"
        made.mkdir()
        yield made
        for attempt in range(100):
            try:
                made.rename(target)  # where nothing is, or an empty folder
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            with suppress(FileNotFoundError):  # another process was faster
                target.rename(made.with_name(f"old-{attempt}"))
        raise RuntimeError(f"{target}: other processes write it again and again; stop them and try again")


def sweep(folder: Path) -> None:
    """Drop what `write_whole` left below a folder when its process was killed; nobody may be writing there."""
    for temporary in folder.rglob(f".*{TEMPORARY}"):
        temporary.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))


def git_state(folder: str | Path) -> tuple[str, bool | None]:
    """The commit a folder is at, and whether tracked files differ from it; `("unknown", None)` outside git.

    The published results are left out of account: they are added to until they are committed.
    """

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        return ask("rev-parse", "HEAD"), bool(
            ask("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results")
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown", None


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages a result depends on."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def peak_memory_mib() -> float:
    """The largest resident size of this process so far, MiB: libraries, data and network together."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _check_scores(scores: pd.DataFrame) -> None:
    lacking = [name for name in SCORE_COLUMNS if name not in scores.columns]
    if lacking:
        raise ValueError(f"scores lack the columns {lacking}; a tidy table has {SCORE_COLUMNS}")
    if scores.empty:
        raise ValueError("scores have no rows: nothing was evaluated")
    if scores[["case", "available", "target", "metric"]].isna().any(axis=None):
        raise ValueError("scores have empty cells in case, available, target or metric")
    arm = [name for name in ("variant", "seed") if name in scores.columns]
    twice = scores.duplicated([*arm, "case", "available", "target", "metric"])
    if twice.any():
        raise ValueError(
            f"scores hold a value twice, for instance {scores.loc[twice, list(SCORE_COLUMNS)].iloc[0].to_dict()}"
        )
    if np.isinf(scores["value"]).any():
        raise ValueError("scores hold an infinite value; a measure that is undefined is NaN")
    dice = scores.loc[scores["metric"] == "dice", "value"]
    if not dice.between(0, 1).all():
        raise ValueError(f"dice must lie in [0, 1], never NaN; got {dice[~dice.between(0, 1)].iloc[0]} (a percentage?)")


@dataclass(frozen=True)
class Run:
    """One run: a folder, and what was asked for. Made by `open_run`.

    Attributes:
        folder: `root/<profile>/<experiment>/<name>`; checkpoints, weights and the executed notebook lie here too.
        parameters: everything the run was asked for.
    """

    folder: Path
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run's name, `<method>-<variant>-s<seed>`, or of several variants and seeds together `<method>`."""
        return self.folder.name

    def is_current(self, fingerprint: str) -> bool:
        """Whether a complete record exists that was made from the same fingerprint; then the run may be reused."""
        try:
            return read_record(self.folder)["fingerprint"] == fingerprint
        except (FileNotFoundError, RecordError):
            return False

    def clear(self) -> None:
        """Withdraw the record before its files are made anew, so that none ever describes other files."""
        (self.folder / "record.json").unlink(missing_ok=True)

    def save(self, history: pd.DataFrame, scores: pd.DataFrame, **facts: Any) -> Path:
        """Write `history.csv`, `scores.csv` and then `record.json`.

        Commit, package versions, time of day and peak memory are added here.

        Args:
            history: one row per training step; may be empty for a method that does not train.
            scores: tidy, with the columns case, available, target, metric, value; dice in [0, 1], an undefined
                hd95 is NaN. A run that holds several variants or seeds has the columns `variant` and `seed` as well.
            facts: every name in `FACTS`; `method`, `variant` and `seed` where `parameters` lack them; others
                as wanted.

        Returns:
            The path of the record.

        Raises:
            ValueError: if a fact is missing or not finite, or the scores are not tidy.
        """
        profile, experiment = self.folder.parts[-3:-1]
        commit, dirty = git_state(Path(__file__).parent)
        names = {name: facts.pop(name, self.parameters.get(name)) for name in ("method", "variant", "seed")}
        lacking = [name for name in (*FACTS, *names) if facts.get(name, names.get(name)) is None]
        if lacking:
            raise ValueError(f"run {self.name}: a record needs {lacking} as well; give them to save()")
        _check_scores(scores)
        own = {name: scores[name] for name in ("variant", "seed", *SCORE_COLUMNS) if name in scores.columns}
        scores = pd.DataFrame({**names, **own})
        tables = {"history.csv": _to_csv(pd.DataFrame(history)), "scores.csv": _to_csv(scores)}
        record = {
            "schema_version": SCHEMA,
            "profile": profile,
            "experiment": experiment,
            "run": self.name,
            **names,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "git_commit": commit,
            "git_dirty": dirty,
            "versions": package_versions(),
            "peak_memory_mib": peak_memory_mib(),
            "parameters": self.parameters,
            **facts,
        }
        to_json(record, f"run {self.name}")  # refuses what cannot be written before anything is
        self.clear()
        for name, table in tables.items():
            _write(self.folder / name, table)
        record["files"] = {path.relative_to(self.folder).as_posix(): _size_and_sum(path) for path in self._made()}
        _write(self.folder / "record.json", signed(record))
        return self.folder / "record.json"

    def _made(self) -> list[Path]:
        """The files that a reader may load: all but logs, executed notebooks, checkpoints and the record itself."""
        found = sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        left_out = (".ipynb", ".log", "record.json")
        return [path for path in found if not path.name.endswith(left_out) and ".checkpoint.pt" not in path.name]


def signed(record: Mapping[str, Any]) -> str:
    """The text of a record's file: the record with the SHA-256 of itself, by which a change is noticed."""
    return to_json({**record, "sha256": digest(to_json(record, "").encode())}, "") + "\n"


def _to_csv(table: pd.DataFrame) -> str:
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def open_run(root: str | Path, profile: str, experiment: str, name: str, parameters: Mapping[str, Any]) -> Run:
    """Make the folder of a run; an existing record in it stays until `Run.clear` or `Run.save`.

    Raises:
        ValueError: if profile, experiment or name is empty, hidden or would leave `root`.
    """
    for part in (profile, experiment, name):
        if not part or part.startswith(".") or "/" in part or "\\" in part:
            raise ValueError(f"profile, experiment and run name become folders; {part!r} cannot")
    folder = Path(root) / profile / experiment / name
    folder.mkdir(parents=True, exist_ok=True)
    return Run(folder, dict(parameters))


# -------------------------------------------------------------------------------------------------------- reading
def read_record(folder: str | Path) -> dict[str, Any]:
    """Read the record of one run and check that it, its place and its files are those that were written.

    A file is read once in a process to check it, and again only if its size or time has changed.

    Raises:
        FileNotFoundError: if the folder holds no record: the run is not finished.
        RecordError: if the record is damaged, edited, of another schema, in another folder than the run's, or if one of
            its files (tables, weights, arrays) is missing or changed.
    """
    path = Path(folder) / "record.json"
    remedy = f"delete {path.parent} and run it again"
    try:
        text = path.read_text(encoding="utf-8")
        record = json.loads(text, parse_constant=_refuse)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: the run is not finished; run it again") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} is damaged ({error}): {remedy}") from None
    version = record.get("schema_version") if isinstance(record, dict) else None
    if version != SCHEMA:
        raise RecordError(f"{path} has schema version {version}, this version of mmlib reads {SCHEMA}: {remedy}")
    lacking = [name for name in (*FACTS, *PLACE, *OTHERS) if name not in record]
    if lacking:
        raise RecordError(f"{path} lacks {lacking}: {remedy}")
    own_sum = record.pop("sha256")
    # as it was written, but for the line of the sum; one that was laid out anew is written again, which takes longer
    without = text.removesuffix("\n").replace(f'\n "sha256": "{own_sum}",', "", 1)
    if digest(without.encode()) != own_sum != digest(to_json(record, "").encode()):
        raise RecordError(f"{path} was changed after it was written: {remedy}")
    there = path.resolve().parts[-4:-1]
    written = tuple(record[name] for name in PLACE)
    if there != written:
        raise RecordError(f"{path} is the record of {'/'.join(written)} in another folder: move it back or delete it")
    for name, expected in record["files"].items():
        file = path.parent / name
        if not file.is_file() or _size_and_sum(file) != expected:
            raise RecordError(f"{file} is not the file its record was written with (missing or changed): {remedy}")
    return record


def _size_and_sum(path: Path) -> dict[str, Any]:
    state = path.stat()
    return {"bytes": state.st_size, "sha256": _sum(path.resolve(), state.st_size, state.st_mtime_ns)}


@cache
def _sum(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def read_scores(folder: str | Path) -> pd.DataFrame:
    """The scores of one complete run: method, variant, seed, case, available, target, metric, value."""
    text = dict.fromkeys(("method", "variant", "case", "available", "target", "metric"), str)
    return pd.read_csv(Path(folder) / "scores.csv", dtype=text, keep_default_na=False, na_values={"value": [""]})


def read_history(folder: str | Path) -> pd.DataFrame:
    """The training history of one complete run, one row per step; empty for a method that does not train."""
    try:
        return pd.read_csv(Path(folder) / "history.csv")
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def leave_out(folder: str | Path, *patterns: str) -> list[str]:
    """Drop files of a finished run that are not to be kept, such as the weights of one seed of many.

    The record is rewritten: under `left_out` it says which files there were, with size and SHA-256.

    Args:
        folder: of the run.
        patterns: shell patterns of paths below it, such as `*.safetensors`.

    Returns:
        The names of the files that were dropped.
    """
    folder = Path(folder)
    record = read_record(folder)
    names = [name for name in record["files"] if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if names:
        record["left_out"] = record.get("left_out", {}) | {name: record["files"].pop(name) for name in names}
        _write(folder / "record.json", signed(record))
        for name in names:
            (folder / name).unlink()
    return names


def kept_file(folder: str | Path, name: str) -> Path:
    """The path of a run's file.

    Raises:
        FileNotFoundError: if it is not there; the run is not finished, or the file was left out of what is kept.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: the run is not finished, or keeps no such file; run it again")
    return path


@dataclass(frozen=True)
class Finished:
    """What one run left: its record, its history (one row per step) and its scores (tidy)."""

    record: dict[str, Any]
    history: pd.DataFrame
    scores: pd.DataFrame


def read_run(folder: str | Path) -> Finished:
    """Read one complete run.

    Raises:
        FileNotFoundError, RecordError: as `read_record`.
    """
    return Finished(read_record(folder), read_history(folder), read_scores(folder))
