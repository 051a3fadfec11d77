"""Physical constants and the only conversions between the units of our libraries.

Inside the package lengths are in angstrom and energies in kJ/mol; mdtraj and OpenMM speak nm.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ANGSTROM_PER_NM",
    "GAS_CONSTANT_KJ_MOL_K",
    "KJ_MOL_PER_HARTREE",
    "KJ_PER_KCAL",
    "thermal_energy_kj_mol",
]

ANGSTROM_PER_NM: Final = 10.0
KJ_PER_KCAL: Final = 4.184  # the thermochemical calorie, exact
KJ_MOL_PER_HARTREE: Final = 2625.4996394799  # CODATA 2018
# CODATA 2018: N_A * k_B, exact since the SI of 2019.
GAS_CONSTANT_KJ_MOL_K: Final = 8.31446261815324e-3


def thermal_energy_kj_mol(temperature_K: float) -> float:
    """Return the thermal energy kT in kJ/mol: 2.494 at 300 K."""
    return GAS_CONSTANT_KJ_MOL_K * temperature_K
