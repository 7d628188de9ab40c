"""What the scores of ShaSpec and its rivals come to: beside a known answer, by rules, beside the paper, part by part.

Arms, scores and units are those of `mmlib.studies.segmentation`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmlib.analysis.leaks import phantom_limits
from mmlib.analysis.statistics import Effect, paired_effects
from mmlib.analysis.wording import NO_INTERVAL, counted, format_effect, format_interval, listed, outcome, select
from mmlib.data.cases import REGIONS, Case
from mmlib.data.phantoms.options import PLAIN, Options
from mmlib.figures.results import arm_style
from mmlib.figures.results import gains as gains_by_modality
from mmlib.figures.style import BLACK, REGION, REGION_NAME, new_figure, styled
from mmlib.ledgers.claims import effect_rows
from mmlib.methods.shaspec import VARIANTS
from mmlib.methods.shaspec.postprocessing import released_on_regions, remove_small
from mmlib.modalities import MRI, label
from mmlib.studies.segmentation import ALL, COMBINATIONS, ME, RIVALS, WITHOUT_T1CE, Study, arm_name, dice_percent
from mmlib.tasks.segmentation import Segmenter, predict

BLIND = tuple(name for name in COMBINATIONS if "t1ce" not in name.split("+"))  # combinations without t1ce
NOT_ON_SUBSETS = ("zero-fill", "dedicated")  # trained without modalities hidden at random
SESOI = 1.0  # Dice points, as in the claims ledger
VOLUMES = (0.5, 2, 8)  # ml, least components that post-processing keeps
RAW = "as predicted"


# -------------------------------------------------------------------------------------------------------- known answer
@dataclass(frozen=True)
class Ceiling:
    """The best mean Dice for ET that can be expected without t1ce, and how far every arm is from it.

    Attributes:
        mean: of the test cases, %.
        effects: arm and combination -> ET Dice minus the ceiling, points, paired by case.
    """

    mean: float
    effects: Mapping[tuple[str, str], Effect]

    @property
    def arms(self) -> list[str]:
        """The arms, in order."""
        return list(dict.fromkeys(arm for arm, _ in self.effects))

    def of(self, arm: str) -> dict[str, Effect]:
        """Combination -> effect, of one arm."""
        return {available: effect for (who, available), effect in self.effects.items() if who == arm}

    def best(self, arm: str) -> tuple[str, Effect]:
        """The combination with which an arm reaches its highest ET, and the effect."""
        return max(self.of(arm).items(), key=lambda one: (one[1].effect, one[0]))

    def highest(self) -> tuple[str, str, Effect]:
        """The arm and combination with the highest ET, and the effect."""
        (arm, available), effect = max(self.effects.items(), key=lambda one: one[1].effect)
        return arm, available, effect

    @property
    def beyond(self) -> list[tuple[str, str]]:
        """Arms and combinations whose interval, for all of them together, lies above the ceiling."""
        return [key for key, effect in self.effects.items() if effect.family_low > 0]


def ceiling(study: Study, run: str, options: Options = PLAIN) -> Ceiling | None:
    """The ceiling of the study's test cases; None where they are not phantoms: then nobody knows it.

    Args:
        run: that tells the spacing of the grid.
        options: what the phantoms were made with.
    """
    if not study.stand_in:
        return None
    limits = phantom_limits(study.tested, float(study.record(run)["spacing"]), options)
    return ceiling_from(study, 100 * pd.Series(limits))


def beyond_text(limit: Ceiling) -> str:
    """Which networks find more enhancing tumour without t1ce than the images hold, a sentence."""
    if not limit.beyond:
        held = f"{limit.mean:.1f} % on average"
        return f"No network finds more enhancing tumour without `t1ce` than the images hold: {held}."
    found = "; ".join(
        f"{arm_name(arm)} with {available} ({format_effect(limit.effects[arm, available])} points)"
        for arm, available in limit.beyond
    )
    return (
        f"**Suspicious:** above the ceiling of {limit.mean:.1f} % without `t1ce`, with an interval for all together, "
        f"lie {found}. No image holds that: look for a leak before anything else is read."
    )


def ceiling_from(study: Study, limits: pd.Series) -> Ceiling:
    """The ceiling, from the limit of every test case.

    Args:
        limits: case -> best ET Dice without t1ce, %.
    """
    keys = [(arm, available) for arm in study.whole for available in BLIND]
    pairs = []
    for arm, available in keys:
        dice = select(study.scores, arm=arm, available=available, target="et")
        pairs.append((dice, dice * 0 + limits.reindex(dice.columns)))
    return Ceiling(float(limits.mean()), dict(zip(keys, paired_effects(pairs), strict=True)))


@styled
def to_the_ceiling(limit: Ceiling) -> Figure:
    """How far every arm is from the ceiling, a row per combination without t1ce."""
    figure, axes = new_figure(6.5, 3.6)
    for place, arm in enumerate(limit.arms):
        colour, marker, name = arm_style(arm)
        effects = list(limit.of(arm).values())
        y = np.arange(len(BLIND)) + 0.7 * ((place + 0.5) / len(limit.arms) - 0.5)
        axes[0, 0].hlines(y, [e.low for e in effects], [e.high for e in effects], color=colour, linewidth=1)
        means = [e.effect for e in effects]
        axes[0, 0].plot(means, y, linestyle="none", marker=marker, markersize=5, color=colour, label=name)
    axes[0, 0].axvline(0, color=BLACK, linestyle="--", label="ceiling")
    axes[0, 0].set_yticks(range(len(BLIND)), BLIND)
    axes[0, 0].set(xlabel="ET Dice minus the ceiling, points", ylim=(len(BLIND) - 0.5, -0.5))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def ceiling_table(limit: Ceiling) -> pd.DataFrame:
    """Each arm's best combination without t1ce."""
    rows = []
    for arm in limit.arms:
        available, effect = limit.best(arm)
        rows.append(
            {
                "method": arm_name(arm),
                "highest with": available,
                "ET Dice": limit.mean + effect.effect,
                "ceiling": limit.mean,
                "difference": effect.effect,
                "95 % interval": format_interval(effect.low, effect.high, sign="+"),
            }
        )
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------------------------------- rules
def rules(study: Study, limit: Ceiling | None) -> pd.DataFrame:
    """What has to hold before any comparison is read, by arm; cells are `pass: numbers` or `FAIL: numbers`."""
    columns = {}
    for arm in study.whole:
        dice = study.dice(arm)
        wt, et = dice["wt"], dice["et"]
        entry = {
            "WT > 80 with all four": _checked(wt[ALL] > 80, wt[ALL]),
            "ET > 60 with all four": _checked(et[ALL] > 60, et[ALL]),
        }
        if arm not in NOT_ON_SUBSETS:
            entry["WT: flair alone above t1 alone"] = _checked(wt["flair"] > wt["t1"], wt["flair"], wt["t1"])
            entry["ET: t1ce alone above flair alone"] = _checked(et["t1ce"] > et["flair"], et["t1ce"], et["flair"])
        if limit is not None:
            within = all(who != arm for who, _ in limit.beyond)
            reached = limit.mean + limit.best(arm)[1].effect
            entry["ET without t1ce: not beyond the ceiling"] = _checked(within, reached, limit.mean)
        columns[arm_name(arm)] = entry
    return pd.DataFrame(columns)


