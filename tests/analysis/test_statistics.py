import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmlib.analysis import statistics
from mmlib.analysis.statistics import (
    Effect,
    bootstrap_means,
    by_seed_and_case,
    cell_means,
    holm,
    mcnemar,
    mean_effect,
    mean_interval,
    nested_pairs,
    order_agreement,
    page_trend,
    paired_effects,
    pooled_variance,
    rank_distribution,
    required,
    resampled_effect,
    seed_effect,
    shared_effect,
    signed_rank,
    tost,
    violation_rate,
    violations,
)
from mmlib.modalities import MRI


def table(values, seeds=None):
    values = np.atleast_2d(np.asarray(values, dtype=float))
    return pd.DataFrame(
        values, index=seeds or range(len(values)), columns=[f"c{i:02d}" for i in range(values.shape[1])]
    )


def paired_effect(first, second, **options):
    return paired_effects([(first, second)], **options)[0]


def tidy(rows):
    return pd.DataFrame(rows, columns=["seed", "case", "value"])


def test_by_seed_and_case_averages_combinations():
    laid = by_seed_and_case(tidy([(0, "a", 0.2), (0, "a", 0.4), (0, "b", 1.0), (0, "b", 0.0)]))
    assert laid.loc[0].to_dict() == pytest.approx({"a": 0.3, "b": 0.5})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no scores"),
        ([(0, "a", 1.0), (0, "b", np.nan)], "NaN.*'b'"),
        ([(0, "a", 1.0), (0, "b", 1.0), (1, "a", 1.0)], "seed 1 has 0 values for case b"),
    ],
)
def test_incomplete_scores_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        by_seed_and_case(tidy(rows))


def test_effect_by_hand():
    # differences: seed 0: 1, 3; seed 1: 2, 5 -> means of seeds 2 and 3.5, of subjects 1.5 and 4; mean 2.75
    effect = paired_effect(table([[2, 4], [3, 6]]), table([[1, 1], [1, 1]]))
    assert effect.effect == 2.75 and (effect.n, effect.seeds) == (2, 2)
    # rest: 1 - 2 - 1.5 + 2.75 = 0.25 up to sign in all four places; its mean square is 4 * 0.0625 / (1 * 1) = 0.25
    # seeds: variance 1.125 of means, of which rest 0.25 / 2; subjects: 3.125, of which 0.25 / 2
    assert effect.variances == pytest.approx((1.0, 3.0, 0.25))
    # variance of the mean: 1.125 / 2 by seeds, 3 / 2 by subjects, one degree of freedom each
    assert effect.half_width == pytest.approx(stats.t.ppf(0.975, 1) * np.sqrt(1.125 / 2 + 3 / 2))
    assert effect.p == pytest.approx(0.5)  # two subjects, both positive: 2 of 4 sign patterns


def test_quantiles_are_weighted_by_the_variances_they_belong_to():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3, 1)) + 4 * generator.normal(size=(1, 20)) + generator.normal(size=(3, 20))
    effect = paired_effect(table(values), table(np.zeros((3, 20))))
    by_seeds = values.mean(axis=1).var(ddof=1) / 3
    by_subjects = effect.variances[1] / 20
    quantile = (by_seeds * stats.t.ppf(0.975, 2) + by_subjects * stats.t.ppf(0.975, 19)) / (by_seeds + by_subjects)
    assert effect.half_width == pytest.approx(quantile * np.sqrt(by_seeds + by_subjects))
    alone = paired_effect(table(values[:1]), table(np.zeros((1, 20))))
    assert alone.half_width == pytest.approx(stats.t.ppf(0.975, 19) * values[0].std(ddof=1) / np.sqrt(20))
    assert mean_interval(table(values)) == pytest.approx((effect.effect, effect.low, effect.high))


def test_a_constant_difference_has_an_interval_of_no_width():
    effect = paired_effect(table([[0.5, 0.7, 0.9]]) + 0.25, table([[0.5, 0.7, 0.9]]))
    assert (effect.low, effect.high) == pytest.approx((0.25, 0.25)) and effect.half_width == pytest.approx(0)


