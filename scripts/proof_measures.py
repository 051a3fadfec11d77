"""What is measured of stored ensembles: distances, torsions, shares under weights.

A part of proof_report.py and seeds_report.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from make_peptide_md import SETS
from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.eval.coordinate import CLOSED_ANGSTROM
from protenix_eba.eval.metrics.distributions import jsd_bits

Rows = Sequence[dict[str, Any]]


def distances(rows: Rows) -> list[np.ndarray]:
    """Return the distances of each row's samples, in angstrom."""
    return [np.concatenate([np.array(part) for part in row["distance_pm"]]) / 100 for row in rows]


def torsion_jsd(rows: Rows, truth: dict[str, Any]) -> float:
    """Return the divergence (JSD) of phi and psi from the truth's, bits; NaN of broken chains."""
    counts = np.sum([np.sum(row["torsions"], axis=0) for row in rows], axis=0)
    if not counts.any():
        return math.nan
    other = np.sum(truth["torsions"], axis=0)
    return float(jsd_bits((counts / counts.sum())[None], (other / other.sum())[None])[0])


def reweighted_share(
    system: str, distance: np.ndarray, within_angstrom: float = CLOSED_ANGSTROM
) -> float:
    """Return the share of closed chains in samples, weighted to be without the bias."""
    bias = SETS[system].bias
    assert bias is not None
    weight = np.exp(bias.energy_kj_mol(distance) / thermal_energy_kj_mol(300.0))
    return float(weight[distance < within_angstrom].sum() / weight.sum())
