"""The imputing baselines: each learns from what is there, and from nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmlib.data.avmnist import MODALITIES, Pairs
from mmlib.methods import imputation
from mmlib.methods.imputation import METHODS, Adversaries, FusionNet, Imputer, TwoPathNet, train
from mmlib.tasks.classification import Budget, Trained

BUDGET = Budget(epochs=1, batch_size=16, precision="float32", device="cpu")
CLASSIFIED_WITH = {"lower": ("image",), "audio": ("audio",), "upper": MODALITIES}  # the others: image, or both


def made(count: int = 40, with_audio: int = 16, without_image: int = 0) -> Pairs:
    """Pairs whose image and audio are a template of the digit and a little noise; the first have audio."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 10
    images, audio = (torch.randn(10, 1, side, side, generator=generator)[labels] for side in (28, 20))
    available = torch.ones(count, 2, dtype=torch.bool)
    available[with_audio:, MODALITIES.index("audio")] = False
    available[with_audio - without_image : with_audio, MODALITIES.index("image")] = False
    names = tuple(f"digit-{row}" for row in range(count))
    noise = (0.1 * torch.randn(images.shape, generator=generator), 0.1 * torch.randn(audio.shape, generator=generator))
    whole = Pairs(
        images + noise[0], audio + noise[1], labels, torch.ones_like(available), names, tuple(map(str, range(count)))
    )
    return whole.masked(available)


def poisoned(pairs: Pairs) -> Pairs:
    """The same pairs with NaN for whatever is not available."""
    image, audio = pairs.available[..., None, None, None].unbind(dim=1)
    nan = torch.tensor(torch.nan)
    return replace(pairs, images=torch.where(image, pairs.images, nan), audio=torch.where(audio, pairs.audio, nan))


def pairs_for(method: str) -> Pairs:
    return made(with_audio=40) if method == "upper" else made(without_image=4)


def trained(method: str, pairs: Pairs, folder: Path) -> Trained:
    return train(method, "standard", pairs, seed=3, budget=BUDGET, folder=folder)


def inputs(pairs: Pairs, *names: str) -> dict[str, torch.Tensor]:
    return {name: values for name, values in pairs[:8]["inputs"].items() if name in names}


def combinations(method: str) -> list[tuple[str, ...]]:
    return [CLASSIFIED_WITH[method]] if method in CLASSIFIED_WITH else [("image",), MODALITIES]


@pytest.mark.parametrize("method", METHODS)
def test_training_returns_a_classifier_and_what_it_was_shown(method, tmp_path):
    pairs = pairs_for(method)
    result = trained(method, pairs, tmp_path)
    for names in combinations(method):
        logits = result.classify(inputs(pairs, *names))
        assert logits.shape == (8, 10) and torch.equal(logits, result.classify(inputs(pairs, *names)))
    assert not any(module.training for module in result.model.modules())
    assert set(result.history.stage) == set(result.exposure) == set(result.recordings)
    has = dict(zip(pairs.case, pairs.available.tolist(), strict=True))
    for shown in result.exposure.values():
        assert all(has[case][MODALITIES.index(name)] for case, names in shown.items() for name in names)
    for names in result.recordings.values():
        assert set(names) <= {name for name in pairs.recording if name}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_absent_changes_nothing(method, tmp_path):
    pairs = pairs_for(method)
    clean, spoilt = (trained(method, one, tmp_path / name) for name, one in (("a", pairs), ("b", poisoned(pairs))))
    weights = clean.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in spoilt.model.state_dict().items())
    whole = made(with_audio=40)
    lacking = poisoned(whole.masked(torch.tensor([True, False])))
    if method not in CLASSIFIED_WITH:
        assert torch.equal(clean.classify(inputs(whole, "image")), spoilt.classify(inputs(lacking, "image")))


def test_one_modality_alone_is_shown_as_such(tmp_path):
    pairs = made(without_image=4)
    lower, audio = (trained(method, pairs, tmp_path) for method in ("lower", "audio"))
    assert lower.recordings == {"lower": []} and set(map(tuple, lower.exposure["lower"].values())) == {("image",)}
    assert len(lower.exposure["lower"]) == 36
    assert len(audio.recordings["audio"]) == 16 and set(map(tuple, audio.exposure["audio"].values())) == {("audio",)}


@pytest.mark.parametrize("method", ["autoencoder", "gan"])
def test_imputers_learn_from_complete_pairs_and_take_the_classifiers_steps(method, tmp_path):
    result = trained(method, made(without_image=4), tmp_path)
    assert set(result.exposure["imputer"]) == {f"digit-{row}" for row in range(12)}
    assert len(result.exposure["classifier"]) == 36 and len(result.recordings["classifier"]) == 12
    assert result.history.stage.value_counts().to_dict() == {"imputer": 3, "classifier": 3}


