"""OpenMM's force fields without what no protein needs.

CHARMM's files hold nucleic acids, lipids, sugars and hundreds of model compounds beside the amino
acids. Whenever OpenMM makes a System with a chain end or a disulfide, it applies all combinations
of all patches to each of them, 3 seconds for CHARMM36 and a minute for CHARMM36m, and it looks for
each angle through all Urey-Bradley terms. Amino acids alone give the same System in a fraction of
that time. Two molecules differ: whole CHARMM36 takes a single proline with caps at both ends, or an
amide at its last, for a model compound of CGenFF, and here it is the protein's proline.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, parse, tostring

import openmm
from openmm import app

from protenix_eba.core.errors import UserError
from protenix_eba.protein.residue_names import HEAVY_ATOMS

__all__ = ["force_field", "is_charmm"]

_DATA: Final = Path(app.__file__).parent / "data"
_TEMPLATES: Final = frozenset({*HEAVY_ATOMS, "HSD", "HSE", "HSP", "CYM"})


@functools.cache
def force_field(files: tuple[str, ...]) -> app.ForceField:
    """Load the force field in OpenMM's files of these names, once in each process.

    Of CHARMM's only amino acids, with their protonation states, caps and disulfides.

    Raises:
        UserError: OpenMM here has no such file.
    """
    try:
        return app.ForceField(*[_amino_acids(name) if is_charmm(name) else name for name in files])
    except (ValueError, FileNotFoundError) as error:
        raise UserError(
            f"OpenMM {openmm.__version__} has no force field {' + '.join(files)}: {error}",
            "install a newer OpenMM, or choose another force field",
        ) from error


def is_charmm(name: str) -> bool:
    """Tell whether a force field makes chain ends and caps by patches, as CHARMM's do."""
    return name.startswith("charmm")


def _amino_acids(name: str) -> BytesIO:
    """Reduce a CHARMM file to the templates, patches, types and terms of proteins."""
    root = parse(_DATA / name).getroot()
    _keep(root, "Residues", lambda residue: residue.get("name") in _TEMPLATES)
    for residue in root.iterfind("Residues/Residue"):
        for patch in residue.findall("AllowPatch"):
            if patch.get("name", "")[:1].isdigit():  # substituents of rings, "23MD"
                residue.remove(patch)
    allowed = {patch.get("name") for patch in root.iterfind("Residues/Residue/AllowPatch")}
    _keep(root, "Patches", lambda patch: patch.get("name") in allowed or _is_applied(patch))
    places = ("Residues/Residue/Atom", "Patches/Patch/AddAtom", "Patches/Patch/ChangeAtom")
    types = {atom.get("type") for place in places for atom in root.iterfind(place)}
    _keep(root, "AtomTypes", lambda one: one.get("name") in types)
    kinds = {"", *types, *(one.get("class") for one in root.iterfind("AtomTypes/Type"))}
    for force in root.iterfind("*"):
        if force.tag.endswith("Force"):
            _keep(root, force.tag, lambda term: _kinds(term) <= kinds)
    return BytesIO(tostring(root))


def _keep(root: Element, room: str, wanted: Callable[[Element], bool]) -> None:
    for parent in root.iterfind(room):
        parent[:] = [child for child in parent if wanted(child)]


def _kinds(term: Element) -> set[str]:
    """Return types and classes of the atoms that a term is for; "" stands for any."""
    return {kind for name, kind in term.items() if name.startswith(("type", "class"))}


def _is_applied(patch: Element) -> bool:
    """Tell whether a patch itself names an amino acid, as "1:CYS" of disulfides does."""
    names = (residue.get("name", "") for residue in patch.iterfind("ApplyToResidue"))
    return any(name.split(":")[-1] in _TEMPLATES for name in names)
