"""SMIL: bilevel training of an image-and-audio classifier when most training pairs lack the audio.

Paper: Mengmeng Ma, Jian Ren, Long Zhao, Sergey Tulyakov, Cathy Wu, Xi Peng, "SMIL: Multimodal Learning with Severely
Missing Modality", AAAI 2021, arXiv 2103.05677. Implemented: its method section (reconstruction from modality priors,
feature regularisation, meta-learning) on audiovision-MNIST. Released code consulted through a written description:
mengmenm/SMIL at 0d0e827, which has no licence; nothing of it is copied.

In symbols: D^f are the pairs with audio, D^m those without; theta is the image net, the audio net and the fusion; psi
is the auxiliary net with its parts phi_c (reconstruction) and phi_r (regularisation).

What differs
- Paper and released code disagree; `mode` has both. `paper`: the weights of the priors are drawn from N(1, sigma),
  features are multiplied by softplus(r) with r drawn from N(mu, sigma), the outer loss sees D^f only, the inner rate
  stays. `released`: the weights are sure and sum to 1, softplus(mu + unit noise) is added, the outer loss has the inner
  loss on D^m and two distances of features as well, the inner rate falls tenfold in each eighth of the steps.
- Read into the paper (UNVERIFIED): sigma as the softplus of a head; the sum over K priors divided by K; the outer loss
  as the cross-entropy of D^f with its audio plus that without; no weight on the divergence; and, as this loss judges
  theta* and never theta, a last inner step on all of D^m, so that theta* is what classifies.
- Without noise the weights of `paper` are all 1: every image gets the mean of the centres as its audio.
- Pre-training has the released lengths and schedules in proportion to the budget. The audio net's batch is a quarter of
  the budget's (released: 4 pairs). Dropout stays on, where the released code loses it after a stage's first epoch. The
  last step counts, where the released code keeps the one with the best test accuracy.
- A pair with audio alone serves the audio net and nothing else. Without any lone image D^f takes the place of D^m.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import Dataset

from mmlib.data.avmnist import MODALITIES, Pairs
from mmlib.data.batches import Minibatches
from mmlib.networks.lenet import AUDIO_FEATURES, CLASSES, IMAGE_FEATURES, AudioNet, ImageNet
from mmlib.tasks.classification import Budget, Classify, Stages, Trained
from mmlib.training import Loss

JOINT_FEATURES = IMAGE_FEATURES + AUDIO_FEATURES
HIDDEN_FEATURES = 64
ADAPTED = ("image.conv", "fusion.")  # by the inner step: theta without audio net and without the image net's own head
INNER_RATE = 1e-3
WEIGHT_DECAY = 1e-4
PRETRAINING = {  # of 60 epochs so many; the learning rate is multiplied each so many epochs; share of the batch size
    "image": (50, 20, 0.1, 1),
    "audio": (35, 10, 0.5, 1 / 4),
    "fusion": (60, 30, 0.1, 1 / 2),
}
MEMORY = ("no graph", "graph, cleared", "graph, never cleared", "graph, copied weights")


@dataclass(frozen=True)
class Variant:
    """One way to train SMIL; the defaults are the paper's.

    Attributes:
        mode: `paper` or `released`, see the header of this file.
        centres: number of priors K.
        priors: `k-means` of the audio features of D^f, or `random`: normal, with their mean and standard deviation.
        regularised: use phi_r.
        noise: train with draws; else with means.
        inner: `second-order`, `first-order` (the inner gradient counts as a constant), or `none`: no inner step, joint
            training on D^m and D^f.
        outer: the outer loss of `paper` sees the `complete` pairs D^f, or `both` D^f and D^m.
        divergence: weight of the Kullback-Leibler divergence from the standard normal, in the mode `paper`.
        samples: draws that a prediction is the mean of; 0: one prediction without noise.
    """

    mode: str = "paper"
    centres: int = 10
    priors: str = "k-means"
    regularised: bool = True
    noise: bool = True
    inner: str = "second-order"
    outer: str = "complete"
    divergence: float = 0.0
    samples: int = 0


VARIANTS = {
    "paper": Variant(),
    "released": Variant(mode="released"),
    "monte-carlo": Variant(samples=30),
    "outer-both": Variant(outer="both"),
    # one thing changed in the released way, whose theta classifies as it is
    "no-regulariser": Variant(mode="released", regularised=False),
    "deterministic": Variant(mode="released", noise=False),
    "joint": Variant(mode="released", inner="none"),
    "first-order": Variant(mode="released", inner="first-order"),
    "k1": Variant(mode="released", centres=1),
    "k5": Variant(mode="released", centres=5),
    "k50": Variant(mode="released", centres=50),
    "random-priors": Variant(mode="released", priors="random"),
}


class Gaussian(NamedTuple):
    """Independent normal variables: mean and standard deviation, (B, n) each."""

    mean: Tensor
    sd: Tensor

    def draw(self, noise: bool) -> Tensor:
        """A reparametrised draw, or the mean."""
        return self.mean + self.sd * torch.randn_like(self.mean) if noise else self.mean

    def divergence(self, mean: float) -> Tensor:
        """Kullback-Leibler divergence from N(mean, 1): the sum over variables, averaged over the batch."""
        # B n -> B -> scalar
        return (0.5 * (self.sd**2 + (self.mean - mean) ** 2 - 1) - self.sd.log()).sum(dim=1).mean()


class AuxiliaryNet(nn.Module):
    """phi_c and phi_r: from features to the distribution of what perturbs them.

    With ten centres in the released mode it has 219,128 parameters. Two convolutions and the heads of the variance
    among them are unused there; the shapes of the convolutions are inferred from the count.
    """

    def __init__(self, mode: str, centres: int):
        super().__init__()
        self.released = mode == "released"
        if self.released:
            self.conv1 = nn.Conv2d(1, 5, 5)
            self.conv2 = nn.Conv2d(5, 10, 5)
        self.fc0 = nn.Linear(IMAGE_FEATURES, centres)
        self.fc1 = nn.Linear(IMAGE_FEATURES, JOINT_FEATURES)
        self.fc1_variance = nn.Linear(IMAGE_FEATURES, JOINT_FEATURES)
        self.fc2 = nn.Linear(JOINT_FEATURES, HIDDEN_FEATURES)
        self.fc2_variance = nn.Linear(JOINT_FEATURES, HIDDEN_FEATURES)

    def weights(self, image: Tensor) -> Gaussian:
        """Weights of the centres, (B, K), from image features (B, 160)."""
        positive = F.softplus(self.fc0(image))  # B K
        if self.released:
            return Gaussian(positive / positive.sum(dim=1, keepdim=True), torch.zeros_like(positive))  # sum: B 1
        return Gaussian(torch.ones_like(positive), positive)  # omega ~ N(1, sigma)

    def regularisation(self, level: int, features: Tensor) -> Gaussian:
        """r of the joint features from those of the image (level 1), or of the hidden from the joint ones (level 2)."""
        centre, spread = (self.fc1, self.fc1_variance) if level == 1 else (self.fc2, self.fc2_variance)
        mean = centre(features)  # B 480 on level 1, B 64 on level 2
        # r ~ N(mu, sigma)
        return Gaussian(mean, torch.ones_like(mean) if self.released else F.softplus(spread(features)))


class Fusion(nn.Module):
    """The two fully connected layers behind the joint features."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(JOINT_FEATURES, HIDDEN_FEATURES)
        self.fc2 = nn.Linear(HIDDEN_FEATURES, CLASSES)
        self.dropout = nn.Dropout(0.5)


