"""Small MD ensembles of peptides (or any PDB file), in the layout of ATLAS.

Used to make the data that the package ships. Every replica starts from its own random conformer
with its own seed, so agreement between replicas says something about sampling. A known potential
may be added, so that the ensemble without it can be written down: see `bias.EndBias`.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, require_file, write_json
from protenix_eba.energy.bias import EndBias
from protenix_eba.energy.fast import accelerate, can_accelerate
from protenix_eba.energy.structure import CompleteStructure, complete_structure

__all__ = [
    "SimulationSettings",
    "embed_peptide",
    "geometry_faults",
    "native_obc",
    "simulate_replica",
    "write_provenance",
]

# Atoms up to which OpenMM's plain loops are faster than its CPU platform, which wakes a thread for
# each force: 33 atoms take 54 microseconds a step, not 77, and not 770 where the core had slept.
_SMALL = 50

# Improper dihedrals that are negative in the natural amino acids; the last atom is the centre.
_L_CENTRES = {
    "any": ("N", "C", "CB", "CA"),
    "ILE": ("CA", "CG1", "CG2", "CB"),
    "THR": ("CA", "OG1", "CG2", "CB"),
}


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """Langevin dynamics at constant temperature; no salt, no cutoff, X-H bonds constrained.

    Attributes:
        frames: Saved frames of each replica.
        interval_ps: Time between saved frames.
        equilibration_ps: Time before the first one.
        timestep_fs: 4 fs needs `hydrogen_mass_amu` of 1.5 or more.
        hydrogen_mass_amu: Mass of hydrogens, taken from their heavy atom.
        temperature_K: Of the thermostat.
        friction_per_ps: Of the thermostat.
        seed: Of replica 1; replica r takes seed + 1000 r.
        force_field: Names of OpenMM's force field files.
        bias: Added to the force field, or None.
    """

    frames: int = 200
    interval_ps: float = 5.0
    equilibration_ps: float = 20.0
    timestep_fs: float = 4.0
    hydrogen_mass_amu: float = 2.0
    temperature_K: float = 300.0
    friction_per_ps: float = 1.0
    seed: int = 20
    force_field: tuple[str, ...] = ("charmm36.xml", "implicit/gbn2.xml")
    bias: EndBias | None = None

    def steps(self, time_ps: float) -> int:
        """Return the number of integration steps in `time_ps`."""
        return round(1000 * time_ps / self.timestep_fs)


def embed_peptide(sequence: str, seed: int, path: Path) -> None:
    """Write a random conformer of an L-peptide as PDB, heavy atoms only (RDKit ETKDG).

    Raises:
        UserError: Not a sequence of the 20 amino acids, or no conformer with all peptide bonds
            trans in 50 attempts.
    """
    molecule = Chem.MolFromSequence(sequence)
    if molecule is None or not sequence:
        raise UserError(f"not a peptide sequence: {sequence!r}", "use one-letter codes, like GYD")
    _name_isoleucine(molecule)
    with_hydrogens = Chem.AddHs(molecule)
    for attempt in range(50):
        if rdDistGeom.EmbedMolecule(with_hydrogens, randomSeed=seed + attempt) < 0:
            continue
        heavy = Chem.RemoveHs(with_hydrogens)
        path.write_text(Chem.MolToPDBBlock(heavy, flavor=4), encoding="utf-8")
        if not geometry_faults(mdtraj.load_pdb(str(path))):
            return
    raise UserError(f"no all-trans conformer of {sequence} found", "choose another seed")


def _name_isoleucine(molecule: Any) -> None:
    """Swap isoleucine's CG1 and CG2, which RDKit names the wrong way round (CD1 is on CG2)."""
    for bond in molecule.GetBonds():
        pair = [bond.GetBeginAtom(), bond.GetEndAtom()]
        info = {atom.GetPDBResidueInfo().GetName().strip(): atom for atom in pair}
        if pair[0].GetPDBResidueInfo().GetResidueName() != "ILE" or info.keys() != {"CG2", "CD1"}:
            continue
        number = info["CD1"].GetPDBResidueInfo().GetResidueNumber()
        for atom in molecule.GetAtoms():
            record = atom.GetPDBResidueInfo()
            name = record.GetName()
            if record.GetResidueNumber() == number and name in (" CG1", " CG2"):
                record.SetName(" CG2" if name == " CG1" else " CG1")


