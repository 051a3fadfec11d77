"""Multiple sequence alignments of a protein's chains: finding and checking them."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.text_files import read_text
from protenix_eba.structures.sequences import Protein

__all__ = ["NO_MSA", "MsaFiles", "ProteinMsa", "fingerprint_of"]

NO_MSA: Final = "none"

# As Protenix's own search writes them. The rows of the first are paired by species.
_PAIRED: Final = "pairing.a3m"
_OWN_NAMES: Final = (_PAIRED, "non_pairing.a3m")
# Protenix reads no alignment of shorter chains (`FeatureAssemblyLine.assemble`).
_SHORTEST: Final = 5
_ALLOWED: Final = frozenset(string.ascii_letters + "-")
_NO_INSERTIONS: Final = str.maketrans("", "", string.ascii_lowercase)
_HINT: Final = (
    "the first sequence of an a3m file must be the target's own; a file with nothing but that "
    "stands for no alignment"
)


@dataclass(frozen=True)
class ProteinMsa:
    """Alignments of all chains of a protein, as the text of a3m files.

    Attributes:
        unpaired: The unpaired alignment of each chain; empty for none.
        paired: The paired alignment of each chain, whose rows name their species; empty for none.
    """

    unpaired: tuple[str, ...]
    paired: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the texts, hexadecimal."""
        return hashlib.sha256(json.dumps([self.unpaired, self.paired]).encode()).hexdigest()


def fingerprint_of(msa: ProteinMsa | None) -> str:
    """Return the fingerprint of alignments, or "none"."""
    return msa.fingerprint if msa else NO_MSA


class MsaFiles:
    """Finds the alignments of a protein.

    In a folder these are NAME.a3m and all a3m files below NAME/; among the latter only pairing.a3m
    and non_pairing.a3m if there are any, as Protenix's own search writes them. If there is none of
    these, such files anywhere in the folder are found by the sequences that they are for.

    A file belongs to the chains whose sequence its query, the first row, is. Several files of one
    chain are read one after the other.

    Args:
        path: A folder, or an a3m file; None for no alignments.

    Raises:
        UserError: There is nothing at `path`.
    """

    def __init__(self, path: Path | None) -> None:
        if path is not None and not path.exists():
            raise UserError(
                f"MSA: expected a folder or an a3m file at {path}, found nothing", "check the path"
            )
        self._path = path
        self._last = lru_cache(maxsize=1)(self._read)
        self._own = lru_cache(maxsize=1)(_own_files)

    def __str__(self) -> str:
        return f"MSAs from {self._path}" if self._path else "no MSA, each sequence on its own"

    def of(self, protein: Protein) -> ProteinMsa | None:
        """Return a protein's alignments; None if it is to have none, or all chains are too short.

        Raises:
            UserError: A chain without a file, a file for another sequence, a cut or unreadable one.
        """
        return self._last(protein)

    def _read(self, protein: Protein) -> ProteinMsa | None:
        needed = {s for s in protein.chains if len(s) >= _SHORTEST}
        if self._path is None or not needed:
            return None
        unpaired, paired = (dict.fromkeys(protein.chains, "") for _ in range(2))
        for path in self._files(self._path, protein):
            query, text = _read_a3m(path)
            if query not in unpaired:
                raise UserError(f"{path}: {_mismatch(query, protein)}", _HINT)
            (paired if path.name == _PAIRED else unpaired)[query] += text
        for number, sequence in enumerate(protein.chains, 1):
            if sequence in needed and not (unpaired[sequence] or paired[sequence]):
                raise UserError(
                    f"no alignment of chain {number} of {protein.name} in {self._path}", _HINT
                )
        return ProteinMsa(
            tuple(unpaired[s] for s in protein.chains), tuple(paired[s] for s in protein.chains)
        )

    def _files(self, path: Path, protein: Protein) -> list[Path]:
        if path.is_file():
            return [path]
        named = path / protein.name
        own = [file for files in _own_files(named).values() for file in files.values()]
        plain = [path / f"{protein.name}.a3m", *sorted(named.rglob("*.a3m"))]
        found = own or [file for file in plain if file.is_file()]
        if found:
            return found
        by_query = self._own(path)
        return [f for s in dict.fromkeys(protein.chains) for f in by_query.get(s, {}).values()]


def _own_files(folder: Path) -> dict[str, dict[str, Path]]:
    """Find files of Protenix's own search below a folder: query -> name -> path.

    Equal chains have folders of their own; Protenix, too, takes the last one for all of them.
    """
    found: dict[str, dict[str, Path]] = {}
    for name in _OWN_NAMES:
        for path in sorted(folder.rglob(name)):
            # One that cannot be opened is missed by its own target, not by all.
            with suppress(UserError):
                found.setdefault(_first_row(read_text(path).splitlines()), {})[name] = path
    return found


def _first_row(lines: Iterable[str]) -> str:
    row, headers = "", 0
    for line in lines:
        headers += line.startswith(">")
        if headers > 1:
            break
        if headers and not line.startswith((">", "#")):
            row += line.strip()
    return row


def _read_a3m(path: Path) -> tuple[str, str]:
    """Read query and text of a file, and check that every row has the query's length.

    Protenix itself would fill up rows that are too short with alanine, without a word.

    Raises:
        UserError: It is no a3m file, or a cut one.
    """
    from protenix.data.tools.common import parse_fasta

    text = read_text(path, _HINT)
    lines = (line.strip() for line in text.splitlines())
    if not next((line for line in lines if line and line[0] != "#"), "").startswith(">"):
        found = "another kind of file" if text.strip() else "an empty file"
        raise UserError(f"{path}: expected an a3m file ('>name'), found {found}", _HINT)
    rows, names = parse_fasta(text)
    for number, (row, name) in enumerate(zip(rows, names, strict=True), 1):
        where = f"{path}: row {number} ({name[:30]})"
        if unknown := sorted(set(row) - _ALLOWED):
            raise UserError(f"{where}: expected letters and '-', found {unknown}", _HINT)
        columns = len(row.translate(_NO_INSERTIONS))
        if columns != len(rows[0]):
            raise UserError(
                f"{where}: expected {len(rows[0])} columns as in the query, found {columns}",
                "the file is cut or no a3m file (small letters are insertions): make it again",
            )
    return rows[0], text.rstrip() + "\n"


def _mismatch(query: str, protein: Protein) -> str:
    """Say how a query differs from the chain that it resembles most."""
    common = [
        sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(query, s, strict=False)))
        for s in protein.chains
    ]
    best = max(range(len(common)), key=common.__getitem__)
    return (
        f"expected the sequence of a chain of {protein.name} as its first row; found one of "
        f"{len(query)} residues, which is that of chain {best + 1} "
        f"({len(protein.chains[best])} residues) up to residue {common[best]} only"
    )
