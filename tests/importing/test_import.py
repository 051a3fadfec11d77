"""MD in every format and in every bad shape -> targets, rows with a reason, or a clear error."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cloudpickle
import mdtraj
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.importing.dataset import import_targets
from protenix_eba.importing.one_target import import_target
from protenix_eba.importing.periodic import connections_of, make_whole
from protenix_eba.importing.sources import find_md, source_of_files
from protenix_eba.protein.residue_names import HEAVY_ATOMS, standard_atom, standard_residue
from protenix_eba.structures.frame_choice import FrameChoice
from protenix_eba.structures.topologies import read_topology
from protenix_eba.structures.trajectories import find_targets, load_topology, read_frames

DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"
NAME = "thymopentin"  # RKDVY
ALL = FrameChoice()


@pytest.fixture(scope="module")
def md() -> mdtraj.Trajectory:
    """Ten frames of a shipped peptide, 0.01 angstrom apart from what they were as XTC."""
    folder = DEMO / NAME
    xtc = folder / f"{NAME}_prod_R1_fit.xtc"
    return mdtraj.load_xtc(str(xtc), top=str(folder / f"{NAME}.pdb"))[:10]


def with_topology(md: mdtraj.Trajectory, topology: mdtraj.Topology) -> mdtraj.Trajectory:
    made = mdtraj.Trajectory(md.xyz.copy(), topology, time=md.time)
    made.unitcell_vectors = md.unitcell_vectors
    return made


def put(md: mdtraj.Trajectory, folder: Path, top: str = "t.pdb", trajectory: str = "t.xtc"):
    """Write both files of a target and give its source."""
    folder.mkdir(parents=True, exist_ok=True)
    md[0].save(str(folder / top))
    md.save(str(folder / trajectory))
    return source_of_files(folder / top, [folder / trajectory], "t")


def imported(source, out: Path, choice: FrameChoice = ALL):
    row = import_target(source, out, choice)
    assert row.status != "failed", row.reason
    record = json.loads((out / source.name / "import.json").read_text(encoding="utf-8"))
    return row, record, find_targets(out / source.name)[0]


def renamed(md: mdtraj.Trajectory, residues: dict[str, str], atoms: dict[tuple[str, str], str]):
    """The same MD in another program's names; atoms by (standard residue, standard name)."""
    topology = md.topology.copy()
    for residue in topology.residues:
        for atom in residue.atoms:
            atom.name = atoms.get((residue.name, atom.name), atom.name)
    for residue in topology.residues:
        residue.name = residues.get(residue.name, residue.name)
    return with_topology(md, topology)


# Formats.


@pytest.mark.parametrize("top", ["t.pdb", "t.cif", "t.gro"])
@pytest.mark.parametrize("trajectory", ["t.xtc", "t.dcd", "t.trr", "t.nc"])
def test_every_format_gives_the_same_frames_and_names(md, tmp_path, top, trajectory):
    _, record, target = imported(put(md, tmp_path / "in", top, trajectory), tmp_path / "out")
    np.testing.assert_allclose(read_frames(target, 1), md.xyz * 10, atol=0.0051)
    found = [(a.residue.name, a.name) for a in load_topology(target).atoms]
    assert found == [(a.residue.name, a.name) for a in md.topology.atoms]
    assert record["chains"] == ["RKDVY"]
    assert record["replicas"]["1"]["frames"] == list(range(10))
    assert record["missing_heavy_atoms"] == []


def test_hdf5_is_read_or_its_missing_library_named(md, tmp_path):
    put(md, tmp_path / "in")
    path = tmp_path / "in/t.h5"
    if importlib.util.find_spec("tables") is None:
        path.write_bytes(b"\x89HDF\r\n\x1a\n")
        row = import_target(source_of_files(path, [path], "t"), tmp_path / "out", ALL)
        assert "pip install tables" in row.reason or "PyTables" in row.reason
        return
    md.save_hdf5(str(path))
    _, _, target = imported(source_of_files(path, [path], "t"), tmp_path / "out")
    np.testing.assert_allclose(read_frames(target, 1), md.xyz * 10, atol=0.0051)


def test_psf_has_no_coordinates_so_the_first_frame_is_the_reference(md, tmp_path):
    lines = ["PSF", "", "       1 !NTITLE", " a test", "", f"{md.n_atoms:8d} !NATOM"]
    for atom in md.topology.atoms:
        residue, mass = atom.residue, atom.element.mass
        lines.append(f"{atom.index + 1:8d} PROA {residue.resSeq} {residue.name} {atom.name} X 0.0 "
                     f"{mass:.4f} 0")  # fmt: skip
    (tmp_path / "t.psf").write_text("\n".join([*lines, "", "       0 !NBOND: bonds", ""]))
    md.save(str(tmp_path / "t.dcd"))
    source = source_of_files(tmp_path / "t.psf", [tmp_path / "t.dcd"], None)
    _, _, target = imported(source, tmp_path / "out")
    np.testing.assert_allclose(read_topology(target.topology_path)[1], md.xyz[0] * 10, atol=1e-2)


