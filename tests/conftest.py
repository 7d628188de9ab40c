"""The book of the smoke profile, made once for all tests that look at it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipelines import ROOT, snakemake


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests that take minutes; keep them in one worker, for they share what the pipeline made."""
    for item in items:
        if item.get_closest_marker("pipeline"):
            item.add_marker(pytest.mark.xdist_group("pipeline"))
    items.sort(key=lambda item: item.get_closest_marker("pipeline") is None)


@pytest.fixture(scope="session")
def smoke_book() -> Path:
    """The folder of the smoke profile's pages, made by the project's own pipeline with warnings as errors."""
    html = "build/test/html"
    done = snakemake(ROOT, "--show-failed-logs", PROFILE="smoke", HTML=html)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-20000:]
    return ROOT / html
