"""Teachers and students: classes and regions, what a network may read, a frozen teacher, and a run on real files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from methods.golden import waves
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset

from mmlib import records
from mmlib.data.batches import Crops, Samples
from mmlib.data.cases import Case, tensors
from mmlib.data.resample import back_to, resample
from mmlib.data.table import TableCases
from mmlib.methods import protokd
from mmlib.modalities import MRI, mask
from mmlib.tasks.distillation import (
    CombinationVNet,
    Teaching,
    around_tumour,
    check_labels,
    distillation_loss,
    labels_of,
    load_network,
    region_logits,
    rim_volumes,
    segmentation_loss,
    teaching,
)
from mmlib.tasks.segmentation import dice, evaluate_combinations, predict, probabilities
from mmlib.training import fit

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "brats13"
ALL = torch.ones(2, len(MRI), dtype=torch.bool)
QUIET = dict(precision="float32", device="cpu", optimizer="adam", warmup=0.0, max_norm=None, weight_decay=1e-5)


# ------------------------------------------------------------------------------------------------ classes and regions
def test_region_logits_are_positive_where_the_argmax_is_in_the_region():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, 7)
    best, ahead = logits.argmax(1), region_logits(logits)
    for region, inside in enumerate([(1, 2, 3), (1, 2), (1,)]):
        assert torch.equal(ahead[:, region] > 0, torch.isin(best, torch.tensor(inside)))
    assert torch.equal(ahead.sigmoid() > 0.5, ahead > 0)
    assert torch.equal(labels_of(ahead > 0), best), "regions are nested, and lead back to the classes"


def test_region_logits_by_hand():
    logits = torch.tensor([0.0, 5.0, 2.0, 3.0]).view(1, 4, 1, 1, 1)  # background, enhancing, core, oedema
    assert region_logits(logits).flatten().tolist() == [5, 2, 2]


def test_classes_of_nested_regions():
    wt = torch.tensor([0, 1, 1, 1]).view(1, 1, 1, 4)
    regions = torch.stack([wt, wt * torch.tensor([0, 0, 1, 1]), wt * torch.tensor([0, 0, 0, 1])], 1).bool()
    assert labels_of(regions).flatten().tolist() == [0, 3, 2, 1]
    assert not labels_of(regions).is_floating_point()


def test_labels_are_brought_to_one_form():
    like = torch.zeros(2, 7, 3, 4, 5)
    labels = torch.ones(2, 1, 3, 4, 5, dtype=torch.uint8)
    checked = check_labels(labels, like, 2)
    assert checked.shape == (2, 3, 4, 5) and checked.dtype == torch.long
    assert torch.equal(check_labels(labels[:, 0], like, 2), checked)
    with pytest.raises(
        ValueError, match=r"\(N, D, H, W\) = \(2, 3, 4, 5\); got \(2, 2, 3, 4, 5\), torch.uint8: take bo"
    ):
        check_labels(labels.expand(-1, 2, -1, -1, -1), like, 2)
    with pytest.raises(ValueError, match="labels must lie in 0 to 0; found 1 to 1: map them first"):
        check_labels(labels, like, 1)


# ---------------------------------------------------------------------------------------------------------- task loss
def test_golden_parts_of_the_task_loss():
    """Weights by hand from the counts 51, 25, 26, 26 of 128; what is left of the loss is Dice."""
    logits, index = waves((2, 4, 4, 4, 4), 0.37, 3, 0), torch.arange(128)
    labels = ((7 * index + index // 5) % 4).view(2, 4, 4, 4)
    weights = 1 - torch.tensor([51, 25, 26, 26]) / 128
    assert weights.tolist() == [0.6015625, 0.8046875, 0.796875, 0.796875]
    rare = F.cross_entropy(logits, labels, weights.double()).item()
    assert rare == pytest.approx(2.8875008826, abs=1e-9)
    whole = segmentation_loss(logits, labels).item()
    assert whole == pytest.approx(3.5863614361, abs=1e-9) and whole - rare == pytest.approx(0.6988605535, abs=1e-9)


def test_a_batch_of_one_class_is_finite():
    logits = torch.randn(1, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.full((1, 4, 4, 4), 2)
    loss = segmentation_loss(logits, labels)
    loss.backward()
    p = logits.detach().softmax(1)
    overlap = (2 * p[:, 2].sum() + 1e-5) / (p[:, 2].square().sum() + 64 + 1e-5)
    absent = [1e-5 / (p[:, k].square().sum() + 1e-5) for k in (0, 1, 3)]
    by_hand = 1 - (overlap + sum(absent)) / 4
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-6), "Dice alone: the class that fills a batch weighs 0"
    assert logits.grad.isfinite().all() and logits.grad.any()


def test_a_perfect_prediction_costs_nothing():
    labels = torch.arange(64).view(1, 4, 4, 4) % 4
    logits = 50 * F.one_hot(labels, 4).movedim(-1, 1).double()
    assert segmentation_loss(logits, labels).item() == pytest.approx(0, abs=1e-9)
    assert segmentation_loss(-logits, labels).item() > 10


# ------------------------------------------------------------------------------------------------ what a network reads
@pytest.fixture
def student():
    torch.manual_seed(0)
    return CombinationVNet(MRI, ("t1ce",), width=2).eval()


def test_other_modalities_change_nothing(student):
    images = torch.randn(2, 4, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = student(images, ALL)
    reads = torch.tensor([[False, True, False, False]] * 2)
    for content in (torch.full_like(images, float("nan")), 1e6 * torch.rand_like(images)):
        filled = torch.where(reads[..., None, None, None], images, content)
        for available in (ALL, reads):
            found = student(filled, available)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    changed = student(torch.where(reads[..., None, None, None], -images, images), ALL)
    assert not torch.equal(changed.logits, expected.logits)


def test_shapes_of_a_prediction(student):
    found = student(torch.zeros(1, 4, 16, 32, 16), ALL[:1])
    assert [tuple(one.shape) for one in found] == [(1, 2, 16, 32, 16), (1, 4, 16, 32, 16), (1, 32, 1, 2, 1)]


def test_a_case_that_lacks_what_is_read_is_refused():
    teacher = CombinationVNet(MRI, ("t1", "flair"), width=2)
    available = torch.tensor([[True] * 4, [False, True, True, True]])
    with pytest.raises(ValueError, match=r"reads t1\+flair, and a case lacks some of it: leave the case out"):
        teacher(torch.zeros(2, 4, 16, 16, 16), available)
    with pytest.raises(ValueError, match="no modality is available in batch positions"):
        teacher(torch.zeros(2, 4, 16, 16, 16), available & False)


def small_case(seed, names=MRI):
    """A brain of 16^3 voxels that fills its volume, and labels of every kind."""
    rng = np.random.default_rng(seed)
    images = {name: rng.normal(size=(16, 16, 16)).astype(np.float32) + 9 for name in names}
    labels = rng.choice([0, 1, 2, 4], (16, 16, 16)).astype(np.uint8)
    return Case(f"c{seed}", images, np.eye(4), labels)


@torch.no_grad()
def test_scores_are_those_of_the_argmax():
    student = network(("t1ce",), width=4)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = 1.0  # one batch sets the statistics, so that every feature is the largest somewhere
    student(torch.randn(2, 4, 16, 16, 16), ALL)
    student.eval().net.head.weight.copy_(torch.eye(4)[..., None, None, None])
    cases = [small_case(0), small_case(1, ("t1ce",)), small_case(2, ("t1", "flair"))]
    table = evaluate_combinations(student, cases, [("t1ce",)], hausdorff=False)
    assert table["case"].unique().tolist() == ["c0", "c1"] and set(table["available"]) == {"t1ce"}
    for case in cases[:2]:
        sample, _ = tensors(case, MRI)
        best = student(sample["images"][None], sample["available"][None]).logits[0].argmax(0)
        assert len(best.unique()) == 4
        found = torch.stack([torch.isin(best, torch.tensor(inside)) for inside in [(1, 2, 3), (1, 2), (1,)]])
        expected = dice(found[None], sample["regions"])[0].tolist()
        assert table.loc[table["case"] == case.name, "value"].tolist() == pytest.approx(expected, abs=1e-9)


# --------------------------------------------------------------------------------------------------------- training
class Blobs(Dataset):
    """The same two cases at every step: 32^3, a tumour of nested balls; t1 shows every class, t2 shows noise alone."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        axes = torch.stack(torch.meshgrid(*[torch.arange(32.0)] * 3, indexing="ij"))
        centres = torch.tensor([[14.0, 16, 14], [18, 12, 16]])
        radius = (axes[None] - centres[:, :, None, None, None]).norm(dim=1)
        self.regions = torch.stack([radius < side for side in (13, 9, 6)], dim=1)
        self.images = 0.1 * torch.randn(2, 4, 32, 32, 32, generator=generator)
        self.images[:, [0, 1, 3]] += labels_of(self.regions)[:, None].float()

    def __getitem__(self, step):
        return {"images": self.images, "available": ALL, "regions": self.regions, "case": ["a", "b"]}


