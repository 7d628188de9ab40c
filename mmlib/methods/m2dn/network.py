"""The network of M2DN (paper, figure 3), and the usual U-Net of diffusion models in its place."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.networks.blocks import ChannelSELayer
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from safetensors.torch import load_file
from torch import Tensor, nn

from mmlib.modalities import check_available
from mmlib.networks.diffusion_unet import DiffusionUNet, check_grid

EMBEDDING = 32  # sinusoids of the time


def _unit(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """GroupNorm, ReLU, Conv2D."""
    return nn.Sequential(
        nn.GroupNorm(gcd(32, inputs), inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 3, stride, padding=1)
    )


class ResBlock(nn.Module):
    """Two units with a skip around both; the time is added between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int):
        super().__init__()
        self.first, self.second = _unit(inputs, outputs), _unit(outputs, outputs)
        self.time = nn.Sequential(nn.Linear(embedding, outputs), nn.SiLU())
        self.around = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        inner = self.first(x) + self.time(time)[..., None, None]  # the time is B outputs 1 1
        return self.second(inner) + self.around(x)


class Stage(nn.Module):
    """Two ResBlocks."""

    def __init__(self, inputs: int, outputs: int, embedding: int):
        super().__init__()
        self.blocks = nn.ModuleList([ResBlock(inputs, outputs, embedding), ResBlock(outputs, outputs, embedding)])

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, time)
        return x


