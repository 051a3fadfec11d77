"""Models within PDB and mmCIF files: each is found and read alone, however many there are."""

from __future__ import annotations

import codecs
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from protenix_eba.structures.packed import format_of, plain
from protenix_eba.structures.pdb_text import END_LINE, has_atoms

__all__ = ["CIF_SUFFIXES", "PDB_SUFFIXES", "Model", "models_of"]

PDB_SUFFIXES: Final = (".pdb", ".ent")
CIF_SUFFIXES: Final = (".cif", ".mmcif")
_END: Final = b"\nENDMDL"
_COLUMN: Final = b"_atom_site."
_MODEL_COLUMN: Final = b"_atom_site.pdbx_PDB_model_num"
# What the line after the last atom may begin with.
_AFTER_ATOMS: Final = (b"#", b"_", b"loop_", b"data_")


class Model(NamedTuple):
    """One model of a file.

    Attributes:
        path: The file.
        start: Its first byte, in the unpacked file.
        end: The byte after its last.
        header: What makes these bytes an mmCIF file; empty for PDB.
    """

    path: Path
    start: int
    end: int
    header: bytes

    def text(self) -> bytes:
        """Return the model as the text of a file of its own."""
        with plain(self.path) as path, open(path, "rb") as file:
            file.seek(self.start)
            text = self.header + file.read(self.end - self.start)
        return text.removeprefix(codecs.BOM_UTF8)


def models_of(path: Path, at_most: int | None = None) -> list[Model]:
    """Find the models of a PDB or mmCIF file, packed or not; the first ones only, if `at_most`.

    Raises:
        ValueError: No models, or a file that is cut.
        OSError, EOFError, zlib.error: It cannot be opened or unpacked.
    """
    with plain(path) as file_path:
        if not file_path.stat().st_size:
            raise ValueError("it is empty")
        with open(file_path, "rb") as file:
            if format_of(path) in CIF_SUFFIXES:
                header, first, index = _atom_columns(file)
                found = _cif_models(file, first, index, header.count(_COLUMN), at_most)
                return [Model(path, *ends, header) for ends in found]
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                return [Model(path, *ends, b"") for ends in _pdb_models(text, at_most)]


def _pdb_models(text: mmap.mmap, at_most: int | None) -> list[tuple[int, int]]:
    """Return first and last byte of each model."""
    models: list[tuple[int, int]] = []
    start = 0
    while (end := text.find(_END, start)) >= 0 and len(models) != at_most:
        models.append((start, end))
        start = end + len(_END)
    if not models:
        return _end_models(text, at_most)
    begun = any(text.find(word, start) >= 0 for word in (b"\nMODEL", b"\nATOM", b"\nHETATM"))
    if len(models) != at_most and begun:
        raise ValueError(f"model {len(models) + 1} has no ENDMDL line: the file is cut")
    return models


def _end_models(text: mmap.mmap, at_most: int | None) -> list[tuple[int, int]]:
    """Return first and last byte of each part with atoms between lines of END, VMD's way."""
    parts: list[tuple[int, int]] = []
    start = 0
    for match in END_LINE.finditer(text):
        if has_atoms(text[start : match.start()]):
            parts.append((start, match.start()))
        start = match.end()
        if len(parts) == at_most:
            break
    if not parts:
        return [(0, len(text))]
    if len(parts) != at_most and has_atoms(text[start:]):
        parts.append((start, len(text)))
    return parts


def _atom_columns(file: BinaryIO) -> tuple[bytes, int, int | None]:
    """The head of the table of atoms, its first row's byte, and the model's column if it has one.

    The file stands at the first row afterwards.
    """
    columns: list[bytes] = []
    at = 0
    for line in file:
        if line.startswith(_COLUMN):
            columns.append(line.strip())
        elif columns:
            break
        at += len(line)
    if not columns or any(len(column.split()) > 1 for column in columns):
        raise ValueError("it has no table of atoms (a loop over _atom_site)")
    file.seek(at)
    header = b"\n".join([b"data_model", b"loop_", *columns, b""])
    return header, at, columns.index(_MODEL_COLUMN) if _MODEL_COLUMN in columns else None


def _cif_models(
    file: BinaryIO, at: int, column: int | None, n_columns: int, at_most: int | None
) -> list[tuple[int, int]]:
    """Return first and last byte of each model; a model ends where another number begins."""
    models: list[tuple[int, int]] = []
    seen: set[bytes] = set()
    number, start = None, at
    for values, length in _cif_rows(file, n_columns):
        own = b"" if column is None else values[column]
        if own != number:
            if number is not None:
                models.append((start, at))
            if len(models) == at_most:
                return models
            if own in seen:
                raise ValueError(f"the atoms of model {own.decode(errors='replace')} stand apart")
            seen.add(own)
            number, start = own, at
        at += length
    if number is None:
        raise ValueError("it has no atoms")
    return [*models, (start, at)]


def _cif_rows(file: BinaryIO, n_columns: int) -> Iterator[tuple[list[bytes], int]]:
    """Yield values and bytes of each row, which may go on in the next line.

    Raises:
        ValueError: The last row lacks values.
    """
    values: list[bytes] = []
    length = 0
    for line in file:
        if not line.strip() or line.startswith(_AFTER_ATOMS):
            break
        values += line.split()
        length += len(line)
        if len(values) >= n_columns:
            yield values, length
            values, length = [], 0
    if values:
        raise ValueError(f"a row of its atoms has {len(values)} of {n_columns} values: cut?")
