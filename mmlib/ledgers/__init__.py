"""From the ledgers of claims and differences, and the run records, to verdicts."""
