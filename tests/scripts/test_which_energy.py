"""The page "Which energy?" says what its stored numbers say."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from scipy.stats import spearmanr

import which_energy as script
import which_energy_report as report
from protenix_eba.energy.charges import charged_groups
from protenix_eba.structures.trajectories import find_targets


def test_the_page_follows_from_its_numbers() -> None:
    assert report.differences() == []
    assert report.FIGURE.is_file()


def test_its_rank_correlations_are_those_of_the_numbers() -> None:
    results = json.loads(report.RESULTS.read_text(encoding="utf-8"))
    rows = {(row.target, row.name): row for row in report.agreements(results)}
    for target, found in results.items():
        columns = {name: found["energies"][name]["energy_kj_mol"] for name in found["energies"]}
        present = {name: column for name, column in columns.items() if column}
        assert set(present) >= {"charmm36-gbn2", "ff14sb-obc2", "gfn2-xtb"}
        assert ("ani-1ccx" in present) == (found["charged_groups"] == 0)
        for name, column in present.items():
            expected = [
                spearmanr(column, columns[other]).statistic if other in present else math.nan
                for other in columns
            ]
            assert rows[target, name].ranks == pytest.approx(expected, nan_ok=True)


def test_a_refused_molecule_is_a_row_of_the_page_with_its_reason() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert "| met_enkephalin | ani-1ccx | ani-1ccx knows no S |" in page
    assert "and this one has N-terminus ALA 1 (+1), C-terminus ALA 5 (-1)" in page


def test_a_cut_peptide_has_caps_no_charge_and_the_heavy_atoms_of_the_whole_one(
    tmp_path: Path,
) -> None:
    (target,) = find_targets(Path(str(files("protenix_eba") / "demo_data" / "penta_alanine")))
    whole = mdtraj.load(str(target.topology_path))
    frames = np.stack([10 * whole.xyz[0], 10 * whole.xyz[0] + 1])
    cut = script.capped_middle(target, frames, tmp_path / "cut.pdb")
    topology = mdtraj.load(str(tmp_path / "cut.pdb")).topology
    assert [residue.name for residue in topology.residues] == ["ACE", *3 * ["ALA"], "NME"]
    assert cut.shape == (2, 42, 3)
    assert charged_groups(topology.to_openmm()) == []
    middle = whole.topology.select("resid 1 to 3 and name CA")
    assert cut[:, topology.select("name CA")] == pytest.approx(frames[:, middle], abs=1e-3)
    assert np.isfinite(cut).all()


def test_weights_are_boltzmanns() -> None:
    weights = report.weights_of([0.0, None, 2.494 * math.log(3)], 1.0)
    assert weights == pytest.approx([0.75, 0.0, 0.25], abs=1e-4)
