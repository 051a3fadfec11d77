"""Energies of single conformations: against OpenMM, against published ones, and bad frames."""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from protenix_eba.core.errors import UserError
from protenix_eba.energy.fast import can_accelerate
from protenix_eba.energy.label import label_targets, minimised_energies
from protenix_eba.energy.protocol import PROTOCOLS, protocol_by_name
from protenix_eba.energy.structure import CompleteStructure, complete_structure
from protenix_eba.energy.system import TargetEnergy
from simulate import geometry_faults

DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"
PUBLISHED = Path(__file__).parents[1] / "data" / "atlas_2wnp_F"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "atlas_2wnp_F"
NEEDS_SHARED = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs more frames in shared/data, see docs/checks.md"
)
AS_IS = replace(PROTOCOLS["published"], minimise=False)


@pytest.fixture(scope="module")
def grgds() -> mdtraj.Trajectory:
    folder = DEMO / "grgds"
    return mdtraj.load(str(folder / "grgds_prod_R1_fit.xtc"), top=str(folder / "grgds.pdb"))


@pytest.fixture(scope="module")
def structure() -> CompleteStructure:
    return complete_structure(DEMO / "grgds" / "grgds.pdb")


@pytest.fixture(scope="module")
def energy(structure: CompleteStructure) -> TargetEnergy:
    return TargetEnergy(structure, PROTOCOLS["default"])


def test_nothing_is_added_to_a_complete_structure(structure: CompleteStructure) -> None:
    assert np.array_equal(structure.source, np.arange(structure.input_atoms))


@pytest.mark.skipif(not can_accelerate(), reason="no C compiler, or OpenMM without PythonForce")
@pytest.mark.parametrize("kappa", [0.0, 0.927])
def test_compiled_evaluation_equals_openmm(
    structure: CompleteStructure, grgds: mdtraj.Trajectory, kappa: float
) -> None:
    protocol = replace(AS_IS, kappa_per_nm=kappa)
    compiled = TargetEnergy(structure, protocol)
    assert compiled.platform == "CPU, gbn2.c"
    plain = TargetEnergy(structure, protocol, "Reference")
    for xyz in structure.fill(grgds.xyz[:3] * 10):
        difference = compiled.label(xyz).energy_kj_mol - plain.label(xyz).energy_kj_mol
        assert abs(difference) < 0.01


def test_minimisation_is_deterministic_and_goes_down(
    structure: CompleteStructure, energy: TargetEnergy, grgds: mdtraj.Trajectory
) -> None:
    xyz = structure.fill(grgds.xyz[:1] * 10)[0]
    first, second = energy.label(xyz), energy.label(xyz)
    assert first == second
    assert first.status == "ok"
    assert first.energy_kj_mol < first.initial_energy_kj_mol


def test_bad_frames_have_a_reason(
    structure: CompleteStructure, energy: TargetEnergy, grgds: mdtraj.Trajectory
) -> None:
    good = structure.fill(grgds.xyz[:1] * 10)[0]
    not_finite, torn, coincident = good.copy(), good.copy(), good.copy()
    not_finite[3] = np.nan
    last = [a.index for a in structure.topology.atoms() if a.residue.index == 4]
    torn[last] += 1.0
    hydrogens = [a.index for a in structure.topology.atoms() if a.element.symbol == "H"]
    coincident[hydrogens[0]] = coincident[hydrogens[1]]
    reasons = [energy.label(xyz).reason for xyz in (not_finite, torn, coincident)]
    assert "not finite" in reasons[0]
    assert "C-N distance" in reasons[1]
    assert "one place" in reasons[2]


def test_stripped_hydrogens_come_back_the_same_in_every_frame(
    structure: CompleteStructure, grgds: mdtraj.Trajectory, tmp_path: Path
) -> None:
    heavy = grgds.atom_slice(grgds.topology.select("element != H"))
    heavy[0].save_pdb(str(tmp_path / "heavy.pdb"))
    stripped = complete_structure(tmp_path / "heavy.pdb")
    assert stripped.topology_hash == structure.topology_hash
    frames = stripped.fill(heavy.xyz[:2] * 10)
    assert np.isfinite(frames).all()
    for first, second in stripped.topology.bonds():
        lengths = np.linalg.norm(frames[:, first.index] - frames[:, second.index], axis=1)
        assert (lengths > 0.08).all() and (lengths < 0.2).all()


