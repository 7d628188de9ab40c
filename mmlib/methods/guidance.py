"""Deep Multimodal Guidance: an expensive modality at training time teaches the features of a cheap one.

Paper: Mayur Mallya, Ghassan Hamarneh, "Deep Multimodal Guidance for Medical Image Classification", MICCAI 2022, arXiv
2203.05683. Implemented: its four stages (Fig. 1) and its classifiers. Released code consulted through a written
description: mayurmallya/DeepGuide, parts derm7pt and radpath; nothing of it is copied.

I is the inferior modality, the only one at test time; S the superior one. Encoders E_I, E_S give latents z_I, z_S, and
decoders D classify them: (a) train D_I(E_I(x_I)) and D_S(E_S(x_S)) apart; (b) regress the guidance G: z_I -> z_S on
pairs; (c) with E_I and D_S frozen fine-tune G, so that D_S(G(E_I(x_I))) classifies: "G(I)"; (d) with E_I and G frozen
train D_C on [z_I, G(z_I)]: "G(I)+I". Every stage is one function below. Encoders do not change after (a), so latents
can be computed once (`mmlib.tasks.latents.encode`); the other stages run on them, with `nn.Identity()` for an encoder.

What differs
- Stage (c) is in the paper's figure and has no code. Ours starts from the G of (b); dropout of G stays on.
- Released D_C: `released_derm` has five outputs in every task and no hidden layer, for the one of 100 is defined and
  bypassed; `released_radpath` has ReLU and dropout on the logits, and [G(z_I), z_I] in this order. `clean` has neither.
- Released stage (a) for skin lesions is one pretrained network of two streams; here two networks. Ours have one linear
  head a task; balanced class weights, where the radiology code balances twice, by sampler and by weights.
- AdamW with a cosine in place of SGD with Nesterov momentum, in fixed numbers of steps; the last weights count, as in
  the released G. The released D_C keeps its best validation loss.
- I+S, which is a jointly trained network in the released code, is here D_C on [z_I, z_S]: the ceiling of G(I)+I.
- Whether D_C used the G of (b) or of (c) is UNVERIFIED; both can be had, (c) by default.
- CLAM's clustering of instances is left out; `mmlib.networks.encoders` says which encoders stand for the paper's.
- Training all at once (`train_jointly`) is ours; it answers whether four stages are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmlib.data.batches import Minibatches
from mmlib.tasks.latents import labels_of, latents_of
from mmlib.training import fit

HEADS = ("clean", "released_derm", "released_radpath")
DERM_OUTPUTS = 5  # of the released head, in every task


# -------------------------------------------------------------------------------------------------------- the networks
class GuidanceNet(nn.Module):
    """G: from inferior to superior latents; a bottleneck with ReLU after every layer and dropout after the hidden ones.

    The released ones are (2048, 2048, (1024, 512, 512, 1024)), 5,510,144 parameters, and (1024, 512, (512, 256, 256)),
    853,504.

    Args:
        in_features, out_features: lengths of z_I and z_S.
        hidden: widths between.
        dropout: its rate.
        nonnegative: ReLU at the output too; right where z_S is never negative.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (512, 256, 256),
        dropout: float = 0.25,
        nonnegative: bool = True,
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        layers: list[nn.Module] = []
        for before, after in zip((in_features, *hidden), hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        layers += [nn.Linear(hidden[-1] if hidden else in_features, out_features)]
        self.layers = nn.Sequential(*layers, *([nn.ReLU()] if nonnegative else []))

    def forward(self, inferior: Tensor) -> Tensor:
        """(B, in_features) -> (B, out_features).

        Raises:
            ValueError: if the latents have another length.
        """
        return self.layers(_sized(inferior, self.in_features, "G takes inferior latents"))


class CombinedDecoder(nn.Module):
    """D_C: logits from [z_I, G(z_I)], or from any two latents of these lengths.

    Args:
        inferior_features, superior_features: lengths of the two latents.
        num_classes: K.
        head: `clean`, or what was released: `released_derm` (one linear layer with five outputs whatever K is) or
            `released_radpath` (superior part first, ReLU and dropout on the logits).

    Raises:
        ValueError: on an unknown head, or more classes than `released_derm` has outputs.
    """

    def __init__(self, inferior_features: int, superior_features: int, num_classes: int, head: str = "clean"):
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"unknown head {head!r}; choose one of {HEADS}")
        if head == "released_derm" and num_classes > DERM_OUTPUTS:
            raise ValueError(f"released_derm has {DERM_OUTPUTS} outputs; {num_classes} classes need the head clean")
        self.head, self.features = head, (inferior_features, superior_features)
        width = inferior_features + superior_features
        hidden: dict[str, list[nn.Module]] = {
            "clean": [nn.Dropout(0.25), nn.Linear(width, 100), nn.ReLU(), nn.Dropout(0.25)],
            "released_derm": [nn.Dropout(0.25), nn.Linear(width, DERM_OUTPUTS)],
            "released_radpath": [nn.Linear(width, 50), nn.ReLU(), nn.Dropout(0.3)],
        }
        last: dict[str, list[nn.Module]] = {"clean": [nn.Linear(100, num_classes)], "released_derm": []}
        last["released_radpath"] = [nn.Linear(50, num_classes), nn.ReLU(), nn.Dropout(0.3)]
        self.layers = nn.Sequential(*hidden[head], *last[head])

    def forward(self, inferior: Tensor, superior: Tensor) -> Tensor:
        """(B, inferior_features) and (B, superior_features), whichever the order inside -> logits (B, K).

        Raises:
            ValueError: if the latents have other lengths.
        """
        first = _sized(inferior, self.features[0], "D_C takes inferior latents")
        second = _sized(superior, self.features[1], "D_C takes superior latents")
        # B inferior_features+superior_features -> B K
        return self.layers(torch.cat([second, first] if self.head == "released_radpath" else [first, second], dim=1))


