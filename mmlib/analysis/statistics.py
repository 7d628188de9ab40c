"""Paired effects with intervals, equivalence, orderings and violations of "more is better".

The unit is the test subject, the repeat is the seed. Every subject is scored by every seed, so a score has a part of
its seed, a part of its subject and a rest: two crossed random effects. Their variances come from mean squares (method
of moments), and the variance of a mean over S seeds and n subjects is

    seeds / S + subjects / n + rest / (S n).

The first and last term are what the means of seeds vary by, known with S - 1 degrees of freedom; the second is known
with n - 1. An interval is that variance's root times the mean of both quantiles of Student's t, weighted by the two
variances (Cochran 1964, Biometrics 20:191): with two seeds that differ much it is wide, as it must be.

Coverage of nominal 95 % intervals in the simulation of `tests/analysis/test_statistics.py` (true effect 0, 40
subjects that differ by 6 points, 4,000 trials) is 96 to 97 % for two, three and five seeds that differ by 1.5 or 2.5
points, and not below 93 % over other shares of the three variances. Satterthwaite's degrees of freedom hold 90 to
92 % with two seeds, and resampling two seeds holds 69 % where seeds differ as much as subjects; neither is used. One
seed says nothing about seeds: its interval accounts for subjects alone, and `Effect.resampled` says so.

Ranks and rates of violations have no such form. They are resampled: seeds first, then subjects, the same for every
seed. scipy and statsmodels do the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from mmlib.modalities import combinations, label

DRAWS = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Effect:
    """A difference with its interval.

    Attributes:
        effect: mean over seeds of the per-subject difference.
        low, high: bounds of the interval; NaN where there is none, of one subject.
        p: Wilcoxon signed-rank on seed-averaged per-subject differences, two-sided; NaN where it does not apply.
        n: number of subjects. seeds: number of seeds.
        family_low, family_high: bounds that hold for all effects asked for together (Bonferroni); equal to
            low and high for a single one.
        resampled: what the interval accounts for: "seeds and subjects", "subjects" (one seed only), "seeds", "repeats"
            (of a measurement), or "nothing" (a count, or one subject).
        variances: of the difference, between seeds, between subjects and of the rest; NaN where they are not known.
    """

    effect: float
    low: float
    high: float
    p: float
    n: int
    seeds: int
    family_low: float
    family_high: float
    resampled: str = "seeds and subjects"
    variances: tuple[float, float, float] = (np.nan, np.nan, np.nan)

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


def by_seed_and_case(scores: pd.DataFrame) -> pd.DataFrame:
    """Lay out scores as a table, one row per seed and one column per case; several rows of a pair are averaged.

    Args:
        scores: tidy, with the columns seed, case, value: one method, one target, one or several combinations.

    Raises:
        ValueError: if there are no scores, a value is NaN, or a seed has fewer values for a case than another has.
    """
    if scores.empty:
        raise ValueError("no scores: nothing to compare")
    if scores["value"].isna().any():
        where = scores[scores["value"].isna()].iloc[0].to_dict()
        raise ValueError(f"a value is NaN ({where}): leave undefined values out on both sides, or use another metric")
    (of_seed, seeds), (of_case, cases) = (pd.factorize(scores[name], sort=True) for name in ("seed", "case"))
    pair, shape = of_seed * len(cases) + of_case, (len(seeds), len(cases))
    counts = np.bincount(pair, minlength=len(seeds) * len(cases)).reshape(shape)
    sums = np.bincount(pair, scores["value"].to_numpy(float), minlength=counts.size).reshape(shape)
    table = pd.DataFrame(sums, pd.Index(seeds, name="seed"), pd.Index(np.asarray(cases), name="case"))
    if counts.min() != counts.max():
        row, column = np.unravel_index(counts.argmin(), shape)
        seed, case = table.index[row], table.columns[column]
        raise ValueError(f"seed {seed} has {counts.min()} values for case {case}, other pairs have {counts.max()}")
    return table / counts


def _weights(size: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """(draws, size): how often each unit was drawn, divided by `size`; of a single unit there is nothing to draw."""
    return generator.multinomial(size, np.full(size, 1 / size), size=draws) / size


@lru_cache(maxsize=2)
def _subject_weights(size: int, draws: int, seed: int) -> tuple[np.ndarray, Mapping[str, Any]]:
    """The drawn subjects of a bootstrap, and the generator's state after them; thousands of subjects take seconds."""
    generator = np.random.default_rng(seed)
    return _weights(size, draws, generator), generator.bit_generator.state


