"""How many conformers carry the weight under an energy."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.units import thermal_energy_kj_mol

__all__ = ["TEMPERATURE_K", "effective_number"]

TEMPERATURE_K: Final = 300.0


def effective_number(energy_kj_mol: NDArray[np.float64], n_residues: NDArray[np.int64]) -> float:
    """Return exp(entropy) of softmax(-E / (kT sqrt(N))), EBA's weights (Eq. 8); NaN without N."""
    if not len(energy_kj_mol) or n_residues[0] < 1:
        return math.nan
    reduced = energy_kj_mol / (thermal_energy_kj_mol(TEMPERATURE_K) * math.sqrt(n_residues[0]))
    weights = np.exp(reduced.min() - reduced)
    weights /= weights.sum()
    present = weights[weights > 0]
    return float(np.exp(-(present * np.log(present)).sum()))
