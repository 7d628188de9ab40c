"""Every method follows the device of its input: a training step and a prediction of each, where the CPU is elsewhere.

Everywhere on the device of `elsewhere`; with `-m gpu` on the NVIDIA GPU of this machine.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.utils import send_to_device
from elsewhere import ELSEWHERE, Elsewhere, Placed
from torch import Tensor, nn

from mmlib.data.avmnist import Pairs
from mmlib.data.cases import Case
from mmlib.methods import MODULES, guidance, m3ae, module_of, simmlm
from mmlib.methods.m2dn import diffusion
from mmlib.methods.shaspec import segmentation as shaspec
from mmlib.methods.translation import MMGAN
from mmlib.modalities import MRI
from mmlib.tasks import classification
from mmlib.tasks.distillation import CombinationVNet, distillation_loss
from mmlib.tasks.latents import Latents
from mmlib.tasks.segmentation import pooled_features, probabilities
from mmlib.training import fit

AVAILABLE = torch.tensor([[True, True, False, True], [False, True, True, False]])


PLACE = ELSEWHERE  # of the test that runs
GPU = pytest.param(
    torch.device("cuda"),
    id="cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")],
)


@pytest.fixture(autouse=True, params=[pytest.param(ELSEWHERE, id="elsewhere"), GPU])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The device of a test: within it `to(PLACE)` carries values over."""
    monkeypatch.setitem(globals(), "PLACE", request.param)
    if request.param != ELSEWHERE:
        yield request.param
        return
    autocast = torch.autocast  # it does not know the device, whose operations run on the CPU
    monkeypatch.setattr(torch, "autocast", lambda kind, *rest, **options: autocast("cpu", *rest, **options))
    tensor = torch.tensor  # made on the CPU and carried over, which a dispatched operation would show
    monkeypatch.setattr(torch, "tensor", lambda data, *, device="cpu", **kind: tensor(data, **kind).to(device))
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with Elsewhere():
        yield request.param
    torch.__future__.set_overwrite_module_params_on_conversion(before)


def is_there(one: Tensor) -> bool:
    return one.device.type == PLACE.type


def step(net: nn.Module, batch: Any, loss: Any) -> None:
    """One training step elsewhere: the loss and the gradient of every parameter that has one are there and finite."""
    net.to(PLACE)
    found, parts = loss(net, send_to_device(batch, PLACE))
    assert all(is_there(one) for one in (found, *parts.values()))
    found.backward()
    slopes = [weights.grad for weights in net.parameters() if weights.grad is not None]
    assert slopes and all(is_there(one) and bool(one.isfinite().all()) for one in slopes)


def fit_elsewhere(net: nn.Module, batches: Any, loss: Any, *, name: str = "fit", **_: Any) -> pd.DataFrame:
    """In place of `mmlib.training.fit`: one step, after which the network stays there, as on a GPU."""
    step(net, batches[0], loss)
    return pd.DataFrame({"step": [0], "loss": [0.0]})


def volumes() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    regions = torch.zeros(2, 3, 16, 16, 16, dtype=torch.bool)
    regions[:, :, 4:12, 4:12, 4:12] = True
    images = torch.randn(2, 4, 16, 16, 16, generator=generator)
    return {"images": images, "available": AVAILABLE, "regions": regions, "case": ["a", "b"]}


def slices() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 4, 32, 32, generator=generator) * 2 - 1
    return {
        "images": images,
        "available": AVAILABLE,
        "acquired": torch.ones(2, 4, dtype=torch.bool),
        "case": ["a", "b"],
    }


def pairs() -> Pairs:
    generator = torch.Generator().manual_seed(0)
    labels, everything = torch.arange(40) % 10, torch.ones(40, 2, dtype=torch.bool)
    images, audio = (torch.randn(40, 1, side, side, generator=generator) for side in (28, 20))
    names = tuple(map(str, range(40)))
    everything[20:, 1] = False
    return Pairs(images, audio, labels, torch.ones_like(everything), names, names).masked(everything)


