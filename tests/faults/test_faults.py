"""A small draw of `make faults`, and its yardsticks: what it calls a fault is one."""

import sys
import time
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from faults import inputs, kills, probes
from faults.isolated import MEMORY, call


@pytest.mark.parametrize("campaign, count", [(inputs, 42), (kills, 8), (probes, 30)], ids=["inputs", "kills", "probes"])
def test_nothing_is_silently_wrong_raw_or_stuck(campaign, count, tmp_path):
    found = pd.DataFrame(campaign.run(tmp_path, count, seed=1))
    assert len(found) >= count
    bad = found[found["outcome"].isin(campaign.BAD)]
    assert bad.empty, bad.to_string()


def test_a_function_that_takes_too_long_too_much_or_dies_is_told_apart():
    assert call(lambda: 7) == ("ended", 7)
    assert call(lambda: time.sleep(60), seconds=0.2) == ("hang", None)
    assert call(lambda: len(bytearray(2 * MEMORY))) == ("memory", None)


def test_what_a_library_raises_is_raw_and_what_the_loader_raises_is_not(tmp_path):
    split = inputs.LAYOUTS["split"]
    split.write(tmp_path)
    path = tmp_path / "split.csv"
    sound = split.read(tmp_path)
    assert inputs._look(split, tmp_path, sound, True, path) == ("same", "")
    path.write_text(path.read_text().replace("test", "valid"))
    assert inputs._look(split, tmp_path, sound, True, path)[0] == "silent"
    assert inputs._look(split, tmp_path, sound, False, path)[0] == "other data"
    path.write_text("case,subject\n")
    kind, told = inputs._look(split, tmp_path, sound, True, path)
    assert kind == "refused" and "split.csv: has no column 'part'" in told
    broken = inputs.Layout(split.write, lambda _: [][1])
    assert inputs._look(broken, tmp_path, sound, True, path) == ("raw", "IndexError: list index out of range")
