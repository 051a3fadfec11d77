"""Backbones for C-alpha traces, by PULCHRA (Rotkiewicz, Skolnick, J. Comput. Chem. 29, 1460, 2008).

The package `pulchra` is not installed with this one.
"""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, require_file
from protenix_eba.ebmfold.structures import one_letter

__all__ = ["BACKBONE", "rebuild_backbone", "require_pulchra", "write_backbone"]

BACKBONE: Final = ("N", "CA", "C", "O")


def require_pulchra() -> Any:
    """Return PULCHRA, set to keep C-alpha atoms in place and to add no side chains.

    Raises:
        UserError: The package is not installed.
    """
    try:
        from pulchra import Pulchra
    except ImportError as error:
        raise UserError(f"backbones need PULCHRA: {error}", "pip install pulchra") from error
    return Pulchra(ca_optimize=False, rebuild_sidechains=False, optimize_xvol=False)


def rebuild_backbone(
    ca: NDArray[np.floating], sequence: str, bonded: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Build the atoms N, CA, C and O of each residue.

    Args:
        ca: `[L, 3]` in angstrom.
        sequence: One letter per residue, X where it is not known.
        bonded: `[L - 1]` whether a residue is bonded to the next; each stretch is rebuilt alone.

    Returns:
        `[L, 4, 3]` in the order of `BACKBONE`.

    Raises:
        UserError: The package `pulchra` is not installed.
    """
    pulchra = require_pulchra()
    rebuilt = np.empty((len(ca), len(BACKBONE), 3))
    ends = [0, *(np.flatnonzero(~bonded) + 1), len(ca)]
    for a, b in itertools.pairwise(ends):
        with warnings.catch_warnings():  # of rotations that three atoms on a line leave open
            warnings.simplefilter("ignore")
            made = pulchra.reconstruct_coords(ca[a:b].astype(float), sequence[a:b])
        for row, residue in zip(rebuilt[a:b], made.residues, strict=True):
            row[:] = [residue.get_atom(name).coords for name in BACKBONE]
    return rebuilt


def write_backbone(path: Path, trace: Path) -> None:
    """Write a PDB file with the backbone of a C-alpha trace, with its chains and numbers.

    Args:
        path: File to write.
        trace: File of `structures.write_trace`.

    Raises:
        UserError: The package `pulchra` is not installed.
    """
    from biotite.structure.io.pdb import PDBFile

    read: Any = PDBFile.read(require_file(trace, "trace")).get_structure(model=1)
    letters = "".join(map(one_letter, read.res_name))
    bonded = (np.diff(read.res_id) == 1) & (read.chain_id[1:] == read.chain_id[:-1])
    xyz = rebuild_backbone(read.coord, letters, bonded)
    atoms = read[np.repeat(np.arange(len(read)), len(BACKBONE))]
    atoms.coord = xyz.reshape(-1, 3).astype(np.float32)
    atoms.atom_name = np.tile(BACKBONE, len(read))
    atoms.element = np.tile([name[0] for name in BACKBONE], len(read))
    file = PDBFile()
    file.set_structure(atoms)
    with atomic_path(path) as temporary:
        file.write(str(temporary))
