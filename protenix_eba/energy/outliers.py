"""Detection of energies that do not belong to their target's distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protenix_eba.energy.table import FINISHED, EnergyLabels, labels_from_rows

__all__ = ["SMALLEST_SAMPLE", "flag_outliers", "robust_distances"]

# Robust standard deviations from a target's median energy beyond which a row is an outlier.
_OUTLIER_DEVIATIONS = 10.0
# Fewer energies do not tell their distribution.
SMALLEST_SAMPLE = 20


def robust_distances(energies: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return energies' distances `[F]` from their median, and the robust standard deviation.

    1.4826 MAD, MAD being the median of the distances (Iglewicz and Hoaglin, How to Detect and
    Handle Outliers, 1993).
    """
    distance = np.abs(energies - np.median(energies))
    return distance, float(1.4826 * np.median(distance))


def flag_outliers(labels: EnergyLabels) -> EnergyLabels:
    """Mark ok rows more than 10 robust standard deviations from their target's median."""
    rows = labels.rows()
    for name in labels.targets:
        mine = [row for row in rows if row["target"] == name and row["status"] in FINISHED]
        energies = np.array([row["energy_kj_mol"] for row in mine])
        if len(energies) < SMALLEST_SAMPLE:
            continue
        distances, spread = robust_distances(energies)
        for row, distance in zip(mine, distances, strict=True):
            if row["status"] == "ok" and distance > _OUTLIER_DEVIATIONS * spread:
                row["status"] = "outlier"
                found = f"{distance:.0f} kJ/mol from the target's median"
                row["reason"] = "; ".join(filter(None, (row.get("reason"), found)))
    return labels_from_rows(rows, labels.provenance)
