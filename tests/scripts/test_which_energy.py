"""The page "Which energy?" says what its stored numbers say."""

from __future__ import annotations

import json
import math

import pytest
from scipy.stats import spearmanr

import which_energy_report as report


def test_the_page_follows_from_its_numbers() -> None:
    assert report.differences() == []
    assert report.FIGURE.is_file()


def test_its_rank_correlations_are_those_of_the_numbers() -> None:
    results = json.loads(report.RESULTS.read_text(encoding="utf-8"))
    rows = {(row.target, row.name): row for row in report.agreements(results)}
    for target, found in results.items():
        columns = [energy["energy_kj_mol"] for energy in found["energies"].values()]
        for name, column in zip(found["energies"], columns, strict=True):
            expected = [spearmanr(column, other, nan_policy="omit").statistic for other in columns]
            assert rows[target, name].ranks == pytest.approx(expected)


def test_weights_are_boltzmanns() -> None:
    weights = report.weights_of([0.0, None, 2.494 * math.log(3)], 1.0)
    assert weights == pytest.approx([0.75, 0.0, 0.25], abs=1e-4)