class Output(NamedTuple):
    """Logits (B, 10), and the features of audio (B, 320), of both (B, 480) and behind the first layer (B, 64).

    Without audio these are reconstructed and regularised, and `drawn` holds the distributions of the weights and of
    both regularisations.
    """

    logits: Tensor
    audio: Tensor
    joint: Tensor
    hidden: Tensor
    drawn: tuple[Gaussian, ...]


class SMIL(nn.Module):
    """Classifies an image with its audio or without; 324,688 parameters in the released mode.

    Args:
        mode: `paper` or `released`.
        centres: number of priors K. They are the buffer `centres`, (320, K), zero until `priors` are put in.
        regularised: perturb the features of an image without audio.

    Raises:
        ValueError: on an unknown mode.
    """

    centres: Tensor

    def __init__(self, mode: str = "paper", centres: int = 10, regularised: bool = True):
        super().__init__()
        if mode not in ("paper", "released"):
            raise ValueError(f"mode must be 'paper' or 'released'; got {mode!r}")
        self.mode, self.regularised = mode, regularised
        self.image = ImageNet()
        self.audio = AudioNet()
        self.fusion = Fusion()
        self.auxiliary = AuxiliaryNet(mode, centres)
        self.register_buffer("centres", torch.zeros(AUDIO_FEATURES, centres))

    def forward(self, image: Tensor, audio: Tensor | None = None, *, noise: bool = False, whole: bool = False):
        """Classify.

        Args:
            image: (B, 1, 28, 28).
            audio: (B, 1, 20, 20), or None: it is reconstructed.
            noise: draw weights and regularisation; else their means are used.
            whole: return an `Output`.

        Returns:
            Logits (B, 10), or the `Output`.
        """
        drawn: list[Gaussian] = []

        def regularise(level: int, features: Tensor, before: Tensor) -> Tensor:
            if audio is not None or not self.regularised:
                return features
            drawn.append(self.auxiliary.regularisation(level, before))
            r = F.softplus(drawn[-1].draw(noise))
            return features * r if self.mode == "paper" else features + r  # the regularised feature, B 480 or B 64

        seen = self.image.features(image)  # B 160
        if audio is None:
            drawn.append(self.auxiliary.weights(seen))
            # the reconstruction from modality priors, <omega, centres>: B K @ K 320 -> B 320
            heard = drawn[0].draw(noise) @ self.centres.T / (self.centres.shape[1] if self.mode == "paper" else 1)
        else:
            heard = self.audio.features(audio)  # B 320
        joint = regularise(1, torch.cat([seen, heard], dim=1), seen)  # B 480
        hidden = regularise(2, F.relu(self.fusion.fc1(joint)), joint)  # B 64
        logits = self.fusion.fc2(self.fusion.dropout(hidden))  # B 10
        return Output(logits, heard, joint, hidden, tuple(drawn)) if whole else logits


