"""U-HVED: every modality is a Gaussian expert on the latent maps; the available experts are multiplied.

Paper: Reuben Dorent, Samuel Joutard, Marc Modat, Sebastien Ourselin, Tom Vercauteren, "Hetero-Modal Variational
Encoder-Decoder for Joint Modality Completion and Segmentation", MICCAI 2019, arXiv 1907.11150. Implemented: the product
of experts with its prior expert at every scale, the decoders of the segmentation and of each image, and their three
losses. Released code consulted through a written description: ReubenDo/U-HVED; nothing of it is copied.

What differs
- The network is made of the book's own blocks, so that against U-HeMIS the fusion and its losses are all that changes:
  a residual encoder per modality with a strided stem, as many scales as widths (released: four, from the full grid on),
  a decoder with skips for the segmentation and for each image. The decoder of the segmentation sees the available
  images again at full resolution, as in all small networks of the book. A 1x1x1 convolution turns the c maps of a
  scale into c means and c log-variances (released: the encoder's own maps, half and half); the maps themselves end in a
  LeakyReLU.
- Regions are three sigmoids with the book's loss; the released code has four classes, cross-entropy plus Dice.
- A batch holds images of the available modalities only, so only these are reconstructed, and the divergence runs over
  the subsets S of the available set A (released: over all 15, from all four images). The released divisors, 14 and 15,
  are the numbers of proper and of all subsets of four modalities; here those of A, so that they agree where A is
  complete. One available modality has no proper subset: its first term is zero.
- The weight decay of `fit` stands for the L2 term. Missing modalities are drawn by the run's sampler: `uniform-size` is
  the released one. The released schedule divides the rate by 4 every 10 steps, probably meant to be 10,000
  (UNVERIFIED); here it is that of the run.
- Training decodes a draw from the latents, made by torch's global generator. `fit` seeds it and stores its state (the
  CPU's), so a run that was resumed on a CPU ends in the same weights, bit for bit. Prediction decodes the mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlib.modalities import check_available
from mmlib.networks.unet import Decoder, Encoder, Features, check_grid, encode_levels, masked_images
from mmlib.tasks.segmentation import segmentation_loss
from mmlib.training import Recipe

DIVERGENCE, RECONSTRUCTION = 0.1, 0.1  # weights in the loss


class Output(NamedTuple):
    """Logits (B, R, D, H, W), images (B, M, D, H, W), zero where missing, and the Gaussians of every scale."""

    logits: Tensor
    reconstructions: Tensor
    encoding: list[Tensor]


class GaussianEncoder(nn.Module):
    """An `Encoder` of one modality whose c maps become 2c at every scale: c means, then c log-variances."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.maps = Encoder(1, widths)
        self.stride = self.maps.stride
        self.heads = nn.ModuleList(nn.Conv3d(width, 2 * width, 1) for width in widths)

    def forward(self, x: Tensor) -> Features:
        """(N, 1, D, H, W) -> means and log-variances at every scale, channels 2c."""
        features = self.maps(x)
        levels = (*features.skips, features.bottleneck)
        *skips, bottleneck = [head(level) for head, level in zip(self.heads, levels, strict=True)]  # N 2c ... each
        return Features(tuple(skips), bottleneck, features.pooled)


class UHVED(nn.Module):
    """Segments regions, and reconstructs the images, from the product of the available modalities' Gaussians.

    Args:
        modalities: M names; the order of the modality axis.
        widths: channels per level.
        regions: number of output regions R.

    Raises:
        ValueError: in `forward`, on an empty set or a grid that the stride does not divide.
    """

    def __init__(self, modalities: Sequence[str], widths: Sequence[int] = (16, 32, 64), regions: int = 3):
        super().__init__()
        self.modalities = tuple(modalities)
        encoders = [GaussianEncoder(widths) for _ in self.modalities]
        self.encoders = nn.ModuleList(encoders)
        self.stride = encoders[0].stride
        self.decoder = Decoder(widths, 1, regions, len(self.modalities))
        self.image_decoders = nn.ModuleList(Decoder(widths, 1, 1) for _ in self.modalities)

    def encode(self, images: Tensor, available: Tensor) -> list[Tensor]:
        """The images (B, M, ...), and per scale means, then log-variances (B, M, 2c, ...); zero where missing."""
        check_available(available, self.modalities)
        check_grid(images, available, self.stride)
        return encode_levels(self.encoders, images, available)

    def decode(self, encoding: list[Tensor], available: Tensor) -> Tensor:
        """Encodings (1 or B, M, ...) and (B, M) -> logits (B, R, D, H, W), from the mean of the latents."""
        images, *levels = encoding
        *skips, bottleneck = [product_of_experts(level, available).mean for level in levels]
        return self.decoder(bottleneck, skips, masked_images(images, available))

    def forward(self, images: Tensor, available: Tensor, sample: bool = False) -> Output:
        """Segment and reconstruct.

        Args:
            images: (B, M, D, H, W) float.
            available: (B, M) bool.
            sample: decode a draw of the latents from torch's global generator, as in training; else their mean.
        """
        given, *encoding = self.encode(images, available)
        fused = [product_of_experts(level, available) for level in encoding]
        *skips, bottleneck = [latent.draw() if sample else latent.mean for latent in fused]
        logits = self.decoder(bottleneck, skips, given)
        reconstructions = torch.zeros_like(images)
        for m, decoder in enumerate(self.image_decoders):
            rows = available[:, m].nonzero().flatten()
            some = rows if len(rows) else rows.new_zeros(1)  # so that every weight has a gradient in every step
            image = decoder(bottleneck[some], [skip[some] for skip in skips])  # n 1 D H W; 1 1 D H W if n = 0
            reconstructions[rows, m] = image[: len(rows), 0].to(images.dtype)  # n D H W
        return Output(logits, reconstructions, encoding)


