"""The book of the smoke profile, made once for all tests that look at it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipelines import ROOT, snakemake, what_failed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that hold the tests that take minutes."""
    slow = {item.path for item in items if item.get_closest_marker("pipeline")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def smoke_book() -> Path:
    """The folder of the smoke profile's pages, made by the project's own pipeline with warnings as errors.

    Used in one file only, for the workers of pytest-xdist get whole files and one pipeline runs at a time.
    """
    html = "build/test/html"
    done = snakemake(ROOT, PROFILE="smoke", HTML=html)
    if done.returncode:
        pytest.fail(what_failed(ROOT, done), pytrace=False)
    return ROOT / html
