"""The dataset `replay`: a model's own samples from a buffer, beside MD of a given share."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.energy.table import EnergyLabels
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.environment import DATASETS
from protenix_eba.host.features import ProteinFeatures
from protenix_eba.structures.sequences import Protein, read_proteins
from protenix_eba.training.data.buffer import Buffer, Drawn
from protenix_eba.training.data.conformers import Conformers, match_atoms
from protenix_eba.training.data.interfaces import Dataset, LabelledConformers
from protenix_eba.training.data.labels import training_labels
from protenix_eba.training.data.replay_config import replay_config, replay_folder

__all__ = ["Pooled", "ReplayDataset", "md_rows", "ranked"]

# Steps of the Boltzmann factor between the worst sample that has an energy and the broken ones: the
# latter have no weight beside any other.
_BELOW_ALL: Final = 20.0


@dataclass(frozen=True, eq=False)
class Pooled:
    """Rows of several `LabelledConformers` of one protein, as one of these.

    Attributes:
        parts: The tables of conformers.
        rows: Indices of the chosen rows of each part.
        energy_kj_mol: `[F]` float64, of the chosen rows, part after part.
    """

    parts: tuple[LabelledConformers, ...]
    rows: tuple[NDArray[np.int64], ...]
    energy_kj_mol: Tensor

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    @property
    def protein(self) -> ProteinFeatures:
        """Return features and atom order."""
        return self.parts[0].protein

    @cached_property
    def replica(self) -> Tensor:
        """Return `[F]` replicas of the MD, or steps at which samples were made."""
        return self._chosen([part.replica for part in self.parts])

    @cached_property
    def frame(self) -> Tensor:
        """Return each conformer's index `[F]` within its replica or step."""
        return self._chosen([part.frame for part in self.parts])

    @cached_property
    def sampled(self) -> Tensor:
        """Return `[F]`, false for MD."""
        return self._chosen([part.sampled for part in self.parts])

    @cached_property
    def mask(self) -> Tensor:
        """Return a mask `[N_atom]`, 1 where all parts have the atom."""
        return torch.stack([part.mask for part in self.parts]).amin(dim=0)

    @property
    def partners(self) -> Tensor:
        """Return `[N_atom]`: which atoms may change places."""
        return self.parts[0].partners

    def coordinates(self, rows: Sequence[int] | None = None) -> Tensor:
        """Read conformers, see `LabelledConformers`."""
        wanted = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)
        found = torch.zeros(len(wanted), len(self.mask), 3)
        first = 0
        for part, mine in zip(self.parts, self.rows, strict=True):
            here = np.flatnonzero((wanted >= first) & (wanted < first + len(mine)))
            if len(here):
                found[here] = part.coordinates(mine[wanted[here] - first].tolist())
            first += len(mine)
        return found * self.mask[:, None]

    def _chosen(self, values: Sequence[Tensor]) -> Tensor:
        return torch.cat([v[torch.from_numpy(r)] for v, r in zip(values, self.rows, strict=True)])