class Gaussian(NamedTuple):
    """Independent normal variables: mean and precision, 1 / variance; (B, c, d, h, w) each, in fp32 or better."""

    mean: Tensor
    precision: Tensor

    def draw(self) -> Tensor:
        """A reparametrised draw, from torch's global generator."""
        return self.mean + self.precision.rsqrt() * torch.randn_like(self.mean)

    def divergence(self, other: Gaussian) -> Tensor:
        """KL(self || other), the mean over elements; the two may broadcast."""
        squares = other.precision * (1 / self.precision + (self.mean - other.mean).square())
        return (squares.mean() - 1 + self.precision.log().mean() - other.precision.log().mean()) / 2


def product_of_experts(encoding: Tensor, available: Tensor) -> Gaussian:
    """Multiply the Gaussians of the available modalities and the prior N(0, 1).

    The precision is the sum of those of the experts, 1 / (variance + 1e-7), and of the prior's 1; the mean is the sum
    of precision times mean, over the precision.

    Args:
        encoding: (B, M, 2c, ...) or, for one case in B combinations, (1, M, 2c, ...): c means, then c log-variances,
            which are clipped to +-50. Finite, also where missing.
        available: (B, M) bool; a row without any modality gives the prior.

    Returns:
        Normal variables (B, c, ...).
    """
    # B M c ... each, or 1 M c ...
    mean, log_variance = encoding.to(torch.promote_types(encoding.dtype, torch.float32)).chunk(2, dim=2)
    precision = 1 / (log_variance.clamp(-50, 50).exp() + 1e-7)  # of each expert
    there = available.view(*available.shape, *(1,) * (mean.ndim - 2))  # B M 1 ... 1
    # B M c ... -> B c ... each; 0 x NaN would be NaN
    summed = [torch.where(there, x, 0).sum(dim=1) for x in (precision, precision * mean)]
    total = summed[0] + 1  # with the prior's precision
    return Gaussian(summed[1] / total, total)  # the product of experts, B c ...


def divergence_loss(encoding: Sequence[Tensor], available: Tensor) -> Tensor:
    """How far the latents of the available set A lie from those of its subsets S, and these from the prior.

    Per case and scale: the mean of KL(q_A || q_S) over the proper subsets, plus the mean of KL(q_S || N(0, 1)) over all
    subsets, A among them; both are means over elements too. It takes 2^|A| - 1 products a case, not 2^M - 1.

    Args:
        encoding: per scale (B, M, 2c, ...), see `product_of_experts`.
        available: (B, M) bool, with at least one modality a row.

    Returns:
        A scalar, the mean over cases and scales.
    """
    terms = []
    for level in encoding:
        for case, row in zip(level.split(1), available.tolist(), strict=True):
            choices = list(itertools.product(*[(False, True) if one else (False,) for one in row]))[1:]  # the last is A
            latent = product_of_experts(case, torch.tensor(choices, device=level.device))  # S c ..., S = 2^|A| - 1
            prior = Gaussian(latent.mean.new_zeros(()), latent.mean.new_ones(()))  # scalars, broadcast
            terms.append(latent.divergence(prior))  # KL(q_S || N(0, 1))
            if len(choices) > 1:
                parts, whole = zip(*(x.split([len(choices) - 1, 1]) for x in latent), strict=True)  # S-1 c ..., 1 c ...
                terms.append(Gaussian(*whole).divergence(Gaussian(*parts)))  # KL(q_A || q_S)
    return torch.stack(terms).sum() / (len(available) * len(encoding))


def uhved_loss(model: UHVED, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Segmentation loss + 0.1 divergence + 0.1 mean squared error of the available images, and the parts.

    Args:
        model: decodes a draw of the latents.
        batch: `images`, `available` and `regions` of the batch contract.
    """
    images, available = batch["images"], batch["available"]
    output = model(images, available, sample=True)
    task = segmentation_loss(output.logits, batch["regions"])
    divergence = divergence_loss(output.encoding, available)
    reconstruction = F.mse_loss(output.reconstructions[available], images[available])  # n D H W each
    total = task + DIVERGENCE * divergence + RECONSTRUCTION * reconstruction
    parts = {"task": task, "divergence": divergence, "reconstruction": reconstruction}
    return total, {name: part.detach() for name, part in parts.items()}


def recipe(method: str, variant: str, modalities: Sequence[str], widths: Sequence[int], regions: int = 3) -> Recipe:
    """What a run of this method trains: the network and its loss; it departs from the run's settings in nothing.

    Args:
        method: `u-hved`.
        variant: `standard`.
        modalities: M names.
        widths: channels per level.
        regions: output channels R.

    Raises:
        ValueError: on an unknown method or variant.
    """
    if (method, variant) != ("u-hved", "standard"):
        raise ValueError(f"this file has the method u-hved with the variant standard; got {method}, {variant}")
    return Recipe(UHVED(modalities, widths, regions), uhved_loss)
