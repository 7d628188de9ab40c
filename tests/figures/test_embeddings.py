"""The panel of feature layouts: one row per kind, one column per layout, every point drawn with its modality's mark."""

import numba
import numpy as np
import pytest
import torch

from mmlib.figures.embeddings import feature_maps
from mmlib.figures.style import MODALITY

FEATURES = {kind: np.random.default_rng(0).normal(size=(6, 2, 5)) for kind in ("shared", "specific")}


def test_panels_and_points(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)  # a few points are laid out sooner than UMAP is compiled
    threads = torch.get_num_threads()
    figure = feature_maps(FEATURES, ("image", "audio"), perplexities=(2, 3))
    axes = np.array(figure.axes).reshape(2, 3)
    assert [axis.get_title("left") for axis in axes[0]] == [
        "t-SNE, perplexity 2",
        "t-SNE, perplexity 3",
        "UMAP, 3 neighbours",
    ]
    assert [row[0].get_ylabel() for row in axes] == ["shared", "specific"]
    for axis in axes.flat:
        lines = {line.get_label(): line for line in axis.get_lines()}
        assert {name: (line.get_color(), line.get_marker()) for name, line in lines.items()} == {
            name: MODALITY[name] for name in ("image", "audio")
        }
        assert all(len(line.get_xdata()) == 6 for line in lines.values())
    assert torch.get_num_threads() == threads, "what is computed after a layout takes as many threads as before"


def test_names_must_fit():
    with pytest.raises(ValueError, match="shared features are of 2 modalities, named are \\('t1',\\)"):
        feature_maps(FEATURES, ("t1",))