def geometry_faults(trajectory: mdtraj.Trajectory) -> list[str]:
    """Find residues that are not L, and peptide bonds that are cis (allowed before proline).

    Returns:
        A sentence for each fault, which names its first frame; empty if there is none.
    """
    faults = []
    for residue in trajectory.topology.residues:
        atoms = {atom.name: atom.index for atom in residue.atoms}
        centres = [_L_CENTRES["any"]] + [_L_CENTRES[n] for n in _L_CENTRES if n == residue.name]
        for quartet in centres:
            if not set(quartet) <= atoms.keys():
                continue
            indices = [[atoms[name] for name in quartet]]
            wrong = mdtraj.compute_dihedrals(trajectory, indices, periodic=False)[:, 0] > 0
            if wrong.any():
                faults.append(f"{quartet[3]} of {residue} is not L in frame {int(wrong.argmax())}")
    indices, omega = mdtraj.compute_omega(trajectory, periodic=False)
    for quartet, angles in zip(indices, omega.T, strict=True):
        residue = trajectory.topology.atom(quartet[3]).residue
        cis = np.abs(angles) < np.pi / 2
        if cis.any() and residue.name != "PRO":
            faults.append(f"the bond before {residue} is cis in frame {int(cis.argmax())}")
    return faults


def simulate_replica(
    folder: Path, origin: str | Path, replica: int, settings: SimulationSettings
) -> list[str]:
    """Run one replica and write `NAME_prod_R<replica>_fit.xtc`; replica 1 also writes NAME.pdb.

    Does nothing where the trajectory is there already. Replicas other than 1 need NAME.pdb, for
    its protonation and to superpose on.

    Args:
        folder: Of the target; its name is the target's name.
        origin: One-letter codes, for a random conformer of its own for each replica; or a PDB
            file, from which all replicas start.
        replica: 1, 2, 3 and so on.
        settings: Same for all replicas.

    Returns:
        Geometry faults in the trajectory, see `geometry_faults`.
    """
    name = folder.name
    trajectory_path = folder / f"{name}_prod_R{replica}_fit.xtc"
    reference_path = folder / f"{name}.pdb"
    if trajectory_path.is_file() and reference_path.is_file():
        return []
    folder.mkdir(parents=True, exist_ok=True)
    seed = settings.seed + 1000 * replica
    with tempfile.TemporaryDirectory() as scratch:
        start = Path(scratch) / "start.pdb"
        if isinstance(origin, Path):
            start = require_file(origin, "starting structure")
        else:
            embed_peptide(origin, seed, start)
        structure = complete_structure(start)
    if replica != 1:  # one protonation for all replicas
        reference = complete_structure(reference_path)
        structure = replace(reference, reference_nm=reference.posed_as(structure))
    simulation = _simulation(structure, settings, seed)
    topology = mdtraj.Topology.from_openmm(structure.topology)
    if replica == 1:
        _write_reference(simulation, topology, reference_path)
    trajectory = mdtraj.Trajectory(_produce(simulation, settings), topology)
    on = mdtraj.load_pdb(str(reference_path))
    trajectory.superpose(on, atom_indices=topology.select("name CA"))
    with atomic_path(trajectory_path) as temporary:
        _save(trajectory, settings, temporary)
    return geometry_faults(trajectory)