def _checked(passes: bool, *values: float) -> str:
    return f"{'pass' if passes else 'FAIL'}: {', '.join(f'{value:.1f}' for value in values)}"


def failures_in_bold(table: pd.DataFrame) -> pd.DataFrame:
    """The style of each cell of `rules`."""
    return table.map(lambda text: "font-weight: bold" if str(text).startswith("FAIL") else "")


def rules_text(table: pd.DataFrame) -> str:
    """How many checks of `rules` pass, and which do not."""
    words = table.stack().dropna()
    failed = [f"{rule} ({who})" for (rule, who), text in words.items() if text.startswith("FAIL")]
    text = f"{len(words) - len(failed)} of {len(words)} checks pass."
    return f"{text} Not: {'; '.join(failed[:4])}{' and others' * (len(failed) > 4)}." if failed else text


# --------------------------------------------------------------------------------------------------------------- paper
def _per_seed(study: Study) -> pd.DataFrame:
    ours = study.scores[study.scores["arm"].eq(ME)]
    return ours.groupby(["available", "target", "seed"])["value"].mean().unstack("seed")


def _printed(published: pd.DataFrame) -> pd.Series:
    return published[published["method"].eq("ShaSpec")].set_index(["available", "target"])["dice_percent"]


def beside_paper(study: Study, published: pd.DataFrame, record: pd.Series) -> pd.DataFrame:
    """Table 1 beside ours: mean of the fifteen combinations, all four and each alone; a row per region.

    Args:
        record: of the run that tells the size of the network and the steps.
    """
    paper, ours = _printed(published), _per_seed(study)
    data = "phantom, not BraTS" if study.stand_in else "other test cases"
    smaller = "" if isinstance(record["parameters.widths"], str) else "smaller net, "
    usual = f"{data}; {smaller}{int(record['parameters.steps']):,} steps of 180,000"
    unknown = "nothing outside t1ce tells what enhances here; in patients something does"
    rows = []
    for target in REGIONS:
        for name in ("mean of 15", ALL, *MRI):
            whole = name == "mean of 15"
            mine = ours.xs(target, level="target").mean() if whole else ours.loc[(name, target)]
            printed = paper.xs(target, level="target").mean() if whole else paper[name, target]
            spread = f" ± {mine.std(ddof=1):.1f}" if len(mine) > 1 else ""
            blind = study.stand_in and target == "et" and name in WITHOUT_T1CE
            rows.append(
                {
                    "train with / test with": f"random subsets / {'all four' if name == ALL else name}",
                    "metric": f"{target.upper()} Dice, %",
                    "paper (Table 1)": f"{printed:.2f}",
                    "released code": "not run, weights not published",
                    "ours": f"{mine.mean():.1f}{spread} ({counted(len(mine), 'seed')})",
                    "gap": f"{mine.mean() - printed:+.1f}",
                    "likely reason": unknown if blind else usual,
                }
            )
    return pd.DataFrame(rows)


