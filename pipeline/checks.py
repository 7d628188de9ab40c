"""What a run is asked for, checked before anything that takes long: a wrong name would train the default in silence."""

from __future__ import annotations

import difflib
import math
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from mmlib.methods import MODULES
from pipeline.sources import parameters_of

CHOICES: dict[str, Sequence[str]] = {
    "availability": ("uniform-subsets", "uniform-size", "bernoulli", "fixed"),
    "optimizer": ("adam", "adamw", "sgd"),
    "precision": ("auto", "bfloat16", "float32"),
    "device": ("auto", "cpu", "cuda"),
}
OTHERWISE = {"crop": list, "widths": str}  # the other kind of value that a parameter may have


def check_parameters(cell: Mapping[str, Any], notebook: str) -> None:
    """Refuse a parameter that the notebook does not have, and a value that it cannot use.

    Args:
        cell: the notebook's `globals()` before anything but its parameters was assigned.
        notebook: its name, without ending.

    Raises:
        ValueError: names the parameter, what was given and what is possible.
    """
    known = parameters_of(notebook)
    plain = (str, int, float, list, tuple, dict, type(None))
    given = {key: value for key, value in cell.items() if isinstance(value, plain) and not key.startswith("_")}
    for name in given.keys() - known.keys() - {"In", "Out"}:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
        raise ValueError(f"{notebook} has no parameter {name!r} (given: {given[name]!r}): {hint}")
    for name, default in known.items():
        _check_value(name, cell[name], default)
    choices = dict(CHOICES)
    if (task := notebook.removeprefix("train_")) in MODULES:
        choices["method"] = tuple(MODULES[task])
    for name, possible in choices.items():
        if name in known and cell[name] not in possible:
            raise ValueError(f"{name} is {cell[name]!r}; choose one of {', '.join(possible)}")
    if cell.get("device") == "cuda" and not shutil.which("nvidia-smi"):
        raise ValueError("device is 'cuda', and this machine shows no NVIDIA GPU (no nvidia-smi): choose auto or cpu")


def _check_value(name: str, value: Any, default: Any) -> None:
    kind = type(default)
    kinds = {int: "a whole number of at least 0", float: "a number of at least 0", bool: "True or False"}
    fits = isinstance(value, (float, int) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
    if fits and kind in (int, float):
        fits = math.isfinite(value) and value >= 0
    if not fits and not isinstance(value, OTHERWISE.get(name, ())):
        wanted = kinds.get(kind, f"a {'text' if kind is str else 'list'}")
        raise ValueError(f"{name} must be {wanted}, such as {default!r}; got {value!r}")