class MultiModalDenoiser(nn.Module):
    """One network from all modalities to all modalities, told which of them are missing.

    Args:
        num_modalities: M.
        width: channels C of each modality's blocks (the paper: 128); a multiple of 8 is fast on a CPU.
        skips: add the maps of the way down, after their ResBlocks and a 1x1 convolution, to those of the way up.
        levels: of the fusion block (the paper: 3).
        masked: tell the network which modalities are missing; False is the ablation "without M".

    Attributes:
        stride: the sides of the images must be multiples of it.
    """

    def __init__(
        self, num_modalities: int, width: int = 128, skips: bool = False, levels: int = 3, masked: bool = True
    ):
        super().__init__()
        M, C = num_modalities, width
        self.num_modalities, self.masked = M, masked
        self.stride = 2 ** (levels + 1)
        widths = [M * C, max(C, M * C // 2), *[C] * (levels - 1)]
        time = 4 * EMBEDDING
        self.time = nn.Sequential(nn.Linear(EMBEDDING, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.encoders = nn.ModuleList(
            nn.Sequential(nn.Conv2d(1, C, 3, padding=1), _unit(C, C), _unit(C, C), nn.Conv2d(C, C, 3, 2, padding=1))
            for _ in range(M)
        )
        self.down = nn.ModuleList(Stage(a, b, time) for a, b in zip(widths, widths[1:], strict=False))
        self.attend_down, self.attend_up = ChannelSELayer(2, widths[-1]), ChannelSELayer(2, widths[-2])
        upwards = [widths[-1] + M * masked, *widths[-2::-1]]
        self.skips = (
            nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True))
            if skips
            else None
        )
        self.up = nn.ModuleList(Stage(a, b, time) for a, b in zip(upwards, upwards[1:], strict=False))
        self.decoders = nn.ModuleList(
            nn.Sequential(_unit(C, C), nn.Upsample(scale_factor=2), _unit(C, 1)) for _ in range(M)
        )

    def forward(self, images: Tensor, t: Tensor, available: Tensor) -> Tensor:
        """Predict the clean images.

        Args:
            images: (B, M, H, W); available ones clean, missing ones at time t.
            t: (B,) whole numbers in 1..T.
            available: (B, M) bool, True = acquired.

        Returns:
            (B, M, H, W) in [-1, 1], float32; available modalities are reconstructed.

        Raises:
            ValueError: if the images do not fit the network or the mask, or a case has no modality.
        """
        return self.output(images, t, available).tanh()

    def output(self, images: Tensor, t: Tensor, available: Tensor) -> Tensor:
        """What the last convolutions give, (B, M, H, W) float32; arguments and errors as in `forward`."""
        check_given(images, available, self.num_modalities)
        check_grid(images, self.stride)
        time = self.time(get_timestep_embedding(t, EMBEDDING))  # B -> B 32 -> B 128
        # from B 1 H W each to B M*C H/2 W/2
        x = torch.cat([encoder(images[:, m : m + 1]) for m, encoder in enumerate(self.encoders)], dim=1)
        maps = []
        for stage in self.down:
            x = stage(x, time)
            maps.append(x)
            x = F.avg_pool2d(x, 2)  # half the grid
        x = self.attend_down(x)
        if self.masked:
            mask = (~available).to(x.dtype)  # B M; the paper's polarity: 1 = missing
            x = torch.cat([x, mask[..., None, None].expand(-1, -1, *x.shape[2:])], dim=1)  # B c+M h w
        for level, stage in enumerate(self.up):
            x = F.interpolate(stage(x, time), scale_factor=2)  # twice the grid
            x = self.attend_up(x) if level == 0 else x
            if self.skips is not None:
                x = x + self.skips[level](maps.pop())
        features = x.chunk(self.num_modalities, dim=1)  # B M*C H/2 W/2 is detached: B C H/2 W/2 each
        found = [decoder(one) for decoder, one in zip(self.decoders, features, strict=True)]  # B 1 H W each
        return torch.cat(found, dim=1).float()  # B M H W


class UNetDenoiser(nn.Module):
    """The denoiser without the paper's network: a `DiffusionUNet` that is given all images and the mask.

    Nothing has to pass a bottleneck here, neither the available images nor the noise of single pixels.

    Args:
        num_modalities: M.
        widths: channels per level, fine to coarse; multiples of 8.

    Attributes:
        stride: the sides of the images must be multiples of it.
    """

    def __init__(self, num_modalities: int, widths: Sequence[int] = (16, 32, 64)):
        super().__init__()
        self.num_modalities = num_modalities
        self.net = DiffusionUNet(2 * num_modalities, num_modalities, widths)
        self.stride = self.net.stride

    def forward(self, images: Tensor, t: Tensor, available: Tensor) -> Tensor:
        """As `MultiModalDenoiser.forward`, but without bounds: `sample` clamps what it is given."""
        return self.output(images, t, available)

    def output(self, images: Tensor, t: Tensor, available: Tensor) -> Tensor:
        """(B, M, H, W), float32; arguments and errors as in `MultiModalDenoiser.forward`."""
        check_given(images, available, self.num_modalities)
        flags = available[..., None, None].expand_as(images).to(images.dtype)  # B M H W
        return self.net(torch.cat([images, flags], dim=1), t)  # B 2*M H W -> B M H W


def check_given(images: Tensor, available: Tensor, num_modalities: int) -> None:
    """Refuse what a denoiser cannot take.

    Raises:
        ValueError: if the images do not fit the mask or the number of modalities, or a case has no modality.
    """
    check_available(available)
    if images.ndim != 4 or images.shape[:2] != available.shape:
        raise ValueError(
            f"images must be (B, M, H, W) with (B, M) = {tuple(available.shape)}; got {tuple(images.shape)}"
        )
    if images.shape[1] != num_modalities:
        raise ValueError(f"images have {images.shape[1]} modalities but this network was made for {num_modalities}")


def load_weights(denoiser: MultiModalDenoiser, path: Path | str) -> MultiModalDenoiser:
    """Load trained weights, `<name>.safetensors` of `mmlib.training.fit`; returns the network in evaluation mode.

    Raises:
        ValueError: if the file holds a network for another number of modalities, or another network.
    """
    weights = load_file(path)
    found = len({name.split(".")[1] for name in weights if name.startswith("decoders.")})
    if found != denoiser.num_modalities:
        raise ValueError(
            f"{path} holds a network for {found} modalities, but {denoiser.num_modalities} are asked for: "
            "give the checkpoint of a run on the same modalities"
        )
    try:
        denoiser.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} holds another network: check width, levels, skips and mask ({error})") from None
    return denoiser.eval()
