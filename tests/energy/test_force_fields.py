"""Force fields of amino acids alone: the Systems of plain OpenMM with whole ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app
from plain_openmm import force_field, plain_system

from protenix_eba.energy.functions import create_system
from protenix_eba.energy.protocol import PROTOCOLS, customised
from protenix_eba.energy.structure import complete_structure

COBROTOXIN = Path(__file__).parents[1] / "data" / "cobrotoxin" / "cobrotoxin.pdb"
DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"
# Heavy atoms of the alanine dipeptide, extended.
DIPEPTIDE = """\
ATOM      1  CH3 ACE A   1       2.000   2.090   0.000  1.00  0.00           C
ATOM      2  C   ACE A   1       3.427   2.641   0.000  1.00  0.00           C
ATOM      3  O   ACE A   1       4.391   1.877   0.000  1.00  0.00           O
ATOM      4  N   ALA A   2       3.555   3.970   0.000  1.00  0.00           N
ATOM      5  CA  ALA A   2       4.853   4.614   0.000  1.00  0.00           C
ATOM      6  CB  ALA A   2       5.661   4.221   1.232  1.00  0.00           C
ATOM      7  C   ALA A   2       5.623   4.186  -1.244  1.00  0.00           C
ATOM      8  O   ALA A   2       6.748   3.700  -1.143  1.00  0.00           O
ATOM      9  N   NME A   3       5.012   4.370  -2.418  1.00  0.00           N
ATOM     10  C   NME A   3       5.642   4.008  -3.684  1.00  0.00           C
END
"""


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("charmm36", COBROTOXIN),
        pytest.param("charmm36m", DEMO / "thymopentin" / "thymopentin.pdb", marks=pytest.mark.slow),
    ],
)
def test_systems_are_those_of_the_whole_force_field_to_the_last_digit(
    name: str, path: Path
) -> None:
    """Ends of chains and, in cobrotoxin, four disulfides: all that patches make."""
    protocol = customised(PROTOCOLS["default"], force_field=name)
    topology = complete_structure(path).topology
    ours = create_system(topology, protocol, constrained=True)
    whole = plain_system(topology, protocol.force_field)
    assert ours.getNumForces() == whole.getNumForces()
    for one, other in zip(ours.getForces(), whole.getForces(), strict=True):
        one.setForceGroup(0)
        assert openmm.XmlSerializer.serialize(one) == openmm.XmlSerializer.serialize(other)


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
    energies = []
    for system in (ours, whole):
        reference = openmm.Platform.getPlatform("Reference")
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), reference)
        context.setPositions(structure.reference_nm)
        energies.append(context.getState(getEnergy=True).getPotentialEnergy()._value)
    assert np.isfinite(energies).all()
    assert energies[0] == pytest.approx(energies[1], abs=1e-6)
