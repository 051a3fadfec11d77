"""Protonation states of amino acids, their hydrogens and their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["GROUPS", "STATES", "USUAL", "USUAL_STATES", "standard_state", "state_of"]

GROUPS: Final = {
    "ARG": (("NE", "NH1", "NH2"), 4, 5),
    "ASP": (("OD1", "OD2"), 0, 1),
    "CYS": (("SG",), 0, 1),
    "GLU": (("OE1", "OE2"), 0, 1),
    "HIS": (("ND1", "NE2"), 0, 2),
    "LYS": (("NZ",), 2, 3),
    "SER": (("OG",), 1, 1),
    "THR": (("OG1",), 1, 1),
    "TYR": (("OH",), 0, 1),
}
"""Atoms that carry hydrogens in some protonation states only, and the fewest and most that all of
them carry together in a state that exists. Fewer are missing atoms, not chemistry."""

USUAL: Final = {"ASP": 0, "GLU": 0, "HIS": 1}
"""Hydrogens at pH 7 where these are not the most."""

# AMBER's names of the states that differ from the usual ones, by hydrogens.
_NAMES: Final = {
    ("ARG", 4): "ARN",
    ("ASP", 1): "ASH",
    ("CYS", 0): "CYM",
    ("GLU", 1): "GLH",
    ("HIS", 2): "HIP",
    ("LYS", 2): "LYN",
    ("TYR", 0): "TYM",
}

USUAL_STATES: Final = ("ARG", "ASP", "CYS", "GLU", "LYS", "TYR")
"""States at pH 7; of histidines two tautomers are."""

STATES: Final = {
    **{residue: (residue, name) for (residue, _), name in _NAMES.items()},
    "HIS": ("HID", "HIE", "HIP"),
}
"""AMBER's names of the states of each residue that has several, the usual one first."""

# CHARMM's names.
_ALIASES: Final = {
    **{"HSD": "HID", "HSE": "HIE", "HSP": "HIP", "LSN": "LYN"},
    **{"ASPP": "ASH", "GLUP": "GLH"},
}


def standard_state(name: str) -> str:
    """Return AMBER's name of a protonation state ("HSP" -> "HIP"); others are kept."""
    return _ALIASES.get(name.upper(), name.upper())


def state_of(residue: str, hydrogens: Mapping[str, int], *, bridged: bool = False) -> str:
    """Return AMBER's name of a side chain's protonation; empty for the usual one.

    Args:
        residue: Standard name.
        hydrogens: How many each heavy atom carries.
        bridged: Whether a cysteine's sulfur is bonded to another.

    Returns:
        The name, such as "LYN" for a neutral lysine; always a tautomer for histidines; "" for what
        is usual.
    """
    if bridged or residue not in GROUPS:
        return ""
    count = sum(hydrogens.get(atom, 0) for atom in GROUPS[residue][0])
    if residue == "HIS" and count == 1:
        return "HID" if hydrogens.get("ND1") else "HIE"
    return _NAMES.get((residue, count), "")
