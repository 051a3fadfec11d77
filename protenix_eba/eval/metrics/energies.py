"""Energy distributions: samples against MD, uniform and Boltzmann-weighted.

Energies are those of minimised conformations in one force field, kJ/mol, computed elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import thermal_energy_kj_mol

__all__ = [
    "ROOM_TEMPERATURE_K",
    "TargetEnergies",
    "boltzmann_weights",
    "effective_sample_size",
    "energies_by_target",
    "energy_floor",
    "energy_metrics",
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
        """`[F]` the energies of all replicas."""
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
    """Normalised weights softmax(-E / (kT sqrt(N_res))).

    The root of the number of residues softens the weights, as in the EBA objective: minimised
    energies spread with the size of the protein, and plain weights would all go to one frame.

    Args:
        energy_kj_mol: `[F]`.
        n_residues: Number of residues of the protein.
        temperature_K: Temperature.

    Returns:
        `[F]`, sum one.

    Source: Lu et al., "Aligning Protein Conformation Ensemble Generation with Physical Feedback"
    (EBA), ICML 2025.
    """
    scale = thermal_energy_kj_mol(temperature_K) * np.sqrt(n_residues)
    unnormalised = np.exp(-(energy_kj_mol - np.min(energy_kj_mol)) / scale)
    weights: Float64s = unnormalised / unnormalised.sum()
    return weights


def effective_sample_size(weights: Float64s) -> float:
    """Kish's (sum w)^2 / sum w^2: the number of equally weighted frames worth the same."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def energy_metrics(
    sample_kj_mol: Float64s,
    md_kj_mol: Float64s,
    n_residues: int,
    temperature_K: float = ROOM_TEMPERATURE_K,
) -> dict[str, float]:
    """How far the energies of the samples are from those of MD.

    Args:
        sample_kj_mol: `[S]` finite energies of the samples.
        md_kj_mol: `[F]` of the MD frames, the same force field and protocol.
        n_residues: Number of residues of the protein.
        temperature_K: Temperature of the weights.

    Returns:
        `energy_above_md_kj_mol` (difference of the means), `energy_median_above_md_kj_mol` (of the
        medians), `energy_target_above_md_kj_mol` (Boltzmann-weighted mean of the MD less its plain
        mean: what alignment aims at), `energy_w1_kj_mol` (1-Wasserstein to
        MD with uniform weights), `energy_w1_boltzmann_kj_mol` (to MD with Boltzmann weights) and
        `boltzmann_ess` (effective number of MD frames under these weights).

    Raises:
        UserError: No energies on one side, or one that is not finite.
    """
    for side, energy in (("samples", sample_kj_mol), ("MD", md_kj_mol)):
        if len(energy) == 0 or not np.isfinite(energy).all():
            raise UserError(
                f"energies of the {side}: expected at least one and all finite, found "
                f"{len(energy)} with {np.count_nonzero(~np.isfinite(energy))} not finite",
                "leave out conformations whose minimisation failed",
            )
    from scipy.stats import wasserstein_distance  # takes a second to import

    weights = boltzmann_weights(md_kj_mol, n_residues, temperature_K)
    return {
        "energy_above_md_kj_mol": float(np.mean(sample_kj_mol) - np.mean(md_kj_mol)),
        "energy_median_above_md_kj_mol": float(np.median(sample_kj_mol) - np.median(md_kj_mol)),
        "energy_target_above_md_kj_mol": float(weights @ md_kj_mol - np.mean(md_kj_mol)),
        "energy_w1_kj_mol": float(wasserstein_distance(sample_kj_mol, md_kj_mol)),
        "energy_w1_boltzmann_kj_mol": float(
            wasserstein_distance(sample_kj_mol, md_kj_mol, v_weights=weights)
        ),
        "boltzmann_ess": effective_sample_size(weights),
    }


def energy_floor(
    md: TargetEnergies, n_samples: int, temperature_K: float, seed: int
) -> list[dict[str, float]]:
    """The same metrics with each MD replica in the place of the samples.

    Args:
        md: Energies by replica.
        n_samples: Energies drawn from each replica, as many as the evaluated ensemble has.
        temperature_K: Temperature of the weights.
        seed: Seed of the draws.

    Returns:
        As `energy_metrics`, one mapping for each replica; empty with a single one, which has
        nothing to be compared with.
    """
    if len(md.replicas) < 2:
        return []
    random = np.random.RandomState(seed)
    rows = []
    for replica, energy in md.replicas.items():
        others = np.concatenate([e for number, e in md.replicas.items() if number != replica])
        drawn = random.choice(energy, n_samples, replace=n_samples > len(energy))
        rows.append(energy_metrics(drawn, others, md.n_residues, temperature_K))
    return rows
