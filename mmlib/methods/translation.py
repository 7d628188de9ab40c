"""Baselines of synthesis in one pass: a regression U-Net and a small MM-GAN.

- `regression`: one U-Net from any part of the modalities to all of them, trained by the squared error. It predicts the
  mean of all images that fit what is available: the best one can do by PSNR, and blurred where much would fit. Its
  variant `unet` has the network, the loss and the moving average of M2DN's variant of that name, so that the two
  differ by diffusion alone.
- `mm-gan`: A. Sharma, G. Hamarneh, "Missing MRI Pulse Sequence Synthesis Using Multi-Modal Generative Adversarial
  Network", IEEE TMI 39(4), 2020, arXiv 1904.12200: the same U-Net against a discriminator of patches. Of it: zeros at
  the door for what is missing; implicit conditioning, that is, true images take the place of generated ones where they
  are available before the discriminator sees them, and the generator's loss is over what was missing alone; and a
  discriminator that says true or made for each modality apart. The authors released code; it was not consulted.

What differs, or is UNVERIFIED for `mm-gan`: the share of the L1 term (0.9) and the squared adversarial loss are from
memory of the paper: UNVERIFIED. The U-Net is far smaller, is told what is missing by constant channels, and ends in
Tanh for images in [-1, 1]. Patterns are drawn uniformly; the curriculum from one missing modality to many is left out.
Both sides of the game share one optimiser; their gradients do not mix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.nets import PatchDiscriminator, UNet
from torch import Tensor, nn
from torch.func import functional_call

from mmlib.modalities import check_available
from mmlib.networks.diffusion_unet import AVERAGE, DiffusionUNet, check_grid
from mmlib.training import Recipe

METHODS = ("regression", "mm-gan")
L1_SHARE = 0.9  # the rest is adversarial


class Translator(nn.Module):
    """A U-Net that takes any of the modalities and gives all of them.

    The U-Net works at half the resolution and below; the input is put beside its result before the last convolutions,
    so that a pixel's own values, and its fine detail, need not pass through it.

    Args:
        modalities: M names, the order of the modality axis.
        widths: channels per level, fine to coarse.

    Attributes:
        stride: H and W must be divisible by it.

    Raises:
        ValueError: in `forward`, if a slice has no modality, or the stride does not divide H and W.
    """

    def __init__(self, modalities: Sequence[str], widths: Sequence[int] = (16, 32, 64, 128)):
        super().__init__()
        self.modalities = tuple(modalities)
        self.stride = 2 ** (len(widths) - 1)
        count, width = len(self.modalities), widths[0]
        strides = [2] * (len(widths) - 1)
        self.net = UNet(2, 2 * count, width, widths, strides, num_res_units=1, act="LEAKYRELU")
        self.head = nn.Sequential(
            nn.LeakyReLU(),
            nn.Conv2d(width + 2 * count, width, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv2d(width, count, 1),
        )

    def forward(self, images: Tensor, available: Tensor) -> Tensor:
        """(B, M, H, W) and (B, M) bool -> (B, M, H, W) in [-1, 1]; what is not available is not read."""
        check_grid(images, self.stride)
        given = _given(images, available, self.modalities)  # B 2*M H W
        return self.head(torch.cat([self.net(given), given], dim=1)).tanh()  # B width+2*M H W -> B M H W


def _given(images: Tensor, available: Tensor, modalities: Sequence[str]) -> Tensor:
    """Zeros in place of what is missing, and a flag for each pixel of what is there: B M H W -> B 2*M H W."""
    check_available(available, modalities)
    shown = available[..., None, None]  # B M 1 1
    return torch.cat([torch.where(shown, images, 0), shown.expand_as(images).to(images.dtype)], dim=1)


class MMGAN(nn.Module):
    """A translator and the discriminator that it is trained against; `forward` is the translator's.

    Arguments as those of `Translator`; the discriminator begins with twice as many channels.
    """

    def __init__(self, modalities: Sequence[str], widths: Sequence[int] = (16, 32, 64, 128)):
        super().__init__()
        self.translator = Translator(modalities, widths)
        self.modalities, self.stride = self.translator.modalities, self.translator.stride
        count = len(self.modalities)
        self.discriminator = PatchDiscriminator(
            2, 2 * widths[0], count, count, num_layers_d=2, norm="INSTANCE", bias=True
        )

    def forward(self, images: Tensor, available: Tensor) -> Tensor:
        """(B, M, H, W) and (B, M) bool -> (B, M, H, W) in [-1, 1]."""
        return self.translator(images, available)


class OnePass(nn.Module):
    """The network of M2DN's variant `unet` without diffusion: zeros for noise, one time, one pass.

    Args:
        modalities: M names, the order of the modality axis.
        widths: channels per level, fine to coarse; multiples of 8.

    Attributes:
        stride: H and W must be divisible by it.
    """

    def __init__(self, modalities: Sequence[str], widths: Sequence[int] = (16, 32, 64)):
        super().__init__()
        self.modalities, count = tuple(modalities), len(modalities)
        self.net = DiffusionUNet(2 * count, count, widths)
        self.stride = self.net.stride

    def forward(self, images: Tensor, available: Tensor) -> Tensor:
        """(B, M, H, W) and (B, M) bool -> (B, M, H, W), in [-1, 1] once it is trained; errors as `Translator`'s."""
        t = torch.zeros(len(images), dtype=torch.long, device=images.device)  # B
        made = self.net(_given(images, available, self.modalities), t)  # B 2*M H W -> B M H W
        return made if self.training else made.clamp(-1, 1)


