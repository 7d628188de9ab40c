"""Weights that the papers' authors released, converted to what the networks of this package load.

What a file says is never run. `read` takes files of tensors alone (torch's `weights_only`). A whole pickled model takes
a step of its own, `read(path, pickled=True)`: torch's restricted unpickler again, to which every class of the file is
an empty shell that keeps the state it is given; a file that calls anything is refused.

`convert` then needs to know which tensor is which. The layouts were taken from written descriptions of the released
code, and no released file was at hand: that a real file fits is UNVERIFIED.

- ProtoKD, SMIL and the networks for RadPath of Deep Multimodal Guidance: by the order in which the layers are defined,
  which is that of the tensors in the file. Kinds, shapes and the bounds of layers are checked on the way.
- ShaSpec: its encoders have equal shapes, so their order proves nothing, and the description has no names. The caller
  gives them (`names`); the order of modalities, channel blocks and outputs is known and done here.

Released code described: billhhh/ShaSpec at 081fe7a, SakurajimaMaiii/ProtoKD, mengmenm/SMIL at 0d0e827,
mayurmallya/DeepGuide (part radpath).
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from mmlib.methods.guidance import CombinedDecoder, GuidanceNet, unimodal_decoder
from mmlib.methods.shaspec.segmentation import FILL_ORDER, ShaSpecSegmenter
from mmlib.methods.smil import SMIL
from mmlib.modalities import MRI
from mmlib.networks.encoders import encoder
from mmlib.networks.lenet import AUDIO_FEATURES
from mmlib.tasks.distillation import CombinationVNet

METHODS = ("shaspec", "protokd", "smil", "guidance-rad", "guidance-g", "guidance-dc")
SHASPEC_OUTPUTS = (1, 2, 0)  # wt, tc, et among the released et, wt, tc
PROTOKD_ORDER = ("t1", "t2", "t1ce", "flair")
RADPATH = {"class": 3}  # task -> classes
SHOWN = 5  # names in a message
DEEPEST = 100  # module in a module


# ------------------------------------------------------------------------------------------------------------- reading
class _Shell:
    """Stands for an object of a class of the file, which is neither imported nor run."""

    __slots__ = ("state",)

    def __init__(self, *arguments: object, **named: object):
        raise pickle.UnpicklingError(f"it calls {type(self).__qualname__}")

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Number(_Shell):
    """Stands for what numpy makes; scores beside the weights are often of this kind, and none is kept."""

    __slots__ = ()

    def __init__(self, *arguments: object, **named: object):
        self.state = None


def _shell(name: str) -> tuple[type, str]:
    kind = _Number if name.startswith("numpy.") else _Shell
    return type(name, (kind,), {"__slots__": ()}), name


def _parts(shell: object) -> list[dict] | None:
    """Parameters, buffers and submodules of a pickled module; None if the shell is that of something else."""
    state = getattr(shell, "state", None)
    if not isinstance(state, dict):
        return None
    parts = [state.get(name) for name in ("_parameters", "_buffers", "_modules")]
    passing = state.get("_non_persistent_buffers_set") or ()
    kept = [
        {name: one for name, one in part.items() if name not in passing} for part in parts if isinstance(part, dict)
    ]
    return kept if len(kept) == len(parts) else None


def _module(shell: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Named tensors of a pickled module, in the order of its `state_dict`."""
    parts = _parts(shell)
    if parts is None or depth > DEEPEST:
        raise ValueError(f"{prefix}: {type(shell).__qualname__} is no module of torch, or one inside itself")
    parameters, buffers, modules = parts
    for name, one in (parameters | buffers).items():
        if isinstance(one, Tensor):
            yield prefix + name, one.detach()
    for name, one in modules.items():
        if one is not None:
            yield from _module(one, f"{prefix}{name}.", depth + 1)


