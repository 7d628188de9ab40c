"""What the methods that distil a teacher into a student of one modality share: task loss, networks, training, maps.

Classes are those of the released code of ProtoKD: 0 background, 1 enhancing tumour, 2 the rest of the core, 3 oedema.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from mmlib import records
from mmlib.modalities import check_available, mask
from mmlib.networks.vnet import STRIDE, VNet

CLASSES = ("background", "enhancing", "core", "oedema")
REGION_CLASSES = ((1, 2, 3), (1, 2), (1,))  # of wt, tc, et


def labels_of(regions: Tensor) -> Tensor:
    """Nested regions (N, 3, D, H, W), wt, tc, et -> classes (N, D, H, W), integer."""
    wt, tc, et = regions.bool().unbind(1)  # N D H W each
    return torch.where(et, 1, torch.where(tc, 2, torch.where(wt, 3, 0)))


def region_logits(logits: Tensor) -> Tensor:
    """How far the best class of each region is ahead of the best class outside of it.

    Positive exactly where the class with the highest logit belongs to the region, so that a threshold of 1/2 on the
    sigmoid is the argmax of the papers.

    Args:
        logits: (N, 4, D, H, W).

    Returns:
        (N, 3, D, H, W), of wt, tc, et.
    """
    ahead = []
    for inside in REGION_CLASSES:
        outside = [one for one in range(len(CLASSES)) if one not in inside]
        ahead.append(logits[:, list(inside)].amax(1) - logits[:, outside].amax(1))  # N D H W
    return torch.stack(ahead, dim=1)  # N 3 D H W


def check_labels(labels: Tensor, like: Tensor, num_classes: int) -> Tensor:
    """Labels (N, 1, D, H, W) or (N, D, H, W) -> (N, D, H, W), long.

    Args:
        labels: integers.
        like: (N, C, D, H, W), features or logits of the same voxels.
        num_classes: labels must be below it.

    Raises:
        ValueError: if they are of another size, are not integers, or lie outside the classes.
    """
    if labels.ndim == like.ndim:
        labels = labels.squeeze(1)  # N D H W
    if labels.is_floating_point() or labels.shape != (like.shape[0], *like.shape[2:]):
        raise ValueError(
            f"labels must be integers on the features' voxels, (N, D, H, W) = {(like.shape[0], *like.shape[2:])}; got "
            f"{tuple(labels.shape)}, {labels.dtype}: take both from the same crop"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must lie in 0 to {num_classes - 1}; found {low} to {high}: map them first")
    return labels.long()


def check_pair(student: Tensor, teacher: Tensor, what: str) -> None:
    """Refuse what student and teacher cannot be compared in.

    Raises:
        ValueError: if the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"{what} of student and teacher must have one shape; got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}: take both from the same layer, on the same crop"
        )


