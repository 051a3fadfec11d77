"""PSF files, also with insertion codes (52A) among residue numbers, which mdtraj does not know."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Final

import mdtraj

from protenix_eba.core.text_files import read_text

__all__ = ["load_psf"]

# Number, segment and residue of an atom; the rest of its line.
_ATOM: Final = re.compile(r"(\s*\d+\s+\S+\s+)(-?\d+)([A-Za-z]?)(\s.*)")


def load_psf(path: Path) -> mdtraj.Topology:
    """Load all atoms; where numbers have insertion codes, residues are numbered from 1.

    Raises:
        UserError: It is no text.
        Exception: Of many kinds, by mdtraj, for files that it cannot read.
    """
    lines = read_text(path).splitlines()
    start = next((i + 1 for i, line in enumerate(lines) if "!NATOM" in line), len(lines))
    found = [_ATOM.fullmatch(line) for line in lines[start:]]
    atoms = found[: found.index(None)] if None in found else found
    if any(atom and atom[3] for atom in atoms):
        number, before = 0, None
        for i, atom in enumerate(atoms):
            if atom is None:
                break
            key = (atom[1].split()[1], atom[2], atom[3])
            number += key != before
            before = key
            lines[start + i] = f"{atom[1]}{number}{atom[4]}"
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.psf"
        plain.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return mdtraj.load_psf(str(plain))
