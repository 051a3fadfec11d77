"""Refreshes of the replay buffer: sample, check, label and record; they resume after a stop."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, write_json
from protenix_eba.core.progress import track
from protenix_eba.core.ranks import any_rank
from protenix_eba.core.run_folder import read_json
from protenix_eba.core.seeds import stream_seed
from protenix_eba.core.signals import StopSignals
from protenix_eba.energy.label import Workers, label_targets
from protenix_eba.energy.protocol import EnergyProtocol, customised, protocol_by_name
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.embeddings import EmbeddingFolder, TrunkEmbeddings
from protenix_eba.host.features import ProteinFeatures, complete, to_device
from protenix_eba.sampling.run import Plan, SamplingRun
from protenix_eba.sampling.samplers import DIFFUSION_SAMPLERS
from protenix_eba.sampling.settings import PRESETS, SamplerSettings
from protenix_eba.structures.sequences import Protein
from protenix_eba.training.data.buffer import LABELS, RECORD, SAMPLED, require_made
from protenix_eba.training.data.labels import training_labels
from protenix_eba.training.data.replay import ReplayDataset
from protenix_eba.training.loop import StoppedError
from protenix_eba.training.model import trained_digest
from protenix_eba.training.replay.background import Background
from protenix_eba.training.replay.collapse import Clusters
from protenix_eba.training.replay.record import measure

__all__ = ["Refresher", "energy_protocol", "sampler_settings"]

# Iterations of "short": what strains is gone, and the conformation is still the sample's own.
_SHORT: Final = 50
_BEGUN: Final = "begun.json"
_LOG: Final = "label.log"
# Streams of a run's samples, apart from those of its items.
_STREAM: Final = 2**43


def energy_protocol(config: EBAConfig, dataset: ReplayDataset) -> EnergyProtocol:
    """Return the energy protocol of samples: that of the MD's labels, if MD has a share.

    Raises:
        UserError: The labels are not of an energy that can be computed for a sample.
    """
    settings = dataset.settings
    if settings.md_share:
        values = training_labels(config).provenance.get("protocol")
        if values is None:
            raise UserError(
                f"{config.labels} holds energies that were imported, or eba.energy_column mixes "
                "several: samples cannot be given the like",
                "choose one energy that was made with `protenix-eba label`, or set replay.md_share "
                "to 0",
            )
        return EnergyProtocol.from_dict(values)
    protocol = customised(
        protocol_by_name(settings.protocol),
        function=settings.energy_function or None,
        force_field=settings.force_field or None,
        solvent=settings.solvent or None,
    )
    changes: dict[str, dict[str, Any]] = {
        "short": {"max_iterations": _SHORT, "quench_ps": 0.0},
        "initial": {"minimise": False},
    }
    return replace(protocol, **changes.get(settings.energy, {}))


def sampler_settings(dataset: ReplayDataset, sigma_data: float) -> SamplerSettings:
    """Return the sampler's settings as the section `replay` names them.

    Raises:
        UserError: No preset of that name, or a value outside its range.
    """
    settings = dataset.settings
    if settings.preset not in PRESETS:
        raise UserError(
            f"replay.preset: expected one of {', '.join(PRESETS)}, found {settings.preset!r}"
        )
    return SamplerSettings(
        n_steps=settings.sampler_steps,
        s_max=settings.s_max,
        s_min=settings.s_min,
        sigma_data=sigma_data,
        **PRESETS[settings.preset],
    )


class Refresher:
    """Fills the buffer of a dataset from the model that is trained.

    Each process samples its share of the targets; the first one labels them, in another process if
    `replay.asynchronous`. What is made depends on the weights, the seed and the step only. A
    refresh that was killed goes on from what is there, and samples that are whole are kept, if
    they are of the same weights. All processes call all methods but `close`. A signal ends what is
    done at once, in all processes, by `StoppedError`.

    Args:
        config: The section `eba`.
        dataset: Dataset whose buffer is refreshed.
        embeddings: Embeddings of all targets, already checked.
        device: Device of the model.
        chunk: Samples at a time.
        signals: Of the run.
    """

    def __init__(
        self,
        config: EBAConfig,
        dataset: ReplayDataset,
        embeddings: EmbeddingFolder,
        device: torch.device,
        chunk: int,
        signals: StopSignals,
    ) -> None:
        configs: Any = config.configs
        self._seed: int = configs.seed
        self._config = config
        self._dataset = dataset
        self._embeddings = embeddings
        self._device = device
        self._chunk = chunk
        self._signals = signals
        self._protocol = energy_protocol(config, dataset)
        self._settings = sampler_settings(dataset, configs.sigma_data)
        self._sampler = DIFFUSION_SAMPLERS.get(dataset.settings.sampler)(configs)
        self._labels = Background()
        self._clusters: dict[str, Clusters] = {}

    def sample(self, model: ConformerDenoiser, step: int) -> None:
        """Make the samples before a step, or find them made already.

        Args:
            model: Model with the weights to sample from, in evaluation mode.
            step: Optimizer steps done.

        Raises:
            UserError: A target cannot be sampled.
        """
        buffer, settings = self._dataset.buffer, self._dataset.settings
        facts = self._facts(model, step)
        self._on_first(lambda: self._discard_stale(step, facts))
        if not (buffer.path(step) / SAMPLED).is_file():
            names = buffer.oldest(self._dataset.trained(), settings.targets_per_refresh)
            plan = Plan(settings.new_samples, self._settings, facts["seed"], self._chunk)
            started = time.monotonic()
            self._on_all(lambda: self._sample(model, plan, names, buffer.path(step), facts))
            seconds = time.monotonic() - started
            done = {"targets": names, "sampling_seconds": seconds}
            self._on_first(lambda: write_json(buffer.path(step) / SAMPLED, done))

    def begin_labels(self, step: int) -> None:
        """Label the samples before a step in the background, unless they are labelled.

        Args:
            step: A step for which there are samples.
        """
        self._on_first(lambda: self._begin_labels(step))

    def finish(self, step: int) -> dict[str, Any]:
        """Wait until the samples before a step are labelled, and record them.

        Args:
            step: A step for which there are samples.

        Returns:
            The record of the refresh.

        Raises:
            UserError: A target cannot be labelled.
        """
        self._on_first(lambda: self._finish(step))
        return self._dataset.buffer.record(step)

    def show(self, step: int) -> None:
        """Let training see the refreshes before this step or earlier ones, and no later one."""
        self._on_first(lambda: self._dataset.buffer.set_current(step))

    def close(self) -> None:
        """End what is done in the background; labels that are there stay."""
        self._labels.stop()

    def _facts(self, model: ConformerDenoiser, step: int) -> dict[str, Any]:
        """Return what the samples depend on."""
        return {
            "step": step,
            "seed": stream_seed(self._seed, _STREAM + step) % 2**63,
            "weights": trained_digest(model),
            "protocol": self._protocol.hash,
            "sampler": {"name": self._dataset.settings.sampler, **asdict(self._settings)},
            "n_samples": self._dataset.settings.new_samples,
        }

    def _discard_stale(self, step: int, facts: dict[str, Any]) -> None:
        """Remove samples that other weights or settings have left at this step."""
        folder = self._dataset.buffer.path(step)
        begun = folder / _BEGUN
        if not begun.is_file() or read_json(begun) != facts:
            shutil.rmtree(folder, ignore_errors=True)
            write_json(begun, facts)

    def _sample(
        self,
        model: ConformerDenoiser,
        plan: Plan,
        names: list[str],
        out: Path,
        facts: dict[str, Any],
    ) -> None:
        provenance = {"weights": facts["weights"], "step": facts["step"]}
        run = SamplingRun(model, self._inputs, plan, provenance, out, self._sampler)
        mine = names[dist.get_rank() :: dist.get_world_size()]
        for name in track(mine, "sampling the model", len(mine), visible=dist.get_rank() == 0):
            protein = self._dataset.protein(name)
            run.ensemble(protein, self._embeddings.check(protein), lambda _: None)

    def _inputs(self, protein: Protein) -> tuple[ProteinFeatures, TrunkEmbeddings]:
        compact = self._embeddings.features(protein)
        features = to_device(complete(compact.features), self._device)
        embeddings = self._embeddings(protein).to(self._device)
        return replace(compact, features=features), embeddings

    def _begin_labels(self, step: int) -> None:
        folder = self._dataset.buffer.path(step)
        if not (folder / RECORD).is_file():
            self._labels.begin(self._labelling(folder), folder / _LOG)

    def _labelling(self, folder: Path) -> Callable[[], object]:
        settings = self._dataset.settings
        reference = (
            Path(self._config.data_dir)
            if self._config.data_dir
            else self._reference_samples(folder)
        )
        workers = Workers(jobs=settings.jobs, platform=settings.platform)
        return partial(
            label_targets,
            *(folder, folder / LABELS, self._protocol),
            reference_dir=reference,
            workers=workers,
        )

    def _reference_samples(self, folder: Path) -> Path:
        """Return the folder of each target's first samples; their PDB decides protonation for all.

        Without MD there is no other structure, and energies compare only in the same states.
        """
        reference = self._dataset.buffer.folder / "reference"
        for found in sorted(path.parent for path in folder.glob("[!.]*/*.xtc")):
            if not (reference / found.name).is_dir():
                with atomic_path(reference / found.name) as temporary:
                    shutil.copytree(found, temporary)
        return reference

    def _finish(self, step: int) -> None:
        buffer = self._dataset.buffer
        folder = buffer.path(step)
        if buffer.record(step):
            return
        require_made(folder / SAMPLED)
        sampled, started = read_json(folder / SAMPLED), time.monotonic()
        if self._labels.busy:
            labelling = self._labels.wait()
            waiting = time.monotonic() - started
        else:
            self._labelling(folder)()
            labelling = waiting = time.monotonic() - started
        buffer.set_current(step - 1)  # what is measured is compared with what was before
        features = [
            self._embeddings.features(self._dataset.protein(name)) for name in sampled["targets"]
        ]
        seconds = {
            "sampling": sampled["sampling_seconds"],
            "labelling": labelling,
            "waiting": waiting,
        }
        targets = measure(folder, features, self._dataset, self._clusters)
        facts = read_json(folder / _BEGUN)
        write_json(folder / RECORD, facts | {"seconds": seconds, "targets": targets})

    def _on_first(self, action: Callable[[], None]) -> None:
        self._on_all(lambda: action() if dist.get_rank() == 0 else None)

    def _on_all(self, action: Callable[[], None]) -> None:
        """Do something in all processes; if one fails, no other one waits for it."""
        failed: UserError | None = None
        stopped = False
        try:
            with self._signals.at_once():
                action()
        except UserError as error:
            failed = error
        except KeyboardInterrupt:
            stopped = True
        if any_rank(stopped, self._device):
            raise StoppedError
        if any_rank(failed is not None, self._device):
            raise failed or UserError("another process could not refresh the replay buffer")
