"""`make faults`: bad inputs, killed processes and damaged results, drawn by a seed; an error where one went wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from faults import inputs, kills, probes

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=1000, help="mutated inputs")
    parser.add_argument("--kills", type=int, default=300, help="processes killed")
    parser.add_argument("--probes", type=int, default=150, help="damaged records, weights and checkpoints")
    parser.add_argument("--output", type=Path, default=Path("build/faults"))
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for name, campaign, count in (
        ("inputs", inputs, given.inputs),
        ("kills", kills, given.kills),
        ("probes", probes, given.probes),
    ):
        with tempfile.TemporaryDirectory() as folder:
            found = pd.DataFrame(campaign.run(Path(folder), count, given.seed))
        found.to_csv(given.output / f"{name}.csv", index=False)
        if found.empty:
            continue
        print(pd.crosstab(found["where"], found["outcome"], margins=True), "\n")
        bad = found[found["outcome"].isin(campaign.BAD)]
        print(bad.to_string(index=False) + "\n" if len(bad) else "", end="")
        wrong += len(bad)
    print(f"{wrong} faults; every case in {given.output}")
    sys.exit(wrong > 0)
