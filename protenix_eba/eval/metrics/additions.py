"""The result of one target with the metrics that AlphaFlow's protocol lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from protenix_eba.eval.definitions import Compute
from protenix_eba.eval.metrics.conformational import beyond_floor, beyond_protocol
from protenix_eba.eval.metrics.energies import (
    ROOM_TEMPERATURE_K,
    TargetEnergies,
    boltzmann_weights,
    energy_floor,
    energy_metrics,
)
from protenix_eba.eval.metrics.kinetics import compare_kinetics
from protenix_eba.eval.metrics.soundness import soundness, soundness_floor
from protenix_eba.eval.protocol.drawn import Drawn
from protenix_eba.eval.protocol.ensemble import AtomMatch
from protenix_eba.eval.target_result import TargetResult
from protenix_eba.structures.sources import Conformations

__all__ = ["ModelEnergies", "add_beyond", "add_energies", "add_registered"]


@dataclass(frozen=True)
class ModelEnergies:
    """Minimised energies, where they are known.

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
) -> TargetResult:
    """The result of the protocol with what `conformational`, `kinetics` and `soundness` find.

    Args:
        result: The protocol's result for the target.
        drawn: The frames that it kept.
        match: Pairs of atoms of the reference and the samples.
        reference: MD, from which frames are read in the order of time.
        samples: The ensemble.

    Raises:
        UserError: Frames that cannot be read.
    """
    values, arrays, notes = beyond_protocol(drawn)
    md_ca, sample_ca = (atoms[match.ca] for atoms in (match.reference_atoms, match.sample_atoms))
    slow, slow_floor, slow_arrays, slow_notes = compare_kinetics(
        reference, samples, md_ca, sample_ca
    )
    nothing: dict[str, float] = {}
    floors = zip_longest(
        result.floor, beyond_floor(drawn), slow_floor, soundness_floor(drawn), fillvalue=nothing
    )
    return replace(
        result,
        values=result.values | values | slow | soundness(drawn),
        floor=[protocol | beyond | slow | sound for protocol, beyond, slow, sound in floors],
        arrays={**result.arrays, **arrays, **slow_arrays},
        notes=[*result.notes, *notes, *slow_notes],
    )


def add_registered(
    result: TargetResult, drawn: Drawn, metrics: Sequence[tuple[str, Compute]]
) -> TargetResult:
    """Metrics that carry what computes them, and the floor of each, added to a result.

    Args:
        result: The protocol's result for the target.
        drawn: The frames that it kept.
        metrics: Key of each, and what computes it.

    Raises:
        UserError: A metric refuses the target.
    """
    if not metrics:
        return result
    values = {key: float(compute(drawn)) for key, compute in metrics}
    floor = [{key: float(compute(part)) for key, compute in metrics} for part in drawn.floors()]
    nothing: dict[str, float] = {}
    return replace(
        result,
        values=result.values | values,
        floor=[row | own for row, own in zip_longest(result.floor, floor, fillvalue=nothing)],
    )


def add_energies(result: TargetResult, energies: ModelEnergies, seed: int) -> TargetResult:
    """The metrics of minimised energies and their floor, where MD and samples have any.

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
    arrays = {**result.arrays, "md_energy": md.all, "md_weights": weights}
    if samples is None:
        return replace(result, arrays=arrays)
    values = energy_metrics(samples.all, md.all, md.n_residues, temperature)
    floor = energy_floor(md, len(samples.all), temperature, seed)
    nothing: dict[str, float] = {}
    return replace(
        result,
        values=result.values | values,
        floor=[row | own for row, own in zip_longest(result.floor, floor, fillvalue=nothing)],
        counts=result.counts | {"n_energies": len(samples.all)},
        arrays=arrays | {"sample_energy": samples.all},
    )
