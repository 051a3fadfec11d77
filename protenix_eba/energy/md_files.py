"""Files in which a simulation's own force field stands, read by OpenMM's readers.

Amber's prmtop, GROMACS' top with what it includes, CHARMM's PSF with the parameter files beside it,
and a System that OpenMM wrote, with a PDB or mmCIF file of its atoms beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import openmm
from openmm import app, unit

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import fingerprint, sha256_of_file
from protenix_eba.core.text_files import read_text
from protenix_eba.energy.prepare import open_structure

__all__ = ["MdFile", "MdFiles"]

_INCLUDE: Final = re.compile(r'^\s*#include\s+["<]([^">]+)[">]', re.MULTILINE)
_CHARMM_SUFFIXES: Final = (".rtf", ".prm", ".par", ".str")
_ATOMS_BESIDE: Final = (".pdb", ".cif")
_OPTIONS: Final = {"nonbondedMethod": app.NoCutoff, "rigidWater": False, "removeCMMotion": False}
# Masses of a file are rounded, of isotopes' mean.
_SAME_MASS_DA: Final = 0.1


class _Content(NamedTuple):
    """What a file holds, see `MdFile`; the System is made when it is called for."""

    topology: app.Topology
    system: Callable[[bool], openmm.System]


@dataclass(frozen=True)
class MdFile:
    """One file of an MD, with those that it cannot do without."""

    path: Path

    def digest(self) -> str:
        """Return 16 digits of the content of the file and of all files that it needs."""
        parts = _FORMATS[self.path.suffix.lower()].parts(self.path)
        return fingerprint([sha256_of_file(part) for part in (self.path, *parts)])

    def topology(self) -> app.Topology:
        """Return residues, names, elements and bonds of all atoms, water and ions included.

        Raises:
            UserError: OpenMM cannot read it, or a file that it needs is not there.
        """
        with self._told() as content:
            return content.topology

    def system(self, rigid: bool) -> openmm.System:
        """Return the System of all atoms, without cutoff and implicit solvent.

        Args:
            rigid: Whether X-H bonds are rigid; a System that OpenMM wrote stays as it is.

        Raises:
            UserError: As for the topology, or parameters are missing.
        """
        with self._told() as content:
            return content.system(rigid)

    @contextmanager
    def _told(self) -> Iterator[_Content]:
        form = _FORMATS[self.path.suffix.lower()]
        try:
            yield form.read(self.path, form.parts(self.path))
        except UserError:
            raise
        except Exception as error:  # OpenMM's readers raise many kinds
            raise UserError(
                f"{self.path} cannot be read as {form.name}: it is cut, damaged or lacks something "
                f"(OpenMM says {type(error).__name__}: {error})",
                "check that OpenMM reads it, and that the files that it needs lie beside it",
            ) from error


@dataclass(frozen=True)
class MdFiles:
    """The files of several targets, by name, or one file for the only target.

    Attributes:
        path: The folder or the file.
        files: Each file by the name of its target; a single file has the name "".
    """

    path: Path
    files: dict[str, MdFile]

    @classmethod
    def find(cls, path: Path) -> MdFiles:
        """Find the files of a folder, which are named by target ("1abc.prmtop"), or take the one.

        Raises:
            UserError: There is none, or two for one target.
        """
        if path.is_file() and path.suffix.lower() in _FORMATS:
            return cls(path, {"": MdFile(path)})
        inside = sorted(path.iterdir()) if path.is_dir() else []
        files: dict[str, MdFile] = {}
        for file in (file for file in inside if file.suffix.lower() in _FORMATS):
            if file.stem in files:
                raise UserError(
                    f"{files[file.stem].path} and {file} are for the same target",
                    "keep one of them in the folder",
                )
            files[file.stem] = MdFile(file)
        if not files:
            known = ", ".join(f"{suffix} ({form.name})" for suffix, form in _FORMATS.items())
            raise UserError(
                f"{path} is no force field of an MD, nor a folder of such files",
                f"give one of {known}; in a folder, files named by target",
            )
        return cls(path, files)

    def check_targets(self, names: Sequence[str]) -> None:
        """Refuse one file for several targets.

        Raises:
            UserError: So it is.
        """
        if "" in self.files and len(names) > 1:
            raise UserError(
                f"{self.path} is the force field of one target, and there are {len(names)}",
                "give a folder with a file for each, named by target",
            )

    def of(self, target: str) -> MdFile:
        """Return the file of a target.

        Raises:
            UserError: There is none for it.
        """
        found = self.files.get("") or self.files.get(target)
        if found is None:
            raise UserError(
                f"{self.path} holds no force field for {target}",
                f"put {target}.prmtop, .top, .psf or .xml there",
            )
        return found


class _Format(NamedTuple):
    """How files of one suffix are read; `parts` finds the others that such a file needs."""

    name: str
    read: Callable[[Path, list[Path]], _Content]
    parts: Callable[[Path], list[Path]]


def _amber(path: Path, parts: list[Path]) -> _Content:
    prmtop = app.AmberPrmtopFile(str(path))
    return _Content(prmtop.topology, lambda rigid: prmtop.createSystem(**_options(rigid)))


def _gromacs_or_amber(path: Path, parts: list[Path]) -> _Content:
    if read_text(path, strict=False).startswith("%VERSION"):  # Amber's suffix of old
        return _amber(path, parts)
    top = app.GromacsTopFile(str(path))
    return _Content(top.topology, lambda rigid: top.createSystem(**_options(rigid)))


def _charmm(path: Path, parts: list[Path]) -> _Content:
    psf = app.CharmmPsfFile(str(path))
    parameters = app.CharmmParameterSet(*map(str, parts))
    options = {"params": parameters, "flexibleConstraints": False}
    return _Content(psf.topology, lambda rigid: psf.createSystem(**options, **_options(rigid)))


def _openmm(path: Path, parts: list[Path]) -> _Content:
    system = openmm.XmlSerializer.deserialize(read_text(path))
    if not isinstance(system, openmm.System):
        raise UserError(f"{path} holds no System of OpenMM", "write it by openmm.XmlSerializer")
    topology = open_structure(parts[0]).topology
    _check_masses(system, topology, path, parts[0])
    _without_box(system)
    return _Content(topology, lambda rigid: system)


def _options(rigid: bool) -> dict[str, Any]:
    return {**_OPTIONS, "constraints": app.HBonds if rigid else None}


def _check_masses(system: openmm.System, topology: Any, path: Path, beside: Path) -> None:
    """Refuse atoms that are not the System's: by their number, and by the mass of each group.

    A group is a heavy atom with its hydrogens, to which repartitioning may have moved its mass.
    """
    atoms = list(topology.atoms())
    if len(atoms) != system.getNumParticles():
        raise UserError(
            f"{path.name} has {system.getNumParticles()} atoms, {beside.name} {len(atoms)}",
            "write both from the same topology",
        )
    excess = [
        system.getParticleMass(atom.index).value_in_unit(unit.dalton)
        - (atom.element.mass.value_in_unit(unit.dalton) if atom.element else 0.0)
        for atom in atoms
    ]
    for bond in topology.bonds():
        for hydrogen, heavy in (bond, bond[::-1]):
            if hydrogen.element is app.element.hydrogen:
                excess[heavy.index] += excess[hydrogen.index]
                excess[hydrogen.index] = 0.0
    for atom in atoms:
        if abs(excess[atom.index]) > _SAME_MASS_DA:
            raise UserError(
                f"{path.name} does not fit {beside.name}: {atom.name} of {atom.residue.name} "
                f"{atom.residue.id} has a mass that is off by {excess[atom.index]:.1f} Da",
                "write both from the same topology",
            )


def _without_box(system: openmm.System) -> None:
    """Make a System that of an isolated molecule, without what only dynamics needs."""
    for index in reversed(range(system.getNumForces())):
        force = system.getForce(index)
        if type(force).__name__.endswith(("Barostat", "Thermostat", "CMMotionRemover")):
            system.removeForce(index)
        elif hasattr(force, "setNonbondedMethod"):
            force.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
        elif hasattr(force, "setUsesPeriodicBoundaryConditions"):
            force.setUsesPeriodicBoundaryConditions(False)


def _nothing(path: Path) -> list[Path]:
    return []


def _included(path: Path) -> list[Path]:
    """Return what a GROMACS file includes; OpenMM says so if one that matters is not found."""
    places = (path.parent, Path(app.gromacstopfile._defaultGromacsIncludeDir()))
    found = [path]
    for file in found:  # grows
        for name in _INCLUDE.findall(read_text(file, strict=False)):
            candidates = (folder / name for folder in (file.parent, *places))
            included = next((one for one in candidates if one.is_file()), None)
            if included and included not in found:
                found.append(included)
    return found[1:]


def _charmm_parameters(path: Path) -> list[Path]:
    folders = (path.parent, path.parent / "toppar")
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
    found = [file for file in files if file.suffix.lower() in _CHARMM_SUFFIXES]
    if not found:
        raise UserError(
            f"no CHARMM parameters beside {path}",
            f"put the files ({', '.join(_CHARMM_SUFFIXES)}) beside it, or into toppar/ there",
        )
    return found


def _atoms_beside(path: Path) -> list[Path]:
    for suffix in _ATOMS_BESIDE:
        if path.with_suffix(suffix).is_file():
            return [path.with_suffix(suffix)]
    raise UserError(
        f"{path} names no atoms, and there is no {path.stem}.pdb or .cif beside it",
        "write the topology that the System was made from there",
    )


_FORMATS: Final = {
    ".prmtop": _Format("an Amber prmtop", _amber, _nothing),
    ".parm7": _Format("an Amber prmtop", _amber, _nothing),
    ".top": _Format("a GROMACS topology", _gromacs_or_amber, _included),
    ".psf": _Format("a CHARMM PSF", _charmm, _charmm_parameters),
    ".xml": _Format("a System of OpenMM", _openmm, _atoms_beside),
}