def test_true_audio_is_used_where_it_is_handed_over(tmp_path):
    pairs = made()
    result = trained("autoencoder", pairs, tmp_path)
    image = inputs(pairs, "image")
    imputed = result.model.imputer.impute(image["image"])
    assert torch.equal(result.classify(image), result.classify(image | {"audio": imputed}))
    assert not torch.equal(result.classify(image), result.classify(inputs(pairs, *MODALITIES)))


def test_the_autoencoder_imputes_the_audio_of_the_digit(tmp_path):
    pairs = made(with_audio=20)
    result = train("autoencoder", "standard", pairs, seed=0, budget=replace(BUDGET, epochs=15), folder=tmp_path)
    held_out = made(with_audio=40).subset(slice(20, None))
    with torch.inference_mode():
        error = (result.model.imputer.impute(held_out.images) - held_out.audio).square().mean()
    assert error < 0.5 * held_out.audio.var()


def test_standardised_audio_has_mean_zero_and_deviation_one():
    audio = made(with_audio=40).audio * 300 - 500
    imputer = Imputer(audio)
    assert imputer.standardised(audio).mean(dim=0).abs().max() < 1e-4
    assert abs(imputer.standardised(audio).std(correction=0) - 1) < 1e-4
    assert torch.isfinite(Imputer(torch.ones(3, 1, 20, 20)).standardised(audio)).all()


def test_noise_is_drawn_in_training_only():
    imputer = Imputer(made().complete.audio, noise=16)
    image = made().images[:4]
    assert not torch.equal(imputer(image), imputer(image))
    imputer.eval()
    assert torch.equal(imputer(image), imputer(image))


def test_each_adversary_gets_the_gradient_of_its_own_loss():
    pairs = made().complete
    batch, model = pairs[:], Adversaries(Imputer(pairs.audio, noise=16)).eval()  # no noise in evaluation
    imputation.adversarial_loss(model, batch)[0].backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}

    image, true = batch["inputs"]["image"], model.imputer.standardised(batch["inputs"]["audio"])
    judge, log_odds = model.discriminator, torch.nn.functional.logsigmoid
    alone = {
        "discriminator": -(log_odds(judge(image, true)) + log_odds(-judge(image, model.imputer(image)))).mean(),
        "imputer": -log_odds(judge(image, model.imputer(image))).mean()
        + imputation.MSE_WEIGHT * (model.imputer(image) - true).square().mean(),
    }
    for side, loss in alone.items():
        weights = dict(getattr(model, side).named_parameters())
        for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
            assert torch.allclose(found[f"{side}.{name}"], gradient, atol=1e-6), name


def test_the_full_path_is_not_drawn_to_the_other(monkeypatch):
    model, batch = TwoPathNet().eval(), made()[:]

    def gradients(weight: float) -> dict[str, torch.Tensor]:
        monkeypatch.setattr(imputation, "MATCHING_WEIGHT", weight)
        model.zero_grad()
        imputation.matching_loss(model, batch)[0].backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    without, with_matching = gradients(0.0), gradients(10.0)
    moved = {name.split(".")[0] for name in without if not torch.equal(without[name], with_matching[name])}
    assert moved == {"lone_image", "fc_lone"}


def test_a_batch_without_audio_trains_the_path_that_needs_none():
    model = TwoPathNet()
    total, parts = imputation.matching_loss(model, poisoned(made())[20:30])
    total.backward()
    assert torch.isfinite(total) and set(parts) == {"lone"}
    assert model.audio.conv1.weight.grad is None and model.lone_image.conv1.weight.grad.any()


def test_networks_have_the_size_that_their_headers_say():
    assert sum(weights.numel() for weights in FusionNet().parameters()) == 43236


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="this file has the methods lower, upper, .*; got 'smil'"):
        trained("smil", made(), tmp_path)
    with pytest.raises(ValueError, match="24 of 40 lack a modality, such as digit-16: load with audio_rate=1"):
        trained("upper", made(), tmp_path)
    with pytest.raises(ValueError, match="no training pairs"):
        trained("audio", made(with_audio=0), tmp_path)
    for method in ("autoencoder", "gan", "full2miss"):
        with pytest.raises(ValueError, match=f"no pair has both image and audio: {method} has nothing to learn"):
            trained(method, made(with_audio=0), tmp_path)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "dropout"])
def test_a_classifier_says_which_modality_it_lacks(method, tmp_path):
    pairs = pairs_for(method)
    lacking = "audio" if method == "audio" else "image"
    other = inputs(pairs, *(name for name in MODALITIES if name != lacking))
    with pytest.raises(ValueError, match=f"this classifier needs .*; {lacking} is not there"):
        trained(method, pairs, tmp_path).classify(other)
