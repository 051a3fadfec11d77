"""Reading frames of targets: any of them, without the rest, also of files that broke off."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openmm import app

from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.conformations import find_conformations
from protenix_eba.energy.label import label_targets
from protenix_eba.energy.protocol import PROTOCOLS
from protenix_eba.energy.table import read_labels
from protenix_eba.structures.frame_choice import FrameChoice
from protenix_eba.structures.sequences import protein_of_target
from protenix_eba.structures.sources import find_samples
from protenix_eba.structures.trajectories import (
    Target,
    find_targets,
    frame_count,
    is_cut,
    load_topology,
    read_frames,
)

DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"
GRGDS = DEMO / "grgds"
XTC = GRGDS / "grgds_prod_R1_fit.xtc"
AS_IS = replace(PROTOCOLS["published"], minimise=False)


@pytest.fixture(scope="module")
def target() -> Target:
    return find_targets(GRGDS)[0]


@pytest.fixture(scope="module")
def everything() -> np.ndarray:
    """By mdtraj's own reader, in angstrom."""
    return mdtraj.load_xtc(str(XTC), top=str(GRGDS / "grgds.pdb")).xyz * 10


def alone(folder: Path, content: bytes) -> Target:
    """A target of one replica with these bytes."""
    path = folder / "grgds_R1.xtc"
    path.write_bytes(content)
    return Target("grgds", GRGDS / "grgds.pdb", {1: path})


@pytest.fixture(scope="module")
def as_mmcif(tmp_path_factory) -> Path:
    """The folder of a target as `sample` writes it where a PDB file cannot hold the atoms."""
    folder = tmp_path_factory.mktemp("samples") / "grgds"
    folder.mkdir()
    shutil.copy(XTC, folder / "grgds.xtc")
    pdb = app.PDBFile(str(GRGDS / "grgds.pdb"))
    with open(folder / "grgds.cif", "w") as file:
        app.PDBxFile.writeFile(pdb.topology, pdb.positions, file, keepIds=True)
    return folder


def test_an_ensemble_with_an_mmcif_topology_is_that_with_a_pdb(as_mmcif, target, everything):
    for folder in (as_mmcif, as_mmcif.parent):
        (found,) = find_targets(folder)
        ours, theirs = (
            [(a.name, a.residue.name, a.residue.resSeq, a.element) for a in topology.atoms]
            for topology in (load_topology(found), load_topology(target))
        )
        assert ours == theirs
        np.testing.assert_array_equal(read_frames(found, 1), everything)


def test_every_command_finds_an_ensemble_with_an_mmcif_topology(as_mmcif, everything, tmp_path):
    energies = {}
    for name, folder in (("cif", as_mmcif), ("pdb", GRGDS)):
        table = tmp_path / f"{name}.parquet"
        label_targets(folder, table, AS_IS, choice=FrameChoice(stride=100))
        labels = read_labels(table)
        energies[name] = labels.energy_kj_mol[labels.replica == 1]
    np.testing.assert_allclose(energies["cif"], energies["pdb"], atol=1e-3)
    assert find_samples([as_mmcif.parent])[0]["grgds"].n_frames == {1: 200}
    assert len(find_conformations(as_mmcif)) == 200
    np.testing.assert_allclose(
        find_conformations(as_mmcif)[7].read().ca, find_conformations(GRGDS)[7].read().ca
    )
    assert protein_of_target(find_targets(as_mmcif)[0]).chains == ("GRGDS",)


@settings(deadline=None)  # the first read loads compiled code
@given(frames=st.lists(st.integers(0, 199), max_size=12))
def test_frames_asked_for_are_those_of_a_full_read(target, everything, frames):
    found = read_frames(target, 1, np.array(frames, dtype=np.int64))
    np.testing.assert_array_equal(found, everything[np.array(frames, dtype=np.int64)])


def test_all_frames_are_read_without_a_choice(target, everything):
    np.testing.assert_array_equal(read_frames(target, 1), everything)
    assert frame_count(target, 1) == len(everything) == 200


