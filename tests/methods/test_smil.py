"""SMIL: golden values G5, the bilevel step by finite differences, what withheld audio may change."""

import gc
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from torch import nn

from mmlib.data.avmnist import Pairs
from mmlib.methods.smil import (
    ADAPTED,
    MEMORY,
    SMIL,
    VARIANTS,
    AudioNet,
    Gaussian,
    ImageNet,
    MetaBatches,
    Variant,
    adapt,
    memory_trace,
    meta_loss,
    pretrain,
    priors,
    train,
)
from mmlib.tasks.classification import Budget, Stages
from mmlib.training import fit

TINY = Budget(epochs=2, meta_steps=4, batch_size=8, precision="float32", device="cpu")
BOTH, IMAGE, AUDIO = (True, True), (True, False), (False, True)


def sines(*shape: int) -> torch.Tensor:
    return torch.arange(math.prod(shape), dtype=torch.float64).sin().view(shape)


def cosines(*shape: int) -> torch.Tensor:
    return torch.arange(math.prod(shape), dtype=torch.float64).cos().view(shape)


def parameters(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


def made(*available: tuple[bool, bool], content: float = 0.0) -> Pairs:
    """Random pairs of which so much is available; what is not has this content."""
    generator, count = torch.Generator().manual_seed(0), len(available)
    has = torch.tensor(available)
    image, audio = has[..., None, None, None].unbind(dim=1)
    return Pairs(
        torch.where(image, torch.randn(count, 1, 28, 28, generator=generator), content),
        torch.where(audio, torch.randn(count, 1, 20, 20, generator=generator), content),
        torch.arange(count) % 10,
        has,
        tuple(f"case-{i}" for i in range(count)),
        tuple(f"spoken-{i}" if row[1] else "" for i, row in enumerate(available)),
    )


MIXED = [BOTH] * 12 + [IMAGE] * 8


def batch(step: int = 0, content: float = 0.0) -> dict:
    pairs = made(*MIXED, content=content)
    return MetaBatches(pairs.subset(slice(12, None)), pairs.complete, 4, seed=0)[step]


def net(mode: str = "paper", **settings) -> SMIL:
    torch.manual_seed(0)
    model = SMIL(mode, **settings)
    model.centres.copy_(torch.rand(model.centres.shape))
    return model


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ------------------------------------------------------------------------------------------------------ golden values
def golden() -> SMIL:
    model = SMIL("released").double().eval()
    auxiliary = list(model.auxiliary.parameters())
    theta = [*model.image.parameters(), *model.audio.parameters(), *model.fusion.parameters()]
    for weights in (theta, auxiliary):
        for j, one in enumerate(weights):
            one.data = 0.05 * (torch.arange(one.numel(), dtype=torch.float64) + j).cos().view(one.shape)
    model.centres.copy_(cosines(10, 320).T)
    return model


def test_parameters_equal_the_counted_ones_g5():
    model = SMIL("released")
    assert (parameters(ImageNet()), parameters(AudioNet())) == (6_872, 67_254)
    assert parameters(model.image) + parameters(model.audio) + parameters(model.fusion) == 105_560
    assert parameters(model.auxiliary) == 219_128
    assert parameters(model) == 324_688
    assert parameters(SMIL("paper")) == 324_688 - 1_390  # without the two convolutions that nothing uses


def test_the_released_mode_equals_the_golden_values_g5():
    model, image, audio = golden(), sines(2, 1, 28, 28), sines(2, 1, 20, 20)
    imputed, paired = model(image, whole=True), model(image, audio, whole=True)
    assert model.image.features(image).sum().item() == pytest.approx(6.14875829, abs=1e-8)
    assert model.audio.features(audio).sum().item() == pytest.approx(11.51804027, abs=1e-8)
    assert imputed.audio.sum().item() == pytest.approx(0.29795847, abs=1e-8)
    assert torch.equal(model(image), imputed.logits) and torch.equal(model(image, audio), paired.logits)
    assert imputed.logits[0].tolist() == pytest.approx(
        [-0.09188186, -0.08223767, 0.02972079, 0.11910919, 0.07601043]
        + [-0.0597358, -0.13542285, -0.05981192, 0.08664783, 0.13908127], abs=1e-8,
    )  # fmt: skip
    assert paired.logits[0].tolist() == pytest.approx(
        [-0.01608873, -0.01426703, 0.00719724, 0.03348651, 0.03143026]
        + [-0.00905125, -0.05112046, -0.04442746, 0.01440246, 0.06707707], abs=1e-8,
    )  # fmt: skip


def test_the_released_outer_loss_equals_the_golden_values_g5():
    both = {"inputs": {"image": sines(2, 1, 28, 28), "audio": sines(2, 1, 20, 20)}, "label": torch.tensor([3, 7])}
    variant = Variant(mode="released", noise=False, inner="none")
    total, parts = meta_loss(variant, 1)(golden(), {"incomplete": both, "complete": both, "step": 0})
    assert parts["imputed"].item() == pytest.approx(2.27957345, abs=1e-8)
    assert parts["joint"].item() == pytest.approx(0.01 * 0.51264478, abs=1e-9)
    assert parts["hidden"].item() == pytest.approx(0.01 * 5.16132749, abs=1e-9)
    assert (total - parts["inner"]).item() == pytest.approx(2.33631317, abs=1e-8)


# -------------------------------------------------------------------------------------------------------- two readings
@pytest.mark.parametrize("mode", ["paper", "released"])
def test_the_two_modes_by_hand(mode):
    model, image = net(mode).eval(), torch.randn(3, 1, 28, 28)
    for weights in model.auxiliary.parameters():
        nn.init.zeros_(weights)
    output = model(image, whole=True)
    plain = torch.cat([model.image.features(image), model.centres.mean(dim=1).expand(3, -1)], dim=1)
    r = math.log(2)  # softplus(0)
    assert torch.allclose(output.joint, plain * r if mode == "paper" else plain + r, atol=1e-6)
    hidden = model.fusion.fc1(output.joint).relu()
    assert torch.allclose(output.hidden, hidden * r if mode == "paper" else hidden + r, atol=1e-6)


def test_the_released_weights_depend_on_the_image_and_those_of_the_paper_on_noise_alone():
    image = torch.randn(2, 1, 28, 28)
    for mode, between_images, between_draws in (("released", True, False), ("paper", False, True)):
        model = net(mode).eval()
        sure, drawn = model(image, whole=True).audio, model(image, noise=True, whole=True).audio
        assert torch.allclose(sure[0], sure[1]) is not between_images
        assert torch.allclose(sure, drawn) is not between_draws
        assert torch.equal(model(image), model(image))


def test_without_the_regulariser_features_are_not_perturbed():
    model, image = net(regularised=False).eval(), torch.randn(2, 1, 28, 28)
    output = model(image, noise=True, whole=True)
    assert torch.equal(output.joint, torch.cat([model.image.features(image), output.audio], dim=1))
    assert len(output.drawn) == 1


def test_divergence_by_hand_and_as_a_part_of_the_loss():
    assert Gaussian(torch.ones(2, 3), torch.ones(2, 3)).divergence(1) == 0
    one = Gaussian(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, math.e]]))
    assert one.divergence(0).item() == pytest.approx(2 + 0.5 * (math.e**2 - 1) - 1)
    _, parts = meta_loss(Variant(divergence=0.1), 1)(net(), batch())
    assert parts["divergence"] > 0
    assert "divergence" not in meta_loss(Variant(), 1)(net(), batch())[1]


