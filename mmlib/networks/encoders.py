"""Encoders of photographs, volumes and bags of patches: an image in, one latent vector out, never negative.

The small ones are MONAI's ResNet with one block a level. The large ones stand for those of Deep Multimodal Guidance:
ResNet-50 (2048 features) where its code has an Inception-v3 of that many, MONAI's DenseNet121 for volumes (1024), and
for bags of patches the attention pooling of CLAM (Lu et al., Nature Biomedical Engineering 2021; 512 features) on the
first three levels of a ResNet-50 (1024). None is pretrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets import DenseNet121, ResNet, resnet50
from torch import Tensor, nn

KINDS = ("photograph", "volume", "bag")
SIZES = ("small", "paper")


class AttentionPool(nn.Module):
    """Gated attention over the patches of a bag (Ilse et al., ICML 2018), as CLAM has it: one vector a bag.

    Args:
        in_features: of a patch.
        features: of the bag.
        hidden: width of the gate.
    """

    def __init__(self, in_features: int, features: int = 512, hidden: int = 256):
        super().__init__()
        self.project = nn.Linear(in_features, features)
        self.content, self.gate = nn.Linear(features, hidden), nn.Linear(features, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, patches: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Pool.

        Args:
            patches: features (B, P, in_features).
            present: (B, P) bool, True where there is a patch; what else the bag holds counts for nothing.

        Returns:
            Features (B, features), not negative, and the weights of the patches (B, P), which sum to 1.

        Raises:
            ValueError: if a bag has no patch.
        """
        if not present.any(dim=1).all():
            raise ValueError(f"bag {int((~present.any(dim=1)).nonzero()[0])} of the batch has no patch: leave it out")
        projected = F.relu(self.project(torch.where(present[..., None], patches, 0)))  # B P features
        # gated attention: B P hidden -> B P 1 -> B P
        scores = self.score(torch.tanh(self.content(projected)) * torch.sigmoid(self.gate(projected))).squeeze(-1)
        weights = scores.float().masked_fill(~present, -torch.inf).softmax(dim=1)
        return (weights[..., None] * projected).sum(dim=1), weights  # B P features -> B features; B P


class BagEncoder(nn.Module):
    """A patch encoder, then `AttentionPool`.

    Args:
        patch: (n, 3, h, w) -> (n, in_features).
        in_features, features, hidden: as in `AttentionPool`.
    """

    def __init__(self, patch: nn.Module, in_features: int, features: int, hidden: int):
        super().__init__()
        self.patch = patch
        self.pool = AttentionPool(in_features, features, hidden)

    def forward(self, bags: Tensor, present: Tensor) -> Tensor:
        """(B, P, 3, h, w) and (B, P) bool -> (B, features); absent patches are not encoded."""
        found = self.patch(bags[present])  # n in_features, of the n patches that are there
        patches = found.new_zeros(*present.shape, found.shape[-1])  # B P in_features
        patches[present] = found
        return self.pool(patches, present)[0]


def small_resnet(widths: Sequence[int], dimensions: int, channels: int) -> nn.Module:
    """A ResNet with one basic block a level that halves the image in every level; pooled, so `widths[-1]` features."""
    return ResNet(
        "basic",
        [1] * 4,
        list(widths),
        spatial_dims=dimensions,
        n_input_channels=channels,
        conv1_t_size=3,
        conv1_t_stride=2,
        no_max_pool=True,
        feed_forward=False,
    )


def encoder(kind: str, size: str = "small") -> tuple[nn.Module, int]:
    """An encoder and the length of its latent.

    Args:
        kind: `photograph`, images (B, 3, H, W); `volume`, images (B, 1, D, H, W); or `bag`,
            patches (B, P, 3, h, w) with the mask of those that are present (B, P).
        size: `small` (128, 64 and 32 features) or `paper` (2048, 1024 and 512).

    Raises:
        ValueError: on an unknown kind or size.
    """
    if kind not in KINDS or size not in SIZES:
        raise ValueError(f"an encoder is one of {KINDS} in a size of {SIZES}; got {kind!r}, {size!r}")
    if size == "small":
        if kind == "photograph":
            return small_resnet((16, 32, 64, 128), 2, 3), 128
        if kind == "volume":
            return small_resnet((8, 16, 32, 64), 3, 1), 64
        return BagEncoder(small_resnet((8, 16, 32, 64), 2, 3), 64, 32, 16), 32
    if kind == "photograph":
        return resnet50(spatial_dims=2, n_input_channels=3, feed_forward=False), 2048
    if kind == "volume":
        dense = DenseNet121(spatial_dims=3, in_channels=1, out_channels=1)
        return nn.Sequential(dense.features, nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()), 1024  # B 1024
    patch: Any = resnet50(spatial_dims=2, n_input_channels=3, feed_forward=False)
    patch.layer4 = nn.Identity()  # MONAI's types know no ResNet of three levels
    return BagEncoder(patch, 1024, 512, 256), 512
