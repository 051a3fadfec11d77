"""Names of residues and atoms in MD programs, and the names that the PDB has for them.

Residue names are those of CHARMM (HSD), AMBER (HIE, CYX, NALA), GROMACS' OPLS and GROMOS ports
(HISD, LYSH) and NAMD. Hydrogens are left to mdtraj, whose reader of PDB files knows their dialects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = [
    "CAPS",
    "CAP_ATOMS",
    "HEAVY_ATOMS",
    "WATER",
    "cap_atoms",
    "caps_within",
    "is_no_atom",
    "standard_atom",
    "standard_cap",
    "standard_cap_atom",
    "standard_cap_name",
    "standard_residue",
    "uncut_residue",
]

_SIDE_CHAINS: Final = {
    "ALA": "CB",
    "ARG": "CB CG CD NE CZ NH1 NH2",
    "ASN": "CB CG OD1 ND2",
    "ASP": "CB CG OD1 OD2",
    "CYS": "CB SG",
    "GLN": "CB CG CD OE1 NE2",
    "GLU": "CB CG CD OE1 OE2",
    "GLY": "",
    "HIS": "CB CG ND1 CD2 CE1 NE2",
    "ILE": "CB CG1 CG2 CD1",
    "LEU": "CB CG CD1 CD2",
    "LYS": "CB CG CD CE NZ",
    "MET": "CB CG SD CE",
    "PHE": "CB CG CD1 CD2 CE1 CE2 CZ",
    "PRO": "CB CG CD",
    "SER": "CB OG",
    "THR": "CB OG1 CG2",
    "TRP": "CB CG CD1 CD2 NE1 CE2 CE3 CZ2 CZ3 CH2",
    "TYR": "CB CG CD1 CD2 CE1 CE2 CZ OH",
    "VAL": "CB CG1 CG2",
}
HEAVY_ATOMS: Final = {
    residue: ("N", "CA", "C", "O", *names.split()) for residue, names in _SIDE_CHAINS.items()
}
"""Heavy atoms of each amino acid within a chain, PDB names."""

CAPS: Final = frozenset({"ACE", "NME", "NMA", "NH2", "NHE", "FOR", "CT1", "CT2", "CT3"})
"""Groups at the ends of simulated chains that Protenix's sequence does not have."""

WATER: Final = frozenset({"HOH", "WAT", "SOL", "TIP3", "TIP", "DOD"})
"""Residue names of water; files of fixed columns cut them."""

CAP_ATOMS: Final = {"ACE": ("CH3", "C", "O"), "NME": ("N", "C"), "NH2": ("N",)}
"""Heavy atoms of the caps that force fields have, PDB names: acetyl, N-methyl amide, amide."""

_CAP_NAMES: Final = {"NMA": "NME", "NHE": "NH2"}

_RESIDUES: Final = {
    alias: standard
    for standard, aliases in {
        "ARG": "ARN ARGN",
        "ASP": "ASH ASPH ASPP",
        "CYS": "CYX CYM CYN CYSH CYS1 CYS2",
        "GLN": "QLN",
        "GLU": "GLH GLUH GLUP",
        "HIS": "HSD HSE HSP HSH HID HIE HIP HIH HISD HISE HISH HISA HISB HIS1 HIS2",
        "LYS": "LYN LYP LSN LYSH",
        "MET": "MSE",
        "TYR": "TYM",
    }.items()
    for alias in aliases.split()
}

_ATOMS: Final = {
    ("ASN", "OD"): "OD1",
    ("ASN", "ND"): "ND2",
    ("CYS", "SG1"): "SG",
    ("GLN", "OE"): "OE1",
    ("GLN", "NE"): "NE2",
    ("ILE", "CD"): "CD1",
    ("SER", "OG1"): "OG",
    ("THR", "OG"): "OG1",
    ("THR", "CG"): "CG2",
    ("MET", "SE"): "SD",
    **{("*", name): "O" for name in ("O1", "OT1", "OC1", "OCT1", "O'")},
    **{("*", name): "OXT" for name in ("O2", "OT", "OT2", "OC2", "OCT2", "O''")},
}


# CHARMM's patches ACE, ACP, CT2 and CT3 put a cap's atoms into the residue that they cap.
_FIRST_CAP: Final = frozenset({"CAY", "CY", "OY", "HY1", "HY2", "HY3"})
_LAST_CAP: Final = frozenset({"NT", "CAT", "HNT"})
# Names that such a cap shares with the hydrogens of a free N-terminus.
_LAST_CAP_HYDROGENS: Final = frozenset({"HT1", "HT2", "HT3"})
# GROMACS' masses of virtual sites (MN1, MCB2), lone pairs and extra points (LP1, EPW), Drude
# particles (DN, DCA: a D before the name of a heavy atom; deuterium is DA, DB2).
_NO_ATOM: Final = re.compile(r"M|LP|EP|D[CNOS]")


