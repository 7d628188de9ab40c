"""Any network takes part: stacked channels or a mask, MONAI's tensors, dictionaries and loaders, regions by name."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.networks.nets import SegResNet, SwinUNETR
from torch import nn

from mmlib.data.cases import REGIONS, Case
from mmlib.data.phantoms.brain import make_subject
from mmlib.methods.baselines import EarlyFusionUNet, UHeMIS
from mmlib.methods.shaspec import ShaSpecSegmenter
from mmlib.methods.uhved import UHVED
from mmlib.modalities import MRI, combinations, label
from mmlib.tasks.any_network import AnySegmenter, samples
from mmlib.tasks.segmentation import evaluate_combinations


@pytest.fixture(scope="module")
def subject():
    return next(one for one in map(make_subject, range(20)) if one.regions.any(axis=(1, 2, 3)).all())


@pytest.fixture(scope="module")
def coarse():
    """For networks that take their time."""
    return make_subject(1, 8.0)


class Bright(nn.Module):
    """Marks what is bright in any image that it is given, once per region; remembers what it was given."""

    def __init__(self, outputs: int = 3):
        super().__init__()
        self.outputs, self.seen = outputs, []

    def forward(self, x):
        self.seen.append(x)
        return (x.amax(dim=1, keepdim=True) - 2).expand(-1, self.outputs, -1, -1, -1)


class Asking(Bright):
    def forward(self, images, available):
        self.seen.append((images, available))
        return images.amax(dim=1, keepdim=True).expand(-1, 3, -1, -1, -1) * available.sum(1).view(-1, 1, 1, 1, 1)


def test_a_network_of_stacked_channels_gets_zeros_for_what_is_missing(subject):
    network = Bright()
    network.train()
    scores = evaluate_combinations(network, [subject], [("t1", "flair"), MRI], hausdorff=False)
    assert network.training and set(scores["available"]) == {"t1+flair", label(MRI, MRI)}
    (given,) = network.seen
    assert given.shape[:2] == (2, 4) and not given[0, [1, 2]].any() and given[1].flatten(1).any(dim=1).all()


def test_a_network_that_asks_for_the_mask_gets_it(subject):
    network = Asking()
    evaluate_combinations(network, [subject], [("t1",), ("t1ce", "t2")], hausdorff=False)
    ((images, available),) = network.seen
    assert available.tolist() == [[True, False, False, False], [False, True, True, False]]
    assert not images[0, 1:].any()


@pytest.mark.parametrize("fill", [7.0, lambda images, available: torch.full_like(images, 7)])
def test_the_fill_stands_where_a_modality_is_missing_and_nowhere_else(subject, fill):
    network = Bright()
    evaluate_combinations(AnySegmenter(network, MRI, fill=fill), [subject], [("t1",)], hausdorff=False)
    zeros = Bright()
    evaluate_combinations(zeros, [subject], [("t1",)], hausdorff=False)
    assert (network.seen[0][:, 1:] == 7).all() and torch.equal(network.seen[0][:, 0], zeros.seen[0][:, 0])


def test_absent_content_is_never_given_to_a_network_not_even_nan(subject):
    spoiled = {**subject.images, "t2": np.full_like(subject.images["t2"], np.nan, dtype=np.float32)}
    given = [("t1",), ("t1", "flair")]
    clean, dirty = (
        evaluate_combinations(Bright(), [one], given, hausdorff=False)
        for one in (subject, replace(subject, images=spoiled))
    )
    pd.testing.assert_frame_equal(clean, dirty)


@pytest.mark.parametrize(
    "network",
    [
        SegResNet(3, init_filters=8, in_channels=4, out_channels=3, blocks_down=(1, 1), blocks_up=(1,)),
        SwinUNETR(in_channels=4, out_channels=3, feature_size=12, depths=(1, 1, 1, 1), norm_name="batch"),
    ],
    ids=["SegResNet", "SwinUNETR"],
)
def test_networks_of_monai_are_scored_in_every_combination(coarse, network):
    scores = evaluate_combinations(network, [coarse], hausdorff=False)
    assert len(scores) == 15 * 3 and scores["value"].between(0, 1).all()


def test_the_order_of_outputs_is_an_argument_and_modalities_have_an_order_of_their_own(subject):
    class First(nn.Module):  # its first channel is t1ce, of its outputs the second is the whole tumour
        def forward(self, x):
            marked = (x[:, :1] > 2).float() - 0.5
            return torch.cat([-torch.ones_like(marked), marked], dim=1)

    network = AnySegmenter(First(), ("t1ce", "t1", "t2", "flair"))
    scores = evaluate_combinations(network, [subject], [("t1ce",)], regions=("tc", "wt"), hausdorff=False)
    values = scores.set_index("target")["value"]
    marked = subject.images["t1ce"]
    brain = subject.brain_mask
    found = np.where(brain, (marked - marked[brain].mean()) / marked[brain].std(), 0) > 2
    truth = subject.regions[0]
    assert values["tc"] == 0
    assert values["wt"] == pytest.approx(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def test_classes_of_a_softmax_become_nested_regions():
    logits = torch.tensor([2.0, 0.0, 1.0, 3.0]).view(1, 4, 1, 1, 1).expand(1, 4, 2, 2, 2)

    class Fixed(nn.Module):
        def forward(self, x):
            return logits

    wrapped = AnySegmenter(Fixed(), ("t1",), classes=((1, 2, 3), (1, 3), (3,)), stride=2)
    found = wrapped(torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, dtype=torch.bool)).sigmoid()[0, :, 0, 0, 0]
    e2, e0, e1, e3 = np.exp([2, 0, 1, 3])
    total = e2 + e0 + e1 + e3
    assert found.tolist() == pytest.approx([(e0 + e1 + e3) / total, (e0 + e3) / total, e3 / total], rel=1e-4)


@pytest.mark.parametrize("wrong", [1, 4])
def test_a_network_with_another_number_of_outputs_is_refused(subject, wrong):
    with pytest.raises(ValueError, match=rf"the network has {wrong} outputs, but the regions are wt, tc, et"):
        evaluate_combinations(Bright(wrong), [subject])
    regions = ("et",) if wrong == 1 else ("wt", "tc", "et", "cyst")
    if wrong == 1:
        assert set(evaluate_combinations(Bright(1), [subject], regions=regions)["target"]) == {"et"}
    else:
        with pytest.raises(ValueError, match="has the regions wt, tc, et, not cyst"):
            evaluate_combinations(Bright(4), [subject], regions=regions)


def test_a_network_of_another_number_of_channels_is_refused_with_the_remedy(subject):
    network = SegResNet(3, init_filters=8, in_channels=2, out_channels=3, blocks_down=(1, 1), blocks_up=(1,))
    with pytest.raises(ValueError, match="the network refuses images .* name its modalities"):
        evaluate_combinations(network, [subject])
    two = AnySegmenter(network, ("t1ce", "flair"))
    scores = evaluate_combinations(two, [subject], hausdorff=False)
    assert set(scores["available"]) == {"t1ce", "flair", "t1ce+flair"}


def test_a_network_that_changes_the_grid_is_refused(subject):
    with pytest.raises(ValueError, match="expected logits of the same batch and grid"):
        evaluate_combinations(nn.MaxPool3d(2), [subject])


# ---------------------------------------------------------------------------------------------------- MONAI's data
def dictionaries(count: int = 3) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0]))
    found = []
    for n in range(count):
        image = torch.randn(4, 16, 16, 16, generator=generator)
        marked = torch.stack([image.amax(dim=0) > level for level in (1.0, 1.5, 2.0)])
        meta = {"filename_or_obj": f"case-{n}.nii.gz"}
        found.append({"image": MetaTensor(image, affine=affine, meta=meta), "label": MetaTensor(marked.float())})
    return found


class Nested(nn.Module):
    def forward(self, x):
        return torch.stack([x.amax(dim=1) - level for level in (1.0, 1.5, 2.0)], dim=1)


def test_dictionaries_and_loaders_of_monai_give_the_same_scores_as_the_rule_by_hand():
    alone = evaluate_combinations(Nested(), dictionaries(), hausdorff=False)
    loader = DataLoader(Dataset(dictionaries()), batch_size=2)
    pd.testing.assert_frame_equal(evaluate_combinations(Nested(), loader, hausdorff=False), alone)
    whole = alone[alone["available"] == label(MRI, MRI)]
    assert (whole["value"] == 1).all() and set(alone["case"]) == {"case-0", "case-1", "case-2"}
    assert set(alone["available"]) == {label(one, MRI) for one in combinations(MRI)} and set(alone["target"]) == set(
        REGIONS
    )
    image = dictionaries(1)[0]["image"].as_tensor()
    found, truth = image[0] > 1, image.amax(dim=0) > 1
    value = alone.query("case == 'case-0' and available == 't1' and target == 'wt'")["value"].item()
    assert value == pytest.approx(float(2 * (found & truth).sum() / (found.sum() + truth.sum())))


def test_a_batch_that_lacks_modalities_is_scored_with_what_it_has():
    one = {**dictionaries(1)[0], "available": torch.tensor([True, False, False, True]), "case": "mine"}
    scores = evaluate_combinations(Nested(), [one], hausdorff=False)
    assert set(scores["available"]) == {"t1", "flair", "t1+flair"} and set(scores["case"]) == {"mine"}


def test_raw_labels_of_brats_become_regions_and_spacing_comes_from_the_affine():
    (one,) = dictionaries(1)
    raw = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
    raw[:, :4], raw[:, 4:6], raw[:, 6:7] = 2, 1, 4
    (sample,) = samples({**one, "label": raw}, ("et", "wt"))
    assert sample.truth.sum(dim=(1, 2, 3)).tolist() == [256, 7 * 256] and sample.spacing == (3.0, 2.0, 1.0)
    assert torch.equal(sample.truth[1, 0, 0], (raw[0, :, 0, 0] > 0))  # (z, y, x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "needs image and label, or images and regions; it has"),
        ({"label": torch.zeros(3, 8, 16, 16)}, r"images \(1, 4, 16, 16, 16\), labels \(1, 3, 8, 16, 16\)"),
        ({"label": torch.zeros(2, 16, 16, 16)}, "its label has 2 channels, but the regions are wt, tc, et"),
        ({"image": torch.zeros(3, 16, 16, 16)}, r"has 3 images, but the network takes t1\+t1ce\+t2\+flair"),
    ],
)
def test_dictionaries_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        evaluate_combinations(Nested(), [{**dictionaries(1)[0], **change}])
    with pytest.raises(ValueError, match="`Case` or dictionaries with image and label; got str"):
        evaluate_combinations(Nested(), ["case"])


@pytest.mark.parametrize("kind", [ShaSpecSegmenter, EarlyFusionUNet, UHeMIS, UHVED])
def test_networks_of_the_book_take_batches_of_monai(kind):
    network = kind(MRI, (8, 16)).eval()
    batch = next(iter(DataLoader(Dataset(dictionaries(2)), batch_size=2)))
    available = torch.tensor([[True, True, False, True], [True, False, True, True]])
    plain = network(batch["image"].as_tensor(), available).logits
    assert torch.equal(network(batch["image"], available).logits, plain) and type(plain) is torch.Tensor
    scores = evaluate_combinations(network, [batch], [("t1",)], hausdorff=False)
    assert len(scores) == 6


class AlongFirst(nn.Module):
    """Grows along the first axis that it is given: tells (x, y, z) from (z, y, x)."""

    def forward(self, x):
        place = torch.arange(x.shape[2]).view(1, 1, -1, 1, 1) - (x.shape[2] - 1) / 2  # windows are padded
        return (x[:, :1] * 0 + place).expand(-1, 3, -1, -1, -1)


class AlongFirstAsking(AlongFirst):
    def forward(self, images, available):
        return super().forward(images)


@pytest.mark.parametrize(
    ("network", "axis"),
    [
        (AlongFirst(), 0),  # as MONAI's: x
        (AlongFirstAsking(), 2),  # as this package's: z
        (AnySegmenter(AlongFirst(), MRI, axes="zyx", stride=4), 2),
        (AnySegmenter(AlongFirstAsking(), MRI, axes="xyz", stride=4), 0),
    ],
)
def test_a_network_sees_the_axes_that_it_has_learned_with(network, axis):
    label = torch.zeros(3, 16, 16, 16)
    label.transpose(1, axis + 1)[:, 8:] = 1
    monai = {"image": torch.ones(4, 16, 16, 16), "label": label}
    ours = {"images": torch.ones(4, 16, 16, 16), "regions": label.transpose(1, 3)}
    images = dict.fromkeys(MRI, np.random.default_rng(0).uniform(1, 2, (16, 16, 16)).astype(np.float32))
    case = Case("made", images, np.eye(4), 4 * label[0].numpy().astype(np.int16))
    for given in (monai, ours, case):
        values = evaluate_combinations(network, [given], [MRI], hausdorff=False)["value"]
        assert (values == 1).all()
    with pytest.raises(ValueError, match="axes must be xyz .* got yxz"):
        AnySegmenter(AlongFirst(), MRI, axes="yxz")
