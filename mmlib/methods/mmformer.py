"""mmFormer: attention within every modality, then across the available ones, at the bottleneck of a U-Net.

Paper: Yao Zhang, Nanjun He, Jiawei Yang, Yuexiang Li, Dong Wei, Yawen Huang, Yang Zhang, Zhiqiang He, Yefeng Zheng,
"mmFormer: Multimodal Medical Transformer for Incomplete Multimodal Learning of Brain Tumor Segmentation", MICCAI 2022,
arXiv 2206.02425. Implemented: hybrid encoders (convolutions, then an intra-modal transformer), the inter-modal
transformer with zeros for missing modalities, and the auxiliary losses of encoders and decoder. Released code
consulted: YaoZhang93/mmFormer at 9de0bf7 (mmFormer/mmformer.py), which has no licence; nothing of it is copied.

What differs
- Encoders and decoder are the book's own blocks: a strided stem, as many scales as widths (released: five, from the
  full grid on), one convolution on the images at full resolution. Tokens are as wide as the bottleneck, with four heads
  (released: 512 wide, eight heads, between two 1x1x1 convolutions); the hidden layer is eight times as wide, as there.
- Positions are learnt on a grid of 4^3 and interpolated to others, so that a net takes volumes of any size (released:
  8^3 tokens of crops of 128^3, and no others).
- After the inter-modal transformer a place of the bottleneck gets the tokens of its own place, one from each modality.
  The released code reshapes tokens of one modality after another, so that a place gets M neighbours in the list
  instead, mostly of one modality and of other places. That is the variant `released`.
- Missing modalities are zero tokens with a position, and attention sees them, as in the released code. The variant
  `masked` hides them. `convolutional` has no transformer, `unregularised` no auxiliary loss.
- The last layers give R sigmoids with the book's loss; the released ones a softmax with weighted cross-entropy and
  Dice. Deep supervision reads every scale below the last, raised by trilinear interpolation, as released.
- A batch holds images of the available modalities only. So the shared auxiliary decoder segments these (released: all
  four), summed over modalities as there. It reads the convolutions' features, before the transformer (released).
- The paper draws missing modalities by a Bernoulli variable each, the released code one of 15 subsets; here the run's
  sampler does (`bernoulli` or `uniform-subsets`). Dropout in the transformers is 0.1 (released); its draws come from
  torch's global generator, which `fit` seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlib.modalities import check_available
from mmlib.networks.unet import Decoder, Encoder, Features, check_grid, encode_levels, masked_images, where_available
from mmlib.tasks.segmentation import segmentation_loss
from mmlib.training import Recipe

GRID = 4  # side of the grid on which positions are learnt: that of the bottleneck of a crop of 32
HEADS = 4
HIDDEN = 8  # times the width of the tokens
DROPOUT = 0.1


@dataclass(frozen=True)
class Variant:
    """Where paper, released code and ablations differ.

    Attributes:
        shuffled: reshape tokens as the released code does.
        masked: hide missing modalities from attention.
        transformers: have both of them.
        regularised: have the auxiliary losses.
    """

    shuffled: bool = False
    masked: bool = False
    transformers: bool = True
    regularised: bool = True


VARIANTS = {
    "standard": Variant(),
    "released": Variant(shuffled=True),
    "masked": Variant(masked=True),
    "convolutional": Variant(transformers=False),
    "unregularised": Variant(regularised=False),
}


class Output(NamedTuple):
    """Logits (B, R, D, H, W), and those of the auxiliary losses in training.

    Attributes:
        logits: of the decoder.
        deep: of its scales from coarse to fine, each (B, R, d, h, w).
        alone: (n, R, D, H, W), of every available modality by itself, in the order of `available.nonzero()`.
    """

    logits: Tensor
    deep: list[Tensor]
    alone: Tensor


class Transformer(nn.Module):
    """One layer of attention over the tokens of M modalities, which know their place and modality by learnt positions.

    Args:
        count: modalities M.
        width: of the tokens, a multiple of `HEADS`.
    """

    def __init__(self, count: int, width: int):
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(count, width, GRID, GRID, GRID))
        self.layer = nn.TransformerEncoderLayer(
            width, HEADS, HIDDEN * width, DROPOUT, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Tokens that know of each other.

        Args:
            x: (B, M, C, d, h, w).
            hidden: (B, M) bool, modalities that attention does not see; None: it sees all.

        Returns:
            (B, M, d*h*w, C).
        """
        grid = x.shape[3:]
        places = F.interpolate(self.positions, grid, mode="trilinear")  # M C d h w
        tokens = (x + places).flatten(3).transpose(2, 3).flatten(1, 2)  # B M*d*h*w C
        mask = None if hidden is None else hidden.repeat_interleave(grid.numel(), dim=1)  # B M*d*h*w
        return self.layer(tokens, src_key_padding_mask=mask).unflatten(1, (x.shape[1], grid.numel()))


