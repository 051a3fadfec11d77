"""Energies of quantum chemistry: GFN2-xTB and GFN1-xTB in ALPB water, by the library tblite.

Extended tight binding (Bannwarth et al., JCTC 2019, 15, 1652; Grimme et al., JCTC 2017, 13, 1989)
with the solvation model ALPB (Ehlert et al., JCTC 2021, 17, 4250). Energies are total ones, of all
electrons and nuclei that the method treats; only differences within a target mean anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import ANGSTROM_PER_NM, KJ_MOL_PER_HARTREE
from protenix_eba.energy.charges import charged_groups
from protenix_eba.energy.functions import ENERGIES, python_system, refuse_solvent
from protenix_eba.energy.protocol import EnergyProtocol

__all__ = ["MAX_ATOMS"]

MAX_ATOMS: Final = 400
"""The time of an energy grows with the third power of the atoms."""

_NM_PER_BOHR: Final = 0.529177210903 / ANGSTROM_PER_NM  # CODATA 2018
# A half of tblite's share of the new charges in each iteration, and twice as many of these.
_CAUTIOUS_MIXING: Final = 0.2
_CAUTIOUS_ITERATIONS: Final = 500


@dataclass(frozen=True)
class _Xtb:
    """A method of tblite as an energy function, see `energy.functions.EnergyFunction`."""

    method: str

    def check(self, protocol: EnergyProtocol) -> None:
        """Refuse a missing package, and a solvent or salt that would have no part.

        Raises:
            UserError: So it is.
        """
        self._calculator()
        refuse_solvent(protocol, f"{self.method} has ALPB water without salt")

    def _calculator(self) -> Any:
        try:
            from tblite.interface import Calculator
        except ImportError as error:
            raise UserError(
                f'{self.method} needs tblite: pip install "protenix-eba[xtb]" ({error})',
                "install the extra, or choose another energy",
            ) from error
        return Calculator

    def __call__(
        self, topology: app.Topology, protocol: EnergyProtocol, constrained: bool, /
    ) -> openmm.System:
        """Wrap tblite's energy of a molecule; constraints have no part."""
        make = self._calculator()
        numbers = np.array([atom.element.atomic_number for atom in topology.atoms()])
        if len(numbers) > MAX_ATOMS:
            raise UserError(
                f"{self.method} of {len(numbers)} atoms: expected at most {MAX_ATOMS}, as each "
                "evaluation would take minutes",
                "use a force field for molecules of this size",
            )
        charge = sum(charge for _, charge in charged_groups(topology))

        def compute(xyz_nm: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            # A new one each time: the start of its iterations shall not depend on the last frame.
            calculator = make(self.method, numbers, xyz_nm / _NM_PER_BOHR, charge)
            calculator.set("verbosity", 0)
            calculator.add("alpb-solvation", "water")
            found = _converged(calculator)
            forces = -np.asarray(found.get("gradient")) * (KJ_MOL_PER_HARTREE / _NM_PER_BOHR)
            return float(found.get("energy")) * KJ_MOL_PER_HARTREE, forces

        return python_system(topology, compute)


def _converged(calculator: Any) -> Any:
    """Return the result of a calculation, once more with caution if its charges do not settle.

    So it is in stretched molecules, which a minimisation passes through: charges then swing between
    two states, unless little of each new one is mixed in. Where both settle, energies are the same.
    """
    try:
        return calculator.singlepoint()
    except RuntimeError:
        calculator.set("mixer-damping", _CAUTIOUS_MIXING)
        calculator.set("max-iter", _CAUTIOUS_ITERATIONS)
        return calculator.singlepoint()


ENERGIES.register("gfn2-xtb")(_Xtb("GFN2-xTB"))
ENERGIES.register("gfn1-xtb")(_Xtb("GFN1-xTB"))