def _errors(model: nn.Module, batch: dict) -> tuple[Tensor, Tensor]:
    """Mean squared error of each image, (B, M), and which were acquired and are missing, (B, M) bool."""
    error = (model(batch["images"], batch["available"]).float() - batch["images"]).square().mean(dim=(2, 3))  # B M
    return error, batch["acquired"] & ~batch["available"]


def regression_loss(model: nn.Module, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean squared error over all modalities that were acquired, available or not; for batches of `Masked`."""
    error, missing = _errors(model, batch)
    return error[batch["acquired"]].mean(), {"missing": error[missing].mean().detach()}


def missing_loss(model: nn.Module, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean squared error over the missing modalities that were acquired, like that of M2DN's variant `unet`."""
    error, missing = _errors(model, batch)
    return error[missing].mean(), {}


def adversarial_loss(model: MMGAN, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Both sides' losses in one sum, whose gradient is that of each side's own; for batches of `Masked`.

    The discriminator is shown the filled set without its history, and a true set; the translator is judged by a copy of
    the discriminator whose weights are constants. Only complete sets can be judged, so all must be acquired.

    Raises:
        ValueError: if a case lacks a modality; names it.
    """
    lacking = [case for case, row in zip(batch["case"], batch["acquired"], strict=True) if not row.all()]
    if lacking:
        raise ValueError(f"case {lacking[0]} lacks a modality: mm-gan is trained on complete cases (`Slices.complete`)")
    images, available = batch["images"], batch["available"]
    missing = ~available
    made = model(images, available).float()
    filled = torch.where(available[..., None, None], images, made)  # implicit conditioning
    frozen = {name: weight.detach() for name, weight in model.discriminator.named_parameters()}
    on_true = model.discriminator(images)[-1].float()  # B M h w, a logit for each patch
    on_filled = model.discriminator(filled.detach())[-1].float()
    judged = functional_call(model.discriminator, frozen, (filled,))[-1].float()
    target = available[..., None, None].expand_as(on_filled).float()  # B M h w; what is available is true
    parts = {
        "discriminator": (F.mse_loss(on_true, torch.ones_like(on_true)) + F.mse_loss(on_filled, target)) / 2,
        "fooling": (judged - 1).square().mean(dim=(2, 3))[missing].mean(),  # B M h w -> B M -> missing ones
        "l1": (made - images).abs().mean(dim=(2, 3))[missing].mean(),  # B M H W -> B M -> missing ones
    }
    total = parts["discriminator"] + (1 - L1_SHARE) * parts["fooling"] + L1_SHARE * parts["l1"]
    return total, {name: part.detach() for name, part in parts.items()}


def recipe(method: str, variant: str, modalities: Sequence[str], widths: Sequence[int]) -> Recipe:
    """What a run of a baseline trains.

    Args:
        method: `regression` or `mm-gan`.
        variant: `standard`; of regression also `unet`, see `OnePass`.
        modalities: M names.
        widths: channels per level.

    Raises:
        ValueError: on an unknown method or variant.
    """
    if variant == "standard" and method in METHODS:
        if method == "mm-gan":
            return Recipe(MMGAN(modalities, widths), adversarial_loss)
        return Recipe(Translator(modalities, widths), regression_loss)
    if (method, variant) == ("regression", "unet"):
        return Recipe(OnePass(modalities, widths), missing_loss, {"average": AVERAGE})
    raise ValueError(f"this file has {' and '.join(METHODS)}, standard, and regression unet; got {method} {variant}")