def _weights(found: object) -> dict[str, Tensor] | None:
    """The state dict in an object of a file; None where it is something else."""
    if _parts(found) is not None:
        found = dict(_module(found))
    if not isinstance(found, Mapping) or not found:
        return None
    if not all(isinstance(key, str) and isinstance(one, Tensor) for key, one in found.items()):
        return None
    if all(key.startswith("module.") for key in found):  # of torch's DataParallel
        return {key.removeprefix("module."): one for key, one in found.items()}
    return dict(found)


def _opened(path: Path, pickled: bool) -> object:
    if path.suffix == ".npy":
        try:
            return {path.stem: torch.from_numpy(np.load(path, allow_pickle=False))}
        except (ValueError, TypeError, EOFError) as error:
            raise ValueError(f"{path} cannot be read as one array of numbers: {error}") from None
    try:
        classes = sorted(get_unsafe_globals_in_checkpoint(path))
    except (ValueError, RuntimeError):  # not a zip file of torch: older, or something else
        classes = []
    with safe_globals([_shell(name) for name in classes] if pickled else []):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged or hostile file leads to
            if classes and not pickled:
                raise ValueError(
                    f"{path} holds pickled objects beside tensors ({_some(classes)}), and opening these can run any "
                    "program. If it is a whole pickled model, read it with pickled=True (--pickled), which runs nothing"
                ) from None
            if classes:
                reason = str(error).rpartition("WeightsUnpickler error: ")[2].partition("\n")[0]
                raise ValueError(
                    f"{path} is a pickle of an unsafe kind, refused before anything of it ran ({reason}); it names "
                    f"{_some(classes)}. Take a state_dict from its authors"
                ) from None
            raise ValueError(
                f"{path} cannot be read as a checkpoint of torch ({type(error).__name__}): it is damaged, of another "
                "program, a TorchScript archive, or a whole model in the format before torch 1.6; expected a "
                "state_dict written by torch.save"
            ) from None


