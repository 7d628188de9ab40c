"""A reader's own network, and cases as MONAI hands them on, for `mmlib.tasks.segmentation.evaluate_combinations`.

A network is called as it is: with the stacked images alone, as MONAI's are, or with `available` too where its
`forward` has a parameter of that name. What a combination lacks is zero, or what `fill` puts there, and is never read.
Tensors of this package are (z, y, x), those of MONAI (x, y, z): a network of stacked images alone gets MONAI's order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmlib.data.cases import REGIONS, regions
from mmlib.modalities import check_available
from mmlib.networks.unet import check_grid, masked_images

STRIDE = 32  # divides the grid of nearly every published network
Fill = float | Callable[[Tensor, Tensor], Tensor]


class AnySegmenter(nn.Module):
    """A network that has no `encode` and `decode`, as a `mmlib.tasks.segmentation.Segmenter`.

    Args:
        network: `forward(images)` or `forward(images, available)`, images (K, M, D, H, W), available (K, M) bool; gives
            logits (K, R, D, H, W), or has them under `logits`, or gives several outputs, the first of which they are.
        modalities: M names in the order of its channels.
        classes: for a network that ends in a softmax, the classes of each region, such as `((1, 2, 3), (1, 3), (3,))`;
            empty: one sigmoid a region.
        fill: what stands for a missing modality: a number, or a function (images, available) -> images, such as a
            network that synthesises; what it returns where a modality is there is not used.
        stride: what sides of the grid must be multiples of; a window of whole volumes is rounded up to it.
        axes: "xyz" or "zyx", the order of the axes that it has learned with; empty: as the module says.

    Raises:
        ValueError: on other axes; in `decode`, if the network refuses the images or returns another grid; names the
            shapes.
    """

    def __init__(
        self,
        network: nn.Module,
        modalities: Sequence[str],
        *,
        classes: Sequence[Sequence[int]] = (),
        fill: Fill = 0.0,
        stride: int = STRIDE,
        axes: str = "",
    ):
        super().__init__()
        self.network, self.modalities, self.stride = network, tuple(modalities), (stride,) * 3
        self.classes, self.fill = [list(one) for one in classes], fill
        self.asks = "available" in inspect.signature(network.forward).parameters
        if axes not in ("", "xyz", "zyx"):
            raise ValueError(f"axes must be xyz (as MONAI's) or zyx (as this package's); got {axes}")
        self.turned = axes == "xyz" or not (axes or self.asks)

    def encode(self, images: Tensor, available: Tensor) -> Tensor:
        """The images themselves."""
        check_available(available, self.modalities)
        check_grid(images, available, self.stride)
        return images

    def decode(self, encoding: Tensor, available: Tensor) -> Tensor:
        """Images (1 or K, M, D, H, W) and (K, M) -> logits (K, R, D, H, W)."""
        images = masked_images(encoding, available)  # K M D H W
        if callable(self.fill):
            images = torch.where(available[..., None, None, None], images, self.fill(images, available))
        elif self.fill:
            images = images + self.fill * ~available[..., None, None, None]
        images = self._turn(images)
        try:
            found = self.network(images, available) if self.asks else self.network(images)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"the network refuses images {tuple(images.shape)} of {'+'.join(self.modalities)} ({error}): wrap it "
                f"in AnySegmenter and name its modalities in the order of its channels, and its stride if not {STRIDE}"
            ) from error
        logits = logits_of(found)
        if logits.ndim != 5 or len(logits) != len(images) or logits.shape[2:] != images.shape[2:]:
            raise ValueError(
                f"the network turns images {tuple(images.shape)} into {tuple(logits.shape)}: expected logits of the "
                f"same batch and grid, ({len(images)}, regions, {', '.join(map(str, images.shape[2:]))})"
            )
        return self._turn(self._of_regions(logits.as_subclass(Tensor)))

    def _turn(self, volumes: Tensor) -> Tensor:
        """(..., z, y, x) to the network's axes, or back."""
        return volumes.transpose(-3, -1).contiguous() if self.turned else volumes

    def _of_regions(self, logits: Tensor) -> Tensor:
        if not self.classes:
            return logits
        last, count = max(map(max, self.classes)), logits.shape[1]
        if last >= count:
            raise ValueError(f"classes go up to {last}, but the network has {count}: 0 to {count - 1}")
        shares = logits.softmax(dim=1)
        return torch.stack([shares[:, one].sum(dim=1) for one in self.classes], dim=1).logit(eps=1e-6)

    def forward(self, images: Tensor, available: Tensor) -> Tensor:
        """(B, M, D, H, W) float and (B, M) bool -> logits (B, R, D, H, W)."""
        return self.decode(self.encode(images, available), available)


