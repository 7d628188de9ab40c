"""The runs of a profile as tables."""

import pandas as pd

from mmlib.analysis.results import run_table


def test_the_table_of_runs_shortens_commits_and_leaves_out_what_no_run_has():
    names = ("experiment", "run", "parameters.seeds", "git_commit", "fingerprint", "device", "precision")
    facts = dict.fromkeys(names, "x" * 40) | {"seconds.train": 1.0, "seconds.evaluate": 2.0, "stand_in": True}
    table = run_table(pd.DataFrame([facts]))
    assert table["commit"].tolist() == ["x" * 10] and table["training / s"].tolist() == [1.0]
    assert {"variants", "threads", "stand_in"}.isdisjoint(table) and "seeds" in table
