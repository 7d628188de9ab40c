"""How much the modalities share, as a dial, and what ShaSpec's losses are worth along it: tables and figures.

The dial is the option `shared` of the brain phantom, see `mmlib.data.phantoms.options`. Scores are Dice in percent,
effects are in points. A place of the dial is an experiment on a phantom of its own; test cases have the same names at
all places, so that a change along the dial is paired by case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmlib.analysis.leaks import best_fixed_marking
from mmlib.analysis.results import Results
from mmlib.analysis.statistics import Effect, mean_interval, paired_effects, shared_effect
from mmlib.analysis.wording import format_effect, listed, outcome, seeds_in_words, select
from mmlib.data.brats import BratsFolder
from mmlib.data.cases import REGIONS
from mmlib.data.phantoms.options import read_options, tumour_ceiling
from mmlib.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILLION, new_figure, styled
from mmlib.modalities import MRI, combinations, label

EXPERIMENTS = ("sharing-0", "sharing-50", "sharing-100")
CLAIMS = ("S14", "S15", "S16")  # in the claims ledger
PAPER, NEITHER, UNET = "paper", "alpha-0-beta-0", "dropout-unet"
ARMS = {  # a variant of ShaSpec, or another method -> name, colour, marker
    PAPER: ("ShaSpec", BLUE, "o"),
    "alpha-0": ("ShaSpec, no alignment loss", SKY, "s"),
    "beta-0": ("ShaSpec, no domain loss", GREEN, "^"),
    NEITHER: ("ShaSpec, neither loss", ORANGE, "v"),
    UNET: ("U-Net with dropout", VERMILLION, "D"),
}
GAINS = {  # what the paper's ShaSpec is set against -> what the difference is worth
    NEITHER: "both losses",
    "alpha-0": "the alignment loss",
    "beta-0": "the domain loss",
    UNET: "ShaSpec over the U-Net with dropout",
}
SETS = {  # heading -> combinations of modalities
    f"mean of {len(combinations(MRI))} combinations": [label(names, MRI) for names in combinations(MRI)],
    "one modality": list(MRI),
    "all four": [label(MRI, MRI)],
}
ANY, SINGLE, COMPLETE = SETS
MEASURES = {  # metric of features -> heading
    "probe-shared": "probe, shared features",
    "probe-specific": "probe, specific features",
    "retrieval-shared": "retrieval, shared features",
}
SESOI = 1.0  # Dice points, as in the claims ledger
ABSENT = "not run in this profile"
NOTHING = "The runs for this are not in this profile."


def shared_of(phantom: Mapping[str, Any]) -> float | None:
    """The place on the dial of a data set; None of data that are no phantom, of which nobody knows it.

    Args:
        phantom: what it is made with, as a profile's `phantom:` says it; empty where it is none.
    """
    if not phantom:
        return None
    return read_options(**{name: value for name, value in phantom.items() if name != "spacing"}).shared


@dataclass(frozen=True)
class Dial:
    """The runs along the dial.

    Attributes:
        dice: of test cases in percent, one row per value, with the columns `arm` and `shared`.
        features: of `MEASURES` in percent, one row per run and measure: arm, shared, seed, metric, value.
    """

    dice: pd.DataFrame
    features: pd.DataFrame

    @cached_property
    def places(self) -> list[float]:
        """The places that were run, from 0 to 1."""
        return sorted(self.dice["shared"].unique())

    @property
    def sample(self) -> str:
        """For captions: `n = 40 test cases, 5 seeds, phantom`; `3 to 5 seeds` where places or arms differ."""
        seeds = self.dice.groupby(["shared", "arm"], observed=True)["seed"].nunique()
        return f"n = {self.dice['case'].nunique()} test cases, {seeds_in_words(seeds)}, phantom"

    def has(self, arm: str, shared: float) -> bool:
        """Whether an arm was run at a place."""
        return bool((self.dice["arm"].eq(arm) & self.dice["shared"].eq(shared)).any())

    def table(self, arm: str, shared: float, names: str, targets: Sequence[str] = REGIONS) -> pd.DataFrame:
        """Mean Dice of one arm at one place: (seeds, cases).

        Args:
            names: of `SETS`.
            targets: regions of which the mean is taken.
        """
        return select(self.dice, arm=arm, shared=shared, available=SETS[names], target=targets)

    def gain(self, against: str, shared: float, names: str = ANY) -> Effect | None:
        """What the paper's ShaSpec has more than an arm, mean over regions; None where one of the two was not run."""
        if not (self.has(PAPER, shared) and self.has(against, shared)):
            return None
        return shared_effect(self.table(PAPER, shared, names), self.table(against, shared, names))

    def change(self, against: str, names: str = ANY) -> Effect | None:
        """By how much `gain` is larger at the last place than at the first; None where it is not known at both."""
        first, last = (self.places[0], self.places[-1]) if self.places else (0.0, 0.0)
        asked = [(PAPER, last), (against, first), (against, last), (PAPER, first)]  # signs + + - -
        if first == last or not all(self.has(*one) for one in asked):
            return None
        tables = [self.table(*one, names) for one in asked]
        seeds = sorted(set.intersection(*(set(table.index) for table in tables)))
        add, more, less, subtract = (table.loc[seeds] for table in tables)
        return paired_effects([(add + more, less + subtract)])[0]


