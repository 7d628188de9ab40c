"""Python that has imported already: a process that has loaded the slow libraries forks one for each job and kernel.

Loading them takes longer than much of what chapters and short runs compute. The pipeline starts the server with its
first job (`start`), and jobs call `python pipeline/warm.py -m MODULE ARGUMENTS` for `python -m MODULE ARGUMENTS`; a
kernel specification of its own lets papermill do likewise. Where no server answers (a node of a cluster, another
number of threads, no Linux), it is a Python of its own. The server has loaded nothing of this project.

This file is run by path and imports the standard library alone, so that the caller starts at once.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from contextlib import suppress
from pathlib import Path

PLACE = "MMLIB_WARM"  # variable: the folder of the server's socket
THREADS = "OMP_NUM_THREADS"
# What Python and the libraries read when they start, so that the server's counts.
AT_START = {
    THREADS: "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONWARNINGS": "ignore:IProgress not found",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # or the debugger that comes with kernels says how Python was built
    # Memory that was used once is kept for what comes next: arrays of some 30 MB are not given back and asked for anew,
    # a third of the time that a phantom in voxels of 2 mm takes.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
}
_SERVERS: list[subprocess.Popen] = []
LIBRARIES = (
    *("numpy", "pandas", "scipy.stats", "scipy.ndimage", "matplotlib.pyplot", "seaborn", "sklearn.ensemble", "nibabel"),
    *("torch", "torch.func", "monai.inferers", "monai.metrics", "monai.networks.nets", "nilearn.datasets"),
    *("torch._dynamo", "accelerate"),  # which the first optimiser loads
    *("safetensors.torch", "psutil", "yaml"),
    *("ipykernel.ipkernel", "ipykernel.debugger", "ipywidgets", "myst_nb", "jupytext", "papermill"),
)


def start(*more: str) -> None:
    """Start a server for the jobs and kernels of this process, where none answers; it ends with it.

    Args:
        more: names of modules that it loads beside the `LIBRARIES`.
    """
    if not hasattr(os, "pidfd_open") or _answers():
        return
    place = Path(tempfile.mkdtemp(prefix="warm-", dir="/tmp"))  # the path of a socket must be short
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    kernel = place / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-S", "-E", os.path.abspath(__file__), "-m", "ipykernel_launcher", "-f"]
    spec = {"argv": [*argv, "{connection_file}"], "display_name": "Python 3 (ipykernel)", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(place), os.environ.get("JUPYTER_PATH")]))
    os.environ[PLACE] = str(place)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{place}/socket")
        door.listen(64)  # who calls while the libraries are loaded waits
        command = [sys.executable, os.path.abspath(__file__), "--serve", str(door.fileno()), *more]
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, env={**os.environ, **AT_START}, pass_fds=[door.fileno()]
        )
    _SERVERS.append(server)  # this end of the pipe is kept, and closes with this process


def _answers() -> bool:
    with socket.socket(socket.AF_UNIX) as line, suppress(KeyError, OSError):
        line.connect(f"{os.environ[PLACE]}/socket")
        return True
    return False


# ------------------------------------------------------------------------------------------------------ the caller
def call(arguments: list[str]) -> int:
    """Let the server run `python ARGUMENTS` with this process's files, folder and environment; its exit status."""
    place = os.environ.get(PLACE)
    if not place or os.environ.get(THREADS) != AT_START[THREADS]:
        return _alone(arguments)
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(f"{place}/socket")
        request = json.dumps({"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
        socket.send_fds(line, [len(request).to_bytes(8, "big")], [0, 1, 2])
        line.sendall(request)
        answer = line.makefile("r")
        process = int(answer.readline())
    except (OSError, ValueError):
        return _alone(arguments)

    def forward(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)
    status = int(answer.readline() or -signal.SIGKILL)
    return status if status >= 0 else 128 - status


def _alone(arguments: list[str]) -> int:
    os.execv(sys.executable, [sys.executable, *arguments])


# ------------------------------------------------------------------------------------------------------ the server
def serve(door: socket.socket, more: list[str]) -> None:
    """Load the libraries and fork for each call, until the process that started this one has ended.

    A caller is told how its process ended; where the caller is gone, so is what it asked for.
    """
    del sys.path[0]  # the folder of this file
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the callers pass it on
    gc.disable()
    for name in (*LIBRARIES, *more):
        with suppress(ImportError):  # an extra that is not installed; who needs it says so
            importlib.import_module(name)
    if notebooks := sys.modules.get("nbformat"):
        notebooks.v4.new_raw_cell()  # the first one compiles the schema that all are checked by
    for kept in list(getattr(weakref.finalize, "_registry", ())):  # of torch; they end with the process
        kept.atexit = False
    gc.freeze()  # or each of the forked looks through all of it for garbage, and copies it by that
    gc.enable()
    gc.set_threshold(10_000, 20, 20)  # most live for seconds: garbage is looked for seldom
    listened: list = [door, sys.stdin]
    callers: dict[socket.socket, tuple[int, int]] = {}  # line: process, and the file that tells of its end
    while listened or callers:
        ready, _, _ = select.select([*listened, *callers, *(ended for _, ended in callers.values())], [], [])
        for line, (process, ended) in list(callers.items()):
            if line in ready or ended in ready:
                if ended not in ready:
                    os.kill(process, signal.SIGKILL)
                _, status = os.waitpid(process, 0)
                with suppress(OSError):
                    line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                os.close(ended)
                line.close()
                del callers[line]
        if sys.stdin in ready:  # what runs ends as it would have
            door.close()
            listened = []
        elif door in ready:
            line, _ = door.accept()
            asked, files = _request(line)
            if asked:
                process = os.fork()
                if process == 0:
                    for other in (door, line, *callers):
                        other.close()
                    for _, ended in callers.values():
                        os.close(ended)
                    _become(asked, files)
                callers[line] = process, os.pidfd_open(process)
                with suppress(OSError):  # the caller was killed, which the line tells too
                    line.sendall(f"{process}\n".encode())
            else:
                line.close()
            for file in files:
                os.close(file)


def _request(line: socket.socket) -> tuple[dict, list[int]]:
    """What a caller asks for, and its files; nothing where it asked only whether there is a server, or was killed."""
    line.settimeout(10)  # a caller writes all of it at once; the others wait
    files: list[int] = []
    request = b""
    with suppress(OSError):
        size, files, _, _ = socket.recv_fds(line, 8, 3)
        while len(request) < int.from_bytes(size, "big"):
            if not (part := line.recv(1 << 16)):
                return {}, files
            request += part
        return json.loads(request or "{}"), files
    return {}, files


def _become(asked: dict, files: list[int]) -> None:
    """Be the process that `python -m MODULE ARGUMENTS` starts."""
    os.setsid()  # a terminal's signals come from the caller alone
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    _, module, *arguments = asked["arguments"]
    sys.argv = [module, *arguments]
    sys.path.insert(0, os.getcwd())
    status: object = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code
    _end(status)


def _end(status: object) -> None:
    """End as Python does, but for taking the libraries apart, which takes longer than many a job."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    if status is not None and not isinstance(status, int):
        print(status, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status if isinstance(status, int) else status is not None)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(socket.socket(fileno=int(sys.argv[2])), sys.argv[3:])
    else:
        sys.exit(call(sys.argv[1:]))
