"""MD and other trajectories, one file for each replica, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.structures.checks import check_finite, check_range
from protenix_eba.structures.md_files import (
    BROKEN,
    Source,
    dcd_has_rest,
    from_archive,
    open_handle,
    promised_frames,
    unpacked,
)
from protenix_eba.structures.packed import Scratch
from protenix_eba.structures.topologies import read_topology
from protenix_eba.structures.xtc import XtcFile
from protenix_eba.structures.xtc_layout import layout_of

__all__ = ["TrajectoryConformations"]

_MAKE_WHOLE: Final = "copy the file again, or let `protenix-eba import` take its whole frames"


class TrajectoryConformations:
    """A topology and a trajectory of each replica, on disk or in a zip.

    Nothing is read before it is asked for. Archives are unpacked into a temporary folder, one at a
    time, which goes when another one is unpacked or the process ends.

    Args:
        source: Files of the target; it must have no `problem`.
    """

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self._source = source

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the files that it is read from."""
        return self._source.files

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Return notes on the files for the reader."""
        found = []
        if self._loaded[1] is None:
            found.append(f"{self._topology_name} has no coordinates: the first frame stands for it")
        files, _ = _files_of(self._source)
        for replica, path in (files.trajectories or {}).items():
            if path.suffix.lower() != ".dcd":
                continue
            promised, n_frames = promised_frames(path), self.n_frames[replica]
            if promised > n_frames:
                found.append(f"{path.name} promises {promised} frames, {n_frames} are there")
        return tuple(found)

    @property
    def topology(self) -> mdtraj.Topology:
        """Return all atoms of the topology file."""
        return self._loaded[0]

    @cached_property
    def structure_xyz(self) -> NDArray[np.float32]:
        """`[N_atom, 3]` of the topology file, angstrom; of the first frame if it has none."""
        xyz: NDArray[np.float32] | None = self._loaded[1]
        if xyz is None:
            every, first = np.arange(self.topology.n_atoms), np.zeros(1, dtype=np.int64)
            xyz = self.frames(min(self.n_frames), first, every)[0]
        return xyz

    @cached_property
    def n_frames(self) -> dict[int, int]:
        """Return the number of frames of each replica.

        Raises:
            UserError: A trajectory that cannot be read, is cut, is empty or has other atoms.
        """
        return {replica: self._count(replica) for replica in self._source.trajectories or {}}

    def chunks(
        self, replica: int, atoms: NDArray[np.int64], size: int
    ) -> Iterator[NDArray[np.float32]]:
        """Yield all frames in order, see `Conformations`; `size` frames are in memory at a time."""
        with self._open(replica) as (handle, path):
            frames, start = _frames_of(handle, path), 0
            while start < self.n_frames[replica]:
                xyz = frames.read(min(size, self.n_frames[replica] - start), atoms)
                if not len(xyz):
                    raise OSError(f"it ends at frame {start} of {self.n_frames[replica]}")
                check_finite(xyz, start, path)
                start += len(xyz)
                yield xyz

    def frames(
        self, replica: int, indices: NDArray[np.int64], atoms: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Read single frames, see `Conformations`."""
        indices = np.asarray(indices, dtype=np.int64)
        with self._open(replica) as (handle, path):
            check_range(indices, self.n_frames[replica], f"target {self.name}: {path.name}")
            xyz = _frames_of(handle, path).frames(indices, atoms)
            for row, frame in enumerate(indices.tolist()):
                check_finite(xyz[row : row + 1], frame, path)
        return xyz

    @property
    def _topology_name(self) -> str:
        return self._source.topology.name if self._source.topology else ""

    @cached_property
    def _loaded(self) -> tuple[mdtraj.Topology, NDArray[np.float32] | None]:
        files = _files_of(self._source)[0]
        if files.topology is None:
            raise UserError(f"target {self.name}: {files.problem or 'no topology'}", "add one")
        return read_topology(files.topology)

    @contextmanager
    def _open(self, replica: int) -> Iterator[tuple[Any, Path]]:
        files, unpacked_at = _files_of(self._source)  # held: the unpacked files stay meanwhile
        path = (files.trajectories or {})[replica]
        try:
            with open_handle(path) as handle:
                yield handle, path
        except UserError:
            raise
        except Exception as error:  # mdtraj raises many kinds for a broken file
            raise UserError(f"target {self.name}: cannot read {path}: {error}", BROKEN) from error
        finally:
            del unpacked_at

    def _count(self, replica: int) -> int:
        with self._open(replica) as (handle, path):
            n_frames = len(handle)
            if not n_frames:
                raise UserError(f"target {self.name}: {path} has no frame", BROKEN)
            found = _read(handle, 1, None).shape[1]
            if found != self.topology.n_atoms:
                raise UserError(
                    f"target {self.name}: {path.name} has {found} atoms, its topology "
                    f"{self._topology_name} has {self.topology.n_atoms}",
                    "the topology must hold exactly the atoms of the trajectory",
                )
            handle.seek(n_frames - 1)
            whole = _last_is_whole(handle) and not _is_cut(handle, path, n_frames, found)
        if not whole:
            raise UserError(
                f"target {self.name}: {path} is cut after or within frame {n_frames - 1}",
                _MAKE_WHOLE,
            )
        return n_frames


