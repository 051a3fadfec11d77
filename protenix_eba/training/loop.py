"""The loop of a training run: steps, validations, checkpoints and logs, for any model."""

from __future__ import annotations

import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from protenix.utils.distributed import DIST_WRAPPER
from protenix.utils.seed import seed_everything

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import write_json
from protenix_eba.core.progress import progress_bar, tell
from protenix_eba.core.ranks import any_rank, average
from protenix_eba.core.run_folder import RunFolder
from protenix_eba.core.runlog import RunLog, WandbSettings, open_run_log
from protenix_eba.core.signals import StopSignals, Terminated
from protenix_eba.training.checkpoints import Checkpoints, wants_universal
from protenix_eba.training.ema import Ema
from protenix_eba.training.engine import engine_settings, make_engine, start_distributed, trainable

__all__ = ["BadItemsError", "StoppedError", "TrainingLoop"]

# So many in a row, and the data or the settings are at fault.
MOST_BAD_ITEMS = 20
# Metrics of an item, and whether it was good on all processes.
ItemResult = tuple[dict[str, float], bool]


class StoppedError(Exception):
    """A signal came while a step waited for its items; no process has begun the step."""


class BadItemsError(UserError):
    """Too many items in a row that cannot be used.

    Args:
        count: How many.
        folder: Folder in which they are listed.
        reason: Why the last one cannot be used; empty if another process knows.
        advice: What to do where the items are whole.
    """

    def __init__(self, count: int, folder: Path, reason: str, advice: str) -> None:
        super().__init__(
            f"{count} items in a row had a loss that is not finite, or could not be read; they are "
            f"listed in {folder}",
            f"look at what is listed; if it is whole, {advice}",
        )
        self.count, self.reason, self.advice = count, reason, advice


