"""Energy protocols: force field, solvent and minimisation, under one name and one hash."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import fingerprint
from protenix_eba.energy.choices import WEIGHTS
from protenix_eba.energy.protonation_choice import FROM_FRAMES, Protonation

__all__ = [
    "FORCE_FIELDS",
    "PROTOCOLS",
    "SOLVENTS",
    "EnergyProtocol",
    "customised",
    "kappa_per_nm",
    "protocol_by_name",
]

# CHARMM36 is the conversion of 2018 (toppar_c36_aug15), as in the EBA authors' script; CHARMM36m
# is in the one of 2024, which comes with OpenMM 8.3 and later.
FORCE_FIELDS: Final = {
    "charmm36": "charmm36.xml",
    "charmm36m": "charmm36_2024.xml",
    "amber14": "amber14/protein.ff14SB.xml",
}
SOLVENTS: Final = {"gbn2": "implicit/gbn2.xml", "obc2": "implicit/obc2.xml", "none": ""}
# Known by name in order to say why there is none.
_EXPLICIT_SOLVENTS: Final = ("tip3p",)

# 10 * 50.33355 * sqrt(0.150 M / 78.5 / 300 K) * 0.73, OpenMM's Amber convention for 150 mM salt.
_KAPPA_150_MM_PER_NM: Final = 0.927
# Fields that joined after labels had been published, and the values that those labels had: they
# take part in the hash only where they differ, so that old labels keep theirs.
_JOINED_LATER: Final = {
    "function": "force_field",
    "quench_ps": 0.0,
    "repeats": 1,
    "protonation": FROM_FRAMES,
    "weights": "",
}


@dataclass(frozen=True, kw_only=True)
class EnergyProtocol:
    """A way to compute the energy of a conformation.

    Attributes:
        name: Preset that it came from; not part of the hash.
        function: "force_field", or the name under which an energy function is registered, see
            `energy.functions`; the force field and the salt then have no part.
        force_field: OpenMM force field files; of "md" the implicit solvent alone, as the MD's own
            files are part of each target's topology hash.
        kappa_per_nm: Inverse Debye length of the implicit salt, 1/nm; 0 for none.
        free_stage: Minimise first without constraints, then from there with them. OpenMM's own
            constrained minimiser starts again from the beginning where its constraint springs
            prove too soft; this avoids it (3 to 5 times fewer evaluations).
        quench_ps: Before the minimisation, follow the forces for so long: dynamics at 0 K, with
            friction. L-BFGS jumps, so that a rounding error at its start decides which of many
            minima it finds; the path of a quench does not, and leaves it near one.
        tolerance_kj_mol_nm: Root mean square force at which a minimisation ends, kJ/mol/nm.
        max_iterations: Limit of L-BFGS iterations, 0 for none.
        constraint_tolerance: Relative error allowed in X-H distances.
        minimise: False gives the energies of the conformations as they are.
        repeats: Minimisations of each frame, from starts that differ by rounding; the label is
            their mean, and their standard deviation its noise.
        protonation: Protonation of residues whose hydrogens the topology does not show, as
            `protonation_choice.Protonation` writes it; "frames" is pH 7.
        weights: SHA-256 of the weights of a learned potential that comes with the package; empty
            for all else.
    """

    name: str = "custom"
    function: str = "force_field"
    force_field: tuple[str, ...] = ("charmm36.xml", "implicit/gbn2.xml")
    kappa_per_nm: float = 0.0
    free_stage: bool = True
    quench_ps: float = 0.0
    tolerance_kj_mol_nm: float = 10.0
    max_iterations: int = 0
    constraint_tolerance: float = 1e-5
    minimise: bool = True
    repeats: int = 1
    protonation: str = FROM_FRAMES
    weights: str = ""

    @property
    def hash(self) -> str:
        """Return 16 digits that differ where energies are not comparable, whatever the name."""
        unchanged = {key for key, value in _JOINED_LATER.items() if getattr(self, key) == value}
        return fingerprint(
            {key: v for key, v in self.as_dict().items() if key not in unchanged | {"name"}}
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"force_field": list(self.force_field)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EnergyProtocol:
        """Return the protocol that `as_dict` wrote, also one of an earlier version."""
        return cls(**{**values, "force_field": tuple(values["force_field"])})


PROTOCOLS: Final = {
    # Chosen for its noise: repeats from starts that differ by 1e-5 angstrom agree to 0.3 kJ/mol on
    # MD frames of cobrotoxin (62 residues), which differ by 12. Half the path is too short.
    "default": EnergyProtocol(name="default", quench_ps=1.0, constraint_tolerance=1e-3),
    # L-BFGS alone, for its cost: a third to two thirds of `published`. Repeats agree to 0.3-0.5
    # kJ/mol on peptides of 5 to 10 residues, but only to 10 on cobrotoxin (62).
    "two-stage": EnergyProtocol(name="two-stage", constraint_tolerance=1e-3),
    # The script in the EBA authors' repository: no salt, LocalEnergyMinimizer, 1 kJ/mol/angstrom.
    "published": EnergyProtocol(name="published", free_stage=False),
    # The text of the EBA paper: 150 mM salt.
    "paper": EnergyProtocol(name="paper", free_stage=False, kappa_per_nm=_KAPPA_150_MM_PER_NM),
}


def protocol_by_name(name: str, *, minimise: bool = True) -> EnergyProtocol:
    """Return a preset, with or without its minimisation.

    Raises:
        UserError: No preset of that name.
    """
    if name not in PROTOCOLS:
        raise UserError(
            f"no energy protocol {name!r}: known are {', '.join(PROTOCOLS)}", "choose one of them"
        )
    return replace(PROTOCOLS[name], minimise=minimise)


def customised(
    protocol: EnergyProtocol,
    *,
    function: str | None = None,
    system: bool = False,
    force_field: str | None = None,
    solvent: str | None = None,
    salt_mM: float | None = None,
    temperature_K: float = 300.0,
    tolerance_kj_mol_nm: float | None = None,
    repeats: int = 1,
    protonation: Sequence[str] = (),
) -> EnergyProtocol:
    """Change a preset's choices; None keeps one. Any change gives another hash.

    Args:
        protocol: The preset.
        function: Name of a registered energy function, instead of a force field.
        system: Whether the MD's own files take the place of a force field.
        force_field: Key of `FORCE_FIELDS`.
        solvent: Key of `SOLVENTS`; "none" adds none.
        salt_mM: Of monovalent salt in the implicit solvent, mmol/l.
        temperature_K: At which the salt screens; energies have no other temperature.
        tolerance_kj_mol_nm: Root mean square force at which a minimisation ends.
        repeats: Minimisations of each frame.
        protonation: Choices for residues without hydrogens, see `Protonation.parse`.

    Raises:
        UserError: A name that is not known, explicit water, a value out of range, or two of
            function, system and force field.
    """
    if sum(map(bool, (function, system, force_field))) > 1:
        raise UserError(
            "--energy, --system and --force-field each choose the energy", "give one of them"
        )
    files = list(protocol.force_field)
    if force_field is not None:
        files[0] = _known("force field", force_field, FORCE_FIELDS)
    if solvent is not None:
        _refuse_explicit(solvent)
        files[1] = _known("solvent", solvent, SOLVENTS)
    if tolerance_kj_mol_nm is not None and not tolerance_kj_mol_nm > 0:
        raise UserError(f"a tolerance of {tolerance_kj_mol_nm} kJ/mol/nm", "give one above 0")
    files = files[1:] if system else files
    changes: dict[str, Any] = {"force_field": tuple(filter(None, files)), "repeats": repeats}
    if protonation:
        changes["protonation"] = str(Protonation.parse(",".join(protonation)))
    if function is not None or system:
        changes["function"] = "md" if system else function
        changes["weights"] = WEIGHTS.get(changes["function"], "")
    if salt_mM is not None:
        changes["kappa_per_nm"] = kappa_per_nm(salt_mM, temperature_K)
    if tolerance_kj_mol_nm is not None:
        changes["tolerance_kj_mol_nm"] = float(tolerance_kj_mol_nm)
    changed = replace(protocol, **changes)
    if changed.kappa_per_nm and solvent == "none":
        raise UserError("salt without a solvent", "leave it out, or choose a solvent")
    same = changed.hash == protocol.hash
    return changed if same else replace(changed, name=f"custom ({protocol.name})")


def kappa_per_nm(salt_mM: float, temperature_K: float = 300.0) -> float:
    """Return the inverse Debye length of monovalent salt, 1/nm, as OpenMM's Amber files do.

    kappa = 10 * 50.33355 * 0.73 * sqrt(c / (78.5 T)), c in mol/l: 0.927 for 150 mM at 300 K. The
    factor 0.73 stands for ion exclusion (Srinivasan et al., Theor. Chem. Acc. 1999). Rounded to
    0.001, so that the same salt always has the same hash.

    Raises:
        UserError: A concentration below 0, or a temperature not above 0.
    """
    if not (0 <= salt_mM < math.inf and 0 < temperature_K < math.inf):
        raise UserError(
            f"{salt_mM} mM salt at {temperature_K} K",
            "give a concentration of 0 or more and a temperature above 0",
        )
    return round(10 * 50.33355 * 0.73 * math.sqrt(salt_mM / 1000 / 78.5 / temperature_K), 3)


def _known(kind: str, name: str, table: Mapping[str, str]) -> str:
    if name not in table:
        raise UserError(f"no {kind} {name!r}: known are {', '.join(table)}", "choose one of them")
    return table[name]


def _refuse_explicit(solvent: str) -> None:
    if solvent in _EXPLICIT_SOLVENTS:
        raise UserError(
            f"no energy label in explicit water ({solvent}): the energy of one configuration of "
            "the water differs from another's by far more than two conformers differ",
            f"use an implicit solvent, which averages over the water: {', '.join(SOLVENTS)}",
        )