@pytest.mark.parametrize("frames", [[200], [0, 7000], [-1]])
def test_frames_beyond_the_end_are_refused(target, frames):
    with pytest.raises(UserError, match="200 whole frames"):
        read_frames(target, 1, np.array(frames))


def test_a_cut_file_keeps_the_frames_before_the_cut(everything, tmp_path):
    """Every cut within the first three frames, headers included, and of the last byte."""
    whole = XTC.read_bytes()
    with mdtraj.formats.XTCTrajectoryFile(str(XTC)) as handle:
        ends = [*handle.offsets[1:].tolist(), len(whole)]
    for cut in [*range(ends[0], ends[2] + 1, 7), *ends[:3], len(whole) - 1, len(whole)]:
        cut_target = alone(tmp_path, whole[:cut])
        n = sum(end <= cut for end in ends)
        assert frame_count(cut_target, 1) == n
        assert is_cut(cut_target, 1) == (cut not in ends)
        np.testing.assert_array_equal(read_frames(cut_target, 1), everything[:n])


@pytest.mark.parametrize("size", [0, 3, 50, 91, 200])
def test_a_file_without_a_whole_frame_is_refused(tmp_path, size):
    with pytest.raises(UserError, match="cannot read"):
        frame_count(alone(tmp_path, XTC.read_bytes()[:size]), 1)


def test_few_atoms_are_stored_unpacked_and_counted_as_well(tmp_path):
    """XTC packs frames of ten atoms and more; three atoms have a shorter header."""
    path = tmp_path / "x_R1.xtc"
    with mdtraj.formats.XTCTrajectoryFile(str(path), "w") as handle:
        handle.write(np.arange(36, dtype=np.float32).reshape(4, 3, 3))
    target = Target("x", GRGDS / "grgds.pdb", {1: path})
    assert frame_count(target, 1) == 4
    assert not is_cut(target, 1)
    with pytest.raises(UserError, match=r"has 3 atoms, its topology grgds\.pdb has 64"):
        read_frames(target, 1)


def test_a_replaced_topology_is_noticed(tmp_path):
    folder = tmp_path / "grgds"
    shutil.copytree(GRGDS, folder)
    target = find_targets(folder)[0]
    read_frames(target, 1, np.array([0]))
    time.sleep(0.01)
    shutil.copy(DEMO / "thymopentin/thymopentin.pdb", folder / "grgds.pdb")
    with pytest.raises(UserError, match="64 atoms"):
        read_frames(target, 1, np.array([0]))


def test_paths_outside_ascii_are_read(everything, tmp_path):
    folder = tmp_path / "Größe"
    shutil.copytree(GRGDS, folder / "grgds")
    found = read_frames(find_targets(folder)[0], 1, np.array([5]))
    np.testing.assert_array_equal(found, everything[[5]])


def test_half_written_targets_are_not_seen(tmp_path):
    shutil.copytree(GRGDS, tmp_path / "grgds")
    shutil.copytree(GRGDS, tmp_path / ".x.node.1.tmp")
    assert [target.name for target in find_targets(tmp_path)] == ["grgds"]


def test_a_topology_is_that_of_mdtraj_and_read_once_until_it_changes(tmp_path):
    for pdb in sorted(DEMO.glob("*/*.pdb")):
        expected = mdtraj.load_pdb(str(pdb)).topology
        assert load_topology(Target(pdb.stem, pdb, {})) == expected
    path = Path(shutil.copy(GRGDS / "grgds.pdb", tmp_path))
    target = Target("grgds", path, {})
    first = load_topology(target)
    assert load_topology(target) is first
    shutil.copy(DEMO / "thymopentin/thymopentin.pdb", path)
    assert load_topology(target).n_atoms == 98


@pytest.mark.parametrize("content", [b"", b"HEADER\n", b"ATOM  \n", None])
def test_a_target_whose_topology_cannot_be_read_is_named(content, tmp_path):
    path = tmp_path / "grgds.pdb"
    if content is not None:
        path.write_bytes(content)
    target = Target("grgds", path, {1: XTC})
    for read in (load_topology, protein_of_target, lambda broken: read_frames(broken, 1)):
        with pytest.raises(UserError, match=r"target grgds: .*grgds\.pdb"):
            read(target)
