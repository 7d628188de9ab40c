"""Do synthesised slices look like slices, and do several of them say how sure they are? What an error does not tell.

Slices are (N, H, W) in [-1, 1]. A method that predicts the mean of all images that fit has the least error and fails
here: it is smoother than any image. A sampler is to pass, also where it is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

BINS = 16  # of spatial frequency, from 0 to 0.5 cycles per pixel
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)  # of grey values and gradients, as features


def gradients(images: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Size of the gradient, and where it lies in the brain, away from its border.

    Args:
        images: (N, H, W).
        brain: (N, H, W) bool.

    Returns:
        (N, H-1, W-1) differences per pixel, and a mask of the same shape.
    """
    down, right = images.diff(dim=1)[:, :, :-1], images.diff(dim=2)[:, :-1]
    inside = brain[:, 1:, 1:] & brain[:, :-1, :-1] & brain[:, 1:, :-1] & brain[:, :-1, 1:]
    return torch.hypot(down, right), inside


def sharpness(images: Tensor, truth: Tensor, brain: Tensor) -> Tensor:
    """Mean gradient in the brain as a share of that of the true slice, (N,): 1 is as sharp, less is smoother."""
    (made, inside), (true, _) = gradients(images, brain), gradients(truth, brain)
    return (made * inside).sum(dim=(1, 2)) / (true * inside).sum(dim=(1, 2))


def radial_power(images: Tensor) -> Tensor:
    """Mean power of each slice at every spatial frequency, (N, 16) float64; bins from 0 to 0.5 cycles per pixel.

    NaN where a small grid has no frequency in a bin.
    """
    power = torch.fft.fft2(images.double() + 1).abs().square().flatten(1)  # N H*W; background is 0
    frequencies = [torch.fft.fftfreq(side) for side in images.shape[1:]]
    frequency = torch.hypot(*torch.meshgrid(*frequencies, indexing="ij")).flatten()  # H*W
    ring = (frequency * 2 * BINS).long().clamp(max=BINS)  # the corners of the square are left out
    sums = torch.zeros(len(images), BINS + 1, dtype=torch.float64).index_add(1, ring, power)
    return (sums / torch.bincount(ring, minlength=BINS + 1))[:, :BINS]


class Auroc(NamedTuple):
    """Area under the ROC curve with a 95 % interval over subjects."""

    value: float
    low: float
    high: float