def test_ensemble_without_hydrogens_has_energies(grgds: mdtraj.Trajectory) -> None:
    heavy = grgds.atom_slice(grgds.topology.select("element != H"))
    cheap = PROTOCOLS["two-stage"]
    rows = minimised_energies(heavy[0], heavy.xyz[[0, 5]] * 10, cheap)
    whole = minimised_energies(grgds[0], grgds.xyz[[0, 5]] * 10, cheap)
    for row, other in zip(rows, whole, strict=True):
        assert row.status == "ok"
        assert abs(row.energy_kj_mol - other.energy_kj_mol) < 60


def test_trace_is_refused(grgds: mdtraj.Trajectory, tmp_path: Path) -> None:
    grgds[0].atom_slice(grgds.topology.select("name CA")).save_pdb(str(tmp_path / "ca.pdb"))
    with pytest.raises(UserError, match="heavy atoms are missing"):
        complete_structure(tmp_path / "ca.pdb")


def test_unknown_protocol_lists_the_known() -> None:
    with pytest.raises(UserError, match="default, two-stage, published, paper"):
        protocol_by_name("amber")


def test_hash_ignores_the_name_only() -> None:
    assert replace(PROTOCOLS["default"], name="x").hash == PROTOCOLS["default"].hash
    assert len({protocol.hash for protocol in PROTOCOLS.values()}) == 4


def test_shipped_conformers_are_natural() -> None:
    for folder in sorted(p for p in DEMO.iterdir() if p.is_dir()):
        top = str(folder / f"{folder.name}.pdb")
        for path in folder.glob("*.xtc"):
            assert geometry_faults(mdtraj.load(str(path), top=top)) == []


def _as_pdb(cif: Path, folder: Path) -> Path:
    from openmm import app

    source = app.PDBxFile(str(cif))
    path = folder / f"{cif.stem}.pdb"
    with path.open("w") as handle:
        app.PDBFile.writeFile(source.topology, source.positions, handle)
    return path


@pytest.mark.parametrize(
    ("folder", "frame"),
    [(PUBLISHED, 0), pytest.param(SHARED, 1, marks=[NEEDS_SHARED, pytest.mark.slow])],
)
def test_published_energies(folder: Path, frame: int, tmp_path: Path) -> None:
    """The EBA authors' energies before and after minimisation, evaluated on their structures.

    Coordinates from mmCIF keep more digits than a PDB file holds, so only the topology passes
    through PDB.
    """
    from openmm import app, unit

    with (folder / "published_energies.csv").open() as handle:
        rows = {next(iter(row.values())): row for row in csv.DictReader(handle)}
    row = next(row for key, row in rows.items() if key and f"2wnp_F_{frame}" in key)
    expected = sorted(float(v) for v in row.values() if _is_energy(v))
    first = folder / f"2wnp_F_{frame}.cif"
    minimised = folder / f"2wnp_F_{frame}_minimized.cif"
    target = TargetEnergy(complete_structure(_as_pdb(first, tmp_path)), AS_IS)
    for path, energy in ((minimised, expected[0]), (first, expected[1])):
        positions = app.PDBxFile(str(path)).getPositions(asNumpy=True)
        xyz = positions.value_in_unit(unit.nanometer)[target.structure.source]
        assert abs(target.label(xyz).energy_kj_mol - energy) < 0.15


def _is_energy(text: str) -> bool:
    try:
        return float(text) < -1000
    except ValueError:
        return False


def test_foreign_trajectory_needs_no_special_case(tmp_path: Path) -> None:
    """Trp-cage from a package, written in ATLAS layout."""
    spec = importlib.util.find_spec("fastmdanalysis")
    if spec is None or spec.origin is None:
        pytest.skip("needs the Trp-cage trajectory of the package fastmdanalysis, not installed")
    data = Path(spec.origin).parent / "data"
    top = next(data.glob("*trp*cage*.pdb"))
    frames = mdtraj.load(str(next(data.glob("*trp*cage*.dcd"))), top=str(top))[[0, 2000]]
    frames = frames.atom_slice(frames.topology.select("protein"))
    folder = tmp_path / "in" / "trp_cage"
    folder.mkdir(parents=True)
    frames[0].save_pdb(str(folder / "trp_cage.pdb"))
    frames.save_xtc(str(folder / "trp_cage_prod_R1_fit.xtc"))
    cheap = replace(PROTOCOLS["default"], max_iterations=30)
    report = label_targets(tmp_path / "in", tmp_path / "labels.parquet", cheap)
    assert report.labels.status.tolist() == ["ok", "ok"], report.labels.reason
    assert (report.labels.n_residues == 20).all()
