"""Ensembles on disk: a topology, its frames, and how they were made; half-made ones too.

`NAME/NAME.pdb` and `NAME/NAME.xtc` are what every other command reads, `NAME/NAME.json` says what
made them and which samples are in them. Chunks of an ensemble that is not finished wait in
`.NAME.parts/` beside it.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Final

import mdtraj
import numpy as np
from biotite.sequence import ProteinSequence
from biotite.structure import AtomArray
from biotite.structure.io import pdbx
from mdtraj.core.element import get_by_symbol
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, write_json
from protenix_eba.core.units import ANGSTROM_PER_NM
from protenix_eba.host.features import ProteinFeatures
from protenix_eba.structures.ascii_paths import ascii_path
from protenix_eba.structures.sequences import Protein

__all__ = ["EnsembleFolder", "Samples", "rounded", "save_xtc", "topology_of", "write_ensemble"]

# Beyond these a topology is written as mmCIF. mdtraj names chains of a PDB file A to Z.
_PDB_ATOMS: Final = 99_999
_PDB_CHAINS: Final = 26
_PDB_RESIDUES: Final = 9_999
# XTC keeps a thousandth of a nanometre. What is written, judged and read again is the same.
_DECIMALS: Final = 2
_OTHER: Final = "choose another --out, or delete the folder"


def topology_of(protein: ProteinFeatures) -> mdtraj.Topology:
    """Return the protein's heavy atoms in Protenix's order; chains A, B ..., residues from 1."""
    topology = mdtraj.Topology()
    residues: dict[tuple[int, int], Any] = {}
    for chain_number, sequence in enumerate(protein.protein.chains):
        chain = topology.add_chain()
        for number, code in enumerate(sequence):
            residues[chain_number, number] = topology.add_residue(
                ProteinSequence.convert_letter_1to3(code), chain, resSeq=number + 1
            )
    for (chain_number, number, name), element in zip(protein.atoms, protein.elements, strict=True):
        topology.add_atom(name, get_by_symbol(element), residues[chain_number, number])
    return topology


def write_ensemble(
    folder: Path,
    protein: ProteinFeatures,
    coordinates: NDArray[np.float32],
    provenance: dict[str, Any],
) -> None:
    """Write `NAME.pdb` (the first frame), `NAME.xtc` (all) and `NAME.json` into `folder`.

    The topology is `NAME.cif` where a PDB file cannot hold it.

    Args:
        folder: Made if absent.
        protein: Names and order of the atoms.
        coordinates: `[F, N_atom, 3]` in angstrom.
        provenance: What made them; written last, as a sign of completeness.
    """
    name = protein.protein.name
    ensemble = mdtraj.Trajectory(coordinates / ANGSTROM_PER_NM, topology_of(protein))
    if _fits_pdb(protein):
        with atomic_path(folder / f"{name}.pdb") as path:
            ensemble[0].save_pdb(str(path))
    else:
        write_cif(folder / f"{name}.cif", protein, coordinates[0])
    save_xtc(folder / f"{name}.xtc", ensemble)
    write_json(folder / f"{name}.json", provenance)


def save_xtc(path: Path, trajectory: mdtraj.Trajectory) -> None:
    """Write a trajectory, whole or not at all."""
    with atomic_path(path) as temporary, ascii_path(temporary) as name:
        trajectory.save_xtc(name)


def _fits_pdb(protein: ProteinFeatures) -> bool:
    chains = protein.protein.chains
    longest = max(map(len, chains))
    return (
        len(protein.atoms) <= _PDB_ATOMS and len(chains) <= _PDB_CHAINS and longest <= _PDB_RESIDUES
    )


def write_cif(path: Path, protein: ProteinFeatures, xyz: NDArray[np.float32]) -> None:
    """Write one conformation `[N_atom, 3]`, in angstrom, as mmCIF."""
    array = AtomArray(len(protein.atoms))
    chain, residue, names = zip(*protein.atoms, strict=True)
    chains = protein.protein.chains
    array.coord = xyz
    array.chain_id = np.array([_chain_name(number) for number in chain])
    array.res_id = np.array(residue) + 1
    array.res_name = np.array(
        [
            ProteinSequence.convert_letter_1to3(chains[c][r])
            for c, r in zip(chain, residue, strict=True)
        ]
    )
    array.atom_name = np.array(names)
    array.element = np.array([element.upper() for element in protein.elements])
    file = pdbx.CIFFile()
    pdbx.set_structure(file, array, data_block=protein.protein.name)
    with atomic_path(path) as temporary:
        file.write(str(temporary))


def _chain_name(number: int) -> str:
    """Return the name of a chain: A to Z, then AA, AB ..."""
    if number < len(ascii_uppercase):
        return ascii_uppercase[number]
    pairs = product(ascii_uppercase, repeat=2)
    return next("".join(p) for n, p in enumerate(pairs, len(ascii_uppercase)) if n == number)


@dataclass
class Samples:
    """The samples that were made so far.

    Attributes:
        xyz: Number of a sample to its coordinates `[N_atom, 3]`, angstrom; those that were left
            out have none.
        invalid: Number of a sample to what is wrong with it.
    """

    xyz: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    invalid: dict[int, str] = field(default_factory=dict)

    @property
    def tried(self) -> set[int]:
        """Numbers of all samples that were made, valid or not."""
        return self.xyz.keys() | self.invalid.keys()


class EnsembleFolder:
    """One protein's ensemble below a folder of ensembles.

    Args:
        out: Folder of the ensembles of all proteins.
        protein: The protein that the ensemble is of.
        settings: What the samples depend on; compared with what is there.
    """

    def __init__(self, out: Path, protein: Protein, settings: dict[str, Any]) -> None:
        self.folder = out / protein.name
        self.name = protein.name
        self._settings = settings
        self._parts = out / f".{protein.name}.parts"

    @property
    def has_parts(self) -> bool:
        """Whether there are chunks of an ensemble that is not finished."""
        return self._parts.is_dir()

    @cached_property
    def record(self) -> dict[str, Any] | None:
        """Content of `NAME.json`; None if there is no finished ensemble.

        Raises:
            UserError: It was made with other settings, or is damaged.
        """
        record = self._read_record(self.folder / f"{self.name}.json")
        if record is None or not (self.folder / f"{self.name}.xtc").is_file():
            return None
        return record

    def _read_record(self, path: Path) -> dict[str, Any] | None:
        if not path.is_file():
            return None
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is not whole: {error}", _OTHER) from error
        changed = [key for key, value in self._settings.items() if before.get(key) != value]
        if changed:
            raise UserError(
                f"{path.parent} holds samples made with other {', '.join(changed)}", _OTHER
            )
        return dict(before)

    def load(self) -> Samples:
        """Read the samples that exist, of the finished ensemble and of parts.

        Raises:
            UserError: They were made with other settings, or the ensemble is damaged.
        """
        samples = self._finished() if self.record else Samples()
        self._read_record(self._parts / "settings.json")
        for path in sorted(self._parts.glob("[0-9]*.npz")):
            samples.xyz.update(_read_part(path))
        return samples

    def _finished(self) -> Samples:
        record = self.record or {}
        path = self.folder / f"{self.name}.xtc"
        try:
            with ascii_path(path) as name, mdtraj.formats.XTCTrajectoryFile(name) as handle:
                xyz_nm = handle.read()[0]
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path} cannot be read: {error}", _OTHER) from error
        numbers = record["numbers"]
        if len(xyz_nm) < len(numbers):  # more: a run was killed before it wrote the record
            raise UserError(
                f"{path} has {len(xyz_nm)} frames, its record {len(numbers)}: it is cut", _OTHER
            )
        invalid = {int(number): reason for number, reason in record["invalid"].items()}
        xyz = rounded(ANGSTROM_PER_NM * xyz_nm[: len(numbers)])
        return Samples(dict(zip(numbers, xyz, strict=True)), invalid)

    def keep(self, numbers: Sequence[int], xyz: NDArray[np.float32]) -> None:
        """Write a chunk, `[B, N_atom, 3]` in angstrom, so that it outlives an interrupt."""
        if not (self._parts / "settings.json").is_file():
            write_json(self._parts / "settings.json", self._settings)
        with atomic_path(self._parts / f"{min(numbers):08d}.npz") as path:
            np.savez(path, numbers=np.array(numbers), xyz=xyz)

    def finish(self, protein: ProteinFeatures, samples: Samples, result: dict[str, Any]) -> None:
        """Write the ensemble of all samples that have coordinates, and remove the parts.

        Args:
            protein: Names and order of the atoms.
            samples: At least one with coordinates.
            result: What the record says besides the settings.
        """
        numbers = sorted(samples.xyz)
        xyz = np.stack([samples.xyz[number] for number in numbers])
        invalid = {str(number): samples.invalid[number] for number in sorted(samples.invalid)}
        record = self._settings | result | {"numbers": numbers, "invalid": invalid}
        write_ensemble(self.folder, protein, xyz, record)
        shutil.rmtree(self._parts, ignore_errors=True)

    def unsplit(self, samples: Samples) -> dict[int, Path]:
        """Return samples with coordinates that lack their NAME_<number>.cif, and its path."""
        paths = {number: self.folder / f"{self.name}_{number}.cif" for number in samples.xyz}
        return {number: path for number, path in paths.items() if not path.is_file()}

    def split(self, protein: ProteinFeatures, samples: Samples) -> None:
        """Write each sample that has coordinates as NAME_<number>.cif, unless the file exists."""
        for number, path in self.unsplit(samples).items():
            write_cif(path, protein, samples.xyz[number])


def rounded(xyz: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round coordinates to what an XTC file keeps, 0.01 angstrom."""
    return np.round(xyz, _DECIMALS).astype(np.float32)


def _read_part(path: Path) -> dict[int, NDArray[np.float32]]:
    """Read the numbers and samples of a chunk; none if it is damaged, so that it is made again."""
    try:
        with np.load(path, allow_pickle=False) as part:
            return dict(zip(part["numbers"].tolist(), part["xyz"], strict=True))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return {}