def test_the_bootstrap_meets_the_exact_distribution():
    # two subjects, one seed: the drawn mean is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4
    drawn = bootstrap_means([table([[0, 1]])], draws=40_000, seed=1)[:, 0]
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [0, 0.5, 1] and counts / 40_000 == pytest.approx([0.25, 0.5, 0.25], abs=0.01)


def test_drawn_seeds_meet_the_same_drawn_subjects():
    # values depend on the subject only: with crossed resampling more seeds do not narrow the interval
    subjects = np.arange(10.0)
    one = bootstrap_means([table([subjects])], seed=3)
    many = bootstrap_means([table([subjects] * 8)], seed=3)
    assert np.allclose(one, many)


def test_pairing_by_seed_removes_what_seeds_share():
    generator = np.random.default_rng(0)
    shared = generator.normal(0, 5, (4, 1)) + generator.normal(0, 1, (4, 30))
    paired = paired_effect(table(shared + 1), table(shared))
    apart = paired_effect(table(shared + 1, [0, 1, 2, 3]), table(shared, [4, 5, 6, 7]))
    assert paired.half_width == pytest.approx(0, abs=1e-9)
    assert apart.effect == pytest.approx(paired.effect) and apart.half_width > 1


def test_one_seed_is_said():
    effect = paired_effect(table([[1, 2, 4, 8, 16, 32, 64]]), table([[1] * 7]))
    assert effect.resampled == "subjects" and effect.seeds == 1 and np.isnan(effect.variances[0])
    both = paired_effect(table([[1, 2], [2, 3]]), table([[0, 0], [0, 0]]))
    assert both.resampled == "seeds and subjects"
    mixed = paired_effect(table([[1, 2], [2, 3]]), table([[0, 0.5]]))
    assert mixed.resampled == "subjects" and mixed.seeds == 1


def test_unpaired_subjects_and_nan_are_refused():
    with pytest.raises(ValueError, match="c02"):
        paired_effect(table([[1, 2, 3]]), table([[1, 2]]))
    with pytest.raises(ValueError, match="NaN"):
        paired_effect(table([[1, np.nan]]), table([[1, 2]]))
    with pytest.raises(ValueError, match="no case in common"):
        paired_effect(table([[]]), table([[]]))


def test_of_one_subject_there_is_a_difference_and_no_interval():
    effect = paired_effect(table([[3.0], [4.0]]), table([[1.0], [1.0]]))
    assert effect.effect == pytest.approx(2.5) and (effect.n, effect.seeds) == (1, 2)
    assert np.isnan([effect.low, effect.high, effect.family_low, effect.family_high, effect.p]).all()
    assert effect.resampled == "nothing" and np.isnan(effect.variances).all()
    mean, low, high = mean_interval(table([[3.0], [4.0]]))
    assert mean == pytest.approx(3.5) and np.isnan([low, high]).all()
    with pytest.raises(ValueError, match="there is one, "):
        bootstrap_means([table([[1]])])


def test_of_one_subject_violations_are_counted_without_an_interval():
    values = {("t1", "wt"): 0.5, ("t2", "wt"): 0.6, ("t1+t2", "wt"): 0.55}
    counted = violation_rate({key: table([[value]]) for key, value in values.items()}, ("t1", "t2"))
    assert (counted.count, counted.pairs) == (1, 2) and np.isnan([counted.low, counted.high]).all()


def test_family_bounds_hold_for_all_pairs_together():
    first, second = table([range(12), range(1, 13)]), table([[3] * 12, [4] * 12])
    alone, (one, _, _) = paired_effect(first, second), paired_effects([(first, second)] * 3)
    assert (alone.family_low, alone.family_high) == (alone.low, alone.high)
    assert (one.low, one.high) == (alone.low, alone.high)
    assert one.family_low < one.low and one.high < one.family_high
    wider = paired_effect(first, second, level=1 - 0.05 / 3)
    assert (wider.low, wider.high) == pytest.approx((one.family_low, one.family_high))


