"""Energies that do not belong to their target's distribution."""

from __future__ import annotations

import numpy as np

from protenix_eba.energy.table import FINISHED, EnergyLabels, labels_from_rows

__all__ = ["flag_outliers"]

# Robust standard deviations from a target's median energy beyond which a row is an outlier.
_OUTLIER_DEVIATIONS = 10.0
_MIN_FRAMES = 20


def flag_outliers(labels: EnergyLabels) -> EnergyLabels:
    """Mark ok rows more than 10 robust standard deviations from their target's median."""
    rows = labels.rows()
    for name in labels.targets:
        mine = [row for row in rows if row["target"] == name and row["status"] in FINISHED]
        energies = np.array([row["energy_kj_mol"] for row in mine])
        if len(energies) < _MIN_FRAMES:
            continue
        centre = np.median(energies)
        spread = 1.4826 * np.median(np.abs(energies - centre))
        for row, distance in zip(mine, np.abs(energies - centre), strict=True):
            if row["status"] == "ok" and distance > _OUTLIER_DEVIATIONS * spread:
                row["status"] = "outlier"
                row["reason"] = f"{distance:.0f} kJ/mol from the target's median"
    return labels_from_rows(rows, labels.provenance)
