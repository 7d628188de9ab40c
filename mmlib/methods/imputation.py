"""Baselines of audiovision-MNIST: one modality alone, both, imputed audio, and a path for missing audio.

They stand beside ShaSpec and SMIL in Table 3 of Wang et al., "Multi-Modal Learning with Missing Modality via
Shared-Specific Feature Modelling", CVPR 2023, arXiv 2307.14126. No code of that table was released.

- `lower`: the image net, on images alone. `audio`: the audio net, on recordings alone.
- `upper`: image and audio fused before the classifier, trained on pairs that all have both.
- `dropout`: the same net, trained on whatever a pair has; features of what is missing, or dropped at random, are zero.
- `autoencoder`: an encoder-decoder learns to give the audio of an image; the fused net is then trained with true audio
  where there is some and imputed audio elsewhere.
- `gan`: the same with noise as a further input and a discriminator that sees image and audio (Mirza & Osindero,
  "Conditional Generative Adversarial Nets", 2014, arXiv 1411.1784).
- `full2miss`: in the style of Full2miss: a path for both modalities and one for the image alone share a classifier; on
  complete pairs the feature of the second is drawn to that of the first.

What differs, or is UNVERIFIED: the ShaSpec paper names the imputers and gives no network, loss or schedule for them:
all of it is ours, for `gan` also the weight of the squared error. Noise is zero when a trained generator imputes, so
that one image has one audio. Full2miss's own losses were not at hand; ours is the squared distance of the features,
where an adversarial loss is another choice. Imputers take as many steps as classifiers do, with SMIL's weight decay.
A pair with audio alone is used by `audio` and `dropout`, and by no other method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import Dataset

from mmlib.data.avmnist import MODALITIES, Pairs
from mmlib.data.batches import Minibatches
from mmlib.modalities import draw, mask
from mmlib.networks.lenet import AUDIO_FEATURES, CLASSES, IMAGE_FEATURES, AudioNet, AudioTrunk, ImageNet, ImageTrunk
from mmlib.tasks.classification import Budget, Stages, Trained
from mmlib.training import Loss

METHODS = ("lower", "upper", "audio", "dropout", "autoencoder", "gan", "full2miss")
HIDDEN_FEATURES = 64
NOISE = 16
MSE_WEIGHT = 0.1  # beside the adversarial loss
MATCHING_WEIGHT = 0.1  # of the distance between the paths
IMPUTER_DECAY = 1e-4


class FusionNet(nn.Module):
    """Image and audio, each through its own convolutions, fused before the classifier; 43,236 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.audio = ImageTrunk(), AudioTrunk()
        self.fc1 = nn.Linear(IMAGE_FEATURES + AUDIO_FEATURES, HIDDEN_FEATURES)
        self.fc2 = nn.Linear(HIDDEN_FEATURES, CLASSES)
        self.dropout = nn.Dropout(0.5)

    def features(self, image: Tensor, audio: Tensor) -> Tensor:
        """(B, 1, 28, 28) and (B, 1, 20, 20) -> (B, 64)."""
        return F.relu(self.fc1(torch.cat([self.image(image), self.audio(audio)], dim=1)))  # B 480 -> B 64

    def classify(self, features: Tensor) -> Tensor:
        """(B, 64) -> logits (B, 10)."""
        return self.fc2(self.dropout(features))

    def forward(self, image: Tensor, audio: Tensor) -> Tensor:
        """(B, 1, 28, 28) and (B, 1, 20, 20) -> logits (B, 10)."""
        return self.classify(self.features(image, audio))