def simulated(seeds, between, subjects=6.0, rest=0.0, cases=40, trials=1000):
    """Mean and interval of trials whose true effect is 0: an array (trials, 3)."""
    generator = np.random.default_rng(int(10 * between) + seeds)
    shape = {"seeds": (trials, seeds, 1), "subjects": (trials, 1, cases), "rest": (trials, seeds, cases)}
    parts = {"seeds": between, "subjects": subjects, "rest": rest}
    drawn = sum(deviation * generator.normal(size=shape[name]) for name, deviation in parts.items())
    return np.array([mean_interval(pd.DataFrame(values)) for values in drawn])


def held(intervals):
    return ((intervals[:, 1] <= 0) & (intervals[:, 2] >= 0)).mean()


@pytest.mark.parametrize("between", [1.5, 2.5])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds, between):
    assert held(simulated(seeds, between)) >= 0.93


@pytest.mark.parametrize(("subjects", "rest"), [(6, 3), (4, 6), (1, 6)])
def test_intervals_hold_the_truth_where_seeds_and_subjects_interact(subjects, rest):
    for seeds, between in ((2, 0.0), (2, 2.5), (5, 1.5)):
        assert held(simulated(seeds, between, subjects, rest)) >= 0.93


def test_one_seed_accounts_for_subjects_alone_and_holds_the_truth_too_rarely():
    assert held(simulated(1, 2.5)) < 0.65


def drawn_places(deviations, generator, seeds=(1,) * 6 + (3,) * 7, cases=40):
    """Two arms in 13 places, the true difference 0, as in the map of chapter 09; subjects are the same everywhere."""
    subjects = 3 * generator.normal(size=cases)
    found = []
    for number, deviation in zip(seeds, deviations, strict=True):
        difference = (
            deviation * generator.normal(size=(number, 1)) + subjects + 2 * generator.normal(size=(number, cases))
        )
        found.append((table(difference), table(np.zeros((number, cases)))))
    return found


@pytest.mark.parametrize(
    ("deviations", "least"), [([3.0] * 13, 0.93), ([2.1, 5.2] * 6 + [3.0], 0.9)], ids=["alike", "unlike"]
)
def test_a_pooled_spread_of_seeds_holds_the_truth_as_often_as_it_says(deviations, least):
    generator = np.random.default_rng(2)
    hits = []
    for _ in range(100):
        places = drawn_places(deviations, generator)
        pooled = pooled_variance(places)
        some = [paired_effects([places[number]], pooled=pooled)[0] for number in (0, 1, 6, 7)]  # one seed, three seeds
        assert pooled[1] == 14 and {effect.resampled for effect in some} == {"seeds and subjects"}
        hits.append([effect.low <= 0 <= effect.high for effect in (*some, mean_effect(places))])
    assert np.mean(hits) >= least


def test_a_pooled_spread_and_the_mean_over_places_by_hand():
    one = table([[1, 3], [3, 5]]), table([[0, 0], [0, 0]])  # means of seeds: 2 and 4, their variance 2
    two = table([[4, 6]]), table([[0, 0]])
    assert pooled_variance([one, two]) == (2.0, 1) and pooled_variance([two]) is None
    effect = mean_effect([one, two])
    # cases: (2 + 4) / 2 and (4 + 6) / 2, whose mean varies by 2 / 2; seeds: 2 * (1 / 2 + 1) / 4
    assert effect.effect == 4 and (effect.seeds, effect.resampled) == (2, "seeds and subjects")
    assert effect.half_width == pytest.approx(stats.t.ppf(0.975, 1) * np.sqrt(1 + 0.75))
    assert mean_effect([two]).resampled == "subjects"
    with pytest.raises(ValueError, match="trained together nowhere"):
        mean_effect([])
    unpaired = (one[0], one[1].set_axis([5, 6]))
    with pytest.raises(ValueError, match="both sides need the same seeds"):
        paired_effects([unpaired], pooled=(2.0, 1))


def test_variances_are_estimated_without_bias():
    generator = np.random.default_rng(0)
    found = []
    for _ in range(300):
        values = 2.5 * generator.normal(size=(5, 1)) + 6 * generator.normal(size=(1, 40))
        values = values + 3 * generator.normal(size=(5, 40))
        found.append(paired_effect(table(values), table(np.zeros((5, 40)))).variances)
    assert np.mean(found, axis=0) == pytest.approx((2.5**2, 36, 9), rel=0.1)


