"""Energy distributions: samples against MD, uniform and Boltzmann-weighted.

Energies are those of minimised conformations in one force field, kJ/mol, computed elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.eval.definitions import Metric

__all__ = [
    "ENERGIES",
    "ROOM_TEMPERATURE_K",
    "EnergyComparison",
    "TargetEnergies",
    "boltzmann_weights",
    "effective_sample_size",
    "energies_by_target",
]

ROOM_TEMPERATURE_K: Final = 300.0

Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class TargetEnergies:
    """Minimised energies of one target's conformations.

    Attributes:
        n_residues: Number of residues of the protein; it softens the weights.
        replicas: Replica number to `[F]` energies, kJ/mol, finite. Samples have one replica.
    """

    n_residues: int
    replicas: dict[int, Float64s]

    @property
    def all(self) -> Float64s:
        """Energies of all replicas, `[F]`."""
        return np.concatenate(list(self.replicas.values()))


def energies_by_target(
    target: Iterable[str],
    replica: NDArray[np.integer],
    energy_kj_mol: Float64s,
    n_residues: NDArray[np.integer],
) -> dict[str, TargetEnergies]:
    """Group the columns of an energy table; rows without a finite energy are left out.

    Args:
        target: `[R]` names.
        replica: `[R]` replica numbers.
        energy_kj_mol: `[R]`, NaN where the minimisation failed.
        n_residues: `[R]`.
    """
    names = np.array(list(target), dtype=object)
    usable = np.isfinite(energy_kj_mol)
    grouped: dict[str, TargetEnergies] = {}
    for name in sorted(set(names[usable])):
        rows = usable & (names == name)
        replicas = {
            int(number): np.asarray(energy_kj_mol[rows & (replica == number)], dtype=np.float64)
            for number in np.unique(replica[rows])
        }
        grouped[name] = TargetEnergies(int(n_residues[rows][0]), replicas)
    return grouped


def boltzmann_weights(
    energy_kj_mol: Float64s, n_residues: int, temperature_K: float = ROOM_TEMPERATURE_K
) -> Float64s:
    """Return normalised weights softmax(-E / (kT sqrt(N_res))).

    The root of the number of residues softens the weights, as in the EBA objective: minimised
    energies spread with the size of the protein, and plain weights would all go to one frame.

    Args:
        energy_kj_mol: `[F]`.
        n_residues: Number of residues of the protein.
        temperature_K: Temperature.

    Returns:
        `[F]`, with a sum of one.

    Source: Lu et al., "Aligning Protein Conformation Ensemble Generation with Physical Feedback"
    (EBA), ICML 2025.
    """
    scale = thermal_energy_kj_mol(temperature_K) * np.sqrt(n_residues)
    unnormalised = np.exp(-(energy_kj_mol - np.min(energy_kj_mol)) / scale)
    weights: Float64s = unnormalised / unnormalised.sum()
    return weights


def effective_sample_size(weights: Float64s) -> float:
    """Return Kish's (sum w)^2 / sum w^2, the number of equal weights that are worth the same."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


@dataclass(frozen=True)
class EnergyComparison:
    """Energies of samples and of MD of one target, by the same force field and protocol.

    Attributes:
        md: Of the MD frames.
        samples: `[S]` of the samples, kJ/mol.
        temperature_K: Temperature of the weights.
        seed: Of the draws for the floor.

    Raises:
        UserError: No energies on one side, or one that is not finite.
    """

    md: TargetEnergies
    samples: Float64s
    temperature_K: float = ROOM_TEMPERATURE_K
    seed: int = 0

    def __post_init__(self) -> None:
        for side, energy in (("samples", self.samples), ("MD", self.md.all)):
            if len(energy) == 0 or not np.isfinite(energy).all():
                raise UserError(
                    f"energies of the {side}: expected at least one and all finite, found "
                    f"{len(energy)} with {np.count_nonzero(~np.isfinite(energy))} not finite",
                    "leave out conformations whose minimisation failed",
                )

    @cached_property
    def weights(self) -> Float64s:
        """Boltzmann weights of the MD frames, `[F]`."""
        return boltzmann_weights(self.md.all, self.md.n_residues, self.temperature_K)

    def floors(self) -> Iterator[EnergyComparison]:
        """Yield each replica in the place of the samples, with as many energies as these have.

        None with a single replica, which has nothing to be compared with.
        """
        replicas, n = self.md.replicas, len(self.samples)
        random = np.random.RandomState(self.seed)
        for replica, energy in replicas.items() if len(replicas) > 1 else ():
            others = {number: e for number, e in replicas.items() if number != replica}
            drawn = random.choice(energy, n, replace=n > len(energy))
            yield EnergyComparison(
                TargetEnergies(self.md.n_residues, others), drawn, self.temperature_K
            )


def _w1(first: Float64s, second: Float64s, **weights: Float64s) -> float:
    from scipy.stats import wasserstein_distance  # takes a second to import

    return float(wasserstein_distance(first, second, **weights))


_ENERGIES: Final = "Energies"
_E: Final = "kJ/mol"

ENERGIES: Final[tuple[Metric, ...]] = (
    Metric(
        "energy_above_md_kj_mol",
        "Mean energy above MD",
        _E,
        "neither",
        "Mean minimised energy of the samples less that of the MD.",
        _ENERGIES,
        1,
        compute=lambda e: np.mean(e.samples) - np.mean(e.md.all),
    ),
    Metric(
        "energy_median_above_md_kj_mol",
        "Median energy above MD",
        _E,
        "neither",
        "Median minimised energy of the samples less that of the MD.",
        _ENERGIES,
        1,
        compute=lambda e: np.median(e.samples) - np.median(e.md.all),
    ),
    Metric(
        "energy_target_above_md_kj_mol",
        "Boltzmann-weighted MD above MD",
        _E,
        "neither",
        "What alignment aims at: the Boltzmann-weighted mean energy of the MD less its plain mean.",
        _ENERGIES,
        1,
        compute=lambda e: e.weights @ e.md.all - np.mean(e.md.all),
    ),
    Metric(
        "energy_w1_kj_mol",
        "Energy W1, MD uniform",
        _E,
        "lower",
        "1-Wasserstein distance of the minimised energies to those of the MD frames.",
        _ENERGIES,
        1,
        compute=lambda e: _w1(e.samples, e.md.all),
    ),
    Metric(
        "energy_w1_boltzmann_kj_mol",
        "Energy W1, MD Boltzmann-weighted",
        _E,
        "lower",
        "The same with MD frames weighted by softmax(-E / (kT sqrt(N_res))).",
        _ENERGIES,
        1,
        compute=lambda e: _w1(e.samples, e.md.all, v_weights=e.weights),
    ),
    Metric(
        "boltzmann_ess",
        "Effective MD frames",
        "",
        "neither",
        "Effective sample size of the MD under the Boltzmann weights.",
        _ENERGIES,
        1,
        compute=lambda e: effective_sample_size(e.weights),
    ),
)