class DropoutNet(FusionNet):
    """`FusionNet` in which the features of a missing modality are zero."""

    def forward(self, inputs: Mapping[str, Tensor], available: Tensor) -> Tensor:  # type: ignore[override]
        """Inputs by name and (B, 2) bool -> logits (B, 10); content that is not available is not read."""
        features = []
        for m, (trunk, size) in enumerate(((self.image, IMAGE_FEATURES), (self.audio, AUDIO_FEATURES))):
            rows = available[:, m].nonzero().flatten()  # n
            found = trunk(inputs[MODALITIES[m]][rows]) if len(rows) else self.fc2.weight.new_zeros(0, size)  # n size
            features.append(found.new_zeros(len(available), size).index_copy(0, rows, found))  # B size
        return self.classify(F.relu(self.fc1(torch.cat(features, dim=1))))  # B 480 -> B 64 -> B 10


class Dropped(Dataset):
    """Batches in which modalities are hidden at random: every non-empty subset of what a pair has is as likely."""

    def __init__(self, batches: Minibatches, seed: int):
        self.batches, self.seed = batches, seed

    def __getitem__(self, step: int) -> dict:
        batch = self.batches[step]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        return {**batch, "available": draw("uniform-subsets", batch["available"], generator)}


class TwoPathNet(FusionNet):
    """`FusionNet` with a second path that needs no audio and leads to the same classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.lone_image = ImageTrunk()
        self.fc_lone = nn.Linear(IMAGE_FEATURES, HIDDEN_FEATURES)

    def lone_features(self, image: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, 64)."""
        return F.relu(self.fc_lone(self.lone_image(image)))

    def forward(self, image: Tensor, audio: Tensor | None = None) -> Tensor:
        """(B, 1, 28, 28) and, for the full path, (B, 1, 20, 20) -> logits (B, 10)."""
        return self.classify(self.lone_features(image) if audio is None else self.features(image, audio))