class Tasks(nn.ModuleDict):
    """One head a task, each with its task's number of classes; called with what every head takes."""

    def forward(self, *latents: Tensor) -> dict[str, Tensor]:
        """Latents (B, F) -> task -> logits (B, K of the task)."""
        return {task: head(*latents) for task, head in self.items()}


def unimodal_decoder(features: int, classes: Mapping[str, int]) -> Tasks:
    """D_I or D_S: one linear layer a task."""
    return Tasks({task: nn.Linear(features, count) for task, count in classes.items()})


def combined_decoder(inferior: int, superior: int, classes: Mapping[str, int], head: str = "clean") -> Tasks:
    """D_C: one `CombinedDecoder` a task."""
    return Tasks({task: CombinedDecoder(inferior, superior, count, head) for task, count in classes.items()})


class Tiled(nn.Module):
    """z_I again in the place of G(z_I), repeated or cut to its length: a D_C of equal size without any guidance."""

    def __init__(self, out_features: int):
        super().__init__()
        self.out_features = out_features

    def forward(self, inferior: Tensor) -> Tensor:
        """(B, F) -> (B, out_features)."""
        return inferior[:, torch.arange(self.out_features, device=inferior.device) % inferior.shape[1]]


def _sized(latents: Tensor, expected: int, who: str) -> Tensor:
    if latents.shape[-1] != expected:
        raise ValueError(f"{who} of {expected} features; got {latents.shape[-1]}: build it for the encoder's latents")
    return latents


# ---------------------------------------------------------------------------------------------------------- the losses
def class_weights(labels: Tensor, classes: Mapping[str, int]) -> list[Tensor]:
    """Balanced weights n / (K n_c) of the classes of every task.

    Args:
        labels: of the training cases, (n, T) or (n,).
        classes: task -> K.

    Raises:
        ValueError: if a class has no case.
    """
    weights = []
    # labels: n T -> T n
    for column, (task, count) in zip(labels.reshape(len(labels), -1).T, classes.items(), strict=True):
        cases = torch.bincount(column, minlength=count)  # K, n_c
        if (cases == 0).any():
            missing = int((cases == 0).nonzero()[0])
            raise ValueError(f"task {task}: no training case of class {missing}: it cannot be learned, split anew")
        weights.append(len(column) / (count * cases.double()))  # K
    return weights


