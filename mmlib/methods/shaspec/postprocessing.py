"""Post-processing of ShaSpec*: as the paper says it, and as the released code does it.

Paper: Wang et al., CVPR 2023, arXiv 2307.14126, section 4.2: small connected components are removed, voxels being
neighbours over two hops. Released code consulted through a written description: billhhh/ShaSpec at 081fe7a, which has
no licence; nothing of it is copied.

What differs
- The paper gives no threshold: it is an argument. It does not say either what the components are of; here each region
  by itself (UNVERIFIED).
- The released code counts voxels of 1 mm. Here volumes are in mm3 and heights in mm, so that both hold for any voxel.
- Where the description of the released rule on enhancing tumour is short, the reading is stated at `relabel_by_kmeans`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from sklearn.cluster import KMeans

from mmlib.data.cases import raw_labels, regions

TWO_HOPS = ndimage.generate_binary_structure(3, 2)  # voxels that share a face or an edge
NECROSIS, OEDEMA, ENHANCING = 1, 2, 4  # raw labels


def remove_small(regions: np.ndarray, smallest: float, spacing: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """Remove the connected components of each region that are smaller than a threshold (paper, section 4.2).

    Args:
        regions: (R, X, Y, Z) bool.
        smallest: volume of the smallest component that stays, mm3.
        spacing: side of a voxel along each axis, mm.

    Returns:
        (R, X, Y, Z) bool; a subset of `regions`.

    Raises:
        ValueError: if the threshold is negative.
    """
    if smallest < 0:
        raise ValueError(f"the smallest volume to keep must not be negative; got {smallest} mm3")
    kept = np.zeros_like(regions, dtype=bool)
    for region, mask in enumerate(regions):
        components, _ = ndimage.label(mask, TWO_HOPS)  # X Y Z
        large = np.bincount(components.ravel()) * np.prod(spacing) >= smallest  # one for each component
        large[0] = False  # the background
        kept[region] = large[components]  # X Y Z
    return kept


def released(labels: np.ndarray, t1ce: np.ndarray, spacing: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """Apply the three rules of the released code in their order: components, K-means on t1ce, little enhancement.

    Args:
        labels: (X, Y, Z), raw labels 0, 1, 2, 4; the last axis runs upwards.
        t1ce: (X, Y, Z) intensities; the case must have this modality, whether or not the network was given it.
        spacing: side of a voxel along each axis, mm.

    Returns:
        (X, Y, Z) labels.

    Raises:
        ValueError: on other labels, or images on another grid.
    """
    if labels.shape != t1ce.shape:
        raise ValueError(f"labels have the grid {labels.shape} and t1ce {t1ce.shape}: give both of one case")
    unknown = set(np.unique(labels).tolist()) - {0, NECROSIS, OEDEMA, ENHANCING}
    if unknown:
        raise ValueError(f"labels must be 0, 1, 2 or 4 (BraTS 2017-2021); found {sorted(unknown)}: map them first")
    cleaned = relabel_by_kmeans(drop_components(labels, spacing), t1ce, spacing)
    return drop_enhancing(cleaned, spacing)


def drop_components(labels: np.ndarray, spacing: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """Rule 1: clear a component of tumour below min(2000 mm3, a tenth of the largest), or that ends 25 mm up or lower.

    Arguments as `released`. The height of a voxel is its index along the last axis times the spacing there.
    """
    components, count = ndimage.label(labels > 0, TWO_HOPS)
    volumes = np.bincount(components.ravel(), minlength=count + 1) * np.prod(spacing)  # count + 1
    if not count:
        return labels.copy()
    keep = volumes >= min(2000, 0.1 * volumes[1:].max())
    for component, place in enumerate(ndimage.find_objects(components), start=1):
        keep[component] &= (place[2].stop - 1) * spacing[2] > 25
    keep[0] = False
    return np.where(keep[components], labels, 0)  # X Y Z


def relabel_by_kmeans(labels: np.ndarray, t1ce: np.ndarray, spacing: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """Rule 2: where hardly anything enhances, a part of the oedema becomes necrosis, by its intensity in t1ce.

    It concerns a component if enhancing tumour is below 0.12 of the tumour of the case, in voxels; if the component's
    enhancing label values (4 a voxel) sum to less than 0.05 of its label values, and to less than 450 for voxels of
    1 mm; and if the case has less than 10,000 mm3 of label 1. Shares and volume of the case are those of `labels` as
    they are given, before any component is relabelled. UNVERIFIED: the denominators of the two shares.

    As in the released code the whole volume is then split into three clusters of intensity, with zeros for all that is
    not oedema of the component. The zeros fill the darkest cluster, so that the middle one, which becomes label 1, is
    about the darker half of the oedema.

    Arguments as `released`. Components whose volume holds fewer than three values stay as they are.
    """
    changed, volume = labels.copy(), float(np.prod(spacing))
    components, count = ndimage.label(labels > 0, TWO_HOPS)
    if not count or (labels == ENHANCING).sum() >= 0.12 * (labels > 0).sum():
        return changed
    if (labels == NECROSIS).sum() * volume >= 10_000:
        return changed
    for component in range(1, count + 1):
        inside = components == component
        values = ENHANCING * int((labels[inside] == ENHANCING).sum())
        little = values < 0.05 * labels[inside].sum() and values * volume < 450
        oedema = inside & (labels == OEDEMA)
        values_of = np.where(oedema, t1ce, 0).astype(float)  # X Y Z
        # equal values weighted by their number give the same clusters as all voxels, in a fraction of the time
        levels, place, number = np.unique(values_of, return_inverse=True, return_counts=True)  # n, X Y Z, n
        if not little or len(levels) < 3:
            continue
        clusters = KMeans(3, n_init=10, random_state=0).fit(levels[:, None], sample_weight=number)  # in: n 1
        middle = np.argsort(clusters.cluster_centers_[:, 0])[1]
        found = (clusters.labels_ == middle)[place].reshape(labels.shape)  # X Y Z
        changed[oedema & found] = NECROSIS
    return changed


def drop_enhancing(labels: np.ndarray, spacing: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """Rule 3: enhancing tumour of less than 500 mm3 in a case becomes label 1. Arguments as `released`."""
    little = (labels == ENHANCING).sum() * np.prod(spacing) < 500
    return np.where(labels == ENHANCING, NECROSIS, labels) if little else labels.copy()


def released_on_regions(predicted: np.ndarray, t1ce: np.ndarray, spacing: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """`released` for regions as networks predict them: (3, X, Y, Z) bool in, the same out, nested."""
    return regions(released(raw_labels(predicted, ENHANCING), t1ce, spacing), ENHANCING)
