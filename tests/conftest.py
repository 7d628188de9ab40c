"""The book of the smoke profile, made once for the tests that look at it; and a browser that reaches this machine."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pipelines import ROOT, snakemake, what_failed

os.environ.setdefault("OMP_NUM_THREADS", "1")  # some tests fork, and of a process with threads that may hang

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays: garbage is not looked for while it comes, and never again among it, and later seldom."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(10_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk() -> Iterator[None]:
    """What tests write need not outlive a power cut: some ten thousand files of them do not wait until they would."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield


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


def find_browser() -> str | None:
    given = os.environ.get("CHROMIUM")
    return given or next((path for name in BROWSERS if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A window of a real browser, which finds no address but that of this machine."""
    path = find_browser()
    if path is None:
        message = f"no browser found (looked for {', '.join(BROWSERS)}); install chromium, or set CHROMIUM to its path"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started.new_context()
        started.close()
