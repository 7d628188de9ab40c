"""The loop: same weights after any interruption, clear failures, schedules by hand."""

import os
import random
import resource
import signal
import subprocess
import warnings

import numpy as np
import pytest
import torch
from pipelines import python
from torch import nn
from torch.utils.data import Dataset

from mmlib.records import NoSpaceError
from mmlib.training import Plateau, fit, learning_rate, precision_here

# A small net with dropout and instance norm; killed once at a given step when a second argument is given.
PROGRAM = """
import os, signal, sys
from pathlib import Path
import torch
from torch import nn
from mmlib.data.batches import Crops, Samples
from mmlib.methods.shaspec import ShaSpecSegmenter, shaspec_loss
from mmlib.modalities import MRI
from mmlib.training import fit

class Made(Samples):
    def _prepare(self, name):
        generator = torch.Generator().manual_seed(int(name))
        return {
            "images": torch.randn(4, 16, 18, 16, generator=generator),
            "regions": torch.rand(3, 16, 18, 16, generator=generator) < 0.3,
            "available": torch.ones(4, dtype=torch.bool),
            "case": name,
        }

folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
model = ShaSpecSegmenter(MRI, (8, 16))
batches = Crops(Made(None, "12345", MRI), size=16, batch_size=2, availability="uniform-subsets", seed=3)

def loss(model, batch, calls=[0]):
    calls[0] += 1
    if calls[0] == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return shaspec_loss(model, batch)

history = fit(model, batches, loss, steps=12, lr=1e-3, seed=0, folder=folder, checkpoint_every=3, average=0.9)
print(len(history), history["loss"].sum())
"""


def program(folder, kill_at: int = 0) -> subprocess.CompletedProcess:
    (folder.parent / "trains.py").write_text(PROGRAM)
    return python(folder.parent, "trains", str(folder), str(kill_at))


def test_a_killed_run_ends_in_the_same_weights_bit_for_bit(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = program(whole)
    assert expected.returncode == 0, expected.stderr
    draw = random.Random(os.getpid())
    kills = [draw.randint(2, 8), draw.randint(1, 4)]  # steps since the last start
    for kill_at in kills:
        assert program(broken, kill_at).returncode == 128 + signal.SIGKILL
    finished = program(broken)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == expected.stdout, kills
    assert (broken / "fit.safetensors").read_bytes() == (whole / "fit.safetensors").read_bytes(), kills


class Points(Dataset):
    """Points on a line; `bad` is a step whose target is not finite."""

    def __init__(self, bad: int | None = None):
        self.bad = bad

    def __getitem__(self, step: int) -> dict:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 1, generator=generator)
        y = 2 * x + 1 if step != self.bad else x * float("nan")
        return {"x": x, "y": y, "case": [f"case-{step}"]}


def squared(model, batch):
    error = (model(batch["x"]) - batch["y"]).square().mean()
    return error, {"twice": 2 * error.detach()}


def test_a_line_is_learnt_and_every_step_is_logged(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    history = fit(model, Points(), squared, steps=300, lr=0.1, seed=0, folder=tmp_path, precision="float32")
    assert model.weight.item() == pytest.approx(2, abs=0.02) and model.bias.item() == pytest.approx(1, abs=0.02)
    assert list(history.columns) == ["step", "loss", "lr", "twice", "seconds"] and len(history) == 300
    assert history["twice"].to_numpy() == pytest.approx(2 * history["loss"].to_numpy())
    assert history["lr"].max() == pytest.approx(0.1, rel=0.03)
    assert not list(tmp_path.glob("*.part"))


def test_the_released_code_s_optimiser_by_hand(tmp_path):
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    settings = {"optimizer": "sgd", "schedule": "constant", "warmup": 0.0, "max_norm": 1e9, "precision": "float32"}
    fit(model, Points(), squared, steps=1, lr=0.1, seed=0, folder=tmp_path, **settings)
    batch = Points()[0]
    slope = -2 * (batch["x"] * batch["y"]).mean().item()
    assert model.weight.item() == pytest.approx(-0.1 * 1.99 * slope, rel=1e-5)  # Nesterov: gradient + 0.99 * gradient


def test_the_moving_average_of_the_weights_by_hand(tmp_path):
    weights, model = [], nn.Linear(1, 1)

    def noted(model, batch):
        weights.append(model.weight.item())  # before the step
        return squared(model, batch)

    settings = {"lr": 0.1, "seed": 0, "precision": "float32"}
    fit(model, Points(), noted, steps=4, folder=tmp_path, average=0.75, **settings)
    state = torch.load(tmp_path / "fit.checkpoint.pt", weights_only=True)
    first, second, third, last = [*weights[1:], state["model"]["weight"].item()]
    expected = 0.75 * (0.75 * (0.75 * first + 0.25 * second) + 0.25 * third) + 0.25 * last
    assert model.weight.item() == pytest.approx(expected, rel=1e-5) and model.weight.item() != last
    again = nn.Linear(1, 1)
    fit(again, Points(bad=0), squared, steps=4, folder=tmp_path, average=0.75, **settings)
    assert torch.equal(model.weight, again.weight)


def test_a_finished_run_is_not_trained_again(tmp_path):
    model = nn.Linear(1, 1)
    first = fit(model, Points(), squared, steps=5, lr=0.1, seed=0, folder=tmp_path)
    again = nn.Linear(1, 1)
    second = fit(again, Points(bad=0), squared, steps=5, lr=0.1, seed=0, folder=tmp_path)
    assert torch.equal(model.weight, again.weight) and first.equals(second)


def test_a_loss_that_is_not_finite_names_step_cases_and_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError, match=r"nan at step 7, cases \['case-7'\].*fit\.checkpoint\.pt") as caught:
        fit(nn.Linear(1, 1), Points(bad=7), squared, steps=10, lr=0.1, seed=0, folder=tmp_path, checkpoint_every=5)
    assert "doctor" in str(caught.value)
    with pytest.raises(FloatingPointError, match="no checkpoint was written yet"):
        fit(nn.Linear(1, 1), Points(bad=2), squared, steps=9, lr=0.1, seed=0, folder=tmp_path / "new")


