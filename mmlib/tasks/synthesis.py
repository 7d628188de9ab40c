"""How far synthesised slices are from the true ones, and two trivial baselines that every network must beat.

Images lie in [-1, 1], so the data range of every measure is 2. Only what is missing is scored. A measure is taken

- on the whole canvas (`psnr`, `ssim`, `mae`), of which most is background: easy, so PSNR and MAE look better; but SSIM
  compares what little structure there is, so a network that misses -1 by a thousandth loses much;
- in the brain (`psnr-brain`, ...), and in regions such as enhancing tumour (`psnr-et`, ...): the error over the pixels
  of the mask alone; SSIM is the mean of its map over them.

SSIM is MONAI's, on the images raised to [0, 2], with a Gaussian window of 11 x 11 pixels and a deviation of 1.5; for a
mask, images are continued at the border by their last pixels. MAE is in percent of the range; the scale of the M2DN
paper's MAE is UNVERIFIED.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor
from tqdm.auto import tqdm

from mmlib.data.slices import Slices
from mmlib.data.slices import patterns as all_patterns
from mmlib.modalities import check_available, label, mask

RANGE = 2.0  # of images in [-1, 1]
CEILING = 100.0  # dB; that of identical images
WINDOW = 11  # pixels, of SSIM
Synthesise = Callable[[Tensor, Tensor], Tensor]


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of each (H, W) map, (N,), over a mask; NaN where it is empty."""
    values = values.double()
    return values.mean(dim=(1, 2)) if mask is None else (values * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))