# ------------------------------------------------------------------------------------------------------ the device
@pytest.mark.parametrize("place", [pytest.param(ELSEWHERE, id="elsewhere")], indirect=True)
def test_the_device_refuses_what_a_gpu_refuses(place: torch.device) -> None:
    here, there = torch.ones(2, 2), torch.ones(2, 2).to(ELSEWHERE)
    assert isinstance(there, Placed) and there.device == ELSEWHERE and float((there + 1).sum()) == 8
    for mix in (lambda: there + here, lambda: torch.cat([here, there]), lambda: here[torch.tensor([0]).to(ELSEWHERE)]):
        with pytest.raises(RuntimeError, match="tensors of the CPU"):
            mix()
    assert isinstance(there[torch.tensor([0])], Placed), "indices of the CPU may select from the device"
    assert isinstance(there * torch.tensor(2.0), Placed), "a number of the CPU may join"
    assert isinstance(torch.zeros(2, device=there.device) + there, Placed)
    assert type(there.cpu()) is Tensor and float(there.cpu().sum()) == 4


# ------------------------------------------------------------------------------------------------------ the methods
SHASPEC = (*(name for name in shaspec.VARIANTS if "alpha" not in name), "mse-0.1", "kl-0.1", "ce-0.1", "only-t1+flair")
SEGMENTATION = [
    *((method, "standard") for method in MODULES["segmentation"] if method != "shaspec"),
    *(("shaspec", variant) for variant in SHASPEC),
]


@pytest.mark.parametrize(("method", "variant"), SEGMENTATION)
def test_segmentation_follows_the_device(method: str, variant: str) -> None:
    variant = "t1+t2" if method == "dedicated" else variant
    recipe = importlib.import_module(module_of("segmentation", method)).recipe(method, variant, MRI, [8, 16])
    batch = volumes()
    if recipe.combination:
        batch["available"] = torch.tensor([[name in recipe.combination for name in MRI]] * 2)
    step(recipe.network, batch, recipe.loss)
    recipe.network.eval()
    found = probabilities(recipe.network, batch["images"][0], batch["available"], window=16)
    assert type(found) is Tensor and found.shape == (2, 3, 16, 16, 16)


def test_pairs_of_sets_and_earlier_stages_follow_the_device() -> None:
    fewer = AVAILABLE & torch.tensor([[True, False, False, True], [False, True, True, False]])
    batch = {**volumes(), "other": fewer, "fewer": fewer, "shown": torch.rand(2, 4, 16, 16, 16) > 0.8}
    for loss in (m3ae.painting_loss, m3ae.m3ae_loss):
        step(m3ae.M3AE(MRI, [8, 16]), batch, loss)
    for loss in (simmlm.apart_loss, simmlm.simmlm_loss):
        step(simmlm.SimMLM(MRI, [8, 16]), batch, loss)


def test_features_follow_the_device() -> None:
    model = shaspec.recipe("shaspec", "paper", MRI, [8, 16]).network.to(PLACE).eval()
    image = np.random.default_rng(0).uniform(1, 2, (16, 16, 16)).astype(np.float32)
    found = pooled_features(model, [Case("a", dict.fromkeys(MRI, image), np.eye(4))])
    assert found["shared"].shape[:2] == (1, 4) and np.isfinite(found["specific"]).all()


@pytest.mark.parametrize("variant", diffusion.VARIANTS)
def test_diffusion_follows_the_device(variant: str) -> None:
    recipe = diffusion.recipe("m2dn", variant, MRI, [8, 16] if "unet" in variant else [8, 8])
    step(recipe.network, recipe.batches([slices()], 0)[0], recipe.loss)
    batch = send_to_device(slices(), PLACE)
    for sampler in diffusion.SAMPLERS:
        made = diffusion.sample(
            recipe.network.eval(), batch["images"], batch["available"], 2, sampler, torch.Generator().manual_seed(0)
        )
        assert is_there(made) and bool(made.isfinite().all())


@pytest.mark.parametrize("method", ["regression", "mm-gan"])
def test_translation_follows_the_device(method: str) -> None:
    variants = importlib.import_module(module_of("synthesis", method))
    recipe = variants.recipe(method, "standard", MRI, [8, 16])
    step(recipe.network, recipe.batches([slices()], 0)[0], recipe.loss)
    translator = recipe.network.translator if isinstance(recipe.network, MMGAN) else recipe.network
    batch = send_to_device(slices(), PLACE)
    assert is_there(translator.eval()(batch["images"], batch["available"]))