class HybridEncoder(nn.Module):
    """Convolutions, then attention among the places of one modality. The last of the skips is the convolutions' end."""

    def __init__(self, widths: Sequence[int], transformers: bool = True):
        super().__init__()
        self.convolutions = Encoder(1, widths)
        self.stride = self.convolutions.stride
        self.intra = Transformer(1, widths[-1]) if transformers else None

    def forward(self, x: Tensor) -> Features:
        """(N, 1, D, H, W) -> skips from fine to coarse, the bottleneck's among them, and local tokens as a map."""
        features = self.convolutions(x)
        local = features.bottleneck
        if self.intra is not None:
            tokens = self.intra(local.unsqueeze(1))  # N 1 d*h*w C
            local = tokens.squeeze(1).transpose(1, 2).unflatten(2, local.shape[2:])  # N C d h w
        return Features((*features.skips, features.bottleneck), local, features.pooled)


class MmFormer(nn.Module):
    """Segments regions from tokens of all modalities and skips of the available ones.

    Args:
        modalities: M names; the order of the modality axis.
        widths: channels per level; the last is a multiple of 4.
        regions: number of output regions R.
        variant: see `Variant`.

    Raises:
        ValueError: in `forward`, on an empty set or a grid that the stride does not divide.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        widths: Sequence[int] = (16, 32, 64),
        regions: int = 3,
        variant: Variant = VARIANTS["standard"],
    ):
        super().__init__()
        self.modalities = tuple(modalities)
        self.variant = variant
        count = len(self.modalities)
        encoders = [HybridEncoder(widths, variant.transformers) for _ in self.modalities]
        self.encoders = nn.ModuleList(encoders)
        self.stride = encoders[0].stride
        self.inter = Transformer(count, widths[-1]) if variant.transformers else None
        self.decoder = Decoder(widths, count, regions, count)
        if variant.regularised:
            read = [count * widths[-1], *reversed(widths[:-1])]  # channels from coarse to fine
            self.deep = nn.ModuleList(nn.Conv3d(width, regions, 1) for width in read)
            self.shared_decoder = Decoder(widths, 1, regions, 1)

    def encode(self, images: Tensor, available: Tensor) -> list[Tensor]:
        """Images, maps from fine to coarse and local tokens of the available modalities, zero at missing ones.

        Each is (B, M, ...). Attention within a modality does not depend on the combination, so it is done here.
        """
        check_available(available, self.modalities)
        check_grid(images, available, self.stride)
        return encode_levels(self.encoders, images, available)

    def fuse(self, local: Tensor, available: Tensor) -> Tensor:
        """Attention across modalities.

        Args:
            local: (1 or B, M, C, d, h, w).
            available: (B, M) bool.

        Returns:
            (B, M*C, d, h, w).
        """
        local = where_available(available, local, local.new_zeros(()))  # B M C d h w
        if self.inter is None:
            return local.flatten(1, 2)
        tokens = self.inter(local, ~available if self.variant.masked else None)  # B M d*h*w C
        if self.variant.shuffled:
            # the list of all tokens, cut in pieces of M: B M*d*h*w C -> B d*h*w M*C -> B M*C d h w
            listed = tokens.flatten(1, 2).unflatten(1, (tokens.shape[2], tokens.shape[1])).flatten(2)
            return listed.transpose(1, 2).unflatten(2, local.shape[3:])
        return tokens.transpose(2, 3).flatten(1, 2).unflatten(2, local.shape[3:])  # B M*C d h w

    def decode(self, encoding: list[Tensor], available: Tensor) -> Tensor:
        """What `encode` gives, of B cases or one, and (B, M) -> logits (B, R, D, H, W)."""
        return self._decode(encoding, available)[0]

    def _decode(self, encoding: list[Tensor], available: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and the decoder's maps from coarse to fine."""
        images, *skips, _, local = encoding  # `_`: what the transformer has read
        net = self.decoder
        x = self.fuse(local, available)
        maps = [x]
        for up, reduce, conv, skip in zip(net.ups, net.skips, net.convs, reversed(skips), strict=True):
            stacked = where_available(available, skip, skip.new_zeros(())).flatten(1, 2)  # B M*c d h w
            x = conv(up(x) + reduce(stacked))  # B c d h w
            maps.append(x)
        raised = torch.cat([net.up(x), masked_images(images, available)], dim=1)  # B 8+M D H W
        return net.out(net.fine(raised)), maps  # B R D H W

    def forward(self, images: Tensor, available: Tensor) -> Output:
        """(B, M, D, H, W) float and (B, M) bool -> `Output`; outside training without the auxiliary logits."""
        encoding = self.encode(images, available)
        logits, maps = self._decode(encoding, available)
        if not (self.variant.regularised and self.training):
            return Output(logits, [], logits[:0])
        given, *skips, bottleneck, _ = [level[available] for level in encoding]  # n D H W, then n c ... each
        alone = self.shared_decoder(bottleneck, skips, given.unsqueeze(1))  # n R D H W
        return Output(logits, [head(x) for head, x in zip(self.deep, maps, strict=True)], alone)


