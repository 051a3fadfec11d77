"""PDB files whose models are separated by END alone, as VMD writes them."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["END_LINE", "has_atoms", "with_models"]

END_LINE: Final = re.compile(rb"^END[ \t]*\r?$", re.MULTILINE)
_ATOMS: Final = re.compile(rb"^(?:ATOM|HETATM)", re.MULTILINE)
_MODELS: Final = re.compile(rb"^(?:MODEL|ENDMDL)", re.MULTILINE)


def has_atoms(text: bytes) -> bool:
    """Whether a part of a PDB file has atoms."""
    return _ATOMS.search(text) is not None


def with_models(text: str) -> str:
    """A PDB file with MODEL and ENDMDL lines where END lines alone separate several models."""
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