def paper_and_ours(study: Study, published: pd.DataFrame) -> pd.DataFrame:
    """Dice of ShaSpec in the paper and here, %; rows: combination and region, columns: paper, ours."""
    return pd.DataFrame({"paper": _printed(published), "ours": _per_seed(study).mean(axis=1)}).dropna()


def rank_agreement(both: pd.DataFrame) -> dict[str, float]:
    """Region -> rank correlation of the combinations of `paper_and_ours`."""
    parts = {target: both.xs(target, level="target") for target in REGIONS}
    return {name: float(part.corr(method="spearman").loc["paper", "ours"]) for name, part in parts.items()}


@styled
def against_paper(both: pd.DataFrame) -> Figure:
    """`paper_and_ours` as points, a panel per region; combinations with t1ce are filled, others are hollow."""
    figure, axes = new_figure(8.5, 3.1, 1, len(REGIONS), sharex=True, sharey=True)
    for axis, target in zip(axes[0], REGIONS, strict=True):
        part = both.xs(target, level="target")
        colour, marker = REGION[target]
        for blind, name in ((False, "with t1ce"), (True, "without t1ce")):
            points = part[part.index.isin(BLIND) == blind]
            look: dict[str, Any] = {"markerfacecolor": "none" if blind else colour, "markeredgecolor": "black"}
            axis.plot(points["paper"], points["ours"], linestyle="none", marker=marker, label=name, **look)
        axis.plot([0, 100], [0, 100], color="#888888", linewidth=0.8)
        axis.set(
            title=f"{target.upper()}, {REGION_NAME[target]}", xlabel="paper, Dice, %", xlim=(0, 100), ylim=(0, 100)
        )
        axis.legend(loc="upper left")
    axes[0, 0].set_ylabel("ours, Dice, %")
    return figure


def lead_rows(study: Study, parts: pd.DataFrame) -> pd.DataFrame:
    """What ShaSpec gains over every rival, by region, mean over the fifteen combinations; rows of a forest plot.

    Args:
        parts: as `mmlib.ledgers.claims.evidence` returns them; its verdicts on claim S1 stand where there are any.
    """
    judged = parts[parts["id"].eq("S1") & parts["effect"].notna()]
    if len(judged):
        names = [part.replace(f"{ME} ", "") for part in judged["part"]]
        for arm in RIVALS:
            names = [name.replace(f"against {arm}", f"against {arm_name(arm)}") for name in names]
        return judged.assign(part=names)
    names, effects = [], []
    for rival in study.rivals:
        names += [f"{target.upper()}, against {arm_name(rival)}" for target in REGIONS]
        effects += study.gains(ME, rival, target=REGIONS)
    return effect_rows(names, effects, SESOI)


