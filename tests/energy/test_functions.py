"""Energies by name: force fields against plain OpenMM, salt, and functions of other packages."""

from __future__ import annotations

import math
import subprocess
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from click.testing import CliRunner
from openmm import unit
from toy_plugin import program_with

from protenix_eba.cli.label import label
from protenix_eba.core.errors import UserError
from protenix_eba.energy.fast import can_accelerate
from protenix_eba.energy.functions import create_system
from protenix_eba.energy.label import label_targets
from protenix_eba.energy.minimise import Minimiser
from protenix_eba.energy.protocol import (
    PROTOCOLS,
    EnergyProtocol,
    customised,
    kappa_per_nm,
    protocol_by_name,
)
from protenix_eba.energy.structure import complete_structure
from protenix_eba.energy.system import TargetEnergy
from protenix_eba.energy.table import read_labels
from protenix_eba.structures.frame_choice import FrameChoice

DATA = Path(__file__).parents[1] / "data" / "cobrotoxin"
DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"
# Made without this package, on OpenMM's Reference platform (double precision):
#   pdb = app.PDBFile("cobrotoxin.pdb")
#   system = app.ForceField(*files).createSystem(pdb.topology, constraints=app.HBonds, **options)
#   context = openmm.Context(system, openmm.VerletIntegrator(0.001), reference)
#   for xyz in mdtraj.load("cobrotoxin_prod_R1_fit.xtc", top="cobrotoxin.pdb").xyz:
#       context.setPositions(xyz.astype(float)); context.getState(getEnergy=True)
# with options = {"implicitSolventKappa": 0.927 / unit.nanometer} for salt.
INDEPENDENT_KJ_MOL = {
    ("charmm36", "gbn2", 0.0): (-8106.871, -7994.486, -7886.677),
    ("charmm36", "gbn2", 150.0): (-8113.093, -8000.836, -7892.990),
    ("charmm36", "obc2", 0.0): (-7638.927,),  # nothing of it is compiled: 8 s for each frame
    ("amber14", "obc2", 0.0): (-8160.083, -8032.340, -8098.111),
    ("amber14", "gbn2", 0.0): (-8629.923, -8514.236, -8578.574),
}
AS_IS = replace(PROTOCOLS["published"], minimise=False)


@pytest.mark.parametrize(("names", "expected"), INDEPENDENT_KJ_MOL.items())
def test_cobrotoxin_has_the_energies_of_plain_openmm(
    names: tuple[str, str, float], expected: tuple[float, ...], tmp_path: Path
) -> None:
    """Four disulfides, protonation as in the file, one System for all frames."""
    force_field, solvent, salt = names
    protocol = customised(AS_IS, force_field=force_field, solvent=solvent, salt_mM=salt)
    some = FrameChoice(stride=3 // len(expected))
    labels = label_targets(DATA, tmp_path / "l.parquet", protocol, choice=some).labels
    assert labels.energy_kj_mol == pytest.approx(expected, abs=0.05)
    assert (labels.status == "ok").all()
    parts = sum(
        getattr(labels, f"energy_{term}_kj_mol")
        for term in ("bonds", "angles", "torsions", "nonbonded", "solvent")
    )
    assert parts == pytest.approx(labels.energy_kj_mol, abs=1e-3)


@pytest.mark.skipif(not can_accelerate(), reason="no C compiler, or OpenMM without PythonForce")
@pytest.mark.parametrize("force_field", ["charmm36", "amber14"])
def test_compiled_gbn2_serves_both_families_of_force_fields(force_field: str) -> None:
    protocol = customised(AS_IS, force_field=force_field)
    assert TargetEnergy(complete_structure(DATA / "cobrotoxin.pdb"), protocol).platform == (
        "CPU, gbn2.c"
    )


@pytest.mark.slow
def test_charmm36m_differs_from_charmm36_in_torsions_only() -> None:
    """36m changed CMAP and one salt bridge's radii; bonds and angles of a peptide are the same."""
    structure = complete_structure(DEMO / "penta_alanine" / "penta_alanine.pdb")
    old, new = (
        TargetEnergy(structure, customised(AS_IS, force_field=name)).label(structure.reference_nm)
        for name in ("charmm36", "charmm36m")
    )
    assert new.energy_bonds_kj_mol == pytest.approx(old.energy_bonds_kj_mol, abs=0.01)
    assert new.energy_angles_kj_mol == pytest.approx(old.energy_angles_kj_mol, abs=0.01)
    assert abs(new.energy_torsions_kj_mol - old.energy_torsions_kj_mol) > 0.1


def test_salt_becomes_openmms_inverse_debye_length() -> None:
    assert kappa_per_nm(150) == PROTOCOLS["paper"].kappa_per_nm == 0.927
    assert kappa_per_nm(0) == 0
    assert kappa_per_nm(600) == pytest.approx(2 * kappa_per_nm(150), abs=1e-3)
    assert kappa_per_nm(150, 310) < kappa_per_nm(150, 300)
    with pytest.raises(UserError, match="-1"):
        kappa_per_nm(-1)


def test_every_choice_has_its_own_hash_and_the_same_choice_the_same() -> None:
    default = PROTOCOLS["default"]
    choices = [
        {},
        {"force_field": "charmm36m"},
        {"force_field": "amber14"},
        {"solvent": "obc2"},
        {"salt_mM": 150.0},
        {"salt_mM": 150.0, "temperature_K": 320.0},
        {"tolerance_kj_mol_nm": 1.0},
        {"repeats": 3},
        {"function": "harmonic"},
    ]
    hashes = [customised(default, **choice).hash for choice in choices]  # type: ignore[arg-type]
    assert len(set(hashes)) == len(choices)
    assert hashes[0] == default.hash
    named = customised(default, force_field="charmm36", solvent="gbn2", tolerance_kj_mol_nm=10)
    assert named == default
    assert customised(PROTOCOLS["published"], salt_mM=150).hash == PROTOCOLS["paper"].hash


def test_labels_of_earlier_versions_keep_their_protocol() -> None:
    """The shipped table was written before a protocol had repeats or a function."""
    shipped = read_labels(DEMO / "labels.parquet")
    recorded = shipped.provenance["protocol"]
    assert "repeats" not in recorded
    assert EnergyProtocol.from_dict(recorded).hash == shipped.protocol_hash[0]
    assert (shipped.repeats == 1).all() and np.isnan(shipped.noise_kj_mol).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--force-field", "charm36"], "known are charmm36, charmm36m, amber14"),
        (["--solvent", "water"], "known are gbn2, obc2"),
        (["--solvent", "tip3p"], "explicit water"),
        (["--energy", "xtb"], "no energy function called 'xtb'; registered are: ani-1ccx"),
        (["--tolerance", "0"], "tolerance of 0"),
        (["--salt-mM", "-5"], "-5.0 mM"),
        (["--salt-mM", "150", "--solvent", "none"], "salt without a solvent"),
        (["--platform", "Quantum"], "no platform 'Quantum'"),
    ],
)
def test_unknown_choices_are_told_with_the_known(
    words: list[str], message: str, tmp_path: Path
) -> None:
    arguments = ["--input", str(DEMO / "grgds"), "--out", str(tmp_path / "l.parquet"), *words]
    result = CliRunner().invoke(label, arguments)
    if words[0] == "--platform":  # which another machine of the cluster may have
        assert message in read_labels(tmp_path / "l.parquet").reason[0]
    else:
        assert isinstance(result.exception, UserError) and message in str(result.exception)