class _Frames:
    """Reads frames of other formats as `XtcFile` does those of XTC."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def read(self, n_frames: int, atoms: NDArray[np.int64]) -> NDArray[np.float32]:
        return _read(self._handle, n_frames, atoms)

    def frames(self, indices: NDArray[np.int64], atoms: NDArray[np.int64]) -> NDArray[np.float32]:
        wanted, where = np.unique(indices, return_inverse=True)
        xyz, at = np.empty((len(wanted), len(atoms), 3), dtype=np.float32), -1
        for row, frame in enumerate(wanted.tolist()):
            if frame != at:
                self._handle.seek(frame)
            xyz[row] = self.read(1, atoms)[0]
            at = frame + 1
        return xyz[where]


def _frames_of(handle: Any, path: Path) -> XtcFile | _Frames:
    return XtcFile(path) if path.suffix.lower() == ".xtc" else _Frames(handle)


def _read(handle: Any, n_frames: int, atoms: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """Read the next frames, `[F, n, 3]` in angstrom."""
    found = handle.read(n_frames=n_frames, atom_indices=atoms)
    xyz = found.coordinates if hasattr(found, "coordinates") else found[0]
    scale = ANGSTROM_PER_NM if handle.distance_unit == "nanometers" else 1.0
    return np.asarray(xyz * np.float32(scale), dtype=np.float32)


def _last_is_whole(handle: Any) -> bool:
    try:
        return len(_read(handle, 1, None)) == 1
    except Exception:  # mdtraj raises many kinds for a frame that is cut
        return False


def _is_cut(handle: Any, path: Path, n_frames: int, n_atoms: int) -> bool:
    """Tell whether bytes stand after the last whole frame."""
    suffix = path.suffix.lower()
    if suffix == ".xtc":
        return layout_of(path).is_cut
    return suffix == ".dcd" and dcd_has_rest(path, n_frames, n_atoms)


def _files_of(source: Source) -> tuple[Source, Scratch | None]:
    """The files on disk; whoever reads them holds the second as long."""
    if source.archive is None:
        return source, None
    return _unpacked(source.archive, source.archive.stat().st_mtime_ns)


@lru_cache(maxsize=1)  # the frames of an archive can take gigabytes
def _unpacked(path: Path, modified_ns: int) -> tuple[Source, Scratch]:
    scratch = Scratch()
    try:
        return unpacked(from_archive(path), scratch.path), scratch
    except OSError as error:
        raise UserError(
            f"cannot unpack {path} into {scratch.path}: {error.strerror or error}",
            "let the variable TMPDIR name a folder with enough space, or unpack it yourself",
        ) from error
