"""What a teacher is worth by the number of cases there are to learn from: a section of the chapter on ProtoKD.

A point of the dial is an experiment whose teacher and students are trained on the same few cases, and all points are
tested on the same ones. Two controls stand beside it. What no image but t1ce shows must not pass: enhancing tumour of
a student of T1 has a ceiling (`mmlib.data.phantoms.brain.ceiling_without_t1ce`). And on the phantom whose modalities
never show the same tumour, a teacher knows of a student's images nothing that the labels do not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import paired_effects
from mmlib.analysis.wording import format_effect, outcome
from mmlib.figures.style import BLACK, GREY, MODALITY, new_figure, styled
from mmlib.studies.distillation import ALL, NAMES, Study, read_study, shared_seeds

STUDENTS = ("t1ce", "t1")  # that the dial is turned for
GAIN, LEAD = "ProtoKD minus no teacher", "teacher minus no teacher"
SHARED, PRIVATE = "every modality shows the tumour", "no two modalities show the same tumour"


def training_cases(study: Study) -> int:
    """How many cases the networks of a study have met in training."""
    return max(len(cases) for exposure in study.records["exposure"] for cases in exposure.values())


def read_dial(results: Results, experiments: Sequence[str]) -> dict[int, Study]:
    """Training cases -> the study with so many, in rising order; of those experiments that were run."""
    run = set(results.records["experiment"])
    studies = [read_study(results, one) for one in experiments if one in run]
    return {training_cases(one): one for one in sorted(studies, key=training_cases)}


def worth(dial: Mapping[int, Study], private: Study | None = None) -> pd.DataFrame:
    """What ProtoKD gains and how far the teacher is ahead, in points of average Dice.

    Args:
        dial: as `read_dial` returns it.
        private: the study of the phantom whose modalities never show the same tumour.

    Returns:
        cases, student, data (`SHARED` or `PRIVATE`), what (`GAIN` or `LEAD`), effect (an `Effect`); one row for each.
    """
    studies = [(cases, study, SHARED) for cases, study in dial.items()]
    studies += [] if private is None else [(training_cases(private), private, PRIVATE)]
    rows, pairs = [], []
    for cases, study, data in studies:
        for name in (name for name in STUDENTS if name in study.students):
            alone = study.table("unimodal", name)
            taught = {GAIN: study.table("protokd", name), LEAD: study.table("teacher", ALL)}
            for what, first in taught.items():
                rows.append({"cases": cases, "student": name, "data": data, "what": what})
                pairs.append(shared_seeds(first, alone))
    return pd.DataFrame(rows).assign(effect=[paired_effects([pair])[0] for pair in pairs])


@styled
def dial_figure(points: pd.DataFrame, least: float) -> Figure:
    """Gain (left) and lead of the teacher (right) against the number of training cases, with 95 % intervals.

    Args:
        points: as `worth` returns them. Open markers: the phantom whose modalities share no tumour.
        least: the smallest gain of interest, in points; a dotted line.
    """
    figure, axes = new_figure(9, 3.8, 1, 2)
    for axis, what in zip(axes[0], (GAIN, LEAD), strict=True):
        for place, name in enumerate(STUDENTS):
            colour, marker = MODALITY[name]
            for data, line, fill in ((SHARED, "-", colour), (PRIVATE, "none", "white")):
                own = points[points["what"].eq(what) & points["student"].eq(name) & points["data"].eq(data)]
                if own.empty:
                    continue
                x = own["cases"] * 1.03 ** (2 * place - 1) * (1 if data == SHARED else 1.12)
                axis.vlines(x, [e.low for e in own["effect"]], [e.high for e in own["effect"]], color=colour)
                middle = [e.effect for e in own["effect"]]
                text = f"student of {name}" + ("" if data == SHARED else f": {data}")
                axis.plot(x, middle, marker, linestyle=line, color=colour, markerfacecolor=fill, label=text)
        axis.axhline(0, color=BLACK, linewidth=0.8)
        axis.set_xscale("log")
        counts = sorted(points["cases"].unique())
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.set(title=what, xlabel="training cases, teacher included")
    axes[0, 0].axhline(least, color=GREY, linewidth=1, linestyle=":")
    axes[0, 0].set_ylabel("points of average Dice")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def dial_table(points: pd.DataFrame) -> pd.DataFrame:
    """`worth` as text: a row for each number of cases, student and phantom, with gain, lead and seeds."""
    rows = []
    for (data, name, cases), own in points.groupby(["data", "student", "cases"], sort=False):
        gain, lead = (own.loc[own["what"].eq(what), "effect"].iloc[0] for what in (GAIN, LEAD))
        shown = {what: format_effect(e) for what, e in ((GAIN, gain), (LEAD, lead))}
        rows.append({"phantom": data, "student": name, "training cases": cases, **shown, "seeds": gain.seeds})
    return pd.DataFrame(rows).sort_values(["phantom", "student", "training cases"], ascending=[True, False, True])


def gain_words(points: pd.DataFrame, name: str, data: str = SHARED) -> str:
    """For the prose: `+4.2 (+1.0 to +7.4) with 12 cases, ...`; `not run` where there is none."""
    own = points[points["what"].eq(GAIN) & points["student"].eq(name) & points["data"].eq(data)]
    words = [f"{format_effect(row.effect)} with {row.cases} cases" for row in own.itertuples()]
    return ", ".join(words) or "not run"


# ------------------------------------------------------------------------------------------------------- the ceiling
def rim_against_ceiling(dial: Mapping[int, Study], bound: pd.Series, name: str = "t1") -> pd.DataFrame:
    """Dice for enhancing tumour of a student that cannot see it, minus the ceiling; and of the teacher, which can.

    Args:
        dial: as `read_dial` returns it.
        bound: case -> the highest Dice to be expected, in points, of all cases tested.
        name: the student's modality.

    Returns:
        One row for each number of cases and arm, with the mean, the difference from the ceiling, and in words whether
        it lies above.
    """
    rows = []
    for cases, study in dial.items():
        arms = {"unimodal": name, "protokd": name, "teacher": ALL}
        for arm, available in arms.items():
            if not study.has(arm, available):
                continue
            dice = study.table(arm, available, "et")
            top = pd.DataFrame(np.tile(bound[dice.columns], (len(dice), 1)), dice.index, dice.columns)
            (e,) = paired_effects([(dice, top)])
            rows.append(
                {
                    "training cases": cases,
                    "network": NAMES[arm] if arm == "teacher" else f"{NAMES[arm]}, {name}",
                    "ET Dice, %": dice.to_numpy().mean(),
                    "minus the ceiling, points": format_effect(e),
                    "above the ceiling": outcome(e, ("yes", "no", "cannot be told")),
                    "seeds": e.seeds,
                }
            )
    return pd.DataFrame(rows)
