"""Fine-tuning of the diffusion module on conformers: a DeepSpeed engine in Protenix's trainer."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from protenix.utils.distributed import DIST_WRAPPER
from protenix.utils.lr_scheduler import get_lr_scheduler
from protenix.utils.seed import seed_everything
from runner.train import AF3Trainer

from protenix_eba.checkpoints import Checkpoints, wants_universal
from protenix_eba.compat import DATALOADERS, LOSSES, TRAINERS
from protenix_eba.config import EBAConfig, check_ranges, section_from
from protenix_eba.data.item import Item
from protenix_eba.data.prefetch import prefetch
from protenix_eba.ema import Ema
from protenix_eba.engine import (
    engine_settings,
    gathered,
    make_engine,
    start_distributed,
    trainable,
    zero_stage,
)
from protenix_eba.errors import UserError
from protenix_eba.files import sha256_of_file, write_json
from protenix_eba.lora import merged_state
from protenix_eba.model import build_denoiser, frozen_digest, make_optimizer
from protenix_eba.objectives import Objective
from protenix_eba.progress import console, progress_bar
from protenix_eba.ranks import any_rank, average
from protenix_eba.reference import make_reference
from protenix_eba.run_folder import RunFolder
from protenix_eba.runlog import RunLog, WandbSettings, open_run_log
from protenix_eba.signals import StopSignals
from protenix_eba.step import ItemStep, NoiseSettings, backwards_per_item
from protenix_eba.validation import Validation
from protenix_eba.weights import (
    count_parameters,
    load_checkpoint,
    save_checkpoint,
    start_fingerprints,
)

__all__ = ["EBATrainer"]

MOST_BAD_ITEMS = 20


@TRAINERS.register("eba")
class EBATrainer(AF3Trainer):
    """Trains the diffusion module with any registered objective; the trunk is never loaded.

    What is drawn (conformers, noise, orientations) depends on the seed and the number of the item
    only, so the result is the same on any number of processes at the same global batch, and after
    any interruption.

    Args:
        configs: Resolved configuration with the sections `eba` and `deepspeed`.
    """

    def __init__(self, configs: Any) -> None:
        self.eba = section_from(configs.eba, EBAConfig)
        check_ranges(configs)
        self.deepspeed = configs.deepspeed.to_dict()
        self.signals = StopSignals()
        self._stop = False  # what all processes agreed on
        self._saved_step = -1
        self._bad_in_a_row = 0
        super().__init__(configs)

    # The host's __init__ calls what follows, in this order.

    def init_env(self) -> None:
        """Device, process group and seeds; the host's own insists on NCCL."""
        self.use_cuda = torch.cuda.is_available()
        index = DIST_WRAPPER.local_rank
        self.device = torch.device(f"cuda:{index}" if self.use_cuda else "cpu")
        if self.use_cuda:
            torch.cuda.set_device(self.device)
            torch.backends.cuda.matmul.allow_tf32 = self.configs.enable_tf32
        start_distributed(self.device)
        seed_everything(self.configs.seed, self.configs.deterministic)

    def init_basics(self) -> None:
        """The run folder `base_dir/run_name`: without a time in its name it can be resumed."""
        self.step = 0
        self.iters_to_accumulate = self.configs.iters_to_accumulate
        self.folder = RunFolder(Path(self.configs.base_dir) / self.configs.run_name)
        self.error_dir = str(self.folder.errors)
        if DIST_WRAPPER.rank == 0:
            self.folder.claim(self.configs.to_dict())

    def init_log(self) -> None:
        """The logs are opened once it is known at which step the run goes on."""

    def init_model(self) -> None:
        """The diffusion module of the start checkpoint, with its optimizer and schedule."""
        if not self.configs.load_checkpoint_path:
            raise UserError(
                "load_checkpoint_path is not set: fine-tuning needs a start",
                "give a Protenix checkpoint, or make a random one with `protenix-eba init`",
            )
        self.start = load_checkpoint(self.configs.load_checkpoint_path)
        self.pinned = start_fingerprints(self.start)
        if DIST_WRAPPER.rank == 0:
            batch = self.iters_to_accumulate * DIST_WRAPPER.world_size
            labels = Path(self.eba.labels)
            known = {"labels": sha256_of_file(labels)[:16]} if labels.is_file() else {}
            self.folder.pin({**self.pinned, **known, "global batch": batch})
        self.raw_model = self.model = build_denoiser(self.configs, self.start).to(self.device)
        self.optimizer = make_optimizer(self.configs, self.raw_model)
        self.lr_scheduler = get_lr_scheduler(self.configs, self.optimizer)
        self._frozen = frozen_digest(self.raw_model)
        n_trained = sum(p.numel() for p in trainable(self.model))
        self.print(
            f"training {n_trained:,} of {count_parameters(self.start):,} parameters "
            f"({', '.join(self.eba.trainable)}"
            f"{f', rank {self.eba.lora_rank}' if self.eba.lora_rank else ''}); the rest is frozen"
        )

    def init_loss(self) -> None:
        """The objective, and the frozen start beside the model if it needs one."""
        self.objective: Objective = LOSSES.get(self.eba.objective)(self.eba)
        self.reference = None
        if self.objective.needs_reference:
            split = zero_stage(self.deepspeed) == 3
            self.reference = make_reference(self.raw_model, self.folder.reference, split=split)

    def init_data(self) -> None:
        """The loaders, on the embeddings of this trunk: to train on, and held out."""
        make = DATALOADERS.get(self.eba.dataloader)
        common = {
            "seed": self.configs.seed,
            "trunk": self.pinned["trunk"],
            "n_cycles": self.configs.model.N_cycle,
            "batch_items": self.iters_to_accumulate * DIST_WRAPPER.world_size,
        }
        self.loader = make(self.eba, held_out=False, **common)
        self.held_out = make(self.eba, held_out=True, **common)
        if self.held_out is not None and self.eba.validation_items < DIST_WRAPPER.world_size:
            raise UserError(
                f"eba.validation_items: expected at least one for each of the "
                f"{DIST_WRAPPER.world_size} processes, found {self.eba.validation_items}"
            )

    def try_load_checkpoint(self) -> None:
        """The engine, and the newest whole checkpoint of this run."""
        universal = wants_universal(self.folder, self.deepspeed, self.device)
        at_once = self.configs.diffusion_chunk_size or self.eba.n_noise
        settings = engine_settings(
            self.deepspeed,
            accumulate=self.iters_to_accumulate * backwards_per_item(self.eba, at_once),
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
        noise = self.configs.train_noise_sampler
        self.items = ItemStep(
            self.engine,
            self.objective,
            self.eba,
            NoiseSettings(noise.p_mean, noise.p_std, noise.sigma_data),
            self.device,
            self.reference,
            at_once,
        )

    # The loop.

    def run(self) -> None:
        """Train to `max_steps`, saving on the way; a signal saves and stops."""
        if self.folder.is_finished(self.configs.max_steps):
            self.print(f"{self.folder.path} is finished ({self.configs.max_steps} steps)")
            return
        if DIST_WRAPPER.rank == 0:
            self.folder.truncate_logs(self.step)
        steps = range(self.step, self.configs.max_steps)
        mine = self.loader.share(steps, DIST_WRAPPER.rank, DIST_WRAPPER.world_size)
        with (
            self.signals,
            progress_bar() as bar,
            contextlib.closing(self._open_log()) as self.runlog,
            contextlib.closing(prefetch(self.loader, mine)) as self.coming,
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
                metrics = self.train_step()
                bar.update(task, advance=1, note=self._note(metrics))
                self._log(metrics)
                if self._stop or self._due(self.configs.checkpoint_interval):
                    self.save_checkpoint()
            if self._saved_step != self.step:
                self.save_checkpoint()
            if not self._stop:
                self.evaluate()
        self._leave()

    def _leave(self) -> None:
        """Check that frozen weights are the same, bit for bit; then part from the other processes.

        Raises:
            RuntimeError: They are not (a defect of ours).
            KeyboardInterrupt: A signal stopped the run.
        """
        if frozen_digest(self.raw_model) != self._frozen:
            raise RuntimeError("a frozen weight changed during training")
        if DIST_WRAPPER.rank == 0 and not self._stop:
            self.folder.finish(self.step)
        dist.barrier()
        dist.destroy_process_group()
        if self._stop:
            self.print(f"stopped at step {self.step}: the same command goes on from here")
            raise KeyboardInterrupt
        self.print(f"wrote {self.folder.model}")

    def _agree_to_stop(self) -> bool:
        self._stop = any_rank(self.signals.received, self.device)
        return self._stop

    def _due(self, interval: int) -> bool:
        return interval > 0 and self.step % interval == 0

    def _note(self, metrics: dict[str, float]) -> str:
        items = self.iters_to_accumulate * DIST_WRAPPER.world_size
        structures = items * self.eba.n_conformers * self.eba.n_noise
        rate = structures / max(metrics["seconds"], 1e-9)
        return f"loss {metrics['loss']:.4g} · {rate:.3g} structures/s"

    def train_step(self, batch: dict[str, Any] | None = None) -> dict[str, float]:
        """One optimizer step over `iters_to_accumulate` items on each process.

        Returns:
            Metrics, averaged over the items of all processes.
        """
        started = time.perf_counter()
        self.engine.train()
        sums: dict[str, float] = {}
        n_good = 0
        for _ in range(self.iters_to_accumulate):
            metrics, good = self._train_item()
            n_good += good
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + (value if good else 0.0)
        if self._bad_in_a_row >= MOST_BAD_ITEMS:
            raise UserError(
                f"{self._bad_in_a_row} items in a row had a loss that is not finite, or could not "
                f"be read; they are listed in {self.folder.errors}",
                "look at the frames listed; if they are whole, lower lr or "
                "eba.diffusion_temperature",
            )
        if self.ema is not None:
            self.ema.update()
        sums = {name: value / n_good if n_good else math.nan for name, value in sums.items()}
        metrics = average(sums, self.device)
        metrics["skipped"] = 1.0 - n_good / self.iters_to_accumulate
        self._agree_to_stop()
        metrics["lr"] = float(self.lr_scheduler.get_last_lr()[0])
        metrics["seconds"] = time.perf_counter() - started
        self.step += 1
        return metrics

    def _train_item(self) -> tuple[dict[str, float], bool]:
        """Add the gradient of the next item; says whether it was good on all processes."""
        waited = time.perf_counter()
        index, item = next(self.coming)
        waited = time.perf_counter() - waited
        view = self.items.look(item, self.loader.generator(index))
        loss = self.items.loss(view)
        metrics = self.items.metrics(view, loss)
        bad = bool(item.problem) or not math.isfinite(metrics["loss"])
        if bad:
            self._record_bad(index, item, metrics["loss"])
        skipped = any_rank(bad, self.device)
        self._bad_in_a_row = self._bad_in_a_row + 1 if skipped else 0
        # Skipped on all processes, which must take part in the same reductions.
        for term in self.items.nothing(view) if skipped else self.items.terms(view, loss):
            self.engine.backward(term)
            self.engine.step()
        return metrics | {"wait": waited}, not skipped

    @torch.no_grad()
    def evaluate(self, mode: str = "eval") -> None:
        """Measure on held-out conformers, the same items and noise each time."""
        if self.held_out is None:
            return
        self.engine.eval()
        with self.ema.applied() if self.ema else contextlib.nullcontext():
            validation = Validation(self.items, self.held_out, self.eba, self.device)
            metrics, rows = validation.measure()
            if self.eba.validation_samples:
                metrics |= validation.sample(self.raw_model, self.folder.samples, self.configs)
            best = DIST_WRAPPER.rank == 0 and self.folder.is_best(self.step, metrics["loss"])
            if any_rank(best, self.device):
                self._export(self.folder.best)
        if not math.isfinite(metrics["loss"]):
            bad = [str(row["target"]) for row in rows if not math.isfinite(row["loss"])]
            self.print(f"the held-out loss at step {self.step} is not finite: {', '.join(bad)}")
        if DIST_WRAPPER.rank == 0:
            if best:
                self.folder.mark_best(self.step, metrics["loss"])
            self.folder.append_row(self.folder.validation, {"step": self.step, **metrics})
            for row in rows:
                self.folder.append_row(self.folder.targets, {"step": self.step, **row})
            self.runlog.scalars(self.step, metrics, "validation")

    def _record_bad(self, index: int, item: Item, loss: float) -> None:
        """Write down an item that could not be read, or whose loss is not finite."""
        reason = item.problem or f"the loss is {loss}"
        if item.problem:
            console.print(f"skipped an item: {item.problem}", markup=False, soft_wrap=True)
        write_json(
            self.folder.errors / f"item_{index}.json",
            {"step": self.step, "target": item.target, "frames": item.frames, "reason": reason},
        )

    # What stays.

    def save_checkpoint(self, ema_suffix: str = "") -> None:
        """All that is needed to go on, and the weights for stock Protenix.

        Raises:
            UserError: Weights are not finite; nothing is written.
        """
        finite = all(bool(p.isfinite().all()) for p in trainable(self.raw_model))
        if any_rank(not finite, self.device):
            raise UserError(
                f"the weights are not finite after step {self.step}; nothing is saved from it",
                "look whether the start's weights are; then lower lr or eba.diffusion_temperature "
                "in a new run",
            )
        self._saved_step = self.step
        self.checkpoints.save(self.step, self.eba.checkpoint_keep)
        self._export(self.folder.model)
        if self.ema is not None:
            with self.ema.applied():
                self._export(self.folder.average)

    def _export(self, path: Path) -> None:
        """Write the start with what was trained replaced, as stock Protenix loads it."""
        with gathered(self.raw_model):
            if DIST_WRAPPER.rank == 0:
                save_checkpoint(path, self.start | merged_state(self.raw_model))
        dist.barrier()

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
        """To the terminal, from the first process only."""
        if DIST_WRAPPER.rank == 0:
            console.print(msg, markup=False, soft_wrap=True)
            logging.getLogger(__name__).debug(msg)
