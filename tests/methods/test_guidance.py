"""Deep Multimodal Guidance: golden values, freezing bit for bit, stages on images and on latents."""

import copy
import math
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmlib.methods.guidance import (
    CombinedDecoder,
    Flips,
    GuidanceNet,
    Tiled,
    class_weights,
    combine,
    combined_decoder,
    fine_tune,
    regress,
    task_loss,
    train_jointly,
    train_unimodal,
    unimodal_decoder,
)
from mmlib.networks.encoders import AttentionPool, encoder
from mmlib.tasks.latents import Latents, encode

CLASSES = {"diagnosis": 3, "sign": 2}
DERM_COUNTS = {  # of the shipped training list: class counts and balanced weights
    "DIAG": ((19, 255, 89, 29, 16), (4.294737, 0.32, 0.916854, 2.813793, 5.1)),
    "PN": ((158, 158, 92), (0.860759, 0.860759, 1.478261)),
    "BWV": ((334, 74), (0.610778, 2.756757)),
    "VS": ((344, 42, 22), (0.395349, 3.238095, 6.181818)),
    "PIG": ((251, 44, 113), (0.541833, 3.090909, 1.20354)),
    "STR": ((271, 38, 99), (0.501845, 3.578947, 1.373737)),
    "DaG": ((83, 155, 170), (1.638554, 0.877419, 0.8)),
    "RS": ((314, 94), (0.649682, 2.170213)),
}


def sines(shape: tuple[int, ...], a: float, b: float, c: float) -> torch.Tensor:
    return b * torch.sin(a * torch.arange(math.prod(shape), dtype=torch.float64) + c).view(shape)