# ------------------------------------------------------------------------------------------------------------ ablation
def variants_run(study: Study) -> list[str]:
    """The other ways to train ShaSpec that have scores."""
    return [name for name in VARIANTS if name != "paper" and f"shaspec {name}" in set(study.scores["arm"])]


def ablation(study: Study) -> pd.DataFrame:
    """What the paper's way gains over each other way, by region; rows of a forest plot."""
    tables = []
    for variant in variants_run(study):
        names = [f"{target.upper()}, over {variant}" for target in REGIONS]
        tables.append(effect_rows(names, study.gains(ME, f"shaspec {variant}", target=REGIONS), SESOI))
    return pd.concat(tables, ignore_index=True) if tables else effect_rows([], [])


def clear_effects(rows: pd.DataFrame) -> str:
    """Which rows of a forest plot have an interval without zero, as a sentence."""
    if len(rows) and rows["low"].isna().all():
        return f"{NO_INTERVAL.capitalize()}."
    clear = rows[(rows["low"] > 0) | (rows["high"] < 0)]
    named = [f"{row.part} ({row.effect:+.1f})" for row in clear.itertuples()]
    return f"The interval excludes zero for {', '.join(named)}." if named else "No interval excludes zero."


def variants_not_run(study: Study, planned: Mapping[str, Collection[str]]) -> str:
    """Which variants lack scores, and which profiles run them, as sentences.

    Args:
        planned: profile -> variants of ShaSpec that it runs.
    """
    here = variants_run(study)
    absent = [name for name in VARIANTS if name != "paper" and name not in here]
    where = {profile: [f"`{name}`" for name in absent if name in runs] for profile, runs in planned.items()}
    held = [f"profile `{profile}`: {', '.join(names)}" for profile, names in where.items() if names]
    never = [f"`{name}`" for name in absent if not any(name in runs for runs in planned.values())]
    sentences = [f"Not run in this profile; {'; '.join(held)}."] if held else []
    return " ".join([*sentences, f"In no profile: {', '.join(never)}."] if never else sentences)


def postprocessed(model: Segmenter, cases: Any, names: Iterable[str]) -> pd.DataFrame:
    """Dice of some cases with every way of post-processing, with all four modalities, t1ce alone and t1 alone.

    Args:
        cases: name -> `mmlib.data.cases.Case`.

    Returns:
        way, available, target, case and Dice in percent, one row per value.
    """
    rows = []
    for name in names:
        case = cases[name]
        for given in (MRI, ("t1ce",), ("t1",)):
            available = "all four" if given == MRI else label(given, MRI)
            for way, predicted in ways_to_clean(predict(model, case, given), case, given).items():
                same = {"way": way, "available": available, "case": name}
                values = zip(REGIONS, dice_percent(case, predicted), strict=True)
                rows += [{**same, "target": target, "dice": dice} for target, dice in values]
    return pd.DataFrame(rows)


def ways_to_clean(raw: np.ndarray, case: Case, given: Collection[str]) -> dict[str, np.ndarray]:
    """A prediction as it is and as each way of post-processing leaves it.

    Args:
        raw: (3, X, Y, Z) bool, on the grid of the case.
        given: the modalities that the network had; the released rules need t1ce.
    """
    ways = {RAW: raw}
    ways |= {f"components from {ml:g} ml": remove_small(raw, 1000 * ml, case.spacing) for ml in VOLUMES}
    if "t1ce" in given:
        ways["released rules"] = released_on_regions(raw, case.images["t1ce"], case.spacing)
    return ways


