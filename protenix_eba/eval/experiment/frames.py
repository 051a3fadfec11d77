"""Atoms of an ensemble that measurements name, with amide hydrogens added where they lack."""

from __future__ import annotations

from typing import Any, Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.eval.experiment.measurements import AtomName
from protenix_eba.eval.suites.ensembles import ca_topology, coordinates
from protenix_eba.structures.sources import Conformations

__all__ = ["AMIDE_BOND_ANGSTROM", "Frames"]

# N-H of a peptide group by neutron diffraction; only its direction matters here.
AMIDE_BOND_ANGSTROM: Final = 1.02
_SAME_NAME: Final = {"H": "HN", "HN": "H"}
_BACKBONE: Final = ("N", "CA", "C")


class Frames:
    """An ensemble in memory.

    Args:
        topology: All atoms.
        xyz: `[S, N, 3]` angstrom.
        name: Name of the target, for messages.
        jobs: Number of processes for predictions that cost seconds for each conformation.
    """

    def __init__(
        self, topology: mdtraj.Topology, xyz: NDArray[np.floating], name: str, jobs: int = 1
    ) -> None:
        self.topology, self.xyz, self.name, self.jobs = topology, xyz, name, jobs
        self.tables: dict[tuple[str, int], Any] = {}  # predicted shifts, see `shifts`
        self._index = {
            ((a.residue.chain.chain_id or "").strip(), a.residue.resSeq, a.name): a.index
            for a in topology.atoms
        }
        self.chains = {key[0] for key in self._index}

    @classmethod
    def read(cls, source: Conformations, jobs: int = 1) -> Frames:
        """Read all conformations of an ensemble on disk."""
        atoms = np.arange(source.topology.n_atoms)
        return cls(source.topology, coordinates(source, atoms), source.name, jobs)

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def ca(self) -> NDArray[np.floating]:
        """C-alpha atoms, `[S, L, 3]` in angstrom."""
        return self.xyz[:, ca_topology(self.topology)[1]]

    def position(self, atom: AtomName) -> NDArray[np.float64]:
        """Return the positions of an atom, `[S, 3]` in angstrom; a missing amide hydrogen is built.

        Raises:
            UserError: There is no such atom.
        """
        index = self._find(atom)
        if index is not None:
            return np.asarray(self.xyz[:, index], dtype=np.float64)
        if atom.name in _SAME_NAME:
            return self._amide_hydrogen(atom)
        raise UserError(
            f"target {self.name}: there is no atom {atom}",
            "name atoms as the topology does; models often have no hydrogens but H can be built",
        )

    def residue(self, atom: AtomName) -> mdtraj.core.topology.Residue | None:
        """Return the amino acid of an atom; None where the structures have none of its number."""
        index = self._find(AtomName(atom.chain, atom.residue, "CA"))
        return None if index is None else self.topology.atom(index).residue

    def phi(self, residue: AtomName) -> NDArray[np.float64]:
        """Return the torsion C(i-1)-N-CA-C of a residue, `[S]` in radians.

        Raises:
            UserError: An atom of it is not there, as for the first residue.
        """
        own = [AtomName(residue.chain, residue.residue, name) for name in _BACKBONE]
        points = [self._carbon_before(residue), *map(self.position, own)]
        xyz = np.stack(points, axis=1) / 10.0
        # mdtraj's torsion needs a topology of the right size only.
        trajectory = mdtraj.Trajectory(xyz, None)
        torsion = mdtraj.compute_dihedrals(trajectory, [[0, 1, 2, 3]], periodic=False, opt=False)
        return np.asarray(torsion[:, 0], dtype=np.float64)

    def _carbon_before(self, atom: AtomName) -> NDArray[np.float64]:
        """Return the carbonyl carbon bonded to the nitrogen of an atom's residue, `[S, 3]`."""
        before = AtomName(atom.chain, atom.residue - 1, "C")
        if self._find(before) is None:
            raise UserError(
                f"target {self.name}: residue {atom.residue} has none before it, and so no "
                "torsion phi and no amide plane",
                "leave the values of the first residue of a chain out",
            )
        return self.position(before)

    def _find(self, atom: AtomName) -> int | None:
        if atom.chain or len(self.chains) == 1:
            chain = atom.chain if atom.chain in self.chains else next(iter(self.chains))
            if atom.chain and atom.chain not in self.chains and len(self.chains) > 1:
                return None
            names = (atom.name, _SAME_NAME.get(atom.name, atom.name))
            found = (self._index.get((chain, atom.residue, name)) for name in names)
            return next((index for index in found if index is not None), None)
        raise UserError(
            f"target {self.name}: {atom} names no chain, there are {len(self.chains)}",
            "write A:2:HA",
        )

    def _amide_hydrogen(self, atom: AtomName) -> NDArray[np.float64]:
        """Place it in the peptide plane, outwards on the line that halves the angle C(i-1)-N-CA."""
        of = AtomName(atom.chain, atom.residue, "N")
        index = self._find(of)
        if index is not None and self.topology.atom(index).residue.name == "PRO":
            raise UserError(
                f"target {self.name}: {atom}: proline has no amide hydrogen",
                "check the numbers of residues, or leave the value out",
            )
        nitrogen, before = self.position(of), self._carbon_before(atom)
        ca = self.position(AtomName(atom.chain, atom.residue, "CA"))
        direction = _unit(_unit(nitrogen - before) + _unit(nitrogen - ca))
        return nitrogen + AMIDE_BOND_ANGSTROM * direction


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return result