TAUGHT = [
    ("teacher", "standard"), ("teacher", "shuffled"), ("unimodal", "standard"), ("protokd", "standard"),
    ("kd-net", "standard"), ("pmkl", "standard"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "variant"), TAUGHT)
def test_distillation_follows_the_device(method: str, variant: str) -> None:
    assert {name for name, _ in TAUGHT} == set(MODULES["distillation"])
    teaching = importlib.import_module(module_of("distillation", method)).teaching(method, variant)
    batch = {**volumes(), "available": torch.ones(2, 4, dtype=torch.bool)}
    teacher = CombinationVNet(MRI, MRI, 4)
    student = CombinationVNet(MRI, ("t1",), 4)
    step(student, batch, distillation_loss(teaching, teacher if teaching.term else None))


@pytest.mark.parametrize("method", MODULES["classification"])
def test_digits_follow_the_device(method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(classification, "fit", fit_elsewhere)
    module = importlib.import_module(module_of("classification", method))
    variants = {"smil": ("paper", "released"), "shaspec": ("paper", "padded")}
    shown = replace(pairs(), available=torch.ones(40, 2, dtype=torch.bool)) if method == "upper" else pairs()
    for variant in variants.get(method, ("standard",)):
        budget = classification.Budget(epochs=1, batch_size=16, precision="float32", device="cpu")
        trained = module.train(method, variant, shown, seed=0, budget=budget, folder=tmp_path)
        assert all(type(weights.data) is Tensor for weights in trained.model.parameters()), "it ends on the CPU"


def test_guidance_follows_the_device_in_all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guidance, "fit", fit_elsewhere)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(12)[:, None] % 3
    latents = {name: torch.randn(12, size, generator=generator) for name, size in (("I", 6), ("S", 5))}
    cases = Latents(latents, torch.ones(12, 2, dtype=torch.bool), labels, tuple(map(str, range(12))))
    classes = {"class": 3}
    weights = guidance.class_weights(labels, classes)
    encoders = {name: nn.Linear(size, size) for name, size in (("I", 6), ("S", 5))}
    heads = {name: guidance.unimodal_decoder(size, classes) for name, size in (("I", 6), ("S", 5))}
    asked = {"batch_size": 6, "seed": 0}
    for name in ("I", "S"):
        guidance.train_unimodal(name, encoders[name], heads[name], cases, weights, flips=False, **asked)
    net = guidance.GuidanceNet(6, 5, (8,))
    guidance.regress(net, encoders, cases, **asked)
    guidance.fine_tune(net, encoders, heads["S"], cases, weights, **asked)
    for second in (net, None):
        guidance.combine(guidance.combined_decoder(6, 5, classes), encoders, second, cases, weights, **asked)
    networks = {
        "E_I": nn.Linear(6, 6), "D_I": guidance.unimodal_decoder(6, classes), "E_S": nn.Linear(5, 5),
        "D_S": guidance.unimodal_decoder(5, classes), "G": guidance.GuidanceNet(6, 5, (8,)),
        "D_C": guidance.combined_decoder(6, 5, classes),
    }  # fmt: skip
    guidance.train_jointly(networks, cases, weights, **asked)


@pytest.mark.parametrize("place", [GPU], indirect=True)
def test_training_and_prediction_on_a_gpu_agree_with_the_cpu(tmp_path: Path, place: torch.device) -> None:
    losses, found = {}, {}
    for device in ("cpu", "auto"):
        torch.manual_seed(0)
        recipe = shaspec.recipe("shaspec", "paper", MRI, [8, 16])
        history = fit(
            recipe.network, [volumes()] * 3, recipe.loss, steps=3, lr=1e-3, seed=0, folder=tmp_path / device,
            device=device, precision="float32",
        )  # fmt: skip
        losses[device] = history["loss"].to_numpy()
        images = volumes()["images"][0]
        found[device] = probabilities(recipe.network.eval(), images, torch.ones(1, 4, dtype=torch.bool), window=16)
        assert next(recipe.network.parameters()).device.type == ("cpu" if device == "cpu" else "cuda")
    np.testing.assert_allclose(losses["auto"], losses["cpu"], rtol=1e-3)
    torch.testing.assert_close(found["auto"], found["cpu"], rtol=0, atol=1e-2)
