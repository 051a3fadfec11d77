"""Packed frames are read as mdtraj reads them, bit by bit, whatever the file holds."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protenix_eba.structures import xtc
from protenix_eba.structures.xtc import XtcFile, _unpack

N_FRAMES = 5


def written(path: Path, xyz_nm: np.ndarray) -> mdtraj.formats.XTCTrajectoryFile:
    """A file of these frames, open for reading."""
    with mdtraj.formats.XTCTrajectoryFile(str(path), "w") as out:
        out.write(xyz_nm.astype(np.float32))
    return mdtraj.formats.XTCTrajectoryFile(str(path))


def chain(n_atoms: int, spread_nm: float, seed: int) -> np.ndarray:
    """Frames of a random chain: short steps are packed as differences, long ones are not."""
    random = np.random.default_rng(seed)
    steps = random.normal(scale=spread_nm, size=(N_FRAMES, n_atoms, 3))
    jumps = random.random((N_FRAMES, n_atoms, 1)) < 0.1
    return np.cumsum(np.where(jumps, 20.0 * steps, steps), axis=1)


def same_as_mdtraj(path: Path, xyz_nm: np.ndarray, atoms: np.ndarray) -> None:
    with written(path, xyz_nm) as handle:
        expected = handle.read(atom_indices=atoms)[0] * np.float32(10.0)
        frames = XtcFile(handle, path)
        np.testing.assert_array_equal(frames.read(N_FRAMES + 1, atoms), expected)
        frames.seek(3)
        np.testing.assert_array_equal(frames.read(1, atoms), expected[3:4])
        np.testing.assert_array_equal(frames.read(9, atoms), expected[4:])
        assert len(frames.read(1, atoms)) == 0


@settings(max_examples=40, deadline=None)
@given(
    n_atoms=st.integers(10, 80),
    spread_nm=st.sampled_from([0.0, 0.002, 0.05, 0.3, 4.0]),
    seed=st.integers(0, 1 << 16),
    data=st.data(),
)
def test_any_atoms_of_any_frames_equal_mdtraj_bitwise(
    n_atoms, spread_nm, seed, data, tmp_path_factory
):
    atoms = data.draw(st.lists(st.integers(0, n_atoms - 1), min_size=1, unique=True))
    path = tmp_path_factory.mktemp("xtc") / "chain.xtc"
    same_as_mdtraj(path, chain(n_atoms, spread_nm, seed), np.array(atoms))


def water(n_molecules: int) -> np.ndarray:
    """Oxygens on a lattice with their hydrogens: GROMACS swaps the first two atoms of each."""
    random = np.random.default_rng(0)
    oxygen = random.uniform(0.0, 3.0, (N_FRAMES, n_molecules, 1, 3))
    hydrogens = oxygen + random.normal(scale=0.06, size=(N_FRAMES, n_molecules, 2, 3))
    return np.concatenate([oxygen, hydrogens], axis=2).reshape(N_FRAMES, -1, 3)


@pytest.mark.parametrize(
    "xyz_nm",
    [
        pytest.param(water(200), id="water"),
        pytest.param(chain(9, 0.1, 0), id="nine atoms are not packed"),
        pytest.param(chain(50, 0.1, 0) - 40.0, id="far from the origin"),
        pytest.param(chain(50, 30.0, 0), id="hundreds of nanometres"),
        pytest.param(chain(50, 3000.0, 0), id="axes are packed one by one"),
    ],
)
def test_other_systems_equal_mdtraj_bitwise(xyz_nm, tmp_path):
    every = np.arange(xyz_nm.shape[1])
    same_as_mdtraj(tmp_path / "a.xtc", xyz_nm, every)
    same_as_mdtraj(tmp_path / "b.xtc", xyz_nm, every[-3::-2])


def test_large_files_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(xtc, "_PIECE_BYTES", 700)  # about two of five frames
    same_as_mdtraj(tmp_path / "a.xtc", chain(60, 0.05, 1), np.arange(60))
    monkeypatch.setattr(xtc, "_PIECE_BYTES", 1)
    same_as_mdtraj(tmp_path / "b.xtc", chain(60, 0.05, 1), np.arange(0, 60, 7))


def test_broken_bytes_are_refused_or_read_but_never_left(tmp_path):
    xyz_nm = chain(60, 0.05, 1)
    with written(tmp_path / "a.xtc", xyz_nm) as handle:
        starts = handle.offsets.astype(np.int64)
    whole = np.fromfile(tmp_path / "a.xtc", np.uint8)
    padded = np.concatenate([whole, np.zeros(108, np.uint8)])
    atoms, out = np.arange(60), np.zeros((N_FRAMES, 60, 3), np.float32)
    assert _unpack(padded, starts, atoms, out)
    random = np.random.default_rng(2)
    refused = 0
    for _ in range(300):
        broken = padded.copy()
        broken[random.integers(0, len(whole), 3)] = random.integers(0, 256, 3)
        refused += not _unpack(broken, starts, atoms, out)
    assert refused
    # Cut anywhere in the last frame, its header included.
    for length in range(int(starts[-1]) + 1, len(whole) - 3, 7):  # the last word may be filled up
        cut = np.concatenate([whole[:length], np.zeros(108, np.uint8)])
        assert not _unpack(cut, starts, atoms, out)
