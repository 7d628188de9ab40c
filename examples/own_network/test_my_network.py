"""The tests that find real faults: run them with `pytest` in this folder, whatever you change in the network."""

from dataclasses import replace

import my_network
import numpy as np
import pytest
import torch

from mmlib.analysis import leaks
from mmlib.data.phantoms.brain import make_subject
from mmlib.modalities import MRI
from mmlib.tasks.segmentation import evaluate_combinations


@pytest.fixture(scope="module")
def case():
    """A subject of which every second voxel is left: enough to show what is read, and soon done."""
    whole, thin = make_subject(120), (slice(None, None, 2),) * 3
    images = {name: image[thin] for name, image in whole.images.items()}
    return replace(whole, images=images, labels=whole.labels[thin], affine=whole.affine @ np.diag([2, 2, 2, 1]))


def test_what_a_missing_modality_holds_changes_nothing(case):
    assert leaks.reads_absent(my_network.MyNetwork(), case) == []


def test_every_combination_is_scored(case):
    scores = evaluate_combinations(my_network.MyNetwork(), [case], hausdorff=False)
    assert len(scores) == 15 * 3 and scores["value"].between(0, 1).all()


def test_every_weight_gets_a_gradient_and_the_loss_falls():
    torch.manual_seed(0)
    network = my_network.MyNetwork()
    images = torch.randn(2, 4, 8, 8, 8)
    regions = torch.stack([images.mean(dim=1) > level for level in (0.0, 0.3, 0.6)], dim=1)
    batch = {"images": images, "available": torch.ones(2, len(MRI), dtype=torch.bool), "regions": regions}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        value, _ = my_network.loss(network, batch)
        optimizer.zero_grad()
        value.backward()
        assert all(weights.grad is not None for weights in network.parameters())
        optimizer.step()
        losses.append(float(value.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_training_leaves_weights_that_build_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(my_network, "WEIGHTS", tmp_path / "kept.safetensors")
    my_network.train(tmp_path, steps=1, cases=1)
    network = my_network.build()
    torch.manual_seed(0)
    fresh = my_network.MyNetwork().state_dict()
    assert any(not torch.equal(weights, fresh[name]) for name, weights in network.state_dict().items())
