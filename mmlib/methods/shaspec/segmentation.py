"""ShaSpec: shared and specific features, one model for any subset of modalities.

Paper: Hu Wang, Yuanhong Chen, Congbo Ma, Jodie Avery, Louise Hull, Gustavo Carneiro, "Multi-modal Learning with Missing
Modality via Shared-Specific Feature Modelling", CVPR 2023, arXiv 2307.14126. Implemented: Eq. 1-9; the
post-processing of ShaSpec* is in `postprocessing` beside this file. Released code consulted through a written
description: billhhh/ShaSpec at 081fe7a, which has no licence; nothing of it is copied.

What differs
- `ShaSpecSegmenter(topology="small")` keeps the rules of the released network (fusion at the bottleneck only, skips
  from the shared encoder only, one projection for all modalities, modality classifier on pooled specific features) at
  widths that train on a CPU. `topology="released"` is the network of the released code, 187,708,132 parameters.
- The decoder of the small topology sees the available images again at full resolution, as in all small networks of the
  book; the released one ends at half the grid and is interpolated.
- Encoders run on the available modalities only. Instance norm has no statistics across the batch, so this changes no
  number, and an absent volume cannot reach the output. Of the encoders' work it saves the missing share, almost half on
  average, but for the variants that encode a blank volume.
- The released code trains its first 80,000 of 180,000 steps on complete sets. From scratch it needs them: in the
  variant `released` with topology `released` a blank volume passes chains of instance norms of zero variance, and the
  gradient of the first step with one modality is not finite. `fit` stops there; `complete_steps` of
  `mmlib.data.batches.Crops` is that first stage.
- Paper and released code disagree in places; each is a switch listed in `VARIANTS`. The paper is silent on the skips of
  a missing modality; here they are zero (UNVERIFIED), and the other readings are switches too.
- The alignment losses `kl` and `ce` read spatial means of the shared features, through a learnt head (UNVERIFIED); the
  released code has L1 alone.
- Optimiser, augmentation and intensity clipping of the released code belong to the run, not to this file.
- The released code fills with the first available modality of a list in random order; here the order is fixed
  (`FILL_ORDER`, that of the released code).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmlib.methods.shaspec.losses import KINDS, alignment_head, alignment_loss, domain_loss
from mmlib.modalities import check_available, parse
from mmlib.networks.unet import (
    Decoder,
    Encoder,
    ResNetDecoder,
    ResNetEncoder,
    StandardisedConv3d,
    available_mean,
    check_grid,
    encode_rows,
    masked_images,
    where_available,
)
from mmlib.tasks.segmentation import segmentation_loss
from mmlib.training import Recipe

FILL_ORDER = ("flair", "t1", "t1ce", "t2")
ONLY = "only-"  # begins the name of a net for one combination


@dataclass(frozen=True)
class Variant:
    """The places where paper and released code differ, and the weights of the losses; the defaults are the paper's.

    Attributes:
        fill: embedding of a missing modality: `mean` of the available shared features (Eq. 4) or that of the `first`.
        skips: skip maps of a missing modality, on which the paper is silent: `zeros`, the `mean` of the available
            ones, or the encoding of a `blank` volume of zeros (released code).
        pairs: pairs of the alignment loss: `all`, or the `ring` of M neighbours.
        masked: leave missing modalities out of the auxiliary losses (section 3.3.3), or use the encoding of zeros.
        schedule: learning rate: `cosine` or `poly`.
        kind: alignment loss: `l1`, `mse`, `kl` or `ce`.
        alpha: weight of the alignment loss on shared features.
        beta: weight of the modality classification on specific features.
    """

    fill: str = "mean"
    skips: str = "zeros"
    pairs: str = "all"
    masked: bool = True
    schedule: str = "cosine"
    kind: str = "l1"
    alpha: float = 0.1
    beta: float = 0.02


VARIANTS = {
    "paper": Variant(),
    # each difference of the released code alone, then all of them
    "first-available": Variant(fill="first"),
    "blank-skips": Variant(skips="blank"),
    "ring": Variant(pairs="ring"),
    "unmasked": Variant(masked=False),
    "poly": Variant(schedule="poly"),
    "released": Variant(fill="first", skips="blank", pairs="ring", masked=False, schedule="poly"),
    # the other reading of what the paper leaves open, and the corners of its figure 4
    "mean-skips": Variant(skips="mean"),
    "alpha-0": Variant(alpha=0),
    "beta-0": Variant(beta=0),
    "alpha-0-beta-0": Variant(alpha=0, beta=0),
    "alpha-1-beta-1": Variant(alpha=1, beta=1),
}


def variant_of(name: str) -> Variant:
    """Read the name of a variant.

    Args:
        name: a key of `VARIANTS`; `mse-0.1`: another alignment loss, or another weight of it; `alpha-0.1-beta-0.5`:
            other weights of both losses; `only-t1+flair`: the paper's variant, for a net of one combination.

    Raises:
        ValueError: on any other name.
    """
    number = r"(\d+(?:\.\d+)?)"
    if name in VARIANTS:
        return VARIANTS[name]
    if name.startswith(ONLY):
        return VARIANTS["paper"]
    if found := re.fullmatch(rf"({'|'.join(KINDS)})-{number}", name):
        return Variant(kind=found[1], alpha=float(found[2]))
    if found := re.fullmatch(rf"alpha-{number}-beta-{number}", name):
        return Variant(alpha=float(found[1]), beta=float(found[2]))
    raise ValueError(
        f"there is no variant {name!r} of ShaSpec: choose one of {', '.join(VARIANTS)}, or "
        f"<{'|'.join(KINDS)}>-<weight>, alpha-<weight>-beta-<weight>, {ONLY}<combination>"
    )


class Encoding(NamedTuple):
    """Per-modality features, which do not depend on the combination that is decoded later.

    Attributes:
        shared: (B, M, C, d, h, w), r in Eq. 1.
        specific: (B, M, C, d, h, w), s in Eq. 1.
        skips: from fine to coarse, each (B, M, c, ...), of the shared encoder.
        pooled: (B, M, C), spatial mean of the specific encoder's output.
        blank: like `skips`, (1, c, ...), of a zero volume; zero where the variant does not need it.
        images: (B, M, D, H, W), zero where missing; the small topology decodes with them.
    """

    shared: Tensor
    specific: Tensor
    skips: tuple[Tensor, ...]
    pooled: Tensor
    blank: tuple[Tensor, ...]
    images: Tensor


class Output(NamedTuple):
    """What `ShaSpecSegmenter` returns: logits (B, R, D, H, W), the features, and domain logits (B, M, M).

    `fused` (B, M, C, d, h, w) is f of Eq. 2 and 4, the decoder's input. `shared` and `specific` are zero at missing
    modalities, unless the variant encodes blank volumes there.
    """

    logits: Tensor
    shared: Tensor
    specific: Tensor
    fused: Tensor
    domain_logits: Tensor


class ShaSpecSegmenter(nn.Module):
    """Segments regions from any non-empty subset of modalities (paper, section 3; figure 2).

    Args:
        modalities: M names; the order of the modality axis.
        widths: channels per level of the small topology; ignored by the released one.
        regions: number of output regions R.
        topology: `small` or `released`.
        variant: see `Variant`; only `fill`, `skips`, `masked` and `kind` concern the network.

    Raises:
        ValueError: in `forward`, if the grid is not divisible by the stride (the message names the next legal size), if
            `images` and `available` disagree, or if a case has no modality.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        widths: Sequence[int] = (16, 32, 64),
        regions: int = 3,
        topology: str = "small",
        variant: Variant = VARIANTS["paper"],
    ):
        super().__init__()
        if topology not in ("small", "released"):
            raise ValueError(f"topology must be 'small' or 'released'; got {topology!r}")
        self.modalities = tuple(modalities)
        self.variant = variant
        count = len(self.modalities)
        small = topology == "small"
        channels = widths[-1] if small else 256
        self.shared = Encoder(1, widths) if small else ResNetEncoder()
        self.stride = self.shared.stride
        self.specific = nn.ModuleList(Encoder(1, widths) if small else ResNetEncoder() for _ in range(count))
        self.projection = StandardisedConv3d(2 * channels, channels, 3)
        self.decoder = Decoder(widths, count, regions, count) if small else ResNetDecoder(count, regions)
        self.domain_head = nn.Linear(channels, count)
        order = [name for name in FILL_ORDER if name in self.modalities]
        order += [name for name in self.modalities if name not in order]
        self.fill_order = [self.modalities.index(name) for name in order]
        self.alignment_head = alignment_head(variant.kind, channels, count)  # last: other weights are drawn as without

    def encode(self, images: Tensor, available: Tensor) -> Encoding:
        """Encode every available modality once (Eq. 1).

        Args:
            images: (B, M, D, H, W); content at missing modalities is never read.
            available: (B, M) bool.
        """
        check_available(available, self.modalities)
        check_grid(images, available, self.stride)
        blank = self.variant.skips == "blank" or not self.variant.masked
        # Eq. (1), r: B*M D H W -> B*M+1 C d h w, the last row standing for what is missing
        encoded = encode_rows(self.shared, images.flatten(0, 1), available.flatten(), blank)
        # B M C d h w; skips B M c ...
        shared, *skips = (rows[:-1].unflatten(0, available.shape) for rows in (encoded.bottleneck, *encoded.skips))
        # Eq. (1), s: for each modality B D H W -> B+1 C d h w
        specific = [encode_rows(net, images[:, m], available[:, m], blank) for m, net in enumerate(self.specific)]
        return Encoding(
            shared,
            torch.stack([rows.bottleneck[:-1] for rows in specific], dim=1),  # B M C d h w
            tuple(skips),
            torch.stack([rows.pooled[:-1] for rows in specific], dim=1),  # B M C
            tuple(skip[-1:] for skip in encoded.skips),  # 1 c ... each
            masked_images(images, available),  # B M D H W
        )

    def fuse(self, encoding: Encoding, available: Tensor) -> Tensor:
        """Combine shared and specific features (Eq. 2), and fill in the missing modalities (Eq. 4).

        Args:
            encoding: of the same cases, with at least the modalities of `available`.
            available: (B, M) bool.

        Returns:
            (B, M, C, d, h, w).
        """
        both = torch.cat([encoding.shared, encoding.specific], dim=2)  # B (or 1) M 2*C d h w
        residual = self.projection(both.flatten(0, 1)).unflatten(0, both.shape[:2])  # B*M 2*C ... -> B M C d h w
        fused = encoding.shared + residual  # Eq. (2)
        if self.variant.fill == "mean":
            return where_available(available, fused, available_mean(encoding.shared, available))  # Eq. (4); B M C d h w
        order = torch.tensor(self.fill_order, device=available.device)
        first = order[available[:, self.fill_order].int().argmax(dim=1)]  # B
        every = encoding.shared.expand(len(available), *encoding.shared.shape[1:])  # B M C d h w
        # substitute: B 1 C d h w
        return where_available(
            available, fused, every[torch.arange(len(available), device=first.device), first].unsqueeze(1)
        )

    def decode(self, encoding: Encoding, available: Tensor) -> Tensor:
        """Decode any combination of encoded modalities (Eq. 3), logits (B, R, D, H, W).

        One encoded case may be decoded for B combinations at once: then `encoding` has batch size 1.
        """
        return self._decode(encoding, self.fuse(encoding, available), available)

    def _decode(self, encoding: Encoding, fused: Tensor, available: Tensor) -> Tensor:
        skips = []
        for skip, blank in zip(encoding.skips, encoding.blank, strict=True):
            if self.variant.skips == "mean":
                substitute = available_mean(skip, available)  # B 1 c ...
            else:
                # 1 1 c ..., or a scalar
                substitute = blank.unsqueeze(1) if self.variant.skips == "blank" else skip.new_zeros(())
            skips.append(where_available(available, skip, substitute).flatten(1, 2))  # B M*c ...
        bottleneck = fused.flatten(1, 2)  # B M*C d h w
        if isinstance(self.decoder, ResNetDecoder):
            return self.decoder(bottleneck, skips)  # Eq. (3); B R D H W
        return self.decoder(bottleneck, skips, masked_images(encoding.images, available))  # Eq. (3); B R D H W

    def forward(self, images: Tensor, available: Tensor) -> Output:
        """(B, M, D, H, W) float and (B, M) bool -> `Output`."""
        encoding = self.encode(images, available)
        fused = self.fuse(encoding, available)
        logits = self._decode(encoding, fused, available)
        return Output(logits, encoding.shared, encoding.specific, fused, self.domain_head(encoding.pooled))


