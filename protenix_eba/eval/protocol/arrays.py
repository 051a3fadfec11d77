"""Plain arrays of one target, for the aggregate over targets and for the figures."""

from __future__ import annotations

from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

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


def shown_frames(drawn: Drawn, numbers: NDArray[np.int64]) -> Arrays:
    """Return a few frames of each side for the view in three dimensions.

    Of the samples also the one that is nearest to the MD, and the one that is farthest from it.

    Args:
        drawn: The frames that were kept.
        numbers: `[S]` the samples' numbers in their files.
    """
    from_md = _from_md(drawn)
    md, spread = _spread(len(drawn.md_xyz)), _spread(len(from_md))
    chosen = np.unique([*spread, from_md.argmin(), from_md.argmax()])
    return {
        "md_frames": drawn.md_xyz[md],
        "sample_frames": drawn.sample_xyz[chosen],
        "sample_shown": numbers[chosen],
        "sample_from_md": from_md[chosen],
    }


def _spread(n: int) -> NDArray[np.int64]:
    """Return at most 12 of n numbers, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, _N_SHOWN).astype(np.int64))


def _from_md(drawn: Drawn) -> NDArray[np.float64]:
    """Return the C-alpha RMSD of each sample, as superposed, to the nearest frame, `[S]` Å."""
    ca = [atom.index for atom in drawn.topology.atoms if atom.name == "CA"]
    md, samples = (xyz[:, ca].reshape(len(xyz), -1) for xyz in (drawn.md_xyz, drawn.sample_xyz))
    result: NDArray[np.float64] = cdist(samples, md).min(axis=1) / np.sqrt(len(ca))
    return result
