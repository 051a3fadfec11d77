"""Learned potentials as energies of labels: what they take, what they refuse, and that by name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from ani_model import shipped, write_model
from openmm import app
from plain_openmm import DIPEPTIDE

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import KJ_MOL_PER_HARTREE
from protenix_eba.energy import learned
from protenix_eba.energy.ani import Ani
from protenix_eba.energy.ani_weights import read_ani_weights
from protenix_eba.energy.choices import WEIGHTS
from protenix_eba.energy.functions import create_system
from protenix_eba.energy.label import label_targets
from protenix_eba.energy.learned import LearnedPotential
from protenix_eba.energy.minimise import system_in_context
from protenix_eba.energy.protocol import PROTOCOLS, EnergyProtocol, customised
from protenix_eba.energy.structure import CompleteStructure, complete_structure
from protenix_eba.energy.system import TargetEnergy
from protenix_eba.structures.frame_choice import FrameChoice

DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"


def as_it_is(name: str) -> EnergyProtocol:
    return customised(replace(PROTOCOLS["published"], minimise=False), function=name)


def dipeptide(folder: Path) -> CompleteStructure:
    (folder / "ala.pdb").write_text(DIPEPTIDE)
    return complete_structure(folder / "ala.pdb")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A torchani that brings empty folders, and a home without weights."""
    package = tmp_path / "torchani"
    for name in WEIGHTS:
        folder = package / "resources" / f"{name}_8x"
        folder.mkdir(parents=True)
        (folder / "rHCNO.params").touch()
    spec = ModuleSpec("torchani", None, is_package=True)
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(learned, "find_spec", lambda name: spec)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_label_is_the_potential_s_energy_in_kilojoules(name: str, tmp_path: Path) -> None:
    structure = dipeptide(tmp_path)
    elements = [atom.element.symbol for atom in structure.topology.atoms()]
    found = Ani(shipped(name), elements)(10 * structure.reference_nm)
    label = TargetEnergy(structure, as_it_is(name), "CPU").label(structure.reference_nm)
    assert (label.status, label.reason) == ("ok", "")
    assert label.energy_kj_mol == pytest.approx(found.hartree * KJ_MOL_PER_HARTREE, rel=1e-12)


def test_forces_are_the_slope_of_the_energy_in_openmms_units(tmp_path: Path) -> None:
    shipped("ani-1ccx")
    structure = dipeptide(tmp_path)
    system = create_system(structure.topology, as_it_is("ani-1ccx"), constrained=True)
    one = system_in_context(system, "Reference", 1e-5)
    way = np.random.default_rng(0).normal(size=structure.reference_nm.shape)
    step = 1e-5
    ends = [one.energy_kj_mol(structure.reference_nm + side * step * way) for side in (-1, 1)]
    one.energy_kj_mol(structure.reference_nm)
    slope = -(one.forces_kj_mol_nm() * way).sum()
    assert (ends[1] - ends[0]) / (2 * step) == pytest.approx(slope, rel=1e-4)


def test_a_minimisation_ends_at_rest(tmp_path: Path) -> None:
    shipped("ani-1ccx")
    structure = dipeptide(tmp_path)
    protocol = customised(PROTOCOLS["two-stage"], function="ani-1ccx")
    label = TargetEnergy(structure, protocol, "CPU").label(structure.reference_nm)
    assert label.status == "ok" and label.rms_force_kj_mol_nm < 20
    assert label.energy_kj_mol < label.initial_energy_kj_mol - 10


def test_molecules_that_it_has_not_learnt_are_rows_with_their_reason(tmp_path: Path) -> None:
    """Sulfur, and charged groups though their sum is 0; the neutral molecule beside is labelled."""
    shipped("ani-1x")
    (tmp_path / "ala.pdb").write_text(DIPEPTIDE)
    inputs = [tmp_path / "ala.pdb", *(DEMO / n / f"{n}.pdb" for n in ("grgds", "met_enkephalin"))]
    out = tmp_path / "labels.parquet"
    rows = {r["target"]: r for r in label_targets(inputs, out, as_it_is("ani-1x")).labels.rows()}
    assert rows["ala"]["status"] == "ok"
    assert rows["met_enkephalin"]["status"] == rows["grgds"]["status"] == "failed"
    assert "knows no S" in rows["met_enkephalin"]["reason"]
    charged = "N-terminus GLY 1 (+1), side chain of ARG 2 (+1), side chain of ASP 4 (-1)"
    assert charged in rows["grgds"]["reason"]
    assert "C-terminus SER 5 (-1)" in rows["grgds"]["reason"]