def read_dial(results: Results, places: Mapping[str, float | None]) -> Dial:
    """The runs of the experiments on the dial.

    Args:
        results: records and scores, as `mmlib.analysis.results.read_runs` returns them.
        places: experiment -> its place, as `shared_of` tells it; those without a place are left out.
    """
    scores = results.scores
    scores = scores.assign(
        shared=scores["experiment"].map({name: place for name, place in places.items() if place is not None}),
        arm=scores["variant"].where(scores["method"].eq("shaspec"), scores["method"]),
        value=100 * scores["value"],
    ).dropna(subset="shared")
    measured = scores[scores["metric"].isin(MEASURES)]
    return Dial(scores[scores["metric"].eq("dice")], measured[["arm", "shared", "seed", "metric", "value"]])


# ------------------------------------------------------------------------------------------------------------- ceiling
def blind_dice(dial: Dial, folder_of: Callable[[str, list[str]], Path]) -> float:
    """The best mean Dice for whole tumour without seeing it: `best_fixed_marking` of the test cases at the first place.

    Args:
        dial: the runs.
        folder_of: experiment, names of cases -> the BraTS folder that holds these; asked for one experiment alone.

    Returns:
        In [0, 1]; NaN where nothing was run.
    """
    if not dial.places:
        return np.nan
    first = dial.dice[dial.dice["shared"].eq(dial.places[0])]
    names = sorted(set(first["case"]))
    cases = BratsFolder(folder_of(first["experiment"].iloc[0], names))
    return best_fixed_marking(np.stack([np.asarray(cases[name].labels) > 0 for name in names]))


def ceiling(shared: float, names: str, blind: float) -> float:
    """The highest mean Dice for whole tumour that can be expected, %, over the combinations of one of `SETS`."""
    return 100 * float(np.mean([tumour_ceiling(shared, one.split("+"), blind) for one in SETS[names]]))


# -------------------------------------------------------------------------------------------------------------- curves
def reached(dial: Dial) -> pd.DataFrame:
    """Dice for whole tumour, %, with its interval: arm, shared, names (of `SETS`), mean, low, high."""
    rows = []
    for arm in ARMS:
        for shared in (place for place in dial.places if dial.has(arm, place)):
            for names in SETS:
                mean, low, high = mean_interval(dial.table(arm, shared, names, ["wt"]))
                rows.append((arm, shared, names, mean, low, high))
    return pd.DataFrame(rows, columns=["arm", "shared", "names", "mean", "low", "high"])


def gains(dial: Dial) -> pd.DataFrame:
    """`Dial.gain` of all that was run: against, shared, names (of `SETS`), effect, low, high."""
    rows = [
        (against, shared, names, gain.effect, gain.low, gain.high)
        for against in GAINS
        for names in SETS
        for shared in dial.places
        if (gain := dial.gain(against, shared, names))
    ]
    return pd.DataFrame(rows, columns=["against", "shared", "names", "effect", "low", "high"])


