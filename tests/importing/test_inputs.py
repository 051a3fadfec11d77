"""What people's files really look like: each is right, or refused by name. A report is a line.

The files in data/inputs are made for these tests: peptides of a few residues, three frames each.
"""

from __future__ import annotations

import json
import struct
import types
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from openmm import app, unit
from plain_openmm import plain_energies

from protenix_eba.core.errors import UserError
from protenix_eba.energy.checks import Geometry, moved_bond
from protenix_eba.energy.label import label_targets
from protenix_eba.energy.plumed import is_colvar, read_colvar
from protenix_eba.energy.prepare import open_structure
from protenix_eba.energy.protocol import PROTOCOLS, customised, protocol_by_name
from protenix_eba.energy.protonation_choice import Protonation
from protenix_eba.energy.published import labels_from_csv
from protenix_eba.energy.structure import complete_structure
from protenix_eba.energy.system import TargetEnergy
from protenix_eba.eval.experiment.measurements import read_measurements
from protenix_eba.eval.weighting import read_weights
from protenix_eba.host.weights import load_checkpoint, with_depth
from protenix_eba.importing.one_target import import_target
from protenix_eba.importing.sources import find_md, source_of_files
from protenix_eba.structures.frame_choice import FrameChoice
from protenix_eba.structures.md_files import DcdLayout
from protenix_eba.structures.md_topology import read_protein
from protenix_eba.structures.psf_files import load_psf
from protenix_eba.structures.sequences import Protein, protein_of_target, read_proteins, read_seed
from protenix_eba.structures.sources import find_samples
from protenix_eba.structures.trajectories import Target, find_targets, load_topology, read_frames

FILES = Path(__file__).parents[1] / "data" / "inputs"
AS_IS = protocol_by_name("default", minimise=False)
THYMOPENTIN = (
    Path(__file__).parents[2] / "protenix_eba" / "demo_data" / "thymopentin" / "thymopentin.pdb"
)  # RKDVY


@dataclass(frozen=True)
class Case:
    """A folder of data/inputs and what import makes of it."""

    folder: str
    status: str = "ok"
    frames: int = 3
    chains: tuple[str, ...] = ()
    told: tuple[str, ...] = ()  # each a part of the row's reason
    dropped: tuple[str, ...] = ()
    topology: str = "prot.pdb"
    trajectory: str = "run.xtc"

    @property
    def files(self) -> tuple[Path, Path]:
        (folder,) = FILES.glob(f"{self.folder}-*")
        return folder / self.topology, folder / self.trajectory


CASES = [
    Case("01", chains=("RKDVY",)),
    Case("02", chains=("GRGDC",)),
    Case("03", chains=("AGAGAG",), told=("closed head to tail", "A ALA 1 N - A GLY 6 C")),
    Case("05", frames=4, chains=("RKDVY",), topology="mono.pdb", trajectory="mono.dcd"),
    Case("05", frames=4, chains=("AAAAA", "AAAAA"), trajectory="run.dcd"),
    Case("07", chains=("AAAAA",), told=("caps are part of the energy (ACE 0)",)),
    Case("09", chains=("RKDVY",)),
    Case("10", chains=("AAAAA", "AAAAA"), told=("ACE", "NME 7", "part of the energy")),
    Case("11", chains=("RKDVY",), told=("3 of 6 frames hold no coordinates",),
         trajectory="run.trr"),
    Case("12", frames=6, chains=("RKDVY",), trajectory="run.dcd"),
    Case("13", chains=("MNIFEM",)),
    Case("21", "incomplete", 1, ("GRGDC", "GRGDC"), told=("A CYS 5 SG - B CYS 5 SG is 30.6",)),
    Case("24", chains=("AAAAA",), told=("caps are part of the energy (ACE 1, NME 7)",)),
    Case("26", chains=("AAAAA",), dropped=("ALA MN1", "ALA MN2", "ALA MCB1", "ALA MCB2")),
]  # fmt: skip


def imported(case: Case, out: Path):
    top, trajectory = case.files
    row = import_target(source_of_files(top, [trajectory], "prot"), out, FrameChoice())
    path = out / "prot" / "import.json"
    return row, json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.folder)
def test_import_is_right_or_says_why(case: Case, tmp_path: Path) -> None:
    row, record = imported(case, tmp_path)
    assert (row.status, row.n_frames) == (case.status, case.frames), row.reason
    assert tuple(record.get("chains", ())) == case.chains
    for part in case.told:
        assert part in row.reason
    assert set(case.dropped) <= set(record.get("dropped_atoms", ()))
    if record:
        target = find_targets(tmp_path / "prot")[0]
        assert read_frames(target, 1).shape[1] == load_topology(target).n_atoms