# ---------------------------------------------------------------------------------------------------- the bilevel step
def slopes(variant: Variant, names: list[str]) -> tuple[list[float], list[float]]:
    """Steepest entries of the loss's gradient in these weights: by autograd, and by finite differences."""
    model, given = net(variant.mode).double().eval(), batch()
    for part in ("incomplete", "complete"):
        given[part]["inputs"] = {name: value.double() for name, value in given[part]["inputs"].items()}
    loss, weights = meta_loss(variant, 1), dict(model.named_parameters())
    loss(model, given)[0].backward()
    exact, measured = [], []
    for name in names:
        gradient = weights[name].grad.flatten()
        entry, width = int(gradient.abs().argmax()), 1e-6
        flat, ends = weights[name].data.view(-1), []
        for sign in (1, -2, 1):
            flat[entry] += sign * width
            ends.append(loss(model, given)[0].item())
        exact.append(gradient[entry].item())
        measured.append((ends[0] - ends[1]) / (2 * width))
    return exact, measured


@pytest.mark.parametrize("mode", ["paper", "released"])
def test_second_order_gradients_equal_finite_differences_and_first_order_ones_do_not(mode):
    names = ["image.conv1.weight", "fusion.fc1.weight", "fusion.fc2.bias", "auxiliary.fc1.weight"]
    exact, measured = slopes(Variant(mode=mode, noise=False), names)
    assert exact == pytest.approx(measured, rel=1e-5)
    first, measured = slopes(Variant(mode=mode, noise=False, inner="first-order"), names)
    assert first != pytest.approx(measured, rel=1e-5)


