"""The methods, one file or package each; which module holds a method, and the way to a trained network."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_HERE = "mmlib.methods"
MODULES = {  # task -> method -> the module that holds it
    "segmentation": {
        "shaspec": f"{_HERE}.shaspec",
        "u-hved": f"{_HERE}.uhved",
        **dict.fromkeys(("zero-fill", "dropout-unet", "u-hemis", "dedicated"), f"{_HERE}.baselines"),
        "rfnet": f"{_HERE}.rfnet",
        "mmformer": f"{_HERE}.mmformer",
        "m3ae": f"{_HERE}.m3ae",
        "simmlm": f"{_HERE}.simmlm",
    },
    "classification": {
        "shaspec": f"{_HERE}.shaspec.classification",
        "smil": f"{_HERE}.smil",
        **dict.fromkeys(
            ("lower", "upper", "audio", "dropout", "autoencoder", "gan", "full2miss"), f"{_HERE}.imputation"
        ),
    },
    "distillation": {
        **dict.fromkeys(("teacher", "unimodal"), "mmlib.tasks.distillation"),
        "protokd": f"{_HERE}.protokd",
        "kd-net": f"{_HERE}.kdnet",
        "pmkl": f"{_HERE}.pmkl",
    },
    "synthesis": {
        "m2dn": f"{_HERE}.m2dn",
        **dict.fromkeys(("regression", "mm-gan"), f"{_HERE}.translation"),
        "floors": "mmlib.tasks.synthesis",
    },
    "guidance": {"guidance": f"{_HERE}.guidance"},
}


def module_of(task: str, method: str) -> str:
    """Name of the module that holds a method.

    Raises:
        ValueError: if the task has no such method; names those that it has.
    """
    if method not in MODULES[task]:
        raise ValueError(f"{task} has no method {method!r}; choose one of {', '.join(MODULES[task])}")
    return MODULES[task][method]


def load(folder: Path | str, *, variant: str | None = None, seed: int | None = None, name: str = "fit") -> nn.Module:
    """Build the network of a finished run and load its weights; in evaluation mode, on the CPU.

    Args:
        folder: of the run; `record.json` says which method built the network, and with which arguments.
        variant, seed: of a run that holds several networks, one in each folder `<variant>-s<seed>`.
        name: of the training stage; `<name>.safetensors` holds the weights.

    Raises:
        FileNotFoundError: if the folder holds no record or no weights: the run is not finished, or they were left out.
        ValueError: if the weights are those of another network.
    """
    from safetensors.torch import load_file

    from mmlib import records

    record = records.read_record(folder)
    asked = record["parameters"]
    place = Path(folder) / (f"{variant}-s{seed}" if variant is not None else "")
    path = records.kept_file(place, f"{name}.safetensors")
    recipe = importlib.import_module(module_of(record["task"], asked["method"])).recipe
    known = {"regions": len(record["targets"])} if "targets" in record else {}
    network = recipe(
        asked["method"], variant or asked["variant"], record["modalities"], asked["widths"], **known
    ).network
    if "crop" in asked:
        network.window = asked["crop"]  # see `mmlib.tasks.segmentation.probabilities`
    try:
        network.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ValueError(f"{path} holds another network than its record says ({error}): run it again") from None
    return network.eval()
