"""What a dry run finds out: what a training run would do, cost and leave out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from protenix_eba.training.rehearse.data_check import LeftOut
from protenix_eba.training.rehearse.memory_advice import Change
from protenix_eba.training.rehearse.peak_memory import Memory
from protenix_eba.training.rehearse.rehearsal import ItemSize

__all__ = ["Costs", "DryRun"]


@dataclass(frozen=True)
class Costs:
    """What was measured.

    Attributes:
        seconds_largest: Seconds of a step of the largest item.
        seconds_typical: Seconds of a step, as the mean over an epoch.
        seconds_validation: Seconds of a validation, without its samples; 0 if nothing is held out.
        seconds_checkpoint: Seconds that it takes to save a checkpoint.
        seconds_temperature: Seconds in which T was measured; 0 if it is a number, or known.
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
    seconds_temperature: float
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
        n_refreshes: Refreshes of a replay buffer from `first_step` to `max_steps`.
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
    n_refreshes: int
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
        """Seconds of all steps, validations and checkpoints from `first_step` to `max_steps`.

        T is measured before. Samples of a replay buffer and their labels come on top.
        """
        return (
            max(0, self.max_steps - self.first_step) * self.costs.seconds_typical
            + self.n_validations * self.costs.seconds_validation
            + self.n_checkpoints * self.costs.seconds_checkpoint
            + self.costs.seconds_temperature
        )

    @property
    def disk_bytes(self) -> int:
        """The most that the run folder takes, while a checkpoint is written."""
        there, new = self.n_checkpoints_there, self.n_checkpoints
        n_most = max(there + min(new, 1), min(there + new, self.checkpoint_keep + 1))
        return n_most * self.costs.checkpoint_bytes + self.costs.model_bytes
