"""Frames of trajectories of any format, read one by one wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.structures.ascii_paths import ascii_path
from protenix_eba.structures.md_files import BROKEN, DcdLayout, open_handle, promised_frames
from protenix_eba.structures.special_formats import Frame, SpecialFile, cell_of_dcd, special_file
from protenix_eba.structures.xtc_2023 import Xtc2023
from protenix_eba.structures.xtc_layout import layout_of

__all__ = ["Frame", "TrajectoryFile", "open_trajectory"]


class TrajectoryFile:
    """An open trajectory.

    Args:
        handle: mdtraj's object of the file.
        path: Path of the file, for messages.
        topology: Topology of the whole system.
        special: A reader instead of mdtraj's.
    """

    def __init__(
        self,
        handle: Any,
        path: Path,
        topology: mdtraj.Topology,
        special: SpecialFile | None = None,
    ) -> None:
        self._handle = handle
        self._special = special
        self._path = path
        # mdtraj's HDF5 files know their own topology.
        self._arguments = () if path.suffix.lower() in (".h5", ".hdf5") else (topology,)
        self._n_atoms = topology.n_atoms

    def read(self, index: int) -> Frame:
        """Read one frame.

        Raises:
            UserError: It cannot be read.
        """
        if self._special is not None:
            return self._special.read(index)
        try:
            self._handle.seek(index)
            found = self._handle.read_as_traj(*self._arguments, n_frames=1)
        except Exception as error:  # mdtraj raises many kinds for broken files
            raise UserError(f"{self._path.name}: frame {index} cannot be read: {error}") from error
        if found.n_frames != 1:
            raise UserError(f"{self._path.name}: frame {index} is not there")
        return Frame(
            xyz=np.asarray(found.xyz[0] * ANGSTROM_PER_NM * self._scale(), dtype=np.float32),
            box=self._box(index, found.unitcell_vectors),
            time_ps=float(found.time[0]),
        )

    def _box(self, index: int, vectors: Any) -> NDArray[np.float32] | None:
        if self._path.suffix.lower() == ".dcd" and DcdLayout.of(self._path):
            return cell_of_dcd(self._path, index)
        return None if vectors is None else np.asarray(vectors[0] * ANGSTROM_PER_NM, np.float32)

    def _scale(self) -> float:
        """Return the scale of coordinates in AMBER's NetCDF, which mdtraj may pass over."""
        if self._path.suffix.lower() not in (".nc", ".ncdf", ".netcdf"):
            return 1.0
        variable = self._handle._handle.variables["coordinates"]
        if getattr(variable, "scale", False):  # netCDF4, which mdtraj prefers, scales by itself
            return 1.0
        return float(getattr(variable, "scale_factor", 1.0))

    def count_declared(self) -> int:
        """Count frames by the file's headers or size, whether they can be read or not.

        Raises:
            UserError: Not even these can be read.
        """
        if self._special is not None:
            return self._special.n_frames
        try:
            return len(self._handle)
        except Exception as error:
            raise UserError(
                f"{self._path.name}: its frames cannot be counted: {error}", BROKEN
            ) from error

    def count_whole(self) -> int:
        """Count the frames up to where the file was cut, by trying.

        Raises:
            UserError: No frame, or another number of atoms than the topology has.
        """
        declared = self.count_declared()
        if declared == 0:
            raise UserError(f"{self._path.name} has no frame", BROKEN)
        if (found := self.count_atoms()) != self._n_atoms:
            raise UserError(
                f"{self._path.name} has {found} atoms, its topology {self._n_atoms}",
                "give the topology of exactly the atoms that the trajectory holds",
            )
        if self._can_read(declared - 1):
            return declared
        whole, cut = 0, declared - 1
        while whole < cut:
            middle = (whole + cut) // 2
            whole, cut = (middle + 1, cut) if self._can_read(middle) else (whole, middle)
        if whole == 0:
            self.read(0)
        return whole

    def cut(self, whole: int) -> str:
        """Describe how the file was cut after its `whole` frames; empty where it was not."""
        declared = self.count_declared()
        if whole < declared:
            return f"{self._path.name} is cut: {whole} of {declared} frames are whole"
        if self._special is not None:
            is_cut = self._special.is_cut
        else:
            is_xtc = self._path.suffix.lower() == ".xtc"
            is_cut = is_xtc and layout_of(self._path).is_cut
        return f"{self._path.name} is cut after {whole} whole frames" if is_cut else ""

    def promise(self) -> str:
        """Describe the frames that a DCD header promises and the file lacks: its run ended early.

        Such files are common and their frames are good; mdtraj counts by the size of the file.
        """
        if self._special is not None and self._special.note:
            return self._special.note
        if self._path.suffix.lower() != ".dcd":
            return ""
        promised, found = promised_frames(self._path), self.count_declared()
        if promised <= found:
            return ""
        return f"the header of {self._path.name} promises {promised} frames, {found} are there"

    def _can_read(self, index: int) -> bool:
        try:
            self.read(index)
        except UserError:
            return False
        return True

    def count_atoms(self) -> int:
        """Return the number of atoms in the first frame.

        Raises:
            UserError: It cannot be read.
        """
        if self._special is not None:
            return self._special.n_atoms
        try:
            self._handle.seek(0)
            return int(self._handle.read(n_frames=1)[0].shape[1])
        except Exception as error:
            raise UserError(
                f"{self._path.name}: its first frame cannot be read: {error}", BROKEN
            ) from error


@contextmanager
def open_trajectory(path: Path, topology: mdtraj.Topology) -> Iterator[TrajectoryFile]:
    """Open XTC, DCD, TRR, NetCDF (AMBER) or HDF5 (mdtraj).

    Args:
        path: The file.
        topology: Topology of all atoms in the file.

    Raises:
        UserError: No such file, another format, a broken header.
    """
    if Xtc2023.is_one(path):  # mdtraj cannot even open it
        yield TrajectoryFile(None, path, topology, Xtc2023(path))
        return
    with open_handle(path) as handle, ascii_path(path) as name:
        try:
            special = special_file(path, name)
        except Exception as error:  # mdtraj raises many kinds for broken files
            raise UserError(f"cannot read {path.name}: {error}", BROKEN) from error
        yield TrajectoryFile(handle, path, topology, special)