class Imputer(nn.Module):
    """Encoder-decoder from an image to its audio.

    Args:
        seen: (N, 1, 20, 20), the audio to learn from; its mean and deviation are the unit of what the layers give.
        noise: number of random inputs beside the code of the image.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, seen: Tensor, noise: int = 0):
        super().__init__()
        self.noise = noise
        self.register_buffer("mean", seen.mean(dim=0))  # 1 20 20
        self.register_buffer("deviation", (seen - seen.mean(dim=0)).std(correction=0).clamp(min=1e-3))  # scalar
        self.encoder = _image_encoder()
        self.decoder = nn.Sequential(
            nn.Linear(HIDDEN_FEATURES + noise, 32 * 5 * 5),
            nn.ReLU(),
            nn.Unflatten(1, (32, 5, 5)),  # B 800 -> B 32 5 5
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),  # B 16 10 10
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),  # B 1 20 20
        )

    def standardised(self, audio: Tensor) -> Tensor:
        """True audio in the unit of what `forward` gives."""
        return (audio - self.mean) / self.deviation

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> standardised audio (B, 1, 20, 20); noise is drawn in training and zero in evaluation."""
        shape = len(image), self.noise
        noise = torch.randn(shape, device=image.device) if self.training else torch.zeros(shape, device=image.device)
        return self.decoder(torch.cat([self.encoder(image), noise], dim=1))  # B 64+noise -> B 1 20 20

    def impute(self, image: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> audio (B, 1, 20, 20)."""
        return self(image) * self.deviation + self.mean


class Discriminator(nn.Module):
    """Tells true from imputed audio, given the image."""

    def __init__(self) -> None:
        super().__init__()
        self.image = _image_encoder()
        self.audio = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),  # B 32 5 5 -> B 800
        )
        self.head = nn.Linear(HIDDEN_FEATURES + 32 * 5 * 5, 1)

    def forward(self, image: Tensor, audio: Tensor) -> Tensor:
        """(B, 1, 28, 28) and standardised (B, 1, 20, 20) -> logits (B, 1), high for true audio."""
        return self.head(torch.cat([self.image(image), self.audio(audio)], dim=1))  # B 64+800 -> B 1


class Adversaries(nn.Module):
    """An imputer and the discriminator that it is trained against."""

    def __init__(self, imputer: Imputer):
        super().__init__()
        self.imputer = imputer
        self.discriminator = Discriminator()


class ImputedClassifier(nn.Module):
    """A fused classifier that has the audio imputed where there is none."""

    def __init__(self, imputer: Imputer, classifier: FusionNet):
        super().__init__()
        self.imputer, self.classifier = imputer, classifier

    def forward(self, image: Tensor, audio: Tensor | None = None) -> Tensor:
        """(B, 1, 28, 28) and, where there is some, (B, 1, 20, 20) -> logits (B, 10)."""
        return self.classifier(image, self.imputer.impute(image) if audio is None else audio)


def task_loss(*names: str) -> Loss:
    """Cross-entropy of a net that takes the named modalities, in this order."""

    def loss(model: nn.Module, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        return F.cross_entropy(model(*(batch["inputs"][name] for name in names)), batch["label"]), {}

    return loss


def imputation_loss(model: Imputer, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean squared error of the imputed audio, standardised; for complete pairs."""
    image, audio = (batch["inputs"][name] for name in MODALITIES)
    return F.mse_loss(model(image).float(), model.standardised(audio)), {}


def adversarial_loss(model: Adversaries, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Both sides' losses in one sum, whose gradient is that of each side's own; for complete pairs.

    The discriminator is shown imputed audio without its history; the imputer is judged by a copy of the discriminator
    whose weights are constants.
    """
    image, audio = (batch["inputs"][name] for name in MODALITIES)
    true, imputed = model.imputer.standardised(audio), model.imputer(image)
    frozen = {name: weight.detach() for name, weight in model.discriminator.named_parameters()}
    found = F.softplus(-model.discriminator(image, true)) + F.softplus(model.discriminator(image, imputed.detach()))
    fooled = F.softplus(-functional_call(model.discriminator, frozen, (image, imputed)))
    parts = {"discriminator": found.mean(), "imputer": fooled.mean(), "mse": F.mse_loss(imputed.float(), true)}
    total = parts["discriminator"] + parts["imputer"] + MSE_WEIGHT * parts["mse"]
    return total, {name: part.detach() for name, part in parts.items()}


def dropout_loss(model: DropoutNet, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy from what is available."""
    return F.cross_entropy(model(batch["inputs"], batch["available"]), batch["label"]), {}


def matching_loss(model: TwoPathNet, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of both paths, and the distance of the second from the first, which is not drawn to the second."""
    rows = batch["available"].all(dim=1)  # B
    image, labels = batch["inputs"]["image"], batch["label"]
    lone = model.lone_features(image)  # B 64
    total = F.cross_entropy(model.classify(lone), labels)
    parts = {"lone": total.detach()}
    if rows.any():
        full = model.features(image[rows], batch["inputs"]["audio"][rows])  # n 64, the pairs that have both
        whole = F.cross_entropy(model.classify(full), labels[rows])
        matching = F.mse_loss(lone[rows], full.detach())
        total = total + whole + MATCHING_WEIGHT * matching
        parts |= {"full": whole.detach(), "matching": matching.detach()}
    return total, parts


def train(method: str, variant: str, pairs: Pairs, *, seed: int, budget: Budget, folder: Path | str) -> Trained:
    """Train one baseline; the contract of `mmlib.tasks.classification`.

    Args:
        method: one of `METHODS`.
        variant: names the run; every method has one.
        pairs: training pairs.

    Returns:
        The classifier. `lower` uses the image, `audio` the audio, `upper` needs both; the others need the image, and
        use the audio where it is handed over.

    Raises:
        ValueError: on an unknown method; if `upper` is given a pair that lacks a modality, or a method finds no pair
            with the modalities that it learns from.
    """
    if method not in METHODS:
        raise ValueError(f"this file has the methods {', '.join(METHODS)}; got {method!r}")
    stages = Stages(folder, seed, budget)
    torch.manual_seed(seed)
    if method in ("lower", "audio"):
        return _train_alone(method, pairs, stages)
    if method == "upper":
        return _train_upper(pairs, stages)
    if method == "dropout":
        return _train_dropout(pairs, stages)
    if len(pairs.complete) == 0:
        raise ValueError(
            f"no pair has both image and audio: {method} has nothing to learn the audio from; raise the rate"
        )
    return _train_two_paths(pairs, stages) if method == "full2miss" else _train_imputed(method, pairs, stages)


def _train_alone(method: str, pairs: Pairs, stages: Stages) -> Trained:
    name = "image" if method == "lower" else "audio"
    shown = pairs.having(name).masked(torch.tensor([one == name for one in MODALITIES]))
    model = ImageNet() if name == "image" else AudioNet()
    stages.fit(method, model, shown, task_loss(name))
    return stages.trained(model, lambda inputs: model(*_taken(inputs, name)))


def _train_upper(pairs: Pairs, stages: Stages) -> Trained:
    lacking = [case for case, row in zip(pairs.case, pairs.available, strict=True) if not row.all()]
    if lacking:
        raise ValueError(
            f"upper is trained on complete pairs; {len(lacking)} of {len(pairs)} lack a modality, such as "
            f"{lacking[0]}: load with audio_rate=1"
        )
    model = FusionNet()
    stages.fit("upper", model, pairs, task_loss(*MODALITIES))
    return stages.trained(model, lambda inputs: model(*_taken(inputs, *MODALITIES)))


def _train_dropout(pairs: Pairs, stages: Stages) -> Trained:
    model = DropoutNet()
    batches = Minibatches(pairs, stages.budget.batch_size, stages.seed)
    stages.note("dropout", pairs)
    steps = stages.budget.epochs * batches.per_epoch
    stages.fit_batches("dropout", model, Dropped(batches, stages.seed), dropout_loss, steps=steps)

    def classify(inputs: Mapping[str, Tensor]) -> Tensor:
        given = mask(inputs, MODALITIES).expand(len(next(iter(inputs.values()))), -1)  # 2 -> B 2
        return model(inputs, given)

    return stages.trained(model, classify)


def _train_imputed(method: str, pairs: Pairs, stages: Stages) -> Trained:
    complete, pairs = pairs.complete, pairs.having("image")
    imputer = Imputer(complete.audio, NOISE if method == "gan" else 0)
    learner, loss = (Adversaries(imputer), adversarial_loss) if method == "gan" else (imputer, imputation_loss)
    epochs = round(stages.budget.epochs * len(pairs) / len(complete))
    stages.fit("imputer", learner, complete, loss, epochs=epochs, weight_decay=IMPUTER_DECAY)
    imputer.cpu().eval()
    with torch.inference_mode():
        imputed = imputer.impute(pairs.images)
    has_audio = pairs.available[:, MODALITIES.index("audio"), None, None, None]  # N 1 1 1
    filled = replace(pairs, audio=torch.where(has_audio, pairs.audio, imputed))
    torch.manual_seed(stages.seed)
    classifier = FusionNet()
    stages.fit("classifier", classifier, filled, task_loss(*MODALITIES))
    model = ImputedClassifier(imputer, classifier)
    return stages.trained(model, lambda inputs: model(*_taken(inputs, "image"), inputs.get("audio")))


def _train_two_paths(pairs: Pairs, stages: Stages) -> Trained:
    model = TwoPathNet()
    stages.fit("full2miss", model, pairs.having("image"), matching_loss)
    return stages.trained(model, lambda inputs: model(*_taken(inputs, "image"), inputs.get("audio")))


def _taken(inputs: Mapping[str, Tensor], *names: str) -> list[Tensor]:
    lacking = [name for name in names if name not in inputs]
    if lacking:
        raise ValueError(f"this classifier needs {' and '.join(names)}; {' and '.join(lacking)} is not there")
    return [inputs[name] for name in names]


def _image_encoder() -> nn.Sequential:
    """(B, 1, 28, 28) -> (B, 64)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),  # B 32 7 7 -> B 1568
        nn.Linear(32 * 7 * 7, HIDDEN_FEATURES),
        nn.ReLU(),
    )
