"""Force fields of amino acids alone: the Systems of plain OpenMM with whole ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app
from plain_openmm import DIPEPTIDE, evaluated, force_field, plain_system

from protenix_eba.energy.functions import create_system
from protenix_eba.energy.protocol import PROTOCOLS, customised
from protenix_eba.energy.structure import complete_structure

COBROTOXIN = Path(__file__).parents[1] / "data" / "cobrotoxin" / "cobrotoxin.pdb"
DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"


def test_charmm36_systems_are_those_of_the_whole_force_field_to_the_last_digit() -> None:
    """Of cobrotoxin: ends of chains and four disulfides, which patches make."""
    protocol = PROTOCOLS["default"]
    topology = complete_structure(COBROTOXIN).topology
    ours = create_system(topology, protocol, constrained=True)
    whole = plain_system(topology, protocol.force_field)
    assert ours.getNumForces() == whole.getNumForces()
    for one, other in zip(ours.getForces(), whole.getForces(), strict=True):
        one.setForceGroup(0)
        assert openmm.XmlSerializer.serialize(one) == openmm.XmlSerializer.serialize(other)


@pytest.mark.slow
def test_charmm36m_has_energies_and_forces_of_the_whole_force_field() -> None:
    """Its Lennard-Jones types are numbered otherwise, as there are fewer."""
    protocol = customised(PROTOCOLS["default"], force_field="charmm36m")
    structure = complete_structure(DEMO / "thymopentin" / "thymopentin.pdb")
    ours = create_system(structure.topology, protocol, constrained=True)
    whole = plain_system(structure.topology, protocol.force_field)
    noise = np.random.default_rng(0).normal(scale=0.01, size=(2, ours.getNumParticles(), 3))
    for shift in (0.0 * noise[0], *noise):
        xyz_nm = np.array(structure.reference_nm) + shift
        (energy, forces), expected = evaluated(ours, xyz_nm), evaluated(whole, xyz_nm)
        assert energy == pytest.approx(expected[0], rel=1e-10)
        np.testing.assert_allclose(forces, expected[1], rtol=1e-9, atol=1e-7)


def test_the_alanine_dipeptide_has_charmms_own_parameters(tmp_path: Path) -> None:
    """CHARMM36 has a residue for it, ALAD; the whole force field has a second one as well."""
    (tmp_path / "dipeptide.pdb").write_text(DIPEPTIDE)
    structure = complete_structure(tmp_path / "dipeptide.pdb")
    protocol = PROTOCOLS["default"]
    ours = create_system(structure.topology, protocol, constrained=False)
    made = app.Topology()
    residue = made.addResidue("ALAD", made.addChain())
    atoms = [made.addAtom(a.name, a.element, residue) for a in structure.topology.atoms()]
    for first, second in structure.topology.bonds():
        made.addBond(atoms[first.index], atoms[second.index])
    whole = force_field(*protocol.force_field).createSystem(
        made, residueTemplates={residue: "ALAD"}, removeCMMotion=False
    )
    energies = [evaluated(system, structure.reference_nm)[0] for system in (ours, whole)]
    assert np.isfinite(energies).all()
    assert energies[0] == pytest.approx(energies[1], abs=1e-6)
