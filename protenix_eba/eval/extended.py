"""The result of one target with the metrics that AlphaFlow's protocol lacks."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest

from protenix_eba.eval.beyond import beyond_floor, beyond_protocol
from protenix_eba.eval.drawn import Drawn
from protenix_eba.eval.ensemble import AtomMatch
from protenix_eba.eval.kinetics import compare_kinetics
from protenix_eba.eval.sources import Conformations
from protenix_eba.eval.target import TargetResult

__all__ = ["add_beyond"]


def add_beyond(
    result: TargetResult,
    drawn: Drawn,
    match: AtomMatch,
    reference: Conformations,
    samples: Conformations,
) -> TargetResult:
    """Values, floors, arrays and notes of `beyond` and `kinetics`, added to those of the protocol.

    Args:
        result: Of the protocol.
        drawn: The frames that it kept.
        match: Of the atoms of the two.
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
    floors = zip_longest(result.floor, beyond_floor(drawn), slow_floor, fillvalue=nothing)
    return replace(
        result,
        values=result.values | values | slow,
        floor=[protocol | beyond | slow for protocol, beyond, slow in floors],
        arrays={**result.arrays, **arrays, **slow_arrays},
        notes=[*result.notes, *notes, *slow_notes],
    )