def task_loss(logits: Mapping[str, Tensor], labels: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Cross-entropy with class weights, the weighted mean over cases, summed over tasks.

    Args:
        logits: task -> (B, K); outputs beyond a task's classes count as classes that no case has.
        labels: (B, T), columns in the order of the tasks.
        weights: of every task's classes.
    """
    losses = []
    for column, (values, weight) in enumerate(zip(logits.values(), weights, strict=True)):
        padded = F.pad(weight.to(values), (0, values.shape[1] - len(weight)))  # outputs, K or more
        losses.append(F.cross_entropy(values, labels[:, column], padded))
    return torch.stack(losses).sum()  # T -> scalar


# ---------------------------------------------------------------------------------------------------------- the stages
class Flips(Dataset):
    """Batches in which every case is flipped along its last two axes with probability 1/2 each, by seed and step."""

    def __init__(self, batches: Dataset, name: str, seed: int):
        self.batches, self.name, self.seed = batches, name, seed

    def __getitem__(self, step: int) -> dict:
        batch = self.batches[step]
        images = batch["inputs"][self.name]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        for axis in (-1, -2):
            drawn = torch.rand(len(images), generator=generator) < 0.5  # B
            images = torch.where(drawn.view(-1, *[1] * (images.ndim - 1)), images.flip(axis), images)  # mask: B 1 ... 1
        return {**batch, "inputs": {**batch["inputs"], self.name: images}}


def _having(cases, place: int | slice):
    """The cases in which the modality of this place, or every modality of the slice, is available."""
    rows = cases.available[:, place].reshape(len(cases), -1).all(dim=1)  # n 1 or n M -> n
    return cases if rows.all() else cases.subset(rows)


def _frozen(*networks: nn.Module) -> None:
    for network in networks:
        network.eval().requires_grad_(False)


def train_unimodal(
    name: str, encoder: nn.Module, decoder: nn.Module, cases, weights, *, batch_size: int, seed: int,
    flips: bool = True, **settings,
) -> pd.DataFrame:  # fmt: skip
    """Stage (a): an encoder and its decoder on one modality; of the cases that have it.

    Args:
        name: of the modality; its place in `cases.available` is that in `inputs`.
        cases: as in `encode`, with `available` and `subset`.
        weights: of classes, see `class_weights`.
        batch_size: cases per step.
        flips: whether inputs are flipped, see `Flips`; False for tables.
        settings: of `mmlib.training.fit`, as in every stage: steps, lr, folder and others.

    Returns:
        The history of `fit`; the networks are changed in place, in every stage.

    Raises:
        ValueError: if no case has the modality.
    """

    def loss(model: nn.Module, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        return task_loss(decoder(latents_of(encoder, batch, name)), labels_of(batch), weights), {}

    shown = _having(cases, list(cases[:1]["inputs"]).index(name))
    batches: Dataset = Minibatches(shown, batch_size, seed)
    batches = Flips(batches, name, seed) if flips else batches
    return fit(nn.ModuleList([encoder, decoder]), batches, loss, seed=seed, name=f"a-{name}", **settings)


def regress(
    guidance: nn.Module, encoders: Mapping[str, nn.Module], cases, *, batch_size: int, seed: int, **settings
) -> pd.DataFrame:
    """Stage (b): G: z_I -> z_S by the mean squared error, on the cases that have both; encoders are frozen.

    Args:
        encoders: of the inferior, then of the superior modality; `nn.Identity()` where `cases` hold latents.
    """
    inferior, superior = encoders
    _frozen(*encoders.values())

    def loss(model: nn.Module, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            z_i, z_s = (latents_of(encoders[name], batch, name) for name in (inferior, superior))
        found = model(z_i)  # G(z_I)
        return F.mse_loss(found, _sized(z_s, found.shape[1], "G gives superior latents").to(found)), {}

    return fit(
        guidance, Minibatches(_having(cases, slice(None)), batch_size, seed), loss, seed=seed, name="b", **settings
    )


def fine_tune(
    guidance: nn.Module, encoders: Mapping[str, nn.Module], decoder: nn.Module, cases, weights, *, batch_size: int,
    seed: int, **settings,
) -> pd.DataFrame:  # fmt: skip
    """Stage (c): G on the task, through E_I and D_S that are frozen; all cases count that have the inferior modality.

    Args:
        encoders: of the inferior, then of the superior modality; the second is not used.
        decoder: D_S.
    """
    inferior = next(iter(encoders))
    _frozen(encoders[inferior], decoder)

    def loss(model: nn.Module, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            z_i = latents_of(encoders[inferior], batch, inferior)
        return task_loss(decoder.to(z_i.device)(model(z_i)), labels_of(batch), weights), {}  # D_S(G(z_I))

    shown = _having(cases, list(cases[:1]["inputs"]).index(inferior))
    return fit(guidance, Minibatches(shown, batch_size, seed), loss, seed=seed, name="c", **settings)


def combine(
    decoder: nn.Module, encoders: Mapping[str, nn.Module], guidance: nn.Module | None, cases, weights, *,
    batch_size: int, seed: int, name: str = "d", **settings,
) -> pd.DataFrame:  # fmt: skip
    """Stage (d): D_C on [z_I, G(z_I)], with E_I and G frozen; of the cases that have the inferior modality.

    Args:
        decoder: D_C.
        encoders: of the inferior, then of the superior modality.
        guidance: G; `Tiled` for a head of equal size without guidance; None for I+S, a head on [z_I, z_S] of the cases
            that have both.
        name: of the stage.
    """
    inferior, superior = encoders
    _frozen(*encoders.values(), *([] if guidance is None else [guidance]))

    def loss(model: nn.Module, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            z_i = latents_of(encoders[inferior], batch, inferior)
            second = guidance.to(z_i.device)(z_i) if guidance else latents_of(encoders[superior], batch, superior)
        return task_loss(model(z_i, second), labels_of(batch), weights), {}  # D_C([z_I, G(z_I)]), or z_S second

    shown = _having(cases, slice(None) if guidance is None else list(cases[:1]["inputs"]).index(inferior))
    return fit(decoder, Minibatches(shown, batch_size, seed), loss, seed=seed, name=name, **settings)


def train_jointly(
    networks: Mapping[str, nn.Module], cases, weights, *, batch_size: int, seed: int, **settings
) -> pd.DataFrame:
    """All in one stage: the sum of the five losses of (a) to (d), z_S being a fixed target of G.

    Args:
        networks: E_I, D_I, E_S, D_S, G and D_C by these names.
        cases: those that have both modalities are used.
    """
    inferior, superior = cases[:1]["inputs"]
    net = nn.ModuleDict(networks)

    def loss(model: nn.Module, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        z_i, z_s = latents_of(net["E_I"], batch, inferior), latents_of(net["E_S"], batch, superior)
        guided, labels = net["G"](z_i), labels_of(batch)
        parts = {
            "inferior": task_loss(net["D_I"](z_i), labels, weights),
            "superior": task_loss(net["D_S"](z_s), labels, weights),
            "match": F.mse_loss(guided, z_s.detach().to(guided)),
            "guided": task_loss(net["D_S"](guided), labels, weights),
            "combined": task_loss(net["D_C"](z_i, guided), labels, weights),
        }
        return torch.stack(list(parts.values())).sum(), {key: part.detach() for key, part in parts.items()}

    batches = Minibatches(_having(cases, slice(None)), batch_size, seed)
    both = Flips(Flips(batches, inferior, seed), superior, seed + 1)
    return fit(net, both, loss, seed=seed, name="joint", **settings)
