"""Synthesis in one pass: nothing unavailable is read, both sides of the game learn for themselves, sizes, training."""

import pandas as pd
import pytest
import torch
from torch import nn

from mmlib.data.batches import Minibatches
from mmlib.data.slices import Masked, Slices
from mmlib.methods import load
from mmlib.methods.translation import MMGAN, Translator, adversarial_loss, missing_loss, recipe, regression_loss
from mmlib.modalities import IXI, MRI, combinations, mask
from mmlib.records import FACTS, SCORE_COLUMNS, open_run
from mmlib.tasks.synthesis import MeanImage, evaluate_synthesis
from mmlib.training import fit


def make_batch(modalities: tuple[str, ...] = IXI, side: int = 16) -> dict:
    """One slice in each pattern that leaves something to synthesise."""
    generator = torch.Generator().manual_seed(0)
    available = torch.stack([mask(one, modalities) for one in combinations(modalities)[:-1]])
    images = torch.rand(len(available), len(modalities), side, side, generator=generator) * 2 - 1
    names = [f"case-{index}" for index in range(len(available))]
    return {"images": images, "available": available, "acquired": torch.ones_like(available), "case": names}


@pytest.mark.parametrize("method", ["regression", "regression unet", "mm-gan"])
@pytest.mark.parametrize("modalities", [IXI, MRI])
def test_what_is_not_available_is_never_read(method, modalities):
    torch.manual_seed(0)
    method, _, variant = method.partition(" ")
    model = recipe(method, variant or "standard", modalities, [8, 16]).network
    batch = make_batch(modalities)
    images, available = batch["images"], batch["available"]
    made = model.eval()(images, available)
    assert made.shape == images.shape and made.abs().max() <= 1
    for content in (torch.randn_like(images), torch.full_like(images, torch.nan)):
        other = model(torch.where(available[..., None, None], images, content), available)
        assert torch.equal(made, other)
    flipped = model(images, available.roll(1, dims=0))
    assert not torch.allclose(made, flipped)


def test_the_way_around_the_unet_carries_detail_of_single_pixels():
    torch.manual_seed(0)
    model = recipe("regression", "standard", IXI, [4, 8]).network.eval()
    model.net = nn.Sequential(nn.AvgPool2d(2), nn.LazyConv2d(4, 1), nn.Upsample(scale_factor=2))
    batch = make_batch(IXI)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2 - 1  # vanishes at half the resolution
    shown = [model(batch["images"] + 0.1 * sign * board, batch["available"]) for sign in (1, -1)]
    assert (shown[0] - shown[1]).abs().max() > 1e-3


def test_the_losses_by_hand():
    batch = make_batch()
    images = batch["images"]

    class Constant(nn.Module):
        """Says one value for every pixel; as a discriminator, for every patch."""

        def __init__(self, value: float):
            super().__init__()
            self.value = nn.Parameter(torch.tensor(value))

        def forward(self, images, available=None):
            maps = torch.ones_like(images) * self.value
            return maps if available is not None else [maps]

    total, parts = regression_loss(Constant(0.5), batch)
    error = (images - 0.5).square().mean(dim=(2, 3))
    assert total.item() == pytest.approx(float(error.mean()), rel=1e-5)
    assert float(parts["missing"]) == pytest.approx(float(error[~batch["available"]].mean()), rel=1e-5)

    only_missing, _ = missing_loss(Constant(0.5), batch)
    assert only_missing.item() == pytest.approx(float(parts["missing"]), rel=1e-5)

    game = MMGAN(IXI, (4, 8))
    game.translator, game.discriminator = Constant(0.5), Constant(0.25)
    total, parts = adversarial_loss(game, batch)
    # of six patterns nine modalities are available and nine missing
    expected = (0.75**2 + (0.75**2 + 0.25**2) / 2) / 2
    assert float(parts["discriminator"]) == pytest.approx(expected)
    assert float(parts["fooling"]) == pytest.approx(0.75**2)
    l1 = float((images - 0.5).abs().mean(dim=(2, 3))[~batch["available"]].mean())
    assert float(parts["l1"]) == pytest.approx(l1, rel=1e-5)
    assert total.item() == pytest.approx(expected + 0.1 * 0.75**2 + 0.9 * l1, rel=1e-5)


def test_what_was_never_acquired_has_no_target():
    torch.manual_seed(0)
    model, batch = Translator(IXI, (4, 8)), make_batch()
    batch["acquired"] = torch.tensor([[True, True, False]]).expand(6, 3)
    batch["available"] = torch.tensor([[True, False, False]]).expand(6, 3)
    losses = []
    for content in (0.0, 9.0):
        batch["images"][:, 2] = content
        losses.append(regression_loss(model, batch)[0].item())
    assert losses[0] == losses[1]
    with pytest.raises(ValueError, match="case case-0 lacks a modality: mm-gan is trained on complete cases"):
        adversarial_loss(MMGAN(IXI, (4, 8)), batch)