@pytest.mark.parametrize(
    ("folder", "lines"),
    [
        ("01", ["kept: 3 frames, 1 chains RKDVY, 97 atoms",
                "energy, protonation: as the hydrogens show, A LYS 2 LYN"]),
        ("02", ["energy, protonation: as the hydrogens show, A CYS 5 CYM"]),
        ("03", ["energy, rings: A ALA 1 N - A GLY 6 C"]),
        ("09", ["dropped: none", "energy, protonation: as the hydrogens show, all usual"]),
    ],
)  # fmt: skip
def test_import_ends_with_what_the_energy_will_see(
    folder: str, lines: list, tmp_path: Path
) -> None:
    row, record = imported(Case(folder), tmp_path)
    assert set(lines) <= set(row.summary)
    again, _ = imported(Case(folder), tmp_path)
    assert again.kept and again.summary == row.summary == tuple(record["summary"])


@pytest.mark.parametrize(
    ("ends", "seen"),
    [
        (("H3", None), "A ARG 1 neutral N-terminus"),
        ((None, "HXT"), "A TYR 5 neutral C-terminus"),
        ((None, None), "all usual"),
    ],
)
def test_ends_without_their_charge_are_named(ends: tuple, seen: str, tmp_path: Path) -> None:
    """Thymopentin less a hydrogen of its amine, or with one on its acid."""
    whole = mdtraj.load(str(THYMOPENTIN))
    lost, gained = ends
    kept = [a.index for a in whole.topology.atoms if (a.residue.index, a.name) != (0, lost)]
    made = whole.atom_slice(kept)
    if gained:
        last = made.topology.residue(-1)
        acid = next(atom for atom in last.atoms if atom.name == "OXT")
        made.topology.add_atom(gained, mdtraj.element.hydrogen, last)
        place = made.xyz[:, acid.index] + np.array([0.0, 0.0, 0.097], dtype=np.float32)
        made = mdtraj.Trajectory(np.concatenate([made.xyz, place[:, None]], axis=1), made.topology)
    made.save_pdb(str(tmp_path / "t.pdb"))
    made.save_xtc(str(tmp_path / "t.xtc"))
    row = import_target(
        source_of_files(tmp_path / "t.pdb", [tmp_path / "t.xtc"], "t"), tmp_path, FrameChoice()
    )
    assert f"energy, protonation: as the hydrogens show, {seen}" in row.summary


def test_a_shape_matrix_of_charmm_brings_chains_together(tmp_path: Path) -> None:
    imported(Case("05", trajectory="run.dcd"), tmp_path)
    xyz = read_frames(find_targets(tmp_path / "prot")[0], 1)
    half = xyz.shape[1] // 2
    apart = xyz[:, :half].mean(axis=1) - xyz[:, half:].mean(axis=1)
    assert np.allclose(np.linalg.norm(apart, axis=1), 9.0, atol=0.1)


@pytest.mark.parametrize(
    ("box", "told"),
    [
        (np.diag([0.5, 4, 4]), "the box of 4 frames cannot be used (height 5.0 angstrom"),
        (None, "without a box, 3 of 4 frames have chains apart"),
    ],
    ids=["thin box", "no box"],
)
def test_a_box_that_cannot_be_used_is_said(box, told: str, tmp_path: Path) -> None:
    top = Case("05").files[0]
    frame = mdtraj.load(str(top))
    frame.unitcell_vectors = None
    xyz = np.repeat(frame.xyz, 4, axis=0)
    half = frame.n_atoms // 2
    middle = xyz[:, :half].mean(axis=1) - xyz[:, half:].mean(axis=1)
    # Side by side, as in the simulation.
    xyz[:, half:] += (middle + np.array([0.0, 0.0, 0.9]))[:, None]
    xyz[1:, half:] += 4.0 if box is None else 0.0
    made = mdtraj.Trajectory(xyz, frame.topology)
    made.unitcell_vectors = None if box is None else np.repeat(box[None], 4, axis=0)
    made[0].save_pdb(str(tmp_path / "t.pdb"))
    made.save_xtc(str(tmp_path / "t.xtc"))
    row = import_target(
        source_of_files(tmp_path / "t.pdb", [tmp_path / "t.xtc"], "t"), tmp_path, FrameChoice()
    )
    assert told in row.reason


def as_2023(source: Path, path: Path) -> Path:
    """The same frames as GROMACS 2023 writes them for huge systems: a length of 64 bits."""
    data, made, at = source.read_bytes(), b"", 0
    while at < len(data):
        (length,) = struct.unpack(">i", data[at + 88 : at + 92])
        end = at + 92 + (length + 3) // 4 * 4
        made += struct.pack(">i", 2023) + data[at + 4 : at + 88] + struct.pack(">q", length)
        made += data[at + 92 : end]
        at = end
    path.write_bytes(made)
    return path


