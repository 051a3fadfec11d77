"""Training of the C-alpha score network by denoising score matching, in a DeepSpeed engine."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from protenix.utils.distributed import DIST_WRAPPER
from protenix.utils.lr_scheduler import get_lr_scheduler

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file, sha256_of_file
from protenix_eba.ebmfold.checkpoint import build_network, load_network, save_network
from protenix_eba.ebmfold.config import EBMFoldConfig
from protenix_eba.ebmfold.domain_loader import DomainLoader
from protenix_eba.ebmfold.domains import read_domains
from protenix_eba.ebmfold.held_out import HeldOut, held_out_decoys, held_out_loss
from protenix_eba.ebmfold.network import ScoreNetwork
from protenix_eba.ebmfold.score_matching import Batch, CropSettings, denoising_loss, draw_levels
from protenix_eba.host.config import check_ranges, section_from
from protenix_eba.host.environment import TRAINERS
from protenix_eba.training.data.prefetch import prefetch
from protenix_eba.training.engine import gathered, zero_stage
from protenix_eba.training.loop import TrainingLoop
from protenix_eba.training.model import make_optimizer

__all__ = ["EBMFoldTrainer", "fresh_network"]


def fresh_network(config: EBMFoldConfig, seed: int) -> ScoreNetwork:
    """Build the network that the section `ebmfold` describes, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _network(config)


def _network(config: EBMFoldConfig) -> ScoreNetwork:
    size = {"channels": config.channels}
    if config.network == "equivariant":
        return build_network(
            "equivariant", {**size, "n_layers": config.n_layers, "chiral": config.chiral}
        )
    levels = {"sigma_first": config.level_first, "sigma_last": config.level_last}
    settings = {**size, **levels, "n_blocks": config.n_layers}
    if config.network == "paper":
        return build_network("distance", {**settings, "n_levels": config.n_levels})
    return build_network("distance", {**settings, "corrected": True})