@DATASETS.register("replay")
class ReplayDataset:
    """A dataset of targets of the MD in `eba.data_dir`, or of `replay.sequences`.

    What is held out is MD as it is; all else is samples of the buffer with the MD's share.

    Args:
        config: The section `eba`; the buffer is read when conformers are asked for.

    Raises:
        UserError: The section `replay` does not fit, or what it names is not there.
    """

    def __init__(self, config: EBAConfig) -> None:
        self._config, self.settings = config, replay_config(config)
        folder = replay_folder(config)
        self.buffer = Buffer(folder, self.settings.max_samples, self.settings.max_age)
        self._md: Dataset | None = None
        self._sequences: dict[str, Protein] = {}
        if config.data_dir:
            self._md = DATASETS.get(self.settings.md_dataset)(config)
        else:
            self._sequences = {p.name: p for p in read_proteins(self.settings.sequences)}

    def replicas(self) -> Mapping[str, Sequence[int]]:
        """Return those of the MD, see `Dataset`; a sequence has replica 1."""
        return self._md.replicas() if self._md else dict.fromkeys(self._sequences, (1,))

    def trained(self) -> list[str]:
        """Return the names of the targets that are sampled: those that are not held out."""
        return [name for name in self.replicas() if name not in self._config.validation_targets]

    def protein(self, target: str) -> Protein:
        """Return a target's sequence, see `Dataset`."""
        return self._md.protein(target) if self._md else self._sequences[target]

    def conformers(
        self, target: str, features: ProteinFeatures, replicas: Sequence[int]
    ) -> LabelledConformers:
        """Load a target's conformers, see `Dataset`."""
        held_out = set(replicas) & set(self._config.validation_replicas)
        if self._md and (held_out or target in self._config.validation_targets):
            return self._md.conformers(target, features, replicas)
        drawn = self.buffer.samples(target)
        if not self._md or self.settings.md_share == 0:
            return self._conformers(features, drawn, np.empty(0))
        return self._mixed(self._md.conformers(target, features, replicas), features, drawn)

    def md_alpha_carbons(self, features: ProteinFeatures, count: int) -> NDArray[np.float32] | None:
        """Return evenly chosen frames of a target's MD.

        Args:
            features: Features of its protein.
            count: How many at most.

        Returns:
            C-alpha atoms `[count, N_token, 3]`, angstrom; None where there is no MD.
        """
        if self._md is None:
            return None
        name = features.protein.name
        held_out = self._config.validation_replicas
        replicas = [r for r in self.replicas()[name] if r not in held_out]
        md = self._md.conformers(name, features, replicas)
        rows = np.unique(np.linspace(0, len(md) - 1, count).round().astype(int))
        return md.coordinates(rows.tolist())[:, features.alpha_carbons].numpy()

    def _mixed(
        self, md: LabelledConformers, features: ProteinFeatures, drawn: Drawn
    ) -> LabelledConformers:
        name = drawn.target.name
        seed = [self._config.configs["seed"], self.buffer.current, zlib.crc32(name.encode())]
        chosen, n_samples = md_rows(len(md), len(drawn.invalid), self.settings.md_share, seed)
        energy = md.energy_kj_mol.numpy()
        if self.settings.energy in ("strained", "initial"):
            energy = self._energies(self._md_rows(name, md), features)
        samples = self._conformers(features, drawn.newest(n_samples), energy[chosen])
        energies = torch.cat([torch.from_numpy(energy[chosen]), samples.energy_kj_mol])
        return Pooled((md, samples), (chosen, np.arange(len(samples))), energies)

    def _conformers(
        self, features: ProteinFeatures, drawn: Drawn, beside: NDArray[np.float64]
    ) -> Conformers:
        """Samples with the energies that rank them, beside the energies of MD frames."""
        energy = self._energies(drawn.labels, features)
        config, n_residues = self._config, features.protein.n_residues
        unit = thermal_energy_kj_mol(config.temperature_K) * n_residues**config.length_exponent
        energy = ranked(energy, drawn.invalid, self.settings.invalid, beside, _BELOW_ALL * unit)
        keep = np.isfinite(energy)
        labels = drawn.labels.select(keep)
        return Conformers(
            features,
            drawn.target,
            match_atoms(drawn.target, features),
            torch.from_numpy(energy[keep]),
            torch.from_numpy(labels.replica),
            torch.from_numpy(labels.frame),
            labels.frame_hash,
            generated=True,
        )

    def _energies(self, labels: EnergyLabels, features: ProteinFeatures) -> NDArray[np.float64]:
        """`[F]` of the kind that the settings name, kJ/mol; NaN where there is none."""
        if self.settings.energy == "initial":
            return np.where(labels.finished, labels.initial_energy_kj_mol, np.nan)
        if self.settings.energy == "strained":
            stiffness = self.settings.strain_kj_mol_A2 * len(features.atoms)
            return labels.energy_kj_mol + 0.5 * stiffness * labels.rmsd_angstrom**2
        return labels.energy_kj_mol

    def _md_rows(self, name: str, md: LabelledConformers) -> EnergyLabels:
        """The labels of the frames of the MD, in their order."""
        labels = self._md_labels.for_target(name)
        keys = zip(labels.replica.tolist(), labels.frame.tolist(), strict=True)
        row = {key: number for number, key in enumerate(keys)}
        frames = zip(md.replica.tolist(), md.frame.tolist(), strict=True)
        return labels.select(np.array([row[frame] for frame in frames]))

    @cached_property
    def _md_labels(self) -> EnergyLabels:
        return training_labels(self._config)


def md_rows(
    n_md: int, n_samples: int, share: float, seed: Sequence[int]
) -> tuple[NDArray[np.int64], int]:
    """Choose MD frames, and the number of samples, so that the MD has its share.

    Args:
        n_md: Frames that there are.
        n_samples: Samples that there are.
        share: Share of MD, above 0 and below 1.
        seed: Seed of the draw of frames, without repetition.

    Returns:
        Sorted rows of the MD, and how many samples go with them: all, or fewer where frames are
        short.
    """
    wanted = max(1, math.ceil(share / (1 - share) * n_samples))
    if wanted > n_md:
        wanted = n_md
        n_samples = max(1, math.floor(n_md * (1 - share) / share))
    drawn = np.random.default_rng(list(seed)).permutation(n_md)[:wanted]
    return np.sort(drawn), n_samples


def ranked(
    energy_kj_mol: NDArray[np.float64],
    invalid: NDArray[np.bool_],
    kind: str,
    beside: NDArray[np.float64],
    gap_kj_mol: float,
) -> NDArray[np.float64]:
    """Return energies that also rank broken samples; NaN for those that are left out.

    Args:
        energy_kj_mol: `[F]`, NaN where the minimisation found none.
        invalid: `[F]` broken samples.
        kind: How broken samples are treated, one of `data.replay_config.INVALID_KINDS`.
        beside: Energies of other conformers of the target.
        gap_kj_mol: How far below all others in rank the broken ones stand, under "last".
    """
    whole = np.isfinite(energy_kj_mol) & ~invalid
    if kind == "kept":
        return energy_kj_mol
    if kind == "out":
        return np.where(whole, energy_kj_mol, np.nan)
    highest = np.max(np.concatenate([energy_kj_mol[whole], beside]), initial=-np.inf)
    last = highest + gap_kj_mol if np.isfinite(highest) else 0.0
    return np.where(whole, energy_kj_mol, last)