@pytest.mark.parametrize("max_norm", [5.0, None])
@pytest.mark.parametrize("step", [3, 9])  # before a checkpoint; the last
def test_a_gradient_that_is_not_finite_reaches_no_weight(tmp_path, max_norm, step):
    def rooted(model, batch):
        error, parts = squared(model, batch)
        stuck = (model.weight * 0).abs().sum().sqrt() if batch["case"] == [f"case-{step}"] else 0  # 0, slope NaN
        return error + stuck, parts

    model = nn.Linear(1, 1)
    settings = {"steps": 10, "lr": 0.1, "seed": 0, "checkpoint_every": 2, "max_norm": max_norm, "precision": "float32"}
    expected = rf"norm of the gradient is nan at step {step}, cases \['case-{step}'\].*fit\.checkpoint\.pt"
    with pytest.raises(FloatingPointError, match=expected):
        fit(model, Points(), rooted, folder=tmp_path, **settings)
    kept = torch.load(tmp_path / "fit.checkpoint.pt", weights_only=True)["model"]
    assert all(values.isfinite().all() for values in [*kept.values(), *model.parameters()])
    assert not (tmp_path / "fit.safetensors").exists()


SHORT = {"steps": 5, "lr": 0.1, "seed": 0, "identity": "one"}


def weights_of(folder, outputs=1, **changed):
    torch.manual_seed(0)
    model = nn.Linear(1, outputs)
    fit(model, Points(), squared, **{**SHORT, "folder": folder, **changed})
    return model.state_dict()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"lr": 0.2}, r"belongs to other work, \(there, here\) differ in {'lr': \(0.1, 0.2\)}"),
        ({"identity": "two"}, r"belongs to other work, \(there, here\) differ in {'identity': \('one', 'two'\)}"),
        ({"outputs": 3}, "belongs to other work, its network has other weights"),
    ],
)
def test_a_checkpoint_of_other_work_is_set_aside_and_training_starts_anew(tmp_path, changed, why):
    weights_of(tmp_path / "used")
    old = (tmp_path / "used" / "fit.checkpoint.pt").read_bytes()
    with pytest.warns(UserWarning, match=f"{why}: it is kept as fit.checkpoint.pt.aside-1, and training starts anew"):
        found = weights_of(tmp_path / "used", **changed)
    assert (tmp_path / "used" / "fit.checkpoint.pt.aside-1").read_bytes() == old
    expected = weights_of(tmp_path / "fresh", **changed)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 25))
def test_a_wrong_byte_in_a_checkpoint_changes_no_weight(tmp_path, share):
    """Either the byte is read by nobody, or the file is set aside and training starts anew."""
    path = tmp_path / "used" / "fit.checkpoint.pt"
    expected = weights_of(tmp_path / "used")
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 0x10
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = weights_of(tmp_path / "used")
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def wide() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 4096), nn.Linear(4096, 1))