# ----------------------------------------------------------------------------------------------------- the bilevel step
class MetaBatches(Dataset):
    """Batch number `step` of the meta stage: pairs of D^m, pairs of D^f, and the step."""

    def __init__(self, incomplete: Pairs, complete: Pairs, batch_size: int, seed: int):
        self.incomplete = Minibatches(incomplete, batch_size, seed)
        self.complete = Minibatches(complete, batch_size, seed)

    def __getitem__(self, step: int) -> dict:
        incomplete, complete = self.incomplete[step], self.complete[step]
        case = incomplete["case"] + complete["case"]
        return {"incomplete": incomplete, "complete": complete, "step": step, "case": case}


def adapt(model: nn.Module, loss: Tensor, rate: float, second_order: bool = True) -> dict[str, Tensor]:
    """The inner step: theta* = theta - rate * gradient; audio net and psi stay as they are.

    Args:
        model: a `SMIL`.
        loss: on D^m.
        rate: step size.
        second_order: let theta* depend on theta and psi through the gradient, too.

    Returns:
        The changed weights by name, for `torch.func.functional_call`.
    """
    theta = {name: weights for name, weights in model.named_parameters() if name.startswith(ADAPTED)}
    slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=second_order, retain_graph=True)
    # theta*, of the shapes of theta
    return {name: weights - rate * slope for (name, weights), slope in zip(theta.items(), slopes, strict=True)}


