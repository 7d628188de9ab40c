"""ShaSpec for an image and a spoken digit: two modalities of different shape, one shared encoder.

Paper: Wang et al., CVPR 2023, sections 4.1, 4.2 and 4.4. This half was never released: what is written here follows
the text alone, and the text leaves much open.

What the paper says: encoders "from SMIL"; fusion just before the fully connected layers; a classifier of two of them
with dropout between; cross-entropy; Adam, learning rate 1e-3, weight decay 1e-2, 60 epochs; 0.22 million parameters.

What it does not say, so that the choice is ours (UNVERIFIED): how one shared encoder takes a 28x28 image and a 20x20
field of cepstral coefficients. Two designs are built and compared:
- `stems`: a convolutional stem for each modality brings it to a vector of one width, an MLP for both follows. Only the
  MLP is shared.
- `padded`: the coefficients are padded to 28x28, and one convolutional trunk takes both.
Also UNVERIFIED: the width, the loss weights for this task (those of segmentation are taken), the batch size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlib.data.avmnist import MODALITIES, Pairs
from mmlib.methods.shaspec.losses import alignment_head, alignment_loss, domain_loss
from mmlib.methods.shaspec.segmentation import Variant, variant_of
from mmlib.modalities import check_available
from mmlib.networks.lenet import AUDIO_FEATURES, CLASSES, IMAGE_FEATURES, AudioTrunk, ImageTrunk
from mmlib.networks.unet import available_mean, where_available
from mmlib.tasks.classification import Budget, Stages, Trained

DESIGNS = ("stems", "padded")


class Output(NamedTuple):
    """What `ShaSpecClassifier` returns: logits (B, K), features (B, 2, C), and domain logits (B, 2, 2).

    `shared` and `specific` are zero at a missing modality; `fused` is f of Eq. 2 and 4.
    """

    logits: Tensor
    shared: Tensor
    specific: Tensor
    fused: Tensor
    domain_logits: Tensor


class ShaSpecClassifier(nn.Module):
    """Classifies a digit from its image, its sound, or both.

    Args:
        width: of shared and specific features C; 160 is the width of the image encoder and meets the paper's budget.
        classes: K.
        design: of the shared encoder, `stems` or `padded`; see the header of this file.
        variant: the weights and the kind of the losses, and `fill`.

    Raises:
        ValueError: on an unknown design.
    """

    modalities = MODALITIES

    def __init__(self, width: int = 160, classes: int = CLASSES, design: str = "stems", variant: Variant | None = None):
        super().__init__()
        if design not in DESIGNS:
            raise ValueError(f"design must be one of {DESIGNS}; got {design!r}")
        self.width, self.design, self.variant = width, design, variant or Variant()
        sizes = {"image": IMAGE_FEATURES, "audio": AUDIO_FEATURES}
        self.specific = nn.ModuleDict(
            {name: nn.Sequential(trunk(name), _narrow(sizes[name], width)) for name in MODALITIES}
        )
        if design == "stems":
            self.stems = nn.ModuleDict(
                {name: nn.Sequential(trunk(name), _narrow(sizes[name], width)) for name in MODALITIES}
            )
            self.shared: nn.Module = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        else:
            self.stems = nn.ModuleDict({"image": nn.Identity(), "audio": nn.ZeroPad2d(4)})
            self.shared = nn.Sequential(ImageTrunk(), _narrow(IMAGE_FEATURES, width))
        self.projection = nn.Linear(2 * width, width)
        self.head = nn.Sequential(nn.Linear(2 * width, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, classes))
        self.domain_head = nn.Linear(width, len(MODALITIES))
        self.alignment_head = alignment_head(self.variant.kind, width, len(MODALITIES))

    def forward(self, inputs: Mapping[str, Tensor], available: Tensor | None = None) -> Output:
        """Args:
            inputs: image (B, 1, 28, 28), audio (B, 1, 20, 20), or one of the two. Content that is not available is
                never read.
            available: (B, 2) bool, in the order of `modalities`; None: what `inputs` holds.

        Raises:
            ValueError: if a case has no modality, or `available` claims an input that is not there.
        """
        some = next(iter(inputs.values()))
        if available is None:
            # 2 -> B 2
            available = torch.tensor([name in inputs for name in MODALITIES], device=some.device).expand(len(some), -1)
        check_available(available, MODALITIES)
        claimed = [name for m, name in enumerate(MODALITIES) if name not in inputs and available[:, m].any()]
        if claimed:
            raise ValueError(f"available claims {claimed}, but inputs hold {sorted(inputs)} only")
        shared, specific = [], []
        for m, name in enumerate(MODALITIES):
            rows = available[:, m].nonzero().flatten()  # n
            if len(rows) == 0:
                shared.append(some.new_zeros(len(some), self.width))
                specific.append(some.new_zeros(len(some), self.width))
                continue
            given = inputs[name][rows]  # n 1 H W
            shared.append(_place(self.shared(self.stems[name](given)), rows, len(some)))  # n C -> B C
            specific.append(_place(self.specific[name](given), rows, len(some)))
        r, s = torch.stack(shared, dim=1), torch.stack(specific, dim=1)  # Eq. (1); B 2 C each
        fused = r + self.projection(torch.cat([r, s], dim=2))  # Eq. (2); B 2 2*C -> B 2 C
        fused = where_available(available, fused, available_mean(r, available))  # Eq. (4); the mean is B 1 C
        return Output(self.head(fused.flatten(1)), r, s, fused, self.domain_head(s))  # Eq. (3); B 2*C -> B K


def trunk(modality: str) -> nn.Module:
    """The convolutions of SMIL's encoder of a modality."""
    return ImageTrunk() if modality == "image" else AudioTrunk()