def two_sample_test(
    real: Tensor, made: Tensor, brain: Tensor, subjects: Sequence[str], draws: int = 300, seed: int = 0
) -> Auroc:
    """How well a classifier tells synthesised slices from true ones: 0.5 where it cannot, 1 where it always can.

    A classifier two-sample test (D. Lopez-Paz, M. Oquab, ICLR 2017, arXiv 1610.06545): logistic regression on the
    logarithm of `radial_power` and on quantiles of grey values and gradients in the brain. Each subject's slices, true
    and synthesised, are judged by a classifier of the others (five folds). It bounds what a better one would tell from
    below.

    Args:
        real, made: (N, H, W), the true slices and the synthesised ones.
        brain: (N, H, W) bool.
        subjects: N names.
        draws: resamplings of the subjects for the interval.
        seed: of these.

    Raises:
        ValueError: if there are fewer than two subjects.
    """
    names, codes = np.unique(np.asarray(subjects), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"a two-sample test needs slices of two subjects or more; got {len(names)}")
    features = np.concatenate([_features(real, brain), _features(made, brain)])
    target, groups = np.repeat([0, 1], len(real)), np.tile(codes, 2)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    folds = GroupKFold(min(5, len(names)))
    options = {"groups": groups, "cv": folds, "method": "decision_function"}
    real_scores, made_scores = cross_val_predict(classifier, features, target, **options).reshape(2, -1)
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)  # draws subjects
    # Mann and Whitney's form: pairs of slices in the right order, summed by the subjects of both, for all draws at once
    ordered = (np.sign(made_scores[:, None] - real_scores) + 1) / 2  # N N; a tie is half a pair
    of_subject = np.eye(len(names))[codes]  # N subjects
    right, pairs = (of_subject.T @ each @ of_subject for each in (ordered, np.ones_like(ordered)))
    resampled = ((counts @ right) * counts).sum(axis=1) / ((counts @ pairs) * counts).sum(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Auroc(float(right.sum() / pairs.sum()), float(low), float(high))


def _features(images: Tensor, brain: Tensor) -> np.ndarray:
    """(N, up to 26): log power by frequency, quantiles of gradients and of grey values in the brain."""
    steps, inside = gradients(images, brain)
    kept = torch.tensor(QUANTILES, dtype=images.dtype)
    found = [
        torch.cat([steps[row][inside[row]].quantile(kept), images[row][brain[row]].quantile(kept)])
        for row in range(len(images))
    ]
    power = radial_power(images).clamp(min=1e-8).log()
    power = power[:, ~power[0].isnan()]  # N bins
    return torch.cat([power, torch.stack(found).double()], dim=1).numpy()


class Calibration(NamedTuple):
    """Spread of K results against their error; all over the pixels of a mask.

    Attributes:
        spread: root mean square of the standard deviation over the results.
        error: root mean square of what their mean is off.
        honesty: spread * sqrt(1 + 1/K) / error; 1 if the truth might be one more result, less if they are too sure.
        coverage: share of pixels at which the truth lies between the lowest and the highest result.
        nominal: what coverage would be if the truth might be one more result, (K - 1) / (K + 1).
        rank: Spearman's correlation of spread and absolute error from pixel to pixel.
    """

    spread: float
    error: float
    honesty: float
    coverage: float
    nominal: float
    rank: float


def calibration(results: Tensor, truth: Tensor, mask: Tensor) -> Calibration:
    """How honest the spread over several results for one slice is.

    Args:
        results: (K, H, W), K of at least 2.
        truth: (H, W).
        mask: (H, W) bool, with a pixel or more.

    Raises:
        ValueError: if there is one result only, or the mask is empty.
    """
    if len(results) < 2 or not mask.any():
        raise ValueError(f"calibration needs two results and a pixel; got {len(results)} and {int(mask.sum())}")
    values, true = results[:, mask].double(), truth[mask].double()  # K pixels, pixels
    deviation, off = values.std(dim=0), values.mean(dim=0) - true
    spread, error = float(deviation.square().mean().sqrt()), float(off.square().mean().sqrt())
    covered = (values.amin(dim=0) <= true) & (true <= values.amax(dim=0))
    count = len(results)
    return Calibration(
        spread,
        error,
        spread * (1 + 1 / count) ** 0.5 / error,
        float(covered.double().mean()),
        (count - 1) / (count + 1),
        float(spearmanr(deviation, off.abs()).statistic),
    )


def found_and_invented(image: Tensor, truth: Tensor, inside: Tensor, outside: Tensor) -> tuple[float, float]:
    """How much of a region an image shows, and how much of it where there is none.

    A pixel shows the region if it lies on the region's side of the middle between the true means. Where the region
    cannot be known the two rates are equal, whatever is painted: an image that invents nothing finds nothing.

    Args:
        image, truth: of any one shape, the synthesised and the true one.
        inside: bool, the region.
        outside: bool, what is to be told from it.

    Returns:
        The share of `inside` and the share of `outside` that show the region, each in [0, 1].
    """
    within, beyond = truth[inside].mean(), truth[outside].mean()
    shows = (image - (within + beyond) / 2) * (within - beyond).sign() > 0
    return float(shows[inside].double().mean()), float(shows[outside].double().mean())


def least_error(truth: Tensor, inside: Tensor, outside: Tensor) -> float:
    """The root mean square that is left to whoever cannot tell two regions apart and knows all the rest.

    With a share p of the pixels in one of them and their true means d apart the best guess is the mean of both, which
    is off by sqrt(p (1 - p)) d.
    """
    share = float(inside.sum() / (inside.sum() + outside.sum()))
    return float((share * (1 - share)) ** 0.5 * (truth[inside].mean() - truth[outside].mean()).abs())
