"""Processes that begin with what a command imports: a fork of one that has imported it, once.

A cold start of `protenix-train` takes 15 seconds, most of a small run. What a fork runs then is the
command as it is, with arguments, environment, output and signals of its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Warm:
    """Starts commands in forks of a process that has imported what they need."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        command = [sys.executable, str(Path(__file__)), str(theirs.fileno())]
        self._server = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self._lock = threading.Lock()

    def start(self, words: Sequence[object], environment: Mapping[str, str] = {}) -> Started:
        """Start `protenix-train` with these words."""
        output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        told, tell = os.pipe()
        request = {"words": [str(word) for word in words], "environment": dict(environment)}
        with self._lock:
            socket.send_fds(self._ours, [json.dumps(request).encode()], [output.fileno(), tell])
            self._ours.recv(1)  # the next request is another message
        os.close(tell)
        return Started(os.fdopen(told), output)

    def start_all(self, words: Sequence[object], count: int) -> StartedTogether:
        """Start the processes of one training, as torchrun does on one machine."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
        started = []
        for rank in range(count):
            numbers = shared | {"RANK": rank, "LOCAL_RANK": rank}
            environment = {name: str(value) for name, value in numbers.items()}
            started.append(self.start(words, {"MASTER_ADDR": "127.0.0.1"} | environment))
        return StartedTogether(started)

    def close(self) -> None:
        """End the process that is forked; what it has started goes on."""
        self._ours.close()
        self._server.wait()


class Started:
    """A command that runs, with the members of `subprocess.Popen` that tests use."""

    def __init__(self, told, output) -> None:
        self._told, self._output = told, output
        self.returncode: int | None = None
        self.pid = int(told.readline())

    def poll(self) -> int | None:
        """The exit status, or None while it runs; minus the number of a signal that ended it."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.returncode = int(self._told.readline())
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the command alone, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """All output once it has ended.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        if self.returncode is None and not select.select([self._told], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("protenix-train", timeout or 0)
        self.poll()
        self._output.seek(0)
        return self._output.read().decode(errors="replace"), None


class StartedTogether:
    """Commands that run together, with the members of `Started` that tests use of them."""

    def __init__(self, started: Sequence[Started]) -> None:
        self._started = started
        self.returncode: int | None = None

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """The output of one after the other once all have ended."""
        outputs = [one.communicate(timeout)[0] for one in self._started]
        self.returncode = max((one.returncode for one in self._started), key=abs)
        return "".join(outputs), None


def finish(process: Any, status: int = 0) -> str:
    """All output of a command that ends with this status."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


def wait_for(process: Started, condition: Callable[[], object]) -> None:
    """Wait until something holds while a command runs."""
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def kill_at(process: Started, path: Path) -> None:
    """Send SIGKILL as soon as a command has written a file."""
    wait_for(process, path.is_file)
    process.kill()
    process.communicate(timeout=30)


def serve(fd: int) -> None:
    """Import, then fork for each request until the other side is gone."""
    from protenix_eba.host import environment

    environment.prepare_environment()
    import deepspeed  # noqa: F401
    import runner.train  # noqa: F401
    from protenix.model.modules import diffusion  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
    requests = socket.socket(fileno=fd)
    while True:
        message, fds, _, _ = socket.recv_fds(requests, 2**20, 2)
        if not message:
            return
        if os.fork() == 0:
            requests.close()
            keep(json.loads(message), *fds)
        for one in fds:
            os.close(one)
        requests.send(b".")


def keep(request: dict, output: int, tell: int) -> None:
    """Fork once more, tell the number of that process, wait for its end and tell its status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(tell)
        become(request, output)
    os.write(tell, f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    os.write(tell, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(request: dict, output: int) -> None:
    """Be the command."""
    from protenix.utils.distributed import DIST_WRAPPER

    from protenix_eba.cli.train import program

    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(request["environment"])
    DIST_WRAPPER.__init__()  # it reads its rank when it is imported
    sys.argv = ["protenix-train", *request["words"]]
    try:
        program()
    finally:  # only a traceback comes here
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
