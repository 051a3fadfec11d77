"""Trajectories that others published, where the packages that carry them are installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from protenix_eba.host.features import protein_features
from protenix_eba.importing.one_target import import_target
from protenix_eba.importing.sources import source_of_files
from protenix_eba.structures.frame_choice import FrameChoice
from protenix_eba.structures.sequences import protein_of_target
from protenix_eba.structures.trajectories import find_targets, read_frames
from protenix_eba.training.data.conformers import match_atoms


def data_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    folder = Path(spec.origin).parent / "data"
    if not folder.is_dir():
        pytest.skip(f"{package} has no data here")
    return folder


@pytest.mark.parametrize(
    ("package", "topology", "trajectory", "n_residues", "stride"),
    [
        ("MDAnalysisTests", "adk.psf", "adk_dims.dcd", 214, 20),  # CHARMM
        ("MDAnalysisTests", "cobrotoxin.pdb", "cobrotoxin.trr", 62, 1),  # GROMACS, in water
        ("fastmdanalysis", "trp_cage.pdb", "trp_cage.dcd", 20, 1000),
    ],
)
def test_published_trajectories_have_all_atoms_that_protenix_wants(
    tmp_path, package, topology, trajectory, n_residues, stride
):
    data = data_of(package)
    source = source_of_files(data / topology, [data / trajectory], "p")
    row = import_target(source, tmp_path, FrameChoice(stride))
    assert row.status == "ok"
    assert ("promises 500 frames, 98 are there" in row.reason) == (topology == "adk.psf")
    (target,) = find_targets(tmp_path)
    protein = protein_features(protein_of_target(target))
    assert protein.protein.n_residues == n_residues
    columns = match_atoms(target, protein)
    assert (columns >= 0).all()
    frames = read_frames(target, 1)
    whole = mdtraj.load(str(data / trajectory), top=str(data / topology))[::stride][: len(frames)]
    atoms = whole.topology.select("protein")
    original, found = whole.xyz[:, atoms] * 10, frames
    for first, second in zip(original, found, strict=True):
        # Rounded to 0.01 angstrom, and moved as a whole where the box had cut it.
        pairs = np.random.default_rng(0).integers(0, 200, (300, 2))
        distances = [np.linalg.norm(np.diff(x[pairs], axis=1), axis=-1) for x in (first, second)]
        near = distances[0] < 20
        np.testing.assert_allclose(distances[0][near], distances[1][near], atol=0.03)


def test_imported_frames_are_labelled(tmp_path):
    """Kinase and miniprotein get an energy without special cases (as they stand: seconds)."""
    from protenix_eba.energy.label import label_targets
    from protenix_eba.energy.protocol import protocol_by_name

    data = data_of("fastmdanalysis")
    source = source_of_files(data / "trp_cage.pdb", [data / "trp_cage.dcd"], "trp_cage")
    import_target(source, tmp_path / "md", FrameChoice(2000))
    report = label_targets(
        tmp_path / "md", tmp_path / "l.parquet", protocol_by_name("default", minimise=False)
    )
    assert report.labels.status.tolist() == ["ok"] * 2
    assert not report.problems


def test_a_published_trajectory_with_a_d_aspartate_is_refused(tmp_path):
    """Residue 33 of this adenylate kinase is D in all frames, which no bond length shows."""
    data = data_of("MDAnalysisTests")
    source = source_of_files(data / "adk_oplsaa.gro", [data / "adk_oplsaa.xtc"], "adk")
    row = import_target(source, tmp_path, FrameChoice())
    assert row.status == "failed"
    assert "ASP 33" in row.reason
