"""Energies of samples against those of MD: limits, weights, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.eval.metrics.energies import (
    TargetEnergies,
    boltzmann_weights,
    effective_sample_size,
    energies_by_target,
    energy_floor,
    energy_metrics,
)


def test_energies_equal_to_the_md_are_at_no_distance() -> None:
    energy = np.random.default_rng(0).normal(-500.0, 20.0, 300)
    found = energy_metrics(energy, energy, 10)
    assert found["energy_w1_kj_mol"] == pytest.approx(0.0, abs=1e-12)
    assert found["energy_above_md_kj_mol"] == 0.0
    shifted = energy_metrics(energy + 25.0, energy, 10)
    assert shifted["energy_w1_kj_mol"] == pytest.approx(25.0)
    assert shifted["energy_above_md_kj_mol"] == pytest.approx(25.0)


def test_samples_drawn_by_weight_are_close_to_the_weighted_md() -> None:
    random = np.random.default_rng(1)
    energy = random.normal(0.0, 10.0, 2000)
    weights = boltzmann_weights(energy, 10)
    drawn = random.choice(energy, 2000, p=weights)
    found = energy_metrics(drawn, energy, 10)
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
        energy_metrics(np.array([1.0, np.nan]), np.ones(3), 5)
    with pytest.raises(UserError, match="found 0"):
        energy_metrics(np.empty(0), np.ones(3), 5)


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
    for floor in energy_floor(md, 200, 300.0, 137):
        assert floor["energy_w1_kj_mol"] < 4.0
    assert energy_floor(TargetEnergies(5, {1: np.ones(3)}), 2, 300.0, 137) == []
