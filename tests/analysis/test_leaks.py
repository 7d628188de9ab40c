"""A network with each fault is flagged, and the honest one beside it is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mmlib.analysis import leaks
from mmlib.data.phantoms.brain import ceiling_without_t1ce, make_subject, make_tissues
from mmlib.methods.shaspec import ShaSpecSegmenter
from mmlib.modalities import MRI
from mmlib.tasks.any_network import AnySegmenter
from mmlib.tasks.segmentation import evaluate_combinations

SEEDS = range(120, 132)


@pytest.fixture(scope="module")
def cases():
    made = (make_subject(seed, 8.0) for seed in SEEDS)
    return {one.name: one for one in made}


@pytest.fixture(scope="module")
def limits(cases):
    return {name: ceiling_without_t1ce(make_tissues(seed, 8.0)) for name, seed in zip(cases, SEEDS, strict=True)}


class Honest(nn.Module):
    """Three thresholds on the mean of what is there."""

    def forward(self, images, available):
        there = available[..., None, None, None]
        mean = torch.where(there, images, 0).sum(dim=1) / there.sum(dim=1)
        return torch.stack([mean - level for level in (1.0, 1.5, 2.0)], dim=1)


class Peeking(Honest):
    """Reads what lies where t1ce is missing: the mask is not used."""

    def forward(self, images, available):
        return super().forward(images, torch.ones_like(available))


class Zeroing(Honest):
    """Multiplies by the mask: noise is gone, but 0 x NaN is NaN."""

    def forward(self, images, available):
        weighted = images * available[..., None, None, None]
        mean = weighted.sum(dim=1) / available.sum(dim=1).view(-1, 1, 1, 1)
        return torch.stack([mean - level for level in (1.0, 1.5, 2.0)], dim=1)


class Remembering(nn.Module):
    """Knows cases by the flair image and answers with their truth: they were among its training."""

    def __init__(self, cases, kind="flair"):
        super().__init__()
        self.place = MRI.index(kind)
        self.known = []
        for case in cases.values():
            sample, _ = leaks.tensors(case, MRI)
            self.known.append((float(sample["images"][self.place].abs().sum()), sample["regions"].float()))

    def forward(self, images, available):
        found = []
        for one, there in zip(images, available, strict=True):
            _, truth = min(self.known, key=lambda known: abs(known[0] - float(one[self.place].abs().sum())))
            found.append(truth - 0.5 if there[self.place] else torch.full((3, *one.shape[1:]), -1.0))
        return torch.stack(found)


def test_content_of_a_missing_modality_that_is_read_is_flagged(cases):
    case = next(iter(cases.values()))
    assert leaks.reads_absent(Honest(), case) == []
    assert leaks.reads_absent(ShaSpecSegmenter(MRI, (8, 16)), case) == []
    peeking = leaks.reads_absent(Peeking(), case)
    assert len(peeking) == 2 * 14 and "t1: noise in a missing modality changes the output" in peeking
    zeroing = leaks.reads_absent(Zeroing(), case)
    assert len(zeroing) == 14 and all("NaN" in one for one in zeroing)
    assert leaks.reads_absent(nn.Conv3d(4, 3, 1), case) == []  # it is never given what is missing


def test_a_network_that_knows_the_test_cases_beats_the_ceiling(cases, limits):
    blind = [("flair",), ("t1", "flair"), ("flair", "t1ce")]
    known = AnySegmenter(Remembering(cases), MRI, stride=1)
    flagged = leaks.beats_ceiling(evaluate_combinations(known, cases, blind, hausdorff=False), limits)
    assert [one.partition(":")[0] for one in flagged] == ["flair", "t1+flair"]  # with t1ce there is no ceiling
    honest = evaluate_combinations(AnySegmenter(Honest(), MRI, stride=1), cases, blind, hausdorff=False)
    assert leaks.beats_ceiling(honest, limits) == []
    with pytest.raises(KeyError):
        leaks.beats_ceiling(honest, {})


def test_the_ceiling_of_a_case_is_that_of_the_phantom_with_its_number():
    expected = {f"phantom-{seed:04d}": ceiling_without_t1ce(make_tissues(seed, 4.0)) for seed in (2, 120)}
    assert leaks.phantom_limits(["phantom-0002", "phantom-0120"], 4.0) == expected and max(expected.values()) <= 1


def test_the_best_answer_without_t1ce_is_not_flagged(cases, limits):
    """Who marks all solid tissue reaches the ceiling, and does not beat it."""
    scores = evaluate_combinations(AnySegmenter(Honest(), MRI, stride=1), cases, [("t1",)], hausdorff=False)
    best = scores.assign(value=[limits[case] for case in scores["case"]])
    assert leaks.beats_ceiling(best, limits) == []
    assert leaks.beats_ceiling(best.assign(value=best["value"] + 0.02 * (1 + (np.arange(len(best)) % 5))), limits)


def test_test_cases_hidden_in_the_training_are_found_under_another_name_and_changed(cases):
    names = list(cases)
    train, test = {name: cases[name] for name in names[:8]}, {name: cases[name] for name in names[8:]}
    assert leaks.shared_cases(train, test) == []
    noise = np.random.default_rng(0)
    copy = cases[names[9]]
    changed = {
        kind: np.where(image != 0, 1.5 * image + noise.normal(0, 0.1 * image.std(), image.shape), 0)
        for kind, image in copy.images.items()
    }
    hidden = {**train, "renamed": replace(copy, name="renamed", images={"t2": changed["t2"]})}
    (found,) = leaks.shared_cases(hidden, test)
    assert found.startswith(f"{names[9]} looks like renamed of the training in t2")
    assert leaks.shared_cases(train, {names[0]: cases[names[0]]}) == [f"{names[0]} is in both"]


def test_a_training_that_gets_labels_from_elsewhere_learns_in_spite_of_shuffled_ones(cases):
    test = dict(list(cases.items())[:6])

    def cheating(given):
        return AnySegmenter(Remembering(cases), MRI, stride=1)  # not from what was given

    def honest(given):
        return AnySegmenter(Remembering(given), MRI, stride=1)

    assert leaks.learns_shuffled(honest, test, test) == []
    (found,) = leaks.learns_shuffled(cheating, test, test)
    assert found.startswith("trained on labels of other cases: wt Dice 1.00")


def test_labels_that_cannot_be_shuffled_are_refused(cases):
    (name, one), *_ = cases.items()
    with pytest.raises(ValueError, match="labels of 1 cases cannot be shuffled"):
        leaks.shuffled({name: one})
    with pytest.raises(ValueError, match="case other has no labels on the grid"):
        leaks.shuffled({name: one, "other": replace(one, name="other", labels=None)})
