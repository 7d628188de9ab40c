"""KD-Net-style losses: golden values, what leaves them unchanged, and where gradients go."""

import pytest
import torch
from golden import waves

from mmlib.methods.kdnet import feature_kl, kdnet_loss, prediction_kl, teaching
from mmlib.tasks.distillation import Prediction

STUDENT_LOGITS = waves((2, 4, 4, 4, 4), 0.37, 3, 0)
TEACHER_LOGITS = waves((2, 4, 4, 4, 4), 0.53, 4, 0.2)
STUDENT = waves((2, 16, 4, 4, 4), 0.11, 1, 0).relu()
TEACHER = waves((2, 16, 4, 4, 4), 0.19, 1.5, 0.7).relu()


ZERO = torch.tensor(0.0)


def loss(student_logits, teacher_logits, student, teacher, task=ZERO, **settings):
    return kdnet_loss(
        Prediction(student, student_logits, student), Prediction(teacher, teacher_logits, teacher), task, **settings
    )


def test_golden_divergence_of_features():
    assert feature_kl(STUDENT, TEACHER).item() == pytest.approx(16.7633876173, abs=1e-9)


@pytest.mark.parametrize("temperature, expected", [(10, 0.0583887726), (1, 2.5064191551)])
def test_golden_divergence_of_predictions(temperature, expected):
    assert prediction_kl(STUDENT_LOGITS, TEACHER_LOGITS, temperature).item() == pytest.approx(expected, abs=1e-9)


def test_what_leaves_the_divergence_of_features_unchanged():
    expected = feature_kl(STUDENT, TEACHER)
    shift = waves((2, 1, 4, 4, 4), 0.3, 2, 0)  # the same for all channels of a voxel
    assert torch.allclose(feature_kl(STUDENT + shift, TEACHER), expected)
    assert torch.allclose(feature_kl(STUDENT.repeat(2, 1, 1, 1, 1), TEACHER.repeat(2, 1, 1, 1, 1)), expected)
    assert feature_kl(TEACHER, TEACHER) == 0


def test_the_whole_loss_by_hand():
    pair = (STUDENT_LOGITS, TEACHER_LOGITS, STUDENT, TEACHER)
    parts = loss(*pair, torch.tensor(3.0), weight=0.2, beta=4.0, temperature=10)
    expected = {"segmentation": 0.8 * 3, "prediction": 0.2 * 0.0583887726, "features": 4 * 16.7633876173 / 64}
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected)


def test_the_weight_of_features_does_not_depend_on_the_crop():
    def features(student, teacher):
        return loss(STUDENT_LOGITS, TEACHER_LOGITS, student, teacher)["features"]

    assert torch.allclose(
        features(STUDENT.repeat(1, 1, 2, 2, 2), TEACHER.repeat(1, 1, 2, 2, 2)), features(STUDENT, TEACHER)
    )


def test_gradients_reach_the_student_alone():
    student, teacher, student_logits, teacher_logits = (
        x.clone().requires_grad_() for x in (STUDENT, TEACHER, STUDENT_LOGITS, TEACHER_LOGITS)
    )
    sum(loss(student_logits, teacher_logits, student, teacher).values()).backward()
    assert student.grad.abs().sum() > 0 and student_logits.grad.abs().sum() > 0
    assert teacher.grad is None and teacher_logits.grad is None


def test_half_precision_is_computed_in_fp32():
    student, teacher = STUDENT_LOGITS.bfloat16(), TEACHER_LOGITS.bfloat16()
    found = prediction_kl(student, teacher, 1)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(prediction_kl(student.double(), teacher.double(), 1).item(), rel=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"features of student and teacher must have one shape.*\(2, 16, 4, 4, 4\)"):
        feature_kl(STUDENT, TEACHER[:, :8])
    with pytest.raises(ValueError, match="logits or features of student and teacher must have one shape"):
        prediction_kl(STUDENT_LOGITS, TEACHER_LOGITS[:1], 1)
    with pytest.raises(ValueError, match="must be above 0; got 0"):
        prediction_kl(STUDENT_LOGITS, TEACHER_LOGITS, 0)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]; got 1.5"):
        loss(STUDENT_LOGITS, TEACHER_LOGITS, STUDENT, TEACHER, weight=1.5)
    with pytest.raises(ValueError, match="there is no kd-net released: this file has kd-net standard"):
        teaching("kd-net", "released")
