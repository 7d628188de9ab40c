"""Released weights: parity on layouts written by hand from descriptions of the released code, and hostile files."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from mmlib import official
from mmlib.__main__ import Method, app
from mmlib.methods.guidance import CombinedDecoder, GuidanceNet, unimodal_decoder
from mmlib.methods.shaspec.segmentation import VARIANTS, ShaSpecSegmenter
from mmlib.methods.smil import SMIL
from mmlib.modalities import MRI
from mmlib.networks.encoders import encoder
from mmlib.tasks.distillation import CombinationVNet


def run(*arguments: object):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def lively(network: nn.Module) -> nn.Module:
    """Random weights, norms and running statistics, so that no two layers can be mixed up unseen."""
    torch.manual_seed(0)
    for module in network.modules():
        for name, one in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if one.is_floating_point() and one.ndim == 1:
                one.data.uniform_(0.5, 1.5) if name in ("weight", "running_var") else one.data.normal_(0, 0.1)
    return network.eval()


def renamed(state: dict, places: list[tuple[str, str]]) -> dict:
    """Tensors in the order of `places`, pairs of a released and an own layer, under the released names."""
    made = {}
    for theirs, ours in places:
        for name, tensor in state.items():
            if name.startswith(f"{ours}.") and "." not in name[len(ours) + 1 :]:
                made[f"{theirs}.{name[len(ours) + 1 :]}"] = tensor
    assert len(made) == len(state)
    return made


# ---------------------------------------------------------------------------------------------------------- ProtoKD
PROTOKD = [  # block in the order of definition, its place here, convolutions
    ("one", "net.first", 1), ("one_dw", "net.downs.0.0", 0), ("two", "net.downs.0.1", 2),
    ("two_dw", "net.downs.1.0", 0), ("three", "net.downs.1.1", 3), ("three_dw", "net.downs.2.0", 0),
    ("four", "net.downs.2.1", 3), ("four_dw", "net.downs.3.0", 0), ("five", "net.downs.3.1", 3),
    ("five_up", "net.ups.0.up", 0), ("six", "net.ups.0.convs", 3), ("six_up", "net.ups.1.up", 0),
    ("seven", "net.ups.1.convs", 3), ("seven_up", "net.ups.2.up", 0), ("eight", "net.ups.2.convs", 2),
    ("eight_up", "net.ups.3.up", 0), ("nine", "net.ups.3.convs", 1),
]  # fmt: skip


def protokd_places() -> list[tuple[str, str]]:
    places = []
    for block, place, convs in PROTOKD:
        for unit in range(max(convs, 1)):
            ours = f"{place}.{unit}" if convs else place
            places += [(f"{block}.conv.{3 * unit}", f"{ours}.0"), (f"{block}.conv.{3 * unit + 1}", f"{ours}.1")]
    return [*places, ("head", "net.head")]


def protokd(modalities: tuple[str, ...]) -> tuple[nn.Module, dict]:
    """A network whose channels come in this order, and its weights as released."""
    network = lively(CombinationVNet(modalities, modalities, 16))
    return network, renamed(network.state_dict(), protokd_places())


def test_a_teacher_of_protokd_gives_the_same_outputs_with_its_channels_in_the_order_of_this_package(tmp_path):
    theirs, state = protokd(("t1", "t2", "t1ce", "flair"))
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": one for key, one in state.items()}}, tmp_path / "best.pth")
    result = run("protokd", tmp_path / "best.pth", tmp_path / "teacher.safetensors")
    assert result.exit_code == 0, result.output
    assert "184 tensors, 9,453,745 values" in result.output  # 9,448,116 parameters, 5,629 values of buffers
    ours = CombinationVNet(MRI, MRI, 16).eval()
    ours.load_state_dict(load_file(tmp_path / "teacher.safetensors"))
    images, available = torch.randn(1, 4, 16, 16, 16), torch.ones(1, 4, dtype=torch.bool)
    with torch.no_grad():
        expected = theirs(images[:, [0, 2, 1, 3]], available).logits  # t1, t2, t1ce, flair
        assert torch.allclose(ours(images, available).logits, expected, atol=1e-5)
        assert not torch.allclose(theirs(images, available).logits, expected, atol=1e-3)


def test_a_student_of_protokd_gives_the_same_outputs():
    theirs, state = protokd(("flair",))
    ours = CombinationVNet(MRI, ("flair",), 16).eval()
    ours.load_state_dict(official.convert("protokd", state))
    images, available = torch.randn(1, 4, 16, 16, 16), torch.ones(1, 4, dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(ours(images, available).logits, theirs(images[:, 3:], available[:, 3:]).logits)


def test_a_released_teacher_with_known_weights_gives_the_golden_outputs():
    """The values come from the released class, filled tensor by tensor in the order of its definition."""
    _, state = protokd(("t1", "t2", "t1ce", "flair"))
    k = 0
    for key, one in state.items():
        if key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            state[key] = torch.full_like(one, key.endswith("running_var"))
            continue
        index = torch.arange(one.numel(), dtype=torch.float64)
        if one.ndim > 1:
            filled = 1.5 / math.sqrt(one.numel() / one.shape[0]) * torch.sin(0.37 * index + 0.11 * k)
        elif key.endswith("weight"):
            filled = 1 + 0.1 * torch.sin(0.5 * index + k)
        else:
            filled = 0.05 * torch.sin(0.3 * index + k)
        state[key], k = filled.view(one.shape), k + 1
    assert k == 97
    ours = CombinationVNet(MRI, MRI, 16).eval()
    ours.load_state_dict(official.convert("protokd", state))
    images = torch.sin(0.013 * torch.arange(4 * 16**3, dtype=torch.float64)).view(1, 4, 16, 16, 16)
    with torch.no_grad():
        features, logits = ours.net.double()(images[:, [0, 2, 1, 3]])  # t1, t2, t1ce, flair -> t1, t1ce, t2, flair
    assert features.mean().item() == pytest.approx(1.16990596, abs=1e-5)
    assert logits.mean().item() == pytest.approx(-0.04633215, abs=1e-5)
    golden = [0.06201312, 0.01719871, -0.02803657, -0.06815415]
    assert logits[0, :, 0, 0, 0].tolist() == pytest.approx(golden, abs=1e-5)


# -------------------------------------------------------------------------------------------------------------- SMIL
THETA = [
    *((f"lenet.{layer}", f"image.{layer}") for layer in ("conv1", "conv2", "fc1", "fc2")),
    *((f"snet.{layer}", f"audio.{layer}") for layer in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")),
    *((f"snet.{layer}", f"audio.{layer}") for layer in ("fc1", "fc2", "fc3")),
    ("fc1", "fusion.fc1"), ("fc2", "fusion.fc2"),
]  # fmt: skip
PSI = [(layer, f"auxiliary.{layer}") for layer in ("conv1", "conv2", "fc0", "fc1", "fc1_variance", "fc2")]
PSI += [("fc2_variance", "auxiliary.fc2_variance")]


def smil(folder: Path) -> tuple[SMIL, list[Path]]:
    network = lively(SMIL("released"))
    network.centres.normal_()
    state = network.state_dict()
    files = [folder / "main.pth", folder / "auxiliary.pth", folder / "centres.npy"]
    for path, places, half in ((files[0], THETA, ("image", "audio", "fusion")), (files[1], PSI, ("auxiliary",))):
        torch.save(renamed({key: one for key, one in state.items() if key.startswith(half)}, places), path)
    np.save(files[2], state["centres"].T.numpy())  # K 320, as scikit-learn has centres
    return network, files


def test_smil_gives_the_same_outputs_with_audio_and_without(tmp_path):
    theirs, files = smil(tmp_path)
    assert run("smil", *files, tmp_path / "smil.safetensors").exit_code == 0
    ours = SMIL("released").eval()
    ours.load_state_dict(load_file(tmp_path / "smil.safetensors"))
    image, audio = torch.randn(3, 1, 28, 28), torch.randn(3, 1, 20, 20)
    assert torch.equal(ours(image), theirs(image)) and torch.equal(ours(image, audio), theirs(image, audio))


def test_released_nets_of_smil_with_known_weights_give_the_golden_outputs():
    """The values come from the released nets, each filled parameter by parameter in the order of its definition."""

    def cosines(count: int, shift: int = 0) -> torch.Tensor:
        return (torch.arange(count, dtype=torch.float64) + shift).cos()

    own, state = SMIL("released").state_dict(), {}
    for places in (THETA, PSI):
        half = {key: one for key, one in own.items() if key.rpartition(".")[0] in {ours for _, ours in places}}
        filled = renamed(half, places)
        weights = [key for key in filled if key.endswith(("weight", "bias"))]
        for j, key in enumerate(weights):
            filled[key] = 0.05 * cosines(filled[key].numel(), j).view(filled[key].shape)
        state |= {f"{len(state)}.{key}": one for key, one in filled.items()}
    ours = SMIL("released").eval()
    ours.load_state_dict(official.convert("smil", {**state, "centres": cosines(3200).view(10, 320)}))
    image, audio = (torch.sin(torch.arange(2.0 * n * n)).view(2, 1, n, n) for n in (28, 20))
    with torch.no_grad():
        alone, both = ours(image)[0], ours(image, audio)[0]
    expected = [-0.09188186, -0.08223767, 0.02972079, 0.11910919, 0.07601043]
    assert alone[:5].tolist() == pytest.approx(expected, abs=1e-5)
    expected = [-0.01608873, -0.01426703, 0.00719724, 0.03348651, 0.03143026]
    assert both[:5].tolist() == pytest.approx(expected, abs=1e-5)


def test_centres_are_taken_either_way_up_and_in_any_number(tmp_path):
    state = SMIL("released", centres=5).state_dict()
    state["centres"] = state.pop("centres") + torch.arange(5.0)
    made = official.convert("smil", state)["centres"]
    assert made.shape == (320, 5) and torch.equal(made, state["centres"])
    assert torch.equal(official.convert("smil", {**state, "centres": state["centres"].T})["centres"], made)


def test_smil_without_its_centres_says_which_files_it_takes(tmp_path):
    _, files = smil(tmp_path)
    result = run("smil", *files[:2], tmp_path / "smil.safetensors")
    assert result.exit_code == 1 and "expected the centres of SMIL, (K, 320)" in result.output
    assert not (tmp_path / "smil.safetensors").exists()


# ---------------------------------------------------------------------------------------------------------- guidance
def test_the_guidance_and_the_combined_decoder_of_radpath_give_the_same_outputs():
    z_i, z_s = torch.rand(2, 1024), torch.rand(2, 512)
    g = GuidanceNet(1024, 512).eval()
    layers = [one for one in g.layers if isinstance(one, nn.Linear)]
    state = {f"fc{k}.{kind}": getattr(one, kind) for k, one in enumerate(layers) for kind in ("weight", "bias")}
    assert state["fc0.weight"].shape == (512, 1024) and state["fc3.weight"].shape == (512, 256)
    ours = GuidanceNet(1024, 512).eval()
    ours.load_state_dict(official.convert("guidance-g", state))
    assert torch.equal(ours(z_i), g(z_i))

    first, last = nn.Linear(1536, 50), nn.Linear(50, 3)
    state = {"a.weight": first.weight, "a.bias": first.bias, "b.weight": last.weight, "b.bias": last.bias}
    decoder = CombinedDecoder(1024, 512, 3, "released_radpath").eval()
    decoder.load_state_dict(official.convert("guidance-dc", state))
    with torch.no_grad():  # guided part first, a ReLU on the logits
        expected = last(first(torch.cat([z_s, z_i], dim=1)).relu()).relu()
        assert torch.allclose(decoder(z_i, z_s), expected, atol=1e-6)


def test_the_radiology_classifier_becomes_an_encoder_and_a_decoder():
    from monai.networks.nets import DenseNet121

    theirs = lively(DenseNet121(spatial_dims=3, in_channels=1, out_channels=3, dropout_prob=0.1))
    ours = nn.ModuleList([encoder("volume", "paper")[0], unimodal_decoder(1024, {"class": 3})]).eval()
    ours.load_state_dict(official.convert("guidance-rad", theirs.state_dict()))
    volume = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ours[1](ours[0](volume))["class"], theirs(volume), rtol=1e-4, atol=1e-4)


# ----------------------------------------------------------------------------------------------------------- ShaSpec
ORDER = ("flair", "t1", "t1ce", "t2")  # of the released code; its outputs are et, wt, tc
SHASPEC = {  # stages of the description, under names that are this test's own
    r"^shared\.": "E_sha.",
    r"^specific\.(\d)\.": r"E_spec_\1.",
    r"\.stem\.": ".L0.",
    r"\.stages\.0\.": ".L1.",
    r"\.stages\.1\.": ".L2.",
    r"\.stages\.2\.": ".L3.",
    r"\.stages\.3\.": ".L4.",
    r"\.reduce\.": ".red.",
    r"^projection": "Proj",
    r"^decoder\.ups\.": "Dec.up",
    r"^domain_head": "dom",
}
NAMES = """
"^E_sha": "shared"
"^E_spec_": "specific."
"\\\\.L0": ".stem"
"\\\\.L1": ".stages.0"
"\\\\.L2": ".stages.1"
"\\\\.L3": ".stages.2"
"\\\\.L4": ".stages.3"
"\\\\.red\\\\.": ".reduce."
"^Proj": "projection"
"^Dec\\\\.up": "decoder.ups."
"^dom": "domain_head"
"""


def under_names(name: str) -> str:
    for pattern, replacement in SHASPEC.items():
        name = re.sub(pattern, replacement, name)
    return name


def test_shaspec_gives_the_same_outputs_whatever_is_missing(tmp_path):
    with torch.device("meta"):
        theirs = ShaSpecSegmenter(ORDER, topology="released", variant=VARIANTS["released"])
        ours = ShaSpecSegmenter(MRI, topology="released", variant=VARIANTS["released"])
    torch.manual_seed(0)
    drawn = {name: torch.empty(one.shape).uniform_(-0.1, 0.1) for name, one in theirs.state_dict().items()}
    theirs.load_state_dict(drawn, assign=True)
    state = {under_names(name): one for name, one in theirs.state_dict().items()}
    assert len(state) == 944 and "E_spec_3.L0.0.weight" in state
    (tmp_path / "names.yaml").write_text(NAMES)
    weights = official.convert("shaspec", state, official.read_names(tmp_path / "names.yaml"))
    ours.load_state_dict(weights, assign=True)
    images, every = torch.randn(1, 4, 16, 32, 32), torch.ones(1, 4, dtype=torch.bool)
    turned, back = [MRI.index(name) for name in ORDER], [ORDER.index(name) for name in MRI]
    available = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0]]).bool()
    with torch.no_grad():
        found, expected = ours.encode(images, every), theirs.encode(images[:, turned], every)
        assert torch.equal(found.pooled, expected.pooled[:, back])
        logits = theirs.decode(expected, available[:, turned])[:, [1, 2, 0]]  # et, wt, tc -> wt, tc, et
        assert (ours.decode(found, available) - logits).abs().max() < 1e-3 * logits.abs().max()
        domains = theirs.domain_head(expected.pooled)[:, back][:, :, back]
        assert torch.allclose(ours.domain_head(found.pooled), domains, atol=1e-6)
    assert (logits[0] - logits[1]).abs().max() > 0.01 * logits.abs().max()


def test_shaspec_without_names_is_refused_for_its_encoders_look_alike():
    with pytest.raises(ValueError, match=r"which of the 1 tensors \(a\.weight\) is which\?.*give names"):
        official.convert("shaspec", {"a.weight": torch.zeros(2)})


# -------------------------------------------------------------------------------------------------- files of any kind
class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("function", ["system", "eval", "mkdir"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_hostile_pickle_is_refused_and_never_run(tmp_path, function, alone, pickled):
    mark = tmp_path / "ran"
    calls = {
        "system": Calls(os.system, f"touch {mark}"),
        "eval": Calls(eval, f"open({str(mark)!r}, 'w')"),
        "mkdir": Calls(Path.mkdir, mark),
    }
    held = calls[function]
    torch.save(held if alone else {"state_dict": {"a.weight": torch.zeros(2)}, "x": held}, tmp_path / "bad.pth")
    told = "pickle of an unsafe kind, refused before anything" if pickled else "opening these can run any program"
    with pytest.raises(ValueError, match=told):
        official.read(tmp_path / "bad.pth", pickled=pickled)
    assert not mark.exists()
    torch.load(tmp_path / "bad.pth", weights_only=False)  # the positive control: plain unpickling runs it
    assert mark.exists()


RAN: list[str] = []


class Watched(nn.Module):
    """A network of which any code that loading would run leaves a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.ReLU())
        self.head = nn.Linear(2, 2, bias=False)
        self.register_buffer("kept", torch.arange(3.0))
        self.register_buffer("passing", torch.zeros(1), persistent=False)
        self.nothing = None

    def __setstate__(self, state: dict) -> None:
        RAN.append("loaded")
        super().__setstate__(state)


