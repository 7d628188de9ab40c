"""M2DN: golden values, what may change an output and what may not, the reverse process, the errors it documents."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import ndimage
from scipy.io import loadmat
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmlib.data.batches import Minibatches
from mmlib.data.brats import BratsFolder
from mmlib.data.ixi import IxiFolder
from mmlib.data.phantoms.brain import write_brats, write_ixi
from mmlib.data.resample import resample
from mmlib.data.slices import Masked, Slices, axial_slices, volumes
from mmlib.methods import m2dn
from mmlib.modalities import IXI, MRI

GRID = 16
REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def small(num_modalities: int = 4, **options) -> m2dn.MultiModalDenoiser:
    torch.manual_seed(0)
    return m2dn.MultiModalDenoiser(num_modalities, width=8, **{"levels": 2, **options}).eval()


def unet(num_modalities: int = 4) -> m2dn.UNetDenoiser:
    torch.manual_seed(0)
    return m2dn.UNetDenoiser(num_modalities, (8, 16)).eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def patterns(count: int) -> Tensor:
    """All availabilities but the empty one and the whole."""
    bits = torch.arange(1, 2**count - 1)
    return (bits[:, None] >> torch.arange(count) & 1).bool()


def sine(*shape: int) -> Tensor:
    return torch.arange(math.prod(shape), dtype=torch.float64).sin().reshape(shape)


# --- golden values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t", "alpha_bar", "of_x0", "of_xt", "variance"),
    [
        (1, 0.9999, 1.0, 0.0, 0.0),
        (500, 0.078587243, 0.0030700711, 0.99410667, 0.010031355),
        (1000, 4.0358298e-05, 0.00012835149, 0.98994868, 0.019999984),
    ],
)
def test_golden_schedule_and_posterior(t, alpha_bar, of_x0, of_xt, variance) -> None:
    assert m2dn.linear_alpha_bar()[t - 1].item() == pytest.approx(alpha_bar, rel=1e-7)
    times, scheduler = m2dn.respaced(m2dn.T, "ancestral")
    assert times.tolist() == list(range(1, m2dn.T + 1))
    one, zero = torch.ones(1, 1, 2, 2, dtype=torch.float64), torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    draws = [scheduler.step(x0, t - 1, xt, generator=torch.Generator().manual_seed(0))[0] for x0, xt in
             ((zero, zero), (one, zero), (zero, one))]  # fmt: skip
    assert (draws[1] - draws[0]).mean().item() == pytest.approx(of_x0, rel=1e-6)
    assert (draws[2] - draws[0]).mean().item() == pytest.approx(of_xt, rel=1e-6)
    drawn = torch.randn(one.shape, dtype=one.dtype, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(draws[0], math.sqrt(variance) * drawn, rtol=1e-6, atol=0)


def test_golden_diffusion_and_loss() -> None:
    images, eps = sine(1, 4, 4, 4), torch.arange(64, dtype=torch.float64).cos().reshape(1, 4, 4, 4)
    available = torch.tensor([[False, True, False, True]])  # the paper's mask is 1, 0, 1, 0
    noisy = m2dn.diffuse(images, eps, torch.tensor([500]), available, m2dn.linear_alpha_bar())
    assert noisy.sum().item() == pytest.approx(-2.50757794, abs=5e-9)
    assert noisy.abs().sum().item() == pytest.approx(40.80724165, abs=5e-9)
    assert torch.equal(noisy[:, [1, 3]], images[:, [1, 3]])
    assert m2dn.denoising_loss(torch.zeros_like(images), images, available).item() == pytest.approx(
        0.49157864, abs=5e-9
    )
    assert m2dn.denoising_loss(noisy, images, available).item() == pytest.approx(0.36238002, abs=5e-9)
    missing_only = m2dn.denoising_loss(noisy, images, available, joint=False)
    assert missing_only.item() == pytest.approx(0.72476004, abs=5e-9)


def test_what_was_never_acquired_has_no_say_in_the_loss() -> None:
    images, available = sine(2, 3, 4, 4), torch.tensor([[True, False, False], [True, True, False]])
    acquired = torch.tensor([[True, True, False], [True, True, True]])
    loss = m2dn.denoising_loss(torch.zeros_like(images), images, available, acquired=acquired)
    images[0, 2] = torch.nan
    assert torch.equal(loss, m2dn.denoising_loss(torch.zeros_like(images), images, available, acquired=acquired))
    kept = sine(2, 3, 4, 4).square().mean(dim=(2, 3))[acquired].mean()
    assert loss.item() == pytest.approx(kept.item())


@pytest.mark.parametrize("variant", ["paper", "noise"])
def test_what_a_never_acquired_modality_holds_does_not_enter_training(variant) -> None:
    acquired = torch.tensor([[True, True, False], [True, True, True]])
    available = torch.tensor([[True, False, False], [True, True, False]])
    found = []
    for content in (0.0, 1e9, torch.nan):
        torch.manual_seed(0)
        recipe = m2dn.recipe("m2dn", variant, ("t1", "t2", "pd"), [8, 8])
        model, images = recipe.network, torch.randn(2, 3, 16, 16)
        eps = torch.randn_like(images)
        images[0, 2] = content
        batch = {
            "images": images,
            "available": available,
            "acquired": acquired,
            "t": torch.tensor([5, 500]),
            "eps": eps,
        }
        loss, _ = recipe.loss(model, batch)
        loss.backward()
        found.append([loss.detach(), *(weights.grad for weights in model.parameters())])
    assert found[0][0].isfinite()
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


# --- what is drawn ---------------------------------------------------------------------------------------------


class Sines(Dataset):
    """Batches of slices of sines, complete; availability goes through all patterns."""

    def __init__(self, size: int = 2, modalities: int = 4, distinct: int | None = None):
        levels = [0.5 + k % (distinct or size) / 8 for k in range(size)]
        self.images = torch.stack([sine(modalities, GRID, GRID).float() * level for level in levels])
        self.patterns = patterns(modalities)

    def __getitem__(self, step: int) -> dict:
        rows = torch.arange(len(self.images)) + step
        return {"images": self.images, "available": self.patterns[rows % len(self.patterns)], "case": ["a"] * len(rows)}


def test_a_batch_is_a_function_of_its_step_and_the_seed() -> None:
    first, again, other = (m2dn.NoisedSlices(Sines(), seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[7][key], again[7][key]) for key in ("t", "eps"))
    assert not torch.equal(first[7]["eps"], other[7]["eps"]) and not torch.equal(first[7]["eps"], first[8]["eps"])
    drawn = torch.cat([first[step]["t"] for step in range(200)])
    assert drawn.min() >= 1 and drawn.max() <= m2dn.T and drawn.max() > 900 and drawn.min() < 100


def test_variants_differ_in_what_their_names_say() -> None:
    built = {name: m2dn.recipe("m2dn", name, ("t1", "t2", "pd"), [8, 8]) for name in m2dn.VARIANTS}
    assert {name for name, made in built.items() if made.dedicated} == {"cdm", "cdm-joint"}
    networks = {name: getattr(made.network, "network", made.network) for name, made in built.items()}
    assert {name for name, made in built.items() if isinstance(made.network, m2dn.NoiseDenoiser)} == {
        "noise",
        "unet-noise",
    }
    assert {name for name, made in built.items() if made.overrides == {"average": 0.99}} == {"unet", "unet-noise"}
    drawn = {name: one for name, one in networks.items() if isinstance(one, m2dn.MultiModalDenoiser)}
    assert set(networks) - set(drawn) == {"unet", "unet-noise"}
    assert {name for name, one in drawn.items() if one.skips} == {"skips"}
    assert {name for name, one in drawn.items() if not one.masked} == {
        "no-mask",
        "neither",
        "cdm",
        "cdm-joint",
    }
    batch = m2dn.NoisedSlices(Sines(2, 3), seed=0)[0]
    noisy = m2dn.diffuse(batch["images"], batch["eps"], batch["t"], batch["available"], m2dn.linear_alpha_bar())
    for name, joint in (("paper", True), ("no-joint", False), ("unet", False)):
        prediction = built[name].network(noisy, batch["t"], batch["available"])
        expected = m2dn.denoising_loss(prediction, batch["images"], batch["available"], joint)
        assert built[name].loss(built[name].network, batch)[0].item() == pytest.approx(expected.item())
    with pytest.raises(ValueError, match="this file has the method m2dn in the variants paper, skips"):
        m2dn.recipe("m2dn", "nosuch", ("t1", "t2"), [8, 8])
    with pytest.raises(ValueError, match=r"the network of paper has the same width on all levels; got \[8, 16\]"):
        m2dn.recipe("m2dn", "paper", ("t1", "t2"), [8, 16])


# --- the network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"skips": True}, {"levels": 3}, {"levels": 1}, {"masked": False}])
def test_shape_and_range_of_the_output(options: dict) -> None:
    denoiser = small(3, **options)
    found = denoiser(9 * noise(2, 3, 16, 32), torch.tensor([1, 1000]), patterns(3)[:2])
    assert found.shape == (2, 3, 16, 32) and found.dtype == torch.float32 and found.abs().max() <= 1


def test_widths_of_the_paper() -> None:
    denoiser = m2dn.MultiModalDenoiser(4)
    maps = []
    for stage in (*denoiser.down, *denoiser.up):
        stage.register_forward_hook(
            lambda _, given, made: maps.append((given[0].shape[1], made.shape[1], *made.shape[2:]))
        )
    with torch.no_grad():
        denoiser(torch.zeros(1, 4, 32, 32), torch.tensor([1]), patterns(4)[:1])
    assert maps == [  # channels in and out, size before the change of scale; for 256 pixels eight times as large
        (512, 256, 16, 16), (256, 128, 8, 8), (128, 128, 4, 4), (132, 128, 2, 2), (128, 256, 4, 4), (256, 512, 8, 8)
    ]  # fmt: skip


def test_each_bit_of_the_mask_changes_the_output() -> None:
    images, t, available = noise(1, 4, GRID, GRID), torch.tensor([500]), torch.tensor([[True, True, False, True]])
    denoiser = small()
    for m in (0, 1, 3):
        flipped = available.clone()
        flipped[0, m] = False
        assert not torch.equal(denoiser(images, t, available), denoiser(images, t, flipped))
    blind = small(masked=False)
    assert torch.equal(blind(images, t, available), blind(images, t, patterns(4)[:1]))


def test_the_time_changes_the_output() -> None:
    images, available = noise(1, 4, GRID, GRID), patterns(4)[:1]
    found = [small()(images, torch.tensor([t]), available) for t in (1, 2, 1000)]
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_skips_carry_what_is_available_past_the_bottleneck() -> None:
    available, t = torch.tensor([[True, True, False]]), torch.tensor([900])
    images = noise(1, 3, GRID, GRID)
    fine = images.clone()
    fine[:, 0, ::2] += 0.5  # stripes of one pixel in an available modality
    fine[:, 0, 1::2] -= 0.5
    changes = []
    for options in ({"skips": True}, {"skips": False}):
        denoiser = small(3, **options)
        with torch.no_grad():
            for weights in denoiser.up.parameters():
                weights.zero_()  # cuts the way through the bottleneck
            found = [denoiser(one, t, available)[:, 2] for one in (images, fine)]
        changes.append((found[0] - found[1]).abs().max().item())
    assert changes[0] > 0 and changes[1] == 0


@pytest.mark.parametrize("network", ["as drawn", "unet"])
def test_a_gradient_reaches_every_weight(network: str) -> None:
    denoiser = (small() if network == "as drawn" else unet()).train()
    total = torch.zeros(())
    for step in range(3 if network == "unet" else 1):  # MONAI's blocks end in zeros: a first step lets gradients in
        total, _ = m2dn.m2dn_loss()(denoiser, m2dn.NoisedSlices(Sines(), seed=0)[step])
        denoiser.zero_grad()
        total.backward()
        with torch.no_grad():
            for weights in denoiser.parameters() if network == "unet" else ():
                weights -= 0.05 * weights.grad
    assert all(weights.grad is not None and weights.grad.abs().sum() > 0 for weights in denoiser.parameters())


@pytest.mark.parametrize("network", ["as drawn", "unet"])
def test_the_noise_denoiser_turns_its_noise_into_images(network: str) -> None:
    denoiser = m2dn.NoiseDenoiser(small(3) if network == "as drawn" else unet(3)).eval()
    images, eps, available = 0.3 * sine(2, 3, GRID, GRID).float(), noise(2, 3, GRID, GRID), patterns(3)[[1, 5]]
    t = torch.tensor([40, 700])
    denoiser.network.output = lambda *_: torch.where(available[..., None, None], images, eps)
    noisy = m2dn.diffuse(images, eps, t, available, m2dn.linear_alpha_bar())
    assert torch.allclose(denoiser(noisy, t, available), images, atol=1e-5)


@pytest.mark.parametrize("count", [3, 4])
def test_a_network_that_predicts_no_noise_has_a_loss_known_beforehand(count: int) -> None:
    available, names = patterns(count).repeat(200, 1), MRI[:count]
    target = torch.where(available[..., None, None], torch.ones(()), noise(len(available), count, 4, 4))
    learnt_nothing = torch.where(available[..., None, None], target, 0)
    for joint, expected in ((True, 0.5), (False, 1.0)):
        assert m2dn.no_noise_loss(names, joint) == pytest.approx(expected)
        assert m2dn.denoising_loss(learnt_nothing, target, available, joint).item() == pytest.approx(expected, rel=0.02)


class Fields(Dataset):
    """Batches of two modalities: one is always the same, one is drawn anew, pixel by pixel, and is missing."""

    def __getitem__(self, step: int) -> dict:
        drawn = torch.rand(8, 1, GRID, GRID, generator=torch.Generator().manual_seed(step)) * 2 - 1
        images = torch.cat([torch.full_like(drawn, 0.5), drawn], dim=1)
        return {"images": images, "available": torch.tensor([[True, False]]).expand(8, 2), "case": ["a"] * 8}


def trained(variant: str, data: Dataset, steps: int) -> tuple[nn.Module, float]:
    """A small U-Net, and its mean loss over the last tenth of the steps."""
    torch.manual_seed(0)
    made = m2dn.recipe("m2dn", variant, ("t1", "t2"), [16, 16])
    batches, losses = made.batches(data, 0), []
    stepper = torch.optim.Adam(made.network.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(stepper, 1.0, 0.05, steps)
    for step in range(steps):
        total, _ = made.loss(made.network, batches[step])
        stepper.zero_grad()
        total.backward()
        stepper.step()
        schedule.step()
        losses.append(total.item())
    return made.network.eval(), float(np.mean(losses[-steps // 10 :]))


def test_the_noise_of_two_slices_is_learnt_by_heart_far_below_what_no_learning_gives() -> None:
    _, loss = trained("unet-noise", Sines(8, 2, distinct=2), 300)
    assert loss < 0.1 < m2dn.no_noise_loss(("t1", "t2"), joint=False)


@torch.no_grad()
def error_at(network: nn.Module, t: int) -> float:
    """Squared error of the missing modality of new `Fields`, predicted from their state at time t."""
    batch, times = Fields()[10_000], torch.full((8,), t)
    noisy = m2dn.diffuse(batch["images"], noise(8, 2, GRID, GRID), times, batch["available"], m2dn.linear_alpha_bar())
    return (network(noisy, times, batch["available"]) - batch["images"])[:, 1].square().mean().item()


def test_the_error_depends_on_the_time_where_nothing_but_the_noisy_image_tells_the_answer() -> None:
    network, _ = trained("unet", Fields(), 120)
    assert error_at(network, 10) < 0.3 * error_at(network, 990)
    assert error_at(network, 990) > 0.2, "from noise no more can be known than the mean, whose error is one third"


def test_two_slices_can_be_learnt_by_heart() -> None:
    torch.manual_seed(0)
    denoiser, slices = m2dn.MultiModalDenoiser(2, 8, skips=True, levels=1), Sines(2, 2)
    batches, loss = m2dn.NoisedSlices(slices, seed=0), m2dn.m2dn_loss()
    stepper = torch.optim.Adam(denoiser.parameters(), 2e-2)
    for step in range(120):
        total, _ = loss(denoiser, batches[step])
        stepper.zero_grad()
        total.backward()
        stepper.step()
    available = torch.tensor([[True, False], [False, True]])
    found = m2dn.sample(denoiser.eval(), slices.images, available, steps=5, generator=torch.Generator().manual_seed(0))
    assert (found - slices.images).square().mean() < 0.15 * slices.images.var()


# --- the reverse process ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
@pytest.mark.parametrize("steps", [1, 7, 25])
def test_an_oracle_gives_the_missing_images_exactly(sampler: str, steps: int) -> None:
    images, available = sine(14, 4, 8, 8).float(), patterns(4)
    times = []

    def oracle(noisy: Tensor, t: Tensor, given: Tensor) -> Tensor:
        assert torch.equal(noisy[given], images[given]) and torch.equal(given, available)
        times.append(t.unique().item())
        return images

    empty = torch.where(available[..., None, None], images, torch.nan)
    found = m2dn.sample(oracle, empty, available, steps=steps, sampler=sampler, generator=torch.Generator())
    assert torch.equal(found, images)
    assert len(times) == steps and times[0] == m2dn.T and times == sorted(times, reverse=True)


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_with_an_oracle_every_state_is_the_forward_process_at_its_time(sampler: str) -> None:
    images = torch.zeros(1, 2, 64, 64)
    available, spread = torch.tensor([[True, False]]), {}
    m2dn.sample(
        lambda *_: images, images, available, steps=5, sampler=sampler, generator=torch.Generator().manual_seed(0),
        callback=lambda state: spread.update({state["t"]: state["images"][:, 1].std().item()}),
    )  # fmt: skip
    after = {t: (1 - m2dn.linear_alpha_bar()[t - 201]).sqrt().item() for t in (1000, 800, 600, 400)}
    assert {t: spread[t] for t in after} == pytest.approx(after, rel=0.05), "the state after t belongs to the next time"
    assert spread[200] == 0


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_acquired_images_are_put_back_after_every_step(sampler: str) -> None:
    images, available, states = noise(6, 3, GRID, GRID).clamp(-1, 1), patterns(3), []
    m2dn.sample(small(3), images, available, steps=3, sampler=sampler, callback=lambda state: states.append(state))
    assert len(states) == 3
    assert all(torch.equal(state["images"][available], images[available]) for state in states)


def test_what_a_missing_modality_holds_changes_nothing() -> None:
    images, available = noise(6, 3, GRID, GRID).clamp(-1, 1), patterns(3)
    there, found = available[..., None, None], []
    for content in (images, torch.zeros(()), torch.tensor(torch.nan), noise(6, 3, GRID, GRID, seed=1)):
        generator = torch.Generator().manual_seed(0)
        given = torch.where(there, images, content)
        found.append(m2dn.sample(small(3), given, available, steps=3, generator=generator))
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_reconstructions_of_acquired_images_are_not_fed_back() -> None:
    images, available, denoiser = noise(2, 3, GRID, GRID).clamp(-1, 1), patterns(3)[[1, 4]], small(3)

    def meddling(noisy: Tensor, t: Tensor, given: Tensor) -> Tensor:
        return torch.where(given[..., None, None], torch.tensor(0.7), denoiser(noisy, t, given))

    found = [
        m2dn.sample(one, images, available, steps=4, generator=torch.Generator().manual_seed(0))
        for one in (denoiser, meddling)
    ]
    assert torch.equal(*found)


def test_one_network_call_per_step_whatever_the_patterns() -> None:
    calls, images, available = [], noise(14, 4, GRID, GRID).clamp(-1, 1), patterns(4)
    denoiser = small()
    denoiser.register_forward_hook(lambda *_: calls.append(1))
    m2dn.sample(denoiser, images, available, steps=3)
    assert len(calls) == 3


def test_a_seed_gives_the_same_images_again() -> None:
    images, available = noise(1, 3, GRID, GRID).clamp(-1, 1), patterns(3)[:1]
    found = [
        m2dn.sample(small(3), images, available, steps=2, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    ]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


# --- errors ----------------------------------------------------------------------------------------------------


def test_nothing_missing_returns_the_input_and_says_so() -> None:
    images = noise(1, 3, 8, 8)
    with pytest.warns(UserWarning, match="no modality is missing: the images are returned as they are"):
        assert torch.equal(m2dn.sample(small(3), images, torch.ones(1, 3, dtype=torch.bool)), images)


def test_errors_of_sampling() -> None:
    images, available = noise(2, 3, GRID, GRID), patterns(3)[:2]
    with pytest.raises(ValueError, match=r"no modality is available in batch positions \[1\]"):
        m2dn.sample(small(3), images, torch.tensor([[True, False, True], [False, False, False]]))
    with pytest.raises(ValueError, match=r"images must be \(B, M, H, W\) with \(B, M\) = \(2, 3\); got \(2, 4, 8, 8\)"):
        m2dn.sample(small(3), noise(2, 4, 8, 8), available)
    with pytest.raises(ValueError, match="unknown sampler 'euler'; choose one of"):
        m2dn.sample(small(3), images, available, sampler="euler")
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=rf"steps must lie in 1..1000; got {steps}"):
            m2dn.sample(small(3), images, available, steps=steps)


def test_errors_of_the_network() -> None:
    t = torch.tensor([1])
    with pytest.raises(ValueError, match=r"the grid \(60, 50\) is not divisible by 8: pad it to \(64, 56\)"):
        small(3)(noise(1, 3, 60, 50), t, patterns(3)[:1])
    with pytest.raises(ValueError, match="images have 4 modalities but this network was made for 3"):
        small(3)(noise(1, 4, GRID, GRID), t, patterns(4)[:1])
    with pytest.raises(ValueError, match=r"images must be \(B, M, H, W\)"):
        small(3)(noise(1, 3, GRID), t, patterns(3)[:1])


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "paper.safetensors"
    save_file(small(3).state_dict(), path)
    given = noise(1, 3, GRID, GRID), torch.tensor([3]), patterns(3)[:1]
    torch.manual_seed(1)
    loaded = m2dn.load_weights(m2dn.MultiModalDenoiser(3, 8, levels=2), path)
    assert torch.equal(loaded(*given), small(3)(*given))
    with pytest.raises(ValueError, match="paper.safetensors holds a network for 3 modalities, but 4 are asked for"):
        m2dn.load_weights(small(4), path)
    with pytest.raises(ValueError, match="paper.safetensors holds another network: check width"):
        m2dn.load_weights(m2dn.MultiModalDenoiser(3, 16, levels=2), path)


# --- real scans ------------------------------------------------------------------------------------------------


def briefly_trained(cases) -> m2dn.MultiModalDenoiser:
    """A small network after a few steps on slices of one phantom subject."""
    modalities = cases.files[next(iter(cases))].modalities
    train = axial_slices(cases, modalities, size=(64, 64), stride=8, every=3, least_brain=0.1)
    torch.manual_seed(0)
    denoiser = m2dn.MultiModalDenoiser(len(modalities), 8, skips=True, levels=1)
    batches = m2dn.NoisedSlices(Masked(Minibatches(train, 4, 0), modalities, 0), 0)
    stepper, loss = torch.optim.Adam(denoiser.parameters(), 1e-2), m2dn.m2dn_loss()
    for step in range(40):
        total, _ = loss(denoiser, batches[step])
        stepper.zero_grad()
        total.backward()
        stepper.step()
    return denoiser.eval()


def check_completed(made: Tensor, slices: Slices, m: int) -> None:
    """What was there is there bit for bit; modality m is an image: within bounds, with several greys in the brain."""
    others = [index for index in range(len(slices.modalities)) if index != m]
    assert torch.equal(made[:, others], slices.images[:, others])
    assert made[:, m].isfinite().all() and made[:, m].abs().max() <= 1
    assert made[:, m][slices.brain].std() > 0.05


def save(volume: np.ndarray, affine: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)


@pytest.mark.skipif(not (REAL / "brats_like").is_dir(), reason="the real scan of shared/data/brats_like is not here")
def test_a_real_scan_is_completed(tmp_path: Path) -> None:
    write_brats(tmp_path / "phantom", [0])
    denoiser = briefly_trained(BratsFolder(tmp_path / "phantom"))
    native = BratsFolder(REAL / "brats_like")["TCGA-DU-7294"]
    coarse = resample(native, 4.0)
    for name, image in coarse.images.items():
        save(image, coarse.affine, tmp_path / "real" / "case-1" / f"case-1_{name}.nii.gz")
    cases, m = BratsFolder(tmp_path / "real"), MRI.index("t1ce")
    slices = axial_slices(cases, MRI, size=(64, 64), stride=8, least_brain=0)
    available = torch.ones(len(slices), len(MRI), dtype=torch.bool)
    available[:, m] = False
    hidden = torch.where(available[..., None, None], slices.images, torch.nan)
    made = m2dn.sample(denoiser, hidden, available, steps=3, generator=torch.Generator().manual_seed(0))
    check_completed(made, slices, m)
    volume = volumes(cases["case-1"], slices, made)["t1ce"]
    assert volume.shape == cases["case-1"].images["t1"].shape and (volume[~cases["case-1"].brain_mask] == 0).all()


@pytest.mark.skipif(not (REAL / "ixi").is_dir(), reason="the real slices of shared/data/ixi are not here")
def test_a_real_ixi_slice_without_t1_is_completed(tmp_path: Path) -> None:
    write_ixi(tmp_path / "phantom", [0])
    denoiser = briefly_trained(IxiFolder(tmp_path / "phantom"))
    name, affine = "IXI040-Guys-0724", np.diag([3.75, 3.75, 4.0, 1.0])
    found = {one: loadmat(REAL / "ixi" / f"{name}-{one}_69.mat")["dcm"].astype(np.float32) for one in ("T2", "PD")}
    parts, _ = ndimage.label(ndimage.binary_opening(found["PD"] > 600, iterations=3))  # the scalp lies apart
    brain = ndimage.binary_fill_holes(parts == parts[150, 110])
    found = {one: image.reshape(64, 4, 64, 4).mean(axis=(1, 3)) for one, image in {**found, "brain": brain}.items()}
    for one, image in found.items():  # rows run to the back, columns to the left
        image = (image >= 0.5).astype(np.float32) if one == "brain" else image
        save(image[::-1, ::-1].T[..., None], affine, tmp_path / "real" / f"{name}-{one}.nii.gz")
    cases = IxiFolder(tmp_path / "real")
    slices = axial_slices(cases, IXI, size=(64, 64), stride=8)
    assert slices.available.tolist() == [[False, True, True]] and 1000 < slices.brain.sum() < 2000
    made = m2dn.sample(denoiser, slices.images, slices.available, steps=3, generator=torch.Generator().manual_seed(0))
    check_completed(made, slices, IXI.index("t1"))
