"""The text of PDB files: atoms of the first model, models that END alone separates (VMD)."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["END_LINE", "atom_lines", "has_atoms", "with_models"]

END_LINE: Final = re.compile(rb"^END[ \t]*\r?$", re.MULTILINE)
_ATOMS: Final = re.compile(rb"^(?:ATOM|HETATM)", re.MULTILINE)
_MODELS: Final = re.compile(rb"^(?:MODEL|ENDMDL)", re.MULTILINE)


def has_atoms(text: bytes) -> bool:
    """Tell whether a part of a PDB file has atoms."""
    return _ATOMS.search(text) is not None


def with_models(text: str) -> str:
    """Return a PDB file with MODEL and ENDMDL lines where END alone separates its models."""
    data = text.encode()
    if _MODELS.search(data):
        return text
    parts = [part for part in END_LINE.split(data) if has_atoms(part)]
    if len(parts) < 2:
        return text
    numbered = [
        b"MODEL     %4d\n" % number + part.strip(b"\r\n") + b"\nENDMDL\n"
        for number, part in enumerate(parts, start=1)
    ]
    return (b"".join(numbered) + b"END\n").decode()


def atom_lines(text: str) -> tuple[list[str], int]:
    """Return the first model's atom lines, and the number of alternate locations left out."""
    kept: list[str] = []
    seen: set[str] = set()
    repeated = 0
    for line in text.splitlines():
        if line.startswith("ENDMDL"):
            break
        if not line.startswith(("ATOM", "HETATM")):
            continue
        key = line[12:16] + line[17:27]
        if line[16:17].strip() and key in seen:
            repeated += 1
            continue
        seen.add(key)
        kept.append(line)
    return kept, repeated