def _simulation(
    structure: CompleteStructure, settings: SimulationSettings, seed: int
) -> app.Simulation:
    """Return a minimised, equilibrated simulation on one CPU thread."""
    system = app.ForceField(*settings.force_field).createSystem(
        structure.topology,
        nonbondedMethod=app.NoCutoff,
        constraints=app.HBonds,
        hydrogenMass=settings.hydrogen_mass_amu * unit.amu,
    )
    if "implicit/obc2.xml" in settings.force_field:
        native_obc(system)
    elif can_accelerate():
        system = accelerate(system)
    if settings.bias:
        system.addForce(settings.bias.force(structure.topology))
    integrator = openmm.LangevinMiddleIntegrator(
        settings.temperature_K, settings.friction_per_ps, settings.timestep_fs * 1e-3
    )
    integrator.setRandomNumberSeed(seed)
    small = system.getNumParticles() <= _SMALL
    platform = openmm.Platform.getPlatform("Reference" if small else "CPU")
    properties = {} if small else {"Threads": "1"}
    simulation = app.Simulation(structure.topology, system, integrator, platform, properties)
    simulation.context.setPositions(structure.reference_nm)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(settings.temperature_K, seed)
    simulation.step(settings.steps(settings.equilibration_ps))
    return simulation


def native_obc(system: openmm.System) -> None:
    """Put OpenMM's own OBC force (Onufriev, Bashford and Case, 2004, model II) where a file has it.

    `implicit/obc2.xml` writes the same energy, its surface term included, as a general expression,
    which takes twice the time. Without salt only.
    """
    where = [isinstance(force, openmm.CustomGBForce) for force in system.getForces()].index(True)
    general = system.getForce(where)
    native = openmm.GBSAOBCForce()
    native.setSolventDielectric(78.5)
    for particle in range(general.getNumParticles()):
        charge, offset_radius, scaled_radius = general.getParticleParameters(particle)
        native.addParticle(charge, offset_radius + 0.009, scaled_radius / offset_radius)
    system.removeForce(where)
    system.addForce(native)


def _positions_nm(simulation: app.Simulation) -> NDArray[np.float64]:
    state = simulation.context.getState(getPositions=True)
    return np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))


def _write_reference(simulation: app.Simulation, topology: mdtraj.Topology, path: Path) -> None:
    """Write the equilibrated conformation, minimised; the simulation continues unchanged."""
    state = simulation.context.getState(getPositions=True, getVelocities=True)
    simulation.minimizeEnergy()
    trajectory = mdtraj.Trajectory(_positions_nm(simulation)[None], topology)
    trajectory.center_coordinates()
    with atomic_path(path) as temporary:
        trajectory.save_pdb(str(temporary))
    simulation.context.setState(state)


def _produce(simulation: app.Simulation, settings: SimulationSettings) -> NDArray[np.float32]:
    frames = []
    for _ in range(settings.frames):
        simulation.step(settings.steps(settings.interval_ps))
        frames.append(_positions_nm(simulation))
    return np.array(frames, dtype=np.float32)


def _save(trajectory: mdtraj.Trajectory, settings: SimulationSettings, path: Path) -> None:
    trajectory.time = settings.interval_ps * (1 + np.arange(len(trajectory)))
    trajectory.unitcell_vectors = None
    trajectory.save_xtc(str(path))


def write_provenance(
    folder: Path, origin: str | Path, settings: SimulationSettings, *, made_by: str
) -> None:
    """Write `provenance.json`: everything needed to run the same simulation again."""
    versions = {
        "openmm": openmm.__version__,
        "mdtraj": mdtraj.__version__,
        "rdkit": rdBase.rdkitVersion,
    }
    record: dict[str, Any] = {
        "start": f"the PDB file {origin.name}, for all replicas"
        if isinstance(origin, Path)
        else f"random ETKDG conformers of {origin}, one for each replica",
        "made_by": made_by,
        "constraints": "X-H bonds",
        "integrator": "LangevinMiddle",
        "protonation": "PDBFixer, pH 7",
        "superposed_on": "CA atoms of the reference",
        "settings": asdict(settings),
        "versions": versions,
    }
    write_json(folder / "provenance.json", record)
