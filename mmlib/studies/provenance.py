"""Where published results come from, and whether they come out again: the page on provenance, and a run made anew."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mmlib.analysis.wording import counted
from mmlib.figures.style import BLUE, GREY, new_figure
from mmlib.published import DIGITS

SEED = re.compile(r"-s\d+")
KEYS = ["run", "variant", "seed", "case", "available", "target", "metric"]


def runs(
    records: Mapping[str, Mapping[str, Any]], changed: Mapping[str, bool], verified: Mapping[str, Any]
) -> pd.DataFrame:
    """A row for each published run: what made it, and whether it still comes out.

    Args:
        records: `<experiment>/<run>` -> record.
        changed: the same names -> whether the code is other code than here.
        verified: of the profile, as `make verify` writes it; empty: nothing was verified here.
    """
    rows = []
    for name, record in records.items():
        seeds = record["seed"]
        rows.append(
            {
                "experiment": record["experiment"],
                "run": record["run"],
                "commit": str(record.get("git_commit", "unknown"))[:10] + ("+" if record.get("git_dirty") else ""),
                "made": str(record.get("written", ""))[:10],
                "device": f"{record['device']}, {record['precision']}",
                "seconds": round(sum(record["seconds"].values())),
                "seeds": " ".join(map(str, seeds)) if isinstance(seeds, list) else str(seeds),
                "code since": "changed" if changed[name] else "the same",
                "losses verified": vouched(record, verified),
            }
        )
    return pd.DataFrame(rows)


def vouched(record: Mapping[str, Any], verified: Mapping[str, Any]) -> str:
    """Whether the first losses of a run's notebook and method came out as published: yes, no, open or not checked."""
    for one in verified.get("outcomes", ()):
        notebook = one["notebook"].removeprefix("train_")
        if one["kind"] == "losses" and (notebook, one["method"]) == (record["task"], record["method"]):
            return {True: "yes", False: "no", None: "open"}[one["passed"]]
    return "not checked"


def said(table: pd.DataFrame, verified: Mapping[str, Any]) -> str:
    """One sentence on the published runs and the last check."""
    if table.empty:
        return "nothing of this profile is published"
    stale = table[table["code since"].eq("changed")]
    text = f"{counted(len(table), 'run')} in {counted(table['experiment'].nunique(), 'experiment')}, "
    text += f"{table['seconds'].sum() / 3600:.1f} hours of computing; the code of {len(stale)} has changed since"
    if not verified:
        return f"{text}; nothing was verified on this machine, `make verify` does it"
    words = [one["passed"] for one in verified["outcomes"]]
    left = f", {words.count(None)} left open" if None in words else ""
    known = stale["losses verified"].eq("yes").sum()
    return (
        f"{text}, and for {known} of those the first losses of their notebook and method come out as published; "
        f"verified on {verified['day']} at commit {verified['commit'][:10]} on {verified['machine']}: "
        f"{words.count(True)} of {counted(len(words), 'check')} passed{left}"
    )


def outcomes(verified: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each check of the last `make verify`, those that failed first, then those left open."""
    rows = [
        {
            "check": one["kind"],
            "run": one["run"],
            "notebook, method": f"{one['notebook']} {one['method']}",
            "": {True: "passed", False: "FAILED", None: "open"}[one["passed"]],
            "what was found": one["text"],
        }
        for one in sorted(verified.get("outcomes", ()), key=lambda one: (str(one["passed"]), one["kind"], one["run"]))
    ]
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------- a run made anew
def beside(published: pd.DataFrame, remade: pd.DataFrame) -> pd.DataFrame:
    """Each score that was made anew beside the published one, both to the digits that are published.

    Args:
        published, remade: scores, with the column `run`.

    Returns:
        The columns of `KEYS`, `published` and `remade`.

    Raises:
        ValueError: if a score was made anew that is not published, or the other way round.
    """
    published = published[published["run"].isin(remade["run"])]
    keyed = [one.assign(**{key: one[key].astype(str) for key in KEYS}) for one in (published, remade)]
    both = keyed[0].merge(keyed[1], "outer", KEYS, indicator=True, suffixes=("_x", "_y"))
    if not both["_merge"].eq("both").all():
        odd = both[both["_merge"].ne("both")].iloc[0]
        raise ValueError(f"the scores are of other cases or arms than the published ones: {odd[KEYS].to_dict()}")
    both = both.rename(columns={"value_x": "published", "value_y": "remade"})[[*KEYS, "published", "remade"]]
    values = both[["published", "remade"]].map(lambda value: float(f"{value:.{DIGITS}g}"))
    return both.assign(**values)


def arms(scores: pd.DataFrame, every: pd.DataFrame) -> pd.DataFrame:
    """Per arm and metric: means, their difference, and the spread of published means between seeds.

    Args:
        scores: as `beside` gives them.
        every: all published scores of the experiment, with the column `run`; its other seeds give the spread.

    Returns:
        Columns arm, metric, runs, published, remade, difference, spread (NaN where there is one seed).
    """
    own, every = (one.assign(arm=_arm(one)) for one in (scores, every))
    spread = every.groupby(["arm", "metric", every["seed"].astype(str)])["value"].mean()
    spread = spread.groupby(["arm", "metric"]).std().rename("spread")
    table = own.groupby(["arm", "metric"], sort=False).agg(
        runs=("run", "nunique"), published=("published", "mean"), remade=("remade", "mean")
    )
    table["difference"] = table["remade"] - table["published"]
    return table.join(spread).reset_index()


def _arm(scores: pd.DataFrame) -> pd.Series:
    """A run without its seed, and its variant where the name does not have it."""
    name = scores["run"].str.replace(SEED, "", regex=True)
    within = [
        variant in one.split("-") or variant in ("", "standard")
        for one, variant in zip(name, scores["variant"], strict=True)
    ]
    return name.where(within, name + " " + scores["variant"])


def scatter(scores: pd.DataFrame) -> Figure:
    """Published scores against those made anew, one panel for each metric; a point on the line is the same."""
    metrics = list(scores.groupby("metric", sort=False))
    figure, grid = new_figure(3.2 * len(metrics), 3.2, 1, len(metrics))
    for axes, (metric, rows) in zip(grid.flat, metrics, strict=True):
        rows = rows.dropna(subset=["published", "remade"])
        axes.axline((rows["published"].mean(), rows["published"].mean()), slope=1, color=GREY, linewidth=1)
        axes.scatter(rows["published"], rows["remade"], s=8, color=BLUE, alpha=0.5, rasterized=True)
        axes.set(title=f"{metric}, n = {len(rows)}", xlabel="published", ylabel="made anew")
    return figure


def verdict(experiment: str, scores: pd.DataFrame, table: pd.DataFrame) -> str:
    """One sentence: how far a published experiment and the same made anew are apart."""
    same = scores["published"].eq(scores["remade"]) | (scores["published"].isna() & scores["remade"].isna())
    begun = f"{experiment}, {counted(scores['run'].nunique(), 'run')} made anew: "
    if same.all():
        return f"{begun}all {len(scores)} scores are equal to the published ones, the difference is zero."
    worst = table.loc[table["difference"].abs().idxmax()]
    text = f"{begun}{(~same).sum()} of {len(scores)} scores differ; the means of an arm by {worst['difference']:+.4g} "
    text += f"at most ({worst['arm']}, {worst['metric']})"
    compared = table[table["spread"] > 0]
    if compared.empty:
        return f"{text}, and one seed gives no spread to hold it against."
    return (
        f"{text}, and by {(compared['difference'].abs() / compared['spread']).max():.2f} of the spread between seeds."
    )
