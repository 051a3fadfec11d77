"""Energies of samples against those of MD: limits, weights, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.eval.definitions import compute_metrics
from protenix_eba.eval.metrics.energies import (
    ENERGIES,
    EnergyComparison,
    TargetEnergies,
    boltzmann_weights,
    effective_sample_size,
    energies_by_target,
)

Floats = NDArray[np.float64]


def values(samples: Floats, md: Floats) -> dict[str, float]:
    """The metrics of a protein of 10 residues."""
    return compute_metrics(ENERGIES, EnergyComparison(TargetEnergies(10, {1: md}), samples))[0]


def test_energies_equal_to_the_md_are_at_no_distance() -> None:
    energy = np.random.default_rng(0).normal(-500.0, 20.0, 300)
    found = values(energy, energy)
    assert found["energy_w1_kj_mol"] == pytest.approx(0.0, abs=1e-12)
    assert found["energy_above_md_kj_mol"] == 0.0
    shifted = values(energy + 25.0, energy)
    assert shifted["energy_w1_kj_mol"] == pytest.approx(25.0)
    assert shifted["energy_above_md_kj_mol"] == pytest.approx(25.0)


def test_samples_drawn_by_weight_are_close_to_the_weighted_md() -> None:
    random = np.random.default_rng(1)
    energy = random.normal(0.0, 10.0, 2000)
    weights = boltzmann_weights(energy, 10)
    drawn = random.choice(energy, 2000, p=weights)
    found = values(drawn, energy)
    assert found["energy_w1_boltzmann_kj_mol"] < 1.5
    assert found["energy_w1_kj_mol"] > 5.0


def test_weights_are_boltzmann_factors_softened_by_the_size() -> None:
    gap = thermal_energy_kj_mol(300.0) * 4.0
    weights = boltzmann_weights(np.array([-1e5, -1e5 + gap]), 16, 300.0)
    assert weights[0] / weights[1] == pytest.approx(np.e)
    assert weights.sum() == pytest.approx(1.0)


def test_effective_sample_size_limits() -> None:
    assert effective_sample_size(np.full(7, 1 / 7)) == pytest.approx(7.0)
    assert effective_sample_size(np.array([1.0, 0.0, 0.0])) == 1.0


def test_energies_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match=r"samples: .* 1 not finite"):
        values(np.array([1.0, np.nan]), np.ones(3))
    with pytest.raises(UserError, match="found 0"):
        values(np.empty(0), np.ones(3))


def test_energy_table_is_grouped_without_failed_rows() -> None:
    grouped = energies_by_target(
        ["a", "a", "b", "a"],
        np.array([1, 2, 1, 1]),
        np.array([1.0, 2.0, 3.0, np.nan]),
        np.array([5, 5, 9, 5]),
    )
    assert grouped["a"].replicas[1].tolist() == [1.0]
    assert grouped["a"].all.tolist() == [1.0, 2.0]
    assert grouped["b"].n_residues == 9


def test_energy_floor_of_equal_replicas_is_small() -> None:
    random = np.random.default_rng(0)
    md = TargetEnergies(5, {k: random.normal(0.0, 10.0, 500) for k in (1, 2, 3)})
    _, floor = compute_metrics(ENERGIES, EnergyComparison(md, np.zeros(200), seed=137))
    assert len(floor) == 3
    assert all(row["energy_w1_kj_mol"] < 4.0 for row in floor)
    alone = EnergyComparison(TargetEnergies(5, {1: np.ones(3)}), np.ones(2))
    assert compute_metrics(ENERGIES, alone)[1] == []