@pytest.mark.parametrize("cut", [0, 10], ids=["whole", "cut"])
def test_xtc_with_the_magic_number_of_2023_has_the_same_frames(cut: int, tmp_path: Path) -> None:
    top, trajectory = Case("01").files
    path = as_2023(trajectory, tmp_path / "new.xtc")
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
    rows = [
        import_target(source_of_files(top, [file], name), tmp_path / "md", FrameChoice())
        for file, name in ((trajectory, "old"), (path, "new"))
    ]
    assert [row.n_frames for row in rows] == [3, 3 - (cut > 0)], rows
    old, new = (read_frames(find_targets(tmp_path / "md" / name)[0], 1) for name in ("old", "new"))
    assert (new == old[: len(new)]).all()
    assert ("new.xtc is cut after 2 whole frames" in rows[1].reason) is (cut > 0)


def test_frames_with_fixed_atoms_are_those_that_are_read_forward(tmp_path: Path) -> None:
    case = Case("12", trajectory="run.dcd")
    imported(case, tmp_path)
    with mdtraj.formats.DCDTrajectoryFile(str(case.files[1])) as handle:
        forward = handle.read()[0]
    assert np.abs(read_frames(find_targets(tmp_path / "prot")[0], 1) - forward).max() < 0.006


# Energies: plain OpenMM with what the file shows and nothing more.


def bonded(topology: app.Topology, bonds: tuple) -> app.Topology:
    """With the bonds that the file lacks, ((1, "N"), (6, "C"))."""
    atoms = {(int(a.residue.id), a.name): a for a in topology.atoms()}
    known = {frozenset(bond) for bond in topology.bonds()}
    for bond in bonds:
        pair = [atoms[end] for end in bond]
        if frozenset(pair) not in known:
            topology.addBond(*pair)
    return topology


@pytest.mark.parametrize(
    ("folder", "bonds", "n_atoms"),
    [("01", (), 97), ("02", (), 63), ("03", (((1, "N"), (6, "C")),), 51)],
)
def test_labels_are_plain_openmms_energies_of_the_atoms_that_are_there(
    folder: str, bonds: tuple, n_atoms: int, tmp_path: Path
) -> None:
    imported(Case(folder), tmp_path)
    labels = label_targets(tmp_path, tmp_path / "l.parquet", AS_IS).labels
    target = find_targets(tmp_path / "prot")[0]
    topology = app.PDBFile(str(target.topology_path)).topology
    assert topology.getNumAtoms() == n_atoms
    assert labels.built_fraction.tolist() == [0, 0, 0]
    frames_nm = read_frames(target, 1) / 10
    expected = plain_energies(bonded(topology, bonds), frames_nm, AS_IS.force_field)
    assert labels.energy_kj_mol == pytest.approx(expected, abs=0.15)


def without(path: Path, *atoms: str) -> str:
    """A PDB file less some atoms, "LYS 2 HZ3"."""
    lines = THYMOPENTIN.read_text(encoding="utf-8").splitlines(keepends=True)
    gone = {tuple(atom.split()) for atom in atoms}
    place = [(line[17:20].strip(), line[22:26].strip(), line[12:16].strip()) for line in lines]
    kept = [line for line, key in zip(lines, place, strict=True) if key not in gone]
    path.write_text("".join(line for line in kept if line.startswith("ATOM")), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("atoms", "n_atoms"),
    [
        (("LYS 2 HZ3",), 97),
        (("LYS 2 HZ1",), 97),  # whichever of the three it is
        (("ARG 1 H3",), 97),
        (("ARG 1 H",), 97),
    ],
    ids=["LYN", "LYN by another hydrogen", "neutral N-terminus", "the same by another hydrogen"],
)
def test_protonation_is_that_of_the_file(atoms: tuple, n_atoms: int, tmp_path: Path) -> None:
    file = app.PDBFile(without(tmp_path / "x.pdb", *atoms))
    structure = complete_structure(tmp_path / "x.pdb")
    assert structure.topology.getNumAtoms() == n_atoms
    xyz_nm = np.array(file.positions.value_in_unit(unit.nanometer))
    label = TargetEnergy(structure, AS_IS, "Reference").label(structure.fill(xyz_nm[None] * 10)[0])
    assert [label.energy_kj_mol] == pytest.approx(
        plain_energies(file.topology, xyz_nm[None], AS_IS.force_field), abs=0.15
    )


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (("TYR 5 HH",), "no template for TYR 5 of chain A with 0 hydrogens at OH, usually 1"),
        (("ARG 1 HE",), "no template for ARG 1 of chain A with 4 hydrogens at NE/NH1/NH2"),
    ],
    ids=["tyrosinate", "neutral arginine"],
)
def test_protonation_without_a_template_is_refused_by_name(
    atoms: tuple, reason: str, tmp_path: Path
) -> None:
    structure = complete_structure(without(tmp_path / "x.pdb", *atoms))
    with pytest.raises(UserError, match=reason):
        TargetEnergy(structure, AS_IS, "Reference")


