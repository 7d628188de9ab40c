"""What the methods of audiovision-MNIST share: the budget of a run, what training returns, and scoring.

A method's file has `train(method, variant, pairs, *, seed, budget, folder) -> Trained`. What it trains with is what
`pairs` holds: audio that is withheld is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from mmlib.data.avmnist import MODALITIES, Pairs
from mmlib.data.batches import Minibatches
from mmlib.modalities import label
from mmlib.training import fit

Classify = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Budget:
    """How long and how a classifier is trained; the same for every method of a comparison.

    Attributes:
        epochs: passes over the training pairs (the papers: 60).
        meta_steps: steps of SMIL's bilevel stage (its code: 8,000; its paper: 15,000).
        batch_size: pairs per step.
        lr: learning rate at the start.
        weight_decay: L2 term in Adam's gradient.
        decay: the learning rate is multiplied by this after each third of the steps.
        precision, device, identity: as in `mmlib.training.fit`.
    """

    epochs: int = 60
    meta_steps: int = 8000
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-2
    decay: float = 0.9
    precision: str = "auto"
    device: str = "auto"
    identity: str = ""


@dataclass(frozen=True)
class Trained:
    """What training a classifier returns.

    Attributes:
        model: in evaluation mode, on the CPU.
        classify: `{"image": (B, 1, 28, 28), "audio": (B, 1, 20, 20)}`, or one of the two, -> logits (B, 10).
        history: one row per step: stage, step, loss, ...
        exposure: stage -> case -> modalities of that case which the stage was shown.
        recordings: stage -> names of the recordings that the stage was shown.
    """

    model: nn.Module
    classify: Classify
    history: pd.DataFrame
    exposure: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    recordings: dict[str, list[str]] = field(default_factory=dict)


class Stages:
    """The training stages of one classifier: several `fit` in a row, with what each was shown written down.

    Args:
        folder: for checkpoints. seed: of every stage. budget: see `Budget`.
    """

    def __init__(self, folder: Path | str, seed: int, budget: Budget):
        self.folder, self.seed, self.budget = Path(folder), seed, budget
        self.histories: list[pd.DataFrame] = []
        self.exposure: dict[str, dict[str, list[str]]] = {}
        self.recordings: dict[str, list[str]] = {}

    def note(self, stage: str, *shown: Pairs) -> None:
        """Write down that a stage is shown these pairs, with what is available of each."""
        cases = self.exposure.setdefault(stage, {})
        names = set(self.recordings.get(stage, ()))
        for pairs in shown:
            for case, row in zip(pairs.case, pairs.available.tolist(), strict=True):
                cases[case] = [name for name, has in zip(MODALITIES, row, strict=True) if has]
            names |= {recording for recording in pairs.recording if recording}
        self.recordings[stage] = sorted(names)

    def fit(self, stage: str, model: nn.Module, pairs: Pairs, loss: Callable, **departures: Any) -> None:
        """Train one stage on pairs for the epochs of the budget; the model is changed in place.

        Args:
            departures: keywords of `mmlib.training.fit` that differ from the budget; `epochs` and `batch_size` too.
        """
        budget = self.budget
        size = departures.pop("batch_size", budget.batch_size)
        batches = Minibatches(pairs, size, self.seed)
        steps = departures.pop("epochs", budget.epochs) * batches.per_epoch
        self.note(stage, pairs)
        self.fit_batches(stage, model, batches, loss, steps=steps, **departures)

    def fit_batches(self, stage: str, model: nn.Module, batches, loss: Callable, *, steps: int, **departures) -> None:
        """As `fit`, on any batches; say with `note` what they show."""
        budget = self.budget
        settings: dict[str, Any] = {
            "lr": budget.lr,
            "optimizer": "adam",
            "schedule": (budget.decay, max(1, -(-steps // 3))),
            "warmup": 0.0,
            "weight_decay": budget.weight_decay,
            "max_norm": None,
            "checkpoint_every": 1000,
            "precision": budget.precision,
            "device": budget.device,
            "identity": budget.identity,
        }
        history = fit(
            model, batches, loss, steps=steps, seed=self.seed, folder=self.folder, name=stage, **settings | departures
        )
        self.histories.append(history.assign(stage=stage))

    def trained(self, model: nn.Module, classify: Classify) -> Trained:
        """Put the results together."""
        return Trained(model.cpu().eval(), classify, pd.concat(self.histories), self.exposure, self.recordings)


def hold_out(pairs: Pairs, per_class: int) -> tuple[Pairs, Pairs]:
    """Keep back the last pairs of every class that have an image alone, to choose a setting by.

    Returns:
        Pairs to train on, and pairs to choose by.

    Raises:
        ValueError: if a class has no more such pairs than are to be kept back.
    """
    kept = []
    for digit in pairs.labels.unique():
        rows = (pairs.labels.eq(digit) & pairs.available[:, 0] & ~pairs.available[:, 1]).nonzero().flatten()  # n
        if len(rows) <= per_class:
            raise ValueError(
                f"digit {digit} has {len(rows)} training pairs without audio: too few to keep back {per_class}"
            )
        kept.append(rows[-per_class:])
    chosen = torch.zeros(len(pairs), dtype=torch.bool).index_fill(0, torch.cat(kept), True)  # N, as `pairs`
    return pairs.subset(~chosen), pairs.subset(chosen)


@torch.inference_mode()
def evaluate_classifier(
    classify: Classify, pairs: Pairs, combinations: Sequence[Sequence[str]] = (("image",),), target: str = "test"
) -> pd.DataFrame:
    """Score a classifier on every pair that has the asked-for modalities: 1 where the digit is right, else 0.

    Args:
        classify: see `Trained`; it is handed the modalities of the combination and nothing else.
        pairs: of a test set.
        combinations: of modalities.
        target: names the test set in the table.

    Returns:
        Tidy: case, available, target, metric ("correct"), value.

    Raises:
        ValueError: if no pair has the modalities of a combination.
    """
    tables = []
    for names in combinations:
        columns = [MODALITIES.index(name) for name in names]
        rows = pairs.available[:, columns].all(dim=1).nonzero().flatten()  # n
        if len(rows) == 0:
            raise ValueError(f"no pair of {target!r} has {label(names, MODALITIES)}: it cannot be scored so")
        chosen = pairs[rows]
        predicted = torch.cat(  # n digits
            [
                classify({name: values[part] for name, values in chosen["inputs"].items() if name in names}).argmax(1)
                for part in torch.arange(len(rows)).split(512)
            ]
        )
        correct = (predicted == chosen["label"]).double().tolist()
        tables.append(
            pd.DataFrame(
                {
                    "case": chosen["case"],
                    "available": label(names, MODALITIES),
                    "target": target,
                    "metric": "correct",
                    "value": correct,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)
