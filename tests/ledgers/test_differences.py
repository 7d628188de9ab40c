from pathlib import Path

import pytest
import yaml
from test_claims import level, make

from mmlib.analysis.results import read_runs
from mmlib.ledgers.differences import effects, page, read_differences
from mmlib.methods import protokd
from mmlib.methods.shaspec import VARIANTS

LEDGER = Path(__file__).parents[2] / "book" / "differences.yml"


def test_every_switch_of_the_method_is_in_the_ledger_and_nothing_else():
    contrasts = [entry["contrast"] for entry in read_differences(LEDGER) if "contrast" in entry]
    measured = {contrast["variant"] for contrast in contrasts if contrast["method"] == "shaspec"}
    weights = (VARIANTS["paper"].alpha, VARIANTS["paper"].beta)  # other weights are a claim's business
    switches = {name for name, variant in VARIANTS.items() if (variant.alpha, variant.beta) == weights}
    assert measured == switches - {"paper"}
    assert {contrast["variant"] for contrast in contrasts if contrast["method"] == "protokd"} <= set(protokd.VARIANTS)


def test_effects_by_hand(tmp_path):
    make(tmp_path, "shaspec", "paper", level(0.02))
    make(tmp_path, "shaspec", "ring", lambda name, target: level(0.03 if target == "et" else 0.0)(name, target))
    table = effects(read_runs(tmp_path, "quick"), LEDGER)
    ring = table[table["id"] == "D3"].set_index("part")["effect"]
    assert ring.to_dict() == pytest.approx({"WT": 2, "TC": 2, "ET": -1})
    printed = page(table).set_index("id").iloc[:, -1]
    assert (
        printed["D3"]
        == "WT +2.0 (+2.0 to +2.0), TC +2.0 (+2.0 to +2.0), ET -1.0 (-1.0 to -1.0); n = 5, seeds = 2, on stand-in"
    )
    assert printed["D1"] == "not measured: no run of shaspec first-available with dice in this profile"
    assert len(printed) == len(read_differences(LEDGER))


def test_a_method_of_single_modalities_is_compared_on_those_alone(tmp_path):
    make(tmp_path, "protokd", "standard", level(0.02), labels=["t1", "t2", "t1ce", "flair"])
    make(tmp_path, "protokd", "constant", level(-0.01), labels=["t1", "t1ce"])
    table = effects(read_runs(tmp_path, "quick"), LEDGER)
    assert table.loc[table["id"] == "D40", "effect"].tolist() == pytest.approx([3, 3, 3])


def test_smoke_runs_measure_nothing(tmp_path):
    make(tmp_path, "shaspec", "paper", level(0.02), profile="smoke")
    make(tmp_path, "shaspec", "released", level(0), profile="smoke")
    table = effects(read_runs(tmp_path, "smoke"), LEDGER)
    assert table["unmeasured"].ne("").all() and "smoke profile" in page(table).set_index("id").iloc[:, -1]["D6"]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"unmeasured": "both"}, "either contrast or unmeasured"), ({"topic": None}, "needs")],
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