def test_a_geometry_that_the_networks_disagree_about_is_a_row_with_the_reason(
    tmp_path: Path,
) -> None:
    """All distances a fifth shorter; the molecule itself has an energy before and after."""
    shipped("ani-1ccx")
    structure = dipeptide(tmp_path)
    target = TargetEnergy(structure, as_it_is("ani-1ccx"), "CPU", generated=True)
    labels = [target.label(scale * structure.reference_nm) for scale in (1.0, 0.8, 1.0)]
    assert [label.status for label in labels] == ["ok", "failed", "ok"]
    assert "networks of ani-1ccx disagree by" in labels[1].reason
    assert np.isnan(labels[1].energy_kj_mol) and np.isfinite(labels[1].initial_energy_kj_mol)
    assert labels[0] == labels[2]


@pytest.mark.parametrize("choice", [{"solvent": "none"}, {"solvent": "obc2"}, {"salt_mM": 150.0}])
def test_a_solvent_that_would_have_no_part_is_refused(choice: dict, tmp_path: Path) -> None:
    shipped("ani-1x")
    protocol = customised(as_it_is("ani-1x"), **choice)
    with pytest.raises(UserError, match="in vacuum"):
        label_targets(DEMO / "grgds", tmp_path / "l.parquet", protocol)


def test_without_weights_labelling_stops_before_any_row_and_says_where_they_belong(
    nowhere: Path,
) -> None:
    out = nowhere / "l.parquet"
    with pytest.raises(UserError) as caught:
        label_targets(DEMO / "grgds", out, as_it_is("ani-1x"))
    message = str(caught.value)
    for word in (
        "torchani/resources/ani-1x_8x",
        ".local/torchani",
        'pip install "protenix-eba[ml]"',
    ):
        assert word in message
    assert not out.exists()


def test_weights_in_the_users_folder_serve_where_torchani_has_none(nowhere: Path) -> None:
    write_model(nowhere / "own")
    place = nowhere / ".local" / "torchani" / "ani-1x_8x"
    shutil.copytree(nowhere / "own", place)
    with pytest.raises(UserError, match="SHA-256"):  # found, and not those of the name
        LearnedPotential("ani-1x", WEIGHTS["ani-1x"]).check(as_it_is("ani-1x"))
    LearnedPotential("ani-1x", read_ani_weights(place).digest).check(as_it_is("force_field"))


def test_a_potential_of_ones_own_is_an_energy_function(tmp_path: Path) -> None:
    """Water, by the model written here: the same energy in kJ/mol, forces, and elements by name."""
    folder = write_model(tmp_path / "own")
    weights = read_ani_weights(folder)
    own = LearnedPotential("own", weights.digest, folder)
    topology = app.Topology()
    residue = topology.addResidue("HOH", topology.addChain())
    for name in ("O", "H1", "H2"):
        topology.addAtom(name, app.Element.getBySymbol(name[0]), residue)
    own.check(as_it_is("own"))
    one = system_in_context(own(topology, as_it_is("own"), True), "Reference", 1e-5)
    xyz = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    expected = Ani(weights, list("OHH"))(xyz)
    assert one.energy_kj_mol(xyz / 10) == pytest.approx(expected.hartree * KJ_MOL_PER_HARTREE)
    assert one.forces_kj_mol_nm() == pytest.approx(expected.forces * 10 * KJ_MOL_PER_HARTREE)
    topology.addAtom("C", app.element.carbon, residue)
    with pytest.raises(UserError, match="own knows no C"):
        own(topology, as_it_is("own"), True)


def test_the_weights_are_part_of_the_protocol_and_labels_of_others_are_refused() -> None:
    protocol = as_it_is("ani-1x")
    assert protocol.as_dict()["weights"] == WEIGHTS["ani-1x"]
    assert EnergyProtocol.from_dict(protocol.as_dict()) == protocol
    others = replace(protocol, weights="0" * 64)
    hashes = {p.hash for p in (protocol, others, as_it_is("ani-1ccx"), as_it_is("gfn2-xtb"))}
    assert len(hashes) == 4
    shipped("ani-1x")
    with pytest.raises(UserError, match="has weights 84719cd1118b08f7"):
        LearnedPotential("ani-1x", WEIGHTS["ani-1x"]).check(others)


def test_the_table_says_which_weights_it_has(tmp_path: Path) -> None:
    shipped("ani-1x")
    (tmp_path / "ala.pdb").write_text(DIPEPTIDE)
    first = FrameChoice(stride=10_000)
    out = tmp_path / "l.parquet"
    labels = label_targets(tmp_path / "ala.pdb", out, as_it_is("ani-1x"), choice=first).labels
    assert labels.provenance["protocol"]["weights"] == WEIGHTS["ani-1x"]


def test_neither_torch_nor_torchani_is_imported_by_the_energies_or_by_help() -> None:
    """torchani, which may download, not even by a label."""
    code = (
        "import sys, protenix_eba.energy.system\n"
        "assert 'torch' not in sys.modules\n"
        "from protenix_eba.energy.functions import ENERGIES\n"
        "from protenix_eba.energy.protocol import PROTOCOLS\n"
        "try: ENERGIES.get('ani-1x').check(PROTOCOLS['default'])\n"
        "except Exception as error: assert 'weights' in str(error)\n"
        "assert 'torchani' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