def _draw_lines(figure: Figure, axes: np.ndarray, rows: pd.DataFrame, by: str, middle: str, called: dict) -> None:
    """A line over the dial with intervals per value of `by`, a panel per set; neighbours stand a little apart."""
    known = [one for one in called if one in set(rows[by])]
    for axis, names in zip(axes, SETS, strict=True):
        for place, one in enumerate(known):
            part = rows[rows[by].eq(one) & rows["names"].eq(names)].sort_values("shared")
            _, colour, marker = ARMS[one]
            x = part["shared"] + 0.025 * (place - (len(known) - 1) / 2)
            axis.vlines(x, part["low"], part["high"], color=colour, linewidth=1)
            axis.plot(x, part[middle], color=colour, marker=marker, markersize=5, label=called[one])
        axis.set(title=names, xlabel="shared", xlim=(-0.1, 1.1), xticks=[0, 0.5, 1])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)


@styled
def dial_figure(rows: pd.DataFrame, blind: float) -> Figure:
    """`reached` over the dial, a panel per set of modalities; dashed: `ceiling`."""
    figure, axes = new_figure(9, 3.6, 1, len(SETS), sharey=True)
    x = np.linspace(0, 1, 41)
    for axis, names in zip(axes[0], SETS, strict=True):
        axis.plot(x, [ceiling(one, names, blind) for one in x], color=BLACK, linestyle="--", label="ceiling")
    _draw_lines(figure, axes[0], rows, "arm", "mean", {arm: name for arm, (name, *_) in ARMS.items()})
    axes[0, 0].set(ylabel="Dice for whole tumour, %", ylim=(0, 103))
    return figure


@styled
def gain_figure(rows: pd.DataFrame) -> Figure:
    """`gains` over the dial, a panel per set of modalities."""
    figure, axes = new_figure(9, 3.6, 1, len(SETS), sharey=True)
    for axis in axes[0]:
        axis.axhspan(-SESOI, SESOI, color="#EEEEEE", zorder=0)
        axis.axhline(0, color=GREY, linewidth=0.8)
    _draw_lines(figure, axes[0], rows, "against", "effect", GAINS)
    axes[0, 0].set_ylabel("gain in Dice, points")
    return figure


def reached_text(rows: pd.DataFrame) -> str:
    """`reached` with one modality, for an alternative text."""
    single = rows[rows["names"].eq(SINGLE)]
    return "; ".join(
        f"{ARMS[str(arm)][0]} " + ", ".join(f"{row.mean:.1f} at {row.shared:g}" for row in part.itertuples())
        for arm, part in single.groupby("arm", sort=False)
    )


def gain_text(rows: pd.DataFrame) -> str:
    """`gains` over all combinations, for an alternative text."""
    mean = rows[rows["names"].eq(ANY)]
    return "; ".join(
        f"{GAINS[str(against)]} " + ", ".join(f"{format_effect(row)} at {row.shared:g}" for row in part.itertuples())
        for against, part in mean.groupby("against", sort=False)
    )