def known(variances, n=40, seeds=2):
    return Effect(0.0, -1.0, 1.0, np.nan, n, seeds, -1.0, 1.0, variances=variances)


def power(seeds, cases, size, between, subjects):
    return (simulated(seeds, between, subjects, cases=cases)[:, 1] + size > 0).mean()


def test_the_seeds_that_it_would_take_give_the_power_that_was_asked_for():
    seeds, n = required(known((2.25, 4.0, 0.0)), 2.0)
    assert n == 40 and 5 <= seeds <= 12
    assert power(seeds, n, 2.0, 1.5, 2.0) >= 0.75, "80 % by the formula; that of 1,000 trials has an error of 1.3 %"
    assert power(max(2, seeds // 2), n, 2.0, 1.5, 2.0) < 0.75
    assert (
        required(known((2.25, 4.0, 0.0)), 1.0)[0] > seeds < required(known((2.25, 4.0, 0.0)), 2.0, equivalence=True)[0]
    )


def test_where_seeds_alone_cannot_do_it_takes_more_subjects():
    # 36 / 40 alone is a standard error of 0.95, and an effect of 1 needs one below 1 / 2.8
    seeds, n = required(known((0.25, 36.0, 0.0)), 1.0)
    assert n == 320 and seeds <= 100
    assert required(known((2500.0, 36.0, 0.0)), 1.0) is None, "seeds that differ by 50 points need more than 100"
    assert required(known((np.nan, 36.0, np.nan)), 1.0) is None, "one seed says nothing about seeds"
    assert required(seed_effect([0.1, 0.5, 0.3], 0.0), 0.2)[1] == 0


def test_signed_rank_by_hand():
    assert signed_rank([0.0, 0.0]) == 1
    assert signed_rank([1, 2, 3, 4, 5]) == pytest.approx(2 / 2**5)  # all positive: the rarest of 32 patterns, two-sided
    assert signed_rank([1, -2, 3, -4, 5]) == stats.wilcoxon([1, -2, 3, -4, 5]).pvalue
    # both of |d| = 1 have the rank 1.5, and 0 has none: of the 8 signs of (1.5, 1.5, 3) two are as far out
    assert signed_rank([1, 1, 2, 0]) == pytest.approx(2 / 2**3)
    for tied in ([1, 1, -1, 2, 0, 3], [0.5] * 13, [0, 0, -2, 2, 2], [*range(6), *range(6), 1, 1]):
        assert signed_rank(tied) == stats.wilcoxon(tied).pvalue
    assert np.isnan(signed_rank([1, 1, np.nan])), "what is not known is not left out in silence"


def test_holm_by_hand_and_nan_is_not_counted():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, np.nan, 0.04]) == pytest.approx([0.02, np.nan, 0.04], nan_ok=True)
    assert np.isnan(holm([np.nan])).all()


def test_tost_by_hand():
    differences = np.array([-0.1, 0.0, 0.1, 0.2])
    mean, error = differences.mean(), differences.std(ddof=1) / 2
    expected = max(stats.t.sf((mean + 0.5) / error, 3), stats.t.cdf((mean - 0.5) / error, 3))
    assert tost(differences, 0.5) == pytest.approx(expected)
    assert tost(differences, 0.06) > 0.4
    for wrong in (dict(margin=0), dict(margin=-1)):
        with pytest.raises(ValueError, match="margin"):
            tost(differences, **wrong)
    with pytest.raises(ValueError, match="two differences"):
        tost([0.1], 0.5)


def test_seed_effect_is_students_interval():
    effect = seed_effect([0.3, 0.35, 0.25], 0.25)
    half = stats.t.ppf(0.975, 2) * 0.05 / np.sqrt(3)
    assert (effect.effect, effect.low, effect.high) == pytest.approx((0.05, 0.05 - half, 0.05 + half))
    assert (effect.seeds, effect.resampled) == (3, "seeds")
    alone = seed_effect([0.3], 0.25)
    assert np.isinf(alone.half_width)


