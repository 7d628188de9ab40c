from pathlib import Path

import pytest
import yaml
from test_claims import level, make

from mmlib.analysis.results import read_runs
from mmlib.analysis.statistics import Effect
from mmlib.ledgers.claims import REAL, STAND_IN, judge
from mmlib.ledgers.differences import effects, page, read_differences
from mmlib.methods import protokd
from mmlib.methods.shaspec import VARIANTS

LEDGER = Path(__file__).parents[2] / "book" / "differences.yml"


def test_every_switch_of_the_method_is_in_the_ledger_and_nothing_else():
    entries = [entry for entry in read_differences(LEDGER) if "contrast" in entry]
    measured = {arm["variant"] for e in entries if e["method"] == "ShaSpec" for arm in e["contrast"]["second"]}
    weights = (VARIANTS["paper"].alpha, VARIANTS["paper"].beta)  # other weights are a claim's business
    switches = {name for name, variant in VARIANTS.items() if (variant.alpha, variant.beta) == weights}
    assert measured == switches - {"paper"}
    taught = [part for e in entries if e["method"] == "ProtoKD" for part in e["contrast"]["parts"]]
    assert {arm["variant"] for part in taught for arm in part["add"] + part["subtract"]} <= set(protokd.VARIANTS)


def test_effects_by_hand(tmp_path):
    make(tmp_path, "shaspec", "paper", level(0.02))
    make(tmp_path, "shaspec", "ring", lambda name, target: level(0.03 if target == "et" else 0.0)(name, target))
    table = effects(read_runs(tmp_path, "quick"), LEDGER)
    ring = table[table["id"].eq("D3") & table["part"].ne("")].set_index("part")["effect"]
    assert ring.to_dict() == pytest.approx({"WT": 2, "TC": 2, "ET": -1})
    shown = page(table).set_index("id")
    assert shown.loc["D3", STAND_IN] == (
        "NOT TESTABLE\nWT +2.0 (+2.0 to +2.0) SHOWN, TC +2.0 (+2.0 to +2.0) SHOWN, ET -1.0 (-1.0 to -1.0) REVERSED "
        "Dice points; n = 5, seeds = 5, segmentation"
    )
    assert "The ledger names no negative control." in shown.loc["D3", "why"]
    assert shown.loc["D1", STAND_IN] == shown.loc["D1", REAL] == "NOT RUN"
    assert shown.loc["D3", "smallest of interest"] == "1 Dice points"
    assert "no run of shaspec first-available with dice in this profile" in shown.loc["D1", "why"]
    assert len(shown) == len(read_differences(LEDGER))


def test_a_method_of_single_modalities_is_compared_on_those_alone(tmp_path):
    taught = {"experiment": "distillation"}
    make(tmp_path, "protokd", "standard", level(0.02), labels=["t1", "t2", "t1ce", "flair"], **taught)
    make(tmp_path, "protokd", "constant", level(-0.01), labels=["t1", "t1ce"], **taught)
    table = effects(read_runs(tmp_path, "quick"), LEDGER)
    assert table.loc[table["id"].eq("D40") & table["part"].ne(""), "effect"].tolist() == pytest.approx([3, 3, 3])


def test_smoke_runs_measure_nothing(tmp_path):
    make(tmp_path, "shaspec", "paper", level(0.02), profile="smoke")
    make(tmp_path, "shaspec", "released", level(0), profile="smoke")
    table = effects(read_runs(tmp_path, "smoke"), LEDGER)
    assert table["judged"].eq("").all() and "smoke profile" in " ".join(table.loc[table["id"] == "D6", "reason"])
    told = effects(read_runs(tmp_path, "smoke"), LEDGER, is_result=True)
    assert told.loc[told["id"].eq("D6") & told["part"].ne(""), "effect"].tolist() == pytest.approx([2, 2, 2])


def test_the_verdict_is_that_of_the_claims_ledger_and_not_read_off_an_interval(tmp_path):
    make(tmp_path, "shaspec", "paper", level(0.005))
    make(tmp_path, "shaspec", "ring", level(0.0))
    table = effects(read_runs(tmp_path, "quick"), LEDGER)
    ring = table[table["id"].eq("D3") & table["part"].ne("")]
    assert (ring["low"] > 0).all() and ring["judged"].eq("ABSENT").all(), "above 0, and below the smallest effect"
    for row in ring.itertuples():
        family = Effect(row.effect, row.low, row.high, 0.5, row.n, row.seeds, row.low, row.high)
        assert judge(family, row.sesoi, row.rule) == row.judged


def test_differences_are_measured_in_other_units_than_dice(tmp_path):
    entry = {**read_differences(LEDGER)[0], "sesoi": 0.25, "unit": "dB"}
    parts = [{"name": "one missing", "add": [{"variant": "paper"}], "subtract": [{"variant": "skips"}]}]
    shared = {"method": "m2dn", "metric": "psnr", "available": "one missing", "target": "all"}
    for side in ("positive_control", "negative_control"):
        entry.pop(side)  # of one contrast, and here are two
    entry["contrast"] = {"statistic": "linear", "scale": 1, "all": shared, "parts": parts}
    elsewhere = {**entry["contrast"], "all": {**shared, "experiment": "nowhere"}}
    for variant, psnr in {"paper": 20.0, "skips": 22.5}.items():
        make(tmp_path, "m2dn", variant, level(0), each=[("one missing", "all", "psnr", psnr)])
    (tmp_path / "d.yml").write_text(
        yaml.safe_dump({"differences": [{**entry, "contrast": [entry["contrast"], elsewhere]}]})
    )
    row = page(effects(read_runs(tmp_path, "quick"), tmp_path / "d.yml")).iloc[0]
    assert row[STAND_IN].startswith(
        "NOT TESTABLE\none missing -2.50 (-2.50 to -2.50) dB; n = 5, seeds = 5, segmentation"
    )
    assert row["smallest of interest"] == "0.25 dB" and "no run of m2dn" in row["why"]


def test_no_row_sends_the_reader_to_a_chapter_where_runs_measure_the_difference():
    reasons = [entry["unmeasured"] for entry in read_differences(LEDGER) if "unmeasured" in entry]
    assert [reason for reason in reasons if "chapter" in reason and ("measure" in reason or "compare" in reason)] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unmeasured": "both"}, "either contrast or unmeasured"),
        ({"topic": None}, "needs"),
        ({"sesoi": None}, r"lacks \['sesoi'\]"),
        ({"contrast": {"statistic": "guessed"}}, "unknown statistic"),
        ({"effect": 1.0}, r"unknown keys \['effect'\]"),
        ({"negative_control": []}, "needs as many of each"),
    ],
)
def test_a_malformed_ledger_is_refused(tmp_path, change, message):
    entry = {key: value for key, value in {**read_differences(LEDGER)[0], **change}.items() if value is not None}
    (tmp_path / "d.yml").write_text(yaml.safe_dump({"differences": [entry]}))
    with pytest.raises(ValueError, match=message):
        read_differences(tmp_path / "d.yml")


def test_an_id_occurs_once(tmp_path):
    (tmp_path / "d.yml").write_text(yaml.safe_dump({"differences": [read_differences(LEDGER)[0]] * 2}))
    with pytest.raises(ValueError, match="twice"):
        read_differences(tmp_path / "d.yml")
