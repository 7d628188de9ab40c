"""The reverse process of M2DN: steps against quality and time, and what the network predicts on its way; chapter 06.

From the experiment `synthesis-sampling`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmlib.analysis.wording import format_interval
from mmlib.figures.style import GREY, ORANGE, new_figure, styled
from mmlib.studies.synthesis import NAMES, STYLE, Pictures, Study, tile

STAGES = {"untrained": "untrained", "brief": "briefly trained", "fit": "trained", "paper": "as drawn"}


# ------------------------------------------------------------------------------------------------------------- samplers
def samplers(study: Study) -> pd.DataFrame:
    """Every sampler and the one-pass networks of the experiment `synthesis-sampling`, of the first seed.

    Returns:
        Index: the sampler, such as `paper ddim-25`. Columns: name, net (`paper`, `unet`; of one pass: its own name),
        kind (`ddim`, `ancestral`, `one pass`), steps, seconds (of a slice, median), psnr (dB, mean), gain, low, high
        (dB over the longest process of the network; NaN for one pass), memory (MiB; NaN where not measured) and
        subjects (their number).
    """
    part = study.part("synthesis-sampling")
    part = part[part["seed"].eq(part["seed"].min())]
    psnr = part[part["metric"] == "psnr"].groupby("variant")["value"].mean()
    subjects = part[part["metric"] == "psnr"].groupby("variant")["case"].nunique()
    seconds = part[part["metric"] == "sample-seconds"].groupby("variant")["value"].median()
    memory = part[part["metric"] == "peak-mib"].set_index("variant")["value"]
    ends = ["psnr-gain", "psnr-gain-low", "psnr-gain-high"]
    gains = part[part["metric"].isin(ends)].pivot(index="variant", columns="metric", values="value")
    pattern = r"^(?P<net>\w+) (?P<kind>ddim|ancestral)-(?P<steps>\d+)$"
    table = pd.Series(seconds.index, index=seconds.index).str.extract(pattern).dropna().astype({"steps": int})
    order = {"ddim": "a", "ancestral": "b"}
    table = table.sort_values(["net", "kind", "steps"], key=lambda column: column.replace(order))
    names = {"ddim": "DDIM"}
    table["name"] = [
        f"{NAMES[f'm2dn {row.net}']}, {names.get(row.kind, row.kind)}, {row.steps}" for row in table.itertuples()
    ]
    single = [name for name in ("regression", "mm-gan") if name in seconds]
    one_pass = {"net": single, "kind": "one pass", "steps": 1, "name": [NAMES[name] for name in single]}
    table = pd.concat([table, pd.DataFrame(one_pass, index=single)])
    table = table.assign(seconds=seconds, psnr=psnr, memory=memory.reindex(table.index), subjects=subjects)
    gains = gains.reindex(index=table.index, columns=ends).set_axis(["gain", "low", "high"], axis="columns")
    return table.join(gains)


def longest(table: pd.DataFrame) -> dict[str, str]:
    """Network -> its longest ancestral process, of a table as `samplers` returns it."""
    return table[table["kind"] == "ancestral"].groupby("net")["steps"].idxmax().to_dict()


@styled
def pareto(table: pd.DataFrame) -> Figure:
    """PSNR against seconds per slice, a line per network and kind of sampler; of `samplers`."""
    figure, axes = new_figure(7.5, 3.4)
    axis = axes[0, 0]
    for (net, kind), part in table[table["kind"] != "one pass"].groupby(["net", "kind"], sort=False):
        colour, marker = STYLE[f"m2dn {net}"]
        ddim = kind == "ddim"
        look = {"linestyle": "-" if ddim else ":", "markerfacecolor": colour if ddim else "none", "linewidth": 0.8}
        name = f"{NAMES[f'm2dn {net}']}, {'DDIM' if ddim else kind}"
        axis.plot(part["seconds"], part["psnr"], color=colour, marker=marker, label=name, **look)
        for row in part.itertuples():
            at = {"textcoords": "offset points", "xytext": (3, 5 if ddim else -11), "fontsize": 7}
            axis.annotate(row.steps, (row.seconds, row.psnr), **at)
    for name, row in table[table["kind"] == "one pass"].iterrows():
        colour, marker = STYLE[name]
        axis.plot(row["seconds"], row["psnr"], color=colour, marker=marker, linestyle="none", label=NAMES[name])
    axis.set(xscale="log", xlabel="seconds per slice", ylabel="PSNR, dB")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def sampler_table(table: pd.DataFrame) -> pd.DataFrame:
    """`samplers` as the chapter prints it: ratios within one process."""
    reference = table.loc["regression"]
    slowest = table["net"].map(longest(table)).map(table["seconds"])
    rows = table.assign(faster=slowest / table["seconds"])
    return pd.DataFrame(
        {
            "sampler": rows["name"],
            "PSNR, dB": rows["psnr"],
            "minus its longest process, dB": [
                "-" if np.isnan(row.gain) else f"{row.gain:+.2f} ({format_interval(row.low, row.high, 2, '+')})"
                for row in rows.itertuples()
            ],
            "faster than that, times": [_ratio(value, 1) for value in rows["faster"]],
            "time, ratio to regression": [_ratio(value, 1) for value in rows["seconds"] / reference["seconds"]],
            "memory, ratio to regression": [_ratio(value, 2) for value in rows["memory"] / reference["memory"]],
        }
    )


def _ratio(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def printed_cost(published: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Table III, with ratios to MM-GAN."""
    third = published[3].set_index("method")[["seconds", "memory_gb"]]
    ratios = third / third.loc["MM-GAN"]
    return pd.DataFrame(
        {
            "seconds": third["seconds"],
            "time, ratio to MM-GAN": ratios["seconds"].map("{:.1f}".format),
            "memory, ratio to MM-GAN": ratios["memory_gb"].map("{:.2f}".format),
        }
    )