@pytest.mark.parametrize(
    "atoms",
    [("TYR 5 HB2",), ("TYR 5 H",), ("TYR 5 OXT",), ("ARG 1 H2", "ARG 1 H3")],
    ids=["methylene", "amide", "OXT", "end of a cut chain"],
)
def test_atoms_that_no_state_lacks_are_built(atoms: tuple, tmp_path: Path) -> None:
    whole = complete_structure(THYMOPENTIN)
    built = complete_structure(without(tmp_path / "x.pdb", *atoms))
    assert built.topology.getNumAtoms() == whole.topology.getNumAtoms()
    assert built.built_fraction > 0


def heavy_atoms(path: Path) -> Path:
    """Thymopentin (RKDVY) without hydrogens."""
    lines = THYMOPENTIN.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.startswith("ATOM") and line[76:78].strip() != "H"]
    path.write_text("".join(kept), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("choice", "lacking", "more"),
    [
        ("frames", (), 0),
        ("A:LYS2=LYN", ("LYS 2 HZ3",), 0),
        ("ph:8, LYS2=LYN", ("LYS 2 HZ3",), 0),
        ("ph:2", (), 1),  # the aspartate's
    ],
)
def test_protonation_of_frames_without_hydrogens_is_that_asked_for(
    choice: str, lacking: tuple, more: int, tmp_path: Path
) -> None:
    """The number of atoms is that of a file that shows the state by its hydrogens."""
    bare = heavy_atoms(tmp_path / "bare.pdb")
    protocol = customised(AS_IS, protonation=[choice])
    structure = complete_structure(bare, protocol.protonation)
    shown = complete_structure(without(tmp_path / "shown.pdb", *lacking))
    assert structure.topology.getNumAtoms() == shown.topology.getNumAtoms() + more
    label = TargetEnergy(structure, AS_IS, "Reference").label(structure.reference_nm)
    expected = plain_energies(structure.topology, structure.reference_nm[None], AS_IS.force_field)
    assert [label.energy_kj_mol] == pytest.approx(expected, abs=0.15)
    assert (protocol.hash == AS_IS.hash) is (choice == "frames")


