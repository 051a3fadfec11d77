"""A dry run: a training run's own trainer and data in a scratch folder, for a few steps.

What the run would cost is measured on the largest item that the data can give, and on items that
stand for equal shares of an epoch.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch.distributed as dist
from protenix.utils.distributed import DIST_WRAPPER

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import check_place
from protenix_eba.core.ranks import gather_rows
from protenix_eba.core.run_folder import RunFolder
from protenix_eba.host.weights import count_parameters
from protenix_eba.training.data.interfaces import Loader
from protenix_eba.training.data.item import Item
from protenix_eba.training.data.loader import SequenceCoupledLoader
from protenix_eba.training.engine import trainable
from protenix_eba.training.loop import BadItemsError
from protenix_eba.training.rehearse.data_check import (
    LeftOut,
    check_data,
    unlabelled,
    used_replicas,
)
from protenix_eba.training.rehearse.memory_advice import Change, advise, passes
from protenix_eba.training.rehearse.peak_memory import (
    Memory,
    MemoryMeter,
    n_weights,
    permanent_parts,
)
from protenix_eba.training.rehearse.rehearsal import (
    bytes_on_disk,
    largest_item,
    n_refreshes,
    n_repeats,
    order_by_size,
    seconds_per_step,
    seconds_per_validation,
    seconds_to_save,
    size_of,
    typical_items,
)
from protenix_eba.training.rehearse.report import Costs, DryRun
from protenix_eba.training.rehearse.stand_in import first_round_loader, md_loader
from protenix_eba.training.replay.trainer import OnPolicyTrainer
from protenix_eba.training.trainer import EBATrainer

__all__ = ["dry_run"]

# Steps of the largest item: one that warms up, and those whose time counts.
_N_LARGEST: Final = 3
_STEP: Final = "a step of the largest item"


def dry_run(build: Callable[[Any], Any], configs: Any, memory_limit: int | None = None) -> DryRun:
    """Build a trainer as for a run, check its data and measure what the run would cost.

    The run folder and its parents are neither made nor changed; a scratch folder takes their place
    for as long as it lasts. All processes of a run call it together.

    Args:
        build: The trainer, from `TRAINERS`.
        configs: Resolved configuration.
        memory_limit: Bytes that a process may take, on the GPU if there is one.

    Returns:
        The report. All processes get the same one, except that each has timed itself.

    Raises:
        UserError: What the run would refuse; a trainer or a dataloader that cannot be measured;
            a step for which the memory does not suffice; or no room for a scratch checkpoint.
    """
    _check_trainer(build, configs)
    if memory_limit is not None and DIST_WRAPPER.world_size > 1:
        raise UserError(
            f"--device-memory: expected one process, found {DIST_WRAPPER.world_size}",
            "they hold about the same: measure one of them",
        )
    run_folder = RunFolder(Path(configs.base_dir) / configs.run_name)
    check_place(run_folder.path)
    run_folder.check(configs.to_dict())
    with tempfile.TemporaryDirectory(prefix="protenix-dry-run-") as scratch:
        configs = copy.deepcopy(configs)
        configs.base_dir = scratch
        run_folder.lend_temperature(RunFolder(Path(scratch) / configs.run_name))
        trainer = build(configs)
        try:
            return _rehearse(trainer, run_folder, memory_limit)
        except BadItemsError as error:
            raise _stopped(error) from error
        finally:
            dist.destroy_process_group()


def _check_trainer(build: Callable[[Any], Any], configs: Any) -> None:
    if build not in (EBATrainer, OnPolicyTrainer):
        raise UserError(
            f"--dry-run measures the trainers eba and on_policy, found {configs.trainer}, whose "
            "data and steps are of another kind",
            "leave --dry-run out, and try a small --max_steps under another --run_name: its log "
            "holds the seconds of each step",
        )


def _stopped(error: BadItemsError) -> UserError:
    reason = f"; the last one: {error.reason}" if error.reason else ""
    return UserError(
        f"the run would stop: {error.count} items in a row had a loss that is not finite, or could "
        f"not be read{reason}",
        f"if the data are whole, {error.advice}",
    )


def _rehearse(trainer: EBATrainer, run_folder: RunFolder, memory_limit: int | None) -> DryRun:
    if run_folder.has_begun():
        run_folder.check_pinned(trainer.folder.pinned())
    start = MemoryMeter(trainer.device).peak()
    loader, left_out = _check(trainer)
    order = order_by_size(loader)
    index, item = largest_item(loader, order)
    costs = _measure(trainer, order, index, item, start)
    n_trained = n_weights(trainable(trainer.raw_model))
    there = run_folder.complete_steps()
    first = max(there, default=0)
    n_validations, n_checkpoints = n_repeats(trainer, first)
    return DryRun(
        run_folder=run_folder.path,
        first_step=first,
        max_steps=trainer.configs.max_steps,
        n_processes=dist.get_world_size(),
        n_trained=n_trained,
        n_frozen=count_parameters(trainer.start) - (0 if trainer.eba.lora_rank else n_trained),
        n_items=loader.epoch_length,
        items_per_step=trainer.iters_to_accumulate * dist.get_world_size(),
        largest=size_of(item),
        costs=costs,
        n_validations=n_validations,
        n_checkpoints=n_checkpoints,
        n_checkpoints_there=len(there),
        checkpoint_keep=trainer.checkpoint_keep,
        n_refreshes=n_refreshes(trainer, first),
        left_out=left_out,
        memory_limit=memory_limit,
        advice=_advice(trainer, index, item, costs.peaks, memory_limit),
    )


def _measure(
    trainer: EBATrainer, order: Sequence[int], index: int, item: Item, start: Memory
) -> Costs:
    """Measure all costs: the largest item first, because memory would end there."""
    meter, peaks = MemoryMeter(trainer.device), {"start": start}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        meter.restart()
        yield
        peaks[name] = meter.peak()

    with phase(_STEP):
        seconds_largest = _largest_step(trainer, index, item)
    memory = _parts(trainer, meter, peaks[_STEP])
    with phase("a checkpoint"):
        seconds_checkpoint = seconds_to_save(trainer)
    seconds_validation = 0.0
    if trainer.held_out is not None:
        with phase("a validation"):
            seconds_validation = seconds_per_validation(trainer)
    checkpoint_bytes, model_bytes = bytes_on_disk(trainer)
    typical = typical_items(order, trainer.iters_to_accumulate)
    return Costs(
        seconds_largest=seconds_largest,
        seconds_typical=seconds_per_step(trainer, typical),
        seconds_validation=seconds_validation,
        seconds_checkpoint=seconds_checkpoint,
        seconds_temperature=trainer.seconds_temperature,
        memory=_most(memory),
        peaks=_most(peaks),
        checkpoint_bytes=checkpoint_bytes,
        model_bytes=model_bytes,
    )


def _largest_step(trainer: EBATrainer, index: int, item: Item) -> float:
    """Return the seconds of a step of the largest item.

    Raises:
        UserError: Memory does not suffice for it; says what to change.
    """
    found: list[float] = []
    items = [index] * trainer.iters_to_accumulate * _N_LARGEST
    if passes(lambda: found.append(seconds_per_step(trainer, items))):
        return found[0]
    size, hint = size_of(item), "a dry run on one process says which key to change"
    if dist.get_world_size() == 1:
        hint = advise(trainer, index, item, lambda peak: True).sentence
    raise UserError(
        f"memory does not suffice for the largest item, {size.n_tokens} residues of {size.target} "
        f"with {trainer.eba.n_conformers} conformers x {trainer.eba.n_noise} noise samples",
        hint,
    )


def _advice(
    trainer: EBATrainer, index: int, item: Item, peaks: dict[str, Memory], limit: int | None
) -> Change | None:
    """Return what to change if a peak is above the limit, else None.

    The trainer is of no use afterwards.
    """

    def fits(peak: Memory) -> bool:
        return limit is None or (peak.device if trainer.use_cuda else peak.host) <= limit

    return None if all(map(fits, peaks.values())) else advise(trainer, index, item, fits)


def _check(trainer: EBATrainer) -> tuple[SequenceCoupledLoader, tuple[LeftOut, ...]]:
    """Read all data; return the loader of what is trained on, and what is left out."""
    read: Loader
    if isinstance(trainer, OnPolicyTrainer):
        trainer.loader = first_round_loader(trainer)
        read = md_loader(trainer) or trainer.loader
    else:
        read = trainer.loader
    loaders = [one for one in (trainer.loader, read, trainer.held_out) if one is not None]
    known = [one for one in loaders if isinstance(one, SequenceCoupledLoader)]
    if len(known) < len(loaders):
        raise _unmeasured(f"the dataloader {trainer.eba.dataloader}", "a SequenceCoupledLoader")
    found: list[LeftOut] = []
    if trainer.eba.labels:
        targets = {name for one in known for name in one.targets}
        found += unlabelled(trainer.eba, used_replicas(trainer.eba, targets))
    for one in known[1:]:
        found += check_data(one, trainer.eba, trainer.configs)
    return known[0], tuple(found)


def _unmeasured(found: str, expected: str) -> UserError:
    return UserError(
        f"--dry-run: expected {expected}, found {found}, whose items are not known beforehand",
        "leave --dry-run out, and try a small --max_steps under another --run_name",
    )


def _parts(trainer: EBATrainer, meter: MemoryMeter, peak: Memory) -> dict[str, Memory]:
    """Divide the peak of a step into what stays, gradients, activations and the program itself."""
    parts, rest = permanent_parts(trainer), meter.now()
    gradients = parts.pop("gradients")
    known = sum(parts.values(), Memory())
    return {
        **parts,
        "gradients": gradients,
        "activations": (peak - rest - gradients).largest(Memory()),
        "program, libraries and data": (rest - known).largest(Memory()),
    }


def _most(memory: dict[str, Memory]) -> dict[str, Memory]:
    """Return the largest value of each name over all processes."""
    most = dict(memory)
    for row in gather_rows([dict(memory)]):
        most = {name: value.largest(row[name]) for name, value in most.items()}
    return most
