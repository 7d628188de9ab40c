"""One call from runs to a table, and the loop that the page for labs shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mmlib
from mmlib import records
from pipeline import make
from pipeline.sources import parameters_of

PAGE = Path(__file__).parents[2] / "book" / "your-data.md"


def write_run(root: Path, experiment: str, method: str, seed: int, values: dict[str, float]) -> None:
    """The record of a run whose cases have these Dice values."""
    asked = {"method": method, "variant": "standard", "seed": seed}
    run = records.open_run(root, "quick", experiment, f"{method}-s{seed}", asked)
    rows = [(case, "t1", "wt", "dice", value) for case, value in values.items()]
    facts: dict[str, Any] = dict.fromkeys(records.FACTS, "x") | {"seconds": {}, "parameter_count": 1, "exposure": {}}
    run.save(pd.DataFrame(), pd.DataFrame(rows, columns=records.SCORE_COLUMNS), **facts)


def test_means_are_over_cases_and_then_over_seeds(tmp_path: Path) -> None:
    write_run(tmp_path, "mine", "u-hemis", 0, {"a": 0.5, "b": 0.7})
    write_run(tmp_path, "mine", "u-hemis", 1, {"a": 0.7, "b": 0.9})
    write_run(tmp_path, "mine", "zero-fill", 0, {"a": 0.4, "b": 0.2})
    table = mmlib.read_results(tmp_path, "quick", "mine").set_index("method")
    assert table.loc["u-hemis", "mean"] == pytest.approx(0.7)
    assert table.loc["u-hemis", "sd"] == pytest.approx(0.2 / np.sqrt(2))
    assert table.loc["u-hemis", ["seeds", "cases"]].tolist() == [2, 2]
    assert table.loc["zero-fill", "mean"] == pytest.approx(0.3) and np.isnan(table.loc["zero-fill", "sd"])
    assert list(table.columns) == [
        "experiment",
        "variant",
        "available",
        "target",
        "metric",
        "mean",
        "sd",
        "seeds",
        "cases",
    ]


def test_a_name_without_runs_is_an_error_that_names_those_with_some(tmp_path: Path) -> None:
    write_run(tmp_path, "mine", "u-hemis", 0, {"a": 0.5})
    with pytest.raises(FileNotFoundError, match=r"no complete run of quick/mien in .*; there are quick/mine"):
        mmlib.read_results(tmp_path, "quick", "mien")
    with pytest.raises(FileNotFoundError, match="there are none at all"):
        mmlib.read_results(tmp_path / "nowhere")


def test_the_library_has_no_other_lazy_name() -> None:
    with pytest.raises(AttributeError, match="'mmlib' has no attribute 'read_result'"):
        _ = mmlib.read_result


def test_the_loop_of_the_page_for_labs_ends_in_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    def trained(notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
        asked.append(parameters)
        assert parameters.keys() <= parameters_of(notebook.stem).keys() and output.suffix == ".ipynb"
        method, seed = parameters["method"], parameters["seed"]
        write_run(tmp_path / "build" / "results", parameters["experiment"], method, seed, {"a": 0.5 + 0.1 * seed})

    (example,) = [one for one in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "read_results" in one]
    monkeypatch.setattr(make, "execute", trained)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(PAGE), "exec"), {})
    assert [(one["method"], one["seed"]) for one in asked] == [
        (method, seed) for method in ("dropout-unet", "u-hemis") for seed in (0, 1)
    ]
    assert "0.55" in capsys.readouterr().out