def test_named_protonation_of_a_thiolate_has_its_template(tmp_path: Path) -> None:
    top = Case("02").files[0]
    bare = tmp_path / "bare.pdb"
    lines = top.read_text(encoding="utf-8").splitlines(keepends=True)
    bare.write_text("".join(s for s in lines if s[:4] == "ATOM" and s[12:16].strip()[0] != "H"))
    named = complete_structure(bare, "CYS5=CYM").topology.getNumAtoms()
    assert named == complete_structure(top).topology.getNumAtoms()
    assert named == complete_structure(bare).topology.getNumAtoms() - 1


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("ph:15", "expected a pH from 0 to 14, found 15"),
        ("LYS2", "'LYS2' is none of the choices"),
        ("LYS2=HIP", "LYS has no state HIP; known are LYS, LYN"),
        ("B:LYS2=LYN", "B:LYS2=LYN: expected one residue of that chain, name and number, found 0"),
        ("A:LYS2=LYN", "A:LYS2=LYN: the file shows LYS by its hydrogens"),
    ],
)
def test_protonation_that_cannot_be_is_refused_by_name(choice: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        complete_structure(THYMOPENTIN, str(Protonation.parse(choice)))


def test_protonation_may_be_of_one_target_among_several(tmp_path: Path) -> None:
    files = [heavy_atoms(tmp_path / name) for name in ("one_0.pdb", "two_0.pdb")]
    protocol = customised(AS_IS, protonation=["one/A:LYS2=LYN"])
    labels = label_targets(files, tmp_path / "l.parquet", protocol).labels
    assert labels.target.tolist() == ["one", "two"]
    expected = [complete_structure(files[0], choice).topology_hash for choice in ("LYS2=LYN", "")]
    assert labels.topology_hash.tolist() == expected
    energy = [
        TargetEnergy(structure, AS_IS, "Reference").label(structure.reference_nm).energy_kj_mol
        for structure in (complete_structure(files[0], choice) for choice in ("LYS2=LYN", ""))
    ]
    assert labels.energy_kj_mol == pytest.approx(energy, abs=0.15)
    protocol = customised(AS_IS, protonation=["three/A:LYS2=LYN"])
    with pytest.raises(UserError, match="three/A:LYS2=LYN: no target three among one, two"):
        label_targets(files, tmp_path / "m.parquet", protocol)


def test_a_serine_without_its_hydroxyls_hydrogen_gets_one(tmp_path: Path) -> None:
    whole = THYMOPENTIN.parents[1] / "grgds" / "grgds.pdb"
    lines = whole.read_text(encoding="utf-8").splitlines(keepends=True)
    cut = tmp_path / "cut.pdb"
    cut.write_text("".join(s for s in lines if s[12:20].split() != ["HG", "SER"]), encoding="utf-8")
    atoms = [complete_structure(path).topology.getNumAtoms() for path in (whole, cut)]
    assert atoms[0] == atoms[1] and cut.stat().st_size < whole.stat().st_size


def test_a_rings_bond_that_the_file_has_counts_once(tmp_path: Path) -> None:
    top = Case("03").files[0]
    atoms = list(app.PDBFile(str(top)).topology.atoms())
    (first,) = (int(a.id) for a in atoms if (a.residue.id, a.name) == ("1", "N"))
    (last,) = (int(a.id) for a in atoms if (a.residue.id, a.name) == ("6", "C"))
    lines = [s for s in top.read_text(encoding="utf-8").splitlines() if not s.startswith("END")]
    told = tmp_path / "told.pdb"
    told.write_text("\n".join([*lines, f"CONECT{first:5d}{last:5d}", "END", ""]), encoding="utf-8")
    n_bonds = [len(list(complete_structure(path).topology.bonds())) for path in (top, told)]
    assert n_bonds[0] == n_bonds[1]


def stated(
    path: Path, top: Path, first: tuple[str, str, str], second: tuple[str, str, str]
) -> Path:
    """A PDB file with a LINK of two atoms: chain, residue number, name."""
    lines = top.read_text(encoding="utf-8").splitlines()
    names = {
        (s[21], s[22:26].strip(), s[12:16].strip()): s[17:20] for s in lines if s[:4] == "ATOM"
    }
    ends = [f"{e[2]:>4s} {names[e]} {e[0]}{e[1]:>4s} " for e in (first, second)]
    link = f"LINK        {ends[0]}               {ends[1]}".ljust(80)
    path.write_text("\n".join([link, *lines, ""]), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("folder", "first", "second", "told"),
    [
        ("01", ("A", "2", "NZ"), ("A", "3", "CG"),
         "covalent bonds that no sequence tells: A LYS 2 NZ - A ASP 3 CG"),
        ("21", ("A", "5", "SG"), ("B", "1", "CA"),
         "covalent bonds that no sequence tells: A CYS 5 SG - B GLY 1 CA"),
        ("01", ("A", "1", "N"), ("A", "5", "C"), "the bond A ARG 1 N - A TYR 5 C is"),
    ],
    ids=["lactam", "thioether of two chains", "torn ring"],
)  # fmt: skip
def test_a_bond_that_only_the_file_shows_is_refused_by_name(
    folder: str, first: tuple, second: tuple, told: str, tmp_path: Path
) -> None:
    top, trajectory = Case(folder).files
    told_top = stated(tmp_path / "prot.pdb", top, first, second)
    row = import_target(
        source_of_files(told_top, [trajectory], "prot"), tmp_path / "md", FrameChoice()
    )
    assert row.status == "failed"
    assert told in row.reason
    if "no sequence" in told:
        with pytest.raises(UserError, match=told.split(": ")[1]):
            complete_structure(told_top)


def test_a_ring_survives_import_in_the_pdb_file_as_openmm_reads_it(tmp_path: Path) -> None:
    imported(Case("03"), tmp_path)
    topology = app.PDBFile(str(tmp_path / "prot" / "prot.pdb")).topology
    ends = [{(a.residue.id, a.name) for a in bond} for bond in topology.bonds()]
    assert ends.count({("1", "N"), ("6", "C")}) == 1


def test_a_dcd_file_of_xplor_has_no_cell(tmp_path: Path) -> None:
    """Its step is in float64, where CHARMM's files say that they have a cell."""
    path = tmp_path / "x.dcd"
    with mdtraj.formats.DCDTrajectoryFile(str(path), "w") as handle:
        handle.write(np.zeros((1, 5, 3), dtype=np.float32))
    data = bytearray(path.read_bytes())
    data[44:52] = struct.pack("<d", 0.0488)
    data[84:88] = bytes(4)
    path.write_bytes(data)
    layout = DcdLayout.of(path)
    assert layout is not None
    assert (layout.has_cell, layout.fourth, layout.fixed) == (False, False, 0)


def test_a_ring_stays_closed_when_it_is_minimised(tmp_path: Path) -> None:
    top, trajectory = Case("03").files
    structure = complete_structure(top)
    xyz = structure.fill(mdtraj.load(str(trajectory), top=str(top)).xyz[:1] * 10)[0]
    label = TargetEnergy(structure, PROTOCOLS["published"], "Reference").label(xyz)
    assert label.status == "ok"
    assert abs(label.energy_kj_mol - 165.4) < 1  # plain OpenMM with the bond: 165


@pytest.mark.parametrize(("folder", "caps"), [("07", 1), ("10", 4), ("24", 2)])
@pytest.mark.parametrize("force_field", ["charmm36", "amber14"])
def test_labels_of_capped_md_have_the_caps(
    folder: str, caps: int, force_field: str, tmp_path: Path
) -> None:
    imported(Case(folder), tmp_path)
    protocol = customised(AS_IS, force_field=force_field)
    labels = label_targets(tmp_path, tmp_path / "l.parquet", protocol).labels
    assert labels.status.tolist() == ["ok"] * 3, labels.reason
    assert "caps are part of the energy" in labels.reason[0]
    structure = complete_structure(tmp_path / "prot" / "prot.pdb")
    xyz = structure.fill(read_frames(find_targets(tmp_path / "prot")[0], 1))
    topology = structure.topology
    assert structure.n_residues == topology.getNumResidues() - caps
    if force_field == "charmm36":
        topology = caps_joined(topology)
    # The built hydrogens of two structures are not the same to the last digit: one for both.
    energy = TargetEnergy(structure, protocol, "Reference")
    expected = plain_energies(topology, xyz, protocol.force_field)
    assert [energy.label(one).energy_kj_mol for one in xyz] == pytest.approx(expected, abs=0.15)


def caps_joined(topology: app.Topology) -> app.Topology:
    """As CHARMM's patches want it: all atoms between an ACE and an NME under the residue's name."""
    made, atoms = app.Topology(), {}
    for chain in topology.chains():
        new_chain = made.addChain(chain.id)
        rooms = {}
        residues = list(chain.residues())
        for i, residue in enumerate(residues):
            owner = i + (residue.name == "ACE") - (residue.name == "NME")
            if owner not in rooms:
                rooms[owner] = made.addResidue(residues[owner].name, new_chain)
            for atom in residue.atoms():
                atoms[atom] = made.addAtom(atom.name, atom.element, rooms[owner])
    for one, other in topology.bonds():
        made.addBond(atoms[one], atoms[other])
    return made


def test_a_sample_without_caps_gets_the_energy_of_the_capped_md(tmp_path: Path) -> None:
    imported(Case("24"), tmp_path / "md")
    md = complete_structure(tmp_path / "md" / "prot" / "prot.pdb")
    frame = mdtraj.load(str(tmp_path / "md" / "prot" / "prot.pdb"))
    bare = frame.atom_slice(frame.topology.select("resname ALA and element != H"))
    (tmp_path / "s" / "prot").mkdir(parents=True)
    bare.save_pdb(str(tmp_path / "s" / "prot" / "prot.pdb"))
    bare.save_xtc(str(tmp_path / "s" / "prot" / "prot.xtc"))
    report = label_targets(tmp_path / "s", tmp_path / "l.parquet", reference_dir=tmp_path / "md")
    assert report.labels.status.tolist() == ["ok"], report.labels.reason
    assert report.labels.topology_hash.tolist() == [md.topology_hash]
    assert protein_of_target(find_targets(tmp_path / "md")[0]).chains == ("AAAAA",)


def test_no_absurd_energy_is_ok() -> None:
    """A hydrogen inside another atom: as it is, and where the minimiser has to pull them apart."""
    structure = complete_structure(THYMOPENTIN)
    names = {(a.residue.id, a.name): a.index for a in structure.topology.atoms()}
    xyz_nm = structure.reference_nm.copy()
    xyz_nm[names["2", "HZ3"]] = xyz_nm[names["5", "CB"]] + 0.03
    label = TargetEnergy(structure, AS_IS, "Reference").label(xyz_nm)
    assert label.status == "failed"
    assert "kJ/mol for each atom" in label.reason
    assert label.initial_energy_kj_mol > 1e5


@pytest.mark.parametrize("lacking", [(), ("TYR 5 OXT",)], ids=["whole", "without OXT"])
def test_an_overlap_that_few_kj_for_each_atom_hide_is_not_ok(
    lacking: tuple, tmp_path: Path
) -> None:
    """As in a large protein, where one overlap is little for each atom.

    What is built elsewhere does not hide it.
    """
    structure = complete_structure(without(tmp_path / "x.pdb", *lacking))
    assert (structure.built_fraction > 0) is bool(lacking)
    names = {(a.residue.id, a.name): a.index for a in structure.topology.atoms()}
    xyz_nm = structure.reference_nm.copy()
    one, other = names["2", "HZ3"], names["5", "CB"]
    along = xyz_nm[one] - xyz_nm[other]
    for distance in np.arange(0.16, 0.05, -0.01):
        xyz_nm[one] = xyz_nm[other] + distance * along / np.linalg.norm(along)
        label = TargetEnergy(structure, AS_IS, "Reference").label(xyz_nm)
        if label.status == "failed":
            break
    assert label.initial_energy_kj_mol < 1e3 * len(xyz_nm)
    assert "a force of" in label.reason and "on LYS 2 HZ3" in label.reason


def test_a_bond_that_minimisation_has_to_mend_is_not_ok() -> None:
    geometry = Geometry.of(complete_structure(THYMOPENTIN).topology)
    before = complete_structure(THYMOPENTIN).reference_nm
    after = before.copy()
    names = geometry.atoms
    end, base = names.index("LYS 2 NZ"), names.index("LYS 2 CE")
    after[end] += 0.06 * (after[end] - after[base]) / np.linalg.norm(after[end] - after[base])
    assert "the bond LYS 2 CE - LYS 2 NZ from 1.48 to 2.08" in moved_bond(before, after, geometry)
    assert moved_bond(before, before + 1.0, geometry) == ""


# Conformations and sequences of other programs.


@pytest.mark.parametrize(
    ("folder", "name", "count"),
    [
        ("16-mmcif-without-optional-columns", "noins", 2),
        ("16-mmcif-without-optional-columns", "nogroup", 2),
        ("17-frames-separated-by-END", "endsep", 3),
        ("18-folder-of-alphafold3", "af3", 3),
    ],
)
def test_ensembles_of_other_programs_are_read(folder: str, name: str, count: int) -> None:
    found, failed = find_samples([FILES / folder])
    assert not failed
    ensemble = found[name]
    assert ensemble.n_frames == {1: count}
    atoms = np.arange(ensemble.topology.n_atoms)
    frames = ensemble.frames(1, np.arange(count), atoms)
    assert frames.shape == (count, len(atoms), 3)
    assert len({frame.tobytes() for frame in frames}) == count


def test_rows_of_mmcif_may_go_on_in_the_next_line(tmp_path: Path) -> None:
    path = sorted((FILES / "16-mmcif-without-optional-columns").rglob("noins*.cif"))[0]
    lines = path.read_text(encoding="utf-8").splitlines()
    broken = [
        "\n".join([" ".join(s.split()[:5]), " ".join(s.split()[5:])])
        if s.startswith(("ATOM", "HETATM"))
        else s
        for s in lines
    ]
    (tmp_path / "a.cif").write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "b.cif").write_text("\n".join([*broken, ""]), encoding="utf-8")
    found, failed = find_samples([tmp_path / "a.cif", tmp_path / "b.cif"])
    assert not failed and len(broken) == len(lines)
    one, other = (found[name] for name in "ab")
    atoms = np.arange(one.topology.n_atoms)
    first = np.arange(1)
    assert (one.frames(1, first, atoms) == other.frames(1, first, atoms)).all()


