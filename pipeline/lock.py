"""One pipeline in a folder at a time. The system drops the lock with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn

OPTIONS = ("--nolock", "--keep-going", "--rerun-incomplete")
# While jobs wait, Snakemake looks over all of them once more a second after each look, for its limit of 100 jobs a
# second, and every job that ends adds such a chain of looks. With this limit the chains have an hour between looks.
UNLIMITED = ("--max-jobs-per-timespan", "1000000/1h")
SNAKEMAKE = (sys.executable, "-m", "snakemake", *OPTIONS)
STOPPED = (
    "Stopped. What is finished is kept, and a run that was under way goes on from its last checkpoint: give the same "
    "command again."
)


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


def run_pipeline(
    root: Path, arguments: Sequence[str], prepare: Callable[[], None], finish: Callable[[], None]
) -> NoReturn:
    """Prepare and be Snakemake, with the lock held until it ends; where another pipeline works, say so and exit.

    Where all was made, `finish` has the last word.

    Ctrl-C and a closed terminal stop every job within seconds, and it is said how to go on; after SIGTERM Snakemake
    finishes the jobs that run.
    """
    from snakemake import cli

    stopped: list[int] = []

    def stop(number: int, frame: object) -> None:
        if not stopped:
            stopped.append(number)
            _end_jobs()
        raise KeyboardInterrupt

    code: object = 0
    try:
        with only_pipeline(root) as stream:
            prepare()
            os.set_inheritable(stream.fileno(), True)  # a job that outlives this process holds the lock
            os.chdir(root)
            for number in (signal.SIGINT, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # else it was called to go on, as by nohup
                    signal.signal(number, stop)
            cli.main([*OPTIONS, *UNLIMITED, *arguments])
    except BusyError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass
    except SystemExit as ended:
        code = ended.code
    for timer in threading.enumerate():
        if isinstance(timer, threading.Timer):
            timer.cancel()  # Snakemake's, for which this process would wait
    if stopped:
        print(STOPPED, file=sys.stderr, flush=True)
        sys.exit(128 + stopped[0])
    if not code:
        finish()
    sys.exit(code if isinstance(code, int) else bool(code))


def _end_jobs(seconds: float = 5) -> None:
    """End all that this process started, kernels included; what does not end in time is killed."""
    import psutil

    def alive(job: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):
            return job.is_running() and job.status() != psutil.STATUS_ZOMBIE
        return False

    jobs = psutil.Process().children(recursive=True)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for job in filter(alive, jobs):
            with suppress(psutil.NoSuchProcess):
                end(job)
        limit = time.monotonic() + seconds  # how they ended is left to Snakemake, which waits for them too
        while any(map(alive, jobs)) and time.monotonic() < limit:
            time.sleep(0.05)
