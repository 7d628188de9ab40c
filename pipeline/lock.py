"""One pipeline in a folder at a time. The system drops the lock with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

SNAKEMAKE = (sys.executable, "-m", "snakemake", "--nolock", "--keep-going", "--rerun-incomplete")


class BusyError(RuntimeError):
    """Another pipeline runs in this folder; the message says which."""


@contextmanager
def only_pipeline(root: Path) -> Iterator[IO[str]]:
    """Hold the lock of a project's folder; a process that inherits the file holds it too.

    Raises:
        BusyError: if another process holds it.
    """
    path = root / "build" / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise BusyError(
                f"another pipeline works in {root}: {stream.read().strip() or 'unknown process'}; wait for its end, or "
                "stop it with Ctrl-C: what is finished is kept, and a run goes on from its last checkpoint"
            ) from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        yield stream


def run_pipeline(root: Path, arguments: Sequence[str], prepare: Callable[[], None]) -> None:
    """Prepare and become Snakemake, with the lock held until it ends; where another pipeline works, say so and exit."""
    try:
        with only_pipeline(root) as stream:
            prepare()
            os.set_inheritable(stream.fileno(), True)
            os.chdir(root)
            os.execv(sys.executable, [*SNAKEMAKE, *arguments])
    except BusyError as error:
        sys.exit(str(error))