def network(combination=("t1",), seed=0, width=2):
    torch.manual_seed(seed)
    return CombinationVNet(MRI, combination, width)


def test_two_cases_can_be_learnt_by_heart(tmp_path):
    model, blobs = network(width=4), Blobs()
    history = fit(
        model, blobs, distillation_loss(teaching("unimodal", "standard")), steps=90, lr=2e-2, seed=0, folder=tmp_path,
        schedule="poly", **QUIET,
    )  # fmt: skip
    assert history["loss"].iloc[-1] < 0.2 * history["loss"].iloc[0]
    with torch.inference_mode():
        predicted = region_logits(model(blobs.images, ALL).logits) > 0
    for found, truth in zip(predicted, blobs.regions, strict=True):
        assert dice(found[None], truth).min() > 0.9


def test_a_teacher_stays_as_it_was(tmp_path):
    teacher, model = network(MRI, seed=1), network()
    teacher.train()
    before, start = ({key: value.clone() for key, value in one.state_dict().items()} for one in (teacher, model))
    loss = distillation_loss(protokd.teaching("protokd", "standard"), teacher)
    history = fit(model, Blobs(), loss, steps=3, lr=1e-3, seed=0, folder=tmp_path, **QUIET)
    assert {"segmentation", "pixel", "prototype"} <= set(history) and np.isfinite(history["loss"]).all()
    after = teacher.state_dict()
    assert any("running_mean" in key for key in after)
    assert all(torch.equal(after[key], value) for key, value in before.items()), "weights and running statistics"
    assert not teacher.training and not any(module.training for module in teacher.modules())
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.parameters())
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, start[key])]
    assert set(changed) == set(start), "every weight and statistic of the student"
    assert set(load_file(tmp_path / "fit.safetensors")) == set(start), "the teacher is not saved with it"


