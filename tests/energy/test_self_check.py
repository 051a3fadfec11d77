"""Where the compiled evaluation is compared with OpenMM, and how long the answer is remembered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from protenix_eba.energy.fast import accelerate, can_accelerate
from protenix_eba.energy.functions import GROUPS, create_system
from protenix_eba.energy.minimise import system_in_context
from protenix_eba.energy.protocol import PROTOCOLS, customised
from protenix_eba.energy.self_check import part_of, same_forces
from protenix_eba.energy.structure import CompleteStructure, complete_structure
from protenix_eba.energy.system import TargetEnergy

DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"
AS_IS = replace(PROTOCOLS["published"], minimise=False)
needs_compiler = pytest.mark.skipif(
    not can_accelerate(), reason="no C compiler, or OpenMM without PythonForce"
)


@pytest.fixture(scope="module")
def structure() -> CompleteStructure:
    return complete_structure(DEMO / "grgds" / "grgds.pdb")


@pytest.mark.parametrize(
    ("force_field", "term"),
    [("charmm36", "solvent"), ("amber14", "solvent"), ("amber14", "nonbonded")],
)
def test_the_part_that_is_one_of_two_molecules_has_its_energy_alone(
    structure: CompleteStructure, force_field: str, term: str
) -> None:
    """Its atoms in the opposite order, too: exceptions go with them."""
    protocol = customised(AS_IS, force_field=force_field)
    both = app.Modeller(structure.topology, structure.reference_nm * unit.nanometer)
    both.add(structure.topology, (structure.reference_nm + 0.5) * unit.nanometer)
    count = len(structure.reference_nm)
    second = list(range(2 * count - 1, count - 1, -1))
    part = part_of(create_system(both.topology, protocol, constrained=True), second)
    energies = []
    for system, xyz_nm in (
        (create_system(structure.topology, protocol, constrained=True), structure.reference_nm),
        (part, structure.reference_nm[::-1]),
    ):
        placed = system_in_context(system, "Reference", 1e-5)
        placed.energy_kj_mol(xyz_nm)
        energies.append(placed.group_energies_kj_mol()[term])
    assert energies[1] == pytest.approx(energies[0], rel=1e-12)
    assert {force.getForceGroup() for force in part.getForces()} <= {
        list(GROUPS).index(name) for name in ("nonbonded", "solvent")
    }


@needs_compiler
def test_a_difference_of_one_charge_or_of_the_salt_is_found(structure: CompleteStructure) -> None:
    plain, salted = (
        create_system(structure.topology, replace(AS_IS, kappa_per_nm=kappa), constrained=True)
        for kappa in (0.0, 0.927)
    )
    xyz_nm = structure.reference_nm
    assert same_forces(plain, accelerate(plain), xyz_nm)
    assert same_forces(salted, accelerate(salted), xyz_nm)
    assert not same_forces(plain, accelerate(salted), xyz_nm)
    wrong = accelerate(plain)
    (nonbonded,) = (f for f in wrong.getForces() if isinstance(f, openmm.NonbondedForce))
    charge, sigma, epsilon = nonbonded.getParticleParameters(5)
    nonbonded.setParticleParameters(5, charge * 1.01, sigma, epsilon)
    assert not same_forces(plain, wrong, xyz_nm)


@needs_compiler
def test_a_molecule_that_was_found_right_is_not_compared_again(
    structure: CompleteStructure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without coordinates nothing can be compared: then OpenMM's own evaluation is taken."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    blind = replace(structure, reference_nm=np.full_like(structure.reference_nm, np.nan))
    assert TargetEnergy(blind, AS_IS, "CPU").platform == "CPU"
    assert not list(tmp_path.rglob("*.json"))
    assert TargetEnergy(structure, AS_IS, "CPU").platform == "CPU, gbn2.c"
    assert len(list(tmp_path.rglob("*.json"))) == 1
    assert TargetEnergy(blind, AS_IS, "CPU").platform == "CPU, gbn2.c"
    other = replace(AS_IS, kappa_per_nm=0.1)
    assert TargetEnergy(blind, other, "CPU").platform == "CPU"


@needs_compiler
def test_a_cache_that_cannot_be_written_to_is_done_without(
    structure: CompleteStructure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert TargetEnergy(structure, AS_IS, "CPU").platform == "CPU, gbn2.c"
