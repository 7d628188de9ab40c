"""Run a function in a process of its own that may take so much time and memory."""

from __future__ import annotations

import math
import os
import pickle
import resource
import select
import signal
import time
from collections.abc import Callable
from typing import Any

MEMORY = 1 << 30  # bytes above what the process has at its start


def call(work: Callable[[], Any], seconds: float = 60.0, patience: float = 15.0) -> tuple[str, Any]:
    """Fork, call, and tell how it ended.

    Args:
        work: what is called.
        seconds: of the processor's time; other work on the machine does not count.
        patience: so many times the seconds may pass by the clock, for what waits and computes nothing.

    Returns:
        `("ended", what work returned)`, `("hang", None)`, `("memory", None)` or `("died", signal)`.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _limit_memory()
        now = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (now, now + 5))
        try:
            answer: tuple[str, Any] = ("ended", work())
        except MemoryError:
            answer = ("memory", None)
        with os.fdopen(write, "wb") as stream:
            pickle.dump(answer, stream)
        os._exit(0)
    os.close(write)
    content, end = b"", time.monotonic() + patience * seconds
    while time.monotonic() < end:
        if select.select([read], [], [], max(0.0, end - time.monotonic()))[0]:
            part = os.read(read, 1 << 16)
            if not part:
                break
            content += part
    else:
        os.kill(child, signal.SIGKILL)
    os.close(read)
    _, status = os.waitpid(child, 0)
    if content and os.WIFEXITED(status):
        return pickle.loads(content)
    hangs = os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU)
    return ("hang", None) if hangs else ("died", os.WTERMSIG(status))


def _limit_memory() -> None:
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