def mmformer_loss(model: MmFormer, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the logits + that of each modality alone + that of every scale of the decoder, and the parts.

    Args:
        model: in training mode, or the last two are missing.
        batch: `images`, `available` and `regions` of the batch contract.
    """
    available, regions = batch["available"], batch["regions"]
    output = model(batch["images"], available)
    task = segmentation_loss(output.logits, regions)
    alone = deep = task.new_zeros(())
    if output.deep:
        case, _ = available.nonzero(as_tuple=True)  # n
        # a mean over n, made a sum over modalities and a mean over cases
        alone = segmentation_loss(output.alone, regions[case]) * len(case) / len(available)
        raised = [F.interpolate(one.float(), regions.shape[2:], mode="trilinear") for one in output.deep]
        deep = torch.stack([segmentation_loss(one, regions) for one in raised]).sum()  # over scales
    parts = {"task": task, "alone": alone, "deep": deep}
    return task + alone + deep, {name: part.detach() for name, part in parts.items()}


def recipe(method: str, variant: str, modalities: Sequence[str], widths: Sequence[int], regions: int = 3) -> Recipe:
    """What a run of this method trains: the network and its loss; it departs from the run's settings in nothing.

    Args:
        method: `mmformer`.
        variant: a key of `VARIANTS`.
        modalities: M names.
        widths: channels per level.
        regions: output channels R.

    Raises:
        ValueError: on an unknown method or variant.
    """
    if method != "mmformer" or variant not in VARIANTS:
        raise ValueError(
            f"this file has the method mmformer with the variants {', '.join(VARIANTS)}; got {method}, {variant}"
        )
    return Recipe(MmFormer(modalities, widths, regions, VARIANTS[variant]), mmformer_loss)