def test_a_broken_reference_gives_way_to_the_first_sound_frame(md, tmp_path):
    broken = mdtraj.Trajectory(md.xyz.copy(), md.topology)
    broken.xyz[0, 7] += 0.5
    source = put(broken, tmp_path / "in", trajectory="t.dcd")
    row, record, target = imported(source, tmp_path / "out")
    assert record["replicas"]["1"]["frames"] == list(range(1, 10))
    np.testing.assert_allclose(read_topology(target.topology_path)[1], md.xyz[1] * 10, atol=1e-2)
    assert "replica 1: 1 of 10 frames left out, frame 0: the bond" in row.reason


# Names.


@pytest.mark.parametrize(
    ("dialect", "name"),
    [
        *(
            (alias, "HIS")
            for alias in ("HSD", "HSE", "HSP", "HID", "HIE", "HIP", "HISE", "NHID", "CHIE")
        ),
        *((alias, "CYS") for alias in ("CYX", "CYM", "CYS2")),
        *(("MSE", "MET"), ("ASH", "ASP"), ("GLH", "GLU"), ("LYN", "LYS"), ("LYSH", "LYS")),
        *(("NALA", "ALA"), ("CLEU", "LEU"), ("ala", "ALA")),
        *((other, None) for other in ("HOH", "NAG", "UNK", "SEP", "DAL", "NA+", "CLA", "CA", "")),
    ],
)
def test_residue_names_of_all_dialects(dialect, name):
    assert standard_residue(dialect) == name


def test_standard_names_map_to_themselves():
    for residue, atoms in HEAVY_ATOMS.items():
        assert standard_residue(residue) == residue
        assert [standard_atom(residue, atom) for atom in (*atoms, "OXT")] == [*atoms, "OXT"]


def test_names_of_charmm_become_the_pdbs_and_are_recorded(md, tmp_path):
    hydrogens = {("ASP", "HB2"): "HB1", ("ASP", "HB3"): "HB2", ("TYR", "OXT"): "OT2"}
    charmm = renamed(
        md,
        {"ARG": "ARGN", "ASP": "ASPP"},
        {("TYR", "O"): "OT1", **{(r, "H"): "HN" for r in HEAVY_ATOMS}, **hydrogens},
    )
    _, record, target = imported(put(charmm, tmp_path / "in", "t.gro"), tmp_path / "out")
    found = {(a.residue.name, a.name) for a in load_topology(target).atoms}
    assert found == {(a.residue.name, a.name) for a in md.topology.atoms}
    assert record["renamed_atoms"]["TYR OT1 -> TYR O"] == 1
    assert any(key.startswith("ASPP ") for key in record["renamed_atoms"])


def test_isoleucine_and_selenomethionine(tmp_path):
    """Built by hand: ILE's CD (CHARMM, GROMACS) is CD1, MSE becomes MET with its SE as SD."""
    pytest.importorskip("pdbfixer")
    path = _built("GIMG", tmp_path)
    whole = mdtraj.load_pdb(str(path))
    other = renamed(whole, {"MET": "MSE"}, {("ILE", "CD1"): "CD", ("MET", "SD"): "SE"})
    next(a for a in other.topology.atoms if a.name == "SE").element = mdtraj.element.selenium
    _, record, target = imported(put(other, tmp_path / "in"), tmp_path / "out")
    topology = load_topology(target)
    assert record["chains"] == ["GIMG"]
    assert record["renamed_atoms"]["MSE SE -> MET SD"] == 1
    assert {a.name for a in topology.residue(1).atoms} >= {"CD1"}
    assert next(a for a in topology.atoms if a.name == "SD").element.symbol == "S"


def _built(sequence: str, folder: Path) -> Path:
    from simulate import embed_peptide

    path = folder / "built.pdb"
    embed_peptide(sequence, 1, path)
    return path


# What is not the protein.


def solvated(md: mdtraj.Trajectory, waters: int = 20) -> mdtraj.Trajectory:
    topology = md.topology.copy()
    chain = topology.add_chain("W")
    for _ in range(waters):
        residue = topology.add_residue("HOH", chain)
        for name, element in (("O", "O"), ("H1", "H"), ("H2", "H")):
            topology.add_atom(name, mdtraj.element.get_by_symbol(element), residue)
    ion = topology.add_residue("NA+", chain)
    topology.add_atom("NA+", mdtraj.element.sodium, ion)
    extra = np.random.default_rng(0).uniform(0, 4, (len(md), 3 * waters + 1, 3))
    return mdtraj.Trajectory(np.concatenate([md.xyz, extra], axis=1), topology)


