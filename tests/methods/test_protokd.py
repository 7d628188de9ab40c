"""ProtoKD's losses: golden values, closed forms, what leaves them unchanged, and where gradients go."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import waves
from torch.utils._python_dispatch import TorchDispatchMode

from mmlib.data.cases import regions
from mmlib.methods.protokd import (
    VARIANTS,
    i2fv,
    pixel_kd_loss,
    prototype_kd_loss,
    prototypes,
    segmentation_loss,
    teaching,
)
from mmlib.tasks.distillation import Prediction, labels_of

STUDENT_LOGITS = waves((2, 4, 4, 4, 4), 0.37, 3, 0)
TEACHER_LOGITS = waves((2, 4, 4, 4, 4), 0.53, 4, 0.2)
STUDENT = waves((2, 16, 4, 4, 4), 0.11, 1, 0).relu()
TEACHER = waves((2, 16, 4, 4, 4), 0.19, 1.5, 0.7).relu()
INDEX = torch.arange(128)
LABELS = ((7 * INDEX + INDEX // 5) % 4).view(2, 1, 4, 4, 4)
KD = 0.0145971932
PROTOTYPE = 0.0055768339
SEGMENTATION = 3.5863614361


def without_class_3_in_the_first_sample():
    labels = LABELS.clone()
    labels[0][labels[0] == 3] = 0
    return labels


# ------------------------------------------------------------------------------------------------------- pixel-wise
@pytest.mark.parametrize(
    "temperature, reduction, expected",
    [
        (10, "element_mean", KD),
        (1, "element_mean", 0.6266047888),
        (10, "voxel_mean", 0.0583887726),
        (1, "voxel_mean", 2.5064191551),
    ],
)
def test_golden_divergence(temperature, reduction, expected):
    found = pixel_kd_loss(STUDENT_LOGITS, TEACHER_LOGITS, temperature, reduction)
    assert found.item() == pytest.approx(expected, abs=1e-9)


def test_the_defaults_are_the_released_ones():
    assert pixel_kd_loss(STUDENT_LOGITS, TEACHER_LOGITS).item() == pytest.approx(KD, abs=1e-9)


def test_golden_gradient_of_the_divergence_is_the_closed_form():
    """With weight 10, T = 10 and K = 4, by hand: 10 / (K T) (q_s - q_t) / (N V)."""
    logits = STUDENT_LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(10 * pixel_kd_loss(logits, TEACHER_LOGITS), logits)
    difference = (STUDENT_LOGITS / 10).softmax(1) - (TEACHER_LOGITS / 10).softmax(1)
    assert torch.allclose(gradient, 10 / (4 * 10) * difference / (2 * 64), rtol=1e-9, atol=0)
    assert gradient.norm().item() == pytest.approx(0.0037695890, abs=1e-9)


@pytest.mark.parametrize("temperature", [2, 10])
def test_the_factor_of_the_squared_temperature(temperature):
    plain = pixel_kd_loss(STUDENT_LOGITS, TEACHER_LOGITS, temperature)
    squared = pixel_kd_loss(STUDENT_LOGITS, TEACHER_LOGITS, temperature, squared=True)
    assert squared.item() == pytest.approx(temperature**2 * plain.item())


def test_what_leaves_the_divergence_unchanged_and_its_direction():
    shift = waves((2, 1, 4, 4, 4), 0.3, 5, 0)  # the same for all classes of a voxel
    expected = pixel_kd_loss(STUDENT_LOGITS, TEACHER_LOGITS)
    assert torch.allclose(pixel_kd_loss(STUDENT_LOGITS + shift, TEACHER_LOGITS - shift), expected)
    assert pixel_kd_loss(TEACHER_LOGITS, TEACHER_LOGITS).item() == pytest.approx(0, abs=1e-15)
    certain = torch.zeros(1, 4, 1, 1, 1).index_fill(1, torch.tensor(0), 50.0)
    even = torch.zeros(1, 4, 1, 1, 1)
    by_hand = np.log(4)  # KL of a certain teacher to an even student; the other way round it is far larger
    assert pixel_kd_loss(even, certain, 1, "voxel_mean").item() == pytest.approx(by_hand, abs=1e-5)
    assert pixel_kd_loss(certain, even, 1, "voxel_mean").item() > 30


# --------------------------------------------------------------------------------------------------- segmentation
def test_golden_segmentation_loss():
    assert segmentation_loss(STUDENT_LOGITS, LABELS).item() == pytest.approx(SEGMENTATION, abs=1e-9)


# ------------------------------------------------------------------------------------------------ prototypes and maps
def test_golden_maps():
    maps = {"student": i2fv(STUDENT, LABELS, 4), "teacher": i2fv(TEACHER, LABELS, 4)}
    assert maps["student"].shape == (2, 4, 4, 4, 4)
    assert maps["student"].mean().item() == pytest.approx(0.64175275, abs=1e-8)
    assert maps["teacher"].mean().item() == pytest.approx(0.63651258, abs=1e-8)


def test_golden_prototype_loss_and_its_gradient():
    features = STUDENT.clone().requires_grad_()
    loss = prototype_kd_loss(features, TEACHER, LABELS, 4)
    assert loss.item() == pytest.approx(PROTOTYPE, abs=1e-9)
    (gradient,) = torch.autograd.grad(loss, features)
    assert gradient.norm().item() == pytest.approx(0.0053027935, abs=1e-9)


def test_golden_loss_where_a_sample_lacks_a_class():
    labels = without_class_3_in_the_first_sample()
    loss = prototype_kd_loss(STUDENT, TEACHER, labels, 4)
    assert loss.item() == pytest.approx(0.0054464067, abs=1e-9)
    three = (i2fv(STUDENT, labels, 4) - i2fv(TEACHER, labels, 4))[:, :3].square().mean()
    assert loss.item() == pytest.approx(three.item(), abs=1e-12), "classes 0, 1 and 2 count, in both samples"


def test_a_class_may_be_left_out_of_one_sample_alone():
    labels = without_class_3_in_the_first_sample()
    squared = (i2fv(STUDENT, labels, 4) - i2fv(TEACHER, labels, 4)).square()
    by_hand = torch.cat([squared[0, :3].flatten(), squared[1].flatten()]).mean()
    loss = prototype_kd_loss(STUDENT, TEACHER, labels, 4, per_sample=True)
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-12)
    assert abs(loss.item() - 0.0054464067) > 1e-6
    whole = [prototype_kd_loss(STUDENT, TEACHER, LABELS, 4, per_sample=choice).item() for choice in (False, True)]
    assert whole[0] == pytest.approx(whole[1], abs=1e-15), "all classes in all samples: the same"


def test_prototypes_by_hand():
    features = torch.tensor([[[1.0, 3.0, 5.0, 7.0], [0.0, 2.0, 4.0, 4.0]]]).view(1, 2, 1, 2, 2)
    labels = torch.tensor([0, 0, 2, 0]).view(1, 1, 1, 2, 2)
    expected = torch.tensor([[[11 / 3, 2.0], [0.0, 0.0], [5.0, 4.0]]])
    assert torch.allclose(prototypes(features, labels, 3), expected, rtol=2e-5, atol=0)


def test_the_map_by_hand():
    features = torch.tensor([[[1.0, 0.0, 3.0], [0.0, 2.0, 3.0]]]).view(1, 2, 1, 1, 3)
    labels = torch.tensor([0, 1, 1]).view(1, 1, 1, 3)
    found = i2fv(features, labels, 2).view(2, 3)
    # prototypes (1, 0) and (1.5, 2.5)
    long = np.hypot(1.5, 2.5)
    expected = [[1, 0, 0.5**0.5], [1.5 / long, 2.5 / long, 4 / (2**0.5 * long)]]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("labels", [LABELS, without_class_3_in_the_first_sample()])
def test_the_map_is_the_cosine_of_every_voxel_with_every_prototype(labels):
    features = waves((2, 16, 4, 4, 4), 0.11, 1, 0)  # of both signs
    members = F.one_hot(labels.squeeze(1), 4).movedim(-1, 1).double()  # (N, K, D, H, W)
    counts = members.sum((2, 3, 4)) + 1e-5
    centres = (features[:, :, None] * members[:, None]).sum((3, 4, 5)) / counts[:, None]  # (N, C, K)
    naive = F.cosine_similarity(
        features.flatten(2)[:, :, None].expand(-1, -1, 4, -1), centres[..., None], dim=1, eps=1e-5
    )
    assert torch.allclose(i2fv(features, labels, 4).flatten(2), naive, rtol=0, atol=1e-12)


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation returns, also in the backward pass."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor) and one.untyped_storage().nbytes() >= one.numel() * one.element_size():
                self.numbers = max(self.numbers, one.numel())
        return made


def test_no_tensor_over_classes_channels_and_voxels_is_made():
    torch.manual_seed(0)
    features = torch.rand(1, 16, 8, 8, 8, requires_grad=True)
    labels = torch.randint(0, 4, (1, 8, 8, 8))
    with Largest() as naive:
        (features.flatten(2)[:, :, None] * torch.rand(1, 16, 4, 1)).sum().backward()
    assert naive.numbers == 4 * 16 * 512, "the meter sees such a tensor"
    with Largest() as seen:
        i2fv(features, labels, 4).sum().backward()
        prototype_kd_loss(features, torch.rand(1, 16, 8, 8, 8), labels, 4).backward()
    assert seen.numbers == 16 * 512, "nothing is larger than the features"


def test_features_that_are_not_negative_give_cosines_in_0_to_1():
    for features in (STUDENT, TEACHER):
        found = i2fv(features, LABELS, 4)
        assert found.min() >= 0 and found.max() <= 1 + 1e-12
    members = F.one_hot(LABELS.squeeze(1), 4).movedim(-1, 1).double()
    assert torch.allclose(i2fv(3 * members, LABELS, 4), members), "1 for its own class, 0 for others"
    both = i2fv(waves((2, 16, 4, 4, 4), 0.11, 1, 0), LABELS, 4)
    assert -1 - 1e-12 <= both.min() < 0 and both.max() <= 1 + 1e-12


def test_an_absent_class_and_an_empty_voxel_are_zero():
    labels = without_class_3_in_the_first_sample()
    assert prototypes(STUDENT, labels, 4)[0, 3].eq(0).all() and prototypes(STUDENT, labels, 4)[1, 3].any()
    assert i2fv(STUDENT, labels, 4)[0, 3].eq(0).all() and i2fv(STUDENT, labels, 4)[1, 3].any()
    features = STUDENT.clone()
    features[0, :, 0, 0, 0] = 0
    features.requires_grad_()
    found = i2fv(features, labels, 4)
    assert found[0, :, 0, 0, 0].eq(0).all()
    found.sum().backward()
    assert features.grad.isfinite().all()


def test_the_length_of_features_does_not_matter_to_the_map():
    assert torch.allclose(i2fv(1000 * STUDENT, LABELS, 4), i2fv(STUDENT, LABELS, 4), atol=1e-8)


def test_student_and_teacher_may_differ_in_channels():
    narrow = prototype_kd_loss(STUDENT[:, :4], TEACHER, LABELS, 4)
    assert narrow.item() == pytest.approx((i2fv(STUDENT[:, :4], LABELS, 4) - i2fv(TEACHER, LABELS, 4)).square().mean())


@pytest.mark.parametrize(
    "measure",
    [
        lambda labels: segmentation_loss(STUDENT_LOGITS, labels),
        lambda labels: prototypes(STUDENT, labels, 4),
        lambda labels: i2fv(STUDENT, labels, 4),
        lambda labels: prototype_kd_loss(STUDENT, TEACHER, labels, 4),
    ],
    ids=["segmentation_loss", "prototypes", "i2fv", "prototype_kd_loss"],
)
def test_labels_with_and_without_a_channel_axis_agree(measure):
    expected = measure(LABELS)
    assert torch.equal(measure(LABELS.squeeze(1)), expected)
    assert torch.equal(measure(LABELS.to(torch.uint8)), expected)


# --------------------------------------------------------------------------------------------------------- gradients
def test_the_gradient_reaches_the_student_through_features_and_prototypes_and_the_teacher_not_at_all():
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    prototype_kd_loss(student, teacher, LABELS, 4).backward()
    assert teacher.grad is None

    def with_fixed_prototypes():
        features = STUDENT.clone().requires_grad_()
        centres = F.normalize(prototypes(STUDENT, LABELS, 4), dim=2)
        cosines = torch.einsum("nkc,ncv->nkv", centres, F.normalize(features.flatten(2), dim=1, eps=1e-5))
        (cosines - i2fv(TEACHER, LABELS, 4).flatten(2)).square().mean().backward()
        return features.grad

    through_features = with_fixed_prototypes()
    assert through_features.norm() > 1e-4
    assert (student.grad - through_features).norm() > 1e-4, "the rest comes through the prototypes"


def test_the_gradient_of_the_prototype_loss_is_that_of_finite_differences():
    torch.manual_seed(0)
    student = torch.randn(2, 3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher, labels = torch.randn(2, 5, 2, 2, 2, dtype=torch.float64), torch.arange(16).view(2, 2, 2, 2) % 2
    assert torch.autograd.gradcheck(lambda features: prototype_kd_loss(features, teacher, labels, 2), student)


def test_the_divergence_gives_the_teacher_no_gradient():
    student, teacher = STUDENT_LOGITS.clone().requires_grad_(), TEACHER_LOGITS.clone().requires_grad_()
    pixel_kd_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad.any()


def test_half_precision_is_computed_in_fp32():
    pair, logits = (STUDENT.bfloat16(), TEACHER.bfloat16()), (STUDENT_LOGITS.bfloat16(), TEACHER_LOGITS.bfloat16())
    for loss, reference in (
        (prototype_kd_loss(*pair, LABELS, 4), prototype_kd_loss(*(x.double() for x in pair), LABELS, 4)),
        (pixel_kd_loss(*logits), pixel_kd_loss(*(x.double() for x in logits))),
        (segmentation_loss(logits[0], LABELS), segmentation_loss(logits[0].double(), LABELS)),
    ):
        assert loss.dtype == torch.float32 and loss.item() == pytest.approx(reference.item(), rel=1e-5)


# ----------------------------------------------------------------------------------------------------- the whole loss
def parts(variant):
    student = Prediction(STUDENT, STUDENT_LOGITS, STUDENT)
    teacher = Prediction(TEACHER, TEACHER_LOGITS, TEACHER)
    task = segmentation_loss(STUDENT_LOGITS, LABELS)
    found = teaching("protokd", variant).term(student, teacher, LABELS, task)
    return {name: part.item() for name, part in found.items()}


def test_golden_total():
    found = parts("standard")
    assert sum(found.values()) == pytest.approx(3.7328910510, abs=1e-9)
    expected = {"segmentation": SEGMENTATION, "pixel": 10 * KD, "prototype": 0.1 * PROTOTYPE}
    assert found == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_its_parts(variant):
    temperature = {"temperature-1": 1, "temperature-2": 2, "temperature-5": 5}.get(variant.removesuffix("-squared"), 10)
    factor = temperature**2 if variant.endswith("-squared") else 1
    kind = "voxel_mean" if variant == "voxel-mean" else "element_mean"
    expected = {
        "segmentation": SEGMENTATION,
        "pixel": 10 * factor * pixel_kd_loss(STUDENT_LOGITS, TEACHER_LOGITS, temperature, kind).item(),
        "prototype": 0.1 * prototype_kd_loss(STUDENT, TEACHER, LABELS, 4, per_sample=variant == "per-sample").item(),
    }
    for absent in {"pixel": ["prototype"], "prototype": ["pixel"]}.get(variant, []):
        del expected[absent]
    assert parts(variant) == pytest.approx(expected, abs=1e-8)
    assert teaching("protokd", variant).schedule == ("constant" if variant == "constant" else "poly")
    assert not teaching("protokd", variant).shuffled


# --------------------------------------------------------------------------------------------------------------- data
def test_labels_of_brats_become_the_classes_of_the_released_code():
    raw = np.array([0, 1, 2, 4]).reshape(1, 2, 2)
    assert labels_of(torch.from_numpy(regions(raw))[None]).flatten().tolist() == [0, 2, 3, 1]
    recent = np.array([0, 1, 2, 3]).reshape(1, 2, 2)  # 3 enhances since 2023
    assert labels_of(torch.from_numpy(regions(recent))[None]).flatten().tolist() == [0, 2, 3, 1]


# ------------------------------------------------------------------------------------------------------------- errors
def test_logits_that_cannot_be_compared_are_refused():
    with pytest.raises(
        ValueError,
        match=r"features of student and teacher must have one shape; got \(2, 4, 4, 4, 4\) and \(2, 3, 4, 4",
    ):
        pixel_kd_loss(STUDENT_LOGITS, TEACHER_LOGITS[:, :3])
    with pytest.raises(ValueError, match="take both from the same layer, on the same crop"):
        pixel_kd_loss(STUDENT_LOGITS, TEACHER_LOGITS[..., :2])
    with pytest.raises(ValueError, match=r"reduction must be one of \('element_mean', 'voxel_mean'\); got 'batchmean'"):
        pixel_kd_loss(STUDENT_LOGITS, TEACHER_LOGITS, reduction="batchmean")
    for temperature in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=f"the temperature must be above 0; got {temperature}"):
            pixel_kd_loss(STUDENT_LOGITS, TEACHER_LOGITS, temperature)


@pytest.mark.parametrize(
    "measure",
    [
        lambda labels: prototypes(STUDENT, labels, 4),
        lambda labels: i2fv(STUDENT, labels, 4),
        lambda labels: prototype_kd_loss(STUDENT, TEACHER, labels, 4),
        lambda labels: segmentation_loss(STUDENT_LOGITS, labels),
    ],
    ids=["prototypes", "i2fv", "prototype_kd_loss", "segmentation_loss"],
)
def test_labels_that_do_not_fit_are_refused(measure):
    with pytest.raises(ValueError, match=r"= \(2, 4, 4, 4\); got \(2, 4, 4, 2\), torch.int64: take both from the same"):
        measure(LABELS.squeeze(1)[..., :2])
    with pytest.raises(ValueError, match=r"labels must be integers .* got \(2, 4, 4, 4\), torch.float32"):
        measure(LABELS.float())
    with pytest.raises(ValueError, match="labels must lie in 0 to 3; found 1 to 4: map them first"):
        measure(LABELS + 1)
    with pytest.raises(ValueError, match="labels must lie in 0 to 3; found -1 to 2: map them first"):
        measure(LABELS - 1)


def test_features_of_other_voxels_are_refused():
    with pytest.raises(
        ValueError, match=r"feature grids of student and teacher must have one shape; got \(2, 4, 4, 4\) and \(1, 4"
    ):
        prototype_kd_loss(STUDENT, TEACHER[:1], LABELS, 4)


def test_a_batch_without_a_class_in_common_is_refused():
    labels = torch.zeros(2, 4, 4, 4, dtype=torch.long)
    labels[1] = 2
    with pytest.raises(ValueError, match="none of the 4 classes is in every sample of the batch: take larger crops"):
        prototype_kd_loss(STUDENT, TEACHER, labels, 4)
    assert prototype_kd_loss(STUDENT, TEACHER, labels, 4, per_sample=True).isfinite()


def test_unknown_methods_and_variants_are_refused():
    with pytest.raises(ValueError, match="there is no protokd released: this file has protokd standard, constant"):
        teaching("protokd", "released")
    with pytest.raises(ValueError, match="there is no kd-net standard: this file has protokd"):
        teaching("kd-net", "standard")