def parameters(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


def state(*modules: nn.Module) -> list[torch.Tensor]:
    """Copies of all parameters and buffers."""
    return [value.clone() for module in modules for value in module.state_dict().values()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@dataclass(frozen=True)
class Images:
    """Cases in memory, as the loaders give them."""

    inputs: dict[str, torch.Tensor]
    available: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices) -> dict:
        rows = torch.arange(len(self))[indices]
        inputs = {name: values[rows] for name, values in self.inputs.items()}
        case = [f"case-{row}" for row in rows.tolist()]
        return {"inputs": inputs, "available": self.available[rows], "labels": self.labels[rows], "case": case}

    def subset(self, indices) -> "Images":
        part = self[indices]
        return Images(part["inputs"], part["available"], part["labels"])


def made(count: int = 12, paired: int = 12) -> Images:
    """Small images whose labels can be seen; the first `paired` cases have both modalities."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([torch.arange(count) % 3, torch.arange(count) % 2], dim=1)
    images = {
        name: (labels @ torch.tensor([1, 3])).view(-1, 1, 1, 1)
        + 0.1 * torch.randn(count, 3, 16, 16, generator=generator)
        for name in ("clinic", "derm")
    }
    available = torch.stack([torch.ones(count, dtype=torch.bool), torch.arange(count) < paired], dim=1)
    return Images(images, available, labels)


def networks() -> tuple[dict[str, nn.Module], nn.Module, nn.Module, nn.Module]:
    """Encoders, D_S, G and D_C."""
    torch.manual_seed(0)
    encoders = {name: encoder("photograph")[0] for name in ("clinic", "derm")}
    return encoders, unimodal_decoder(128, CLASSES), GuidanceNet(128, 128, (16,)), combined_decoder(128, 128, CLASSES)


def settings(folder, steps: int = 1, batch_size: int = 6) -> dict:
    return {
        "batch_size": batch_size, "seed": 0, "steps": steps, "lr": 1e-2, "folder": folder, "precision": "float32",
        "warmup": 0.0, "device": "cpu",
    }  # fmt: skip


def weights_of(cases) -> list[torch.Tensor]:
    return class_weights(cases.labels, CLASSES)


# ------------------------------------------------------------------------------------------------------ golden values
def latents_of_the_sheet() -> tuple[torch.Tensor, torch.Tensor]:
    return F.relu(sines((4, 1024), 0.017, 1, 0.3)), F.relu(sines((4, 512), 0.023, 1, 0.1))


def released_head() -> CombinedDecoder:
    head = CombinedDecoder(1024, 512, 3, "released_radpath").double().eval()
    filled = [
        sines((50, 1536), 0.013, 0.05, 0),
        sines((50,), 0.7, 0.1, 0),
        sines((3, 50), 0.29, 0.3, 0.4),
        sines((3,), 1.1, 0.2, 0),
    ]
    for weights, values in zip(head.parameters(), filled, strict=True):
        weights.data = values
    return head


def test_the_released_radiology_head_equals_the_golden_values_g1():
    head, (z_i, z_s) = released_head(), latents_of_the_sheet()
    labels = torch.tensor([[0], [1], [2], [0]])
    weights = [torch.tensor([1, 1.7, 1.62])]
    raw = head.layers[:4](torch.cat([z_s, z_i], dim=1))  # before the ReLU on the logits
    assert raw[0].tolist() == pytest.approx([4.0503129724, 0.7201199756, -4.2732653528], abs=1e-9)
    assert task_loss({"class": head(z_i, z_s)}, labels, weights).item() == pytest.approx(1.2917965713, abs=1e-7)
    assert task_loss({"class": raw}, labels, weights).item() == pytest.approx(1.8996378128, abs=1e-7)
    swapped = head.layers(torch.cat([z_i, z_s], dim=1))
    assert task_loss({"class": swapped}, labels, weights).item() == pytest.approx(1.6149334876, abs=1e-7)


def test_guidance_equals_the_golden_values_g2():
    z_i, z_s = latents_of_the_sheet()
    guidance = GuidanceNet(1024, 512, (512, 256, 256)).double().eval()
    linear = [layer for layer in guidance.layers if isinstance(layer, nn.Linear)]
    for k, layer in enumerate(linear):
        layer.weight.data = sines(tuple(layer.weight.shape), 0.011 + 0.002 * k, 0.08, 0.1 * k)
        layer.bias.data = sines(tuple(layer.bias.shape), 0.5 + 0.1 * k, 0.05, 0)
    found = guidance(z_i)
    assert found.sum().item() == pytest.approx(10482.7345289967, abs=1e-6)
    assert F.mse_loss(found, z_s).item() == pytest.approx(79.2242449061, abs=1e-8)


@pytest.mark.parametrize("task", DERM_COUNTS)
def test_balanced_weights_are_those_of_the_shipped_lists_g3(task):
    counts, expected = DERM_COUNTS[task]
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    (found,) = class_weights(labels, {task: len(counts)})
    assert found.tolist() == pytest.approx(expected, abs=5e-7)


def test_stage_c_freezes_encoder_and_superior_decoder_bit_for_bit_g4(tmp_path):
    encoders, decoder, guidance, _ = networks()
    frozen, before = state(*encoders.values(), decoder), state(guidance)
    fine_tune(guidance, encoders, decoder, made(), weights_of(made()), **settings(tmp_path))
    assert same(state(*encoders.values(), decoder), frozen)
    assert not same(state(guidance), before)
    assert any("running_mean" in name for name in encoders["clinic"].state_dict()), "there are buffers to freeze"


def test_stage_d_freezes_encoder_and_guidance_bit_for_bit_g4(tmp_path):
    encoders, _, guidance, decoder = networks()
    frozen, before = state(*encoders.values(), guidance), state(decoder)
    combine(decoder, encoders, guidance, made(), weights_of(made()), **settings(tmp_path))
    assert same(state(*encoders.values(), guidance), frozen)
    assert not same(state(decoder), before)


def test_stage_b_freezes_both_encoders_bit_for_bit(tmp_path):
    encoders, _, guidance, _ = networks()
    frozen, before = state(*encoders.values()), state(guidance)
    regress(guidance, encoders, made(), **settings(tmp_path))
    assert same(state(*encoders.values()), frozen)
    assert not same(state(guidance), before)


def test_parameters_and_latents_are_as_many_as_counted_g5():
    assert parameters(GuidanceNet(2048, 2048, (1024, 512, 512, 1024))) == 5_510_144
    assert parameters(GuidanceNet(1024, 512, (512, 256, 256))) == 853_504
    assert parameters(GuidanceNet(1024, 512)) == 853_504
    assert parameters(CombinedDecoder(2048, 2048, 3, "released_derm")) == 20_485
    assert parameters(CombinedDecoder(1024, 512, 3, "released_radpath")) == 77_003
    for kind, shape, features in (("photograph", (2, 3, 64, 64), 2048), ("volume", (1, 1, 32, 32, 32), 1024)):
        network, length = encoder(kind, "paper")
        assert length == features and network.eval()(torch.rand(shape)).shape == (shape[0], features)
    network, length = encoder("bag", "paper")
    assert length == 512
    assert network.eval()(torch.rand(1, 2, 3, 32, 32), torch.ones(1, 2, dtype=torch.bool)).shape == (1, 512)
    # CLAM: 792,330 with its classifier (512 to 3) and three instance classifiers (512 to 2)
    assert parameters(AttentionPool(1024, 512, 256)) + 3 * 513 + 3 * 2 * 513 == 792_330


# ------------------------------------------------------------------------------------------------------- the networks
def test_each_task_has_its_own_number_of_classes_but_in_the_released_head():
    shapes = {
        head: [
            tuple(logits.shape)
            for logits in combined_decoder(6, 4, CLASSES, head)(torch.rand(2, 6), torch.rand(2, 4)).values()
        ]
        for head in ("clean", "released_derm", "released_radpath")
    }
    assert shapes == {"clean": [(2, 3), (2, 2)], "released_derm": [(2, 5)] * 2, "released_radpath": [(2, 3), (2, 2)]}


def test_the_released_radiology_head_has_no_gradient_at_negative_logits():
    head, (z_i, z_s) = released_head(), latents_of_the_sheet()
    head.layers[3].bias.requires_grad_(True)
    head(z_i[:1], z_s[:1]).sum().backward()
    assert head.layers[3].bias.grad.tolist() == [1, 1, 0]


def test_guidance_may_be_negative_only_if_asked():
    torch.manual_seed(0)
    z = torch.randn(50, 8)
    assert GuidanceNet(8, 8, (8,)).eval()(z).min() >= 0
    assert GuidanceNet(8, 8, (8,), nonnegative=False).eval()(z).min() < 0


def test_tiled_repeats_or_cuts_what_it_is_given():
    assert Tiled(5)(torch.tensor([[1, 2]])).tolist() == [[1, 2, 1, 2, 1]]
    assert Tiled(1)(torch.tensor([[1, 2]])).tolist() == [[1]]


def test_the_loss_is_the_weighted_mean_summed_over_tasks():
    logits = {"a": torch.tensor([[2.0, 0.0], [0.0, 1.0]]), "b": torch.tensor([[0.0, 0.0, 9.0], [0.0, 0.0, 0.0]])}
    labels, weights = torch.tensor([[0, 0], [0, 1]]), [torch.tensor([3.0, 1.0]), torch.tensor([1.0, 3.0])]
    first = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    second = (math.log(2 + math.exp(9)) + 3 * math.log(3)) / 4  # the third output is no class of the task
    assert task_loss(logits, labels, weights).item() == pytest.approx(first + second, abs=1e-5)


# ------------------------------------------------------------------------------------------ stages, images and latents
def test_latents_computed_once_and_computed_anew_train_the_same_networks(tmp_path):
    encoders, superior, _, _ = networks()
    cases, trained = made(12, 9), {}
    for name in encoders:  # statistics of batches that are not those of one batch
        train_unimodal(
            name,
            encoders[name],
            unimodal_decoder(128, CLASSES),
            cases,
            weights_of(cases),
            **settings(tmp_path / name, 3),
        )
    latents = encode(encoders, cases, chunk=5)
    ways = {"anew": (encoders, cases), "cached": ({name: nn.Identity() for name in encoders}, latents)}
    for way, (given, shown) in ways.items():
        _, _, guidance, combined = networks()
        weights = weights_of(shown)
        regress(guidance, given, shown, **settings(tmp_path / way, 5))
        fine_tune(guidance, given, copy.deepcopy(superior), shown, weights, **settings(tmp_path / way, 5))
        combine(combined, given, guidance, shown, weights, **settings(tmp_path / way, 5))
        trained[way] = state(guidance, combined)
    for anew, once in zip(trained["anew"], trained["cached"], strict=True):
        assert torch.allclose(anew, once, atol=1e-4)


@pytest.mark.parametrize("content", [1e6, math.nan])
def test_a_superior_image_that_is_not_available_changes_nothing(tmp_path, content):
    plain = made(12, 8)
    filled = replace(plain, inputs={**plain.inputs, "derm": plain.inputs["derm"].clone()})
    filled.inputs["derm"][8:] = content
    trained = []
    for place, cases in enumerate((plain, filled)):
        encoders, superior, guidance, combined = networks()
        weights, given = weights_of(cases), settings(tmp_path / str(place), 2)
        train_unimodal("derm", encoders["derm"], superior, cases, weights, **given)
        latents = encode(encoders, cases)
        identity = {name: nn.Identity() for name in encoders}
        regress(guidance, identity, latents, **given)
        fine_tune(guidance, identity, superior, latents, weights, **given)
        combine(combined, identity, guidance, latents, weights, **given)
        combine(combined, identity, None, latents, weights, name="both", **given)
        joint = {"E_I": encoders["clinic"], "E_S": encoders["derm"], "D_I": unimodal_decoder(128, CLASSES)}
        joint |= {"D_S": superior, "G": guidance, "D_C": combined}
        for network in joint.values():
            network.requires_grad_(True)
        train_jointly(joint, cases, weights, **given)
        trained.append(state(*joint.values()))
    assert same(*trained)


@pytest.mark.parametrize("content", [1e6, math.nan])
def test_cases_without_the_inferior_image_train_neither_guidance_nor_combined_decoder(tmp_path, content):
    plain = made()
    plain.available[8:, 0] = False
    filled = replace(plain, inputs={**plain.inputs, "clinic": plain.inputs["clinic"].clone()})
    filled.inputs["clinic"][8:] = content
    trained = []
    for place, cases in enumerate((plain, filled)):
        encoders, superior, guidance, combined = networks()
        weights, given = weights_of(cases), settings(tmp_path / str(place), 3)
        fine_tune(guidance, encoders, superior, cases, weights, **given)
        combine(combined, encoders, guidance, cases, weights, **given)
        trained.append(state(guidance, combined))
    assert same(*trained)


def test_training_jointly_reaches_every_network_and_the_match_does_not_move_its_target(tmp_path):
    encoders, superior, guidance, combined = networks()
    joint = {"E_I": encoders["clinic"], "D_I": unimodal_decoder(128, CLASSES), "E_S": encoders["derm"]}
    joint |= {"D_S": superior, "G": guidance, "D_C": combined}
    before = {name: state(network) for name, network in joint.items()}
    history = train_jointly(joint, made(), weights_of(made()), **settings(tmp_path))
    assert all(not same(state(network), before[name]) for name, network in joint.items())
    assert {"inferior", "superior", "match", "guided", "combined"} <= set(history)
    parts = history[["inferior", "superior", "match", "guided", "combined"]].sum(axis=1)
    assert history["loss"].to_numpy() == pytest.approx(parts.to_numpy(), rel=1e-5)


def test_the_stages_learn_what_can_be_seen(tmp_path):
    encoders, superior, guidance, combined = networks()
    cases = made()
    weights, given = weights_of(cases), settings(tmp_path, 40)
    inferior = unimodal_decoder(128, CLASSES)
    for name, decoder in zip(encoders, (inferior, superior), strict=True):
        train_unimodal(name, encoders[name], decoder, cases, weights, **given)
    latents, identity = encode(encoders, cases), {name: nn.Identity() for name in encoders}
    start = F.mse_loss(guidance.eval()(latents.inputs["clinic"]), latents.inputs["derm"])
    regress(guidance, identity, latents, **given)
    match = F.mse_loss(guidance(latents.inputs["clinic"]), latents.inputs["derm"])
    assert match < 0.7 * start
    fine_tune(guidance, identity, superior, latents, weights, **given)
    combine(combined, identity, guidance, latents, weights, **given)
    guided = guidance(latents.inputs["clinic"])
    for logits in (superior(guided), combined.eval()(latents.inputs["clinic"], guided)):
        for column, values in enumerate(logits.values()):
            assert (values.argmax(dim=1) == latents.labels[:, column]).float().mean() >= 0.9


def test_flips_are_the_same_for_a_step_and_flip_whole_images():
    images = torch.arange(8 * 3 * 2 * 2.0).view(8, 3, 2, 2)
    batches = Flips([{"inputs": {"clinic": images, "derm": images}}], "clinic", seed=3)
    found = batches[0]["inputs"]
    assert torch.equal(found["derm"], images) and torch.equal(found["clinic"], batches[0]["inputs"]["clinic"])
    kinds = set()
    for image, original in zip(found["clinic"], images, strict=True):
        ways = {(): original, (-1,): original.flip(-1), (-2,): original.flip(-2), (-1, -2): original.flip(-1, -2)}
        kinds |= {axes for axes, flipped in ways.items() if torch.equal(image, flipped)}
        assert any(torch.equal(image, flipped) for flipped in ways.values())
    assert len(kinds) > 1


def test_absent_patches_of_a_bag_count_for_nothing_and_weights_sum_to_one():
    torch.manual_seed(0)
    pool, present = AttentionPool(4, 6, 3), torch.tensor([[True, True, False], [True, False, False]])
    patches = torch.rand(2, 3, 4)
    features, weights = pool(patches, present)
    assert weights.sum(dim=1).tolist() == pytest.approx([1, 1]) and (weights[~present] == 0).all()
    assert torch.allclose(features[1], pool(patches[1:, :1], present[1:, :1])[0][0])
    patches[~present] = math.nan
    assert torch.equal(pool(patches, present)[0], features)
    network, length = encoder("bag")
    bags = torch.rand(2, 3, 3, 32, 32)
    clean = network.eval()(bags, present)
    bags[~present] = math.nan
    assert torch.equal(network(bags, present), clean) and clean.shape == (2, length)


def test_latents_of_a_bag_with_a_single_task(tmp_path):
    class Bags(Images):
        def __getitem__(self, indices):
            batch = super().__getitem__(indices)
            batch["patches"] = torch.ones(len(batch["case"]), 2, dtype=torch.bool)
            batch["label"] = batch.pop("labels")[:, 0]
            return batch

        def subset(self, indices):
            rows = torch.arange(len(self))[indices]
            return Bags({n: v[rows] for n, v in self.inputs.items()}, self.available[rows], self.labels[rows])

    cases = Bags(
        {"mri": torch.rand(6, 1, 32, 32, 32), "slide": torch.rand(6, 2, 3, 32, 32)},
        torch.tensor([[True, True]] * 5 + [[True, False]]),
        torch.arange(6)[:, None] % 3,
    )
    encoders = {"mri": encoder("volume")[0], "slide": encoder("bag")[0]}
    decoder, weights = unimodal_decoder(32, {"class": 3}), class_weights(cases.labels, {"class": 3})
    history = train_unimodal("slide", encoders["slide"], decoder, cases, weights, **settings(tmp_path, 2, 4))
    assert len(history) == 2
    latents = encode(encoders, cases, chunk=4)
    assert {name: tuple(values.shape) for name, values in latents.inputs.items()} == {"mri": (6, 64), "slide": (6, 32)}
    assert (latents.inputs["slide"][5] == 0).all() and latents.labels.shape == (6, 1)
    assert isinstance(latents.subset([0, 5]), Latents) and latents.subset([0, 5]).case == ("case-0", "case-5")


# ------------------------------------------------------------------------------------------------------------- errors
def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="G takes inferior latents of 8 features; got 6: build it for the encoder"):
        GuidanceNet(8, 4, (4,))(torch.rand(2, 6))
    with pytest.raises(ValueError, match="D_C takes superior latents of 4 features; got 8"):
        CombinedDecoder(8, 4, 2)(torch.rand(2, 8), torch.rand(2, 8))
    encoders, _, _, _ = networks()
    with pytest.raises(ValueError, match="G gives superior latents of 64 features; got 128"):
        regress(GuidanceNet(128, 64, (8,)), encoders, made(), **settings(tmp_path))
    with pytest.raises(ValueError, match="unknown head 'drawn'; choose one of"):
        CombinedDecoder(8, 4, 2, "drawn")
    with pytest.raises(ValueError, match="released_derm has 5 outputs; 6 classes need the head clean"):
        CombinedDecoder(8, 4, 6, "released_derm")
    with pytest.raises(ValueError, match="task sign: no training case of class 1: it cannot be learned"):
        class_weights(torch.zeros(4, 1, dtype=torch.long), {"sign": 2})
    with pytest.raises(ValueError, match="bag 1 of the batch has no patch: leave it out"):
        AttentionPool(2, 2, 2)(torch.rand(2, 1, 2), torch.tensor([[True], [False]]))
    with pytest.raises(ValueError, match=r"an encoder is one of .*; got 'slide', 'small'"):
        encoder("slide")
    with pytest.raises(ValueError, match="none of 4 cases has derm: leave its encoder out"):
        encode(encoders, made(4, 0))
    with pytest.raises(ValueError, match="no training pairs"):
        regress(GuidanceNet(128, 128, (8,)), encoders, made(4, 0), **settings(tmp_path / "none"))


def test_tables_are_not_flipped(tmp_path):
    values = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    labels = (values[:, :1] > values[:, -1:]).long()  # a flip of the columns turns the class round
    known = torch.ones(64, 1, dtype=torch.bool)
    cases = Latents({"table": values}, known, labels, tuple(map(str, range(64))))
    weights, right = class_weights(labels, {"task": 2}), {}
    for flips in (False, True):
        torch.manual_seed(0)
        head = unimodal_decoder(6, {"task": 2})
        given = {**settings(tmp_path / str(flips), 60), "lr": 0.1}
        train_unimodal("table", nn.Identity(), head, cases, weights, flips=flips, **given)
        right[flips] = (head(values)["task"].argmax(dim=1) == labels[:, 0]).float().mean().item()
    assert right[False] > 0.9 > 0.75 > right[True]