def _check(tables: Sequence[pd.DataFrame]) -> None:
    """Raise a ValueError if tables (seeds, cases) hold different cases, no case, or NaN."""
    cases = tables[0].columns
    for table in tables:
        if not table.columns.equals(cases):
            odd = sorted(set(table.columns) ^ set(cases))[:3]
            raise ValueError(f"the arms are not paired: cases such as {odd} have scores on one side only")
        if table.isna().any(axis=None):
            raise ValueError("a table of scores holds NaN: a seed lacks a case")
    if len(cases) == 0:
        raise ValueError("the arms have no case in common: nothing to compare")


def bootstrap_means(tables: Sequence[pd.DataFrame], *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Resample seeds, then subjects, and take the mean of every table.

    Args:
        tables: K tables (seeds, cases) on the same cases. Tables with the same seeds share the drawn seeds (paired),
            others draw their own.
        draws: number of resamplings.
        seed: of the resampling.

    Returns:
        (draws, K) means.

    Raises:
        ValueError: if the tables hold different cases, fewer than two cases, or NaN.
    """
    _check(tables)
    if tables[0].shape[1] < 2:
        raise ValueError(f"subjects cannot be resampled: there is one, {tables[0].columns[0]}; an interval takes two")
    subjects, state = _subject_weights(tables[0].shape[1], draws, seed)
    generator = np.random.default_rng()
    generator.bit_generator.state = state
    drawn: dict[tuple, np.ndarray] = {}
    means = np.empty((draws, len(tables)))
    for column, table in enumerate(tables):
        key = tuple(table.index)
        if key not in drawn:
            drawn[key] = _weights(len(key), draws, generator)
        means[:, column] = ((subjects @ table.to_numpy(float).T) * drawn[key]).sum(axis=1)
    return means


def _rest(values: np.ndarray) -> float:
    """What varies in (seeds, cases) beside seeds and cases: their interaction's mean square."""
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()  # S n
    return float((left**2).sum() / (values.shape[0] - 1) / (values.shape[1] - 1))


def _components(arms: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Variances between seeds, between cases and of the rest, of the sum of arms (seeds, cases) on the same cases.

    Every arm has seeds of its own; between seeds of single-seeded arms the variance is NaN, and so are all of one case.
    """
    cases = arms[0].shape[1]
    if cases == 1:
        return np.nan, np.nan, np.nan
    spread = float(sum(values.mean(axis=0) for values in arms).var(ddof=1))
    if min(map(len, arms)) == 1:
        return np.nan, spread, np.nan
    rests = [_rest(values) for values in arms]
    seeds = sum(
        max(0.0, values.mean(axis=1).var(ddof=1) - rest / cases) for values, rest in zip(arms, rests, strict=True)
    )
    noise = sum(rest / len(values) for values, rest in zip(arms, rests, strict=True))
    return float(seeds), max(0.0, spread - noise), float(sum(rests))


@lru_cache
def _quantile(level: float, df: int) -> float:
    """Of Student's t, two-sided."""
    return float(stats.t.ppf((1 + level) / 2, df))


def _half_width(terms: Sequence[tuple[float, int]], level: float) -> float:
    """Half the interval of a mean whose variance is a sum of terms, each with its degrees of freedom (header)."""
    total = sum(variance for variance, _ in terms)
    if total == 0:
        return 0.0
    return float(sum(variance * _quantile(level, df) for variance, df in terms) / np.sqrt(total))


def _half_widths(
    arms: Sequence[np.ndarray], levels: Sequence[float], pooled: tuple[float, int] | None = None
) -> list[float]:
    """Half the interval of the mean of a sum of arms (seeds, cases) at each level; NaN of one case.

    Args:
        pooled: of a single arm: the variance between seeds and its degrees of freedom, known from elsewhere.
    """
    cases = arms[0].shape[1]
    if cases == 1:
        return [np.nan] * len(levels)
    _, of_cases, _ = _components(arms)
    terms = [(of_cases / cases, cases - 1)]  # variance of the mean, degrees of freedom
    if pooled is not None:
        terms += [(pooled[0] / len(arms[0]), pooled[1])]
    elif min(map(len, arms)) > 1:
        terms += [(values.mean(axis=1).var(ddof=1) / len(values), len(values) - 1) for values in arms]
    return [_half_width(terms, level) for level in levels]


def _arms(first: pd.DataFrame, second: pd.DataFrame) -> list[np.ndarray]:
    """What a difference sums: with the same seeds on both sides the differences, else each side by itself."""
    a, b = first.to_numpy(float), second.to_numpy(float)
    return [a - b] if first.index.equals(second.index) else [a, -b]


def paired_effects(
    pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
    *,
    level: float = LEVEL,
    pooled: tuple[float, int] | None = None,
) -> list[Effect]:
    """How much the first of each pair lies above the second, on the same subjects, with intervals.

    With the same seeds on both sides the arms are paired by seed as well. Where a side has one seed only, the interval
    accounts for subjects alone, and `resampled` says so. Of one subject there is no interval: its bounds and p are NaN.

    Args:
        pairs: tables (seeds, cases), see `by_seed_and_case`; all on the same cases.
        level: coverage of each interval; the family bounds have this coverage for all pairs together.
        pooled: the variance between seeds of these differences, from more places than this (`pooled_variance`); then
            one seed is enough to account for seeds.

    Raises:
        ValueError: if the tables hold different cases, no case, or NaN; if `pooled` is given for sides of other seeds.
    """
    _check([table for pair in pairs for table in pair])
    if pooled is not None and not all(first.index.equals(second.index) for first, second in pairs):
        raise ValueError("a pooled variance between seeds is of differences by seed: both sides need the same seeds")
    effects = []
    for first, second in pairs:
        arms = _arms(first, second)
        mean = float(first.to_numpy().mean() - second.to_numpy().mean())
        half, family = _half_widths(arms, (level, 1 - (1 - level) / len(pairs)), pooled)
        seeds, subjects = min(len(first), len(second)), first.shape[1]
        counted = "subjects" if seeds == 1 and pooled is None else "seeds and subjects"
        effects.append(
            Effect(
                effect=mean,
                low=mean - half,
                high=mean + half,
                p=signed_rank(first.mean() - second.mean()) if subjects > 1 else np.nan,
                n=subjects,
                seeds=seeds,
                family_low=mean - family,
                family_high=mean + family,
                resampled=counted if subjects > 1 else "nothing",
                variances=_components(arms),
            )
        )
    return effects


def pooled_variance(places: Sequence[tuple[pd.DataFrame, pd.DataFrame]]) -> tuple[float, int] | None:
    """How much the mean difference of two arms varies between seeds, from all places in which both were trained.

    The spread is taken to be the same in all of them, as in an analysis of variance: a place with two or three seeds
    hardly knows its own. In 20,000 trials of the simulation of `tests/analysis/test_statistics.py` (13 places, six
    of them with one seed) nominal 95 % intervals hold 95 % where the spread is the same. Where it is 2.1 points in half
    of the places and 5.2 in the others, they hold 93 %: 99.7 and 85.5 %; those of the mean over places hold 94 %.

    Args:
        places: for each, tables (seeds, cases) of both arms with the same seeds.

    Returns:
        The variance and its degrees of freedom; None where no place has two seeds.
    """
    means = [(first - second).mean(axis=1).to_numpy() for first, second in places]
    df = sum(len(values) - 1 for values in means)
    return (float(sum(((values - values.mean()) ** 2).sum() for values in means) / df), df) if df else None


def mean_effect(places: Sequence[tuple[pd.DataFrame, pd.DataFrame]]) -> Effect:
    """How much one arm lies above another in the mean over places, all on the same subjects.

    Networks of different places are different networks, so that seeds vary anew in each; the variance between them is
    pooled. Subjects are the same everywhere. Without any repeated seed the interval accounts for subjects alone.

    Args:
        places: as `pooled_variance`.

    Raises:
        ValueError: if there is no place, or as `paired_effects`.
    """
    if not places:
        raise ValueError("the two arms were trained together nowhere")
    _check([table for pair in places for table in pair])
    pooled = pooled_variance(places)
    by_case = np.mean([(first - second).mean(axis=0).to_numpy() for first, second in places], axis=0)
    effect, cases, half = float(by_case.mean()), len(by_case), np.nan
    if cases > 1:
        terms = [(float(by_case.var(ddof=1)) / cases, cases - 1)]
        if pooled is not None:
            terms += [(pooled[0] * sum(1 / len(first) for first, _ in places) / len(places) ** 2, pooled[1])]
        half = _half_width(terms, LEVEL)
    low, high = effect - half, effect + half
    seeds = max(len(first) for first, _ in places)
    counted = "subjects" if pooled is None else "seeds and subjects"
    p = signed_rank(by_case) if cases > 1 else np.nan
    return Effect(effect, low, high, p, cases, seeds, low, high, counted if cases > 1 else "nothing")


MOST_SEEDS = 100  # that anybody would train


def required(effect: Effect, size: float, *, equivalence: bool = False, level: float = LEVEL) -> tuple[int, int] | None:
    """How many seeds and subjects it would take to tell an effect of a size from none, by the observed variances.

    The power is 80 %. More seeds come first; only where 100 of them would not do are the subjects doubled.

    Args:
        size: of the effect to be told from none; of a margin, that within which equality is to be shown.
        equivalence: whether both ends of the interval must lie inside the margin, where the true effect is 0.
        level: of the interval.

    Returns:
        Seeds and subjects (0 for an effect over seeds alone); None where the variances are not known, or where no
        number of subjects with 100 seeds would do.
    """
    between, subjects, rest = effect.variances
    if not np.isfinite([between, subjects, rest]).all() or size <= 0:
        return None
    seeds = np.arange(2, MOST_SEEDS + 1)
    quantiles = (1 + level) / 2, 0.9 if equivalence else 0.8
    for n in (effect.n * 2**k for k in range(24)):
        of_seeds = (between + (rest / n if n else 0.0)) / seeds
        of_subjects = np.full(len(seeds), subjects / n if n else 0.0)
        reach = np.zeros(len(seeds))
        for quantile in quantiles:
            by_seeds, by_subjects = stats.t.ppf(quantile, seeds - 1), stats.t.ppf(quantile, max(1, n - 1))
            reach += by_seeds * of_seeds + by_subjects * of_subjects
        enough = reach <= size * np.sqrt(of_seeds + of_subjects)
        if enough.any():
            return int(seeds[enough.argmax()]), n
    return None


def signed_rank(differences: Sequence[float] | pd.Series) -> float:
    """Two-sided p of Wilcoxon's signed-rank test on per-subject differences; 1 where every difference is zero."""
    values = np.asarray(differences, dtype=float)
    if not values.any():
        return 1.0
    sizes = np.abs(values)
    if len(values) > 13 or np.isnan(values).any() or len(np.unique(sizes[sizes > 0])) == len(values):
        return float(stats.wilcoxon(values).pvalue)
    # ties or zeros among few: scipy's test tries every sign too, but ranks anew each time, which takes long
    ranks = stats.rankdata(sizes) - np.count_nonzero(sizes == 0)
    tried = stats.permutation_test(
        (values,), lambda signed, axis: np.sum(ranks * (signed > 0), axis), permutation_type="samples", vectorized=True
    )
    return float(tried.pvalue)


def mcnemar(first: Sequence[float] | pd.Series, second: Sequence[float] | pd.Series) -> tuple[int, int, float]:
    """McNemar's test of two classifiers on the same cases, with the mid-p value (Fagerland and others 2013).

    Args:
        first, second: 1 where the case is right, else 0; one seed each.

    Returns:
        Cases that only the first has right, cases that only the second has right, and the two-sided mid-p.

    Raises:
        ValueError: if the two are of different length.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"McNemar's test needs the same cases on both sides; got {a.size} and {b.size}")
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    fewer, total = min(only_first, only_second), only_first + only_second
    p = 2 * stats.binom.cdf(fewer, total, 0.5) - stats.binom.pmf(fewer, total, 0.5)
    return only_first, only_second, min(1.0, float(p))


def seed_effect(values: Sequence[float], reference: float, *, level: float = LEVEL) -> Effect:
    """How much one value per seed lies above a fixed reference, with Student's interval over seeds.

    With a single seed there is no interval: its bounds are infinite.
    """
    differences = np.asarray(values, dtype=float) - reference
    low, high = -np.inf, np.inf
    if len(differences) > 1:
        low, high = DescrStatsW(differences).tconfint_mean(alpha=1 - level)
    mean, low, high = float(differences.mean()), float(low), float(high)
    spread = float(differences.var(ddof=1)) if len(differences) > 1 else np.nan
    return Effect(mean, low, high, np.nan, 0, len(differences), low, high, "seeds", (spread, 0.0, 0.0))


def tost(differences: Sequence[float] | pd.Series, margin: float) -> float:
    """p of two one-sided t tests: small where the mean difference lies within ±`margin` (Schuirmann 1987).

    Raises:
        ValueError: if the margin is not positive or there are fewer than two differences.
    """
    if margin <= 0 or len(differences) < 2:
        raise ValueError(f"equivalence needs a margin above 0 and two differences; got {margin} and {len(differences)}")
    return float(DescrStatsW(np.asarray(differences, dtype=float)).ttost_mean(-margin, margin)[0])


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p values of one family; NaN (not tested) stays NaN and does not count."""
    values = np.asarray(p_values, dtype=float)
    adjusted, tested = np.full(values.shape, np.nan), ~np.isnan(values)
    if tested.any():
        adjusted[tested] = multipletests(values[tested], method="holm")[1]
    return adjusted


def mean_interval(table: pd.DataFrame) -> tuple[float, float, float]:
    """Mean of a table (seeds, cases) and its 95 % interval over both; over cases alone where there is one seed.

    Of one case there is no interval: its bounds are NaN.

    Raises:
        ValueError: as `paired_effects`.
    """
    _check([table])
    values = table.to_numpy(float)
    (half,) = _half_widths([values], [LEVEL])
    return float(values.mean()), float(values.mean()) - half, float(values.mean()) + half


def cell_means(scores: pd.DataFrame) -> pd.DataFrame:
    """The mean of every cell of a results table, with an interval over seeds and subjects.

    Args:
        scores: tidy, one metric; an `arm` per compared method, and available, target, seed, case, value. Undefined
            values (NaN) are left out together with their case, within the cell.

    Returns:
        One row per arm, available and target: mean, low, high (95 %), n, seeds; low and high are NaN where fewer than
        two cases are left.

    Raises:
        ValueError: if a case has two values of one arm, available, target and seed.
    """
    names = ["arm", "available", "target"]
    if scores.duplicated([*names, "seed", "case"]).any():
        raise ValueError("a case has two values of one arm, combination, target and seed: means of one metric only")
    rows = []
    values, seeds, cases = scores["value"].to_numpy(float), *(pd.factorize(scores[key])[0] for key in ("seed", "case"))
    number = scores.groupby(names, sort=False).ngroup().to_numpy()  # a thousand small pandas tables take seconds
    parts = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1]) if len(scores) else []
    cells = scores[names].iloc[[at[0] for at in parts]].itertuples(index=False)
    for cell, at in zip(cells, parts, strict=True):
        (of_seed, seed), (of_case, case) = (np.unique(codes[at], return_inverse=True) for codes in (seeds, cases))
        table = np.full((len(of_seed), len(of_case)), np.nan)
        table[seed, case] = values[at]
        table = table[:, ~np.isnan(table).any(axis=0)]
        mean, half = (table.mean(), _half_widths([table], [LEVEL])[0]) if table.size else (np.nan, np.nan)
        rows.append((*cell, mean, mean - half, mean + half, table.shape[1], len(table)))
    return pd.DataFrame(rows, columns=["arm", "available", "target", "mean", "low", "high", "n", "seeds"])


