"""ShaSpec for digits: equations by hand, what a missing modality may change, gradients, overfitting, errors."""

import pytest
import torch
import torch.nn.functional as F

from mmlib.data.avmnist import MODALITIES, Pairs
from mmlib.methods.shaspec import ShaSpecClassifier
from mmlib.methods.shaspec.classification import DESIGNS, classification_loss, digit_features, train
from mmlib.methods.shaspec.segmentation import variant_of
from mmlib.tasks.classification import Budget

BUDGET = Budget(epochs=1, batch_size=8, precision="float32", device="cpu")
designs = pytest.mark.parametrize("design", DESIGNS)


def made(count: int = 20, with_audio: int = 8) -> Pairs:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 10
    available = torch.ones(count, 2, dtype=torch.bool)
    images, audio = (torch.randn(count, 1, side, side, generator=generator) for side in (28, 20))
    whole = Pairs(images, audio, labels, available, tuple(map(str, range(count))), tuple(map(str, range(count))))
    available = available.clone()
    available[with_audio:, 1] = False
    return whole.masked(available)


def net(design: str = "stems", variant: str = "paper") -> ShaSpecClassifier:
    torch.manual_seed(0)
    return ShaSpecClassifier(design=design, variant=variant_of(variant)).eval()


def test_the_paper_s_budget_of_parameters():
    assert sum(weights.numel() for weights in ShaSpecClassifier().parameters()) == pytest.approx(0.22e6, rel=0.05)


@designs
def test_fusion_follows_the_equations(design):
    model, batch = net(design), made()[:]
    output = model(batch["inputs"], batch["available"])
    both = torch.cat([output.shared, output.specific], dim=2)
    fused = output.shared + both @ model.projection.weight.T + model.projection.bias  # Eq. (2)
    torch.testing.assert_close(output.fused[:8], fused[:8])
    torch.testing.assert_close(output.fused[8:, 0], fused[8:, 0])
    torch.testing.assert_close(output.fused[8:, 1], output.shared[8:, 0])  # Eq. (4), one modality left
    assert not output.shared[8:, 1].any() and not output.specific[8:, 1].any()


@designs
def test_what_is_absent_changes_nothing(design):
    model, batch = net(design), made()[:]
    clean = model(batch["inputs"], batch["available"])
    batch["inputs"]["audio"][8:] = torch.nan
    torch.testing.assert_close(model(batch["inputs"], batch["available"]).logits, clean.logits, rtol=0, atol=0)
    image = {"image": batch["inputs"]["image"]}
    alone = torch.tensor([[True, False]]).expand(20, -1)
    torch.testing.assert_close(model(image).logits, model(batch["inputs"], alone).logits)


@designs
@pytest.mark.parametrize("variant", ["paper", "kl-1", "ce-1", "mse-0.1"])
def test_gradients_reach_what_was_used(design, variant):
    model, batch = net(design, variant), made()[:]
    total, parts = classification_loss(model, batch)
    total.backward()
    assert set(parts) == {"task", "alignment", "domain"} and torch.isfinite(total)
    assert all(weights.grad is not None for weights in model.parameters())
    model.zero_grad()
    classification_loss(model, made()[8:])[0].backward()
    audio_only = [model.specific["audio"], *([model.stems["audio"]] if design == "stems" else [])]
    assert all(weights.grad is None for module in audio_only for weights in module.parameters())


def test_the_whole_loss_by_hand():
    model, batch = net(), made()[:]
    output = model(batch["inputs"], batch["available"])
    task = F.cross_entropy(output.logits, batch["label"])
    alignment = (output.shared[:8, 0] - output.shared[:8, 1]).abs().mean(dim=1).sum() / 20
    logits = torch.cat([output.domain_logits[:, 0], output.domain_logits[:8, 1]])
    domain = F.cross_entropy(logits, torch.tensor([0] * 20 + [1] * 8))
    torch.testing.assert_close(classification_loss(model, batch)[0], task + 0.1 * alignment + 0.02 * domain)


@designs
def test_two_pairs_are_learnt_by_heart(design, tmp_path):
    pairs = made(with_audio=0).subset([0, 19])
    variant = "paper" if design == "stems" else "padded"
    budget = Budget(epochs=150, batch_size=2, lr=3e-3, weight_decay=0.0, precision="float32", device="cpu")
    result = train("shaspec", variant, pairs, seed=0, budget=budget, folder=tmp_path)
    assert result.classify({"image": pairs.images}).argmax(dim=1).tolist() == pairs.labels.tolist()
    assert result.recordings == {"shaspec": []} and result.model.design == design


def test_withheld_audio_does_not_touch_the_weights(tmp_path):
    def weights(pairs, folder):
        return train("shaspec", "paper", pairs, seed=0, budget=BUDGET, folder=folder).model.state_dict()

    pairs = made()
    poisoned = made()
    poisoned.audio[8:] = torch.nan
    first, second = weights(pairs, tmp_path / "a"), weights(poisoned, tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_features_are_those_of_complete_pairs():
    features = digit_features(net(), made())
    assert features["shared"].shape == features["specific"].shape == (8, 2, 160)


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="design must be one of"):
        ShaSpecClassifier(design="glued")
    with pytest.raises(ValueError, match=r"available claims \['audio'\], but inputs hold \['image'\] only"):
        net()({"image": torch.zeros(1, 1, 28, 28)}, torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="no modality is available"):
        net()(made()[:]["inputs"], torch.zeros(20, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="this file has the method shaspec; got 'smil'"):
        train("smil", "paper", made(), seed=0, budget=BUDGET, folder=tmp_path)
    with pytest.raises(ValueError, match="there is no variant 'best'"):
        train("shaspec", "best", made(), seed=0, budget=BUDGET, folder=tmp_path)
    assert ShaSpecClassifier.modalities == MODALITIES
