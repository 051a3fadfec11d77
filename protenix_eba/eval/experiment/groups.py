"""Groups of atoms as X-rays see them in water: each heavy atom with its hydrogens.

Models write no hydrogens, so each heavy atom stands for the group that it makes with them: CH2, NH.
Its scattering is that of its electrons less that of the water whose place it takes.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError

__all__ = ["WATER", "Group", "displaced", "expansion", "groups_of", "in_vacuum"]

Float64s = NDArray[np.float64]
# Element and number of hydrogens.
Group = tuple[str, int]
WATER: Final[Group] = ("O", 2)

# Electrons of water in a cubic angstrom, 25 degrees Celsius.
_WATER_DENSITY: Final = 0.334
# Displaced volumes in cubic angstrom, Svergun, Barberato and Koch, J. Appl. Cryst. 28, 768 (1995),
# Table 1; that of a hydrogen adds to its heavy atom's, as CH 21.59 = 16.44 + 5.15.
_VOLUME: Final = {"H": 5.15, "C": 16.44, "N": 2.49, "O": 9.13, "S": 19.86}
_MEAN_RADIUS_ANGSTROM: Final = 1.62


def in_vacuum(group: Group, q: Float64s) -> Float64s:
    """Return the scattering factor of a group's electrons, all at the heavy atom, `[Q]`.

    Args:
        group: Element and hydrogens.
        q: `[Q]` 4 pi sin(theta) / lambda, 1 / angstrom.

    Source: International Tables for Crystallography C, 1992, Table 6.1.1.4, as gemmi has it.
    """
    import gemmi

    squares = (q / (4.0 * np.pi)) ** 2

    def of(symbol: str) -> Float64s:
        return np.asarray(gemmi.Element(symbol).it92.calculate_sf(squares), dtype=np.float64)

    element, hydrogens = group
    return of(element) + hydrogens * of("H")


def displaced(group: Group, q: Float64s) -> Float64s:
    """Return the scattering factor of the water that a group displaces, a Gaussian, `[Q]`.

    Source: Fraser, MacRae and Suzuki, J. Appl. Cryst. 11, 693 (1978).
    """
    element, hydrogens = group
    volume = _VOLUME[element] + hydrogens * _VOLUME["H"]
    result: Float64s = (
        _WATER_DENSITY * volume * np.exp(-(q**2) * volume ** (2.0 / 3.0) / (4.0 * np.pi))
    )
    return result


def expansion(q: Float64s, scale: float) -> Float64s:
    """Return the factor on all displaced volumes if radii are `scale` times as large, `[Q]`.

    Source: Schneidman-Duhovny, Hammel, Tainer and Sali, Biophys. J. 105, 962 (2013), Eq. 3.
    """
    width = (4.0 * np.pi / 3.0) ** 1.5 * _MEAN_RADIUS_ANGSTROM**2 * (scale**2 - 1.0)
    result: Float64s = scale**3 * np.exp(-width * q**2 / (4.0 * np.pi))
    return result


def groups_of(topology: mdtraj.Topology) -> tuple[NDArray[np.int64], list[Group]]:
    """Return the heavy atoms of the amino acids, `[N]`, and the group of each.

    Hydrogens are those of the residue within a chain, by the CCD; ends of chains count as such.

    Raises:
        UserError: An element without a displaced volume.
    """
    atoms, groups = [], []
    for atom in topology.atoms:
        if not atom.residue.is_protein or atom.element.symbol == "H":
            continue
        if atom.element.symbol not in _VOLUME:
            raise UserError(
                f"atom {atom}: SAXS knows no displaced volume of {atom.element.symbol}",
                f"leave it out; known are {', '.join(_VOLUME)}",
            )
        atoms.append(atom.index)
        groups.append((atom.element.symbol, _hydrogens(atom.residue.name).get(atom.name, 0)))
    return np.array(atoms, dtype=np.int64), groups


@cache
def _hydrogens(residue: str) -> dict[str, int]:
    """Return for each heavy atom its number of hydrogens within a chain."""
    from biotite.structure.info import residue as template

    try:
        known = template(residue)
    except KeyError:
        return {}
    found: dict[str, int] = {}
    for one, other, _ in known.bonds.as_array():
        elements = known.element[one], known.element[other]
        if "H" in elements:
            heavy = one if elements[1] == "H" else other
            name = str(known.atom_name[heavy])
            found[name] = found.get(name, 0) + 1
    # The CCD's free amino acid has one more at N, and one at OXT, than a residue.
    found["N"] = max(found.get("N", 0) - 1, 0)
    return found | {"OXT": 0}