def test_teacher_and_student_see_the_same_crop():
    """The student as its own teacher: nothing to distil; on another crop there would be."""
    model, batch = network().eval(), Blobs()[0]
    twin = network().eval()
    loss = distillation_loss(protokd.teaching("protokd", "standard"), twin)
    total, parts = loss(model, batch)
    assert parts["pixel"].item() == pytest.approx(0, abs=1e-9) == parts["prototype"].item()
    assert total.item() == pytest.approx(parts["segmentation"].item()) and total.requires_grad
    assert not any(part.requires_grad for part in parts.values())
    with torch.no_grad():
        twin.net.head.weight.neg_()
    total, parts = loss(model, batch)
    assert parts["pixel"] > 1e-6 and total.item() == pytest.approx(sum(part.item() for part in parts.values()))


def test_labels_of_a_single_crop_cannot_be_shuffled():
    batch = {name: value[:1] for name, value in Blobs()[0].items()}
    with pytest.raises(ValueError, match="labels are shuffled within a batch, and this one has a single crop"):
        distillation_loss(teaching("teacher", "shuffled"))(network(), batch)


def test_without_a_term_a_teacher_is_not_asked():
    teacher = network(MRI)
    teacher.forward = None  # calling it would fail
    total, parts = distillation_loss(teaching("unimodal", "standard"), teacher)(network(), Blobs()[0])
    assert list(parts) == ["segmentation"] and total.isfinite()