def cap_atoms(names: Iterable[str]) -> frozenset[str]:
    """Return those of a residue's atom names that CHARMM's patches of capped ends add to it."""
    names = frozenset(names)
    first = names & _FIRST_CAP if {"CAY", "CY"} <= names else frozenset()
    if "NT" not in names:
        return first
    return first | (names & (_LAST_CAP | _LAST_CAP_HYDROGENS))


# CHARMM's atoms of caps, which its patches put into the residue that they cap.
_CAP_ATOM_NAMES: Final = {
    "ACE": {"CAY": "CH3", "CY": "C", "OY": "O", "HY1": "H1", "HY2": "H2", "HY3": "H3"},
    "NME": {
        **{"NT": "N", "CAT": "C", "CH3": "C", "HNT": "H"},
        **{"HT1": "H1", "HT2": "H2", "HT3": "H3"},
    },
    "NH2": {"NT": "N", "HT1": "HN1", "HT2": "HN2", "H1": "HN1", "H2": "HN2"},
}


def standard_cap_atom(cap: str, atom: str) -> str:
    """Return the PDB's name of a cap's atom ("CAY" of "ACE" -> "CH3"); others are kept."""
    found = re.fullmatch(r"HH3(\d)", atom)
    return f"H{found[1]}" if found else _CAP_ATOM_NAMES[cap].get(atom, atom)


def caps_within(names: Iterable[str]) -> dict[str, frozenset[str]]:
    """Find the whole caps among the atoms of a residue of CHARMM, and their atom names."""
    found = cap_atoms(names)
    first = found & _FIRST_CAP
    last = found - first
    caps = {"ACE": first, "NME" if "CAT" in last else "NH2": last}
    return {
        cap: atoms
        for cap, atoms in caps.items()
        if standard_cap(cap, [standard_cap_atom(cap, atom) for atom in atoms])
    }


def standard_cap_name(name: str) -> str | None:
    """Return the PDB's name of a cap that force fields have ("NMA" -> "NME"), or None."""
    name = _CAP_NAMES.get(name, name)
    return name if name in CAP_ATOMS else None


def standard_cap(name: str, atoms: Iterable[str]) -> str | None:
    """Return the PDB's name of a cap in force fields, if these are its heavy atoms, or None.

    Args:
        name: Name of the residue, "NMA" for example.
        atoms: PDB names of its atoms.
    """
    cap = standard_cap_name(name)
    return cap if cap and _heavy(atoms) == set(CAP_ATOMS[cap]) else None


def is_no_atom(name: str) -> bool:
    """Return whether an atom name in an amino acid is a site that stands for no atom."""
    return _NO_ATOM.match(name) is not None


def standard_residue(name: str) -> str | None:
    """Return the amino acid that a residue name stands for ("HSD" -> "HIS"), or None.

    AMBER's names of terminal residues (NALA, CLEU) are known as well.
    """
    name = name.strip().upper()
    if name in HEAVY_ATOMS:
        return name
    if name not in _RESIDUES and len(name) == 4 and name[0] in "NC":
        name = name[1:]
    return name if name in HEAVY_ATOMS else _RESIDUES.get(name)


def uncut_residue(name: str, atoms: Iterable[str]) -> str | None:
    """Return the amino acid whose name a PDB file cut to three letters ("NME", once "NMET").

    Args:
        name: As the file has it.
        atoms: Names of all its atoms; its heavy atoms must be those of one amino acid.
    """
    have = frozenset(atoms)
    return next(
        (
            standard
            for standard, heavy in HEAVY_ATOMS.items()
            if name[:1] in ("N", "C")
            and name[1:3] == standard[:2]
            and _heavy(standard_atom(standard, atom) for atom in have) - {"OXT"} == set(heavy)
        ),
        None,
    )


def _heavy(atoms: Iterable[str]) -> set[str]:
    return {atom for atom in atoms if not re.match(r"\d*[HD]", atom)}


def standard_atom(residue: str, atom: str) -> str:
    """Return the PDB's name of an atom ("CD" of "ILE" -> "CD1"); others are kept.

    Args:
        residue: Name of the amino acid as the PDB has it.
        atom: Its atom's name in any dialect.
    """
    return _ATOMS.get((residue, atom), _ATOMS.get(("*", atom), atom))
