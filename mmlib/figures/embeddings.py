"""Features laid out in two dimensions, coloured and marked by modality: pictures beside numbers, never for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mmlib.analysis.features import embed
from mmlib.figures.style import MODALITY, new_figure, styled


@styled
def feature_maps(
    features: Mapping[str, np.ndarray], modalities: Sequence[str], perplexities: Sequence[float] = (5, 15, 30)
) -> Figure:
    """A row per kind of feature; t-SNE at several perplexities and UMAP side by side, each point one case and modality.

    What all layouts of a row agree on may be in the data; what only one shows is the layout's.

    Args:
        features: name of the row, such as `shared` -> (n, M, C).
        modalities: M names, each with a style.
        perplexities: of t-SNE; UMAP gets the middle one as its number of neighbours.

    Raises:
        ValueError: if the names do not fit the features, or as `mmlib.analysis.features.embed`.
    """
    middle = sorted(perplexities)[len(perplexities) // 2]
    layouts = [(f"t-SNE, perplexity {value:g}", "tsne", value) for value in perplexities]
    layouts.append((f"UMAP, {middle:g} neighbours", "umap", middle))
    figure, axes = new_figure(2.2 * len(layouts) + 0.4, 2.2 * len(features) + 0.6, len(features), len(layouts))
    for row, (kind, values) in zip(axes, features.items(), strict=True):
        if values.shape[1] != len(modalities):
            raise ValueError(f"{kind} features are of {values.shape[1]} modalities, named are {tuple(modalities)}")
        for axis, (_, method, perplexity) in zip(row, layouts, strict=True):
            points = embed(values, method, perplexity).reshape(*values.shape[:2], 2)
            for place, name in enumerate(modalities):
                colour, marker = MODALITY[name]
                axis.plot(*points[:, place].T, marker, color=colour, markersize=3.5, alpha=0.7, label=name)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
        row[0].set_ylabel(kind)
    for axis, (title, _, _) in zip(axes[0], layouts, strict=True):
        axis.set_title(title)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(modalities))
    return figure
