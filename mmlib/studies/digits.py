"""ShaSpec and SMIL on audiovision-MNIST: the tables and figures of their chapter.

An arm is a way to train (`shaspec paper`, `smil released`, `lower` and so on, see `NAMES`), a rate is the share of the
training pairs that have audio, in percent. Scores are accuracies in percent, laid out as tables (seeds, digits), so
that every comparison is paired by digit and, where both arms have the same seeds, by seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import Effect, cell_means, holm, mcnemar, paired_effects, shared_effect
from mmlib.analysis.wording import counted, format_effect, format_interval, outcome, quick, seeds_in_words, select
from mmlib.data import avmnist
from mmlib.data.avmnist import Pairs
from mmlib.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    new_figure,
    styled,
)
from mmlib.ledgers.claims import effect_rows, weakest
from mmlib.studies.segmentation import count_on

EXPERIMENTS = ("avmnist", "avmnist-both", "avmnist-shuffled", "avmnist-smil", "avmnist-cost")
NAMES = {
    "lower": "image alone",
    "lower longer": "image alone, SMIL's updates",
    "upper": "image and audio",
    "dropout": "fused net, dropped audio",
    "autoencoder": "autoencoder",
    "gan": "GAN",
    "full2miss": "Full2miss-style",
    "smil paper": "SMIL (paper)",
    "smil released": "SMIL (released)",
    "smil": "SMIL",
    "shaspec": "ShaSpec",
    "shaspec paper": "ShaSpec",
    "shaspec padded": "ShaSpec, padded",
}
STYLE = {  # arm -> colour, marker
    "lower": (BLACK, "s"),
    "lower longer": (BLACK, "*"),
    "upper": (GREY, "P"),
    "dropout": (VERMILLION, "D"),
    "autoencoder": (ORANGE, "<"),
    "gan": (YELLOW, ">"),
    "full2miss": (GREEN, "^"),
    "smil paper": (PURPLE, "v"),
    "smil released": ("#882255", "d"),
    "shaspec paper": (BLUE, "o"),
    "shaspec padded": (SKY, "p"),
}
ALONE = ("lower", "lower longer", "upper")  # do not depend on the audio rate
RATES = (5.0, 10.0, 15.0, 20.0)  # audio rates of Table 3, %
DIGITS = 450  # test pairs in the papers
SESOI = 0.5  # accuracy points, as in the claims ledger
CHANGED = {  # variant of `avmnist-smil` -> which part of the released way it changes
    "no-regulariser": "no regulariser",
    "deterministic": "no noise",
    "joint": "joint training, no inner step",
    "k1": "one centre",
    "k5": "five centres",
    "k50": "fifty centres",
    "random-priors": "random centres",
    "first-order": "first-order inner step",
}
VARIED = {"outer-both": "outer loss on all pairs", "monte-carlo": "mean of 30 draws"}  # of the paper's way
PRINTED_COST = {  # ShaSpec's comparison on a GPU at batch size 4: seconds, seconds, millions of parameters
    "shaspec": {"step": 0.0257, "inference": 0.0016, "parameters": 0.22},
    "smil": {"step": 0.1309, "inference": 0.0019, "parameters": 0.33},
}
GROWING = 0.02  # MiB per training step; a slope that lies above it for certain counts as growth
COEFFICIENTS = 13  # cepstral coefficients that are drawn
RANGE = 2.5  # of the colours of a sound, in units of its scaled coefficients
VERDICTS = ("gains", "loses", "shows no clear gain")


# ------------------------------------------------------------------------------------------------------------ scores
@dataclass(frozen=True)
class Study:
    """The runs of the five experiments.

    Attributes:
        results: records and scores, as `mmlib.analysis.results.read_runs` returns them.
        scores: whether a digit was named right, 0 or 100, with the columns `arm` and `rate` (percent).
    """

    results: Results
    scores: pd.DataFrame

    @property
    def records(self) -> pd.DataFrame:
        """One row per run."""
        return self.results.records

    def part(self, experiment: str) -> pd.DataFrame:
        """The scores of one experiment."""
        return self.scores[self.scores["experiment"].eq(experiment)]

    @cached_property
    def main(self) -> pd.DataFrame:
        """The scores of the experiment `avmnist`."""
        return self.part("avmnist")

    @cached_property
    def arms(self) -> list[str]:
        """The arms that were run, in the order of `STYLE`."""
        return [arm for arm in STYLE if arm in set(self.main["arm"])]

    @cached_property
    def rates(self) -> list[float]:
        """The audio rates of Table 3 at which ShaSpec was trained."""
        return [rate for rate in RATES if rate in self.rates_of("shaspec paper")]

    def rates_of(self, arm: str) -> set[float]:
        """All audio rates at which an arm was trained."""
        return set(self.main.loc[self.main["arm"].eq(arm), "rate"])

    @cached_property
    def digits(self) -> dict[str, str]:
        """Test set -> its size in words, as `450 test digits`."""
        sizes = self.main.groupby("target")["case"].nunique()
        return {target: f"{sizes[target]:,} test digits" for target in ("test", "large_test")}

    @cached_property
    def sample(self) -> str:
        """For captions: `3 seeds, packaged audiovision-MNIST`."""
        seeds = self.main.groupby("arm")["seed"].nunique()
        return f"{seeds_in_words(seeds)}, {self.records['data_set'].dropna().iloc[0]} audiovision-MNIST"

    def table(
        self,
        arm: str,
        rate: float | None = None,
        target: str = "large_test",
        available: str = "image",
        experiment: str = "avmnist",
    ) -> pd.DataFrame:
        """Seeds by digits of one arm; the arms of `ALONE` have no rate.

        Raises:
            ValueError: if there is no such score.
        """
        wanted: dict[str, float] = {} if rate is None or arm in ALONE else {"rate": rate}
        return select(self.scores, experiment=experiment, arm=arm, target=target, available=available, **wanted)

    def over(self, arm: str, rate: float | None, other: str, other_rate: float | None = None) -> Effect:
        """By how many points an arm lies above another on the large test set, from the image alone."""
        return paired_effects([(self.table(arm, rate), self.table(other, other_rate))])[0]

    def both_over_image(self) -> Effect:
        """What the sound is worth at test time: image and audio over the image alone, points on the small test set."""
        both = self.table("upper", target="test", available="image+audio")
        return paired_effects([(both, self.table("lower", target="test"))])[0]


def read_study(results: Results) -> Study:
    """The runs of the chapter's experiments, with arm and audio rate of each score."""
    records, scores = (part[part["experiment"].isin(EXPERIMENTS)] for part in (results.records, results.scores))
    right = scores[scores["metric"].eq("correct")]
    label = right["variant"].str.rsplit("@", n=1, expand=True)
    plain = label[0].eq("standard")
    right = right.assign(
        variant=label[0],
        rate=label[1].astype(float),
        value=100 * right["value"],
        arm=right["method"].where(plain, right["method"] + " " + label[0]),
    )
    return Study(Results(records, scores), quick(right))


