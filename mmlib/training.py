"""One training loop for every method: deterministic, resumable, and silent about what it trains.

A batch is a function of its step (`batches[step]`), and a checkpoint holds everything else that a step depends on. A
run that is killed at any point and started again therefore ends in the same weights, bit for bit on a CPU with the
same number of threads. `accelerate` chooses the device and, started by `accelerate launch`, spreads a run over GPUs.
"""

from __future__ import annotations

import math
import os
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from mmlib.records import write_whole

SCHEDULES = ("cosine", "poly", "constant")
OPTIMIZERS = {
    "adam": lambda weights, lr, decay: torch.optim.Adam(weights, lr, weight_decay=decay, fused=True),
    "adamw": lambda weights, lr, decay: torch.optim.AdamW(weights, lr, weight_decay=decay, fused=True),
    "sgd": lambda weights, lr, decay: torch.optim.SGD(weights, lr, momentum=0.99, nesterov=True),
}
Loss = Callable[[nn.Module, dict], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Plateau:
    """A stopping rule: train at the peak rate until a validation score stops rising, then let the rate fall to zero.

    Attributes:
        score: network in evaluation mode -> validation score, higher is better; draws no random numbers.
        every: steps between two scores.
        patience: share of the most steps (`steps` of `fit`) that may pass without a new best score.
        fall: the rate falls linearly to zero over this share of the steps taken until then.
    """

    score: Callable[[Any], float]
    every: int = 100
    patience: float = 0.2
    fall: float = 0.25

    def falls_from(self, scores: Mapping[int, float], taken: int, steps: int) -> int | None:
        """The number of steps after which the rate falls; None: not yet.

        Args:
            scores: number of steps -> validation score after them, in this order.
            taken: steps taken so far.
            steps: at most so many are taken, the fall included.
        """
        last = int(steps / (1 + self.fall))
        best, since = -math.inf, 0
        for step, score in scores.items():
            if step > last:
                break
            if score > best:
                best, since = score, step
            if step - since >= self.patience * steps:
                return step
        return last if taken >= last else None

    def end(self, start: int) -> int:
        """The number of steps after which the rate, which falls from `start` on, is zero."""
        return start + math.ceil(self.fall * start)


@dataclass(frozen=True)
class Recipe:
    """What a run of a method trains, made by the function `recipe` of the method's file.

    Attributes:
        network: in its initial state; seed torch's generator before.
        loss: as `fit` takes it.
        overrides: arguments of `fit` that differ from the run's own.
        combination: the modalities that the network is trained with, where these are always the same.
        batches: (batches, seed) -> what is trained on, where a method draws more than availability.
        before: (network, batches, **settings of `fit`) -> history of an earlier stage, where a method has one.
        dedicated: one network is trained for each pattern of missing modalities.
    """

    network: nn.Module
    loss: Callable[..., tuple[Tensor, dict[str, Tensor]]]
    overrides: dict[str, Any] = field(default_factory=dict)
    combination: tuple[str, ...] | None = None
    batches: Callable[[Any, int], Any] = lambda batches, _: batches
    before: Callable[..., pd.DataFrame] | None = None
    dedicated: bool = False


def learning_rate(step: int, steps: int, schedule: str | tuple[float, int] = "cosine", warmup: float = 0.0) -> float:
    """The factor on the learning rate at a step, in [0, 1].

    A linear rise over the first `warmup` share of the steps, then `cosine` to zero, `poly` (1 - progress)^0.9 as in the
    released ShaSpec code, `constant`, or a pair (factor, every): multiplied by the factor every so many steps. Progress
    counts from the first step, also where there is a rise.

    Raises:
        ValueError: on an unknown schedule.
    """
    rise = min(1.0, (step + 1) / (warmup * steps)) if warmup * steps >= 1 else 1.0
    if isinstance(schedule, tuple):
        factor, every = schedule
        return rise * factor ** (step // every)
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}; choose one of {SCHEDULES} or (factor, every)")
    progress = step / steps
    falls = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "poly": (1 - progress) ** 0.9, "constant": 1.0}
    return rise * falls[schedule]


def precision_here(precision: str = "auto") -> str:
    """Resolve `auto`: `bfloat16` where the processor multiplies matrices in it; else `float32`.

    On a CPU that is one with AMX, where a step was measured to be faster (the chapter on compute shows the ratio).

    Raises:
        ValueError: on anything but `auto`, `bfloat16` or `float32`.
    """
    if precision not in ("auto", "bfloat16", "float32"):
        raise ValueError(f"precision must be 'auto', 'bfloat16' or 'float32'; got {precision!r}")
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.cpu._is_amx_tile_supported() else "float32"