def test_the_inner_step_by_hand_leaves_audio_net_and_psi_alone():
    model = net()
    before, loss = state(model), model(torch.randn(4, 1, 28, 28)).logsumexp(dim=1).sum()
    adapted = adapt(model, loss, 0.5)
    loss.backward()
    moved = {name: weights for name, weights in model.named_parameters() if name in adapted}
    assert set(adapted) == {name for name in before if name.startswith(ADAPTED)}
    assert not any(name.startswith(("audio", "auxiliary")) for name in adapted)
    assert all(torch.allclose(adapted[name], weights - 0.5 * weights.grad) for name, weights in moved.items())
    assert same(state(model), before)


def test_the_inner_rate_of_the_released_mode_falls_and_that_of_the_paper_does_not():
    image = {name: replace(variant, noise=False) for name, variant in VARIANTS.items()}
    for mode, falls in (("paper", False), ("released", True)):
        early, late = (
            meta_loss(image[mode], 8)(net(mode).eval(), batch() | {"step": step})[1]["imputed"] for step in (0, 7)
        )
        assert torch.equal(early, late) is not falls


def test_gradients_reach_what_is_used_and_nothing_else():
    unused = {"paper": ("image.fc", "audio.fc")}
    unused["released"] = (*unused["paper"], "auxiliary.conv", "auxiliary.fc1_variance", "auxiliary.fc2_variance")
    for mode, without in unused.items():
        model = net(mode)
        meta_loss(VARIANTS[mode], 1)(model, batch())[0].backward()
        missing = {name for name, weights in model.named_parameters() if weights.grad is None}
        assert missing == {name for name, _ in model.named_parameters() if name.startswith(without)}


@pytest.mark.parametrize("variant", ["paper", "released", "joint"])
def test_audio_of_incomplete_pairs_is_never_read(variant):
    losses = []
    for content in (0.0, float("nan")):
        torch.manual_seed(1)
        losses.append(meta_loss(VARIANTS[variant], 1)(net(VARIANTS[variant].mode), batch(content=content))[0])
    assert torch.isfinite(losses[0]) and torch.equal(*losses)


def test_a_killed_meta_stage_ends_in_the_same_weights(tmp_path):
    pairs = made(*MIXED)
    batches = MetaBatches(pairs.subset(slice(12, None)), pairs.complete, 4, seed=0)
    settings = {"steps": 8, "lr": 1e-3, "seed": 0, "checkpoint_every": 3, "precision": "float32", "device": "cpu"}
    loss, ended = meta_loss(VARIANTS["paper"], 8), []

    def killed(model, batch):
        if batch["step"] == 5:
            raise KeyboardInterrupt
        return loss(model, batch)

    with pytest.raises(KeyboardInterrupt):
        fit(net(), batches, killed, folder=tmp_path / "killed", **settings)
    for folder in ("killed", "whole"):
        model = net()
        assert len(fit(model, batches, loss, folder=tmp_path / folder, **settings)) == 8
        ended.append(state(model))
    assert same(*ended)


# --------------------------------------------------------------------------------------------------------------- memory
@pytest.mark.parametrize("mode", ["paper", "released"])
def test_no_tensor_outlives_its_step(tmp_path, mode):
    pairs, loss, alive = made(*MIXED), meta_loss(VARIANTS[mode], 100), []

    def counting(model, batch):
        if batch["step"] in (10, 99):
            alive.append(sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()))
        return loss(model, batch)

    batches = MetaBatches(pairs.subset(slice(12, None)), pairs.complete, 2, seed=0)
    settings = {"lr": 1e-3, "seed": 0, "checkpoint_every": 1000, "precision": "float32", "device": "cpu"}
    fit(net(mode), batches, counting, steps=100, folder=tmp_path, **settings)
    assert alive[1] == alive[0]


def test_memory_grows_where_gradients_with_a_graph_are_left_behind():
    grown, clean = {}, get_context("forkserver")
    clean.set_forkserver_preload([memory_trace.__module__])
    for way in MEMORY:  # each in a process of its own: what an earlier test gave back would be taken first
        with ProcessPoolExecutor(1, mp_context=clean) as alone:
            trace = alone.submit(memory_trace, way, steps=30, batch_size=4).result()
        grown[way] = trace[-1] - trace[4]
    flat = max(grown["no graph"], grown["graph, cleared"])
    assert flat < 25 < 40 < min(grown["graph, never cleared"], grown["graph, copied weights"]), grown
    with pytest.raises(ValueError, match="no graph"):
        memory_trace("leak")


# ----------------------------------------------------------------------------------------------------------- all stages
@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return pretrain(made(*MIXED), Stages(tmp_path_factory.mktemp("smil"), 0, TINY))