def psnr(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each image, dB: 10 log10(range^2 / mean squared error), at most 100.

    Args:
        prediction, truth: (N, H, W) in [-1, 1].
        mask: (N, H, W) bool, where the error counts; None: everywhere.

    Returns:
        (N,) float64; NaN where the mask is empty.
    """
    error = _mean((prediction.double() - truth.double()).square(), mask)  # N, mean squared error
    return 10 * torch.log10(RANGE**2 / error.clamp(min=RANGE**2 / 10 ** (CEILING / 10)))


def mae(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute error of each image, percent of the range; arguments and result as in `psnr`."""
    return 100 / RANGE * _mean((prediction.double() - truth.double()).abs(), mask)


def ssim(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity of each image, at most 1; arguments and result as in `psnr`.

    Without a mask the mean over all windows that lie inside the image; with one, over windows centred in the mask.
    """
    edge = WINDOW // 2 if mask is not None else 0
    # N 1 H+2*edge W+2*edge each
    raised, target = (F.pad(one[:, None].float() + 1, [edge] * 4, mode="replicate") for one in (prediction, truth))
    # N 1 H W with a mask, N 1 H-10 W-10 without
    with torch.autocast(prediction.device.type, enabled=False):  # a variance in bfloat16 can be off by more than itself
        values, _ = compute_ssim_and_cs(raised, target, 2, (WINDOW, WINDOW), (1.5, 1.5), RANGE)
    return _mean(values[:, 0], mask)  # N


@torch.inference_mode()
def evaluate_synthesis(
    synthesise: Synthesise,
    slices: Slices,
    patterns: Sequence[Sequence[str]] | None = None,
    *,
    regions: Mapping[str, Sequence[int]] | None = None,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Score the synthesis of whatever is missing, per subject: the mean over its slices.

    Args:
        synthesise: images (B, M, H, W) and available (B, M) bool -> images; it is handed zeros where not available.
        slices: of a test set; a modality that a case lacks is neither given nor scored.
        patterns: combinations of available modalities; None: all with something available and something missing.
        regions: name -> labels, such as {"et": (4,)}; slices without a pixel of the region do not count.
        batch_size: slices, each in one pattern, that are synthesised together.

    Returns:
        Tidy: case (the subject), available, target (the synthesised modality), metric, value. A region that a subject
        lacks has no row.

    Raises:
        ValueError: if a pattern leaves nothing to synthesise, regions are asked for where there are no labels, nothing
            can be scored, or `synthesise` returns another shape.
    """
    wanted = all_patterns(slices.modalities) if patterns is None else [tuple(one) for one in patterns]
    masks: dict[str, Tensor | None] = {"": None, "-brain": slices.brain}
    for name, values in (regions or {}).items():
        if slices.labels is None:
            raise ValueError(f"the region {name} is asked for, but the slices have no labels: leave regions out")
        masks[f"-{name}"] = torch.isin(slices.labels, torch.tensor(values, dtype=torch.uint8))
    rows: list[pd.DataFrame] = []
    for names in tqdm(wanted, desc="synthesise", unit="pattern", mininterval=10):
        given = mask(names, slices.modalities)  # M
        if given.all():
            raise ValueError(f"{label(names, slices.modalities)} leaves nothing to synthesise: leave the pattern out")
        has_all = slices.available[:, given].all(dim=1).nonzero().flatten()  # n, positions
        for part in has_all.split(batch_size):
            truth, available = slices.images[part], given.expand(len(part), -1)  # B M H W, B M
            made = synthesise(torch.where(available[..., None, None], truth, 0), available).cpu()  # B M H W
            if made.shape != truth.shape:
                raise ValueError(f"`synthesise` returned {tuple(made.shape)} for images of {tuple(truth.shape)}")
            for m in (~given).nonzero().flatten().tolist():
                scored = slices.available[part, m]  # B
                scores = {
                    f"{measure.__name__}{where}": measure(  # b H W each -> b, the slices scored
                        made[scored, m], truth[scored, m], None if area is None else area[part[scored]]
                    )
                    for measure in (psnr, ssim, mae)
                    for where, area in masks.items()
                }
                subjects = [slices.subject[row] for row in part[scored].tolist()]
                table = pd.DataFrame({"case": subjects, **scores}).melt("case", var_name="metric")
                rows.append(table.assign(available=label(names, slices.modalities), target=slices.modalities[m]))
    found = pd.concat(rows) if rows else pd.DataFrame({"value": []})
    if found["value"].notna().sum() == 0:
        raise ValueError(f"nothing to score: no slice has all of one of {wanted} and a modality besides")
    found = found.dropna().groupby(["case", "available", "target", "metric"], sort=False)["value"].mean()
    return found.reset_index()


class MeanImage:
    """A floor: the mean training slice, at the height where the mean slices fit what is available best.

    The mean is over all complete training slices of one position; the fit is the sum of squared differences. No network
    is told the height either. On phantoms this was no worse in the brain than the mean at the true position.

    Args:
        train: training slices.

    Raises:
        ValueError: if none is of a complete case.
    """

    def __init__(self, train: Slices):
        train = _complete(train)
        heights = train.position.unique()
        # heights M H W
        self.means = torch.stack([train.images[train.position == height].mean(dim=0) for height in heights])

    def __call__(self, images: Tensor, available: Tensor) -> Tensor:
        """(B, M, H, W), (B, M) bool -> (B, M, H, W): the mean slices, also of what is available."""
        shown = torch.where(available[..., None, None], images, 0).flatten(1)  # B M*H*W
        means = self.means.flatten(1)  # heights M*H*W
        weights = available.repeat_interleave(self.means[0, 0].numel(), dim=1).to(means.dtype)  # B M*H*W
        distance = (weights @ means.square().T) - 2 * shown @ means.T  # B heights; up to a term that no height changes
        return self.means[distance.argmin(dim=1)]  # B M H W


class CopyNearest:
    """A floor: a copy of the nearest available modality, its grey values mapped on a straight line.

    Nearest is the one of highest absolute correlation with the missing one over the brain of all complete training
    slices; there the line is fitted too, by least squares. Background stays -1.

    Args:
        train: training slices.

    Attributes:
        correlation: (M, M), of target (row) and source.
        slope, intercept: (M, M), of the line from source to target.

    Raises:
        ValueError: if none is of a complete case.
    """

    def __init__(self, train: Slices):
        train = _complete(train)
        pixels = train.images.transpose(0, 1)[:, train.brain].double()  # (M, pixels)
        covariance, mean = torch.cov(pixels), pixels.mean(dim=1)  # M M, M
        deviation = covariance.diagonal().sqrt()
        self.correlation = covariance / deviation.outer(deviation)  # M M
        self.slope = (covariance / covariance.diagonal()).float()  # M M, divided by the variance of the source
        self.intercept = (mean[:, None] - self.slope * mean).float()  # M 1 - M M * M -> M M

    def __call__(self, images: Tensor, available: Tensor) -> Tensor:
        """(B, M, H, W), (B, M) bool -> (B, M, H, W) in [-1, 1]; what is available comes back as it is."""
        check_available(available)
        closeness = torch.where(available[:, None], self.correlation.abs(), -1)  # (B, target, source)
        nearest = closeness.argmax(dim=2)  # B M, the source of each target
        targets = torch.arange(images.shape[1])
        source = images[torch.arange(len(images))[:, None], nearest]  # B M H W
        # B M 1 1 each
        slope, intercept = (table[targets, nearest][..., None, None] for table in (self.slope, self.intercept))
        mapped = torch.where(source > -1, (slope * source + intercept).clamp(-1, 1), -1)
        return torch.where(available[..., None, None], images, mapped)


def _complete(train: Slices) -> Slices:
    if not train.available.all(dim=1).any():
        raise ValueError("no training case has all modalities: a floor needs some that do")
    return train.complete


def mean_scores(scores: pd.DataFrame, modalities: Sequence[str]) -> pd.DataFrame:
    """Add each subject's mean over what is missing: apart where one modality is missing and where several are.

    Args:
        scores: of `evaluate_synthesis`.
        modalities: M names.

    Returns:
        The scores and, of psnr, ssim and mae, rows with the metric `psnr-mean`, ..., the target "all" and "one missing"
        or "several missing" in `available`.
    """
    lacking = len(modalities) - scores["available"].str.split("+").str.len()
    sizes = lacking.eq(1).map({True: "one missing", False: "several missing"})
    whole = scores.assign(available=sizes, target="all")[scores["metric"].isin(["psnr", "ssim", "mae"])]
    means = whole.groupby(["case", "available", "target", "metric"], as_index=False)["value"].mean()
    return pd.concat([scores, means.assign(metric=means["metric"] + "-mean")], ignore_index=True)