def shaspec_loss(model: ShaSpecSegmenter, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """The whole objective on a batch: L = L_task + alpha L_DAO + beta L_DCO (Eq. 9), and its parts.

    Args:
        model: its variant says which pairs and modalities count, the alignment loss, alpha and beta.
        batch: `images`, `available` and `regions` of the batch contract.
    """
    available, variant = batch["available"], model.variant
    output = model(batch["images"], available)
    counted = available if variant.masked else torch.ones_like(available)
    task = segmentation_loss(output.logits, batch["regions"])
    alignment = alignment_loss(output.shared, counted, variant.kind, variant.pairs, model.alignment_head)
    domain = domain_loss(output.domain_logits, counted)
    total = task + variant.alpha * alignment + variant.beta * domain  # Eq. (9)
    return total, {"task": task.detach(), "alignment": alignment.detach(), "domain": domain.detach()}


def recipe(
    method: str, variant: str, modalities: Sequence[str], widths: Sequence[int] | str, regions: int = 3
) -> Recipe:
    """What a run of this method trains.

    Args:
        method: `shaspec`.
        variant: see `variant_of`.
        modalities: M names.
        widths: channels per level, or `released` for the network of the released code.
        regions: output channels R.

    Raises:
        ValueError: on an unknown method, variant or combination.
    """
    if method != "shaspec":
        raise ValueError(f"this file has the method shaspec; got {method}")
    chosen = variant_of(variant)
    alone = parse(variant.removeprefix(ONLY), modalities) if variant.startswith(ONLY) else None
    if isinstance(widths, str):
        model = ShaSpecSegmenter(modalities, topology="released", variant=chosen, regions=regions)
    else:
        model = ShaSpecSegmenter(modalities, widths, variant=chosen, regions=regions)
    return Recipe(model, shaspec_loss, {"schedule": chosen.schedule}, combination=alone)