def test_cell_means_leave_out_undefined_cases():
    rows = [("a", "t1", "wt", s, c, v) for s in (0, 1) for c, v in (("x", 0.2), ("y", 0.4), ("z", 0.9))]
    rows += [("a", "t1", "et", 0, "x", 0.5), ("a", "t1", "et", 0, "y", np.nan)]
    scores = pd.DataFrame(rows, columns=["arm", "available", "target", "seed", "case", "value"])
    scores.loc[2, "value"] = np.nan  # z of seed 0: z is left out for both seeds
    cells = cell_means(scores)
    assert cells["mean"].tolist() == pytest.approx([0.3, 0.5])
    assert cells[["n", "seeds"]].to_numpy().tolist() == [[2, 2], [1, 1]]
    half = stats.t.ppf(0.975, 1) * 0.1  # both seeds agree, so subjects alone vary
    assert cells.loc[0, ["low", "high"]].tolist() == pytest.approx([0.3 - half, 0.3 + half])
    assert cells.loc[1, ["low", "high"]].isna().all()
    assert cell_means(scores[:0]).empty
    with pytest.raises(ValueError, match="two values of one arm"):
        cell_means(pd.concat([scores, scores[:1]]))


def test_ranks():
    sure = rank_distribution({"low": table([[0.1, 0.2, 0.1]]), "high": table([[0.8, 0.9, 0.7]])}, draws=500)
    assert sure.index.tolist() == ["high", "low"]
    assert sure["p_best"].tolist() == [1, 0] and sure["rank_high"].tolist() == [1, 2]
    equal = rank_distribution({"a": table([[0.1, 0.5]]), "b": table([[0.1, 0.5]])}, draws=500)
    assert equal["p_best"].tolist() == [0.5, 0.5] and equal["rank"].tolist() == [1.5, 1.5]
    even = rank_distribution({"a": table([[0.0, 1.0]]), "b": table([[1.0, 0.0]])}, draws=20_000)
    assert even["p_best"].tolist() == pytest.approx([0.5, 0.5], abs=0.02)


def test_order_agreement():
    assert order_agreement({"a": 3, "b": 2, "c": 1}, ["a", "b", "c"]) == 1
    assert order_agreement({"a": 3, "b": 2, "c": 1}, ["c", "b", "a"]) == -1
    assert order_agreement({"a": 3, "b": 2, "c": 1}, ["a", "c", "b"]) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="claimed order"):
        order_agreement({"a": 3}, ["b"])


def test_page_trend_by_hand():
    # ranks 1, 2, 3 in both subjects: L = 2 * (1*1 + 2*2 + 3*3); one of 36 orders reaches it
    statistic, p = page_trend(pd.DataFrame([[0.1, 0.2, 0.3], [0.5, 0.6, 0.9]]))
    assert statistic == 28 and p == pytest.approx(1 / 36)
    with pytest.raises(ValueError, match="NaN"):
        page_trend(pd.DataFrame([[0.1, np.nan]]))


def test_nested_pairs():
    pairs = nested_pairs(MRI)
    assert len(pairs) == 28 and len(set(pairs)) == 28
    assert nested_pairs(("t1", "t2")) == [("t1", "t1+t2"), ("t2", "t1+t2")]


def test_violations_by_hand():
    means = pd.DataFrame({"wt": [0.5, 0.7, 0.6], "et": [0.1, 0.2, 0.2]}, index=["t1", "t2", "t1+t2"])
    found = violations(means, ("t1", "t2"))
    assert (found.count, found.pairs, found.rate) == (1, 4, 0.25)
    assert found.worst == "t2 -> t1+t2, wt" and found.worst_change == pytest.approx(-0.1)
    with pytest.raises(KeyError, match="flair"):
        violations(means, ("t1", "flair"))


def test_violation_rate_with_interval():
    tables = {
        ("t1", "wt"): table([[0.1, 0.2]]),
        ("t2", "wt"): table([[0.5, 0.6]]),
        ("t1+t2", "wt"): table([[0.3, 0.4]]),
    }
    sure = violation_rate(tables, ("t1", "t2"), draws=500)
    assert (sure.rate, sure.low, sure.high) == (0.5, 0.5, 0.5)
    tables["t2", "wt"] = table([[0.2, 0.6]])  # above by 0.2 in one subject, below by 0.1 in the other
    unsure = violation_rate(tables, ("t1", "t2"), draws=500)
    assert (unsure.rate, unsure.low, unsure.high) == (0.5, 0, 0.5)


