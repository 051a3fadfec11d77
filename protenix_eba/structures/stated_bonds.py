"""Bonds between residues that a structure file states: CONECT, LINK, SSBOND, struct_conn.

mdtraj and OpenMM read CONECT and the covalent rows of struct_conn. Neither reads LINK, SSBOND or
the bonds of metals, and OpenMM leaves out CONECT between a metal and an amino acid.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from protenix_eba.core.text_files import read_text
from protenix_eba.structures.models import CIF_SUFFIXES
from protenix_eba.structures.pdb_text import atom_lines, with_models

__all__ = ["StatedBonds", "stated_bonds"]

# The type of a bond in struct_conn; hydrogen bonds and mismatched bases are of other types.
_BONDED: Final = ("covale", "disulf", "metalc", "modres")
# What identifies an atom in struct_conn, and what it is called there; "1" is the first partner.
_CIF_COLUMNS: Final = {
    "label_asym_id": "ptnr{}_label_asym_id",
    "label_seq_id": "ptnr{}_label_seq_id",
    "label_atom_id": "ptnr{}_label_atom_id",
    "auth_asym_id": "ptnr{}_auth_asym_id",
    "auth_seq_id": "ptnr{}_auth_seq_id",
    "pdbx_PDB_ins_code": "pdbx_ptnr{}_PDB_ins_code",
}
_NOTHING: Final = {"?": "", ".": ""}


class StatedBonds(NamedTuple):
    """The bonds that a file states between atoms of its first model.

    Attributes:
        n_atoms: How many there are; of alternate locations of an atom the first one counts.
        pairs: Indices of two bonded atoms of different residues, the smaller one first; each once.
    """

    n_atoms: int
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, residues: list[Any], pairs: Iterable[tuple[int, int]]) -> StatedBonds:
        """Build them from the residue of each atom, without bonds within a residue."""
        between = {(min(p), max(p)) for p in pairs if residues[p[0]] != residues[p[1]]}
        return cls(len(residues), tuple(sorted(between)))


def stated_bonds(path: Path) -> StatedBonds:
    """Read the bonds of a PDB or mmCIF file, without those to images in a crystal.

    Raises:
        UserError: The file cannot be opened.
        Exception: Of many kinds, by biotite, for an mmCIF file that it cannot read.
    """
    text = read_text(path, strict=False)
    if path.suffix.lower() in CIF_SUFFIXES:
        return _of_cif(text)
    text = with_models(text)
    atoms = atom_lines(text)[0]
    lines = [line for line in text.splitlines() if line.startswith(("CONECT", "LINK", "SSBOND"))]
    pairs = [*_conect(lines, atoms), *_linked(lines, atoms)] if lines else []
    return StatedBonds.of([line[17:27] for line in atoms], pairs)


def _conect(lines: list[str], atoms: list[str]) -> Iterator[tuple[int, int]]:
    """Yield bonds by serial numbers; where these begin anew, the nearest pair is meant."""
    where: dict[str, list[int]] = defaultdict(list)
    for index, line in enumerate(atoms):
        where[line[6:11].strip()].append(index)
    for line in lines:
        if not line.startswith("CONECT"):
            continue
        # Columns behind these held hydrogen bonds once.
        first, *others = (line[start : start + 5].strip() for start in range(6, 31, 5))
        for other in others:
            pairs = list(product(where.get(first, ()), where.get(other, ())))
            if pairs:
                yield pairs[0] if len(pairs) == 1 else min(pairs, key=lambda p: _gap(atoms, *p))


def _gap(atoms: list[str], first: int, second: int) -> float:
    one, other = (
        np.array([float(atoms[i][start : start + 8]) for start in (30, 38, 46)])
        for i in (first, second)
    )
    return float(np.linalg.norm(one - other))


def _linked(lines: list[str], atoms: list[str]) -> Iterator[tuple[int, int]]:
    """Yield bonds of LINK and SSBOND, which name atoms by name, chain, number and code."""
    where = {(line[12:16].strip(), line[21:27]): index for index, line in enumerate(atoms)}
    for line in lines:
        if line.startswith("SSBOND"):
            ends = [("SG", line[15:16] + line[17:22]), ("SG", line[29:30] + line[31:36])]
        elif line.startswith("LINK"):
            ends = [(line[12:16].strip(), line[21:27]), (line[42:46].strip(), line[51:57])]
        else:
            continue
        images = [line[59:65].strip(), line[66:72].strip()]
        if images[0] == images[1] and all(end in where for end in ends):
            yield where[ends[0]], where[ends[1]]


def _of_cif(text: str) -> StatedBonds:
    from biotite.structure.io import pdbx

    block = pdbx.CIFFile.deserialize(text).block
    rows, bonds = block["atom_site"], block.get("struct_conn", {})
    chosen = _first_model(rows)
    residues = _keys(rows, [name for name in _CIF_COLUMNS if name != "label_atom_id"])
    names = [n for n, other in _CIF_COLUMNS.items() if n in rows and other.format(1) in bonds]
    pairs = []
    if "label_atom_id" in names:
        keys = _keys(rows, names)
        where = {keys[row]: index for index, row in enumerate(chosen)}
        pairs = [(where[p], where[q]) for p, q in _linked_in_cif(bonds, names)
                 if p in where and q in where]  # fmt: skip
    return StatedBonds.of([residues[row] for row in chosen], pairs)


def _first_model(rows: Any) -> list[int]:
    """Return the rows of the first model's atoms, of alternate locations the first."""
    models, alternates = _column(rows, "pdbx_PDB_model_num"), _column(rows, "label_alt_id")
    seen: set[tuple[str, ...]] = set()
    kept = []
    for row, key in enumerate(_keys(rows, list(_CIF_COLUMNS))):
        if models[row] != models[0]:
            break
        if not alternates[row] or key not in seen:
            kept.append(row)
        seen.add(key)
    return kept


def _linked_in_cif(bonds: Any, names: list[str]) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Yield what identifies the two atoms of each bond."""
    ends = [_keys(bonds, [_CIF_COLUMNS[name].format(end) for name in names]) for end in (1, 2)]
    images = [_column(bonds, f"ptnr{end}_symmetry") for end in (1, 2)]
    for kind, *pair, image, other in zip(
        _column(bonds, "conn_type_id"), *ends, *images, strict=True
    ):
        if kind.startswith(_BONDED) and image == other:
            yield tuple(pair)


def _keys(table: Any, names: list[str]) -> list[tuple[str, ...]]:
    return list(zip(*(_column(table, name) for name in names), strict=True))


def _column(table: Any, name: str) -> list[str]:
    if name not in table:
        return [""] * int(table.row_count)
    return [_NOTHING.get(value, value) for value in table[name].as_array(str).tolist()]
