"""The result of one target with the metrics that AlphaFlow's protocol lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from protenix_eba.eval.catalogue import plugin_metrics
from protenix_eba.eval.definitions import compute_metrics
from protenix_eba.eval.md_cache import MdArrays
from protenix_eba.eval.metrics.conformational import conformational
from protenix_eba.eval.metrics.energies import (
    ENERGIES,
    ROOM_TEMPERATURE_K,
    EnergyComparison,
    TargetEnergies,
    boltzmann_weights,
)
from protenix_eba.eval.metrics.kinetics import compare_kinetics
from protenix_eba.eval.metrics.soundness import soundness
from protenix_eba.eval.protocol.drawn import Drawn
from protenix_eba.eval.protocol.ensemble import AtomMatch
from protenix_eba.eval.target_result import Found, TargetResult
from protenix_eba.structures.sources import Conformations

__all__ = ["ModelEnergies", "add_beyond", "add_energies"]


@dataclass(frozen=True)
class ModelEnergies:
    """Minimised energies of MD and samples, as far as they are known.

    Attributes:
        md: Target to those of its MD frames.
        samples: Target to those of the samples.
        temperature_K: Of the Boltzmann weights.
    """

    md: Mapping[str, TargetEnergies]
    samples: Mapping[str, TargetEnergies]
    temperature_K: float = ROOM_TEMPERATURE_K


def add_beyond(
    result: TargetResult,
    drawn: Drawn,
    match: AtomMatch,
    reference: Conformations,
    samples: Conformations,
    kept: MdArrays,
) -> TargetResult:
    """Return the protocol's result with the other metrics of coordinates added.

    Args:
        result: The protocol's result for the target.
        drawn: The frames that it kept.
        match: Pairs of atoms of the reference and the samples.
        reference: MD, from which frames are read in the order of time.
        samples: The ensemble.
        kept: What is known of the MD.

    Raises:
        UserError: Frames that cannot be read, or a metric of a plugin refuses the target.
    """
    md_ca, sample_ca = (atoms[match.ca] for atoms in (match.reference_atoms, match.sample_atoms))
    for found in (
        conformational(drawn, kept),
        compare_kinetics(reference, samples, md_ca, sample_ca, kept),
        soundness(drawn, kept),
        # Nothing tells when a metric of a plugin changes with what it imports: it is not kept.
        Found(*compute_metrics(plugin_metrics(), drawn)),
    ):
        result = result.with_found(found)
    return result


def add_energies(result: TargetResult, energies: ModelEnergies, seed: int) -> TargetResult:
    """Add the metrics of minimised energies and their floor, if MD and samples have any.

    Args:
        result: The target's result from coordinates.
        energies: Energies of all targets, or of this one.
        seed: Seed of the draws for the floor.

    Raises:
        UserError: No finite energy on one side.
    """
    md, samples = energies.md.get(result.name), energies.samples.get(result.name)
    if md is None:
        return result
    temperature = energies.temperature_K
    weights = boltzmann_weights(md.all, md.n_residues, temperature)
    arrays = {"md_energy": md.all, "md_weights": weights}
    if samples is None:
        return result.with_found(Found({}, arrays=arrays))
    comparison = EnergyComparison(md, samples.all, temperature, seed)
    found = Found(*compute_metrics(ENERGIES, comparison), arrays | {"sample_energy": samples.all})
    counts = result.counts | {"n_energies": len(samples.all)}
    return replace(result.with_found(found), counts=counts)