def test_violation_rate_agrees_with_naive_counting():
    generator = np.random.default_rng(4)
    labels = sorted(set(itertools.chain(*nested_pairs(MRI))))
    tables = {(name, region): table(generator.random((2, 6))) for name in labels for region in ("wt", "et")}
    naive = sum(
        tables[large, region].to_numpy().mean() < tables[small, region].to_numpy().mean()
        for small, large in nested_pairs(MRI)
        for region in ("wt", "et")
    )
    found = violation_rate(tables, MRI, draws=200)
    assert (found.count, found.pairs) == (naive, 56) and found.low <= found.high
    assert statistics.DRAWS == 10_000


def test_mcnemar_counts_discordant_cases_and_halves_the_middle():
    first, second = [1, 1, 1, 1, 0, 1, 0], [0, 0, 0, 0, 1, 1, 0]
    # 4 against 1: exact two-sided 12/32, less the probability 5/32 of the observed
    assert mcnemar(first, second) == (4, 1, pytest.approx(12 / 32 - 5 / 32))
    assert mcnemar(first, first) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="same cases"):
        mcnemar([1], [1, 0])


def test_arms_are_compared_over_the_seeds_and_subjects_that_both_have() -> None:
    first = pd.DataFrame([[2.0, 3.0, 9.0], [4.0, 5.0, 9.0]], index=[0, 1], columns=["a", "b", "x"])
    second = pd.DataFrame([[1.0, 1.0]], index=[1], columns=["b", "a"])
    effect = shared_effect(first, second)
    assert effect.effect == pytest.approx(3.5) and (effect.n, effect.seeds) == (2, 1)


def test_arms_without_a_common_seed_are_not_compared() -> None:
    table = pd.DataFrame([[1.0, 2.0]], columns=["a", "b"])
    with pytest.raises(ValueError, match="no common seed"):
        shared_effect(table, table.set_axis([7]))


def test_repeats_that_overlap_have_the_interval_of_nadeau_and_bengio():
    # mean 2, sd 1, J 3, n_test / n_train 2/3: error sqrt(1/3 + 2/3) = 1; t of 2 degrees of freedom 4.302653
    effect = resampled_effect([1, 2, 3], 2 / 3)
    assert (effect.effect, effect.low, effect.high) == pytest.approx((2, 2 - 4.302653, 2 + 4.302653), abs=1e-5)
    assert effect.p == pytest.approx(2 * stats.t.sf(2, 2)) and effect.seeds == 3


def test_repeats_that_do_not_overlap_have_the_interval_of_student():
    values = [1.0, 2.5, 3.0, 0.5]
    ours, students = resampled_effect(values, 0), seed_effect(values, 0)
    assert (ours.low, ours.high) == pytest.approx((students.low, students.high))
    assert resampled_effect([2, 2], 0).p == 0 and resampled_effect([0, 0], 0).p == 1


def test_one_repeat_has_no_interval():
    with pytest.raises(ValueError, match="at least two; got 1"):
        resampled_effect([1.0], 0.5)
    with pytest.raises(ValueError, match="at least 0; got -1"):
        resampled_effect([1.0, 2.0], -1)
    with pytest.raises(ValueError, match="1 of 3 differences are no numbers"):
        resampled_effect([1.0, float("nan"), 2.0], 0)


def test_intervals_over_splits_of_one_sample_hold_the_truth_only_when_corrected():
    """Two constant guesses of noise, on splits of 60 cases: the true difference is 0."""
    held = {0.0: 0, 0.5: 0}
    for trial in range(200):
        generator = np.random.default_rng(trial)
        cases = generator.normal(size=60)
        differences = [generator.choice(cases, 20, replace=False).mean() for _ in range(10)]
        for ratio in held:
            effect = resampled_effect(differences, ratio)
            held[ratio] += effect.low <= 0 <= effect.high
    assert held[0.5] / 200 > 0.9 > 0.85 > held[0.0] / 200
