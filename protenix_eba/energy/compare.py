"""Agreement of two label tables on the frames that both have."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from protenix_eba.core.errors import UserError
from protenix_eba.energy.table import EnergyLabels

__all__ = ["LabelAgreement", "compare_labels"]


class LabelAgreement(NamedTuple):
    """The agreement of two tables for one target.

    Attributes:
        target: Its name.
        n: Frames with an energy in both tables.
        rms_kj_mol: Root mean square difference.
        max_kj_mol: Largest absolute difference.
        spearman: Rank correlation; NaN for fewer than two frames.
    """

    target: str
    n: int
    rms_kj_mol: float
    max_kj_mol: float
    spearman: float


def compare_labels(first: EnergyLabels, second: EnergyLabels) -> list[LabelAgreement]:
    """Compare the finite energies of two tables, target by target.

    Raises:
        UserError: No frame in common.
    """
    energies = [
        {
            (row["target"], row["replica"], row["frame"]): row["energy_kj_mol"]
            for row in labels.rows()
            if math.isfinite(row["energy_kj_mol"])
        }
        for labels in (first, second)
    ]
    common = sorted(energies[0].keys() & energies[1].keys())
    if not common:
        raise UserError("the two label tables have no frame in common", "compare the same targets")
    results = []
    for name in sorted({key[0] for key in common}):
        keys = [key for key in common if key[0] == name]
        a, b = (np.array([table[key] for key in keys]) for table in energies)
        rank = float(spearmanr(a, b).statistic) if len(keys) > 1 else math.nan
        rms = float(np.sqrt(np.mean((a - b) ** 2)))
        results.append(LabelAgreement(name, len(keys), rms, float(np.abs(a - b).max()), rank))
    return results