def test_old_names_of_hydrogens_in_gro_files_are_hydrogens(md, tmp_path):
    """GRO has no elements, and "1HB" starts with none."""
    old = renamed(
        md, {}, {("VAL", "HG11"): "1HG1", ("VAL", "HG12"): "2HG1", ("VAL", "HG13"): "3HG1"}
    )
    _, record, target = imported(put(old, tmp_path / "in", "t.gro"), tmp_path / "out")
    assert record["dropped_atoms"] == {}
    found = {a.name for a in load_topology(target).residue(3).atoms}
    assert found >= {"HG11", "HG12", "HG13"}


def test_solvent_is_dropped_and_counted(md, tmp_path):
    _, record, target = imported(put(solvated(md), tmp_path / "in"), tmp_path / "out")
    assert record["dropped_atoms"] == {"HOH": 60, "NA+": 1}
    np.testing.assert_allclose(read_frames(target, 1), md.xyz * 10, atol=0.011)


def test_a_trajectory_of_the_protein_alone_fits_the_topology_of_the_system(md, tmp_path):
    source = put(solvated(md), tmp_path / "in")
    md.save_xtc(str(source.trajectories[1]))
    row, record, target = imported(source, tmp_path / "out")
    assert "protein's atoms of the topology only" in row.reason
    assert record["dropped_atoms"] == {"HOH": 60, "NA+": 1}
    np.testing.assert_allclose(read_frames(target, 1), md.xyz * 10, atol=0.011)


# Periodic boxes.


def _dimer(md: mdtraj.Trajectory, apart_nm: float) -> mdtraj.Trajectory:
    """Two copies of the peptide side by side, as two chains."""
    topology = md.topology.copy().join(md.topology.copy())
    shifted = md.xyz + np.array([apart_nm, 0, 0], dtype=np.float32)
    return mdtraj.Trajectory(np.concatenate([md.xyz, shifted], axis=1), topology)


CUBIC = np.diag([4.0, 4.0, 4.0])
DODECAHEDRON = np.array([[4.5, 0, 0], [0, 4.5, 0], [2.25, 2.25, 3.182]])


@pytest.mark.parametrize("box", [CUBIC, DODECAHEDRON], ids=["cubic", "dodecahedron"])
@pytest.mark.parametrize("offset", [(0, 0, 0), (1.9, 1.9, 1.5), (-7.3, 12.1, 3.3)])
def test_what_the_box_cut_is_whole_again(md, tmp_path, box, offset):
    """Every atom wrapped into the box on its own: distances within the dimer come back."""
    whole = _dimer(md, 0.9)
    fractional = (whole.xyz + np.array(offset)) @ np.linalg.inv(box)
    cell = np.floor(fractional)
    wrapped = mdtraj.Trajectory((fractional - cell) @ box, whole.topology)
    wrapped.unitcell_vectors = np.repeat(box[None], len(wrapped), axis=0)
    _, record, target = imported(put(wrapped, tmp_path / "in", "t.gro"), tmp_path / "out")
    found = read_frames(target, 1) / 10
    pairs = np.random.default_rng(0).integers(0, whole.n_atoms, (500, 2))
    for frame in range(len(whole)):
        np.testing.assert_allclose(
            np.linalg.norm(np.diff(found[frame][pairs], axis=1), axis=-1),
            np.linalg.norm(np.diff(whole.xyz[frame][pairs], axis=1), axis=-1),
            atol=0.004,
        )
    assert record["chains"] == ["RKDVY", "RKDVY"]
    assert record["replicas"]["1"]["made_whole"] == np.ptp(cell, axis=1).any(axis=1).sum()


def test_a_structure_that_was_turned_against_its_box_stays(md):
    """ATLAS' trajectories are superposed, their boxes are not: nothing may move."""
    dimer = _dimer(md, 1.2)
    tree = connections_of(dimer.topology)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    xyz = (dimer.xyz[0] * 10 @ turn).astype(np.float32)
    found, changed = make_whole(xyz, (CUBIC * 10).astype(np.float32), tree)
    assert not changed
    np.testing.assert_array_equal(found, xyz)