def logits_of(output: Any) -> Tensor:
    """What a network gives as logits: a tensor, what it has under `logits`, or the first of several outputs."""
    found = getattr(output, "logits", output)
    return found if isinstance(found, Tensor) else found[0]


def as_segmenter(network: Any, modalities: Sequence[str]) -> Any:
    """The network itself where it is a `Segmenter`; else in an `AnySegmenter` with its own modalities, or these."""
    if all(hasattr(network, name) for name in ("encode", "decode", "modalities", "stride")):
        return network
    return AnySegmenter(network, getattr(network, "modalities", modalities))


@dataclass(frozen=True)
class Sample:
    """One case of a batch, as it is: neither normalised nor cut.

    Attributes:
        case: its name.
        images: (M, D, H, W), (z, y, x) as everywhere in this package.
        available: (M,) bool.
        truth: (R, D, H, W) bool.
        spacing: mm, along the axes.
    """

    case: str
    images: Tensor
    available: Tensor
    truth: Tensor
    spacing: tuple[float, ...]


def samples(batch: Mapping[str, Any], targets: Sequence[str], first: int = 0) -> Iterator[Sample]:
    """The cases of a dictionary of MONAI's, or of a batch of this package.

    Args:
        batch: MONAI's `image` and `label`, (M, X, Y, Z) or (B, M, X, Y, Z); or this package's `images` and `regions`,
            (M, D, H, W) or (B, M, D, H, W). A label has R channels, or one of raw labels. `available`, (M,) or (B, M)
            bool, all where it is not there; `case`, names. Sizes of voxels and names are taken from MONAI's metadata
            where there are any.
        targets: names of the R regions.
        first: number of its first case, for a name where there is none.

    Raises:
        ValueError: if a key is missing or shapes do not fit; names what there is.
    """
    ours = "images" in batch
    image, label = (batch.get(key) for key in (("images", "regions") if ours else ("image", "label")))
    if image is None or label is None:
        raise ValueError(f"a dictionary needs image and label, or images and regions; it has {sorted(map(str, batch))}")
    images, labels = (torch.as_tensor(one).as_subclass(Tensor) for one in (image, label))
    single = images.ndim == 4
    if single:
        images, labels = images[None], labels[None]
    if images.ndim != 5 or labels.ndim != 5 or labels.shape[2:] != images.shape[2:] or len(labels) != len(images):
        shapes = f"images {tuple(images.shape)}, labels {tuple(labels.shape)}"
        raise ValueError(f"{shapes}: expected (B, M, X, Y, Z) and (B, R, X, Y, Z), or both without B")
    count = len(images)
    there = torch.as_tensor(batch.get("available", torch.ones(count, images.shape[1], dtype=torch.bool)))
    affines = torch.as_tensor(getattr(image, "affine", torch.eye(4))).double().expand(count, 4, 4)
    files = getattr(image, "meta", {}).get("filename_or_obj", [None] * count)
    said = batch.get("case", [files] if single and not isinstance(files, list) else files)
    cases = [said] if isinstance(said, str) else list(said)
    if not ours:
        images, labels = images.transpose(-3, -1), labels.transpose(-3, -1)
    for row, (one, affine, case) in enumerate(zip(images, affines, cases, strict=True)):
        name = Path(case).name.removesuffix(".gz").removesuffix(".nii") if case else f"case-{first + row}"
        spacing = affine[:3, :3].square().sum(dim=0).sqrt().flip(0).tolist()
        available = there.reshape(count, -1)[row].bool()
        yield Sample(name, one, available, _regions(labels[row], targets, name), tuple(spacing))


def _regions(labels: Tensor, targets: Sequence[str], case: str) -> Tensor:
    """(R, D, H, W) bool of regions, or of raw labels (1, D, H, W)."""
    if len(labels) == len(targets):
        return labels > 0
    if len(labels) == 1 and set(targets) <= set(REGIONS):
        found = regions(np.asarray(labels[0].cpu()))
        return torch.from_numpy(found[[REGIONS.index(one) for one in targets]])
    raise ValueError(
        f"case {case}: its label has {len(labels)} channels, but the regions are {', '.join(targets)}: name as many"
    )