def softened_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Terms of KL(softmax(teacher / T) || softmax(student / T)) over the second axis, which add up to the divergence.

    Args:
        student: logits or features (N, C, ...).
        teacher: of the same shape; gets no gradient.
        temperature: T, above 0.

    Returns:
        (N, C, ...), in fp32 or better.

    Raises:
        ValueError: if the shapes differ or the temperature is not positive.
    """
    check_pair(student, teacher, "logits or features")
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0; got {temperature}")
    kind = torch.promote_types(student.dtype, torch.float32)
    known = F.log_softmax(teacher.detach().to(kind) / temperature, dim=1)
    found = F.log_softmax(student.to(kind) / temperature, dim=1)
    return F.kl_div(found, known, reduction="none", log_target=True)  # N C ..., terms of KL(teacher || student)


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, weighted by rarity in the batch, plus Dice with squared denominators (released code of ProtoKD).

    Class c weighs 1 - n_c / n, counted over the batch; the weighted mean is taken over voxels. Where one class fills
    the batch all weights are 0, and so is the term. Dice sums over batch and voxels, with the background as a class.

    Args:
        logits: (N, K, D, H, W).
        labels: (N, 1, D, H, W) or (N, D, H, W), integers below K.

    Returns:
        A scalar, in fp32 or better.

    Raises:
        ValueError: as `check_labels`.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    classes = logits.shape[1]
    labels = check_labels(labels, logits, classes)  # N D H W
    counts = torch.bincount(labels.flatten(), minlength=classes).to(logits.dtype)  # K, n_c
    log_p = logits.log_softmax(1)  # N K D H W
    weights = 1 - counts / counts.sum()  # K
    # weighted cross-entropy
    rare = F.nll_loss(log_p, labels, weights, reduction="sum") / (weights * counts).sum().clamp(min=1e-12)
    predicted = log_p.exp()
    of_truth = predicted.gather(1, labels.unsqueeze(1)).flatten()  # N 1 D H W -> N*D*H*W
    both = torch.zeros_like(counts).index_add(0, labels.flatten(), of_truth)  # K, sum of p Y
    squares = predicted.square().sum((0, *range(2, logits.ndim)))  # K, sum of p^2
    dice = 1 - (2 * both + 1e-5) / (squares + counts + 1e-5)  # K, Dice loss of a class
    return rare + dice.mean()


class Prediction(NamedTuple):
    """What a `CombinationVNet` returns: `features` and `logits` of `mmlib.networks.vnet.Output`, and the bottleneck."""

    features: Tensor
    logits: Tensor
    bottleneck: Tensor


class CombinationVNet(nn.Module):
    """A V-Net that reads one fixed combination out of a batch of all modalities: a teacher, or a student.

    Args:
        modalities: M names; the order of the modality axis.
        combination: the modalities that are read; nothing else of the batch reaches the network.
        width: filters at full resolution.

    Raises:
        ValueError: in `forward`, if a case lacks one of the modalities that are read.
    """

    stride = (STRIDE,) * 3

    def __init__(self, modalities: Sequence[str], combination: Sequence[str], width: int):
        super().__init__()
        self.modalities, self.combination, self.width = tuple(modalities), tuple(combination), width
        self.reads = mask(combination, modalities)
        self.net = VNet(len(self.combination), len(CLASSES), width)

    def encode(self, images: Tensor, available: Tensor) -> list[Tensor]:
        """(B, M, D, H, W) and (B, M) bool -> maps of the V-Net, fine to coarse."""
        check_available(available, self.modalities)
        if not available[:, self.reads].all():
            raise ValueError(
                f"this network reads {'+'.join(self.combination)}, and a case lacks some of it: leave the case out"
            )
        return self.net.encode(images[:, self.reads])  # in: B m D H W, the m modalities that are read

    def decode(self, encoding: list[Tensor], available: Tensor) -> Tensor:
        """Maps of one case, and (K, M) -> `region_logits`, (K, 3, D, H, W)."""
        return region_logits(self.net.decode(encoding).logits).expand(len(available), -1, -1, -1, -1)  # K 3 D H W

    def forward(self, images: Tensor, available: Tensor) -> Prediction:
        """(B, M, D, H, W) and (B, M) bool -> `Prediction`."""
        maps = self.encode(images, available)
        return Prediction(*self.net.decode(maps), maps[-1])


Parts = dict[str, Tensor]
Term = Callable[[Prediction, Prediction, Tensor, Tensor], Parts]


class Teaching(NamedTuple):
    """How a network of this chapter is trained.

    Attributes:
        term: (student, teacher, labels, task loss) -> {name: weighted part}, which add up to the loss; None: the task
            loss alone, without a teacher.
        schedule: of the learning rate, see `mmlib.training.learning_rate`.
        shuffled: the labels of a crop are those of another crop of the batch, which must have two or more: a teacher
            that knows nothing.
    """

    term: Term | None = None
    schedule: str = "poly"
    shuffled: bool = False


SCHEDULES = {"standard": "poly", "constant": "constant"}
TEACHERS = {"standard": Teaching(), "half": Teaching(), "quarter": Teaching(), "shuffled": Teaching(shuffled=True)}


def teaching(method: str, variant: str) -> Teaching:
    """How the teacher and the networks without a teacher are trained.

    Args:
        method: `teacher` or `unimodal`.
        variant: of the teacher: `standard`, `half` and `quarter` (the profile gives them fewer steps) or `shuffled`; of
            `unimodal`: the schedule, `standard` or `constant`.

    Raises:
        ValueError: on an unknown method or variant.
    """
    if method == "teacher" and variant in TEACHERS:
        return TEACHERS[variant]
    if method == "unimodal" and variant in SCHEDULES:
        return Teaching(schedule=SCHEDULES[variant])
    raise ValueError(
        f"there is no {method} {variant}: choose teacher {', '.join(TEACHERS)} or unimodal {', '.join(SCHEDULES)}"
    )


def distillation_loss(teaching: Teaching, teacher: CombinationVNet | None = None) -> Callable:
    """The loss of a network on a batch: `segmentation_loss`, and what a frozen teacher adds.

    Teacher and student see the same crop. The teacher is put in evaluation mode and gets no gradient.

    Args:
        teaching: see `Teaching`.
        teacher: needed where the teaching has a term.

    Returns:
        (model, batch) -> (scalar, {name: part}), as `mmlib.training.fit` takes it.

    Raises:
        ValueError: if the teaching has a term and there is no teacher; on a batch of one crop, if labels are shuffled.
    """
    if teaching.term is not None and teacher is None:
        raise ValueError("this student is taught, and there is no teacher: name the run of one")
    if teacher is not None:
        teacher.eval().requires_grad_(False)

    def loss(model: nn.Module, batch: dict) -> tuple[Tensor, Parts]:
        if teaching.shuffled and len(batch["regions"]) == 1:
            raise ValueError("labels are shuffled within a batch, and this one has a single crop: raise batch_size")
        labels = labels_of(batch["regions"].roll(1, 0) if teaching.shuffled else batch["regions"])  # B D H W
        student = model(batch["images"], batch["available"])
        parts = {"segmentation": segmentation_loss(student.logits, labels)}
        if teacher is not None and teaching.term is not None:
            with torch.no_grad():
                known = teacher.to(labels.device)(batch["images"], batch["available"])
            parts = teaching.term(student, known, labels, parts["segmentation"])
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}

    return loss


def rim_volumes(predicted: Tensor, regions: Tensor, voxel_ml: float) -> dict[str, float]:
    """Where a prediction puts the enhancing tumour, in ml.

    Args:
        predicted: (D, H, W) bool, enhancing tumour.
        regions: (3, D, H, W) bool, the truth: wt, tc, et.
        voxel_ml: volume of a voxel.

    Returns:
        `et-found`: where it is; `et-core`: in the rest of the core; `et-elsewhere`: outside the core; `et-missed`: true
        enhancing tumour that the prediction lacks.
    """
    _, core, rim = regions.bool()  # D H W each
    parts = {
        "et-found": predicted & rim,
        "et-core": predicted & core & ~rim,
        "et-elsewhere": predicted & ~core,
        "et-missed": rim & ~predicted,
    }
    return {name: int(part.sum()) * voxel_ml for name, part in parts.items()}


def around_tumour(sample: dict, side: int) -> dict:
    """Cut a prepared sample to a box around the whole tumour where a volume is larger than one window.

    Args:
        sample: `images` (M, D, H, W), `regions` (3, D, H, W) and the rest of the batch contract, without a batch axis.
        side: of the box, voxels; axes that are no longer stay as they are.

    Returns:
        The sample with images and regions cut.
    """
    tumour = sample["regions"][0].nonzero()  # voxels 3
    centre = tumour.float().mean(0) if len(tumour) else torch.tensor(sample["regions"].shape[1:]) / 2  # 3
    low = [
        int(min(max(0, middle - side / 2), max(0, size - side)))
        for middle, size in zip(centre.tolist(), sample["regions"].shape[1:], strict=True)
    ]
    window = (slice(None), *(slice(start, start + side) for start in low))  # M D H W -> M d h w
    return {**sample, "images": sample["images"][window], "regions": sample["regions"][window]}


def load_network(folder: Path | str, name: str, modalities: Sequence[str], width: int) -> CombinationVNet:
    """The network that a finished run of distillation left, in evaluation mode.

    Args:
        folder: of the run.
        name: of the combination that the network reads, such as `t1+t1ce+t2+flair` or `t1`.
        modalities: M names, the order of the modality axis of the batches it will see.
        width: filters that the network is expected to have.

    Raises:
        FileNotFoundError: if the run is not finished, or its weights were left out of what is kept.
        RecordError: if the record or the weights were changed.
        ValueError: if the network was trained on other modalities or classes, or has another architecture.
    """
    folder = Path(folder)
    made = records.read_record(folder)
    path = records.kept_file(folder, f"{name}.safetensors")
    if tuple(made["modalities"]) != tuple(modalities):
        raise ValueError(
            f"{folder} was trained on the modalities {', '.join(made['modalities'])}; expected "
            f"{', '.join(modalities)}: train a teacher on the same data"
        )
    model = CombinationVNet(modalities, name.split("+"), width)
    found, expected = load_file(path), model.state_dict()
    different = [key for key in expected if key not in found or found[key].shape != expected[key].shape]
    if different or set(found) != set(expected):
        odd = (different or sorted(set(found) - set(expected)))[0]
        there = tuple(found[odd].shape) if odd in found else "absent"
        here = tuple(expected[odd].shape) if odd in expected else "absent"
        raise ValueError(
            f"{path} holds another network: {odd} is {there} there, {here} here; "
            f"classes ({len(CLASSES)}) and width ({width}) must be those it was trained with"
        )
    model.load_state_dict(found)
    if "crop" in made["parameters"]:
        model.window = made["parameters"]["crop"]  # see `mmlib.tasks.segmentation.probabilities`
    return model.eval()
