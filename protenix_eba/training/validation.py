"""Measures of a model on held-out conformers: errors by noise level, and small ensembles."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.progress import tell, track
from protenix_eba.core.ranks import gather_rows
from protenix_eba.energy.label import label_targets
from protenix_eba.energy.protocol import EnergyProtocol
from protenix_eba.eval.protocol.alignment import superpose
from protenix_eba.eval.protocol.metrics import pearson, rmsf
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.features import ProteinFeatures, to_device
from protenix_eba.sampling.ensembles import write_ensemble
from protenix_eba.sampling.samplers import sample_batches
from protenix_eba.sampling.settings import SamplerSettings
from protenix_eba.training.data.interfaces import EnsembleLoader, LabelledConformers, Loader
from protenix_eba.training.data.item import Item
from protenix_eba.training.data.labels import training_labels
from protenix_eba.training.data.prefetch import prefetch
from protenix_eba.training.step import ItemStep

__all__ = ["Validation", "fluctuations"]

Row = dict[str, Any]
T = TypeVar("T")


class Validation:
    """Held-out conformers of a run; the same items and noise each time.

    Args:
        items: What trains the model.
        loader: Loader of held-out conformers; to `sample` it must be an `EnsembleLoader`.
        config: The section `eba`.
        device: Device of the model.
    """

    def __init__(
        self,
        items: ItemStep,
        loader: Loader,
        config: EBAConfig,
        device: torch.device,
    ) -> None:
        self._items = items
        self._loader = loader
        self._config = config
        self._device = device

    def measure(self) -> tuple[dict[str, float], list[Row]]:
        """Measure errors and alignment at noise levels that stand for equal shares of training's.

        Returns:
            Means over all items, with the error at each level (`mse_at_2.9`, in square angstrom at
            2.9 angstrom), and the means of each target.
        """
        levels = self._items.noise.quantiles(self._config.n_noise)
        mine = list(_share(self._config.validation_items))
        with contextlib.closing(prefetch(self._loader, [i for i, _ in mine])) as coming:
            shown = _with_bar(coming, "validating", len(mine))
            made = [self._row(index, item, levels) for index, item in shown]
        rows = gather_rows([row for row, (_, new) in zip(made, mine, strict=True) if new])
        rows.sort(key=lambda row: int(row.pop("index")))
        targets = sorted({str(row["target"]) for row in rows})
        by_target = [
            {"target": name, **_means(row for row in rows if row["target"] == name)}
            for name in targets
        ]
        return _means(rows), by_target

    def _row(self, index: int, item: Item, levels: torch.Tensor) -> Row:
        if item.problem:
            tell(f"held-out {item.target}: {item.problem}")
        denoised = self._items.denoise(item, self._loader.generator(index), levels)
        by_level = zip(levels.tolist(), denoised.errors.mse.mean(dim=0).tolist(), strict=True)
        return {
            "index": index,
            "target": item.target,
            **self._items.metrics(denoised, self._items.loss(denoised)),
            **{f"mse_at_{sigma:.2g}": value for sigma, value in by_level},
        }

    def sample(self, model: ConformerDenoiser, folder: Path, configs: Any) -> dict[str, float]:
        """Sample a small ensemble of each held-out target and compare it with held-out frames.

        Args:
            model: The denoiser.
            folder: Folder for the ensembles, which replace those of the validation before.
            configs: Resolved configuration.

        Returns:
            `sample_rmsf_r` (Pearson correlation of the C-alpha RMSF with MD's),
            `sample_rmsf` and `md_rmsf` (their means, angstrom), `sample_energy_above_md_kj_mol`
            (median minimised energy above that of the frames) and `sample_failed` (share of the
            samples that have none); means over targets.
        """
        folder = folder / f"rank_{dist.get_rank()}"
        shutil.rmtree(folder, ignore_errors=True)
        mine = list(_share(len(self._sampled.sources)))
        shown = _with_bar(mine, "sampling held-out targets", len(mine))
        made = [(self._sample_target(i, model, folder, configs), new) for i, new in shown]
        rows = [row for row, new in made if new]
        if rows:
            self._add_energies(rows, folder)
        rows = gather_rows(rows)
        return {name: _mean(row[name] for row in rows) for name in rows[0] if name != "target"}

    @property
    def _sampled(self) -> EnsembleLoader:
        assert isinstance(self._loader, EnsembleLoader)  # the trainer has asked for it
        return self._loader

    def _sample_target(
        self, number: int, model: ConformerDenoiser, folder: Path, configs: Any
    ) -> Row:
        source = self._sampled.sources[number]
        batches = sample_batches(
            model,
            _on(self._sampled.protein(number), self._device),
            self._sampled.embedding(number).to(self._device),
            n_samples=self._config.validation_samples,
            batch_size=self._config.n_noise,
            settings=SamplerSettings(sigma_data=configs.sigma_data),
            seed=configs.seed,
        )
        samples = np.concatenate(list(batches))
        name = source.protein.protein.name
        write_ensemble(folder / name, source.protein, samples, {"n_samples": len(samples)})
        ca = source.protein.alpha_carbons.numpy()
        theirs = _md_fluctuations(source)
        ours = fluctuations(samples[:, ca])
        return {
            "target": name,
            "sample_rmsf_r": pearson(ours, theirs),
            "sample_rmsf": float(ours.mean()),
            "md_rmsf": float(theirs.mean()),
        }

    def _add_energies(self, rows: list[Row], folder: Path) -> None:
        """Minimise the samples as the training's labels were, and compare the medians.

        They are NaN for labels that no conformation can be given: imported ones, and sums.
        """
        values = training_labels(self._config).provenance.get("protocol")
        if values is None:
            unknown = {"sample_energy_above_md_kj_mol": np.nan, "sample_failed": np.nan}
            rows[:] = [row | unknown for row in rows]
            return
        protocol, reference = EnergyProtocol.from_dict(values), self._config.data_dir
        report = label_targets(folder, folder / "labels.parquet", protocol, reference_dir=reference)
        sources = {source.protein.protein.name: source for source in self._sampled.sources}
        for row in rows:
            labels = report.labels.for_target(row["target"])
            energies = labels.energy_kj_mol[labels.finished]
            median = float(sources[row["target"]].energy_kj_mol.median())
            above = float(np.median(energies)) - median if len(energies) else float("nan")
            row["sample_energy_above_md_kj_mol"] = above
            row["sample_failed"] = 1.0 - len(energies) / self._config.validation_samples


def _share(n: int) -> Iterator[tuple[int, bool]]:
    """Yield this process's numbers below n; each has as many, so that some are repeated.

    Under ZeRO 3 all processes have to pass the model together.

    Yields:
        A number, and whether it is this process's own.
    """
    world, rank = dist.get_world_size(), dist.get_rank()
    for first in range(0, n, world):
        yield min(first + rank, n - 1), first + rank < n


def _with_bar(items: Iterable[T], doing: str, total: int) -> Iterator[T]:
    """Iterate, with a progress bar on the first process."""
    return track(items, doing, total, visible=dist.get_rank() == 0)


def _on(protein: ProteinFeatures, device: torch.device) -> ProteinFeatures:
    features = to_device(protein.features, device)
    return ProteinFeatures(protein.protein, features, protein.atoms, protein.elements)


def _md_fluctuations(source: LabelledConformers) -> NDArray[np.float64]:
    """Return the RMSF of the C-alpha atoms, `[N]`; NaN if the MD cannot be read.

    Not an error: the other processes wait for this one.
    """
    ca = source.protein.alpha_carbons
    try:
        return fluctuations(source.coordinates()[:, ca].numpy())
    except UserError as error:
        tell(str(error))
        return np.full(len(ca), np.nan)


def fluctuations(xyz: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the RMSF about the mean after superposition on it, `[N]`."""
    fitted = superpose(xyz, xyz[0])
    return rmsf(superpose(fitted, fitted.mean(axis=0)))


def _means(rows: Iterable[Row]) -> dict[str, float]:
    rows = list(rows)
    return {name: _mean(row[name] for row in rows) for name in rows[0] if name != "target"}


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