# ------------------------------------------------------------------------------------------------------ orderings
def rank_distribution(tables: Mapping[str, pd.DataFrame], *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Ranks of methods under resampling; rank 1 has the highest mean, equal means share a rank.

    Args:
        tables: method -> table (seeds, cases), on the same cases.

    Returns:
        One row per method, best first: mean, p_best (ties share), rank (of the observed means), rank_low, rank_high
        (95 % of draws).

    Raises:
        ValueError: as `bootstrap_means`.
    """
    drawn = bootstrap_means(list(tables.values()), draws=draws, seed=seed)
    ranks = stats.rankdata(-drawn, axis=1)
    best = drawn == drawn.max(axis=1, keepdims=True)
    means = np.array([table.to_numpy().mean() for table in tables.values()])
    low, high = np.quantile(ranks, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    result = pd.DataFrame(
        {
            "mean": means,
            "p_best": (best / best.sum(axis=1, keepdims=True)).mean(axis=0),
            "rank": stats.rankdata(-means),
            "rank_low": low,
            "rank_high": high,
        },
        index=pd.Index(tables, name="method"),
    )
    return result.sort_values("rank", kind="stable")


def order_agreement(values: Mapping[str, float], claimed: Sequence[str]) -> float:
    """Kendall's tau between values and a claimed order, best first: 1 the same order, -1 the reverse.

    Raises:
        ValueError: if the claimed names are not the names of the values.
    """
    if sorted(values) != sorted(claimed):
        raise ValueError(f"the claimed order names {sorted(claimed)}, the values are of {sorted(values)}")
    return float(stats.kendalltau([values[name] for name in claimed], -np.arange(len(claimed))).statistic)


def page_trend(table: pd.DataFrame) -> tuple[float, float]:
    """Page's L: does a measure grow along the columns, in most subjects?

    Args:
        table: (subjects, conditions), conditions in the order in which the values are claimed to grow.

    Returns:
        L and its one-sided p.

    Raises:
        ValueError: if a value is NaN.
    """
    if table.isna().any(axis=None):
        raise ValueError("Page's test needs every subject under every condition; the table holds NaN")
    result = stats.page_trend_test(table.to_numpy(float))
    return float(result.statistic), float(result.pvalue)


# ----------------------------------------------------------------------------------------------- more is no worse
def nested_pairs(modalities: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs of combinations of which the second has one modality more; 28 for four modalities, as labels."""
    sets = combinations(modalities)
    return [
        (label(small, modalities), label(large, modalities))
        for small in sets
        for large in sets
        if len(large) == len(small) + 1 and set(small) < set(large)
    ]


@dataclass(frozen=True)
class Violations:
    """How often the larger of two nested combinations scores less.

    Attributes:
        count, pairs: observed violations among nested pairs (over all targets).
        low, high: 95 % interval of the rate under resampling. Noise makes small true gains look like losses, so the
            interval leans upwards; it is no evidence against a rate of 0 by itself.
        worst: the pair that loses most, "t1 -> t1+flair, et"; worst_change: by how much.
    """

    count: int
    pairs: int
    low: float
    high: float
    worst: str
    worst_change: float

    @property
    def rate(self) -> float:
        """Violations divided by pairs."""
        return self.count / self.pairs


def violations(means: pd.DataFrame, modalities: Sequence[str]) -> Violations:
    """Count violations in a table of means, as papers print them; without an interval (its bounds are NaN).

    Args:
        means: index combination labels, columns targets.

    Raises:
        KeyError: if a combination of the modalities is not in the index.
    """
    pairs = nested_pairs(modalities)
    small, large = means.loc[[pair[0] for pair in pairs]], means.loc[[pair[1] for pair in pairs]]
    change = pd.DataFrame(large.to_numpy() - small.to_numpy(), index=range(len(pairs)), columns=means.columns)
    pair, target = change.stack().idxmin()
    worst, worst_change = f"{pairs[pair][0]} -> {pairs[pair][1]}, {target}", float(change.loc[pair, target])
    return Violations(int((change < 0).to_numpy().sum()), change.size, np.nan, np.nan, worst, worst_change)


def violation_rate(
    tables: Mapping[tuple[str, str], pd.DataFrame], modalities: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> Violations:
    """Count violations and resample their rate over seeds and subjects; of one subject there is no interval.

    Args:
        tables: (combination label, target) -> table (seeds, cases), all on the same seeds and cases.

    Raises:
        ValueError: as `bootstrap_means`. KeyError: if a combination is missing for a target.
    """
    keys = list(tables)
    observed = pd.Series({key: tables[key].to_numpy().mean() for key in keys}).unstack()
    counted = violations(observed, modalities)
    if next(iter(tables.values())).shape[1] == 1:
        return counted
    drawn = bootstrap_means(list(tables.values()), draws=draws, seed=seed)
    pairs = [(keys.index((a, t)), keys.index((b, t))) for a, b in nested_pairs(modalities) for t in observed.columns]
    small, large = np.array(pairs).T
    low, high = np.quantile((drawn[:, large] < drawn[:, small]).mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Violations(counted.count, counted.pairs, float(low), float(high), counted.worst, counted.worst_change)


def shared_effect(first: pd.DataFrame, second: pd.DataFrame) -> Effect:
    """How much the first table (seeds, subjects) lies above the second, over the seeds and subjects that both have.

    Raises:
        ValueError: if they share no seed or no subject.
    """
    seeds, cases = first.index.intersection(second.index), first.columns.intersection(second.columns)
    if seeds.empty:
        raise ValueError(f"no common seed: {list(first.index)} and {list(second.index)}")
    return paired_effects([(first.loc[seeds, cases], second.loc[seeds, cases])])[0]


def resampled_effect(differences: Sequence[float], test_over_train: float, *, level: float = LEVEL) -> Effect:
    """The mean of differences over repeats of training and testing, by the corrected resampled t of Nadeau and Bengio.

    Where the repeats are random splits of the same cases, they overlap, and the variance of their mean is no longer
    that of one repeat over J; Nadeau and Bengio (Machine Learning 52, 2003) put (1 / J + n_test / n_train) for 1 / J.

    Args:
        differences: one a repeat, J of them.
        test_over_train: n_test / n_train; 0 for repeats on cases of their own, which gives Student's interval.
        level: coverage of the interval.

    Raises:
        ValueError: if there are fewer than two repeats, one is not a number, or the ratio is negative.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval over repeats needs at least two; got {len(values)}")
    if np.isnan(values).any():
        raise ValueError(
            f"{np.isnan(values).sum()} of {len(values)} differences are no numbers; give repeats that both have"
        )
    if test_over_train < 0:
        raise ValueError(f"test_over_train is n_test / n_train, at least 0; got {test_over_train}")
    error = values.std(ddof=1) * (1 / len(values) + test_over_train) ** 0.5
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    mean = float(values.mean())
    p = float(2 * stats.t.sf(abs(mean) / error, len(values) - 1)) if error > 0 else float(mean == 0)
    low, high = mean - half, mean + half
    return Effect(mean, low, high, p, 0, len(values), low, high, "repeats")
