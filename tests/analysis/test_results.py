"""The runs of a profile as tables."""

import numpy as np
import pandas as pd

from mmlib.analysis.results import read_arrays, run_table


def test_the_table_of_runs_shortens_commits_and_leaves_out_what_no_run_has():
    names = ("experiment", "run", "parameters.seeds", "git_commit", "fingerprint", "device", "precision")
    facts = dict.fromkeys(names, "x" * 40) | {"seconds.train": 1.0, "seconds.evaluate": 2.0, "stand_in": True}
    table = run_table(pd.DataFrame([facts]))
    assert table["commit"].tolist() == ["x" * 10] and table["training / s"].tolist() == [1.0]
    assert {"variants", "threads", "stand_in"}.isdisjoint(table) and "seeds" in table


def test_arrays_in_16_bits_come_back_in_32_and_others_as_they_are(tmp_path):
    made = {"half": np.float16([0.5]), "areas": np.array([True]), "double": np.array([0.1]), "who": np.array(["a"])}
    np.savez(tmp_path / "made.npz", **made)
    read = read_arrays(tmp_path / "made.npz")
    assert read.keys() == made.keys() and read["half"].dtype == np.float32
    assert all(read[name].dtype == made[name].dtype for name in ("areas", "double", "who"))