class TrainingLoop(ABC):
    """The loop that trainers share, with a DeepSpeed engine and a run folder to resume from.

    A trainer sets the attributes, then calls `start_engine`; it trains one item at a time, measures
    itself and writes its weights. What is drawn may depend on the seed and an item's number only,
    so that the result is the same on any number of processes at the same global batch, and after
    any interruption.

    Attributes:
        configs: Resolved configuration.
        deepspeed: Its section `deepspeed`.
        checkpoint_keep: How many of the newest checkpoints stay on disk.
        folder: Folder of the run.
        device: Device of this process.
        raw_model: What is trained.
        optimizer: Over its weights that are not frozen.
        lr_scheduler: Learning rate schedule of the optimizer.
        iters_to_accumulate: Items of each process in a step.
        step: Optimizer steps done.
    """

    configs: Any
    deepspeed: dict[str, Any]
    checkpoint_keep: int
    folder: RunFolder
    device: torch.device
    raw_model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    lr_scheduler: Any
    iters_to_accumulate: int
    step: int

    @abstractmethod
    def items_of(self, steps: range) -> Generator[tuple[int, Any], None, None]:
        """Yield this process's items of some steps, each with its number; closed at the end.

        Raises:
            StoppedError: A signal came, to any process; all raise it, before a step's first item.
        """

    @abstractmethod
    def train_item(self) -> ItemResult:
        """Add the gradient of the next item of `self.coming`."""

    @abstractmethod
    def evaluate(self) -> None:
        """Measure the model on what is held out."""

    @abstractmethod
    def export(self, path: Path) -> None:
        """Write the weights in the form in which users load them."""

    @abstractmethod
    def note(self, metrics: dict[str, float]) -> str:
        """Return the text that stands beside the progress bar after a step."""

    @abstractmethod
    def advice(self) -> str:
        """Return what a user can do when the loss or the weights are not finite."""

    # Before the loop.

    def start_processes(self) -> None:
        """Set up device, process group and seeds; Protenix's own function insists on NCCL."""
        self.use_cuda = torch.cuda.is_available()
        index = DIST_WRAPPER.local_rank
        self.device = torch.device(f"cuda:{index}" if self.use_cuda else "cpu")
        if self.use_cuda:
            torch.cuda.set_device(self.device)
            torch.backends.cuda.matmul.allow_tf32 = self.configs.enable_tf32
        start_distributed(self.device)
        seed_everything(self.configs.seed, self.configs.deterministic)

    def open_folder(self, suffix: str = ".pt") -> None:
        """Open the run folder `base_dir/run_name`: without a time in its name it can be resumed.

        Args:
            suffix: Suffix of the files with weights.
        """
        self.signals = StopSignals()
        self._stop = False  # what all processes agreed on
        self._saved_step = -1
        self._bad_in_a_row = 0
        self.step = 0
        self.iters_to_accumulate = self.configs.iters_to_accumulate
        self.folder = RunFolder(Path(self.configs.base_dir) / self.configs.run_name, suffix)
        if DIST_WRAPPER.rank == 0:
            self.folder.claim(self.configs.to_dict())

    def start_engine(self, backwards_per_item: int) -> None:
        """Start the engine and load the newest whole checkpoint of this run.

        Args:
            backwards_per_item: Backward passes of an item.
        """
        universal = wants_universal(self.folder, self.deepspeed, self.device)
        settings = engine_settings(
            self.deepspeed,
            accumulate=self.iters_to_accumulate * backwards_per_item,
            clip_norm=self.configs.grad_clip_norm,
        )
        if universal:
            settings["checkpoint"] = settings.get("checkpoint", {}) | {"load_universal": True}
        self.engine = make_engine(self.raw_model, self.optimizer, self.lr_scheduler, settings)
        self.ema = None
        if self.configs.ema_decay > 0:
            self.ema = Ema(self.raw_model.named_parameters(), self.configs.ema_decay)
        self.checkpoints = Checkpoints(
            self.folder, self.engine, self.raw_model, self.ema, universal
        )
        self.step = self.checkpoints.resume(self.print)
        if self.step:
            self.print(f"resumed {self.folder.path} at step {self.step}")

    # The loop.

    def run(self) -> None:
        """Train to `max_steps`, saving on the way; a signal saves and stops."""
        if self.folder.is_finished(self.configs.max_steps):
            self.print(f"{self.folder.path} is finished ({self.configs.max_steps} steps)")
            return
        if DIST_WRAPPER.rank == 0:
            self.folder.truncate_logs(self.step)
        with (
            self.signals,
            progress_bar() as bar,
            contextlib.closing(self._open_log()) as self.runlog,
            contextlib.closing(
                self.items_of(range(self.step, self.configs.max_steps))
            ) as self.coming,
        ):
            task = bar.add_task(
                f"training {self.configs.run_name}",
                total=self.configs.max_steps,
                completed=self.step,
                note="",
                visible=DIST_WRAPPER.rank == 0,
            )
            while self.step < self.configs.max_steps and not self._stop:
                if self._due(self.configs.eval_interval):
                    self.evaluate()
                    if self._agree_to_stop():
                        break
                try:
                    metrics = self.train_step()
                except StoppedError:
                    self._stop = True
                    break
                bar.update(task, advance=1, note=self.note(metrics))
                self._log(metrics)
                if self._stop or self._due(self.configs.checkpoint_interval):
                    self.save_checkpoint()
            if self._saved_step != self.step:
                self.save_checkpoint()
            if not self._stop:
                self.evaluate()
        self.leave()

    def leave(self) -> None:
        """Part from the other processes.

        Raises:
            KeyboardInterrupt: A signal stopped the run; `Terminated` if it was SIGTERM.
        """
        if DIST_WRAPPER.rank == 0 and not self._stop:
            self.folder.finish(self.step)
        dist.barrier()
        dist.destroy_process_group()
        if self._stop:
            self.print(f"stopped at step {self.step}: the same command goes on from here")
            raise Terminated if self.signals.terminated else KeyboardInterrupt
        self.print(f"wrote {self.folder.model}")

    def _agree_to_stop(self) -> bool:
        self._stop = any_rank(self.signals.received, self.device)
        return self._stop

    def _due(self, interval: int) -> bool:
        return interval > 0 and self.step % interval == 0

    def train_step(self, batch: dict[str, Any] | None = None) -> dict[str, float]:
        """One optimizer step over `iters_to_accumulate` items on each process.

        Returns:
            Metrics, averaged over the good items of all processes.
        """
        started = time.perf_counter()
        self.engine.train()
        sums: dict[str, float] = {}
        n_good = 0
        for _ in range(self.iters_to_accumulate):
            metrics, good = self.train_item()
            n_good += good
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + (value if good else 0.0)
        if self.ema is not None:
            self.ema.update()
        nan = float("nan")
        sums = {name: value / n_good if n_good else nan for name, value in sums.items()}
        metrics = average(sums, self.device)
        metrics["skipped"] = 1.0 - n_good / self.iters_to_accumulate
        self._agree_to_stop()
        metrics["lr"] = float(self.lr_scheduler.get_last_lr()[0])
        metrics["seconds"] = time.perf_counter() - started
        self.step += 1
        return metrics

    def skips(self, index: int, reason: str, about: Mapping[str, Any]) -> bool:
        """Return whether all processes skip an item, because one of them cannot use its own.

        All take part in the same reductions, so a skipped item has to have a gradient of zero.

        Args:
            index: Number of this process's item.
            reason: Why it cannot be used; empty if it can.
            about: What else is written down beside the reason.

        Raises:
            BadItemsError: Too many in a row.
        """
        if reason:
            path = self.folder.errors / f"item_{index}.json"
            write_json(path, {"step": self.step, **about, "reason": reason})
        skipped = any_rank(bool(reason), self.device)
        self._bad_in_a_row = self._bad_in_a_row + 1 if skipped else 0
        if self._bad_in_a_row >= MOST_BAD_ITEMS:
            raise BadItemsError(self._bad_in_a_row, self.folder.errors, reason, self.advice())
        return skipped

    def record_validation(self, metrics: dict[str, float], rows: list[dict[str, Any]]) -> None:
        """Log a validation, and keep the weights if their held-out loss is the lowest so far.

        Args:
            metrics: Metrics of the validation, `loss` among them.
            rows: A row of metrics for each target.
        """
        best = DIST_WRAPPER.rank == 0 and self.folder.is_best(self.step, metrics["loss"])
        if any_rank(best, self.device):
            self.export(self.folder.best)
        if DIST_WRAPPER.rank == 0:
            if best:
                self.folder.mark_best(self.step, metrics["loss"])
            self.folder.append_row(self.folder.validation, {"step": self.step, **metrics})
            for row in rows:
                self.folder.append_row(self.folder.targets, {"step": self.step, **row})
            self.runlog.scalars(self.step, metrics, "validation")

    # What stays.

    def save_checkpoint(self, ema_suffix: str = "") -> None:
        """Save all that a run needs to continue, and the weights for users.

        Raises:
            UserError: Weights are not finite; nothing is written.
        """
        finite = all(bool(p.isfinite().all()) for p in trainable(self.raw_model))
        if any_rank(not finite, self.device):
            raise UserError(
                f"the weights are not finite after step {self.step}; nothing is saved from it",
                f"look whether the start's weights are; then {self.advice()} in a new run",
            )
        self._saved_step = self.step
        self.checkpoints.save(self.step, self.checkpoint_keep)
        self.export(self.folder.model)
        if self.ema is not None:
            with self.ema.applied():
                self.export(self.folder.average)

    def _open_log(self) -> RunLog:
        wandb = None
        if self.configs.use_wandb:
            run = (self.configs.project, self.configs.run_name, self.configs.wandb_id)
            wandb = WandbSettings(*run, self.configs.to_dict())
        silent = DIST_WRAPPER.rank != 0
        return open_run_log(self.folder.path, resume_step=self.step, wandb=wandb, silent=silent)

    def _log(self, metrics: dict[str, float]) -> None:
        last = self.step == self.configs.max_steps
        if DIST_WRAPPER.rank == 0 and (last or self._due(self.configs.log_interval)):
            self.folder.append_row(self.folder.log, {"step": self.step, **metrics})
            self.runlog.scalars(self.step, metrics, "train")

    def print(self, msg: str) -> None:
        """Print to the terminal, from the first process only."""
        if DIST_WRAPPER.rank == 0:
            tell(msg)
            logging.getLogger(__name__).debug(msg)