def read(path: Path | str, *, entries: Sequence[str] = (), pickled: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a released file, without running anything of it.

    Args:
        path: a state dict of `torch.save`, or a dict that has one beside optimiser and scores; `.npy`: one array.
        entries: which of several state dicts of the file, in this order; not needed where there is one.
        pickled: also open whole pickled modules, of which parameters and buffers are collected.

    Returns:
        Name -> tensor on the CPU, in the order of the file; with several entries `<entry>.` comes before each name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, holds pickled objects (and `pickled` is off), calls anything, or has no
            state dict, or several of which none was chosen, or none of the name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    found = _opened(path, pickled)
    whole = _weights(found)
    if whole is not None and not entries:
        return whole
    held = found if isinstance(found, Mapping) and whole is None else {}
    parts = {str(name): part for name, one in held.items() if (part := _weights(one)) is not None}
    chosen = list(entries) or list(parts)
    unknown = [name for name in chosen if name not in parts]
    if unknown or not chosen:
        wanted = f" {unknown[0]!r}; it has {_some(list(parts)) or 'none'}" if unknown else ": no tensors by name"
        raise ValueError(f"{path} has no state dict{wanted}")
    if not entries and len(parts) > 1:
        raise ValueError(f"{path} has several state dicts ({_some(list(parts))}): choose with entries (--entry)")
    if len(chosen) == 1:
        return parts[chosen[0]]
    return {f"{name}.{key}": one for name in chosen for key, one in parts[name].items()}


# ---------------------------------------------------------------------------------------------------------- converting
def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _split(name: str) -> tuple[str, str]:
    module, _, leaf = name.rpartition(".")
    return module, leaf


def _network(method: str, tensors: Sequence[Tensor]) -> nn.Module:
    """The network that the weights are for, without memory for its own."""
    with torch.device("meta"):
        if method == "shaspec":
            return ShaSpecSegmenter(MRI, topology="released")
        if method == "protokd":
            channels = tensors[0].shape[1] if tensors and tensors[0].ndim == 5 else 0
            if channels not in (1, len(MRI)):
                first = tuple(tensors[0].shape) if tensors else "nothing"
                raise ValueError(
                    f"the first tensor is {first}; expected (16, 1, 3, 3, 3) of a student or (16, 4, 3, 3, 3)"
                )
            return CombinationVNet(MRI, MRI[:channels], 16)
        if method == "smil":
            centres = tensors[-1].shape if tensors else ()
            if len(centres) != 2 or AUDIO_FEATURES not in centres:
                raise ValueError(
                    f"the last tensor is {tuple(centres)}; expected the centres of SMIL, (K, {AUDIO_FEATURES}): give "
                    "the files of the main net, the auxiliary net and the centres, in this order"
                )
            return SMIL("released", centres[1] if centres[0] == AUDIO_FEATURES else centres[0])
        if method == "guidance-rad":
            return nn.ModuleList([encoder("volume", "paper")[0], unimodal_decoder(1024, RADPATH)])
        if method == "guidance-g":
            return GuidanceNet(1024, 512, (512, 256, 256))
        if method == "guidance-dc":
            return CombinedDecoder(1024, 512, RADPATH["class"], "released_radpath")
    raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")


def _by_order(official: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, str]:
    """Expected name -> name in the file, if both have the same layers in the same order."""
    before = ("", "")
    for key, name in zip(official, expected, strict=False):
        (module, kind), (layer, leaf) = _split(key), _split(name)
        found, wanted = tuple(official[key].shape), tuple(expected[name].shape)
        together = (module == before[0]) == (layer == before[1])
        if found != wanted or (name != "centres" and (kind != leaf or not together)):
            raise ValueError(
                f"unexpected {key} {found} in the file; expected {name} {wanted} there: it is another network, or its "
                "layers come in another order; then give their names (--names)"
            )
        before = (module, layer)
    names, keys = list(expected), list(official)
    if len(keys) > len(names):
        raise ValueError(f"unknown tensors {_some(keys[len(names) :])}; expected the last to be {names[-1]}")
    if len(keys) < len(names):
        raise ValueError(f"the file ends after {len(keys)} tensors; expected {_some(names[len(keys) :])} as well")
    return dict(zip(names, keys, strict=True))


def _by_name(official: Mapping[str, Tensor], expected: Mapping[str, Tensor], names: Mapping[str, str]) -> dict:
    """Expected name -> name in the file, by rules of renaming."""
    source: dict[str, str] = {}
    for key, tensor in official.items():
        renamed = key
        for pattern, replacement in names.items():
            try:
                renamed = re.sub(pattern, replacement, renamed)
            except re.error as error:
                raise ValueError(f"the rule {pattern!r}: {replacement!r} is no regular expression ({error})") from None
        if renamed not in expected:
            alike = [name for name, one in expected.items() if one.shape == tensor.shape]
            raise ValueError(
                f"unknown key {key} {tuple(tensor.shape)}, {renamed} after the rules of names; expected one of "
                f"{_some(alike) or 'no name, for no tensor has this shape'}"
            )
        if renamed in source:
            raise ValueError(f"{source[renamed]} and {key} both become {renamed}: correct the rules of names")
        source[renamed] = key
        if tensor.shape != expected[renamed].shape:
            raise ValueError(
                f"{key} has the shape {tuple(tensor.shape)}; expected {tuple(expected[renamed].shape)} for {renamed}"
            )
    if missing := [name for name in expected if name not in source]:
        raise ValueError(f"no key of the file becomes {_some(missing)}: it is another network, or a rule is missing")
    return source


def read_names(path: Path | str) -> dict[str, str]:
    """Read rules of renaming for `convert`: a YAML mapping of regular expressions to replacements, in order.

    Raises:
        ValueError: if the file is anything else.
    """
    try:
        rules = yaml.safe_load(Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from None
    if not isinstance(rules, dict) or not all(isinstance(one, str) for pair in rules.items() for one in pair):
        raise ValueError(f"{path} must map regular expressions to replacements, all of them text in quotes")
    return rules


def _blocks(weights: Tensor, dimension: int, order: Sequence[int]) -> Tensor:
    """Equal blocks of a dimension in another order."""
    apart = weights.unflatten(dimension, (len(order), -1))  # ... M*c ... -> ... M c ...
    return apart.index_select(dimension, torch.tensor(order)).flatten(dimension, dimension + 1)  # ... M*c ...


def _shaspec(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From the released order of modalities and outputs to that of this package."""
    order = [FILL_ORDER.index(name) for name in MRI]  # where each modality stands in the released code
    made = {}
    for name, one in weights.items():
        if name.startswith("specific."):
            _, place, rest = name.split(".", 2)
            made[name] = weights[f"specific.{order[int(place)]}.{rest}"]
        elif name == "decoder.ups.0.weight":
            made[name] = _blocks(one, 0, order)  # M*256 256 2 2 2
        elif re.fullmatch(r"decoder\.skips\.\d\.0\.weight", name):
            made[name] = _blocks(one, 1, order)  # C M*c 1 1 1
        elif name.startswith("domain_head."):
            made[name] = one[order]  # M 256 and M
        else:
            made[name] = one[list(SHASPEC_OUTPUTS)] if name == "decoder.out.weight" else one
    return made


def _protokd(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The input channels of a teacher, in the order of this package."""
    first = next(name for name, one in weights.items() if one.ndim == 5)
    if weights[first].shape[1] == 1:
        return dict(weights)
    return {**weights, first: weights[first][:, [PROTOKD_ORDER.index(name) for name in MRI]]}  # 16 M 3 3 3


def convert(method: str, official: Mapping[str, Tensor], names: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Turn released weights into those of this package's network.

    Args:
        method: `shaspec`: `ShaSpecSegmenter(MRI, topology="released")`; `protokd`: a `CombinationVNet` of width 16, of
            one modality or all; `smil`: `SMIL("released")`, from the main net, the auxiliary net and the centres;
            `guidance-rad`: E_I and D_I of RadPath in an `nn.ModuleList`, `guidance-g`: `GuidanceNet(1024, 512)`,
            `guidance-dc`: `CombinedDecoder(1024, 512, 3, "released_radpath")`.
        official: name -> tensor, in the order of the file, see `read`.
        names: regular expression -> replacement, applied one after another to every released name; the result is a name
            of this package, in which modalities keep the released order (`specific.0` is the first of the released
            code). Needed for `shaspec`; without it layers are matched in the order of the file.

    Returns:
        Name -> tensor for `load_state_dict`, of the precision of a fresh network.

    Raises:
        ValueError: on an unknown method, key or rule; if a tensor is missing, has another shape, or holds NaN or
            infinity; the message names it and what was expected.
    """
    network = _network(method, list(official.values()))
    expected = dict(network.state_dict())
    if method == "smil":
        expected["centres"] = expected.pop("centres")  # the last file
        last = list(official)[-1]
        if official[last].shape[1] == AUDIO_FEATURES:
            official = {**official, last: official[last].T}  # K 320 -> 320 K
    if names is None and method == "shaspec":
        raise ValueError(
            f"which of the {len(official)} tensors ({_some(list(official))}) is which? The five encoders of ShaSpec "
            f"have equal shapes: give names (--names) that turn these into {_some(list(expected))}"
        )
    source = _by_order(official, expected) if names is None else _by_name(official, expected, names)
    weights = {name: official[source[name]] for name in expected}
    for name, one in weights.items():
        if not one.isfinite().all():
            raise ValueError(f"{source[name]} holds NaN or infinity: its training failed, or the file is damaged")
    weights = {"shaspec": _shaspec, "protokd": _protokd}.get(method, dict)(weights)
    return {name: one.to(expected[name].dtype).clone().contiguous() for name, one in weights.items()}


def write(weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        ValueError: if the file exists, or its folder does not.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path} exists: choose another name, or remove it")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is no folder: make it, or choose another")
    temporary = path.with_name(path.name + ".part")
    try:
        save_file(dict(weights), temporary, metadata={"format": "pt"})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
