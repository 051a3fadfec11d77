"""What an energy means: force field, solvent and minimisation, under one name and one hash."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from protenix_eba.errors import UserError
from protenix_eba.files import fingerprint

__all__ = ["PROTOCOLS", "EnergyProtocol", "protocol_by_name"]

# 10 * 50.33355 * sqrt(0.150 M / 78.5 / 300 K) * 0.73, OpenMM's Amber convention for 150 mM salt.
_KAPPA_150_MM_PER_NM: Final = 0.927


@dataclass(frozen=True, kw_only=True)
class EnergyProtocol:
    """How a conformation gets its energy.

    Attributes:
        name: Preset that it came from; not part of the hash.
        force_field: OpenMM force field files.
        kappa_per_nm: Inverse Debye length of the implicit salt, 1/nm; 0 for none.
        free_stage: Minimise first without constraints, then from there with them. OpenMM's own
            constrained minimiser starts again from the beginning where its constraint springs
            prove too soft; this avoids it (3 to 5 times fewer evaluations).
        tolerance_kj_mol_nm: Root mean square force at which a minimisation ends, kJ/mol/nm.
        max_iterations: Limit of L-BFGS iterations, 0 for none.
        constraint_tolerance: Relative error allowed in X-H distances.
        minimise: False gives the energies of the conformations as they are.
    """

    name: str = "custom"
    force_field: tuple[str, ...] = ("charmm36.xml", "implicit/gbn2.xml")
    kappa_per_nm: float = 0.0
    free_stage: bool = True
    tolerance_kj_mol_nm: float = 10.0
    max_iterations: int = 0
    constraint_tolerance: float = 1e-5
    minimise: bool = True

    @property
    def hash(self) -> str:
        """16 digits that differ where energies are not comparable; the name has no part in it."""
        return fingerprint({key: v for key, v in self.as_dict().items() if key != "name"})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"force_field": list(self.force_field)}


PROTOCOLS: Final = {
    # Chosen for its cost, a third to two thirds of `published` on peptides of 5 to 10 residues.
    # Repeats from starts that differ by 1e-5 angstrom agree to 0.3-0.5 kJ/mol there, against
    # 0.2-1.2 for `published`: a reliability of 0.99 or more within a target for both.
    "default": EnergyProtocol(name="default", constraint_tolerance=1e-3),
    # The script in the EBA authors' repository: no salt, LocalEnergyMinimizer, 1 kJ/mol/angstrom.
    "published": EnergyProtocol(name="published", free_stage=False),
    # The text of the EBA paper: 150 mM salt.
    "paper": EnergyProtocol(name="paper", free_stage=False, kappa_per_nm=_KAPPA_150_MM_PER_NM),
}


def protocol_by_name(name: str, *, minimise: bool = True) -> EnergyProtocol:
    """A preset, with or without its minimisation.

    Raises:
        UserError: No preset of that name.
    """
    if name not in PROTOCOLS:
        raise UserError(
            f"no energy protocol {name!r}: known are {', '.join(PROTOCOLS)}", "choose one of them"
        )
    return replace(PROTOCOLS[name], minimise=minimise)