def run(pairs, folder, variant: str = "paper", pretrained=None, budget: Budget = TINY, seed: int = 0):
    return train("smil", variant, pairs, seed=seed, budget=budget, folder=folder, pretrained=pretrained)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "k50"])
def test_every_variant_trains_and_classifies_with_audio_and_without(variant, pretrained, tmp_path):
    trained = run(pretrained.pairs, tmp_path, variant, pretrained)
    images, audio = torch.randn(2, 1, 28, 28), torch.randn(2, 1, 20, 20)
    for inputs in ({"image": images}, {"image": images, "audio": audio}):
        logits = trained.classify(inputs)
        assert logits.shape == (2, 10) and torch.isfinite(logits).all()
        assert torch.equal(logits, trained.classify(inputs))
    assert set(trained.history["stage"]) == {"image", "audio", "fusion", "meta"}
    assert not trained.model.training


def test_withheld_audio_reaches_no_stage(tmp_path):
    available = [*MIXED, AUDIO, AUDIO]
    ended = []
    for content in (0.0, float("nan")):
        pairs = made(*available, content=content)
        trained = run(pairs, tmp_path / str(content))
        ended.append(state(trained.model))
        assert set(trained.recordings) == {"image", "audio", "fusion", "priors", "meta"}
        for stage, heard in trained.recordings.items():
            complete = {f"spoken-{i}" for i in range(12)}
            assert set(heard) == (complete | {"spoken-20", "spoken-21"} if stage == "audio" else complete), stage
            alone = {case for case, shown in trained.exposure[stage].items() if shown == ["audio"]}
            assert alone == ({"case-20", "case-21"} if stage == "audio" else set())
    assert same(*ended) and all(torch.isfinite(value).all() for value in ended[0].values())


def test_pretraining_is_shared_or_repeated_with_the_same_result(pretrained, tmp_path):
    alone, shared = run(pretrained.pairs, tmp_path / "a"), run(pretrained.pairs, tmp_path / "b", "paper", pretrained)
    again = run(pretrained.pairs, tmp_path / "a")  # every stage is read from its checkpoint
    assert same(state(alone.model), state(shared.model)) and same(state(alone.model), state(again.model))
    assert alone.exposure == shared.exposure and len(alone.history) == len(shared.history)


def test_complete_pairs_take_the_place_of_missing_incomplete_ones(tmp_path):
    trained = run(made(*[BOTH] * 12), tmp_path)
    assert len(trained.exposure["meta"]) == 12


def test_priors_are_means_of_clusters_or_drawn():
    model, pairs = net(), made(*[BOTH] * 60)
    features = model.eval().audio.features(pairs.audio)
    assert torch.allclose(priors(model, pairs, Variant(centres=1), 0)[:, 0], features.mean(dim=0), atol=1e-5)
    assert priors(model, pairs, VARIANTS["k50"], 0).shape == (320, 50)
    drawn = priors(model, pairs, VARIANTS["random-priors"], 0)
    assert drawn.shape == (320, 10) and torch.equal(drawn, priors(model, pairs, VARIANTS["random-priors"], 0))


def test_a_handful_of_pairs_is_learnt_by_heart(tmp_path):
    pairs = made(*[BOTH] * 10)
    budget = replace(TINY, epochs=60, meta_steps=120, batch_size=10)
    trained = run(pairs, tmp_path, "released", budget=budget)
    for inputs in ({"image": pairs.images}, {"image": pairs.images, "audio": pairs.audio}):
        assert torch.equal(trained.classify(inputs).argmax(dim=1), pairs.labels)


def test_what_cannot_be_done_is_refused(pretrained, tmp_path):
    with pytest.raises(ValueError, match="mode must be 'paper' or 'released'; got 'blog'"):
        SMIL("blog")
    with pytest.raises(ValueError, match="paper, released, .* got smil blog"):
        run(pretrained.pairs, tmp_path, "blog")
    with pytest.raises(ValueError, match="none of 2 pairs has both image and audio"):
        run(made(IMAGE, AUDIO), tmp_path)
    with pytest.raises(ValueError, match="50 centres need as many complete pairs, not 12"):
        run(pretrained.pairs, tmp_path, "k50", pretrained)
    with pytest.raises(ValueError, match="other pairs or to seed 0, not 1"):
        run(pretrained.pairs, tmp_path, "paper", pretrained, seed=1)
    with pytest.raises(ValueError, match="other pairs"):
        run(made(*MIXED), tmp_path, "paper", pretrained)
    with pytest.raises(ValueError, match="got \\['audio'\\]: add the image"):
        run(pretrained.pairs, tmp_path, "paper", pretrained).classify({"audio": pretrained.pairs.audio})
