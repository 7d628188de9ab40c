"""Diffusion of M2DN: noise on the missing modalities in training, and the way back in sampling (paper, figure 2)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmlib.data.slices import patterns
from mmlib.methods.m2dn.network import MultiModalDenoiser, UNetDenoiser
from mmlib.modalities import check_available
from mmlib.networks.diffusion_unet import AVERAGE
from mmlib.training import Loss, Recipe

T = 1000  # time steps of the forward process
APART = 2**40  # keeps the seeds of time and noise away from those of availability
SAMPLERS = {"ddim": DDIMScheduler, "ancestral": DDPMScheduler}

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]  # (images, t, available) -> predicted images
Callback = Callable[[dict], None]


@cache
def linear_alpha_bar(steps: int = T) -> Tensor:
    """What is left of the signal at t = 1..steps, (steps,) float64: the product of 1 - beta, betas linear."""
    return (1 - torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)).cumprod(0)


def diffuse(images: Tensor, eps: Tensor, t: Tensor, available: Tensor, alpha_bar: Tensor) -> Tensor:
    """Bring the missing modalities to time t; available ones stay as they are, bit for bit.

    Args:
        images: (B, M, H, W) in [-1, 1], all modalities.
        eps: standard normal, like `images`.
        t: (B,) whole numbers in 1..T, or one number.
        available: (B, M) bool, True = acquired.
        alpha_bar: (T,), `alpha_bar[t - 1]` belongs to t.

    Returns:
        (B, M, H, W): sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps where missing.
    """
    signal = alpha_bar.to(images.device)[torch.as_tensor(t, device=images.device) - 1].reshape(-1, 1, 1, 1)
    # the forward process, B M H W; the signal is B 1 1 1, or 1 1 1 1 for one time
    noisy = signal.sqrt().to(images.dtype) * images + (1 - signal).sqrt().to(images.dtype) * eps
    return torch.where(available[..., None, None], images, noisy)  # mask: B M 1 1


def denoising_loss(
    prediction: Tensor,
    images: Tensor,
    available: Tensor,
    joint: bool = True,
    acquired: Tensor | None = None,
) -> Tensor:
    """Mean squared error of the predicted images over all modalities: the available ones are reconstructed as well.

    Args:
        prediction: (B, M, H, W).
        images: (B, M, H, W), the truth.
        available: (B, M) bool, what the network was shown.
        joint: False leaves the available ones out (the ablation "without J").
        acquired: (B, M) bool; what was never acquired has no truth and does not count. None: all was.
    """
    weights = torch.where(available, float(joint), 1.0).to(prediction.dtype)  # B M
    weights = weights if acquired is None else weights * acquired
    error = (prediction - images).square().mean(dim=(2, 3)).masked_fill(weights == 0, 0)  # B M H W -> B M
    return (weights * error).sum() / weights.sum()


class NoiseDenoiser(nn.Module):
    """A network that predicts the noise of the missing modalities; the images follow from it.

    Available modalities are reconstructed as before.

    Args:
        network: a `MultiModalDenoiser`, whose tanh is left out since noise has no bounds, or a `UNetDenoiser`.
    """

    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, t: Tensor, available: Tensor) -> Tensor:
        """As `MultiModalDenoiser.forward`: x0 = (xt - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar), within [-1, 1]."""
        output = self.network.output(images, t, available)
        signal = linear_alpha_bar().to(images.device)[t - 1].view(-1, 1, 1, 1)  # B 1 1 1
        clean = ((images - (1 - signal).sqrt() * output) / signal.sqrt()).float()  # x0, B M H W
        return torch.where(available[..., None, None], output, clean).clamp(-1, 1)


class NoisedSlices(Dataset):
    """Adds what a training step draws besides availability: a time and noise for each case, by step and seed.

    Args:
        batches: `batches[step]` holds complete `images` and the drawn `available`, such as `mmlib.data.slices.Masked`.
        seed: of time and noise.
    """

    def __init__(self, batches: Dataset, seed: int):
        self.batches, self.seed = batches, seed

    def __getitem__(self, step: int) -> dict:
        batch = self.batches[step]
        generator = torch.Generator().manual_seed(APART + self.seed * 1_000_003 + step)
        t = torch.randint(1, T + 1, (len(batch["images"]),), generator=generator)  # B
        return {**batch, "t": t, "eps": torch.randn(batch["images"].shape, generator=generator)}


def m2dn_loss(joint: bool = True) -> Loss:
    """The loss of a training step, a function (model, batch) of a batch of `NoisedSlices`: `denoising_loss`.

    A `NoiseDenoiser` is to predict the noise where modalities are missing, and the images where they are not. With
    `acquired` (B, M) bool in the batch, a modality that was never acquired is shown as mere noise: there is no image to
    put noise on, and what the batch holds in its place is not read.
    """

    def loss(model: nn.Module, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        images, available, t, eps = (batch[name] for name in ("images", "available", "t", "eps"))
        known = batch.get("acquired", torch.ones_like(available))[..., None, None]  # B M 1 1
        images = torch.where(known, images, 0)
        noisy = torch.where(known, diffuse(images, eps, t, available, linear_alpha_bar()), eps)
        if isinstance(model, NoiseDenoiser):
            prediction = model.network.output(noisy, t, available)
            target = torch.where(available[..., None, None], images, eps)  # B M H W
        else:
            prediction, target = model(noisy, t, available), images
        return denoising_loss(prediction, target, available, joint, acquired=batch.get("acquired")), {}

    return loss


def no_noise_loss(modalities: Sequence[str], joint: bool = True) -> float:
    """The loss of a network that predicts no noise at all and copies what is available: nothing was learnt above it.

    The mean square of noise is 1, so this is the share of modalities that are missing, over all patterns alike; one
    half, whatever their number, since a pattern and its inverse are as likely. Without the available ones it is 1.

    Args:
        modalities: M names.
        joint: see `denoising_loss`.
    """
    if not joint:
        return 1.0
    shares = [1 - len(one) / len(modalities) for one in patterns(modalities)]
    return sum(shares) / len(shares)


@dataclass(frozen=True)
class Variant:
    """One way to build and train the network; the defaults are the paper's, U+J+M in its Table VII.

    The U-Net is trained by the missing modalities alone: it has the available ones beside its last layers, so that
    copying them teaches it nothing, and a network that predicts no noise has the loss 1 instead of one half.

    Attributes:
        skips, masked: see `MultiModalDenoiser`; without the mask it is U+J.
        joint: see `denoising_loss`; without it it is U+M.
        dedicated: one network for each pattern, instead of one for all: an ordinary conditional diffusion model (cDM).
        noise: predict the noise.
        unet: the usual U-Net of diffusion models, with a moving average of its weights.
    """

    skips: bool = False
    masked: bool = True
    joint: bool = True
    dedicated: bool = False
    noise: bool = False
    unet: bool = False


VARIANTS = {
    "paper": Variant(),
    "skips": Variant(skips=True),
    "no-mask": Variant(masked=False),
    "no-joint": Variant(joint=False),
    "neither": Variant(masked=False, joint=False),
    "cdm-joint": Variant(masked=False, dedicated=True),
    "cdm": Variant(masked=False, joint=False, dedicated=True),
    "noise": Variant(noise=True),
    "unet": Variant(unet=True, joint=False),
    "unet-noise": Variant(unet=True, joint=False, noise=True),
}


def recipe(method: str, variant: str, modalities: Sequence[str], widths: Sequence[int]) -> Recipe:
    """What a run of M2DN trains: the network, its loss, and its overrides of the run's settings.

    Args:
        method: `m2dn`.
        variant: one of `VARIANTS`.
        modalities: M names.
        widths: channels per level; the same on all of them but for the U-Net; the paper's are 128, 128, 128.

    Raises:
        ValueError: on an unknown method or variant, or widths that do not suit it.
    """
    if method != "m2dn" or variant not in VARIANTS:
        raise ValueError(f"this file has the method m2dn in the variants {', '.join(VARIANTS)}; got {method} {variant}")
    chosen = VARIANTS[variant]
    network: MultiModalDenoiser | UNetDenoiser
    if chosen.unet:
        network = UNetDenoiser(len(modalities), widths)
    elif len(set(widths)) == 1:
        network = MultiModalDenoiser(len(modalities), widths[0], chosen.skips, len(widths), chosen.masked)
    else:
        raise ValueError(f"the network of {variant} has the same width on all levels; got {list(widths)}")
    return Recipe(
        NoiseDenoiser(network) if chosen.noise else network,
        m2dn_loss(chosen.joint),
        {"average": AVERAGE} if chosen.unet else {},
        batches=NoisedSlices,
        dedicated=chosen.dedicated,
    )


@torch.no_grad()
def sample(
    denoiser: Denoise,
    images: Tensor,
    available: Tensor,
    steps: int = 25,
    sampler: str = "ddim",
    generator: torch.Generator | None = None,
    *,
    callback: Callback | None = None,
) -> Tensor:
    """Synthesise what is missing: from noise, in so many steps, with the acquired images put back after each.

    Patterns may differ between the cases of a batch; a step calls the network once for all of them.

    Args:
        denoiser: (images, t, available) -> predicted images; a `MultiModalDenoiser` in evaluation mode.
        images: (B, M, H, W) in [-1, 1]; what a missing modality holds is not read.
        available: (B, M) bool, True = acquired.
        steps: reverse steps, 1 to T; the times are evenly spaced and end at T.
        sampler: `ddim`, whose only chance is the first noise, or `ancestral`, which adds noise at every step.
        generator: of all noise; None: torch's own.
        callback: is handed a dict after each step: `t`, `images` (the state), `predicted`.

    Returns:
        (B, M, H, W); acquired images bit for bit, synthesised ones in [-1, 1]. Where nothing is missing, the input,
        with a warning.

    Raises:
        ValueError: if a case has no modality, the sampler is unknown or the number of steps is impossible; and as the
            network.
    """
    check_available(available)
    if images.ndim != 4 or images.shape[:2] != available.shape:
        raise ValueError(
            f"images must be (B, M, H, W) with (B, M) = {tuple(available.shape)}; got {tuple(images.shape)}"
        )
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}; choose one of {tuple(SAMPLERS)}")
    if not 1 <= steps <= T:
        raise ValueError(f"steps must lie in 1..{T}; got {steps}")
    if available.all():
        warnings.warn("no modality is missing: the images are returned as they are", stacklevel=2)
        return images
    there = available[..., None, None]  # B M 1 1
    times, scheduler = respaced(steps, sampler)
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype).to(images.device)  # B M H W
    state = torch.where(there, images, noise)
    for step in reversed(range(steps)):
        t = times[step].to(images.device).expand(len(state))  # scalar -> B
        predicted = denoiser(state, t, available).clamp(-1, 1)
        state, _ = scheduler.step(predicted, step, state, generator=generator)  # one reverse step
        state = torch.where(there, images, state)  # never the reconstruction of an available modality
        if callback is not None:
            callback({"t": int(times[step]), "images": state, "predicted": predicted})
    return state


def respaced(steps: int, sampler: str) -> tuple[Tensor, DDIMScheduler | DDPMScheduler]:
    """The times of so many reverse steps, and MONAI's scheduler on the process that has these times only.

    MONAI's own choice of fewer steps tells the network other times than those whose noise it is given (T - 1 - k times
    (T - 1) / (steps - 1) against k times T / steps), which matters for few steps.

    Returns:
        (steps,) times in 1..T, ascending; the scheduler, whose step k goes from time k of these to time k - 1.
    """
    times = torch.linspace(T / steps, T, steps, dtype=torch.float64).round().long()
    alpha_bar = linear_alpha_bar()[times - 1]  # (steps,)
    scheduler = SAMPLERS[sampler](steps, prediction_type="sample", clip_sample=False)
    alphas = alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])  # (steps,)
    scheduler.alphas_cumprod, scheduler.alphas, scheduler.betas = alpha_bar, alphas, 1 - alphas
    return times, scheduler
