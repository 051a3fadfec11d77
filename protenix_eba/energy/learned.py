"""Learned potentials: ANI-1x and ANI-1ccx, with the weights that the package torchani brought.

ANI-1x (Smith et al., J. Chem. Phys. 2018, 148, 241733) learnt energies of density functional theory
(wB97X/6-31G*), ANI-1ccx (Smith et al., Nat. Commun. 2019, 10, 2903) started from it and learnt
coupled cluster ones, CCSD(T)*/CBS; both of molecules of H, C, N and O without charge, in vacuum.
An atom sees others up to 5.2 angstrom. Energies are total ones; only differences within a target
mean anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import ANGSTROM_PER_NM, KJ_MOL_PER_HARTREE, KJ_PER_KCAL
from protenix_eba.energy.ani import Ani
from protenix_eba.energy.ani_weights import AniWeights, read_ani_weights
from protenix_eba.energy.charges import charged_groups
from protenix_eba.energy.choices import WEIGHTS
from protenix_eba.energy.functions import ENERGIES, python_system, refuse_solvent
from protenix_eba.energy.protocol import EnergyProtocol

__all__ = ["LearnedPotential"]

# Standard deviation of the networks over the root of the number of atoms, kJ/mol. Frames of neutral
# peptides and their minima have 0.6 to 2.6, with all distances a tenth shorter 4.5 to 8.6, with a
# fifth shorter or longer 15 to 140. (The authors train on what has more than 0.96.)
_MAX_SPREAD_KJ_MOL: Final = KJ_PER_KCAL
# Where torchani itself looked for files that it had not brought.
_USERS_FOLDER: Final = "~/.local/torchani"
_SHOWN_GROUPS: Final = 4


@dataclass(frozen=True)
class LearnedPotential:
    """An ANI potential as an energy function, see `energy.functions.EnergyFunction`.

    Attributes:
        name: What it is called.
        digest: SHA-256 of its weights, as `read_ani_weights` gives it: others are refused, since
            the name stands for the numbers.
        folder: Its weights as NeuroChem writes them; None where torchani has them.
    """

    name: str
    digest: str
    folder: Path | None = None

    def check(self, protocol: EnergyProtocol) -> None:
        """Refuse weights that are missing or others, and a solvent that would have no part.

        Raises:
            UserError: So it is.
        """
        self.weights()
        if protocol.weights not in ("", self.digest):
            raise UserError(
                f"{self.name} has weights {self.digest[:16]}, the protocol of the labels "
                f"{protocol.weights[:16]}",
                "label all frames with the same version of this package",
            )
        refuse_solvent(protocol, f"{self.name} is a potential in vacuum")

    def __call__(
        self, topology: app.Topology, protocol: EnergyProtocol, constrained: bool, /
    ) -> openmm.System:
        """Wrap the potential of a molecule; constraints have no part."""
        self.check(protocol)
        potential = self._potential(topology)

        def compute(xyz_nm: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            found = potential(xyz_nm * ANGSTROM_PER_NM)
            forces = found.forces * (KJ_MOL_PER_HARTREE * ANGSTROM_PER_NM)
            return found.hartree * KJ_MOL_PER_HARTREE, forces

        return python_system(topology, compute)

    def doubt(self, topology: app.Topology) -> Callable[[NDArray[np.floating]], str]:
        """Return what tells where the networks disagree, as they do about what they never saw."""
        potential = self._potential(topology)
        limit = _MAX_SPREAD_KJ_MOL * math.sqrt(topology.getNumAtoms())

        def reason(xyz_nm: NDArray[np.floating]) -> str:
            spread = potential(xyz_nm * ANGSTROM_PER_NM).spread_hartree * KJ_MOL_PER_HARTREE
            if not spread > limit:
                return ""
            return (
                f"the networks of {self.name} disagree by {spread:.0f} kJ/mol (limit {limit:.0f}): "
                "it has not learnt such a geometry"
            )

        return reason

    def _potential(self, topology: app.Topology) -> Ani:
        weights = self.weights()
        elements = [atom.element.symbol for atom in topology.atoms()]
        self._refuse_strangers(topology, set(elements) - set(weights.self_energies_hartree))
        return Ani(weights, elements)

    def _refuse_strangers(self, topology: app.Topology, unknown: set[str]) -> None:
        hint = "use a force field or quantum chemistry for this molecule"
        if unknown:
            raise UserError(f"{self.name} knows no {', '.join(sorted(unknown))}", hint)
        if charged := charged_groups(topology):
            named = [f"{group} ({charge:+d})" for group, charge in charged]
            more = len(named) - _SHOWN_GROUPS
            raise UserError(
                f"{self.name} has learnt molecules without charged groups, and this one has "
                + ", ".join(named[:_SHOWN_GROUPS])
                + (f" and {more} more" if more > 0 else ""),
                hint,
            )

    def weights(self) -> AniWeights:
        """Return its weights.

        Raises:
            UserError: They are missing, or others.
        """
        weights = _read(self.folder or _brought_by_torchani(self.name))
        if weights.digest != self.digest:
            raise UserError(
                f"the weights of {self.name} have the SHA-256 {weights.digest[:16]}..., expected "
                f"{self.digest[:16]}...",
                "copy the folder again; other weights are another energy function, with a name of "
                "its own",
            )
        return weights


_read = lru_cache(maxsize=2)(read_ani_weights)


def _brought_by_torchani(name: str) -> Path:
    """Return the folder of the weights, without an import of torchani, which may download."""
    spec = find_spec("torchani")
    package = (
        [Path(path) / "resources" for path in spec.submodule_search_locations or ()] if spec else []
    )
    folders = [folder / f"{name}_8x" for folder in (*package, Path(_USERS_FOLDER).expanduser())]
    for folder in folders:
        # later versions of torchani have empty files in the place of what they download
        if any(file.stat().st_size for file in folder.glob("*.params")):
            return folder
    raise UserError(
        f"{name} needs its weights, found neither in {' nor in '.join(map(str, folders))}",
        'pip install "protenix-eba[ml]" brings torchani 2.0, which has them; beside another '
        f"torchani, unpack its wheel and copy torchani/resources/{name}_8x to {_USERS_FOLDER}",
    )


for _name, _digest in WEIGHTS.items():
    ENERGIES.register(_name)(LearnedPotential(_name, _digest))
