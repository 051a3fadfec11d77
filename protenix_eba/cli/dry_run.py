"""What `protenix-train --dry-run` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from protenix_eba.core.errors import UserError

if TYPE_CHECKING:
    from protenix_eba.training.rehearse.report import DryRun

__all__ = ["lines", "print_dry_run"]


def print_dry_run(
    build: Callable[[Any], Any], configs: Any, memory_limit_gib: float | None
) -> None:
    """Make a dry run and print what the run would do and cost, on the first process.

    Args:
        build: The trainer, from `TRAINERS`.
        configs: Resolved configuration.
        memory_limit_gib: Memory in GiB that a process may take, on the GPU if there is one.

    Raises:
        UserError: The run would refuse its data or configuration, or does not fit in the memory.
    """
    from protenix.utils.distributed import DIST_WRAPPER

    from protenix_eba.core.progress import answers, tell
    from protenix_eba.training.rehearse.dry_run import dry_run

    limit = None if memory_limit_gib is None else int(memory_limit_gib * 2**30)
    found = dry_run(build, configs, limit)
    if DIST_WRAPPER.rank == 0:
        tell("\n".join(lines(found)), answers)
    if found.advice:
        raise UserError(f"the run does not fit in {memory_limit_gib:g} GiB", found.advice.sentence)


def lines(run: DryRun) -> Iterator[str]:
    """Yield the report, line by line."""
    yield f"Dry run of {run.run_folder}, which is as it was"
    if run.first_step:
        done = "is finished" if run.first_step >= run.max_steps else "goes on"
        yield f"it {done} at step {run.first_step:,} of {run.max_steps:,}"
    size = run.largest
    yield from (
        "",
        _row("parameters", f"{run.n_trained:,} trained, {run.n_frozen:,} frozen"),
        _row("processes", f"{run.n_processes}"),
        _row("items of an epoch", f"{run.n_items:,}"),
        _row("steps of an epoch", f"{run.steps_per_epoch:,.1f} of {run.items_per_step} items"),
        _row("largest item", f"{size.target}: {size.n_tokens} residues, {size.n_atoms} atoms"),
    )
    yield from ("", "time", *_times(run))
    whose = "a process" if run.n_processes == 1 else "each process"
    yield from ("", f"memory of {whose}", *_memory(run))
    yield from ("", "disk", *_disk(run))
    yield from ("", "left out" if run.left_out else "left out: nothing")
    for part in run.left_out:
        yield _row(part.target, f"{part.n_frames:,} frames: {part.reason}")


def _times(run: DryRun) -> Iterator[str]:
    costs = run.costs
    yield _row("a step, mean of an epoch", _time(costs.seconds_typical))
    yield _row("a step of the largest item", _time(costs.seconds_largest))
    if costs.seconds_validation:
        times = f"{run.n_validations} times"
        yield _row("a validation", f"{_time(costs.seconds_validation)}, {times}")
    yield _row("a checkpoint", f"{_time(costs.seconds_checkpoint)}, {run.n_checkpoints} times")
    if costs.seconds_temperature:
        yield _row(
            "T (eba.diffusion_temperature: auto)", f"{_time(costs.seconds_temperature)}, once"
        )
    yield _row("an epoch", _time(run.seconds_epoch))
    yield _row(f"up to step {run.max_steps:,}", _time(run.seconds_left))
    if run.n_refreshes:
        yield _row(
            "refreshes of the replay buffer", f"{run.n_refreshes}, which are not in this time"
        )


def _memory(run: DryRun) -> Iterator[str]:
    peaks = {f"peak: {name}": memory for name, memory in run.costs.peaks.items()}
    for name, memory in (run.costs.memory | peaks).items():
        host = [_bytes(memory.host)] if memory.host else []
        device = [f"{_bytes(memory.device)} on the GPU"] if memory.device else []
        if host or device:
            yield _row(name, ", ".join(device + host))
    if run.memory_limit is not None:
        yield _row(f"fits in {_bytes(run.memory_limit)}", "no" if run.advice else "yes")


def _disk(run: DryRun) -> Iterator[str]:
    kept = f"the newest {run.checkpoint_keep} stay"
    yield _row("one checkpoint", f"{_bytes(run.costs.checkpoint_bytes)}, {kept}")
    yield _row("models beside them", _bytes(run.costs.model_bytes))
    yield _row("at most", _bytes(run.disk_bytes))


def _row(name: str, value: str) -> str:
    return f"  {name:<40} {value}"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))


def _bytes(n: int) -> str:
    return f"{n / 2**30:.2f} GiB" if n >= 2**30 else f"{n / 2**20:.1f} MiB"