def test_a_student_without_a_teacher_is_refused():
    with pytest.raises(ValueError, match="this student is taught, and there is no teacher: name the run of one"):
        distillation_loss(protokd.teaching("protokd", "pixel"))


def test_a_shuffled_teacher_learns_from_the_labels_of_another_crop():
    model, batch = network(MRI), Blobs()[0]
    swapped = {**batch, "regions": batch["regions"].flip(0)}
    plain, shuffled = (distillation_loss(teaching("teacher", variant)) for variant in ("standard", "shuffled"))
    assert shuffled(model, batch)[0].item() == pytest.approx(plain(model, swapped)[0].item(), abs=1e-6)
    assert abs(shuffled(model, batch)[0].item() - plain(model, batch)[0].item()) > 1e-3


def test_recipes_of_networks_without_a_teacher():
    assert teaching("teacher", "half") == teaching("teacher", "quarter") == Teaching(None, "poly", False)
    assert teaching("teacher", "shuffled").shuffled
    assert (
        teaching("unimodal", "standard").schedule == "poly" and teaching("unimodal", "constant").schedule == "constant"
    )
    for method, variant in (("teacher", "constant"), ("unimodal", "half"), ("protokd", "standard")):
        with pytest.raises(ValueError, match=f"there is no {method} {variant}: choose teacher standard, half, quarter"):
            teaching(method, variant)


# ------------------------------------------------------------------------------------------------- a network on disk
NAME = "t1+t1ce+t2+flair"


def file_run(root, teacher, modalities=MRI):
    """Write a finished run that left this network."""
    run = records.open_run(root, "smoke", "distillation", "teacher-s0", {"crop": 16, "seed": 0})
    run.clear()
    save_file(teacher.state_dict(), run.folder / f"{NAME}.safetensors")
    scores = pd.DataFrame([("a", NAME, "et", "dice", 0.5)], columns=records.SCORE_COLUMNS)
    facts = dict.fromkeys(records.FACTS, "-") | {"method": "teacher", "variant": "standard", "modalities": modalities}
    run.save(pd.DataFrame(), scores, **facts)
    return run.folder


@pytest.fixture
def finished(tmp_path):
    """The folder of a teacher's run, and the teacher."""
    teacher = network(MRI).eval()
    return file_run(tmp_path, teacher), teacher


@torch.no_grad()
def test_a_network_comes_back_as_it_was(finished):
    folder, teacher = finished
    loaded, images = load_network(folder, NAME, MRI, 2), Blobs().images
    assert not loaded.training and loaded.combination == MRI and loaded.window == 16
    assert torch.equal(loaded(images, ALL).logits, teacher(images, ALL).logits)


def test_a_run_that_is_not_finished_is_named(finished):
    folder, _ = finished
    (folder / "record.json").unlink()
    with pytest.raises(FileNotFoundError, match=f"{folder.name}/record.json does not exist: the run is not finished"):
        load_network(folder, NAME, MRI, 2)


def test_a_network_that_was_left_out_is_named(finished):
    folder, _ = finished
    records.leave_out(folder, "*.safetensors")
    with pytest.raises(FileNotFoundError, match="t1.safetensors does not exist: .* keeps no such file; run it again"):
        load_network(folder, "t1", MRI, 2)


