"""Packed frames are read as mdtraj reads them, bit by bit, whatever the file holds."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protenix_eba.structures import xtc
from protenix_eba.structures.xtc import XtcFile, _unpack
from protenix_eba.structures.xtc_layout import layout_of

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
        frames = XtcFile(path)
        np.testing.assert_array_equal(frames.read(N_FRAMES + 1, atoms), expected)
        assert len(frames.read(1, atoms)) == 0
        chosen = [4, 1, 2, 4, 0]
        np.testing.assert_array_equal(frames.frames(np.array(chosen), atoms), expected[chosen])
        frames = XtcFile(path)
        np.testing.assert_array_equal(frames.read(3, atoms), expected[:3])
        np.testing.assert_array_equal(frames.read(9, atoms), expected[3:])


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


@pytest.mark.parametrize("n_atoms", [50, 70])
def test_a_frame_of_other_atoms_than_the_first_is_refused(n_atoms, tmp_path):
    for n, name in ((60, "a.xtc"), (n_atoms, "b.xtc")):
        written(tmp_path / name, chain(n, 0.05, 1)).close()
    mixed = tmp_path / "mixed.xtc"
    mixed.write_bytes((tmp_path / "a.xtc").read_bytes() + (tmp_path / "b.xtc").read_bytes())
    file, atoms = XtcFile(mixed), np.arange(60)
    assert len(file.read(N_FRAMES, atoms)) == N_FRAMES
    with pytest.raises(OSError, match=f"frame 6 has {n_atoms} atoms, the first 60"):
        file.frames(np.array([2, 6]), atoms)


def test_times_and_steps_are_those_that_mdtraj_reads(tmp_path):
    """Of files of unpacked and packed frames; the latter may be cut."""
    for n_atoms, cut in ((5, 0), (60, 4)):
        path = tmp_path / f"{n_atoms}.xtc"
        time, step = np.arange(N_FRAMES) * 2.5 + 1, np.arange(N_FRAMES) * 500
        with mdtraj.formats.XTCTrajectoryFile(str(path), "w") as out:
            out.write(chain(n_atoms, 0.05, 1).astype(np.float32), time.astype(np.float32), step)
        path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
        layout = layout_of(path)
        assert layout.is_cut == (cut > 0)
        whole = slice(N_FRAMES - layout.is_cut)
        np.testing.assert_array_equal(layout.times()[0], time[whole])
        np.testing.assert_array_equal(layout.times()[1], step[whole])


def test_the_headers_of_a_file_are_read_once_until_it_changes(tmp_path):
    path = tmp_path / "a.xtc"
    written(path, chain(60, 0.05, 1)).close()
    first = layout_of(path)
    assert layout_of(path) is first
    written(path, chain(60, 0.05, 1)[:3]).close()
    assert layout_of(path).n_frames == 3