def test_atoms_without_bonds_follow_their_residue(md):
    """Hydrogens under names that nobody knows have no bond in the topology."""
    topology = md.topology.copy()
    for atom in topology.atoms:
        if atom.element.symbol == "H":
            atom.name = f"X{atom.index}"
    topology._bonds = []
    xyz, box = md.xyz[0] * 10, np.diag([45.0] * 3).astype(np.float32)
    wrapped = xyz - np.floor(xyz / 45) * 45
    found, _ = make_whole(wrapped, box, connections_of(topology))
    np.testing.assert_allclose(found - found[0], xyz - xyz[0], atol=1e-3)


@pytest.mark.parametrize("box", [np.zeros((3, 3)), np.full((3, 3), np.nan), np.diag([1, 1, 1])])
def test_a_box_that_is_none_is_not_used(md, box):
    found, changed = make_whole(md.xyz[0] * 10, box.astype("f4"), connections_of(md.topology))
    assert not changed
    np.testing.assert_array_equal(found, md.xyz[0] * 10)


# Chains.


def test_gro_knows_no_chains_and_they_are_found(md, tmp_path):
    _, record, target = imported(put(_dimer(md, 1.5), tmp_path / "in", "t.gro"), tmp_path / "out")
    assert record["chains"] == ["RKDVY", "RKDVY"]
    assert load_topology(target).n_chains == 2
    assert "split into 2" in record["notes"][0]


def test_repeated_residue_numbers_are_numbered_anew(md, tmp_path):
    topology = md.topology.copy()
    for residue, number in zip(topology.residues, (5, 5, 5, 6, 7), strict=True):
        residue.resSeq = number  # as insertion codes 5, 5A, 5B come out
    _, record, target = imported(put(with_topology(md, topology), tmp_path / "in"), tmp_path / "o")
    assert [r.resSeq for r in load_topology(target).residues] == [1, 2, 3, 4, 5]
    assert record["notes"] == ["chain A was numbered anew from 1"]


# Which frames.


def test_only_the_chosen_frames_are_stored_with_their_numbers(md, tmp_path):
    _, record, target = imported(put(md, tmp_path / "in"), tmp_path / "out", FrameChoice(3))
    assert record["replicas"]["1"]["frames"] == [0, 3, 6]
    np.testing.assert_allclose(read_frames(target, 1), md.xyz[[0, 3, 6]] * 10, atol=0.011)
    with mdtraj.formats.XTCTrajectoryFile(str(target.trajectory_paths[1])) as handle:
        _, when, step, _ = handle.read()
    assert step.tolist() == [0, 3, 6]
    np.testing.assert_allclose(when, md.time[[0, 3, 6]])


# Bad input: a row with its reason, nothing half-written.


def _atoms(md: mdtraj.Trajectory, keep) -> mdtraj.Trajectory:
    return md.atom_slice([a.index for a in md.topology.atoms if keep(a)])


def _mixed(md, folder, change):
    """Sound files of which `change(topology path, trajectory path)` spoils one."""
    source = put(md, folder)
    change(source.topology, source.trajectories[1])
    return source


def _shuffled(md, folder):
    order = np.random.default_rng(0).permutation(md.n_atoms)
    source = put(md, folder)
    mdtraj.Trajectory(md.xyz[:, order], md.topology).save_xtc(str(source.trajectories[1]))
    return source


def _two_names(md, folder):
    topology = md.topology.copy()
    first, second, *_ = (a for a in topology.residue(1).atoms if a.element.symbol == "H")
    first.name = second.name
    text = put(md, folder)
    with_topology(md, topology)[0].save_gro(str(folder / "t.gro"))
    return source_of_files(folder / "t.gro", [text.trajectories[1]], "t")


def _no_frames(md, folder):
    """What a simulation leaves that stopped before it wrote a frame."""
    source = put(md, folder)
    written = source.trajectories[1].with_name("e.dcd")
    md[:2].save_dcd(str(written))
    frame = (written.stat().st_size - 276) // 2
    written.write_bytes(written.read_bytes()[: -2 * frame])
    return source_of_files(source.topology, [written], "t")


def _d_named(md, folder):
    return put(renamed(md, {"VAL": "DVA"}, {}), folder)


