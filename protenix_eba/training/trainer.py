"""Fine-tuning of the diffusion module on conformers: a DeepSpeed engine in Protenix's trainer."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from protenix.utils.distributed import DIST_WRAPPER
from protenix.utils.lr_scheduler import get_lr_scheduler
from runner.train import AF3Trainer
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import sha256_of_file
from protenix_eba.core.progress import tell
from protenix_eba.host.config import check_ranges, eba_config
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.environment import DATALOADERS, DATASETS, LOSSES, SAMPLERS, TRAINERS
from protenix_eba.host.lora import merged_state
from protenix_eba.host.weights import (
    count_parameters,
    load_checkpoint,
    save_checkpoint,
    start_fingerprints,
)
from protenix_eba.training.data.interfaces import EnsembleLoader, Loader
from protenix_eba.training.data.item import Item
from protenix_eba.training.data.prefetch import prefetch
from protenix_eba.training.engine import gathered, trainable, zero_stage
from protenix_eba.training.loop import TrainingLoop
from protenix_eba.training.model import build_denoiser, frozen_digest, make_optimizer
from protenix_eba.training.noise import NoiseSettings
from protenix_eba.training.objectives import Objective, error_weights
from protenix_eba.training.reference import make_reference
from protenix_eba.training.step import ItemStep, backwards_per_item
from protenix_eba.training.temperature import Calibration, measure_items, read_or_measure
from protenix_eba.training.validation import Validation

__all__ = ["EBATrainer"]


@TRAINERS.register("eba")
class EBATrainer(TrainingLoop, AF3Trainer):
    """Trains the diffusion module with any registered objective; the trunk is never loaded.

    What is drawn (conformers, noise, orientations) depends on the seed and the number of the item
    only.

    Args:
        configs: Resolved configuration with the sections `eba` and `deepspeed`.
    """

    raw_model: ConformerDenoiser
    seconds_temperature: float = 0.0  # in which T was measured, if it was

    def __init__(self, configs: Any) -> None:
        self.eba = eba_config(configs)
        check_ranges(configs)
        self._check_names()
        self.deepspeed = configs.deepspeed.to_dict()
        self.checkpoint_keep = self.eba.checkpoint_keep
        super().__init__(configs)

    def _check_names(self) -> None:
        """Check that the components that the section names are registered, before reading data."""
        for registry, name in (
            (LOSSES, self.eba.objective),
            (DATALOADERS, self.eba.dataloader),
            (DATASETS, self.eba.dataset),
            (SAMPLERS, self.eba.sampler),
        ):
            registry.get(name)

    # The host's __init__ calls what follows, in this order.

    def init_env(self) -> None:
        """Set up device, process group and seeds."""
        self.start_processes()

    def init_basics(self) -> None:
        """Open the run folder."""
        self.open_folder()
        self.error_dir = str(self.folder.errors)

    def init_log(self) -> None:
        """Do nothing: logs are opened once it is known at which step the run continues."""

    def init_model(self) -> None:
        """Build the diffusion module of the start checkpoint, its optimizer and schedule."""
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
        """Build the objective, and keep the frozen start beside the model if it needs one."""
        self.objective: Objective = LOSSES.get(self.eba.objective)(self.eba)
        self.reference = None
        if self.objective.needs_reference:
            split = zero_stage(self.deepspeed) == 3
            self.reference = make_reference(self.raw_model, self.folder.reference, split=split)

    def init_data(self) -> None:
        """Make the loaders of training and held-out data, on the embeddings of this trunk."""
        self.loader: Loader = self.make_loader(held_out=False)
        self.hold_out()
        if self.eba.diffusion_temperature == "auto":
            self._settle_temperature()

    def make_loader(self, *, held_out: bool) -> Any:
        """Make a loader as the section `eba` says; None if nothing is held out."""
        return DATALOADERS.get(self.eba.dataloader)(
            self.eba, held_out=held_out, **self.loader_arguments()
        )

    def loader_arguments(self) -> dict[str, Any]:
        """Return what a loader depends on besides the section `eba`, see `LoaderFactory`."""
        return {
            "seed": self.configs.seed,
            "trunk": self.pinned["trunk"],
            "n_cycles": self.configs.model.N_cycle,
            "batch_items": self.iters_to_accumulate * DIST_WRAPPER.world_size,
        }

    def hold_out(self) -> None:
        """Make the loader of what is held out, if anything is."""
        self.held_out: Loader | None = self.make_loader(held_out=True)
        if self.held_out is not None:
            self._check_validation(self.held_out)

    def _check_validation(self, held_out: Loader) -> None:
        if self.eba.validation_items < DIST_WRAPPER.world_size:
            raise UserError(
                f"eba.validation_items: expected at least one for each of the "
                f"{DIST_WRAPPER.world_size} processes, found {self.eba.validation_items}"
            )
        if self.eba.validation_samples and not isinstance(held_out, EnsembleLoader):
            raise UserError(
                f"eba.validation_samples: expected 0, found {self.eba.validation_samples}: the "
                f"dataloader {self.eba.dataloader} has no targets to sample",
                "set it to 0, or give the dataloader the members of EnsembleLoader",
            )

    def _settle_temperature(self) -> None:
        """Replace `auto` by a number measured on the start, before a checkpoint is loaded."""
        found = read_or_measure(self.folder.temperature, self._measure_start)
        temperature = self.objective.temperature_factor * found.slope
        self.eba = replace(self.eba, diffusion_temperature=temperature)
        self.objective = LOSSES.get(self.eba.objective)(self.eba)
        self.print(
            f"T = {temperature:.4g} (eba.diffusion_temperature: auto), from the start's errors on "
            f"{found.n_items} groups of conformers: slope {found.slope:.4g} with a standard error "
            f"of {found.standard_error:.2g}, correlation with the bound on -log p "
            f"{found.correlation:.2f}; a run keeps it in its {self.folder.temperature.name}"
        )

    def _measure_start(self) -> Calibration:
        self.raw_model.eval()
        started = time.perf_counter()
        weights, n_noise = error_weights(self.eba), self.eba.n_noise
        step = self.item_step(self.raw_model, None)
        found = measure_items(step, self.loader, weights, n_noise)
        self.seconds_temperature = time.perf_counter() - started
        return found

    def try_load_checkpoint(self) -> None:
        """Start the engine, find out where the run continues, and prepare its step."""
        self.start_engine(backwards_per_item(self.eba, self._noise_at_once()))
        self.items = self.item_step(self.engine, self.reference)

    def _noise_at_once(self) -> int:
        return self.configs.diffusion_chunk_size or self.eba.n_noise

    def item_step(
        self, denoiser: Callable[..., Tensor], reference: Callable[..., Tensor] | None
    ) -> ItemStep:
        """What a step does with an item, by the settings as they are now."""
        noise = self.configs.train_noise_sampler
        return ItemStep(
            denoiser,
            self.objective,
            self.eba,
            NoiseSettings(noise.p_mean, noise.p_std, noise.sigma_data),
            self.device,
            reference,
            self._noise_at_once(),
        )

    # What the loop asks for.

    def items_of(self, steps: range) -> Generator[tuple[int, Item], None, None]:
        """See `TrainingLoop`."""
        mine = self.loader.share(steps, DIST_WRAPPER.rank, DIST_WRAPPER.world_size)
        return prefetch(self.loader, mine)

    def leave(self) -> None:
        """Check that frozen weights are the same, bit for bit; then part from other processes.

        Raises:
            RuntimeError: They are not (a defect of ours).
            KeyboardInterrupt: A signal stopped the run.
        """
        if frozen_digest(self.raw_model) != self._frozen:
            raise RuntimeError("a frozen weight changed during training")
        super().leave()

    def note(self, metrics: dict[str, float]) -> str:
        """See `TrainingLoop`."""
        items = self.iters_to_accumulate * DIST_WRAPPER.world_size
        structures = items * self.eba.n_conformers * self.eba.n_noise
        rate = structures / max(metrics["seconds"], 1e-9)
        return f"loss {metrics['loss']:.4g} · {rate:.3g} structures/s"

    def advice(self) -> str:
        """See `TrainingLoop`."""
        return "lower lr or eba.diffusion_temperature"

    def train_item(self) -> tuple[dict[str, float], bool]:
        """Add the gradient of the next item; return whether it was good on all processes."""
        waited = time.perf_counter()
        index, item = next(self.coming)
        waited = time.perf_counter() - waited
        self.items.set_step(self.step)
        denoised = self.items.denoise(item, self.loader.generator(index))
        loss = self.items.loss(denoised)
        metrics = self.items.metrics(denoised, loss)
        reason = item.problem
        if reason:
            tell(f"skipped an item: {reason}")
        elif not math.isfinite(metrics["loss"]):
            reason = f"the loss is {metrics['loss']}"
        skipped = self.skips(index, reason, {"target": item.target, "frames": item.frames})
        for term in (
            self.items.zero_terms(denoised)
            if skipped
            else self.items.backward_terms(denoised, loss)
        ):
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
            self.record_validation(metrics, rows)
        if not math.isfinite(metrics["loss"]):
            bad = [str(row["target"]) for row in rows if not math.isfinite(row["loss"])]
            self.print(f"the held-out loss at step {self.step} is not finite: {', '.join(bad)}")

    def export(self, path: Path) -> None:
        """Write the start with the trained weights in it, as stock Protenix loads it."""
        with gathered(self.raw_model):
            if DIST_WRAPPER.rank == 0:
                save_checkpoint(path, self.start | merged_state(self.raw_model))
        dist.barrier()