@pytest.mark.parametrize(("space", "file"), [(20_000, "fit.checkpoint.pt"), (40_000, "fit.safetensors")])
def test_a_full_disk_names_the_file_and_the_same_call_goes_on(tmp_path, space: int, file: str):
    asked = {"steps": 6, "lr": 1e-3, "seed": 0, "checkpoint_every": 2, "precision": "float32"}
    whole = fit(model := wide(), Points(), squared, **asked, folder=tmp_path / "whole")
    if file == "fit.safetensors":  # all steps are done, only the weights are to be written
        fit(wide(), Points(), squared, **asked, folder=tmp_path)
        (tmp_path / file).unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (space, limits[1]))  # bytes of a file, as if the disk were full then
    try:
        with pytest.raises(NoSpaceError, match=f"{file}: no space to write it.*the same command goes on"):
            fit(wide(), Points(), squared, **asked, folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    again = fit(other := wide(), Points(), squared, **asked, folder=tmp_path)
    assert torch.equal(other[1].weight, model[1].weight) and again["loss"].tolist() == whole["loss"].tolist()
    assert not list(tmp_path.glob(".*"))


def test_a_checkpoint_that_is_cut_short_is_set_aside(tmp_path):
    weights_of(tmp_path)
    path = tmp_path / "fit.checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.warns(UserWarning, match=r"is damaged \(.*\): it is kept as fit.checkpoint.pt.aside-1"):
        weights_of(tmp_path)


@pytest.mark.parametrize(
    ("step", "schedule", "warmup", "factor"),
    [
        (0, "cosine", 0.0, 1.0), (50, "cosine", 0.0, 0.5), (0, "constant", 0.0, 1.0), (99, "constant", 0.0, 1.0),
        (75, "poly", 0.0, 0.25**0.9), (0, "constant", 0.1, 0.1), (4, "constant", 0.1, 0.5), (10, "constant", 0.1, 1.0),
    ],
)  # fmt: skip
def test_learning_rates_by_hand(step, schedule, warmup, factor):
    assert learning_rate(step, 100, schedule, warmup) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("scores", "taken", "start"),
    [
        ({10: 0.5, 20: 0.6}, 20, None),  # still rising
        ({10: 0.6, 20: 0.6}, 20, None),  # 10 of 100 steps without a new best; 20 are allowed
        ({10: 0.6, 20: 0.5, 30: 0.6}, 30, 30),  # an equal score is no new best
        ({10: 0.6, 20: 0.5, 30: 0.7}, 30, None),
        ({10: 0.1, 70: 0.7, 80: 0.8, 90: 0.9}, 90, 80),  # 80 + 25 % of 80 = 100, the most
        ({}, 79, None),
        ({}, 80, 80),
    ],
)
def test_the_rate_falls_when_the_score_has_not_risen_for_a_fifth_of_the_steps(scores, taken, start):
    rule = Plateau(score=lambda model: 0.0, patience=0.2, fall=0.25)
    assert rule.falls_from(scores, taken, 100) == start
    assert rule.end(80) == 100 and rule.end(30) == 38


def weight(model: nn.Module) -> float:
    return -float(model.weight.detach().sub(2).abs())


def test_a_run_stops_by_its_validation_score_and_goes_on_after_an_interruption(tmp_path):
    def run(folder, loss=squared):
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        rule = Plateau(weight, every=5, patience=0.1, fall=0.5)
        history = fit(model, Points(), loss, steps=200, lr=0.1, seed=0, folder=folder, checkpoint_every=5, plateau=rule)
        return model, history

    whole, history = run(tmp_path / "whole")
    assert 30 < len(history) < 200, "less than the most"
    scored = history["score"].dropna()
    start = max(index for index in scored.index[:-1]) + 1
    assert len(history) == start + -(-start // 2) and scored.index[-1] == len(history) - 1
    rates = history["lr"]
    assert rates[start - 1] == pytest.approx(0.1)
    assert rates[start + 10] == pytest.approx(0.1 * (1 - 10 / (0.5 * start))) and rates.iloc[-1] < 0.005
    calls = [0]

    def broken(model, batch):
        calls[0] += 1
        if calls[0] == start + 3:  # while the rate falls
            raise KeyboardInterrupt
        return squared(model, batch)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", broken)
    again, resumed = run(tmp_path / "broken")
    assert len(resumed) == len(history) and torch.equal(again.weight, whole.weight)
    assert resumed["score"].equals(history["score"]), "nothing is scored differently"


def test_unknown_schedules_and_precisions_are_refused():
    with pytest.raises(ValueError, match="unknown schedule 'step'"):
        learning_rate(0, 10, "step")
    with pytest.raises(ValueError, match=r"unknown optimizer 'lion'; choose one of \('adam', 'adamw', 'sgd'\)"):
        fit(nn.Linear(1, 1), Points(), squared, steps=1, lr=0.1, seed=0, folder="unused", optimizer="lion")
    with pytest.raises(ValueError, match="precision must be"):
        precision_here("float16")
    assert precision_here("float32") == "float32"