def test_a_whole_pickled_model_needs_its_own_step_and_runs_no_code_of_its_class(tmp_path):
    model = Watched()
    torch.save({"net": nn.DataParallel(model), "best": np.float64(0.5)}, tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"whole\.pth holds pickled objects beside tensors .*--pickled"):
        official.read(tmp_path / "whole.pth")
    found = official.read(tmp_path / "whole.pth", pickled=True)
    assert list(found) == list(model.state_dict()) and "passing" not in found
    assert all(torch.equal(one, found[name]) for name, one in model.state_dict().items())
    assert RAN == []
    torch.load(tmp_path / "whole.pth", weights_only=False)
    assert RAN == ["loaded"]


def test_a_model_whose_part_is_no_module_is_refused(tmp_path):
    model = Watched()
    model._modules["head"] = Path  # a class, not a module
    torch.save(model, tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"head\.: type is no module of torch"):
        official.read(tmp_path / "whole.pth", pickled=True)


def test_one_of_several_state_dicts_is_chosen(tmp_path):
    first, second = {"a.weight": torch.zeros(2)}, {"a.weight": torch.ones(2)}
    torch.save({"main": first, "auxiliary": second, "epoch": 3}, tmp_path / "both.pth")
    with pytest.raises(ValueError, match=r"several state dicts \(main, auxiliary\): choose .*--entry"):
        official.read(tmp_path / "both.pth")
    assert official.read(tmp_path / "both.pth", entries=["auxiliary"])["a.weight"].tolist() == [1, 1]
    both = official.read(tmp_path / "both.pth", entries=["auxiliary", "main"])
    assert list(both) == ["auxiliary.a.weight", "main.a.weight"]
    with pytest.raises(ValueError, match="no state dict 'teacher'; it has main, auxiliary"):
        official.read(tmp_path / "both.pth", entries=["teacher"])
    torch.save({"epoch": 3, "momenta": {0: torch.zeros(2)}}, tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"none\.pth has no state dict: no tensors by name"):
        official.read(tmp_path / "none.pth")


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: no such file"):
        official.read(tmp_path / "absent.pth")
    (tmp_path / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    torch.save({"a.weight": torch.zeros(500)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:700])
    torch.save(nn.Linear(2, 2), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("keras.h5", "cut.pth", "old.pth"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read as a checkpoint .*expected a state_dict"):
            official.read(tmp_path / name, pickled=True)
    np.save(tmp_path / "objects.npy", np.array([Path()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects\.npy cannot be read as one array"):
        official.read(tmp_path / "objects.npy")


# ------------------------------------------------------------------------------------------------------------ errors
def guidance_state() -> dict:
    return GuidanceNet(1024, 512).state_dict()


def test_keys_that_do_not_fit_are_named_with_what_was_expected():
    state = guidance_state()
    with pytest.raises(ValueError, match=r"unknown tensors extra\.weight; expected the last to be layers\.9\.bias"):
        official.convert("guidance-g", {**state, "extra.weight": torch.zeros(1)})
    short = {name: one for name, one in state.items() if name != "layers.9.bias"}
    with pytest.raises(ValueError, match=r"ends after 7 tensors; expected layers\.9\.bias as well"):
        official.convert("guidance-g", short)
    wide = {**state, "layers.3.weight": torch.zeros(256, 100)}
    found = r"unexpected layers\.3\.weight \(256, 100\) in the file; expected layers\.3\.weight \(256, 512\)"
    with pytest.raises(ValueError, match=found):
        official.convert("guidance-g", wide)
    with pytest.raises(ValueError, match="unknown method 'm2dn'; choose one of shaspec, protokd"):
        official.convert("m2dn", state)
    with pytest.raises(ValueError, match=r"layers\.0\.bias holds NaN or infinity"):
        official.convert("guidance-g", {**state, "layers.0.bias": torch.full((512,), torch.nan)})
    with pytest.raises(ValueError, match=r"first tensor is \(2,\); expected \(16, 1, 3, 3, 3\) of a student"):
        official.convert("protokd", {"a": torch.zeros(2)})


def test_layers_of_equal_shapes_in_another_order_are_seen_by_kind_and_by_the_bounds_of_layers():
    _, state = protokd(("t1",))
    keys = list(state)
    at = keys.index("one.conv.1.weight")
    for swapped in (
        [*keys[:at], keys[at + 1], keys[at], *keys[at + 2 :]],  # bias before weight
        [key.replace("one.conv.1.running_var", "other.running_var") for key in keys],  # a part of another layer
    ):
        turned = dict(zip(swapped, (state.get(key, torch.ones(16)) for key in swapped), strict=True))
        with pytest.raises(ValueError, match=r"unexpected .* in the file; expected net\.first\.0\.1\."):
            official.convert("protokd", turned)


def test_rules_of_names(tmp_path):
    state = {name.replace("layers", "net"): one for name, one in guidance_state().items()}
    backwards = dict(reversed(state.items()))  # by name the order of the file is of no account
    made = official.convert("guidance-g", backwards, {r"^net\.": "layers."})
    assert torch.equal(made["layers.3.weight"], state["net.3.weight"])
    with pytest.raises(
        ValueError, match=r"unknown key net\.9\.bias \(512,\), net\.9\.bias after the rules .*layers\.0"
    ):
        official.convert("guidance-g", backwards, {})
    with pytest.raises(ValueError, match=r"net\.0\.weight and net\.3\.weight both become layers\.0\.weight"):
        official.convert("guidance-g", state, {r"^net\.\d": "layers.0"})
    with pytest.raises(ValueError, match=r"net\.0\.weight has the shape \(512, 1024\); expected \(256, 512\)"):
        official.convert("guidance-g", state, {r"^net\.0": "layers.3"})
    without = {name: one for name, one in state.items() if name != "net.6.bias"}
    with pytest.raises(ValueError, match=r"no key of the file becomes layers\.6\.bias"):
        official.convert("guidance-g", without, {"net": "layers"})
    with pytest.raises(ValueError, match="is no regular expression"):
        official.convert("guidance-g", state, {"(": ""})
    for text in ("- a", "1: a", "a: [", "a: 2"):
        (tmp_path / "names.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"names\.yaml (is no YAML|must map)"):
            official.read_names(tmp_path / "names.yaml")


def test_half_precision_becomes_that_of_a_fresh_network():
    state = {name: one.half() for name, one in guidance_state().items()}
    assert {one.dtype for one in official.convert("guidance-g", state).values()} == {torch.float32}


def test_nothing_half_written_stays_and_nothing_is_overwritten(tmp_path, monkeypatch):
    out = tmp_path / "g.safetensors"

    def fails(weights, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(official, "save_file", fails)
        with pytest.raises(OSError, match="disk full"):
            official.write(guidance_state(), out)
    assert list(tmp_path.iterdir()) == []
    official.write(guidance_state(), out)
    before = out.read_bytes()
    with pytest.raises(ValueError, match=r"g\.safetensors exists: choose another name"):
        official.write({"a": torch.zeros(1)}, out)
    assert out.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["g.safetensors"]
    with pytest.raises(ValueError, match="none is no folder: make it"):
        official.write(guidance_state(), tmp_path / "none" / "g.safetensors")


def test_the_command_line_has_every_method_and_says_what_is_wrong(tmp_path):
    assert tuple(Method) == official.METHODS
    assert run("m2dn", "a", "b").exit_code == 2 and run("smil").exit_code == 2
    result = run("protokd", tmp_path / "absent.pth", tmp_path / "out.safetensors")
    assert result.exit_code == 1 and "ERROR   " in result.output and "no such file" in result.output
    torch.save(Watched(), tmp_path / "whole.pth")
    assert "--pickled" in run("protokd", tmp_path / "whole.pth", tmp_path / "out.safetensors").output
    assert list(tmp_path.iterdir()) == [tmp_path / "whole.pth"]
