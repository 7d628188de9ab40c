"""The contract of classifiers: stages that resume, what they were shown, held-out pairs, and scores by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mmlib.data.avmnist import MODALITIES, Pairs
from mmlib.networks.lenet import AudioNet, AudioTrunk, ImageNet, ImageTrunk
from mmlib.tasks.classification import Budget, Stages, evaluate_classifier, hold_out

BUDGET = Budget(epochs=3, batch_size=8, precision="float32", device="cpu")


def made(count: int = 40, with_audio: int = 16) -> Pairs:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 10
    available = torch.ones(count, 2, dtype=torch.bool)
    whole = Pairs(
        torch.randn(10, 1, 28, 28, generator=generator)[labels],
        torch.randn(10, 1, 20, 20, generator=generator)[labels],
        labels,
        available,
        tuple(f"digit-{row}" for row in range(count)),
        tuple(map(str, range(count))),
    )
    available = available.clone()
    available[with_audio:, 1] = False
    return whole.masked(available)


def image_loss(model, batch):
    return F.cross_entropy(model(batch["inputs"]["image"]), batch["label"]), {}


def test_networks_have_the_sizes_of_the_released_code():
    sizes = {ImageNet: 6872, AudioNet: 67254, ImageTrunk: 1390, AudioTrunk: 10412}
    assert {kind: sum(weights.numel() for weights in kind().parameters()) for kind in sizes} == sizes


def test_a_stage_that_was_interrupted_ends_in_the_same_weights(tmp_path):
    def after(folder, stop=None):
        torch.manual_seed(0)
        model, stages = ImageNet(), Stages(folder, 0, BUDGET)

        def loss(network, batch):
            nonlocal stop
            stop = None if stop is None else stop - 1
            if stop == 0:
                raise KeyboardInterrupt
            return image_loss(network, batch)

        stages.fit("image", model, made(), loss, checkpoint_every=4)
        return [weights.clone() for weights in model.parameters()]

    with pytest.raises(KeyboardInterrupt):
        after(tmp_path / "cut", stop=7)
    assert all(map(torch.equal, after(tmp_path / "whole"), after(tmp_path / "cut")))


def test_stages_note_what_they_were_shown(tmp_path):
    stages = Stages(tmp_path, 0, BUDGET)
    model = ImageNet()
    stages.fit("image", model, made(), image_loss, epochs=1)
    trained = stages.trained(model, lambda inputs: model(inputs["image"]))
    assert trained.exposure["image"]["digit-0"] == ["image", "audio"]
    assert trained.exposure["image"]["digit-39"] == ["image"]
    assert trained.recordings["image"] == sorted(map(str, range(16)))
    assert not trained.model.training and set(trained.history["stage"]) == {"image"}
    assert trained.history["lr"].nunique() == 3  # a decay after each third


def test_scores_by_hand_and_on_what_was_asked_for():
    pairs = made()
    right = F.one_hot((pairs.labels + (torch.arange(40) < 10)) % 10, 10).double()

    def classify(inputs):
        assert set(inputs) == {"image"}
        return right[[pairs.images.sub(image).flatten(1).abs().sum(1).argmin() for image in inputs["image"]]]

    answers = iter([right])
    scores = evaluate_classifier(lambda inputs: next(answers), pairs)
    assert scores["value"].tolist() == [0.0] * 10 + [1.0] * 30
    assert scores.columns.tolist() == ["case", "available", "target", "metric", "value"]
    assert len(evaluate_classifier(lambda inputs: torch.zeros(16, 10), pairs, [MODALITIES], "x")) == 16
    assert len(evaluate_classifier(classify, pairs)) == 40
    with pytest.raises(ValueError, match=r"no pair of 'test' has image\+audio"):
        evaluate_classifier(classify, made(with_audio=0), [MODALITIES])


def test_absent_audio_never_reaches_a_classifier():
    pairs = made()
    nan = replace(pairs, audio=torch.full_like(pairs.audio, torch.nan))
    seen = []
    evaluate_classifier(lambda inputs: seen.append(inputs) or torch.zeros(40, 10), nan)
    assert "audio" not in seen[0]


def test_pairs_held_out_have_an_image_alone_and_are_not_trained_on():
    train, valid = hold_out(made(60), 2)
    assert valid.labels.bincount().tolist() == [2] * 10
    assert not valid.available[:, 1].any() and not set(train.case) & set(valid.case)
    assert len(train) + len(valid) == 60 and len(train.complete) == 16
    with pytest.raises(ValueError, match="digit 0 has 2 training pairs without audio: too few to keep back 2"):
        hold_out(made(with_audio=20), 2)