def test_a_network_whose_file_was_changed_is_refused(finished):
    folder, _ = finished
    save_file(network(("t1",)).state_dict(), folder / f"{NAME}.safetensors")
    with pytest.raises(records.RecordError, match="is not the file its record was written with"):
        load_network(folder, NAME, MRI, 2)


def test_a_teacher_of_other_modalities_is_refused(tmp_path):
    folder = file_run(tmp_path, network(MRI), ("t1", "t2", "pd"))
    expected = f"{folder.name} was trained on the modalities t1, t2, pd; expected t1, t1ce, t2, flair: train a teacher"
    with pytest.raises(ValueError, match=expected):
        load_network(folder, NAME, MRI, 2)
    file_run(tmp_path, network(MRI), MRI[::-1])
    with pytest.raises(ValueError, match="trained on the modalities flair, t2, t1ce, t1"):
        load_network(folder, NAME, MRI, 2)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda net: setattr(net, "head", nn.Conv3d(2, 3, 1)), r"net.head.weight is \(3, 2, 1, 1, 1\) there, \(4, 2"),
        (lambda net: setattr(net, "first", network(("t1",)).net.first), r"is \(2, 1, 3, 3, 3\) there, \(2, 4, 3, 3, 3"),
        (lambda net: delattr(net, "head"), r"net.head.weight is absent there, \(4, 2, 1, 1, 1\) here"),
        (lambda net: setattr(net, "tail", nn.Linear(5, 1)), r"net.tail.bias is \(1,\) there, absent here"),
    ],
    ids=["classes", "channels", "lacks", "has more"],
)
def test_a_checkpoint_of_another_network_is_refused(finished, change, message):
    folder, teacher = finished
    change(teacher.net)
    file_run(folder.parents[2], teacher)
    with pytest.raises(ValueError, match=message) as refused:
        load_network(folder, NAME, MRI, 2)
    assert f"{folder}/{NAME}.safetensors holds another network" in str(refused.value)
    assert "classes (4) and width (2) must be those it was trained with" in str(refused.value)


def test_a_network_of_another_width_is_refused(finished):
    folder, _ = finished
    with pytest.raises(ValueError, match=r"net.first.0.0.weight is \(2, 4, 3, 3, 3\) there, \(3, 4, 3, 3, 3\) here"):
        load_network(folder, NAME, MRI, 3)


# -------------------------------------------------------------------------------------------------- what is diagnosed
def test_where_the_rim_is_put_by_hand():
    wt, tc, et = (torch.tensor([1] * size + [0] * (6 - size)).view(1, 1, 6) for size in (5, 4, 2))
    predicted = torch.tensor([1, 0, 1, 0, 1, 1]).bool().view(1, 1, 6)
    found = rim_volumes(predicted, torch.stack([wt, tc, et]).bool(), voxel_ml=0.5)
    assert found == {"et-found": 0.5, "et-core": 0.5, "et-elsewhere": 1.0, "et-missed": 0.5}
    nothing = rim_volumes(predicted & False, torch.stack([wt, tc, et]).bool(), voxel_ml=0.5)
    assert nothing == {"et-found": 0, "et-core": 0, "et-elsewhere": 0, "et-missed": 1.0}


def a_sample(shape, tumour=None):
    """Images that hold their own voxel's number, and a tumour in a box."""
    images = torch.arange(2 * int(np.prod(shape))).view(2, *shape)
    regions = torch.zeros(3, *shape, dtype=torch.bool)
    if tumour is not None:
        regions[0][tumour] = True
    return {"images": images, "regions": regions, "case": "c"}


