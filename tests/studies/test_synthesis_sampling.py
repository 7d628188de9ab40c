"""The reverse process of M2DN in tables and figures, on made-up scores."""

from __future__ import annotations

import pandas as pd

from mmlib.analysis.results import Results
from mmlib.studies import synthesis_sampling as sampling
from mmlib.studies.synthesis import Study, read_study

CASES = ("a", "b", "c")


def cost_scores() -> Study:
    values = {  # variant -> seconds, PSNR
        "paper ddim-1": (1.0, 20.0),
        "paper ddim-25": (25.0, 21.0),
        "paper ancestral-1000": (1000.0, 21.1),
        "regression": (0.5, 22.0),
        "mm-gan": (0.5, 19.0),
    }
    rows = []
    for variant, (seconds, psnr) in values.items():
        facts = {"sample-seconds": seconds, "psnr": psnr}
        if "ddim" in variant:
            facts |= {"psnr-gain": psnr - 21.1, "psnr-gain-low": psnr - 21.2, "psnr-gain-high": psnr - 21.0}
        for metric, value in facts.items():
            rows += [
                {"experiment": "synthesis-sampling", "run": "cost", "method": "m2dn", "variant": variant}
                | {"seed": 0, "case": case, "available": "", "target": "t1", "metric": metric, "value": value}
                for case in (CASES if metric == "psnr" else CASES[:1])
            ]
    rows += [
        {"experiment": "synthesis-sampling", "run": "cost", "method": "m2dn", "variant": "regression", "seed": 0}
        | {"case": "a", "available": "", "target": "t1", "metric": "peak-mib", "value": 8.0}
    ]
    records = pd.DataFrame([{"experiment": "synthesis-sampling", "run": "cost", "stand_in": True}])
    return read_study(Results(records, pd.DataFrame(rows)))


def test_samplers_are_read_from_their_names_and_compared_with_the_longest() -> None:
    table = sampling.samplers(cost_scores())
    assert sampling.longest(table) == {"paper": "paper ancestral-1000"}
    assert table.loc["paper ddim-25", "name"] == "M2DN, as drawn, DDIM, 25" and table["subjects"].eq(3).all()
    printed = sampling.sampler_table(table)
    assert printed.loc["paper ddim-25", "faster than that, times"] == "40.0"
    assert printed.loc["regression", "minus its longest process, dB"] == "-"
    assert printed.loc["regression", "memory, ratio to regression"] == "1.00"
    third = pd.DataFrame({"method": ["MM-GAN", "M2DN"], "seconds": [0.1, 1.5], "memory_gb": [1.0, 2.5]})
    facts = sampling.sampler_facts(table, {3: third})
    assert facts["asked_of_steps"] == "both hold, for both networks" and facts["most_steps"] == "1000"
    assert facts["like_printed"] == "25 steps (M2DN, as drawn)"
    assert sampling.printed_cost({3: third}).loc["M2DN", "time, ratio to MM-GAN"] == "15.0"


def test_a_network_whose_error_does_not_rise_ignores_the_noise() -> None:
    errors = pd.DataFrame({"untrained": [1, 1], "trained": [0.1, 0.5], "as drawn": [0.5, 0.5]}, index=[1, 1000])
    facts = sampling.use_of_noise(errors)
    assert "does not look at the noisy image" in facts["noise_as_drawn"]
    assert facts["noise_with_unet"] == "The U-Net uses it." and facts["rise_unet"] == "5.0"
