"""The PDB file of an imported target, with the bonds that its sequence does not tell."""

from __future__ import annotations

from pathlib import Path

import mdtraj

from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.importing.molecule import Molecule
from protenix_eba.structures.pdb_text import atom_lines

__all__ = ["write_pdb"]


def write_pdb(path: Path, molecule: Molecule) -> None:
    """Write the reference coordinates, CONECT for rings and disulfides among them.

    mdtraj writes CONECT for caps and for the disulfides that it guesses itself.
    """
    reference_nm = molecule.reference[None] / ANGSTROM_PER_NM
    mdtraj.Trajectory(reference_nm, molecule.topology).save_pdb(str(path))
    written = {frozenset((one.index, other.index)) for one, other in molecule.topology.bonds}
    text = path.read_text(encoding="ascii")
    serial = [line[6:11] for line in atom_lines(text)[0]]
    more = [
        f"CONECT{serial[bond.first]}{serial[bond.second]}\n"
        for bond in molecule.bridges
        if frozenset((bond.first, bond.second)) not in written
    ]
    if more:
        body, end = text[: text.rindex("END")], text[text.rindex("END") :]
        path.write_text("".join([body, *more, end]), encoding="ascii")
