"""Plain arrays of one target, for the aggregate over targets and for the figures."""

from __future__ import annotations

from typing import Final

import mdtraj
import numpy as np

from protenix_eba.eval.protocol.drawn import Drawn
from protenix_eba.eval.protocol.ensemble import AtomMatch
from protenix_eba.eval.protocol.panel import Side, Structure
from protenix_eba.eval.target_result import Arrays

__all__ = ["residue_arrays", "shown_frames", "side_arrays"]

_N_SHOWN: Final = 12


def residue_arrays(topology: mdtraj.Topology, match: AtomMatch) -> Arrays:
    """Return names and numbers of the matched residues and atoms, named as in `TargetResult`."""
    atoms = [topology.atom(int(i)) for i in match.reference_atoms]
    residues = [atoms[i].residue for i in match.ca]
    return {
        "residue_numbers": np.array([residue.resSeq for residue in residues]),
        "residue_names": np.array([residue.name for residue in residues]),
        "chain_ids": np.array([(residue.chain.chain_id or "").strip() for residue in residues]),
        "atom_names": np.array([atom.name for atom in atoms]),
        "atom_residue": match.residue,
    }


def side_arrays(structure: Structure, md: Side, samples: Side) -> Arrays:
    """Return fluctuations, projections, contacts and, with side chains, exposure."""
    arrays: Arrays = {
        "md_rmsf": md.rmsf,
        "sample_rmsf": samples.rmsf,
        "sample_pca": md.axes.project(samples.ca),
        "structure_contacts": structure.contacts,
        "md_contacts": md.contacts.astype(np.float16),
        "sample_contacts": samples.contacts.astype(np.float16),
    }
    if structure.buried is not None and md.exposed is not None and samples.exposed is not None:
        arrays["structure_exposed"] = ~structure.buried
        arrays["md_exposed"] = md.exposed.mean(axis=0)
        arrays["sample_exposed"] = samples.exposed.mean(axis=0)
    return arrays


def shown_frames(drawn: Drawn) -> Arrays:
    """Return a few frames of each side for the view in three dimensions."""
    md, samples = (xyz[_spread(len(xyz))] for xyz in (drawn.md_xyz, drawn.sample_xyz))
    return {"md_frames": md, "sample_frames": samples}


def _spread(n: int) -> np.typing.NDArray[np.int64]:
    """Return at most 12 of n numbers, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, _N_SHOWN).astype(np.int64))
