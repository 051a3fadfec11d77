"""Fine-tuning of the diffusion module on conformers: a DeepSpeed engine in Protenix's trainer."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from protenix.utils.distributed import DIST_WRAPPER
from protenix.utils.lr_scheduler import get_lr_scheduler
from protenix.utils.seed import seed_everything
from runner.train import AF3Trainer
from torch import Tensor

from protenix_eba.config import EBAConfig, section_from
from protenix_eba.data.features import to_device
from protenix_eba.data.loader import Item
from protenix_eba.diffusion import ConformerDenoiser, add_noise, denoising_errors
from protenix_eba.engine import make_engine, start_distributed, trainable
from protenix_eba.errors import UserError
from protenix_eba.files import write_json
from protenix_eba.losses import DenoisingErrors
from protenix_eba.objectives import Objective, ObjectiveInput, alignment_metrics
from protenix_eba.plugin_api import DATALOADERS, LOSSES, TRAINERS
from protenix_eba.progress import console, progress_bar
from protenix_eba.run_folder import RunFolder
from protenix_eba.weights import (
    DIFFUSION_PREFIX,
    build_diffusion_module,
    count_parameters,
    freeze,
    load_checkpoint,
    save_checkpoint,
    trunk_fingerprint,
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
        configs: Resolved configuration with the section `eba`.
    """

    def __init__(self, configs: Any) -> None:
        self.eba = section_from(configs.eba, EBAConfig)
        self._stop = False
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
        """The log is a CSV file; nothing has to be opened."""

    def init_model(self) -> None:
        """The diffusion module of the start checkpoint, with its optimizer and schedule."""
        if not self.configs.load_checkpoint_path:
            raise UserError(
                "load_checkpoint_path is not set: fine-tuning needs a start",
                "give a Protenix checkpoint, or make a random one with `protenix-eba init`",
            )
        self.start = load_checkpoint(self.configs.load_checkpoint_path)
        module = build_diffusion_module(self.configs, self.start)
        freeze(module, self.eba.trainable)
        self.raw_model = self.model = ConformerDenoiser(module).to(self.device)
        self.optimizer = torch.optim.Adam(
            trainable(self.model),
            lr=self.configs.adam.lr,
            betas=(self.configs.adam.beta1, self.configs.adam.beta2),
            weight_decay=self.configs.adam.weight_decay,
        )
        self.lr_scheduler = get_lr_scheduler(self.configs, self.optimizer)
        self._frozen = self._frozen_digest()
        n_trained = sum(p.numel() for p in trainable(self.model))
        self.print(
            f"training {n_trained:,} of {count_parameters(self.start):,} parameters "
            f"({', '.join(self.eba.trainable)}); the rest is frozen"
        )

    def init_loss(self) -> None:
        """The objective, and a frozen copy of the start if it needs one."""
        self.objective: Objective = LOSSES.get(self.eba.objective)(self.eba)
        self.reference: ConformerDenoiser | None = None
        if self.objective.needs_reference:
            self.reference = copy.deepcopy(self.raw_model).requires_grad_(False).eval()

    def init_data(self) -> None:
        """The loaders, on the embeddings of this trunk: to train on, and held out."""
        make = DATALOADERS.get(self.eba.dataloader)
        common = {
            "seed": self.configs.seed,
            "trunk": trunk_fingerprint(self.start),
            "n_cycles": self.configs.model.N_cycle,
        }
        self.loader = make(self.eba, replicas=self.eba.replicas, **common)
        self.held_out = None
        if self.eba.validation_items < DIST_WRAPPER.world_size:
            raise UserError(
                f"eba.validation_items: expected at least one for each of the "
                f"{DIST_WRAPPER.world_size} processes, found {self.eba.validation_items}"
            )
        if self.eba.validation_replicas:
            self.held_out = make(self.eba, replicas=self.eba.validation_replicas, **common)

    def try_load_checkpoint(self) -> None:
        """The engine, and the newest whole checkpoint of this run."""
        self.engine = make_engine(
            self.raw_model,
            self.optimizer,
            self.lr_scheduler,
            accumulate=self.iters_to_accumulate,
            clip_norm=self.configs.grad_clip_norm,
            zero_stage=0,
        )
        for step in self.folder.complete_steps():
            try:
                self.engine.load_checkpoint(str(self.folder.checkpoints), self.folder.tag(step))
            except Exception as error:  # a cut file raises whatever its reader raises
                self.print(f"checkpoint of step {step} cannot be read, trying an older: {error}")
                continue
            self.step = step
            self.print(f"resumed {self.folder.path} at step {step}")
            break
        if DIST_WRAPPER.rank == 0:
            self.folder.truncate_logs(self.step)

    # The loop.

    def run(self) -> None:
        """Train to `max_steps`, saving on the way; a signal saves and stops."""
        if self.step >= self.configs.max_steps and self.folder.model.is_file():
            self.print(f"{self.folder.path} is finished ({self.step} steps)")
            return
        with self._graceful_signals(), progress_bar() as bar:
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
                metrics = self.train_step()
                bar.update(task, advance=1, note=f"loss {metrics['loss']:.4g}")
                self._log(metrics)
                if self._stop or self._due(self.configs.checkpoint_interval):
                    self.save_checkpoint()
        if self._stop:
            self.print(f"stopped at step {self.step}: the same command goes on from here")
            raise KeyboardInterrupt
        self.save_checkpoint()
        self.evaluate()
        self.export()

    def _due(self, interval: int) -> bool:
        return interval > 0 and self.step % interval == 0

    def train_step(self, batch: dict[str, Any] | None = None) -> dict[str, float]:
        """One optimizer step over `iters_to_accumulate` items on each process.

        Returns:
            Metrics, averaged over the items of all processes.
        """
        started = time.perf_counter()
        self.engine.train()
        world = DIST_WRAPPER.world_size
        first = self.step * self.iters_to_accumulate * world
        sums: dict[str, float] = {}
        for micro in range(self.iters_to_accumulate):
            index = first + micro * world + DIST_WRAPPER.rank
            for name, value in self._train_item(index).items():
                sums[name] = sums.get(name, 0.0) + value / self.iters_to_accumulate
        if self._bad_in_a_row >= MOST_BAD_ITEMS:
            raise UserError(
                f"{self._bad_in_a_row} items in a row had a loss that is not finite; they are "
                f"listed in {self.folder.errors}",
                "lower lr or eba.diffusion_temperature, and look at the frames listed",
            )
        metrics = self._average(sums)
        metrics["lr"] = float(self.lr_scheduler.get_last_lr()[0])
        metrics["seconds"] = time.perf_counter() - started
        self.step += 1
        return metrics

    def _train_item(self, index: int) -> dict[str, float]:
        item: Item = self.loader[index]
        errors, view = self._look(item, self.loader.generator(index))
        loss = self.objective.loss(view)
        metrics = {
            "loss": float(loss.detach()),
            "mse": float(errors.mse.detach().mean()),
            "lddt": float(errors.lddt.detach().mean()),
            **alignment_metrics(self.eba, view),
        }
        bad = not math.isfinite(metrics["loss"])
        if bad:
            self._record_bad(index, item, metrics["loss"])
        skipped = self._any_rank(bad)
        self._bad_in_a_row = self._bad_in_a_row + 1 if skipped else 0
        if skipped:  # on all processes, which must take part in the same reductions
            loss = torch.stack([p.sum() for p in trainable(self.raw_model)]).sum() * 0.0
        self.engine.backward(loss)
        self.engine.step()
        return metrics | {"skipped": float(skipped)}

    def _look(
        self, item: Item, generator: torch.Generator
    ) -> tuple[DenoisingErrors, ObjectiveInput]:
        """Errors of the model and, if the objective asks for it, of the reference."""
        coordinates, mask = item.coordinates.to(self.device), item.mask.to(self.device)
        noise = self.configs.train_noise_sampler
        noisy = add_noise(
            coordinates,
            mask,
            n_noise=self.eba.n_noise,
            noise_mean=noise.p_mean,
            noise_std=noise.p_std,
            sigma_data=noise.sigma_data,
            generator=generator,
        )
        features = to_device(item.features, self.device)
        rest = (features, item.embeddings.to(self.device), noisy, coordinates, mask)
        errors = denoising_errors(self.engine, *rest)
        reference = None
        if self.reference is not None:
            with torch.no_grad():
                reference = self._total(denoising_errors(self.reference, *rest))
        energy = item.energy_kj_mol.to(self.device)
        return errors, ObjectiveInput(self._total(errors), reference, energy, item.n_residues)

    def _total(self, errors: DenoisingErrors) -> Tensor:
        return errors.total(
            weight_mse=self.eba.weight_mse,
            weight_lddt=self.eba.weight_lddt,
            sigma_data=self.configs.sigma_data,
        )

    @torch.no_grad()
    def evaluate(self, mode: str = "eval") -> None:
        """Metrics of held-out conformers, the same items and noise each time, to validation.csv."""
        if self.held_out is None:
            return
        self.engine.eval()
        sums: dict[str, float] = {}
        mine = range(DIST_WRAPPER.rank, self.eba.validation_items, DIST_WRAPPER.world_size)
        for index in mine:
            item: Item = self.held_out[index]
            errors, view = self._look(item, self.held_out.generator(index))
            values = {"mse": float(errors.mse.mean()), "lddt": float(errors.lddt.mean())}
            values |= alignment_metrics(self.eba, view)
            for name, value in values.items():
                share = value * DIST_WRAPPER.world_size / self.eba.validation_items
                sums[name] = sums.get(name, 0.0) + share
        metrics = self._average(sums)
        if DIST_WRAPPER.rank == 0:
            self.folder.append_row(self.folder.validation, {"step": self.step, **metrics})

    # What all processes agree on.

    def _any_rank(self, flag: bool) -> bool:
        if DIST_WRAPPER.world_size == 1:
            return flag
        shared = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return bool(shared.item() > 0)

    def _average(self, metrics: dict[str, float]) -> dict[str, float]:
        values = torch.tensor(list(metrics.values()), dtype=torch.float64, device=self.device)
        if DIST_WRAPPER.world_size > 1:
            dist.all_reduce(values)
            values /= DIST_WRAPPER.world_size
        self._stop = self._any_rank(self._stop)
        return dict(zip(metrics, values.tolist(), strict=True))

    def _record_bad(self, index: int, item: Item, loss: float) -> None:
        """Write down an item whose loss is not finite."""
        write_json(
            self.folder.errors / f"item_{index}.json",
            {"step": self.step, "target": item.target, "frames": item.frames, "loss": str(loss)},
        )

    # What stays.

    def save_checkpoint(self, ema_suffix: str = "") -> None:
        """Model, optimizer and schedule; whole once `complete.json` stands beside them."""
        tag = self.folder.tag(self.step)
        self.engine.save_checkpoint(str(self.folder.checkpoints), tag, save_latest=False)
        dist.barrier()
        if DIST_WRAPPER.rank == 0:
            self.folder.mark_complete(self.step, self.eba.checkpoint_keep)

    def export(self) -> None:
        """Write `model.pt`: the start with its diffusion module replaced, for stock Protenix.

        Raises:
            RuntimeError: A frozen weight has changed (a defect of ours).
        """
        if self._frozen_digest() != self._frozen:
            raise RuntimeError("a frozen weight changed during training")
        if DIST_WRAPPER.rank == 0:
            trained = self.raw_model.diffusion_module.state_dict()
            save_checkpoint(
                self.folder.model,
                self.start | {DIFFUSION_PREFIX + key: value for key, value in trained.items()},
            )
        dist.barrier()
        self.print(f"wrote {self.folder.model}")

    def _frozen_digest(self) -> str:
        digest = hashlib.sha256()
        for parameter in self.raw_model.parameters():
            if not parameter.requires_grad:
                digest.update(parameter.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def _log(self, metrics: dict[str, float]) -> None:
        last = self.step == self.configs.max_steps
        if DIST_WRAPPER.rank == 0 and (last or self.step % self.configs.log_interval == 0):
            self.folder.append_row(self.folder.log, {"step": self.step, **metrics})

    @contextlib.contextmanager
    def _graceful_signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM (a preempted job) finish the step, save and leave."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._stop = True

        before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def print(self, msg: str) -> None:
        """To the terminal, from the first process only."""
        if DIST_WRAPPER.rank == 0:
            console.print(msg, markup=False, soft_wrap=True)
            logging.getLogger(__name__).debug(msg)