def gain_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`gains` with their intervals: a row per gain and set of modalities, a column per place of the dial."""
    cells = rows.assign(gain=rows["against"].map(GAINS), text=[format_effect(row) for row in rows.itertuples()])
    places = sorted(rows["shared"].unique())
    wide = cells.pivot(index=["gain", "names"], columns="shared", values="text").fillna("-")
    order = [(gain, names) for gain in GAINS.values() for names in SETS if (gain, names) in wide.index]
    wide = wide.loc[order, places].set_axis([f"shared = {place:g}" for place in places], axis=1)
    return wide.reset_index().rename(columns={"gain": "worth of", "names": "tested with"})


# ------------------------------------------------------------------------------------------------------------ features
def feature_means(dial: Dial) -> pd.DataFrame:
    """Mean over seeds of each measure of features, %: arm, shared, metric, value."""
    return dial.features.groupby(["arm", "shared", "metric"], sort=False, as_index=False)["value"].mean()


@styled
def feature_figure(dial: Dial) -> Figure:
    """`MEASURES` over the dial: lines are means over seeds, pale points are single runs, dotted is chance."""
    figure, axes = new_figure(9, 3.3, 1, len(MEASURES), sharey=True)
    means = feature_means(dial)
    chance = dict.fromkeys(MEASURES, 100 / len(MRI)) | {"retrieval-shared": 100 / dial.dice["case"].nunique()}
    for axis, (metric, heading) in zip(axes[0], MEASURES.items(), strict=True):
        axis.axhline(chance[metric], color=BLACK, linestyle=":", label="chance")
        for arm in (arm for arm in ARMS if arm in set(means["arm"])):
            name, colour, marker = ARMS[arm]
            one, mean = (part[part["arm"].eq(arm) & part["metric"].eq(metric)] for part in (dial.features, means))
            axis.plot(one["shared"], one["value"], marker, color=colour, alpha=0.3, markersize=4)
            axis.plot(
                *mean.sort_values("shared")[["shared", "value"]].to_numpy().T, color=colour, marker=marker, label=name
            )
        axis.set(title=heading, xlabel="shared", xlim=(-0.1, 1.1), xticks=[0, 0.5, 1], ylim=(0, 103))
    axes[0, 0].set_ylabel("%")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def feature_text(dial: Dial) -> str:
    """`feature_means` of the paper's ShaSpec, for an alternative text."""
    means = feature_means(dial)
    own = means[means["arm"].eq(PAPER)]
    return "; ".join(
        f"{heading} " + ", ".join(f"{row.value:.0f} % at {row.shared:g}" for row in part.itertuples())
        for metric, heading in MEASURES.items()
        if len(part := own[own["metric"].eq(metric)].sort_values("shared"))
    )


# --------------------------------------------------------------------------------------------------------------- words
def places_text(places: Mapping[str, float | None]) -> str:
    """Which places of the dial were run, as a sentence.

    Args:
        places: experiment -> its place, as `shared_of` tells it.
    """
    known = sorted(place for place in places.values() if place is not None)
    unknown = [f"`{name}`" for name, place in places.items() if place is None]
    lacking = [f"`{name}`" for name in EXPERIMENTS if name not in places]
    sentences = [f"On the dial, `shared` is {listed(f'{place:g}' for place in known)}." if known else NOTHING]
    if unknown:
        sentences.append(f"The data of {listed(unknown)} are no phantom: of them nobody knows what modalities share.")
    if known and lacking:
        sentences.append(f"Not run in this profile: {listed(lacking)}.")
    return " ".join(sentences)


CHANGES = ("grows along the dial", "shrinks along the dial", "cannot be told to change along the dial")
WORTH = ("raise the mean Dice", "lower the mean Dice", "make no clear difference")


def facts(dial: Dial, rows: pd.DataFrame, blind: float) -> dict[str, str]:
    """What the prose says of the curves.

    Args:
        dial: the runs.
        rows: as `reached` returns them.
        blind: as `blind_dice`.
    """
    ends = {"first": min(dial.places, default=np.nan), "last": max(dial.places, default=np.nan)}
    told = {"dial_blind": f"{blind:.2f}" if dial.places else ABSENT}
    for end, shared in ends.items():
        own = rows[rows["arm"].eq(PAPER) & rows["names"].eq(SINGLE) & rows["shared"].eq(shared)]
        told[f"dial_{end}"] = f"{shared:g}" if dial.places else ABSENT
        told[f"dial_single_{end}"] = f"{own['mean'].iloc[0]:.1f}" if len(own) else ABSENT
        told[f"dial_ceiling_{end}"] = f"{ceiling(shared, SINGLE, blind):.1f}" if dial.places else ABSENT
        for name, against in (("losses", NEITHER), ("unet", UNET)):
            gain = dial.gain(against, shared)
            told[f"dial_{name}_{end}"] = format_effect(gain, unit="points") if gain else ABSENT
    losses, change = dial.gain(NEITHER, ends["last"]), dial.change(NEITHER)
    told["dial_losses_words"] = outcome(losses, WORTH) if losses else "were not compared in this profile"
    told["dial_change"] = format_effect(change, unit="points") if change else ABSENT
    told["dial_change_words"] = outcome(change, CHANGES) if change else "was not compared at both ends in this profile"
    return told