def meta_loss(variant: Variant, steps: int) -> Loss:
    """The loss of the meta stage for `mmlib.training.fit`.

    Args:
        variant: see there.
        steps: of the stage.

    Returns:
        (model, a batch of `MetaBatches`) -> (scalar, its parts).
    """
    released, joint = variant.mode == "released", variant.inner == "none"

    def loss(model: nn.Module, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        incomplete, complete, labels = batch["incomplete"], batch["complete"]["inputs"], batch["complete"]["label"]
        # the inner loss, on D^m at theta
        inner = F.cross_entropy(model(incomplete["inputs"]["image"], noise=variant.noise), incomplete["label"])
        rate = INNER_RATE * (0.1 ** (8 * batch["step"] // steps) if released else 1)
        theta = {} if joint else adapt(model, inner, rate, variant.inner == "second-order")
        noise = variant.noise and not released
        imputed = functional_call(model, theta, complete["image"], {"noise": noise, "whole": True})
        paired = functional_call(model, theta, (complete["image"], complete["audio"]), {"whole": True})
        parts = {"imputed": F.cross_entropy(imputed.logits, labels)}  # the outer loss, on D^f at theta*
        if released:
            parts["joint"] = 0.01 * F.mse_loss(imputed.joint, paired.joint)
            parts["hidden"] = 0.01 * F.mse_loss(imputed.hidden, paired.hidden)
        else:
            parts["paired"] = F.cross_entropy(paired.logits, labels)
        if released or joint or variant.outer == "both":
            parts["inner"] = inner
        if variant.divergence and not released:
            centred = zip(imputed.drawn, (1, 0, 0), strict=False)  # the weights have mean 1
            parts["divergence"] = variant.divergence * sum(one.divergence(mean) for one, mean in centred)
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}

    return loss


# ----------------------------------------------------------------------------------------------------------- the stages
@dataclass(frozen=True)
class Pretrained:
    """What all variants start from: theta after the stages on `pairs`, and what these stages wrote down."""

    pairs: Pairs
    stages: Stages
    theta: dict[str, Tensor]


def pretrain(pairs: Pairs, stages: Stages) -> Pretrained:
    """Train the image net on all images, the audio net on all audio, then the fusion on the complete pairs.

    Raises:
        ValueError: if no pair is complete.
    """
    if len(pairs.complete) == 0:
        raise ValueError(f"none of {len(pairs)} pairs has both image and audio: SMIL needs some; raise the audio rate")
    torch.manual_seed(stages.seed)
    model = SMIL()
    model.fusion.dropout.p = 0.6  # in this stage; later 0.5
    networks = {"image": (model.image, ("image",)), "audio": (model.audio, ("audio",)), "fusion": (model, MODALITIES)}
    for stage, (network, names) in networks.items():
        epochs, every, factor, share = PRETRAINING[stage]
        shown, size = pairs.having(*names), max(1, round(share * stages.budget.batch_size))
        scale = stages.budget.epochs / 60
        falls = max(1, round(scale * every * Minibatches(shown, size, stages.seed).per_epoch))

        def loss(model: nn.Module, batch: dict, names=names) -> tuple[Tensor, dict[str, Tensor]]:
            return F.cross_entropy(model(*(batch["inputs"][name] for name in names)), batch["label"]), {}

        settings = {"epochs": max(1, round(scale * epochs)), "batch_size": size, "schedule": (factor, falls)}
        stages.fit(stage, network, shown, loss, weight_decay=WEIGHT_DECAY, **settings)
    theta = {name: value for name, value in model.state_dict().items() if name.startswith(("image", "audio", "fusion"))}
    return Pretrained(pairs, stages, theta)


def priors(model: SMIL, complete: Pairs, variant: Variant, seed: int) -> Tensor:
    """The centres (320, K) of the audio features of D^f: k-means from ten starts, or random.

    Raises:
        ValueError: if there are fewer pairs than centres.
    """
    if len(complete) < variant.centres:
        raise ValueError(
            f"{variant.centres} centres need as many complete pairs, not {len(complete)}: take fewer centres"
        )
    with torch.no_grad():
        features = model.eval().audio.features(complete.audio.to(model.centres.device)).cpu()  # n 320
    if variant.priors == "random":
        noise = torch.randn(variant.centres, AUDIO_FEATURES, generator=torch.Generator().manual_seed(seed))  # K 320
        return (features.mean(dim=0) + features.std(dim=0) * noise).T  # 320 + 320 * K 320 -> K 320 -> 320 K
    found = KMeans(variant.centres, n_init=10, random_state=seed).fit(features.numpy())
    return torch.from_numpy(found.cluster_centers_).T  # K 320 -> 320 K


def train(
    method: str,
    variant: str,
    pairs: Pairs,
    *,
    seed: int,
    budget: Budget,
    folder: Path | str,
    pretrained: Pretrained | None = None,
) -> Trained:
    """Train one classifier in all stages; the contract of `mmlib.tasks.classification`.

    Args:
        method: `smil`.
        variant: a name in `VARIANTS`.
        pairs: training pairs, some of them complete.
        pretrained: what `pretrain` returned for the same pairs and seed, if several variants are trained. Otherwise
            these stages run here, or are read from the folder, where variants share them.

    Raises:
        ValueError: on an unknown method or variant, if no pair is complete, if there are more centres than complete
            pairs, or if `pretrained` belongs to other pairs or another seed.
    """
    if method != "smil" or variant not in VARIANTS:
        raise ValueError(f"this file has the method smil in the variants {', '.join(VARIANTS)}; got {method} {variant}")
    chosen = VARIANTS[variant]
    before = pretrained or pretrain(pairs, Stages(folder, seed, budget))
    if before.pairs is not pairs or before.stages.seed != seed:
        raise ValueError(f"pretrained belongs to other pairs or to seed {before.stages.seed}, not {seed}: leave it out")
    stages = Stages(Path(folder) / variant, seed, budget)
    stages.histories += before.stages.histories
    stages.exposure |= before.stages.exposure
    stages.recordings |= before.stages.recordings

    torch.manual_seed(seed)
    model = SMIL(chosen.mode, chosen.centres, chosen.regularised)
    model.load_state_dict(before.theta, strict=False)
    complete, lone = pairs.complete, pairs.subset((pairs.available == torch.tensor([True, False])).all(dim=1))
    incomplete = lone if len(lone) else complete
    stages.note("priors", complete)
    model.centres.copy_(priors(model, complete, chosen, seed))
    stages.note("meta", incomplete, complete)
    batches, steps = MetaBatches(incomplete, complete, budget.batch_size, seed), budget.meta_steps
    decay = {"schedule": (0.1, max(1, 5 * steps // 8)), "weight_decay": WEIGHT_DECAY}
    stages.fit_batches("meta", model, batches, meta_loss(chosen, steps), steps=steps, **decay)
    if chosen.mode == "paper" and chosen.inner != "none":  # from theta to theta*
        torch.manual_seed(seed)
        images, labels = incomplete.images.to(model.centres.device), incomplete.labels.to(model.centres.device)
        loss = F.cross_entropy(model.train()(images, noise=chosen.noise), labels)
        model.load_state_dict(adapt(model, loss, INNER_RATE, second_order=False), strict=False)
    return stages.trained(model, _classifier(model, chosen.samples, seed))


def _classifier(model: SMIL, samples: int, seed: int) -> Classify:
    def classify(inputs: Mapping[str, Tensor]) -> Tensor:
        if "image" not in inputs:
            raise ValueError(f"SMIL classifies an image, with audio or without; got {sorted(inputs)}: add the image")
        given = [inputs[name].to(model.centres.device) for name in MODALITIES if name in inputs]
        if samples == 0:
            return model(*given).cpu()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn = torch.stack([model(*given, noise=True).softmax(dim=1) for _ in range(samples)])  # samples B 10
        return drawn.mean(dim=0).log().cpu()  # B 10

    return classify


# -------------------------------------------------------------------------------------------------------------- memory
def memory_trace(way: str, steps: int = 200, batch_size: int = 32) -> list[float]:
    """Memory of this process after each step of the released mode: does `backward(create_graph=True)` make it grow?

    A gradient made so holds the graph of its step, and the graph ends in the parameter that holds the gradient: a cycle
    out of the garbage collector's sight. `zero_grad` breaks it. It stays, with all that the step computed, where a
    gradient is never cleared, and where a step works on new copies of the weights and leaves the old gradients behind.

    Args:
        way: of `MEMORY`; `no graph` is that of `fit`. No step is taken by an optimiser, for it holds no graph.
        steps: number of steps, on one random batch.
        batch_size: pairs in each of D^m and D^f.

    Returns:
        MiB resident per step, from Linux's /proc. What leaks stays: run each way in a process of its own.

    Raises:
        ValueError: on an unknown way.
    """
    if way not in MEMORY:
        raise ValueError(f"unknown way {way!r}; choose one of {MEMORY}")
    model, loss = SMIL("released").train(), meta_loss(VARIANTS["released"], steps)
    label = torch.arange(batch_size) % CLASSES
    inputs = {"image": torch.randn(batch_size, 1, 28, 28), "audio": torch.randn(batch_size, 1, 20, 20)}
    batch = {name: {"inputs": inputs, "label": label} for name in ("incomplete", "complete")}
    trace = []
    for step in range(steps):
        if way == "graph, copied weights":
            model = copy.deepcopy(model)
        total, _ = loss(model, {**batch, "step": step})
        if way != "graph, never cleared":
            model.zero_grad()
        total.backward(create_graph=way != "no graph")
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        trace.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    return trace
