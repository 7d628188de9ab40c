"""A device that is not the CPU, on a machine without one: tensors with real values that say they are elsewhere.

Every operation is computed on the CPU, after a check of what a GPU would refuse: tensors of the device and of the CPU
in one operation. As there, a number (a tensor without axes) of the CPU may join, CPU indices may select from the
device, and `to` and `copy_` carry over. The device is called `meta`, the one name that torch takes without hardware.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

ELSEWHERE = torch.device("meta")
aten = torch.ops.aten
CARRIES = {aten._to_copy, aten.to, aten.copy_}
SELECTS = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index}


class Placed(Tensor):
    """A tensor of the other device; its values lie in `held`."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> Placed:
        made = Tensor._make_wrapper_subclass(
            cls, real.size(), strides=real.stride(), dtype=real.dtype, device=ELSEWHERE, requires_grad=False
        )
        made.held = real
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    def new_tensor(self, *values: Any, **options: Any) -> Placed:  # type: ignore[override]
        return Placed(self.held.new_tensor(*values, **options))

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Placed({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _run(function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    flat, kind = tree_flatten((args, kwargs)), function._overloadpacket
    tensors = [one for one in flat[0] if isinstance(one, Tensor)]
    placed = [one for one in tensors if isinstance(one, Placed)]
    asked = [one for one in flat[0] if isinstance(one, torch.device)]
    if placed and kind not in CARRIES:
        rest = [one for one in tensors if not isinstance(one, Placed) and one.ndim]
        if kind in SELECTS and isinstance(args[0], Placed):
            rest = [one for one in rest if not any(one is index for index in args[1])]
        if rest:
            shapes = ", ".join(str(tuple(one.shape)) for one in rest)
            raise RuntimeError(f"{function}: tensors of the CPU, {shapes}, beside those of another device")
    there = asked[0].type == ELSEWHERE.type if asked else bool(placed)
    if kind is aten.copy_ or (kind is aten.to and not asked):
        there = isinstance(args[0], Placed) if kind is aten.copy_ else isinstance(tensors[-1], Placed)
    args, kwargs = tree_map(_here, (args, kwargs))
    made = function(*args, **kwargs)
    return tree_map(lambda one: Placed(one) if there and isinstance(one, Tensor) else one, made)


def _here(one: Any) -> Any:
    if isinstance(one, torch.device):
        return torch.device("cpu")
    return one.held if isinstance(one, Placed) else one


class Elsewhere(TorchDispatchMode):
    """Within it, `.to(ELSEWHERE)` and `device=ELSEWHERE` make tensors of the other device, with values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})