# ------------------------------------------------------------------------------------------------------ paper and data
def read_printed(folder: Path) -> pd.DataFrame:
    """Table 3 of ShaSpec: accuracy in percent, by method (rows) and audio rate in percent (columns)."""
    table = pd.read_csv(folder / "shaspec_table3.csv")
    return table.pivot(index="method", columns="rate", values="accuracy_percent").loc[table["method"].unique()]


def printed_facts(printed: pd.DataFrame) -> dict[str, str]:
    """The margin of ShaSpec in test images, and the standard error of an accuracy of 93 %, as texts by name."""
    margin = (printed.loc["shaspec"] - printed.loc["smil"]) * DIGITS / 100
    return {
        "margins": ", ".join(f"{count:.0f}" for count in margin),
        "standard_error": f"{100 * (0.93 * 0.07 / DIGITS) ** 0.5:.1f}",
        "printed_lower": f"{printed.loc['lower'].iloc[0]:.2f}",
        "printed_step_ratio": f"{PRINTED_COST['smil']['step'] / PRINTED_COST['shaspec']['step']:.1f}",
    }


def audio_rates(root: Path | None, rates: Iterable[int] = (5, 10, 15, 20, 100)) -> pd.DataFrame:
    """How many training pairs have audio at each rate that is asked for.

    Args:
        root: folder of the digits; None: the packaged ones.
        rates: percent.
    """
    sets = {rate: avmnist.load(root, rate / 100) for rate in rates}
    return pd.DataFrame(
        {
            "audio rate asked for, %": list(sets),
            "pairs with audio per class": [one.per_class for one in sets.values()],
            "of": [len(one.train) // 10 for one in sets.values()],
            "true audio rate, %": [100 * one.audio_rate for one in sets.values()],
            "recordings in training": [len(one.train.complete) for one in sets.values()],
        }
    )


@styled
def portraits(pairs: Pairs) -> Figure:
    """Every digit in a column: an image, the sound of the same pair, and the sound of another pair.

    Args:
        pairs: with sound, at least two of every digit from 0 to 9.
    """
    figure, axes = new_figure(9, 2.9, 3, 10)
    for digit in range(10):
        first, second = pairs.labels.eq(digit).nonzero().flatten()[:2].tolist()
        axes[0, digit].imshow(pairs.images[first, 0], cmap="gray", interpolation="nearest")
        for axis, row in zip(axes[1:, digit], (first, second), strict=True):
            sound = pairs.audio[row, 0, :COEFFICIENTS]
            axis.imshow(
                sound,
                cmap="cividis",
                aspect="auto",
                interpolation="nearest",
                vmin=-RANGE,
                vmax=RANGE,
                origin="lower",
            )
        axes[0, digit].set_title(str(digit))
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    for axis, name in zip(axes[:, 0], ("image", "audio", "audio of\nanother pair"), strict=True):
        axis.set_ylabel(name)
    return figure


# ---------------------------------------------------------------------------------------------------------- training
def training_cost(study: Study) -> pd.DataFrame:
    """Parameters, seconds per classifier and peak memory of each run of `avmnist`."""
    runs = study.records[study.records["experiment"].eq("avmnist")]
    factors = [runs[f"parameters.{name}"].str.len() for name in ("variants", "audio_rates", "seeds")]
    classifiers = factors[0] * factors[1] * factors[2]
    return pd.DataFrame(
        {
            "run": runs["run"],
            "parameters (first variant)": runs["parameter_count"],
            "classifiers": classifiers,
            "seconds each": runs["seconds.train"] / classifiers,
            "peak memory of the run, MiB": runs["peak_memory_mib"],
        }
    )


@styled
def loss_curves(study: Study) -> Figure:
    """The training loss of four methods as running means, a line per seed; grey lines part the stages."""
    runs = set(study.records.loc[study.records["experiment"].eq("avmnist"), "run"])
    shown = [run for run in ("lower", "dropout", "shaspec", "smil") if run in runs]
    figure, axes = new_figure(9, 2.6, 1, len(shown), sharey=False)
    for axis, run in zip(axes[0], shown, strict=True):
        history = study.results.history(run, "avmnist")
        at_20 = history["variant"].str.endswith("@20")
        variant = history.loc[at_20 | history["variant"].eq(history["variant"].iloc[-1]), "variant"].iloc[0]
        for _, steps in history[history["variant"].eq(variant)].groupby("seed"):
            at = count_on(steps["step"])
            loss = pd.Series(steps["loss"].to_numpy(), index=at)
            axis.plot(loss.rolling(max(1, len(loss) // 30), min_periods=1).mean(), linewidth=1)
            stages = steps["stage"].to_numpy()
            for place in np.flatnonzero(stages[1:] != stages[:-1]):
                axis.axvline(at[place + 1], color="#BBBBBB", linewidth=0.6)
        axis.set(title=f"{NAMES[run]}\n{variant.split('@')[1]} % audio", xlabel="step")
    axes[0, 0].set_ylabel("loss, running mean")
    return figure


# ---------------------------------------------------------------------------------------------------------- accuracy
def accuracy(study: Study) -> pd.DataFrame:
    """The accuracy of every arm on both test sets, percent, with 95 % intervals over seeds and digits.

    Returns:
        arm, target, rate (of `Study.rates`; NaN for the arms of `ALONE`), mean, low, high. The arm `upper` is given
        image and audio, all others the image.
    """
    main, parts = study.main, []
    for target in study.digits:
        for arm in study.arms:
            available = "image+audio" if arm == "upper" else "image"
            rows = main[main["arm"].eq(arm) & main["target"].eq(target) & main["available"].eq(available)]
            rows = rows.assign(rate=np.nan) if arm in ALONE else rows[rows["rate"].isin(study.rates)]
            if len(rows):
                cells = cell_means(rows.assign(available=rows["rate"].map("{:g}".format)))
                parts.append(cells.assign(rate=cells["available"].astype(float)))
    return pd.concat(parts)[["arm", "target", "rate", "mean", "low", "high"]].reset_index(drop=True)


def accuracy_table(cells: pd.DataFrame, target: str, rates: Iterable[float]) -> pd.DataFrame:
    """`accuracy` on one test set as texts: a row per arm, a column per audio rate, as in Table 3."""
    rows: dict[str, dict[str, str]] = {}
    for cell in cells[cells["target"].eq(target)].itertuples():
        text = f"{cell.mean:.2f} ({format_interval(cell.low, cell.high, 2, between='-')})"
        at = rates if np.isnan(cell.rate) else [cell.rate]
        rows.setdefault(NAMES[cell.arm], {}).update({f"{rate:g} %": text for rate in at})
    return pd.DataFrame(rows).T


@styled
def accuracy_by_rate(study: Study, cells: pd.DataFrame) -> Figure:
    """`accuracy` against the audio rate, a panel per test set; grey band: the image alone."""
    figure, axes = new_figure(9, 3.6, 1, 2, sharey=True)
    shown = [arm for arm in study.arms if arm not in (*ALONE, "shaspec padded")]
    for axis, (target, digits) in zip(axes[0], study.digits.items(), strict=True):
        (base,) = cells[cells["arm"].eq("lower") & cells["target"].eq(target)].itertuples()
        axis.axhspan(base.low, base.high, color="#E4E4E4", label="image alone")
        for place, arm in enumerate(shown):
            rows = cells[cells["arm"].eq(arm) & cells["target"].eq(target)]
            _points(axis, arm, rows, rows["mean"], 0.35 * (place - len(shown) / 2))
        axis.set(title=digits, xlabel="audio rate asked for, %", xticks=study.rates)
    axes[0, 0].set_ylabel("accuracy from the image, %")
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _points(axis, arm: str, rows: pd.DataFrame, middle: pd.Series, shift: float) -> None:
    colour, marker = STYLE[arm]
    x = rows["rate"] + shift
    axis.vlines(x, rows["low"], rows["high"], color=colour, linewidth=1)
    look = {"markeredgecolor": "black", "markeredgewidth": 0.3, "label": NAMES[arm]}
    axis.plot(x, middle, linestyle="none", marker=marker, color=colour, **look)


def gains(study: Study) -> pd.DataFrame:
    """Every arm and rate against the image alone.

    Returns:
        arm, rate (0 for the image alone with SMIL's updates), effect, low, high (points on the large test set, 95 %),
        p (Wilcoxon), Holm (over all rows), and McNemar's test on the small one with one seed: gained and lost digits,
        mid-p (`mcnemar`), seed.
    """
    rows, pairs = [], []
    base, small_base = study.table("lower"), study.table("lower", target="test")
    for arm in study.arms:
        if arm in ("lower", "upper"):
            continue
        for rate in [0.0] if arm in ALONE else sorted(study.rates_of(arm) & set(study.rates)):
            pairs.append((study.table(arm, rate), base))
            small = study.table(arm, rate, "test")
            seed = small.index.intersection(small_base.index)[0]
            gained, lost, p = mcnemar(small.loc[seed] / 100, small_base.loc[seed] / 100)
            rows.append({"arm": arm, "rate": rate, "gained": gained, "lost": lost, "mcnemar": p, "seed": seed})
    effects = pd.DataFrame(
        [{key: getattr(e, key) for key in ("effect", "low", "high", "p")} for e in paired_effects(pairs)]
    )
    table = pd.concat([pd.DataFrame(rows), effects], axis=1)
    return table.assign(Holm=holm(table["p"].to_numpy()))


def gain_table(rows: pd.DataFrame, digits: str) -> pd.DataFrame:
    """`gains` as it stands on the page.

    Args:
        digits: the size of the large test set in words.
    """
    return pd.DataFrame(
        {
            "method": rows["arm"].map(NAMES),
            "audio, %": rows["rate"].map("{:g}".format),
            f"gain on {digits}, points": [format_effect(row, 2) for row in rows.itertuples()],
            "p": rows["p"],
            "Holm": rows["Holm"],
            f"gained of {DIGITS}": rows["gained"],
            f"lost of {DIGITS}": rows["lost"],
            f"McNemar p, {DIGITS}": rows["mcnemar"],
        }
    )


@styled
def gains_by_rate(rows: pd.DataFrame) -> Figure:
    """`gains` against the audio rate; grey band: the image alone, trained with as many updates as SMIL."""
    figure, axes = new_figure(8.5, 4.4)
    axis = axes[0, 0]
    shown = [arm for arm in STYLE if arm in set(rows["arm"]) and arm not in ALONE]
    for place, arm in enumerate(shown):
        own = rows[rows["arm"].eq(arm)]
        _points(axis, arm, own, own["effect"], 0.4 * (place - (len(shown) - 1) / 2))
    for longer in rows[rows["arm"].eq("lower longer")].itertuples():
        axis.axhspan(longer.low, longer.high, color="#E4E4E4", label=NAMES["lower longer"], zorder=0)
    axis.axhline(0, color="#444444", linewidth=0.8)
    ticks = sorted(set(rows.loc[~rows["arm"].isin(ALONE), "rate"]))
    axis.set(xlabel="audio rate asked for, %", ylabel="gain over the image alone, points", xticks=ticks)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def standing(study: Study) -> pd.DataFrame:
    """Every arm over the image alone at the highest audio rate, from the image; rows of a forest plot.

    Returns:
        As `mmlib.ledgers.claims.effect_rows`, in accuracy points on the large test set.
    """
    top = max(study.rates)
    arms = [arm for arm in study.arms if arm == "lower longer" or (arm not in ALONE and top in study.rates_of(arm))]
    effects = [study.over(arm, top, "lower") for arm in arms]
    return effect_rows([NAMES[arm] for arm in arms], effects, SESOI, "accuracy points")


def gains_in_words(rows: pd.DataFrame, rate: float) -> str:
    """`gains` at one audio rate as one line: who gains, loses or shows no clear gain."""
    at_rate = rows[rows["rate"].eq(rate) & ~rows["arm"].isin(ALONE)]
    texts = [f"{NAMES[row.arm]} {outcome(row, VERDICTS)}, {format_effect(row, 2)}" for row in at_rate.itertuples()]
    return "; ".join(texts)


def answers(study: Study, rows: pd.DataFrame) -> dict[str, str]:
    """What the chapter finds at the highest audio rate, as texts by name.

    Args:
        rows: as `gains` returns them.
    """
    top = max(study.rates)
    facts = {"top_rate": f"{top:g}", "large_digits": study.digits["large_test"], "small_digits": study.digits["test"]}
    for name, arm in {"shaspec": "shaspec paper", "smil": "smil released"}.items():
        (own,) = rows[rows["arm"].eq(arm) & rows["rate"].eq(top)].itertuples()
        facts |= {f"{name}_gain": format_effect(own, 2), f"{name}_outcome": outcome(own)}
    rivals = study.over("shaspec paper", top, "smil released", top)
    facts |= {"shaspec_over_smil": format_effect(rivals, 2), "shaspec_smil_outcome": outcome(rivals)}
    both = study.both_over_image()
    facts["both_gain"] = format_effect(both, 2)
    facts["image_accuracy"] = f"{study.table('lower').to_numpy().mean():.1f}"
    both_right = study.table("upper", target="test", available="image+audio")
    facts["both_accuracy"] = f"{both_right.to_numpy().mean():.1f}"
    return facts


def over_longer(study: Study) -> dict[float, Effect]:
    """The released SMIL over the image alone with as many images seen, by audio rate; empty where that was not run."""
    if not {"lower longer", "smil released"} <= set(study.arms):
        return {}
    return {rate: study.over("smil released", rate, "lower longer") for rate in study.rates}


def longer_facts(effects: Mapping[float, Effect]) -> dict[str, str]:
    """`over_longer` in words, at all rates and at the highest, as texts by name."""
    if not effects:
        return dict.fromkeys(("longer_outcome", "over_longer", "over_longer_each"), "(not run in this profile)")
    last = effects[max(effects)]
    each = [f"{outcome(one, VERDICTS)} at {rate:g} % ({format_effect(one, 2)})" for rate, one in effects.items()]
    return {
        "longer_outcome": outcome(last),
        "over_longer": format_effect(last, 2),
        "over_longer_each": ", ".join(each),
    }


def silent_facts(study: Study) -> dict[str, str]:
    """What ShaSpec owes to its network and what to the sound, at the highest audio rate, as texts by name."""
    if 0.0 not in study.rates_of("shaspec paper"):
        return dict.fromkeys(("silent_gain", "heard_gain"), "(not run in this profile)")
    return {
        "silent_gain": format_effect(study.over("shaspec paper", 0.0, "lower"), 2),
        "heard_gain": format_effect(study.over("shaspec paper", max(study.rates), "shaspec paper", 0.0), 2),
    }


# ----------------------------------------------------------------------------------------------- both at test, control
@styled
def complete_share(study: Study, published: pd.DataFrame) -> Figure:
    """Accuracy from image and sound against the share of complete training pairs, as in Figure 3 of ShaSpec.

    Args:
        published: read off that figure: method, rate, accuracy_percent.
    """
    both = study.part("avmnist-both").query("available == 'image+audio'")
    figure, axes = new_figure(7.5, 3.3)
    axis = axes[0, 0]
    for place, (arm, rows) in enumerate(both.groupby("arm", sort=False)):
        cells = cell_means(rows.assign(available=rows["rate"].map("{:g}".format)))
        colour, marker = STYLE[arm]
        x = cells["available"].astype(float) + (place - 1)
        axis.vlines(x, cells["low"], cells["high"], color=colour, linewidth=1)
        axis.plot(x, cells["mean"], marker=marker, color=colour, linewidth=0.8, label=NAMES[arm])
    for method, (colour, marker) in {"shaspec": (BLUE, "o"), "smil": (PURPLE, "v")}.items():
        rows = published[published["method"].eq(method)]
        look = {"mfc": "none", "linestyle": ":", "linewidth": 0.8, "label": f"{NAMES[method]}, paper, other data"}
        axis.plot(rows["rate"], rows["accuracy_percent"], marker=marker, color=colour, **look)
    axis.set(xlabel="complete training pairs, %", ylabel="accuracy from both, %")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def complete_share_text(study: Study) -> str:
    """The means of `complete_share` in words, for its alternative text."""
    both = study.part("avmnist-both").query("available == 'image+audio'")
    means = both.groupby(["arm", "rate"], sort=False)["value"].mean()
    return "; ".join(f"{NAMES[arm]} at {rate:g} % {mean:.1f} %" for (arm, rate), mean in means.items())


def shuffled_rate(study: Study) -> float:
    """The audio rate of the negative control, %."""
    return float(study.part("avmnist-shuffled")["rate"].iloc[0])


def shuffled_sounds(study: Study) -> pd.DataFrame:
    """The negative control: sounds of other digits against none, and sounds of the same digit against them."""
    rate, shuffled = shuffled_rate(study), study.part("avmnist-shuffled")
    rows = []
    for arm in study.arms:
        if arm not in set(shuffled["arm"]):
            continue
        dealt = study.table(arm, rate, experiment="avmnist-shuffled")
        over_image, true_over = paired_effects([(dealt, study.table("lower")), (study.table(arm, rate), dealt)])
        rows.append(
            {
                "method": NAMES[arm],
                "shuffled over image alone, points": format_effect(over_image, 2),
                "true pairs over shuffled, points": format_effect(true_over, 2),
            }
        )
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------------------------------------- computation
def cost_medians(study: Study) -> pd.DataFrame:
    """Medians over repeats of what the run `cost` measured; rows: what ran, columns: metrics."""
    scores = study.results.scores.query("experiment == 'avmnist-cost'")
    return scores.pivot_table(index="variant", columns="metric", values="value", aggfunc="median", sort=False)


def cost_repeats(study: Study) -> int:
    """How often each training step was timed."""
    return study.results.scores.query("experiment == 'avmnist-cost' and metric == 'train-seconds'")["case"].nunique()


def step_costs(medians: pd.DataFrame) -> pd.DataFrame:
    """Training step and inference of ShaSpec and the ways to run SMIL, in milliseconds and as ratios to ShaSpec."""
    rows = medians.dropna(subset="train-seconds")
    steps, inference = rows["train-seconds"], rows["inference-seconds"]
    ratio = PRINTED_COST["smil"]["step"] / PRINTED_COST["shaspec"]["step"]
    printed = {"shaspec": "1", "smil-released": f"{ratio:.1f}"}
    return pd.DataFrame(
        {
            "step, ms": 1000 * steps,
            "step over ShaSpec's": steps / steps["shaspec"],
            "paper": [printed.get(name, "") for name in rows.index],
            "inference, ms": 1000 * inference,
            "inference over ShaSpec's": inference / inference["shaspec"],
            "parameters": rows["parameters"].map("{:,.0f}".format),
        }
    )


def printed_costs() -> str:
    """The paper's comparison of cost in words, ShaSpec against SMIL."""
    ours, theirs = PRINTED_COST["shaspec"], PRINTED_COST["smil"]
    return (
        f"{ours['step']} s against {theirs['step']} s a step, {ours['inference']} s against {theirs['inference']} s "
        f"for inference, {ours['parameters']} against {theirs['parameters']} million parameters, on a GPU"
    )


@styled
def memory_lines(study: Study) -> Figure:
    """Resident memory since the first step, MiB, against the training step."""
    figure, axes = new_figure(7.5, 3.2)
    looks = zip((BLUE, PURPLE, ORANGE, VERMILLION, GREEN), ("-", "--", "-.", ":", (0, (5, 1))), strict=True)
    lines = study.results.history("cost", "avmnist-cost").groupby("variant", sort=False)
    for (name, line), (colour, dashes) in zip(lines, looks, strict=False):
        memory = line["memory_mib"] - line["memory_mib"].iloc[0]
        axes[0, 0].plot(line["step"], memory, label=name, color=colour, linestyle=dashes)
    axes[0, 0].set(xlabel="training step", ylabel="memory gained, MiB")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def memory_slopes(medians: pd.DataFrame) -> pd.DataFrame:
    """Growth of memory, MiB, with the 95 % interval of the slope, by what ran."""
    names = {
        "memory-slope": "slope, MiB per step",
        "memory-slope-low": "low",
        "memory-slope-high": "high",
        "memory-growth": "growth over all steps, MiB",
    }
    return medians.dropna(subset="memory-slope")[list(names)].rename(columns=names)


def growing(slopes: pd.DataFrame) -> str:
    """What grows for certain, by more than `GROWING`, in words; of `memory_slopes`."""
    return "; ".join(slopes.index[slopes["low"] > GROWING]) or "none"


def seeds_as_stack(medians: pd.DataFrame) -> pd.DataFrame:
    """Training all seeds as one stack of weights against one after another."""
    rows = medians.dropna(subset="loop-seconds")
    return pd.DataFrame(
        {
            "one after another, ms": 1000 * rows["loop-seconds"],
            "together, ms": 1000 * rows["stack-seconds"],
            "gain (ratio)": rows["loop-seconds"] / rows["stack-seconds"],
            "largest difference of losses": rows["stack-difference"].map("{:.1e}".format),
        }
    )


def stacked(study: Study) -> str:
    """What `seeds_as_stack` was measured with, in words."""
    seeds, pairs = (int(study.records[f"parameters.{name}"].dropna().iloc[0]) for name in ("stacked", "stacked_batch"))
    return f"{counted(seeds, 'seed')}, {pairs} pairs per step"


# ------------------------------------------------------------------------------------------------------ paper, ablation
def over_smil(parts: pd.DataFrame) -> pd.DataFrame:
    """The parts of claim S4 that were measured, with the test set as `target` and the rest of their name as `name`.

    Args:
        parts: as `mmlib.ledgers.claims.evidence` returns them.
    """
    rows = parts[parts["id"].eq("S4") & parts["effect"].notna()]
    words = rows["part"].str.split(", ")
    return rows.assign(target=words.str[0], name=words.str[1])


def verdict_together(rows: pd.DataFrame) -> str:
    """The verdict on several parts of one claim: that of the weakest."""
    return str(weakest(rows)["verdict"].iloc[0])


def conditions(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """What was demanded of the runs beforehand, and whether it holds.

    Args:
        rows: as `gains` returns them.
    """
    lower, both = study.table("lower").to_numpy().mean(), study.both_over_image()
    checks = [
        ("image alone, mean accuracy at least 93 %", f"{lower:.2f} %", lower >= 93),
        ("image and audio above image alone, interval above 0", format_effect(both, 2), both.low > 0),
    ]
    for arm in ("shaspec paper", "smil paper", "smil released"):
        own = rows[rows["arm"].eq(arm)]
        (worst,) = own[own["high"].eq(own["high"].min())].head(1).itertuples()
        what = f"{NAMES[arm]} not below the image alone by more than the interval, at any rate"
        checks.append((what, format_effect(worst, 2), worst.high >= 0))
    table = pd.DataFrame(checks, columns=["what has to hold", "measured", "holds"])
    return table.assign(holds=["yes" if holds else "NO" for *_, holds in checks])


def parts_of_smil(study: Study) -> pd.DataFrame:
    """The released SMIL over SMIL with one part changed, over their common seeds; rows of a forest plot."""
    names, effects = [], []
    for rate, rows in study.part("avmnist-smil").groupby("rate"):
        for variant in rows["variant"].unique():
            if variant in CHANGED:
                changed = study.table(f"smil {variant}", rate, experiment="avmnist-smil")
                names.append(f"{CHANGED[variant]}, {rate:g} % audio")
                effects.append(shared_effect(study.table("smil released", rate), changed))
    return effect_rows(names, effects, SESOI, "accuracy points")


def outer_loss(study: Study) -> pd.DataFrame:
    """The paper's way of SMIL with another outer loss or with averaged draws; empty where that was not run."""
    rows = []
    varied = study.part("avmnist-smil")
    varied = varied[varied["variant"].isin(VARIED)]
    for variant, rate in varied[["variant", "rate"]].drop_duplicates().itertuples(index=False, name=None):
        changed = study.table(f"smil {variant}", rate, experiment="avmnist-smil")
        over_paper = shared_effect(changed, study.table("smil paper", rate))
        rows.append(
            {
                "SMIL (paper), but": VARIED[variant],
                "audio, %": f"{rate:g}",
                "accuracy, %": changed.to_numpy().mean(),
                "over SMIL (paper), points": format_effect(over_paper, 2),
                "over the image alone, points": format_effect(shared_effect(changed, study.table("lower")), 2),
                "common seeds": over_paper.seeds,
            }
        )
    return pd.DataFrame(rows)


def sound_in_shaspec(study: Study) -> pd.DataFrame:
    """ShaSpec with audio over ShaSpec without any, and over its other design, by audio rate."""
    rows = []
    for rate in study.rates:
        for name, arm, other_rate in (("0 % audio", "shaspec paper", 0.0), ("design padded", "shaspec padded", rate)):
            if other_rate in study.rates_of(arm):
                effect = study.over("shaspec paper", rate, arm, other_rate)
                points = format_effect(effect, 2)
                rows.append({"ShaSpec with audio": f"{rate:g} %", "over": name, "points": points, "p": effect.p})
    return pd.DataFrame(rows, columns=["ShaSpec with audio", "over", "points", "p"])