def postprocessing_table(tried: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice of `postprocessed`; rows: available and target, columns: ways."""
    return tried.pivot_table(index=["available", "target"], columns="way", values="dice", sort=False)


@styled
def postprocessing_lines(means: pd.DataFrame) -> Figure:
    """`postprocessing_table` as lines, a panel per combination."""
    combinations_tried = means.index.get_level_values(0).unique()
    figure, axes = new_figure(8.5, 3.2, 1, len(combinations_tried), sharey=True)
    ticks = [way.replace("components ", "") for way in means.columns]
    for axis, given in zip(axes[0], combinations_tried, strict=True):
        for target in REGIONS:
            colour, marker = REGION[target]
            look: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": 0.4, "label": target.upper()}
            axis.plot(range(len(ticks)), means.loc[(given, target)], marker=marker, color=colour, **look)
        axis.set_xticks(range(len(ticks)), ticks, rotation=40, ha="right")
        axis.set(title=f"available: {given}", ylim=(0, 100))
    axes[0, 0].set_ylabel("Dice, %")
    axes[0, 0].legend()
    return figure


def postprocessing_changes(means: pd.DataFrame) -> str:
    """Mean change of each way against the raw prediction, points, as a text."""
    changes = means.drop(columns=RAW).sub(means[RAW], axis=0).groupby(level="target").mean()
    return "; ".join(
        f"{way} " + ", ".join(f"{target.upper()} {changes.loc[target, way]:+.1f}" for target in REGIONS)
        for way in changes
    )


# ----------------------------------------------------------------------------------------------------------- take-away
NOT_RUN = "not run in this profile"


def dice_text(study: Study, available: str, arm: str = ME) -> str:
    """WT/TC/ET of an arm with a combination, as a text."""
    return "/".join(f"{value:.0f}" for value in study.dice(arm).loc[available])


def poorest_single(study: Study) -> str:
    """The modality with which ShaSpec has the lowest mean Dice."""
    return str(study.dice(ME).loc[list(MRI)].mean(axis=1).idxmin())


def rival_facts(study: Study) -> dict[str, str]:
    """How ShaSpec compares with other networks over everything, and with one that needs all modalities, as texts."""
    effects = {arm: study.gain(ME, arm) for arm in study.rivals}
    texts = [f"{outcome(e)} {arm_name(arm)} at {format_effect(e, unit='points')}" for arm, e in effects.items()]
    facts = {"rivals": listed(texts) if texts else f"has no rival ({NOT_RUN})", "rivals_reason": _reason(effects)}
    facts |= dict.fromkeys(("met", "met_words", "price", "price_words"), NOT_RUN)
    if {"zero-fill", "dropout-unet"} <= set(study.whole):
        met = study.gain("dropout-unet", "zero-fill", size=list(range(1, len(MRI))))
        words = ("gains", "loses", "shows no clear gain")
        facts |= {"met": format_effect(met, unit="points"), "met_words": outcome(met, words)}
    if "zero-fill" in study.whole:
        price = study.gain("zero-fill", ME, available=ALL)
        facts |= {"price": format_effect(price, unit="points"), "price_words": outcome(price)}
    return facts


def _reason(effects: Mapping[str, Effect]) -> str:
    sides = [outcome(effect, ("1", "-1", "0")) for effect in effects.values()]
    if not sides:
        return ""
    if all(side == "1" for side in sides):
        return "Separating shared from specific features pays here, as the paper says."
    if "-1" in sides:
        return (
            "A likely reason: with few steps and small widths a plain net that sees all modalities from its first "
            "layer learns faster than five encoders that meet only at the bottleneck; the paper trains far longer and "
            "larger."
        )
    return "The paper's advantage over every other network is not certain here, with this many cases and seeds."


def ceiling_facts(study: Study, limit: Ceiling | None) -> dict[str, str]:
    """What can be known without t1ce and what t1ce adds, as texts; where nobody knows the first, it says so."""
    added = gains_by_modality(study.results.scores, "t1ce", [ME], ["et"]).set_index("available")["effect"]
    facts = {"t1ce_adds": format_effect(added[label(WITHOUT_T1CE, MRI)], 0, "points")}
    if limit is None:
        return facts | {"known_answer": "what can be known without t1ce is not known for these cases"}
    beyond = f"; {len(limit.beyond)} cells lie beyond it, which needs an explanation" if limit.beyond else ""
    top = limit.mean + limit.highest()[2].effect
    highest = f"without t1ce the highest ET Dice of any method is {top:.0f} %"
    return facts | {"known_answer": f"{highest}, the ceiling is {limit.mean:.0f} %{beyond}"}


def run_rows(study: Study) -> pd.DataFrame:
    """The records of the runs that the chapter reads."""
    read = [*study.arms, *(f"shaspec {name}" for name in variants_run(study))]
    return study.records[study.records["arm"].isin(read)]
