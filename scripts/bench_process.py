"""CPU seconds and peak memory of a command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Taken(NamedTuple):
    """What a command took."""

    cpu_s: float
    peak_mb: float


def taken_by(command: Sequence[str], environment: Mapping[str, str] = os.environ) -> Taken:
    """Run a command with one thread; its failure ends the benchmark with what it said."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env={**environment, **ONE_THREAD}
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(
                f"exit status {process.returncode}: {' '.join(command)}\n{said.read()[-2000:]}"
            )
    return Taken(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
