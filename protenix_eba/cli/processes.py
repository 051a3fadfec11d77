"""One command as several processes of this machine, each with a share of its targets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import click

from protenix_eba.cli.status import SOME_FAILED, UNUSABLE_INPUT
from protenix_eba.core.sharding import Shard

__all__ = ["in_processes", "joint_status", "processes_option"]

F = TypeVar("F", bound=Callable[..., Any])


def processes_option(function: F) -> F:
    """Add the option `--processes`, for a command that calls `in_processes` where it is above 1."""
    return click.option(
        "--processes",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Number of processes that share the targets on this machine. Each takes a GPU of its "
        "own, or one in turn where there are fewer.",
    )(function)


def in_processes(words: Sequence[str], shard: Shard | None, count: int) -> int:
    """Run a command of `protenix-eba` in several processes, and print what they say.

    Args:
        words: The words of the command, which has the options --shard and --processes.
        shard: The share of the targets that is asked for; None for all.
        count: Number of processes.

    Returns:
        The exit status for all of them.
    """
    command = [sys.executable, "-m", "protenix_eba.cli.main", *words]
    environments = _environments(count)
    processes = [
        subprocess.Popen(
            [*command, "--processes", "1", "--shard", str(part)],
            env=os.environ | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for part, environment in zip((shard or Shard(1, 1)).split(count), environments, strict=True)
    ]  # fmt: skip
    with ThreadPoolExecutor(count) as pool:
        followed = [pool.submit(_follow, *pair) for pair in enumerate(processes, start=1)]
        try:
            return joint_status({one.result() for one in followed})
        except BaseException:  # Ctrl-C or SIGTERM, which processes answer by keeping what they have
            for process in processes:
                process.terminate()
            raise


def _environments(count: int) -> list[dict[str, str]]:
    """Return what each process sees of the machine: one GPU, or a part of the CPU's threads."""
    import torch

    n_gpus = torch.cuda.device_count()
    if not n_gpus:
        threads = max(1, torch.get_num_threads() // count)
        return [{"OMP_NUM_THREADS": str(threads)}] * count
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(n_gpus)]
    return [{"CUDA_VISIBLE_DEVICES": names[number % n_gpus]} for number in range(count)]


def _follow(number: int, process: subprocess.Popen[str]) -> int:
    """Print each line of a process behind its number, and return its exit status."""
    for line in process.stdout or ():
        click.echo(f"{number}: {line}", err=True, nl=False)
    status = process.wait()
    return status if status >= 0 else 128 - status  # as a shell gives signals


def joint_status(statuses: Collection[int]) -> int:
    """Return one exit status for several shares: a crash first, unusable input only if it is all.

    A share of which all targets failed is some that failed among all.
    """
    crashes = set(statuses) - {0, SOME_FAILED, UNUSABLE_INPUT}
    if crashes:
        return max(crashes)
    if set(statuses) <= {0} or set(statuses) == {UNUSABLE_INPUT}:
        return max(statuses)
    return SOME_FAILED