def sampler_facts(table: pd.DataFrame, published: Mapping[int, pd.DataFrame]) -> dict[str, str]:
    """What few steps cost, as texts by name, with the answer to what was asked beforehand.

    Args:
        table: as `samplers` returns it.
    """
    seconds = published[3].set_index("method")["seconds"]
    printed = np.log(seconds["M2DN"] / seconds["MM-GAN"])
    speed, brief, both, likest, gains = [], [], [], [], []
    for net, slowest in longest(table).items():
        name, few, one = NAMES[f"m2dn {net}"], table.loc[f"{net} ddim-25"], table.loc[f"{net} ddim-1"]
        faster = table.loc[slowest, "seconds"] / few["seconds"]
        gains.append(few["gain"])
        both.append(few["gain"] > -0.2 and faster >= 20)
        speed.append(
            f"{name}: {faster:.0f} times as fast as {table.loc[slowest, 'steps']} ancestral steps, "
            f"{few['gain']:+.2f} dB ({format_interval(few['low'], few['high'], 2, '+')})"
        )
        brief.append(f"{few['gain']:+.2f} dB with 25 steps, {one['gain']:+.2f} dB with one ({name})")
        ddim = table[table["net"].eq(net) & table["kind"].eq("ddim")]
        distance = (np.log(ddim["seconds"] / table.loc["mm-gan", "seconds"]) - printed).abs()
        likest.append(f"{ddim.loc[distance.idxmin(), 'steps']} steps ({name})")
    return {
        "few_steps": "; ".join(speed),
        "asked_of_steps": "both hold, for both networks" if all(both) else "that does not hold for both networks",
        "like_printed": " and ".join(likest),
        "few_headline": "Few steps do" if min(gains) > -0.2 else "Few steps may cost quality",
        "few_brief": " and by ".join(brief),
        "most_steps": f"{table['steps'].max()}",
    }


# ------------------------------------------------------------------------------------------------------ reverse process
@styled
def reverse_process(strips: Pictures, target: str) -> Figure:
    """States and predictions of the reverse process at six times, for networks trained for ever longer."""
    times = strips[f"t {target}"]
    wanted = np.unique(np.linspace(0, len(times) - 1, 6).round().astype(int))
    rows = [(stage, "images") for stage in ("untrained", "brief")]
    rows += [(stage, kind) for stage in ("fit", "paper") for kind in ("images", "predicted")]
    figure, axes = new_figure(9, 8.2, len(rows), len(wanted) + 1)
    for row, (stage, kind) in enumerate(rows):
        for column, step in enumerate(wanted):
            image = strips[f"{stage} {target} {kind}"][step]
            tile(axes[row, column], image, f"t = {times[step]}" if row == 0 else "", -1.5, 1.5)
        tile(axes[row, -1], strips[f"truth {target}"], "true" if row == 0 else "", -1.5, 1.5)
        axes[row, 0].set_ylabel(f"{STAGES[stage]}\n{'state' if kind == 'images' else 'prediction'}")
    return figure


def error_by_time(study: Study) -> pd.DataFrame:
    """Squared error of the predicted missing image; rows: time t, columns: the U-Net ever longer trained, as drawn."""
    part = study.part("synthesis-sampling")
    errors = part[part["metric"].str.startswith("mse-t")]
    errors = errors.assign(t=errors["metric"].str[5:].astype(int))
    return (
        errors.groupby(["variant", "t"])["value"]
        .mean()
        .unstack(0)
        .rename(columns={"paper": "as drawn"})[list(STAGES.values())]
    )


@styled
def loss_by_time(errors: pd.DataFrame) -> Figure:
    """`error_by_time` as lines on a logarithmic scale."""
    figure, axes = new_figure(6.5, 3)
    looks = ((GREY, "X"), (ORANGE, "D"), STYLE["m2dn unet"], STYLE["m2dn paper"])
    for name, (colour, marker) in zip(errors.columns, looks, strict=True):
        axes[0, 0].plot(errors[name], color=colour, marker=marker, label=name)
    axes[0, 0].set(xlabel="time t", ylabel="squared error of the missing image", yscale="log")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def use_of_noise(errors: pd.DataFrame) -> dict[str, str]:
    """Whether the trained networks use the noisy image, as texts by name; of `error_by_time`."""
    ratio = errors.iloc[-1] / errors.iloc[0]
    ignored = (
        "As drawn, the network does not look at the noisy image at all, not even where it is nearly clean: nothing "
        "finer than the bottleneck comes through, and the reverse process is regression in many steps."
    )
    return {
        "rise": f"{ratio['as drawn']:.1f}",
        "rise_unet": f"{ratio['trained']:.1f}",
        "noise_as_drawn": ignored if ratio["as drawn"] < 1.1 else "As drawn, the network uses the noisy image.",
        "noise_with_unet": "The U-Net uses it." if ratio["trained"] > 1.5 else "The U-Net hardly uses it either.",
    }
