"""Tensors that golden values are computed from: sine waves along the flat index, exact in every implementation."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def waves(shape: Sequence[int], a: float, b: float, c: float) -> Tensor:
    """b * sin(a * i + c) at flat (C-order) index i, as float64 of the given shape."""
    index = torch.arange(math.prod(shape), dtype=torch.float64)
    return (b * torch.sin(a * index + c)).reshape(*shape)
