"""Latents of cases: computed once by networks that no longer change, then trained on as if they were the cases.

Cases are anything with a length, `available`, `subset(indices)` and `cases[indices] -> {"inputs": {modality: tensor},
"available", "labels", "case"}`, with `patches` where a modality is a bag; `Latents` are such cases again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from mmlib.networks.encoders import BagEncoder


@dataclass(frozen=True)
class Latents:
    """Latents of n cases.

    Attributes:
        inputs: modality -> (n, F).
        available: (n, M) bool, columns in the order of `inputs`; the latent of what is not there is zero.
        labels: (n, T), a column a task.
        case: names.
    """

    inputs: dict[str, Tensor]
    available: Tensor
    labels: Tensor
    case: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.case)

    def __getitem__(self, indices) -> dict[str, Any]:
        rows = torch.arange(len(self))[indices]
        inputs = {name: values[rows] for name, values in self.inputs.items()}
        case = [self.case[row] for row in rows.tolist()]
        return {"inputs": inputs, "available": self.available[rows], "labels": self.labels[rows], "case": case}

    def subset(self, indices) -> Latents:
        """Some of the cases, by indices, slice or mask."""
        part = self[indices]
        return Latents(part["inputs"], part["available"], part["labels"], tuple(part["case"]))


@torch.no_grad()
def encode(encoders: Mapping[str, nn.Module], cases, chunk: int = 64) -> Latents:
    """Latents of all cases, in evaluation mode and float32; what is not available is never read.

    Args:
        encoders: modality -> network, in the order of the columns of `available`.
        cases: see the header.
        chunk: cases at a time.

    Returns:
        On the CPU.

    Raises:
        ValueError: if no case has a modality.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in encoders}
    batches = []
    for rows in torch.arange(len(cases)).split(chunk):
        batch = cases[rows]
        for place, (name, network) in enumerate(encoders.items()):
            there = batch["available"][:, place]  # B
            if there.any():
                device = next((weights.device for weights in network.parameters()), torch.device("cpu"))
                part = latents_of(network.eval(), send_to_device(batch, device), name, there.to(device))
                found[name].append(part.cpu())  # b F, the rows that have it
        batches.append((batch["available"], labels_of(batch), batch["case"]))
    available, labels = (torch.cat(column) for column in list(zip(*batches, strict=True))[:2])  # n M, n T
    inputs = {}
    for place, (name, parts) in enumerate(found.items()):
        if not parts:
            raise ValueError(f"none of {len(cases)} cases has {name}: leave its encoder out")
        known = torch.cat(parts)  # rows that have it, by F
        inputs[name] = known.new_zeros(len(cases), *known.shape[1:])  # n F
        inputs[name][available[:, place]] = known
    return Latents(inputs, available, labels, tuple(case for *_, names in batches for case in names))


def other_partners(latents: Latents, name: str, seed: int, classes: Tensor | None = None) -> Latents:
    """A control: every case gets the latent of one modality from another case, each latent once.

    Args:
        latents: of cases that all have the modality.
        name: of the modality whose latents move.
        seed: of the order.
        classes: (n,); latents move within a class then, so that what they say about the class stays. A class of one
            case keeps its own.
    """
    groups = torch.zeros(len(latents)) if classes is None else classes
    moved = latents.inputs[name].clone()
    generator = torch.Generator().manual_seed(seed)
    for group in groups.unique():
        rows = (groups == group).nonzero().flatten()
        order = rows[torch.randperm(len(rows), generator=generator)]
        moved[order] = latents.inputs[name][order.roll(1)]
    return replace(latents, inputs={**latents.inputs, name: moved})


def latents_of(network: nn.Module, batch: dict, name: str, rows: Tensor | slice = slice(None)) -> Tensor:
    """The latents (B, F) of one modality of a batch, or of some of its rows; the network follows the batch's device."""
    given = batch["inputs"][name][rows]
    more = [batch["patches"][rows]] if isinstance(network, BagEncoder) else []
    return network.to(given.device)(given, *more)


def labels_of(batch: dict) -> Tensor:
    """(B, T); a single task may come as `label` (B,)."""
    return batch["labels"] if "labels" in batch else batch["label"][:, None]
