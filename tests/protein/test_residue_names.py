"""Names of residues and heavy atoms in the dialects that other readers know."""

import re

from mdtraj.formats import PDBTrajectoryFile

from protenix_eba.protein.residue_names import HEAVY_ATOMS, standard_atom, standard_residue


def test_every_name_that_mdtraj_renames_in_pdb_files_becomes_the_same_here():
    """So a name means the same in a PDB file, which mdtraj reads, and in all other formats."""
    PDBTrajectoryFile._loadNameReplacementTables()
    residues = PDBTrajectoryFile._residueNameReplacements
    amino_acids = {alias: name for alias, name in residues.items() if name in HEAVY_ATOMS}
    assert len(amino_acids) > 20
    assert {alias: standard_residue(alias) for alias in amino_acids} == amino_acids
    for residue, heavy in HEAVY_ATOMS.items():
        table = PDBTrajectoryFile._atomNameReplacements[residue]
        aliases = {alias: name for alias, name in table.items() if name in (*heavy, "OXT")}
        assert set(aliases.values()) >= {"O", "OXT"}
        assert {alias: standard_atom(residue, alias) for alias in aliases} == aliases


def test_no_heavy_atom_of_an_amino_acid_is_taken_for_another():
    for residue, heavy in HEAVY_ATOMS.items():
        assert tuple(standard_atom(residue, name) for name in heavy) == heavy
        assert not any(re.match(r"\d*[HD]", name) for name in heavy)