def _narrow(size: int, width: int) -> nn.Module:
    """To the common width; nothing where the size is right already."""
    return nn.Identity() if size == width else nn.Linear(size, width)


def _place(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Put values (n, C) into the rows of a zero matrix (count, C)."""
    return values.new_zeros(count, values.shape[1]).index_copy(0, rows, values)


def classification_loss(model: ShaSpecClassifier, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """The whole objective on a batch: cross-entropy + alpha L_DAO + beta L_DCO (Eq. 9), and its parts."""
    available, variant = batch["available"], model.variant
    output = model(batch["inputs"], available)
    task = F.cross_entropy(output.logits.float(), batch["label"])
    alignment = alignment_loss(output.shared, available, variant.kind, head=model.alignment_head)
    domain = domain_loss(output.domain_logits, available)
    total = task + variant.alpha * alignment + variant.beta * domain  # Eq. (9)
    return total, {"task": task.detach(), "alignment": alignment.detach(), "domain": domain.detach()}


def train(method: str, variant: str, pairs: Pairs, *, seed: int, budget: Budget, folder: Path | str) -> Trained:
    """Train one classifier on whatever each pair has; the contract of `mmlib.tasks.classification`.

    Args:
        method: `shaspec`.
        variant: as `variant_of` reads it, or `padded` for the other design of the shared encoder.
        pairs: training pairs; those without audio, or without image, take part with what they have.

    Raises:
        ValueError: on an unknown method or variant.
    """
    if method != "shaspec":
        raise ValueError(f"this file has the method shaspec; got {method!r}")
    stages = Stages(folder, seed, budget)
    torch.manual_seed(seed)
    padded = variant == "padded"
    chosen = variant_of("paper" if padded else variant)
    model = ShaSpecClassifier(design="padded" if padded else "stems", variant=chosen)
    stages.fit("shaspec", model, pairs, classification_loss)
    return stages.trained(model, lambda inputs: model(inputs).logits)


@torch.inference_mode()
def digit_features(model: ShaSpecClassifier, pairs: Pairs) -> dict[str, Tensor]:
    """Shared and specific features of pairs that have both modalities: `shared` and `specific` -> (n, 2, C)."""
    both = pairs.complete
    output = model(both[torch.arange(len(both))]["inputs"])
    return {"shared": output.shared, "specific": output.specific}
