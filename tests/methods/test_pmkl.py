"""PMKL-style losses: golden values, the voxels that count, and where gradients go."""

import pytest
import torch
from golden import waves

from mmlib.methods.pmkl import advantage, contrastive_loss, pmkl_loss, soft_cross_entropy, teaching
from mmlib.tasks.distillation import Prediction

STUDENT = waves((2, 4, 4, 4, 4), 0.37, 3, 0)
TEACHER = waves((2, 4, 4, 4, 4), 0.53, 4, 0.2)
POSITION = torch.arange(128)
LABELS = ((7 * POSITION + POSITION // 5) % 4).view(2, 1, 4, 4, 4)
BOTTLENECK = waves((2, 16, 4, 4, 4), 0.11, 1, 0).relu()
OTHER = waves((2, 16, 4, 4, 4), 0.19, 1.5, 0.7).relu()


def loss(student, teacher, bottleneck, other, task=3.0, **settings):
    pair = (Prediction(maps, logits, maps) for logits, maps in ((student, bottleneck), (teacher, other)))
    return pmkl_loss(*pair, LABELS, torch.tensor(task), **settings)


def test_golden_weights_and_loss():
    assert advantage(STUDENT, TEACHER, LABELS).sum().item() == pytest.approx(76.6868962868, abs=1e-9)
    assert soft_cross_entropy(STUDENT, TEACHER, LABELS).item() == pytest.approx(1.4116404919, abs=1e-9)


def test_golden_soft_cross_entropy_of_one_weight_for_all(monkeypatch):
    monkeypatch.setattr("mmlib.methods.pmkl.advantage", lambda student, *_: torch.ones_like(student[:, 0]))
    assert soft_cross_entropy(STUDENT, TEACHER, LABELS).item() == pytest.approx(1.4083834107, abs=1e-9)


def test_only_voxels_count_where_the_teacher_is_right_and_better():
    # three voxels of class 1: teacher right and better, teacher wrong but better, student better
    student = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 9.0]])
    teacher = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    student, teacher = (x.T.reshape(1, 2, 3, 1, 1) for x in (student, teacher))
    found = advantage(student, teacher, torch.ones(1, 3, 1, 1, dtype=torch.int64)).flatten()
    gain = torch.tensor(2.0).log() - (1 + torch.tensor(-1.0).exp()).log()
    assert torch.allclose(found, torch.tensor([gain, 0.0, 0.0]))


def test_labels_with_and_without_an_axis_of_channels_agree():
    assert soft_cross_entropy(STUDENT, TEACHER, LABELS) == soft_cross_entropy(STUDENT, TEACHER, LABELS[:, 0].int())


def test_a_teacher_that_is_nowhere_better_costs_nothing():
    student = STUDENT.clone().requires_grad_()
    loss = soft_cross_entropy(student, student.detach(), LABELS)
    loss.backward()
    assert loss == 0 and student.grad.abs().max() == 0


def test_contrast_by_hand():
    student = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    teacher = torch.tensor([[0.0, 0.5], [0.0, 0.0]])
    # positives 0.5 and 3 apart; negatives: student 0 is 0 from teacher 1, student 1 is beyond the margin from teacher 0
    assert contrastive_loss(student, teacher).item() == pytest.approx((0.25 + 9) / 2 + (1 + 0) / 2)
    assert contrastive_loss(student, teacher, margin=0.5).item() == pytest.approx((0.25 + 9) / 2 + 0.25 / 2)


def test_one_case_has_no_negatives():
    student, teacher = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)
    assert contrastive_loss(student, teacher) == 25


def test_contrast_of_equal_embeddings_has_a_finite_gradient():
    student = torch.ones(3, 4, requires_grad=True)
    contrastive_loss(student, torch.ones(3, 4)).backward()
    assert torch.isfinite(student.grad).all()


def test_the_whole_loss_by_its_parts():
    parts = loss(STUDENT, TEACHER, BOTTLENECK, OTHER)
    assert parts["segmentation"] == 3 and parts["distillation"].item() == pytest.approx(0.5 * 1.4116404919)
    pooled = [x.mean(dim=(2, 3, 4)) / x.mean(dim=(2, 3, 4)).norm(dim=1, keepdim=True) for x in (BOTTLENECK, OTHER)]
    assert torch.allclose(parts["contrast"], 0.5 * contrastive_loss(*pooled)) and parts["contrast"] > 0
    other = loss(STUDENT, TEACHER, BOTTLENECK, OTHER, prediction=2.0, contrast=0.0)
    assert other["distillation"].item() == pytest.approx(2 * 1.4116404919) and other["contrast"] == 0


def test_gradients_reach_the_student_alone():
    student, teacher, bottleneck, other = (x.clone().requires_grad_() for x in (STUDENT, TEACHER, BOTTLENECK, OTHER))
    sum(loss(student, teacher, bottleneck, other).values()).backward()
    assert student.grad.abs().sum() > 0 and bottleneck.grad.abs().sum() > 0
    assert teacher.grad is None and other.grad is None


def test_half_precision_is_computed_in_fp32():
    found = sum(loss(*(x.bfloat16() for x in (STUDENT, TEACHER)), BOTTLENECK, OTHER).values())
    assert soft_cross_entropy(STUDENT.bfloat16(), TEACHER.bfloat16(), LABELS).dtype == torch.float32
    assert torch.isfinite(found)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="logits of student and teacher must have one shape"):
        soft_cross_entropy(STUDENT, TEACHER[:, :3], LABELS)
    with pytest.raises(ValueError, match=r"labels must be integers on .*\(2, 4, 4, 4\); got \(2, 4, 4, 2\)"):
        soft_cross_entropy(STUDENT, TEACHER, LABELS[..., :2])
    with pytest.raises(ValueError, match="labels must be integers.*float32"):
        soft_cross_entropy(STUDENT, TEACHER, LABELS.float())
    with pytest.raises(ValueError, match="embeddings of student and teacher must have one shape"):
        contrastive_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="there is no pmkl released: this file has pmkl standard"):
        teaching("pmkl", "released")
