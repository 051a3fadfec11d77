"""Bonds that a structure file states, as gemmi writes them, where coordinates do not show them."""

from __future__ import annotations

from pathlib import Path

import gemmi
import mdtraj
import numpy as np
import pytest

from protenix_eba.core.errors import UserError
from protenix_eba.energy.prepare import open_structure
from protenix_eba.structures.md_topology import read_protein
from protenix_eba.structures.stated_bonds import stated_bonds

DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"
THYMOPENTIN = DEMO / "thymopentin" / "thymopentin.pdb"  # RKDVY, one chain
LYSINE, ASPARTATE = ("2", "NZ"), ("3", "CG")
ZINC = gemmi.ConnectionType.MetalC


def written(
    path: Path, kind: gemmi.ConnectionType = gemmi.ConnectionType.Covale, image: bool = False
) -> Path:
    """Thymopentin and a zinc ion with a bond between a lysine's or the ion's and an aspartate."""
    structure = gemmi.read_structure(str(THYMOPENTIN))
    chain = structure[0][0]
    ion = gemmi.Residue()
    ion.name, ion.seqid, ion.het_flag = "ZN", gemmi.SeqId("9"), "H"
    atom = gemmi.Atom()
    atom.name, atom.element, atom.pos = "ZN", gemmi.Element("Zn"), gemmi.Position(30, 30, 30)
    ion.add_atom(atom)
    chain.add_residue(ion)
    structure.setup_entities()
    structure.assign_label_seq_id()
    bond = gemmi.Connection()
    bond.name, bond.type = "b1", kind
    one = chain[-1] if kind == ZINC else chain[1]
    bond.partner1 = gemmi.make_address(chain, one, one[0] if kind == ZINC else one["NZ"][0])
    bond.partner2 = gemmi.make_address(chain, chain[2], chain[2]["CG"][0])
    structure.connections.append(bond)
    if path.suffix == ".pdb":
        text = structure.make_pdb_string()
        path.write_text(text.replace("  1555   1555", "  1555   2655") if image else text)
    else:
        document = structure.make_mmcif_document()
        for end, symmetry in enumerate(["1_555", "2_655" if image else "1_555"], 1):
            document[0].find_values(f"_struct_conn.ptnr{end}_symmetry")[0] = symmetry
        document.write_file(str(path))
    return path


def names(path: Path) -> list[tuple[str, str]]:
    """Residue number and name of each atom, by gemmi."""
    return [
        (str(found.residue.seqid), found.atom.name)
        for found in gemmi.read_structure(str(path))[0].all()
    ]


@pytest.mark.parametrize("suffix", ["pdb", "cif"])
@pytest.mark.parametrize(
    ("kind", "first"),
    [(gemmi.ConnectionType.Covale, LYSINE), (ZINC, ("9", "ZN"))],
    ids=["amide", "metal"],
)
def test_bonds_are_those_that_gemmi_wrote(suffix, kind, first, tmp_path: Path) -> None:
    path = written(tmp_path / f"x.{suffix}", kind)
    found = stated_bonds(path)
    atoms = names(path)
    assert found.n_atoms == len(atoms)
    assert [{atoms[i] for i in pair} for pair in found.pairs] == [{first, ASPARTATE}]
    # Neither is visible to the reader of the force field, which is told.
    told = [
        {(atom.residue.id, atom.name) for atom in bond}
        for bond in open_structure(path).topology.bonds()
    ]
    assert {first, ASPARTATE} in told


@pytest.mark.parametrize("suffix", ["pdb", "cif"])
def test_a_bond_to_an_image_is_none_of_the_molecule(suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"x.{suffix}", image=True)
    assert stated_bonds(path).pairs == ()


@pytest.mark.parametrize("suffix", ["pdb", "cif"])
def test_a_bond_to_another_molecule_refuses_the_topology_by_name(
    suffix: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"the covalent bond ASP 3 CG - ZN 9 ZN cannot be"):
        read_protein(written(tmp_path / f"x.{suffix}", ZINC))


def conect(path: Path, first: tuple[str, str], second: tuple[str, str], again: int = 0) -> Path:
    """Thymopentin with a CONECT line; `again` far atoms repeat its serial numbers before that."""
    lines = [s for s in THYMOPENTIN.read_text(encoding="utf-8").splitlines() if s[:4] == "ATOM"]
    serial = {(s[22:26].strip(), s[12:16].strip()): s[6:11] for s in lines}
    water = [
        f"HETATM{s[6:11]}  O   HOH W{i:4d}      {90 - i:6.3f}  90.000  90.000  1.00  0.00"
        "           O"
        for i, s in enumerate(lines[:again])
    ]
    path.write_text(
        "\n".join([*lines, *water, f"CONECT{serial[first]}{serial[second]}", "END", ""])
    )
    return path


@pytest.mark.parametrize("again", [0, 50], ids=["own serial numbers", "serial numbers begin anew"])
def test_conect_is_read_as_mdtraj_reads_it(again: int, tmp_path: Path) -> None:
    path = conect(tmp_path / "x.pdb", LYSINE, ASPARTATE, again)
    source = read_protein(path)
    bonded = mdtraj.load_pdb(str(conect(tmp_path / "y.pdb", LYSINE, ASPARTATE))).topology
    expected = [
        (one.index, other.index)
        for one, other in bonded.bonds
        if {one.name, other.name} == {LYSINE[1], ASPARTATE[1]}
    ]
    assert source.bonds.tolist() == [list(pair) for pair in expected]
    assert len(expected) == 1


def test_bonds_of_psf_files_are_those_between_residues(tmp_path: Path) -> None:
    topology = mdtraj.load_pdb(str(THYMOPENTIN)).topology
    where = {(str(a.residue.resSeq), a.name): a.index for a in topology.atoms}
    pairs = [(a.index, b.index) for a, b in topology.bonds] + [(where[LYSINE], where[ASPARTATE])]
    rows = [
        f"{a.index + 1:8d} PROA {a.residue.resSeq:<4d} {a.residue.name:<4s} {a.name:<4s} "
        f"{a.element.symbol:<4s} 0.000000 {a.element.mass:10.4f} 0"
        for a in topology.atoms
    ]
    flat = [str(i + 1) for pair in pairs for i in pair]
    bonds = [" ".join(flat[i : i + 8]) for i in range(0, len(flat), 8)]
    head = ["PSF", "", "       1 !NTITLE", " REMARKS", "", f"{len(rows):8d} !NATOM"]
    text = [*head, *rows, "", f"{len(pairs):8d} !NBOND: bonds", *bonds, "", "       0 !NTHETA", ""]
    (tmp_path / "x.psf").write_text("\n".join([*text, ""]))
    found = read_protein(tmp_path / "x.psf")
    place = np.argsort(found.columns)
    peptide = [(where[str(i), "C"], where[str(i + 1), "N"]) for i in range(1, 5)]
    expected = [sorted(place[list(pair)].tolist()) for pair in [*peptide, pairs[-1]]]
    assert sorted(found.bonds.tolist()) == sorted(expected)