def test_the_two_sides_of_the_game_do_not_mix():
    """The sum's gradient is, for each side, that of its own loss."""
    torch.manual_seed(0)
    model, batch = MMGAN(IXI, (4, 8)), make_batch()
    adversarial_loss(model, batch)[0].backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    available = batch["available"][..., None, None]
    model.zero_grad()
    made = model(batch["images"], batch["available"])
    filled = torch.where(available, batch["images"], made)
    on_true, on_filled = (model.discriminator(one)[-1] for one in (batch["images"], filled.detach()))
    target = available.expand_as(on_filled).float()
    ((on_true - 1).square().mean() / 2 + (on_filled - target).square().mean() / 2).backward()
    for name, weight in model.discriminator.named_parameters():
        torch.testing.assert_close(found[f"discriminator.{name}"], weight.grad)
    missing = ~batch["available"]
    fooling = (model.discriminator(filled)[-1] - 1).square().mean(dim=(2, 3))[missing].mean()
    l1 = (made - batch["images"]).abs().mean(dim=(2, 3))[missing].mean()
    model.zero_grad()
    (0.1 * fooling + 0.9 * l1).backward()
    for name, weight in model.translator.named_parameters():
        torch.testing.assert_close(found[f"translator.{name}"], weight.grad)
    assert all(found[name].abs().sum() > 0 for name in found if name.endswith("conv.weight"))


@pytest.mark.parametrize("method", ["regression", "mm-gan"])
def test_a_few_slices_are_learned_and_the_weights_read_again(method, tmp_path):
    generator = torch.Generator().manual_seed(0)
    first = torch.nn.functional.interpolate(torch.rand(6, 1, 4, 4, generator=generator) * 2 - 1, size=16)
    images = torch.cat([first, -first, first * 0.5], dim=1)
    names = tuple(f"case-{index}" for index in range(6))
    available, brain = torch.ones(6, 3, dtype=torch.bool), torch.ones(6, 16, 16, dtype=torch.bool)
    slices = Slices(images, available, brain, None, names, names, torch.zeros(6, dtype=torch.long), IXI)
    torch.manual_seed(0)
    made = recipe(method, "standard", IXI, [8, 16])
    model, loss = made.network, made.loss
    assert made.overrides == {} and made.combination is None and not made.dedicated
    batches = Masked(Minibatches(slices, 6, seed=0), IXI, seed=0)
    history = fit(model, batches, loss, steps=60, lr=1e-2, seed=0, folder=tmp_path, precision="float32")
    part = "missing" if method == "regression" else "l1"
    assert history[part].iloc[-5:].mean() < 0.5 * history[part].iloc[:5].mean()
    scores = [evaluate_synthesis(one, slices).query("metric == 'mae'")["value"] for one in (model, MeanImage(slices))]
    assert scores[0].mean() < 0.7 * scores[1].mean()
    given = {"method": method, "variant": "standard", "seed": 0, "widths": [8, 16]}
    run = open_run(tmp_path, "smoke", "synthesis", method, given)
    values = dict.fromkeys(FACTS, 0) | {"task": "synthesis", "modalities": IXI, "stand_in": True, "exposure": {}}
    (tmp_path / "fit.safetensors").rename(run.folder / "fit.safetensors")
    run.save(history, pd.DataFrame([["a", "t1", "t2", "psnr", 1.0]], columns=SCORE_COLUMNS), **values)
    again = load(run.folder)
    assert torch.equal(again(images, available), model(images, available))


def test_faults_are_named():
    model = Translator(IXI, (4, 8, 8))
    available = torch.tensor([[True, False, False]])
    with pytest.raises(ValueError, match=r"the grid \(18, 16\) is not divisible by 4: pad it to \(20, 16\)"):
        model(torch.zeros(1, 3, 18, 16), available)
    with pytest.raises(ValueError, match=r"no modality is available in batch positions \[0\]"):
        model(torch.zeros(1, 3, 16, 16), available & False)
    with pytest.raises(ValueError, match="available has 3 columns but there are 4 modalities"):
        Translator(MRI, (4, 8))(torch.zeros(1, 3, 16, 16), available)
    with pytest.raises(ValueError, match="regression and mm-gan, standard, and regression unet; got pix2pix"):
        recipe("pix2pix", "standard", IXI, [4, 8])