BAD = {
    "topology of another protein": (
        lambda md, f: _mixed(md, f, lambda top, _: shutil.copy(DEMO / "grgds/grgds.pdb", top)),
        "its topology 64",
    ),
    "shuffled atoms": (_shuffled, "another order of atoms"),
    "empty XTC": (
        lambda md, f: _mixed(md, f, lambda _, t: t.write_bytes(b"")),
        "cannot read t.xtc: it is empty",
    ),
    "a header of an XTC": (
        lambda md, f: _mixed(md, f, lambda _, t: t.write_bytes(t.read_bytes()[:60])),
        "t.xtc",
    ),
    "text as XTC": (
        lambda md, f: _mixed(md, f, lambda _, t: t.write_text("hello " * 99)),
        "cannot read t.xtc",
    ),
    "a DCD without frames": (_no_frames, "cannot read e.dcd"),
    "residue gap": (
        lambda md, f: put(_atoms(md, lambda a: a.residue.index not in (1, 2)), f),
        "not bonded: 2 are missing",
    ),
    "CA trace": (
        lambda md, f: put(_atoms(md, lambda a: a.name == "CA"), f),
        "heavy atoms are missing",
    ),
    "backbone only": (
        lambda md, f: put(_atoms(md, lambda a: a.name in ("N", "CA", "C", "O")), f),
        "heavy atoms are missing",
    ),
    "mirror image": (
        lambda md, f: put(mdtraj.Trajectory(md.xyz * [1, 1, -1], md.topology), f),
        "D-amino acids: ARG",
    ),
    "D-residue by name": (_d_named, "DVA"),
    "modified residue": (lambda md, f: put(renamed(md, {"TYR": "PTR"}, {}), f), "PTR"),
    "water only": (
        lambda md, f: put(_atoms(solvated(md), lambda a: a.residue.name == "HOH"), f),
        "no protein",
    ),
    "two atoms of one name": (_two_names, "two atoms"),
    "cut PDB": (
        lambda md, f: _mixed(md, f, lambda top, _: top.write_bytes(top.read_bytes()[:2000])),
        "its topology",
    ),
    "empty PDB": (
        lambda md, f: _mixed(md, f, lambda top, _: top.write_bytes(b"")),
        "no ATOM lines",
    ),
    "a web page as PDB": (
        lambda md, f: _mixed(md, f, lambda top, _: top.write_text("<html>404</html>")),
        "no ATOM lines",
    ),
    "binary PDB": (
        lambda md, f: _mixed(md, f, lambda top, _: top.write_bytes(os.urandom(999))),
        "cannot read t.pdb",
    ),
    "a trajectory as topology": (
        lambda md, f: source_of_files(put(md, f).trajectories[1], [f / "t.xtc"], "t"),
        "expected a topology",
    ),
    "an unknown trajectory format": (
        lambda md, f: source_of_files(put(md, f).topology, [f / "t.pdb"], "t"),
        "expected a trajectory",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_a_failed_row_that_says_why(md, tmp_path, kind):
    make, message = BAD[kind]
    row = import_target(make(md, tmp_path / "in"), tmp_path / "out", ALL)
    assert row.status == "failed"
    assert message in row.reason
    assert "\n" not in row.reason
    assert not list((tmp_path / "out").glob("*")), "nothing is left behind"


@pytest.mark.parametrize(
    ("part", "message"),
    [(55, "t.xtc is cut: 5 of 6 frames are whole"), (51, "t.xtc is cut after 5 whole frames")],
)
def test_a_cut_trajectory_gives_its_whole_frames_and_says_so(md, tmp_path, part, message):
    source = put(md, tmp_path / "in")
    path = source.trajectories[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * part // 100])
    row, _, target = imported(source, tmp_path / "out")
    assert (row.status, row.n_frames) == ("incomplete", 5)
    assert message in row.reason
    np.testing.assert_allclose(read_frames(target, 1), md.xyz[:5] * 10, atol=0.011)


@pytest.mark.parametrize("n_frames", [2, 5, 10])
def test_a_cut_trr_gives_its_whole_frames_however_short(md, tmp_path, n_frames):
    source = put(md[:n_frames], tmp_path / "in", trajectory="t.trr")
    path = source.trajectories[1]
    path.write_bytes(path.read_bytes()[:-100])
    row, _, target = imported(source, tmp_path / "out")
    assert (row.status, row.n_frames) == ("incomplete", n_frames - 1)
    assert f"t.trr is cut after {n_frames - 1} whole frames" in row.reason
    found = read_frames(target, 1)
    np.testing.assert_allclose(found, md.xyz[: n_frames - 1] * 10, atol=0.0051)


@pytest.mark.parametrize("suffix", [".trr", ".nc", ".dcd"])
def test_cut_files_of_other_formats_lose_no_whole_frame_in_silence(md, tmp_path, suffix):
    source = put(md, tmp_path / "in", trajectory=f"t{suffix}")
    path = source.trajectories[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 55 // 100])
    row = import_target(source, tmp_path / "out", ALL)
    # A DCD file has no ends of frames: what it lacks is known from its header.
    assert row.status != "ok" or suffix == ".dcd"
    assert path.name in row.reason
    assert row.n_frames <= 5


def test_one_broken_replica_does_not_take_the_other(md, tmp_path):
    source = put(md, tmp_path / "in")
    shutil.copy(source.trajectories[1], tmp_path / "in/u.xtc")
    source.trajectories[1].write_bytes(b"")
    both = source_of_files(source.topology, [source.trajectories[1], tmp_path / "in/u.xtc"], "t")
    row, _, target = imported(both, tmp_path / "out")
    assert (row.status, row.n_frames) == ("incomplete", 10)
    assert list(target.trajectory_paths) == [2]


def test_bad_frames_are_left_out_by_number(md, tmp_path):
    spoilt = mdtraj.Trajectory(md.xyz.copy(), md.topology)
    spoilt.xyz[2, 7] = np.nan
    spoilt.xyz[4, 7] = spoilt.xyz[4, 6]
    spoilt.xyz[5, 7] += 0.4
    row, record, target = imported(put(spoilt, tmp_path / "in", trajectory="t.dcd"), tmp_path / "o")
    replica = record["replicas"]["1"]
    assert (row.status, row.n_frames) == ("incomplete", 7)
    assert replica["frames"] == [0, 1, 3, 6, 7, 8, 9]
    assert "finite" in replica["left_out"]["2"]
    assert "0.00 angstrom" in replica["left_out"]["4"]
    assert "bond" in replica["left_out"]["5"]
    np.testing.assert_allclose(read_frames(target, 1), md.xyz[replica["frames"]] * 10, atol=0.01)


def test_alternate_locations_are_left_out_and_counted(md, tmp_path):
    source = put(md, tmp_path / "in")
    lines = source.topology.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line[12:16].strip() == "CB")
    first, second = (lines[at][:16] + letter + lines[at][17:] for letter in "AB")
    source.topology.write_text("\n".join([*lines[:at], first, second, *lines[at + 1 :]]))
    _, record, target = imported(source, tmp_path / "out")
    assert record["alternate_locations_left_out"] == 1
    assert load_topology(target).n_atoms == md.n_atoms


def test_missing_atoms_are_named(md, tmp_path):
    source = put(_atoms(md, lambda a: a.name not in ("OXT", "CG2")), tmp_path / "in")
    _, record, _ = imported(source, tmp_path / "out")
    assert record["missing_heavy_atoms"] == ["A 4 CG2", "A 5 OXT"]


def test_more_than_99999_atoms_and_non_ascii_paths(md, tmp_path):
    folder = tmp_path / "Daten für Zoë"
    plain = put(solvated(md[:2], 33_400), tmp_path / "plain", "t.gro")
    folder.mkdir()
    moved = [
        Path(shutil.copy(path, folder / f"größe{path.suffix}"))
        for path in (plain.topology, plain.trajectories[1])
    ]
    _, record, target = imported(source_of_files(*moved[:1], moved[1:], "tür"), folder / "é")
    assert record["dropped_atoms"]["HOH"] == 100_200
    np.testing.assert_allclose(read_frames(target, 1), md.xyz[:2] * 10, atol=0.011)


def test_a_name_that_is_no_folder_is_refused(md, tmp_path):
    source = put(md, tmp_path)
    for name in ("", "a/b", ".hidden", "..", "a\\b"):
        with pytest.raises(UserError, match="cannot be the name"):
            source_of_files(source.topology, [tmp_path / "t.xtc"], name)


# Sources.


def atlas_archive(path: Path, name: str = "grgds") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((DEMO / name).glob(f"{name}*")):
            archive.write(file, file.name)
        archive.writestr("README.txt", "as published")
    return path


def test_archives_folders_and_their_split(tmp_path):
    """A folder as ATLAS is on disk: archives, one unpacked beside its archive, other files."""
    root = tmp_path / "atlas"
    atlas_archive(root / "grgds_protein.zip")
    atlas_archive(root / "penta_alanine_protein.zip", "penta_alanine")
    shutil.copytree(DEMO / "penta_alanine", root / "penta_alanine")
    (root / "notes").mkdir()
    sources = find_md(root)
    assert [(s.name, s.archive is None) for s in sources] == [
        ("grgds", False),
        ("penta_alanine", True),
    ]
    (tmp_path / "split.csv").write_text(
        "name,seqres\ngrgds,GRGDS\npenta_alanine,AAAAV\n9zzz_Z,ACDE\n", encoding="utf-8"
    )
    words = ["--input", root, "--split", tmp_path / "split.csv", "--out", tmp_path / "md"]
    assert run(["import", *map(str, words), "--frames-per-target", "9"]) == 3
    with open(tmp_path / "md/import_report.csv", newline="", encoding="utf-8") as handle:
        rows = {row["target"]: row for row in csv.DictReader(handle)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "grgds": "ok",
        "penta_alanine": "failed",
        "9zzz_Z": "failed",
    }
    assert "expected the sequence AAAAV" in rows["penta_alanine"]["reason"]
    assert "the input has it not" in rows["9zzz_Z"]["reason"]
    assert rows["grgds"]["n_frames"] == "9"
    (target,) = find_targets(tmp_path / "md")
    record = json.loads((tmp_path / "md/grgds/import.json").read_text())
    for replica in target.trajectory_paths:
        frames = record["replicas"][str(replica)]["frames"]
        np.testing.assert_array_equal(
            read_frames(target, replica),
            read_frames(find_targets(DEMO / "grgds")[0], replica)[frames],
        )


def test_a_broken_archive_is_a_row(tmp_path):
    path = atlas_archive(tmp_path / "grgds_protein.zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (source,) = find_md(tmp_path)
    assert "broken" in import_target(source, tmp_path / "out", ALL).reason
    path.write_bytes(whole[:9000] + b"\0" * 99 + whole[9099:])
    (source,) = find_md(tmp_path)
    assert "cannot be unpacked" in import_target(source, tmp_path / "out", ALL).reason


def test_a_table_names_replicas(md, tmp_path):
    put(md, tmp_path / "a")
    put(md[:4], tmp_path / "b")
    table = tmp_path / "table.csv"
    table.write_text(
        "name,topology,trajectory,replica\n"
        "p,a/t.pdb,a/t.xtc,2\np,a/t.pdb,b/t.xtc,1\n"
        "q,a/t.pdb,a/absent.xtc,1\n"
        "r,a/t.pdb,a/t.xtc,1\nr,a/t.pdb,b/t.xtc,1\n"
        "s,a/t.pdb,a/t.xtc,\ns,b/t.pdb,b/t.xtc,\n"
        "../u,a/t.pdb,a/t.xtc,1\n"
        "v,a/t.pdb,,1\n"
    )
    rows = {s.name: import_target(s, tmp_path / "md", ALL) for s in find_md(table)}
    assert rows["p"].status == "ok" and rows["p"].n_frames == 14
    for name, reason in {
        "q": "absent.xtc",
        "r": "same replica",
        "s": "2 topologies",
        "../u": "cannot be the name",
        "v": "an empty cell",
    }.items():
        assert reason in rows[name].reason
    (target,) = find_targets(tmp_path / "md")
    assert [len(read_frames(target, r)) for r in (1, 2)] == [4, 10]


def test_folders_without_one_topology_are_rows(md, tmp_path):
    put(md, tmp_path / "fine")
    put(md, tmp_path / "two")
    put(md, tmp_path / "two", "u.gro")
    put(md, tmp_path / "bare")
    (tmp_path / "bare/t.pdb").unlink()
    put(md, tmp_path / "still")
    (tmp_path / "still/t.xtc").unlink()
    problems = {source.name: source.problem for source in find_md(tmp_path)}
    assert problems["fine"] == ""
    assert "t.pdb, u.gro" in problems["two"]
    assert "found none" in problems["bare"]
    assert "no trajectory" in problems["still"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "absent"], "found nothing"),
        (["--input", "empty"], "no target"),
        (["--input", "bad.csv"], "expected the columns"),
        (["--input", "binary.csv"], "cannot be read as text"),
        (["--input", "note.txt"], "another kind of file"),
        (["--topology", "absent.pdb", "--trajectory", "t.xtc"], "topology: expected a file"),
        (["--topology", "t.pdb", "--trajectory", "absent.xtc"], "trajectory: expected a file"),
        (["--topology", "t.pdb"], "go together"),
        ([], "give --input"),
        (["--input", ".", "--topology", "t.pdb"], "give --input"),
        (["--input", ".", "--name", "x"], "--name goes with"),
        (["--input", ".", "--stride", "2", "--frames-per-target", "3"], "not both"),
        (["--input", ".", "--split", "bad.csv"], "columns name and seqres"),
        (["--topology", "t.pdb", "--trajectory", "t.xtc", "--out", "t.pdb/o"], "cannot write"),
    ],
)
def test_unusable_input_ends_with_status_2(md, tmp_path, monkeypatch, capsys, words, message):
    put(md, tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("target,files\na,b\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00name")
    (tmp_path / "note.txt").write_text("hello")
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in words else ["--out", "md"]
    assert run(["import", *words, *out]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


# Runs that are stopped, repeated, or meet a full disk.


def test_a_second_run_keeps_what_is_there_and_remakes_what_changed(md, tmp_path):
    source = put(md, tmp_path / "in")
    out = tmp_path / "out"
    first, _, _ = imported(source, out)
    xtc = out / "t/t_R1.xtc"
    made = xtc.stat().st_mtime_ns
    again = import_target(source, out, ALL)
    assert again.kept and not first.kept
    assert (again.n_frames, xtc.stat().st_mtime_ns) == (10, made)
    xtc.unlink()
    assert not import_target(source, out, ALL).kept, "a file that was lost is made again"
    assert import_target(source, out, FrameChoice(5)).n_frames == 2
    put(md[:4], tmp_path / "in")
    assert import_target(source, out, ALL).n_frames == 4
    before = xtc.read_bytes()
    source.trajectories[1].write_bytes(b"")
    assert import_target(source, out, ALL).status == "failed"
    assert xtc.read_bytes() == before, "a failure leaves what was there"


def test_a_folder_of_somebody_else_is_not_touched(md, tmp_path):
    (tmp_path / "out/t").mkdir(parents=True)
    (tmp_path / "out/t/precious.txt").write_text("mine")
    row = import_target(put(md, tmp_path / "in"), tmp_path / "out", ALL)
    assert "not touched" in row.reason
    assert (tmp_path / "out/t/precious.txt").read_text() == "mine"


def test_a_killed_import_leaves_no_half_target_and_goes_on(md, tmp_path):
    for number in range(4):
        put(mdtraj.join([md] * 30), tmp_path / f"in/t{number}")
    out = tmp_path / "out"
    words = ["import", "--input", str(tmp_path / "in"), "--out", str(out), "--jobs", "2"]
    code = f"import sys; from protenix_eba.cli.main import run; sys.exit(run({words!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("t*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.2)
    done = {target.name for target in find_targets(out)}
    assert all(len(read_frames(target, 1)) == 300 for target in find_targets(out))
    report = import_targets(find_md(tmp_path / "in"), out, ALL, jobs=2)
    assert report.complete
    assert {row.target for row in report.rows if row.kept} == done
    assert [p.name for p in out.glob(".*")] == []


def test_a_full_disk_is_a_row_and_leaves_no_half_target(md, tmp_path):
    """A limit on the size of files stands for the disk; XTC writers notice it late or never."""
    source = put(mdtraj.join([md] * 20), tmp_path / "in")
    out = tmp_path / "out"
    out.mkdir()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        row = import_target(source, out, ALL)
        os._exit(0 if row.status == "failed" and not list(out.iterdir()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert import_target(source, out, ALL).status == "ok"


class Deadly:
    """In place of a source whose XTC runs the decoder out of its memory."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def problem(self) -> str:
        os.kill(os.getpid(), signal.SIGSEGV)
        return ""


# Fuzzing.


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_corrupt_topology_gives_a_row_or_the_same_frames(md, tmp_path, data):
    source = put(md[:3], tmp_path / "in")
    content = bytearray(source.topology.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    source.topology.write_bytes(content[:cut])
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    row = import_target(source, tmp_path / "out", ALL)
    assert row.status == "ok" or row.reason
    if row.status == "ok":
        target = find_targets(tmp_path / "out")[0]
        atoms = load_topology(target)
        assert atoms.n_atoms <= md.n_atoms
        if atoms.n_atoms == md.n_atoms:
            np.testing.assert_allclose(read_frames(target, 1), md.xyz[:3] * 10, atol=0.011)
    else:
        assert not (tmp_path / "out/t").exists()


def test_corrupt_trajectories_give_rows_and_never_end_the_run(md, tmp_path):
    """Bytes of XTC files overwritten and cut off; one target kills the process that reads it."""
    generator = np.random.default_rng(3)
    source = put(md, tmp_path / "in")
    whole = source.trajectories[1].read_bytes()
    sources, cuts = [], set()
    for number in range(8):
        content = bytearray(whole)
        if number % 2:
            content = content[: generator.integers(len(content))]
            cuts.add(f"x{number}")
        else:
            for at in generator.integers(len(content), size=3):
                content[at] = generator.integers(256)
        path = tmp_path / f"in/{number}.xtc"
        path.write_bytes(content)
        sources.append(source_of_files(source.topology, [path], f"x{number}"))
    # A worker cannot import this file: it gets the class itself.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    sources[4:4] = [Deadly("deadly"), source]
    report = import_targets(sources, tmp_path / "out", ALL, jobs=2)
    rows = {row.target: row for row in report.rows}
    assert sorted(rows) == sorted(s.name for s in sources)
    assert "process that read it was killed" in rows["deadly"].reason
    assert rows["t"].status == "ok"
    for name, row in rows.items():
        assert row.status == "ok" or row.reason
        if row.status == "failed":
            assert not (tmp_path / "out" / name).exists()
            continue
        frames = read_frames(find_targets(tmp_path / "out" / name)[0], 1)
        assert len(frames) == row.n_frames
        if name in cuts:
            np.testing.assert_allclose(frames, md.xyz[: len(frames)] * 10, atol=0.011)
