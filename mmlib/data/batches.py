"""Training batches as a pure function of (seed, step): the same after an interruption, on every machine.

`Samples` prepares cases on demand; `Crops` draws cases, crops, flips and availability. Nothing is drawn elsewhere.
`Minibatches` draws nothing but the order, for data that need no crops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmlib.data.cases import Case, Orientation, tensors
from mmlib.modalities import draw


class Samples(Sequence):
    """The prepared samples of named cases; each is read when it is first asked for.

    Args:
        read: name -> Case, such as `cases.__getitem__` of a data set.
        names: the cases, in order.
        modalities: the network's modalities.
        keep: hold every sample in memory; right for small volumes, wrong for a whole BraTS.

    Raises:
        ValueError: where a case is asked for that is stored along other axes than the first.
    """

    def __init__(self, read: Callable[[str], Case], names: Sequence[str], modalities: Sequence[str], keep: bool = True):
        self.read, self.names, self.modalities = read, tuple(names), tuple(modalities)
        self.orientation = Orientation()
        self._sample = lru_cache(maxsize=None if keep else 1)(self._prepare)

    def _prepare(self, name: str) -> dict:
        case = self.read(name)
        self.orientation.check(case.name, case.axes)
        return tensors(case, self.modalities)[0]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._sample(self.names[index])


class Crops(Dataset):
    """Batch number `step` of random crops, on the batch contract.

    Every case is used once before any is used again. A crop is centred on a random voxel of a random non-empty
    region with probability `foreground`, else placed uniformly; it never leaves the volume, which is padded with zeros
    where it is smaller than the crop. Each axis is flipped with probability 1/2.

    Args:
        samples: prepared samples with `regions`.
        size: sides of the crop along (D, H, W), voxels; one number for a cube.
        batch_size: cases per batch.
        availability: the sampler, see `mmlib.modalities.draw`.
        seed: of every draw.
        rate: for the sampler `bernoulli`.
        fixed: (M,) bool, for the sampler `fixed`.
        foreground: share of crops centred on a tumour region.
        complete_steps: in so many first steps nothing is hidden: everything that a case has is available. The crops
            are the same as without.

    Raises:
        ValueError: if there are no samples, a sample has no regions, or `complete_steps` is negative or asked for with
            the sampler `fixed`.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        size: int | Sequence[int],
        batch_size: int,
        availability: str,
        seed: int,
        rate: float = 0.5,
        fixed: Tensor | None = None,
        foreground: float = 0.9,
        complete_steps: int = 0,
    ):
        if len(samples) == 0:
            raise ValueError("no training cases: check the data folder and the split")
        if complete_steps < 0 or (complete_steps and availability == "fixed"):
            raise ValueError(
                f"complete_steps is a number of first steps that hide nothing, 0 for the sampler 'fixed'; got "
                f"{complete_steps} with the sampler {availability!r}"
            )
        self.complete_steps = complete_steps
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.size = torch.tensor([size] * 3 if isinstance(size, int) else size)
        self.availability, self.rate, self.fixed, self.foreground = availability, rate, fixed, foreground

    def __getitem__(self, step: int) -> dict:
        samples, available, generator = self._plan(step)
        crops = [self._crop(sample, generator) for sample in samples]
        images = torch.stack([crop["images"] for crop in crops]).where(available[..., None, None, None], 0)
        regions = torch.stack([crop["regions"] for crop in crops])
        return {"images": images, "available": available, "regions": regions, "case": [one["case"] for one in samples]}

    def exposure(self, steps: int) -> dict[str, list[str]]:
        """Which modalities of which case the first `steps` batches show: case -> names, in the samples' order."""
        seen: dict[str, Tensor] = {}
        for step in range(steps):
            samples, available, _ = self._plan(step)
            for sample, row in zip(samples, available, strict=True):
                seen[sample["case"]] = seen.get(sample["case"], torch.zeros_like(row)) | row
        names = self.samples.modalities
        return {case: [names[m] for m in row.nonzero().flatten().tolist()] for case, row in sorted(seen.items())}

    def _plan(self, step: int) -> tuple[list[dict], Tensor, torch.Generator]:
        """The samples of a step, what is available of each, and the generator that the crops go on with."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        samples = [self.samples[index] for index in _turns(len(self.samples), self.batch_size, self.seed, step)]
        acquired = torch.stack([sample["available"] for sample in samples])
        drawn = draw(self.availability, acquired, generator, rate=self.rate, fixed=self.fixed)
        return samples, acquired if step < self.complete_steps else drawn, generator

    def _crop(self, sample: dict, generator: torch.Generator) -> dict:
        if "regions" not in sample:
            raise ValueError(
                f"case {sample['case']} has no segmentation: it cannot be trained on, leave it out of the split"
            )
        grid = torch.tensor(sample["images"].shape[1:])
        free = (grid - self.size).clamp(min=0)
        low = (torch.rand(3, generator=generator) * (free + 1)).long()
        if torch.rand((), generator=generator) < self.foreground:
            filled = [region for region in sample["regions"] if region.any()]
            if filled:
                voxels = filled[int(torch.randint(len(filled), (), generator=generator))].nonzero()
                centre = voxels[int(torch.randint(len(voxels), (), generator=generator))]
                low = torch.minimum((centre - self.size // 2).clamp(min=0), free)
        window = tuple(slice(a, a + side) for a, side in zip(low.tolist(), self.size.tolist(), strict=True))
        axes = [axis + 1 for axis in range(3) if torch.rand((), generator=generator) < 0.5]
        missing = (self.size - grid).clamp(min=0).tolist()
        padding = (0, missing[2], 0, missing[1], 0, missing[0])
        crop = {
            key: torch.nn.functional.pad(sample[key][(slice(None), *window)], padding).flip(axes)
            for key in ("images", "regions")
        }
        return crop


class Minibatches(Dataset):
    """Batch number `step` of a data set that lies in memory; every item is used once before any is used again.

    Args:
        pairs: has a length, and `pairs[indices]` is the batch of these items, such as `mmlib.data.avmnist.Pairs`.
        batch_size: items per batch; an epoch's last batch is filled up from the next epoch.
        seed: of the order.

    Attributes:
        per_epoch: batches in which every item has been used.

    Raises:
        ValueError: if there is no item.
    """

    def __init__(self, pairs, batch_size: int, seed: int):
        if len(pairs) == 0:
            raise ValueError("no training pairs: none has the modalities asked for; raise the audio rate")
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed
        self.per_epoch = math.ceil(len(pairs) / batch_size)

    def __getitem__(self, step: int) -> dict:
        return self.pairs[_turns(len(self.pairs), self.batch_size, self.seed, step)]


def _turns(count: int, size: int, seed: int, step: int) -> list[int]:
    """Positions of the items of a batch: epochs are shuffles of `count` items, strung together without a break."""
    first, offset = divmod(step * size, count)
    order: list[int] = []
    for epoch in range(first, first + math.ceil((offset + size) / count)):
        generator = torch.Generator().manual_seed(-1 - seed * 1_000_003 - epoch)
        order += torch.randperm(count, generator=generator).tolist()
    return order[offset : offset + size]
