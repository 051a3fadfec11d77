"""A dry run: a training run's own trainer and data in a scratch folder, for a few steps.

What the run would cost is measured on the largest item that the data can give, and on items that
stand for equal shares of an epoch.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch.distributed as dist
from protenix.utils.distributed import DIST_WRAPPER

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import check_place
from protenix_eba.core.ranks import gather_rows
from protenix_eba.core.run_folder import RunFolder
from protenix_eba.host.weights import count_parameters
from protenix_eba.training.data.item import Item
from protenix_eba.training.data.loader import SequenceCoupledLoader
from protenix_eba.training.engine import trainable
from protenix_eba.training.rehearse.data_check import LeftOut, check_data, unlabelled
from protenix_eba.training.rehearse.memory_advice import Change, advise, passes
from protenix_eba.training.rehearse.peak_memory import (
    Memory,
    MemoryMeter,
    n_weights,
    permanent_parts,
)
from protenix_eba.training.rehearse.rehearsal import (
    ItemSize,
    bytes_on_disk,
    largest_item,
    n_repeats,
    order_by_size,
    seconds_per_step,
    seconds_per_validation,
    seconds_to_save,
    size_of,
    typical_items,
)
from protenix_eba.training.trainer import EBATrainer

__all__ = ["Costs", "DryRun", "dry_run"]

# Steps of the largest item: one that warms up, and those whose time counts.
_N_LARGEST: Final = 3
_STEP: Final = "a step of the largest item"


@dataclass(frozen=True)
class Costs:
    """What was measured.

    Attributes:
        seconds_largest: Seconds of a step of the largest item.
        seconds_typical: Seconds of a step, as the mean over an epoch.
        seconds_validation: Seconds of a validation, without its samples; 0 if nothing is held out.
        seconds_checkpoint: Seconds that it takes to save a checkpoint.
        memory: Parts of the peak of a step of the largest item, by name; of each part the most that
            any process takes.
        peaks: Peak of each phase, by its name; the most that any process takes.
        checkpoint_bytes: Size of one checkpoint on disk.
        model_bytes: Size of the models beside the checkpoints (model, average, best, reference).
    """

    seconds_largest: float
    seconds_typical: float
    seconds_validation: float
    seconds_checkpoint: float
    memory: dict[str, Memory]
    peaks: dict[str, Memory]
    checkpoint_bytes: int
    model_bytes: int


@dataclass(frozen=True)
class DryRun:
    """What a training run would do and cost.

    Attributes:
        run_folder: Folder that the run would write to; the dry run leaves it as it is.
        first_step: Step that the run would go on from; 0 for a new run.
        max_steps: Step that the run would end at.
        n_processes: Processes that train together.
        n_trained: Parameters that change.
        n_frozen: Parameters of the start that do not change.
        n_items: Items of an epoch.
        items_per_step: Items of a step, of all processes together.
        largest: The largest item that the data can give.
        costs: What was measured.
        n_validations: Validations from `first_step` to `max_steps`.
        n_checkpoints: Checkpoints that are saved from `first_step` to `max_steps`.
        n_checkpoints_there: Checkpoints that the run folder holds already.
        checkpoint_keep: Checkpoints that stay; while one is written there is one more.
        left_out: Frames that would have no part in the training.
        memory_limit: Bytes that a process may take, if they were given.
        advice: What to change if it takes more.
    """

    run_folder: Path
    first_step: int
    max_steps: int
    n_processes: int
    n_trained: int
    n_frozen: int
    n_items: int
    items_per_step: int
    largest: ItemSize
    costs: Costs
    n_validations: int
    n_checkpoints: int
    n_checkpoints_there: int
    checkpoint_keep: int
    left_out: tuple[LeftOut, ...]
    memory_limit: int | None = None
    advice: Change | None = None

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which each item is seen once."""
        return self.n_items / self.items_per_step

    @property
    def seconds_epoch(self) -> float:
        """Seconds of the steps of an epoch."""
        return self.steps_per_epoch * self.costs.seconds_typical

    @property
    def seconds_left(self) -> float:
        """Seconds of all steps, validations and checkpoints from `first_step` to `max_steps`."""
        return (
            max(0, self.max_steps - self.first_step) * self.costs.seconds_typical
            + self.n_validations * self.costs.seconds_validation
            + self.n_checkpoints * self.costs.seconds_checkpoint
        )

    @property
    def disk_bytes(self) -> int:
        """The most that the run folder takes, while a checkpoint is written."""
        there, new = self.n_checkpoints_there, self.n_checkpoints
        n_most = max(there + min(new, 1), min(there + new, self.checkpoint_keep + 1))
        return n_most * self.costs.checkpoint_bytes + self.costs.model_bytes


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
    if build is not EBATrainer:
        raise _unmeasured(f"the trainer {configs.trainer}", "the trainer eba")
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
        trainer = EBATrainer(configs)
        try:
            return _rehearse(trainer, run_folder, memory_limit)
        finally:
            dist.destroy_process_group()


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
    loaders = [one for one in (trainer.loader, trainer.held_out) if one is not None]
    known = [one for one in loaders if isinstance(one, SequenceCoupledLoader)]
    if len(known) < len(loaders):
        raise _unmeasured(f"the dataloader {trainer.eba.dataloader}", "a SequenceCoupledLoader")
    found: list[LeftOut] = []
    if trainer.eba.labels:
        targets = sorted({name for one in known for name in one.targets})
        found += unlabelled(trainer.eba.path("labels"), targets)
    for one in known:
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
