"""What the warm server forks is the process that `python -m` starts: its arguments, files, folder, status and end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline import warm

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux alone tells a process by a file")
CALL = [sys.executable, "-S", "-E", warm.__file__, "-m"]
TELL = """
import json, os, sys
heavy = [name for name in ("torch", "monai", "mmlib", "pipeline") if name in sys.modules]
print(json.dumps([sys.argv[1:], os.getcwd(), os.environ["GIVEN"], sys.stdin.read(), __name__, heavy]))
sys.exit(3)
"""
WAIT = """
import signal, sys, time
from pathlib import Path
Path("began").touch()
try:
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(5)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """The environment in which a server answers."""
    before = dict(os.environ)
    os.environ.pop(warm.PLACE, None)  # that of other tests
    warm.start()
    warm.start()  # as a pipeline in a pipeline does: the server that answers is enough
    yield {**os.environ, "OMP_NUM_THREADS": "1"}
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tell.py").write_text(TELL)
    (tmp_path / "wait.py").write_text(WAIT)
    (tmp_path / "fails.py").write_text("raise LookupError('of its own')")
    return tmp_path


def run(folder: Path, environment: dict[str, str], *arguments: str, **given: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CALL, *arguments], cwd=folder, env=environment, text=True, capture_output=True, timeout=120, **given
    )


def test_it_runs_with_the_arguments_files_folder_and_environment_of_its_caller(
    folder: Path, server: dict[str, str]
) -> None:
    done = run(folder, {**server, "GIVEN": "x y"}, "tell", "a", "--b", input="asked")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout) == [["a", "--b"], str(folder), "x y", "asked", "__main__", ["torch", "monai"]]
    failed = run(folder, server, "fails")
    assert failed.returncode == 1 and failed.stderr.endswith("LookupError: of its own\n")


def test_what_it_made_for_the_time_that_it_runs_is_cleared_away(folder: Path, server: dict[str, str]) -> None:
    code = "import sys, tempfile; sys.kept = tempfile.TemporaryDirectory(dir='.'); print(sys.kept.name)"
    (folder / "makes.py").write_text(code)
    done = run(folder, server, "makes")
    assert done.returncode == 0 and done.stdout and not (folder / done.stdout.strip()).exists()


def test_without_a_server_or_with_other_threads_it_is_a_python_of_its_own(folder: Path, server: dict[str, str]) -> None:
    nowhere = {**server, warm.PLACE: str(folder / "nowhere")}
    without = {name: value for name, value in server.items() if name != warm.PLACE}
    for environment in (nowhere, without, {**server, "OMP_NUM_THREADS": "2"}):
        done = run(folder, {**environment, "GIVEN": "-"}, "tell", "a", input="")
        assert done.returncode == 3 and json.loads(done.stdout)[-1] == []


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 5), (signal.SIGTERM, 128 + 15), (signal.SIGKILL, -9)])
def test_a_signal_reaches_it_and_a_caller_that_is_killed_takes_it_along(
    folder: Path, server: dict[str, str], number: int, status: int
) -> None:
    caller = waiting(folder, server)
    (forked,) = [one for one in psutil.process_iter() if _is_in(one, folder) and one.pid != caller.pid]
    caller.send_signal(number)
    assert caller.wait(60) == status
    forked.wait(60)


def test_when_its_starter_ends_the_server_ends_with_the_last_of_what_runs(folder: Path, server: dict[str, str]) -> None:
    caller = waiting(folder, server)
    process = warm._SERVERS.pop()
    assert process.stdin is not None
    process.stdin.close()  # as the end of its starter does
    done = run(folder, {**server, "GIVEN": "-"}, "tell", "a", input="")
    assert done.returncode == 3 and json.loads(done.stdout)[-1] == [], "no server answers any more"
    assert process.poll() is None
    caller.send_signal(signal.SIGINT)
    assert caller.wait(60) == 5 and process.wait(60) == 0


def waiting(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A caller whose process has begun, and that passes signals on."""
    caller = subprocess.Popen([*CALL, "wait"], cwd=folder, env=environment, start_new_session=True, preexec_fn=_listen)
    limit = time.monotonic() + 120
    while not ((folder / "began").exists() and _catches(caller.pid, signal.SIGTERM)) and time.monotonic() < limit:
        time.sleep(0.05)
    return caller


def _catches(process: int, number: int) -> bool:
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{process}/status").read_text(), re.M)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def _listen() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which these tests may be started to ignore


def _is_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.cwd() == str(folder)
    except psutil.Error:
        return False
