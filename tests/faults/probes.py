"""One bit of a finished run changed, or a file cut: reading must notice it, or give what was written."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from mmlib import records
from mmlib.training import _read_checkpoint

BAD = ("silent", "raw")
SETTINGS = {"steps": 2, "identity": "probe"}


def _model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Linear(40, 20)


def _write(folder: Path) -> Path:
    run = records.open_run(folder, "smoke", "probes", "fit-s0", {"method": "fit", "variant": "standard", "seed": 0})
    run.clear()
    save_file(_model().state_dict(), run.folder / "fit.safetensors")
    np.savez(run.folder / "features.npz", shared=np.arange(300.0))
    state = {"settings": SETTINGS, "rows": [{"step": 0, "loss": 1.0}], "model": _model().state_dict()}
    torch.save(state, run.folder / "fit.checkpoint.pt")
    rows = [(f"c{k}", "t1", "et", "dice", k / 100) for k in range(100)]
    facts = dict.fromkeys(records.FACTS, "-")
    run.save(pd.DataFrame({"loss": np.arange(100.0)}), pd.DataFrame(rows, columns=records.SCORE_COLUMNS), **facts)
    return run.folder


def _read(folder: Path) -> list[Any]:
    """Everything of a run, as the book reads it; a checkpoint that cannot be used is None."""
    run = records.read_run(folder)
    weights = load_file(records.kept_file(folder, "fit.safetensors"))
    state, why = _read_checkpoint(folder / "fit.checkpoint.pt", SETTINGS, _model())
    kept = None if why else [state["rows"], *(value.tolist() for value in state["model"].values())]
    return [
        run.record,
        run.history.to_csv(),
        run.scores.to_csv(),
        *(value.tolist() for value in weights.values()),
        kept,
    ]


def _bit(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    changed[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


CHANGES: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "one bit": _bit,
    "cut": lambda content, rng: content[: int(rng.integers(len(content)))],
    "longer": lambda content, rng: content + rng.bytes(7),
    "a digit edited": lambda content, rng: content.replace(b"1", b"2", 1),
}


def run(folder: Path, count: int, seed: int) -> Iterator[dict[str, str]]:
    """Damage a copy of a finished run `count` times.

    Yields:
        where (the file), change, outcome, what was said.
    """
    rng = np.random.default_rng(seed)
    sound = _write(folder / "sound")
    written = _read(sound)
    files = sorted(path.name for path in sound.iterdir())
    for number in range(count):
        trial = folder / "trial" / sound.relative_to(folder / "sound")
        shutil.rmtree(folder / "trial", ignore_errors=True)
        shutil.copytree(sound, trial)
        name, change = files[number % len(files)], list(CHANGES)[int(rng.integers(len(CHANGES)))]
        before = (trial / name).read_bytes()
        after = CHANGES[change](before, rng)
        (trial / name).write_bytes(after)
        said = ""
        try:
            with warnings.catch_warnings(), contextlib.suppress(FileNotFoundError):
                found = _read(trial)
            same = found[:-1] == written[:-1] and found[-1] in (written[-1], None)
            outcome = (
                "unchanged" if before == after else "set aside" if found[-1] is None else "same" if same else "silent"
            )
            outcome = outcome if same else "silent"
        except records.RecordError as error:
            outcome, said = "noticed", str(error)
        except Exception as error:
            outcome, said = "raw", f"{type(error).__name__}: {error}"
        yield {"where": name, "change": change, "outcome": outcome, "said": said.replace(str(trial), "...")[:300]}