@pytest.mark.parametrize(
    "low, expected", [((0, 0, 0), [0, 0, 0]), ((30, 12, 20), [24, 4, 14]), ((13, 5, 9), [8, 0, 4])]
)
def test_a_box_around_the_tumour(low, expected):
    tumour = tuple(slice(start, start + 8) for start in low)
    sample = a_sample((40, 20, 30), tumour)
    cut = around_tumour(sample, 16)
    assert cut["images"].shape == (2, 16, 16, 16) and cut["regions"].shape == (3, 16, 16, 16) and cut["case"] == "c"
    assert cut["regions"].sum() == 8**3, "the whole tumour"
    start = np.unravel_index(cut["images"][0, 0, 0, 0].item(), (40, 20, 30))
    assert list(start) == expected, "the tumour's middle is the box's, except at an edge"
    window = tuple(slice(a, a + 16) for a in start)
    assert torch.equal(cut["images"], sample["images"][:, *window])
    assert torch.equal(cut["regions"], sample["regions"][:, *window]), "both are cut alike"


def test_only_long_axes_are_cut():
    cut = around_tumour(a_sample((40, 20, 30), (slice(0, 2),) * 3), 24)
    assert cut["images"].shape == (2, 24, 20, 24)
    small = a_sample((16, 12, 16), (slice(0, 2),) * 3)
    assert torch.equal(around_tumour(small, 16)["images"], small["images"])


def test_without_a_tumour_the_box_is_in_the_middle():
    sample = a_sample((40, 20, 30))
    assert torch.equal(around_tumour(sample, 16)["images"], sample["images"][:, 12:28, 2:18, 7:23])


# ---------------------------------------------------------------------------------------------------------- real files
@pytest.mark.skipif(not REAL.is_dir(), reason="the real scans of shared/data/brats13 are not here")
def test_real_scans_of_two_modalities_are_trained_on_and_predicted(tmp_path):
    """A run on real files, never a score: one patient trains, another is predicted, T1c and FLAIR alone, at 4 mm."""
    stems = ("T1c_subtrMeanDivStd", "Flair_subtrMeanDivStd", "OTMultiClass", "brainmask")
    lines = ["case,t1ce,flair,seg,brain,enhancing_label"]
    folders = sorted(folder for folder in REAL.iterdir() if folder.is_dir())[:2]
    lines += [",".join([one.name, *(str(one / f"{stem}.nii.gz") for stem in stems), "4"]) for one in folders]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    cases = TableCases(tmp_path / "table.csv")
    train, held_out = cases
    samples = Samples(lambda name: resample(cases[name], 4.0), [train], MRI)
    crops = Crops(samples, size=16, batch_size=2, availability="fixed", seed=0, fixed=ALL[0])
    settings = dict(steps=3, lr=1e-3, seed=0, folder=tmp_path, **QUIET)

    teacher = network(("t1ce", "flair"))
    history = fit(teacher, crops, distillation_loss(teaching("teacher", "standard")), name="teacher", **settings)
    assert np.isfinite(history["loss"]).all() and len(history) == 3

    native = cases[held_out]
    coarse = resample(native, 4.0)
    noise = np.random.default_rng(0).normal(size=coarse.brain.shape).astype(np.float32)
    for read, other in (("flair", "t1ce"), ("t1ce", "flair")):
        model = network((read,))
        loss = distillation_loss(protokd.teaching("protokd", "standard"), teacher)
        history = fit(model, crops, loss, name=read, **settings)
        assert np.isfinite(history[["loss", "segmentation", "pixel", "prototype"]]).all(axis=None)
        segmented = back_to(native, predict(model, coarse, (read,)), coarse)
        assert segmented.shape == (3, *native.images[read].shape) and segmented.dtype == bool

        def seen(images, model=model, read=read):
            sample, _ = tensors(replace(coarse, images=images), MRI)
            return probabilities(model, sample["images"], mask((read,), MRI)[None])

        expected = seen(coarse.images)
        assert torch.equal(seen({read: coarse.images[read]}), expected), "the other one is not needed"
        assert torch.equal(seen({**coarse.images, other: noise}), expected), "and not looked at"
        assert not torch.equal(seen({**coarse.images, read: noise}), expected)
