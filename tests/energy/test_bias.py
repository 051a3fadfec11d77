"""The known bias of the proof's MD: as a force, as a number, as labels, and taken out again."""

from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from protenix_eba.cli.main import run
from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.energy.bias import EndBias, bias_of, replica_distances, write_bias_csv
from protenix_eba.energy.structure import complete_structure
from protenix_eba.energy.table import read_labels
from protenix_eba.eval.coordinate import blocks_of, closed_share, interval
from protenix_eba.structures.trajectories import find_targets
from simulate import embed_peptide, native_obc

PACKAGE = Path(str(files("protenix_eba")))
MD = PACKAGE / "glycine" / "md"
# Each chain of the shipped MD, and the distance of its ends that tells its two states apart.
CHAINS = {
    **{f"glycine/md/{{}}/{name}": 6.0 for name in ("gly4", "gly5")},
    **{f"tripeptides/md/{{}}/{name}": 7.0 for name in ("AAA", "FAS", "SAG", "SAL", "TAL")},
}
KT = thermal_energy_kj_mol(300.0)


@pytest.fixture(scope="module")
def peptide(tmp_path_factory):
    path = tmp_path_factory.mktemp("bias") / "grgds.pdb"
    embed_peptide("GRGDS", 3, path)
    return complete_structure(path)


def state_of(system, positions_nm):
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions_nm)
    state = context.getState(getEnergy=True, getForces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy, state.getForces(asNumpy=True)._value


def test_openmms_own_obc_force_is_that_of_the_force_field_file(peptide):
    field = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
    system = field.createSystem(peptide.topology)
    general, forces = state_of(system, peptide.reference_nm)
    native_obc(system)
    native, again = state_of(system, peptide.reference_nm)
    assert not any(isinstance(force, openmm.CustomGBForce) for force in system.getForces())
    assert native == pytest.approx(general, abs=0.01)  # the Coulomb constant's last digits
    np.testing.assert_allclose(again, forces, atol=0.1)


def test_the_force_of_the_bias_is_the_bias(peptide):
    bias = EndBias(depth_kj_mol=3 * KT)
    system = openmm.System()
    for _ in peptide.topology.atoms():
        system.addParticle(12.0)
    system.addForce(bias.force(peptide.topology))
    names = [(a.residue.index, a.name) for a in peptide.topology.atoms()]
    ends = [names.index((0, "N")), names.index((4, "C"))]
    for distance in (3.0, 7.0, 12.0):
        positions = np.zeros((len(names), 3))
        positions[ends[1], 0] = distance / 10
        energy, _ = state_of(system, positions)
        assert energy == pytest.approx(float(bias.energy_kj_mol(np.array(distance))), rel=1e-6)


def test_the_bias_is_half_as_deep_at_its_centre_and_has_two_limits():
    bias = EndBias(depth_kj_mol=6.0, centre_angstrom=7.0)
    np.testing.assert_allclose(
        bias.energy_kj_mol(np.array([7.0, -100.0, 100.0])), [-3.0, -6.0, 0.0], atol=1e-12
    )


def test_labels_of_the_shipped_md_are_minus_its_bias(tmp_path, capsys):
    (target,) = [t for t in find_targets(MD / "biased") if t.name == "gly4"]
    assert bias_of(target).depth_kj_mol == pytest.approx(3 * KT)
    write_bias_csv(tmp_path / "bias.csv", [target])
    words = ["label", "import-csv", str(tmp_path / "bias.csv"), "--bias"]
    out = tmp_path / "labels.parquet"
    assert run([*words, "--input", str(MD / "biased"), "--out", str(out)]) == 0
    labels = read_labels(out)
    distance = np.concatenate(list(replica_distances(target).values()))
    np.testing.assert_allclose(
        labels.energy_kj_mol, -bias_of(target).energy_kj_mol(distance), atol=1e-5
    )


@pytest.mark.parametrize(("chain", "within"), CHAINS.items())
def test_the_biased_md_reweighted_has_the_populations_of_the_truth(chain, within):
    """Two ways to one number: exp(V / kT) on MD under U + V, and MD under U with other seeds."""
    biased, truth = (
        next(t for t in find_targets(path.parent) if t.name == path.name)
        for path in (PACKAGE / chain.format(folder) for folder in ("biased", "unbiased"))
    )

    def reweighted(distance):
        weight = np.exp(bias_of(biased).energy_kj_mol(distance) / KT)
        return float(weight[distance < within].sum() / weight.sum())

    closed = partial(closed_share, within_angstrom=within)
    ours = interval(reweighted, blocks_of(list(replica_distances(biased).values())))
    theirs = interval(closed, blocks_of(list(replica_distances(truth).values())))
    assert ours.low < theirs.high and theirs.low < ours.high
    assert closed(np.concatenate(list(replica_distances(biased).values()))) > 2.5 * ours.value
