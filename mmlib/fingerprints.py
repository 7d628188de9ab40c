"""Fingerprints: hashes of what a result depends on, so that a run is reused exactly while nothing of it changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

NOT_INPUTS = ("force", "results")  # parameters that cannot change a result
_SAMPLE = 1 << 16  # bytes read from each end of a large file


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


def data_fingerprint(root: str | Path, files: Iterable[str | Path] | None = None) -> str:
    """Hash a data set: relative names, sizes and contents (of files above 128 KiB, the first and last 64 KiB).

    Args:
        root: a folder, read with its sub-folders and without hidden files; or one file.
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
        found = [path for path in root.rglob("*") if path.is_file()]
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
