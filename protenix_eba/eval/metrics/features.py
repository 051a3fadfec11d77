"""Features of conformations beyond coordinates: torsions, size, secondary structure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.units import ANGSTROM_PER_NM

__all__ = ["HELIX", "STRAND", "Features", "Torsions", "features_of", "torsions_of"]

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

OTHER: Final = 0
HELIX: Final = 1
STRAND: Final = 2
UNKNOWN: Final = -1
# Atoms of a peptide bond are 1.33 angstrom apart; residues beyond a gap are not neighbours.
_MAX_BOND: Final = 2.5
# Two ways to name one atom: a turn of 180 degrees changes nothing.
_SYMMETRIC_CHI2: Final = frozenset({"ASP", "PHE", "TYR"})
_BACKBONE: Final = frozenset({"N", "CA", "C", "O"})


@dataclass(frozen=True)
class Torsions:
    """The torsions of a topology: four atoms each.

    Attributes:
        phi: `[R, 4]` of the residues that have both phi and psi.
        psi: `[R, 4]` of the same residues.
        residues: `[R]` these residues' indices.
        chi1: `[R1, 4]`.
        chi2: `[R2, 4]`.
        chi2_period: `[R2]` 2 pi, or pi where the side chain is symmetric.
    """

    phi: Ints
    psi: Ints
    residues: Ints
    chi1: Ints
    chi2: Ints
    chi2_period: Floats


@dataclass(frozen=True)
class Features:
    """Features of F conformations; angles in radians.

    Attributes:
        phi_psi: `[F, R, 2]`, -pi to pi.
        chi1: `[F, R1]`, -pi to pi.
        chi2: `[F, R2]` as fractions of their period, 0 to 1.
        rg: `[F]` radius of gyration of the heavy atoms, each with the same weight, angstrom.
        structure: `[F, L]` HELIX, STRAND, OTHER or UNKNOWN (no complete backbone) of residues with
            a C-alpha atom, by DSSP.
        ca: `[F, L, 3]` C-alpha atoms, angstrom.
    """

    phi_psi: Floats
    chi1: Floats
    chi2: Floats
    rg: Floats
    structure: NDArray[np.int8]
    ca: Floats

    def __len__(self) -> int:
        return len(self.rg)

    def take(self, rows: Ints) -> Features:
        """Return the features of some of the conformations."""
        return Features(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def torsions_of(topology: mdtraj.Topology, xyz: Floats) -> Torsions:
    """Find the torsions by atom names, without those across gaps in the chain.

    Args:
        topology: Heavy atoms.
        xyz: `[F, N, 3]` conformations that tell where the gaps are, angstrom.
    """
    # mdtraj finds atoms while it computes: one frame is enough.
    frame = mdtraj.Trajectory(xyz[:1] / ANGSTROM_PER_NM, topology)
    phi, psi = mdtraj.compute_phi(frame)[0], mdtraj.compute_psi(frame)[0]
    phi = {int(row[2]): row for row in phi if _bonded(xyz, row[0], row[1])}
    psi = {int(row[1]): row for row in psi if _bonded(xyz, row[2], row[3])}
    both = sorted(set(phi) & set(psi))  # by their C-alpha atom
    chi1, chi2 = (_quadruples(f(frame)[0]) for f in (mdtraj.compute_chi1, mdtraj.compute_chi2))
    symmetric = [topology.atom(row[1]).residue.name in _SYMMETRIC_CHI2 for row in chi2]
    return Torsions(
        phi=_quadruples([phi[ca] for ca in both]),
        psi=_quadruples([psi[ca] for ca in both]),
        residues=np.array([topology.atom(ca).residue.index for ca in both], dtype=np.int64),
        chi1=chi1,
        chi2=chi2,
        chi2_period=np.where(symmetric, np.pi, 2.0 * np.pi),
    )


def _bonded(xyz: Floats, first: int, second: int) -> bool:
    distance = np.linalg.norm(xyz[:, first] - xyz[:, second], axis=1)
    return bool(np.median(distance) < _MAX_BOND)


def _quadruples(rows: list[Ints] | Ints) -> Ints:
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def features_of(topology: mdtraj.Topology, xyz: Floats, torsions: Torsions) -> Features:
    """Compute the features of conformations with mdtraj.

    Args:
        topology: Heavy atoms.
        xyz: `[F, N, 3]` in angstrom.
        torsions: Torsions of this topology.

    Source of the secondary structure: Kabsch & Sander, Biopolymers 1983.
    """
    trajectory = mdtraj.Trajectory(xyz / ANGSTROM_PER_NM, topology)
    ca = np.array([atom.index for atom in topology.atoms if atom.name == "CA"], dtype=np.int64)
    phi, psi, chi1, chi2 = (
        _angles(trajectory, quadruples)
        for quadruples in (torsions.phi, torsions.psi, torsions.chi1, torsions.chi2)
    )
    return Features(
        phi_psi=np.stack([phi, psi], axis=-1),
        chi1=chi1,
        chi2=np.mod(chi2, torsions.chi2_period) / torsions.chi2_period,
        rg=mdtraj.compute_rg(trajectory) * ANGSTROM_PER_NM,
        structure=_secondary_structure(trajectory)[:, [topology.atom(i).residue.index for i in ca]],
        ca=np.asarray(xyz[:, ca]),
    )


def _angles(trajectory: mdtraj.Trajectory, quadruples: Ints) -> Floats:
    if not len(quadruples):
        return np.empty((trajectory.n_frames, 0))
    return np.asarray(mdtraj.compute_dihedrals(trajectory, quadruples, periodic=False))


def _secondary_structure(trajectory: mdtraj.Trajectory) -> NDArray[np.int8]:
    """Return the secondary structure of each residue, `[F, residues]`."""
    residues = list(trajectory.topology.residues)
    codes = np.full((trajectory.n_frames, len(residues)), UNKNOWN, dtype=np.int8)
    complete = [{a.name for a in residue.atoms} >= _BACKBONE for residue in residues]
    if not any(complete):
        return codes
    letters = mdtraj.compute_dssp(trajectory, simplified=True)
    for letter, code in (("H", HELIX), ("E", STRAND), ("C", OTHER)):
        codes[letters == letter] = code
    return codes