@TRAINERS.register("ebmfold")
class EBMFoldTrainer(TrainingLoop):
    """Trains a score network on crops of domains with stand-in predictions (Eq. 6-9).

    Args:
        configs: Resolved configuration with the sections `ebmfold` and `deepspeed`.
    """

    def __init__(self, configs: Any) -> None:
        self.configs = configs
        self.settings = section_from(configs.ebmfold, EBMFoldConfig)
        check_ranges(configs)
        if not self.settings.domains:
            raise UserError(
                "ebmfold.domains is not set: training needs structures",
                "make a set with scripts/make_domain_set.py, and give the file",
            )
        self.deepspeed = configs.deepspeed.to_dict()
        if zero_stage(self.deepspeed) == 3:
            raise UserError(
                "deepspeed.zero_optimization.stage: expected 0, 1 or 2, found 3",
                "the network is small enough for any device",
            )
        self.checkpoint_keep = self.settings.checkpoint_keep
        self.start_processes()
        self.open_folder(".safetensors")
        self._pin()
        self._read_domains()
        self._make_model()
        self.start_engine(backwards_per_item=1)

    def _pin(self) -> None:
        """Record what the run starts from, or check that it is the same when it continues."""
        if DIST_WRAPPER.rank:
            return
        domains = require_file(self.settings.domains, "ebmfold.domains")
        facts: dict[str, str | int] = {
            "domains": sha256_of_file(domains)[:16],
            "global batch": self.iters_to_accumulate * DIST_WRAPPER.world_size,
        }
        if self.configs.load_checkpoint_path:
            start = require_file(self.configs.load_checkpoint_path, "load_checkpoint_path")
            facts["start"] = sha256_of_file(start)[:16]
        self.folder.pin(facts)

    def _read_domains(self) -> None:
        """Read the domains to train on, and those held out."""
        settings = self.settings
        crops = CropSettings(
            settings.crop_sizes,
            settings.two_segments,
            settings.noise_max,
            settings.sharpness_max,
            settings.orientation_dropout,
            settings.sequence_dropout,
        )
        self.loader = DomainLoader(
            read_domains(settings.domains, "train"),
            crops,
            batch_size=settings.batch_size,
            batch_items=self.iters_to_accumulate * DIST_WRAPPER.world_size,
            seed=self.configs.seed,
        )
        self.held_out = None
        if settings.validation_domains:
            self.held_out = HeldOut(
                read_domains(settings.domains, "valid")[: settings.validation_domains],
                crops,
                settings.level_first,
                settings.level_last,
                settings.align,
                settings.validation_decoys,
                settings.validation_noise,
            )

    def _make_model(self) -> None:
        """Make the network, new or from `load_checkpoint_path`, its optimizer and schedule."""
        network = fresh_network(self.settings, self.configs.seed)
        if self.configs.load_checkpoint_path:
            start = load_network(self.configs.load_checkpoint_path)
            if start.config != network.config or type(start) is not type(network):
                raise UserError(
                    f"{self.configs.load_checkpoint_path} holds {start.config}, expected "
                    f"{network.config}",
                    "set the sizes in the section ebmfold to those of the start",
                )
            network = start
        self.raw_model: ScoreNetwork = network.to(self.device)
        self.optimizer = make_optimizer(self.configs, self.raw_model)
        self.lr_scheduler = get_lr_scheduler(self.configs, self.optimizer)
        n_trained = sum(p.numel() for p in self.raw_model.parameters())
        self.print(f"training {n_trained:,} parameters ({self.settings.network})")

    # What the loop asks for.

    def items_of(self, steps: range) -> Generator[tuple[int, Batch], None, None]:
        """See `TrainingLoop`."""
        mine = self.loader.share(steps, DIST_WRAPPER.rank, DIST_WRAPPER.world_size)
        return prefetch(self.loader, mine)

    def train_item(self) -> tuple[dict[str, float], bool]:
        """See `TrainingLoop`."""
        index, batch = next(self.coming)
        batch = batch.to(self.device)
        generator = self.loader.noise(index)
        settings = self.settings
        levels = (settings.level_first, settings.level_last)
        sigma = draw_levels(len(batch.mask), *levels, generator, settings.n_levels or None)
        condition = self.raw_model.condition_of(batch.features, batch.mask, batch.bonded)
        losses = denoising_loss(
            self.engine, batch.native, condition, sigma.to(self.device), generator,
            align=settings.align,
        )  # fmt: skip
        loss = losses.mean()
        value = float(loss.detach())
        reason = "" if math.isfinite(value) else f"the loss is {value}"
        names = [domain.name for domain in self.loader.domains(index)]
        skipped = self.skips(index, reason, {"domains": names})
        nothing = 0.0 * sum(p.sum() for p in self.raw_model.parameters())
        self.engine.backward(nothing if skipped else loss)
        self.engine.step()
        return {"loss": value}, not skipped

    @torch.no_grad()
    def evaluate(self) -> None:
        """Measure on domains of the split "valid", with the same crops and noise each time."""
        if self.held_out is None:
            return
        self.engine.eval()
        with self.ema.applied() if self.ema else contextlib.nullcontext():
            metrics = held_out_loss(self.raw_model, self.held_out)
            rows = held_out_decoys(self.raw_model, self.held_out) if self.held_out.n_decoys else []
            for name in ("lddt_ca", "gdt_ts") if rows else ():
                values = [row[name] for row in rows if math.isfinite(row[name])]
                metrics[name] = sum(values) / len(values) if values else math.nan
            self.record_validation(metrics, rows)

    def export(self, path: Path) -> None:
        """Write the network in the form in which `protenix-eba fold` reads it."""
        with gathered(self.raw_model):
            if DIST_WRAPPER.rank == 0:
                save_network(path, self.raw_model)
        dist.barrier()

    def note(self, metrics: dict[str, float]) -> str:
        """See `TrainingLoop`."""
        crops = self.settings.batch_size * self.iters_to_accumulate * DIST_WRAPPER.world_size
        rate = crops / max(metrics["seconds"], 1e-9)
        return f"loss {metrics['loss']:.4g} · {rate:.3g} crops/s"

    def advice(self) -> str:
        """See `TrainingLoop`."""
        return "lower lr"