def test_insertion_codes_of_psf_files_make_residues_of_their_own(tmp_path: Path) -> None:
    names = [("52", "ALA"), ("52A", "ALA"), ("53", "GLY")]
    atoms = [(resid, residue, atom) for resid, residue in names for atom in ("N", "CA", "C", "O")]
    rows = [
        f"{i:8d} PROA {resid:<4s} {residue:<4s} {atom:<4s} {atom[0]:<4s} 0.000000 14.0070 0"
        for i, (resid, residue, atom) in enumerate(atoms, 1)
    ]
    head = ["PSF", "", "       1 !NTITLE", " REMARKS", "", f"{len(rows):8d} !NATOM"]
    path = tmp_path / "x.psf"
    path.write_text("\n".join([*head, *rows, "", "       0 !NBOND: bonds", "", ""]))
    topology = load_psf(path)
    assert [r.name for r in topology.residues] == ["ALA", "ALA", "GLY"]
    assert [r.n_atoms for r in topology.residues] == [4, 4, 4]


def test_label_takes_frames_between_lines_of_end(tmp_path: Path) -> None:
    path = FILES / "17-frames-separated-by-END" / "endsep.pdb"
    labels = label_targets(path, tmp_path / "l.parquet", AS_IS).labels
    assert labels.status.tolist() == ["ok"] * 3, labels.reason


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff>p\nYGGFM\n",
        "\ufeffname,seqres\np,YGGFM\n",
        '\ufeff[{"name":"p","sequences":[{"proteinChain":{"sequence":"YGGFM","count":1}}]}]',
        ">p\r\nYGG\r\nFM\r\n",
        ">p\nyggfm*\n",
        "name,seqres\r\np, yggfm* \r\n",
        ">p\rYGGFM\r",
        "\0>p\nYGGFM\n\0",
        '[{"name":"p","modelSeeds":["7"],"dialect":"alphafoldserver","version":1,"sequences":'
        '[{"proteinChain":{"sequence":"YGGFM","count":1,"useStructureTemplate":true}}]}]',
    ],
    ids=[
        "FASTA",
        "CSV",
        "JSON",
        "CRLF",
        "lower case and asterisk",
        "the same in CSV",
        "CR",
        "NUL",
        "AlphaFold Server",
    ],
)
def test_sequences_in_any_dress_are_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    for encoding in ("utf-8", "utf-16"):
        path.write_bytes(text.removeprefix("\ufeff" * (encoding == "utf-16")).encode(encoding))
        assert read_proteins(path) == [Protein("p", ("YGGFM",))]