def fit(
    model: nn.Module,
    batches: Dataset,
    loss: Loss,
    *,
    steps: int,
    lr: float,
    seed: int,
    folder: Path | str,
    name: str = "fit",
    optimizer: str = "adamw",
    schedule: str | tuple[float, int] = "cosine",
    warmup: float = 0.1,
    weight_decay: float = 1e-4,
    max_norm: float | None = 5.0,
    average: float | None = None,
    checkpoint_every: int = 100,
    precision: str = "auto",
    device: str = "auto",
    workers: int = 0,
    plateau: Plateau | None = None,
    identity: str = "",
) -> pd.DataFrame:
    """Train for a number of optimiser steps, or by a stopping rule; the model is changed in place.

    Args:
        model: any module.
        batches: `batches[step]` is the batch of that step, a dict; the same whenever it is asked for.
        loss: (model, batch) -> (scalar to minimise, {name: part to log}).
        steps: optimiser steps; with a stopping rule the most that are taken.
        lr: peak learning rate.
        seed: of dropout and other draws inside the model.
        folder: where `<name>.checkpoint.pt` and, at the end, `<name>.safetensors` are written.
        name: of this stage.
        optimizer: `adamw`; `adam`, whose weight decay is an L2 term in the gradient; or `sgd` with Nesterov momentum
            0.99 and no weight decay (released ShaSpec code).
        schedule: see `learning_rate`.
        warmup: share of the steps over which the rate rises.
        weight_decay: of Adam and AdamW.
        max_norm: gradients are clipped to this norm; None: not at all.
        average: decay of a moving average of the weights, which ends in their place; None: the last weights are kept.
        checkpoint_every: steps between checkpoints.
        precision: `auto`, `bfloat16` or `float32`; weights stay float32.
        device: `auto` or `cpu`.
        workers: processes that prepare batches; 0 prepares them in this one.
        plateau: the stopping rule; it takes the place of the schedule.
        identity: of the work, such as the fingerprint of a run: data, batches and loss count, which the settings here
            do not tell apart. A checkpoint of other work, or a damaged one, is set aside with a warning.

    Returns:
        One row a step: step, loss, the loss's parts, lr, seconds; with a stopping rule also score, NaN at most steps.

    Raises:
        FloatingPointError: if the loss or its gradient is not finite; names the step, the cases and the last good
            checkpoint. The weights are then those of the step before.
        ValueError: on an unknown optimizer.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {optimizer!r}; choose one of {tuple(OPTIMIZERS)}")
    accelerator = Accelerator(cpu=device == "cpu")
    precision = precision_here(precision)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.checkpoint.pt"
    settings = {"steps": steps, "lr": lr, "seed": seed, "optimizer": optimizer, "schedule": schedule, "warmup": warmup}
    settings |= {"weight_decay": weight_decay, "max_norm": max_norm, "precision": precision, "identity": identity}
    if plateau is not None:
        settings |= {"plateau": (plateau.every, plateau.patience, plateau.fall)}
    settings |= {} if average is None else {"average": average}

    torch.manual_seed(seed)
    optimiser = OPTIMIZERS[optimizer](model.parameters(), lr, weight_decay)
    averaged = (
        None
        if average is None
        else AveragedModel(model, accelerator.device, multi_avg_fn=get_ema_multi_avg_fn(average))
    )
    rows: list[dict[str, float]] = []
    falls_from: int | None = None

    def rate(step: int) -> float:
        if plateau is None:
            return learning_rate(step, steps, schedule, warmup)
        rising = learning_rate(step, steps, "constant", warmup)
        return rising * (1 if falls_from is None else max(0.0, 1 - (step - falls_from) / (plateau.fall * falls_from)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    with accelerator.main_process_first():  # which sets aside what cannot be used
        if path.exists():
            rows = _resume(path, settings, model, optimiser, scheduler, averaged)
    if rows:
        falls_from = _falls_from(plateau, rows, steps)
    start = len(rows)
    model, optimiser = accelerator.prepare(model, optimiser)
    model.train()
    processes = accelerator.num_processes
    step_indices = range(start * processes + accelerator.process_index, steps * processes, processes)
    # else the loader draws from the generator that dropout goes on with after a checkpoint
    loader_generator = torch.Generator()
    loader = DataLoader(batches, batch_size=None, sampler=step_indices, num_workers=workers, generator=loader_generator)
    progress = tqdm(
        loader, total=steps, initial=start, desc=name, mininterval=10, disable=not accelerator.is_main_process
    )
    with _deterministic():
        for step, batch in enumerate(progress, start=start):
            if plateau is not None and falls_from is not None and step >= plateau.end(falls_from):
                break
            began = time.perf_counter()
            batch = send_to_device(batch, accelerator.device)
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                total, parts = loss(model, batch)
            _check_finite(total, "loss", step, batch, lr, path)
            optimiser.zero_grad()
            accelerator.backward(total)
            if max_norm is None:
                gradients = [weights.grad for weights in model.parameters() if weights.grad is not None]
                norm = torch.nn.utils.get_total_norm(gradients)
            else:
                norm = accelerator.clip_grad_norm_(model.parameters(), max_norm)
            _check_finite(norm, "norm of the gradient", step, batch, lr, path)  # before it reaches a weight
            optimiser.step()
            if averaged is not None:
                averaged.update_parameters(accelerator.unwrap_model(model))
            row: dict[str, float] = {"step": step, "loss": total.item(), "lr": float(scheduler.get_last_lr()[0])}
            row |= {key: float(part) for key, part in parts.items()}
            end = steps if plateau is None or falls_from is None else plateau.end(falls_from)
            if plateau is not None:
                due = (falls_from is None and (step + 1) % plateau.every == 0) or step + 1 == end
                row["score"] = _score(plateau, accelerator.unwrap_model(model)) if due else math.nan
            rows.append(row)
            falls_from = _falls_from(plateau, rows, steps) if falls_from is None else falls_from
            scheduler.step()
            row["seconds"] = time.perf_counter() - began
            if (step + 1) % checkpoint_every == 0 or step + 1 == end:
                state = {"settings": settings, "rows": rows, "rng": torch.get_rng_state()}
                state |= {"model": accelerator.unwrap_model(model).state_dict()}
                state |= {"optimizer": optimiser.state_dict(), "scheduler": scheduler.state_dict()}
                state |= {} if averaged is None else {"averaged": averaged.state_dict()}
                if accelerator.is_main_process:
                    write_whole(path, partial(torch.save, state))
    model = accelerator.unwrap_model(model).eval()
    if averaged is not None:
        model.load_state_dict(averaged.module.state_dict())
    if accelerator.is_main_process:
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        write_whole(folder / f"{name}.safetensors", partial(save_file, weights))
    return pd.DataFrame(rows)


def _score(plateau: Plateau, model: nn.Module) -> float:
    model.eval()
    with torch.inference_mode():
        value = float(plateau.score(model))
    model.train()
    return value


def _falls_from(plateau: Plateau | None, rows: Sequence[Mapping[str, float]], steps: int) -> int | None:
    if plateau is None:
        return None
    scored = {int(row["step"]) + 1: row["score"] for row in rows if not math.isnan(row["score"])}
    return plateau.falls_from(scored, len(rows), steps)


def _check_finite(value: Tensor, what: str, step: int, batch: dict, lr: float, path: Path) -> None:
    if not torch.isfinite(value):
        last = f"the last good checkpoint is {path}" if path.exists() else "no checkpoint was written yet"
        raise FloatingPointError(
            f"the {what} is {value.item()} at step {step}, cases {batch.get('case')}: look at these cases "
            f"(python -m mmlib doctor) or lower lr ({lr}); {last}"
        )


def _resume(
    path: Path, settings: dict, model: nn.Module, optimizer, scheduler, averaged: nn.Module | None
) -> list[dict[str, float]]:
    """Put back what a checkpoint holds, and return its rows; one that is damaged or of other work is set aside."""
    state, why = _read_checkpoint(path, settings, model)
    if why:
        aside = next(one for n in count(1) if not (one := path.with_name(f"{path.name}.aside-{n}")).exists())
        os.replace(path, aside)
        warnings.warn(f"{path} {why}: it is kept as {aside.name}, and training starts anew", stacklevel=3)
        return []
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    if averaged is not None:
        averaged.load_state_dict(state["averaged"])
    torch.set_rng_state(state["rng"])
    return state["rows"]


def _read_checkpoint(path: Path, settings: dict, model: nn.Module) -> tuple[dict[str, Any], str]:
    """A checkpoint's content, and why it cannot be used; empty where it can. The archive has a sum of each part."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            return {}, f"is damaged ({broken} has another check sum)"
        state = torch.load(path, map_location="cpu", weights_only=True)
        there, shapes = state["settings"], {key: value.shape for key, value in state["model"].items()}
    except Exception as error:  # whatever a wrong byte leads to
        return {}, f"is damaged ({error})"
    if there != settings:
        keys = [key for key in {**there, **settings} if there.get(key) != settings.get(key)]
        different = {key: (there.get(key), settings.get(key)) for key in keys}
        return {}, f"belongs to other work, (there, here) differ in {different}"
    if shapes != {key: value.shape for key, value in model.state_dict().items()}:
        return {}, "belongs to other work, its network has other weights"
    return state, ""


@contextmanager
def _deterministic() -> Iterator[None]:
    """Deterministic algorithms, without the filling of fresh memory that torch adds."""
    memory: Any = torch.utils.deterministic  # its switch is not in torch's type stubs
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled
