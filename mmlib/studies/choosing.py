"""Which method for which need, decided by the records: a tree of questions whose leaves are contrasts of runs.

At each leaf something simple stands beside something that costs more. The costlier one is advised where the ledger's
rule `greater` says SHOWN of its gain (`mmlib.ledgers.claims.judge`), else the simple one. Where the runs are not
there, the leaf says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmlib.analysis.results import Results
from mmlib.analysis.statistics import Effect
from mmlib.analysis.wording import counted, format_effect
from mmlib.figures.tree import Leaf, Question
from mmlib.ledgers.claims import judge
from mmlib.ledgers.contrasts import MEASURED, NotTestedError
from mmlib.modalities import MRI, combinations, label
from mmlib.studies import comparison, segmentation, winners

ALL = label(MRI, MRI)
SETS = [label(names, MRI) for names in combinations(MRI)]
REGIONS = ["wt", "tc", "et"]
TASKS = ["DIAG", "PN", "BWV", "VS", "PIG", "STR", "DaG", "RS"]  # of chapter 07
DICE = {"metric": "dice", "target": REGIONS}


@dataclass(frozen=True)
class Choice:
    """A leaf before it is decided.

    Attributes:
        simple: what is taken where the other shows no gain.
        other: what costs more.
        chapter: with the numbers, and its name.
        contrast: of `other` less `simple`, as the statistic `linear` of the ledger, or what gives the effect, or None
            where runs lack; None: the best two on equal terms.
        unit: of the effect.
        sesoi: smallest effect of interest.
        experiments: that it reads.
    """

    simple: str
    other: str
    chapter: tuple[str, str]
    contrast: dict[str, Any] | Callable[[Results], Effect | None] | None
    unit: str
    sesoi: float
    experiments: tuple[str, ...]


def _part(all_: Mapping[str, Any], add: list, subtract: list, **more: Any) -> dict[str, Any]:
    parts = [{"name": "", "add": add, "subtract": subtract}]
    return {"statistic": "linear", "all": dict(all_), "parts": parts, **more}


def _in_map(cases: int, runs: Results) -> Effect | None:
    """ShaSpec less the U-Net with dropout in a cell of the map of chapter 09, which pools the spread of seeds."""
    if not runs.records["experiment"].eq(winners.EXPERIMENT).any():
        return None
    own = Results(*(table[table["experiment"].eq(winners.EXPERIMENT)] for table in (runs.records, runs.scores)))
    return winners.difference(winners.read_gaps(own), "shaspec paper", "dropout-unet", (cases, 0.6))


def _on_equal_terms(of: Mapping[str, Any], add: list, subtract: list, runs: Results, **more: Any) -> Effect | None:
    """The effect among the networks of chapter 09, which says whose they are."""
    equal = comparison.on_equal_terms(runs).results
    return effect_of(_part({**DICE, **of}, add, subtract, **more), equal)


EQUAL = ("comparison", "segmentation", "subsets")
COMPARED = ("09_comparison", "Chapter 09")
TAUGHT = {**DICE, "experiment": "distillation", "variant": "standard"}
CHOICES = {
    "complete": Choice(
        "a plain U-Net, trained on complete cases",
        "a U-Net with modality dropout",
        COMPARED,
        partial(_on_equal_terms, {"available": ALL}, [{"method": "dropout-unet"}], [{"method": "zero-fill"}]),
        "points of Dice",
        1.0,
        EQUAL,
    ),
    **{
        f"teacher-{name}": Choice(
            "a network for this modality alone, without a teacher",
            "distillation from a teacher with all modalities (ProtoKD)",
            ("05_protokd", "Chapter 05"),
            _part({**TAUGHT, "available": name}, [{"method": "protokd"}], [{"method": "unimodal"}]),
            "points of Dice",
            1.0,
            ("distillation",),
        )
        for name in MRI
    },
    "for-all": Choice(
        "one U-Net with modality dropout for all of them",
        "a network for each modality alone",
        COMPARED,
        partial(
            _on_equal_terms,
            {},
            [{"method": "dedicated", "variant": name, "available": name} for name in MRI],
            [{"method": "dropout-unet", "available": name} for name in MRI],
            scale=100 / len(MRI),
        ),
        "points of Dice",
        1.0,
        EQUAL,
    ),
    "least-work": Choice(
        "a plain U-Net, fed zeros for what is missing",
        "a U-Net with modality dropout",
        COMPARED,
        partial(_on_equal_terms, {"available": SETS[:-1]}, [{"method": "dropout-unet"}], [{"method": "zero-fill"}]),
        "points of Dice",
        1.0,
        EQUAL,
    ),
    "a-method": Choice(
        "a U-Net with modality dropout",
        "ShaSpec",
        COMPARED,
        partial(
            _on_equal_terms,
            {"available": SETS},
            [{"method": "shaspec", "variant": "paper"}],
            [{"method": "dropout-unet"}],
        ),
        "points of Dice",
        1.0,
        EQUAL,
    ),
    "the-best": Choice("", "", COMPARED, None, "points of Dice", 1.0, EQUAL),
    "few-cases": Choice(
        "a U-Net with modality dropout",
        "ShaSpec",
        COMPARED,
        partial(_in_map, 12),
        "points of Dice",
        1.0,
        ("missingness",),
    ),
    "many-cases": Choice(
        "a U-Net with modality dropout",
        "ShaSpec",
        COMPARED,
        partial(_in_map, 200),
        "points of Dice",
        1.0,
        ("missingness",),
    ),
    "image": Choice(
        "a regression network",
        "diffusion (M2DN)",
        ("06_m2dn", "Chapter 06"),
        _part(
            {"experiment": "synthesis", "metric": "psnr-mean", "target": "all", "available": "one missing"},
            [{"method": "m2dn", "variant": "unet"}],
            [{"method": "regression", "variant": "unet"}],
            scale=1,
        ),
        "dB of PSNR",
        0.25,
        ("synthesis",),
    ),
    "rare-audio": Choice(
        "a network for the common modality alone",
        "SMIL, which learns from the few complete pairs",
        ("03_audiovision_mnist", "Chapter 03"),
        _part(
            {"experiment": "avmnist", "metric": "correct", "target": "large_test", "available": "image"},
            [{"method": "smil", "variant": "paper@20"}],
            [{"method": "lower", "variant": "standard@0"}],
        ),
        "points of accuracy",
        0.5,
        ("avmnist",),
    ),
    "costly-image": Choice(
        "a wider head on the cheaper image alone",
        "Deep Multimodal Guidance",
        ("07_deep_guidance", "Chapter 07"),
        _part(
            {
                "method": "guidance",
                "experiment": "derm7pt",
                "metric": "balanced",
                "target": TASKS,
                "available": "inferior",
            },
            [{"variant": "combined"}],
            [{"variant": "wider"}],
        ),
        "points of balanced accuracy",
        1.0,
        ("derm7pt",),
    ),
}
TREE = Question(
    "What shall come out?",
    {
        "regions of an image": Question(
            "What will a test case lack?",
            {
                "nothing": "complete",
                "all but one modality, always the same": Question(
                    "How many networks may it take?",
                    {
                        "one, and a teacher in training": Question(
                            "Which modality is there?", {name: f"teacher-{name}" for name in MRI}
                        ),
                        "one for each modality, or one for all": "for-all",
                    },
                ),
                "anything": Question(
                    "Are training cases complete?",
                    {
                        "yes": Question(
                            "How much work may it be?",
                            {
                                "a line of code": "least-work",
                                "a method with a network of its own": "a-method",
                                "whatever is best": "the-best",
                            },
                        ),
                        "no, half of their modalities are missing": Question(
                            "How many are there?", {"a dozen": "few-cases", "two hundred": "many-cases"}
                        ),
                    },
                ),
            },
        ),
        "the missing image itself": "image",
        "a class": Question(
            "What will a test case lack?",
            {
                "a modality that most training cases lack too": "rare-audio",
                "the costlier of two images": "costly-image",
            },
        ),
    },
)


def effect_of(contrast: Mapping[str, Any], runs: Results) -> Effect | None:
    """The effect of a contrast with one part; None where the runs are not there."""
    claim = {"contrast": contrast, "sesoi": 0.0, "rule": "greater"}  # of which only the effect is taken
    try:
        ((_, effect, _, _),), _ = MEASURED["linear"](claim, runs)
    except NotTestedError:
        return None
    return effect


def best_two(runs: Results) -> tuple[str, str, Effect] | None:
    """The network with the highest level of those on equal terms, the second, and the difference."""
    if not runs.records["experiment"].isin([name for names in comparison.EXPERIMENTS for name in names]).any():
        return None
    study = comparison.on_equal_terms(runs)
    means = {arm: table.to_numpy().mean() for arm, table in comparison.levels(study).items()}
    if len(means) < 2:
        return None
    best, second = sorted(means, key=lambda arm: -means[arm])[:2]
    return segmentation.arm_name(best), segmentation.arm_name(second), study.gain(best, second)


SURE = {"SHOWN": "a gain", "ABSENT": "no gain", "REVERSED": "a loss", "UNRESOLVED": "a gain is not shown"}


def _said(one: str, other: str, effect: Effect, choice: Choice) -> str:
    """What two arms differ by, in a sentence."""
    number = format_effect(effect, 2 if choice.sesoi < 0.5 else 1, choice.unit)
    sure = f"n = {counted(effect.n, 'test case')}, {counted(effect.seeds, 'seed')}"
    return f"{_capital(one)}, against {other}: {number}, {SURE[judge(effect, choice.sesoi)]}; {sure}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def decide(name: str, runs: Results, chapters: Collection[str]) -> Leaf:
    """A leaf as the records have it.

    Args:
        name: of the leaf, a key of `CHOICES`.
        runs: that there are.
        chapters: that are made, so that a link leads somewhere.
    """
    choice = CHOICES[name]
    chapter, page = choice.chapter
    link = f"{chapter}.html" if chapter in chapters else ""
    one, other = choice.other, choice.simple
    asked, otherwise = f"{_capital(one)}, or {other}?", other
    if callable(choice.contrast):
        effect = choice.contrast(runs)
    elif choice.contrast is not None:
        effect = effect_of(choice.contrast, runs)
    elif found := best_two(runs):
        one, other, effect = found
        otherwise = f"{one} or {other}, the cheaper one"
    else:
        effect, asked = None, "Which network is ahead on equal terms?"
    if effect is None:
        return Leaf("Not known yet", f"{asked} These runs are not published.", None, choice.sesoi, link, page)
    advice = one if judge(effect, choice.sesoi) == "SHOWN" else otherwise
    return Leaf(_capital(advice), _said(one, other, effect, choice), effect, choice.sesoi, link, page)


def leaves(runs: Results, chapters: Collection[str]) -> dict[str, Leaf]:
    """Every leaf of the tree, decided; arguments as `decide`."""
    return {name: decide(name, runs, chapters) for name in TREE.leaves}


def summary(decided: Mapping[str, Leaf]) -> str:
    """How many leaves are known, and what they advise, for those who do not see the tree."""
    known = {name: leaf for name, leaf in decided.items() if leaf.effect}
    said = " ".join(leaf.reason for leaf in known.values())
    return f"{len(known)} of {len(decided)} leaves are known. {said}"