def test_a_seed_of_alphafold_server_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    entry = {"name": "p", "modelSeeds": ["7"], "sequences": [{"proteinChain": {"sequence": "Y"}}]}
    path.write_text(json.dumps([entry]))
    assert read_seed(path) == 7
    path.write_text(json.dumps([entry | {"dialect": "alphafold3"}]))
    with pytest.raises(UserError, match="the dialect alphafoldserver, found 'alphafold3'"):
        read_proteins(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"model": {"w": torch.zeros(1)}, "loss": np.float64(1.0)}, "besides tensors (numpy"),
        ({"model": {}, "args": types.SimpleNamespace(a=1)}, "(types.SimpleNamespace)"),
        (b"<!DOCTYPE html><html></html>", "is no checkpoint: it begins with '<!DOCTYPE html>"),
        (b"", "is no checkpoint"),
    ],
    ids=["numpy scalar", "namespace", "page", "empty"],
)  # fmt: skip
def test_checkpoints_of_other_programs_are_named(content, told: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    assert told in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_a_checkpoint_without_a_diffusion_transformer_cannot_be_deepened(tmp_path: Path) -> None:
    path = tmp_path / "compiled.pt"
    torch.save({"model": {"_orig_mod.module.linear.weight": torch.zeros(2)}}, path)
    state = load_checkpoint(path)
    assert list(state) == ["linear.weight"]
    with pytest.raises(UserError, match="no diffusion transformer: its 1 weights are linear"):
        with_depth(state, 4)


# Text of other programs: byte order marks, line ends, encodings.


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_tables_in_any_dress_are_read(encoding: str, end: str, tmp_path: Path) -> None:
    def saved(name: str, *lines: str) -> Path:
        (tmp_path / name).write_bytes(end.join([*lines, ""]).encode(encoding))
        return tmp_path / name

    labels = labels_from_csv(saved("e.csv", "frame,initial_e,final_e,rmsd", "p_0.cif,1,-2,0.5"))
    assert labels.energy_kj_mol.tolist() == [-2.0]
    colvar = saved("COLVAR", "#! FIELDS time metad.bias", "0.0 1.5", "1.0 2.5")
    assert is_colvar(colvar)
    assert read_colvar(colvar).value.tolist() == [1.5, 2.5]
    weights = read_weights(saved("w.csv", "target,sample,weight", "p,0,1", "p,1,3"))
    assert weights["p"].tolist() == [0.25, 0.75]
    found = read_measurements(saved("m.csv", "kind,atoms,value,error", "RG,,9.5,0.1"))
    assert [one.value for one in found] == [9.5]
    (source,) = find_md(saved("t.csv", "name,topology,trajectory", "p,a.pdb,a.xtc"))
    assert (source.name, source.topology) == ("p", tmp_path / "a.pdb")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_mark_before_the_first_atom_hides_none(encoding: str, tmp_path: Path) -> None:
    lines = [s for s in THYMOPENTIN.read_text(encoding="utf-8").splitlines() if s[:4] == "ATOM"]
    path = tmp_path / "prot.pdb"
    path.write_bytes("\r\n".join([*lines, "END", ""]).encode(encoding))
    assert load_topology(Target("prot", path, {})).n_atoms == len(lines)
    assert len(read_protein(path).columns) == len(lines)
    assert open_structure(path).topology.getNumAtoms() == len(lines)
    if encoding == "utf-8-sig":
        assert find_samples([path])[0]["prot"].topology.n_atoms == len(lines)