TOY = '''
from protenix_eba.energy.functions import ENERGIES, python_system


@ENERGIES.register("harmonic")
def harmonic(topology, protocol, constrained):
    """Half k r^2 of every atom from the origin, k = 100 kJ/mol/nm^2, and a constant."""
    def compute(xyz_nm):
        return 50.0 * float((xyz_nm**2).sum()) - 7.0, -100.0 * xyz_nm
    return python_system(topology, compute)
'''


@pytest.mark.skipif(not hasattr(openmm, "PythonForce"), reason="OpenMM without PythonForce")
def test_a_plugin_brings_an_energy_function_to_all_processes(
    tmp_path: Path,
) -> None:
    """As installed: in processes of their own, with workers, minimised to the known minimum."""
    out = tmp_path / "l.parquet"
    words = ["label", "--input", str(DEMO / "grgds"), "--out", str(out), "--stride", "150"]
    words += ["--plugin", "toy", "--energy", "harmonic", "--tolerance", "1e-3", "--jobs", "2"]
    command = [*program_with(tmp_path / "site", TOY), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labels = read_labels(out)
    assert labels.energy_kj_mol == pytest.approx(np.full(len(labels), -7.0), abs=1e-3)
    assert (labels.initial_energy_kj_mol > 0).all() and (labels.iterations > 0).all()
    assert labels.provenance["protocol"]["function"] == "harmonic"
    assert np.isnan(labels.energy_solvent_kj_mol).all()
    assert labels.protocol_hash[0] != PROTOCOLS["default"].hash


def test_watching_a_minimisation_does_not_change_it() -> None:
    """The iteration counter and time limit hang in the minimiser's reporter."""
    structure = complete_structure(DEMO / "grgds" / "grgds.pdb")
    frame = mdtraj.load(
        str(DEMO / "grgds" / "grgds_prod_R1_fit.xtc"), top=str(DEMO / "grgds" / "grgds.pdb")
    ).xyz[7]
    system = create_system(structure.topology, PROTOCOLS["published"], constrained=True)
    minimiser = Minimiser(system, None, "CPU", PROTOCOLS["published"])
    one = minimiser.final
    watched = minimiser.run(frame, math.inf)
    one.context.setPositions(frame)
    openmm.LocalEnergyMinimizer.minimize(one.context, 10.0, 0)
    energy = one.context.getState(getEnergy=True).getPotentialEnergy()
    assert watched.energy_kj_mol == energy.value_in_unit(unit.kilojoule_per_mole)
    assert watched.iterations > 50


def test_minimised_conformations_are_at_rest() -> None:
    """What OpenMM's tolerance promises, less the forces that rigid bonds take up."""
    structure = complete_structure(DEMO / "grgds" / "grgds.pdb")
    label = TargetEnergy(structure, protocol_by_name("default")).label(structure.reference_nm)
    assert 0 < label.rms_force_kj_mol_nm < 2 * PROTOCOLS["default"].tolerance_kj_mol_nm
