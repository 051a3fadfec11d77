"""Measured values and the CSV file that holds them."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file
from protenix_eba.core.text_files import text_lines
from protenix_eba.eval.experiment.karplus import COUPLINGS, karplus
from protenix_eba.eval.experiment.shift_predictors import nucleus, predictor
from protenix_eba.plugin_api import did_you_mean

__all__ = [
    "AVERAGED", "KINDS", "AtomName", "Measurement", "read_commented", "read_measurements",
]  # fmt: skip

KINDS: Final = {
    **{name: "Hz; atoms: the residue" for name in COUPLINGS},
    "NOE": "angstrom, from r^-6 averages; atoms: two groups, 2:HB1,2:HB2,2:HB3 4:H",
    "NOE3": "angstrom, from r^-3 averages; atoms as for NOE",
    "DISTANCE": "angstrom, plain average; atoms: two",
    "RG": "angstrom, radius of gyration of all atoms by mass; no atoms",
    "SHIFT": "ppm; atoms: one, H, HA, N, CA, CB or C: 5:CA; set: the predictor; error: the "
    "predictor's own where empty; offset: fit, or nothing",
    "RDC": "Hz; atoms: two bonded ones; set: the alignment medium",
    "S2": "order parameter of a bond, 0 to 1; atoms: two bonded ones",
}
# What is an average over conformations of something that each of them has.
AVERAGED: Final = (*COUPLINGS, "SHIFT", "NOE", "NOE3", "DISTANCE", "RG")
_BOUNDS: Final = ("", "upper", "lower")
_OFFSETS: Final = ("", "fit")
_REQUIRED: Final = ("kind", "atoms", "value", "error")
_HINT: Final = (
    "columns: kind, atoms, value, error, and if needed target, set (Karplus set, predictor or "
    "alignment medium), bound (upper or lower) and offset (fit)"
)


@dataclass(frozen=True)
class AtomName:
    """An atom as a data file names it.

    Attributes:
        chain: Empty where the file names none.
        residue: Its number.
        name: Name of the atom; empty where a residue is meant.
    """

    chain: str
    residue: int
    name: str

    def __str__(self) -> str:
        return ":".join(part for part in (self.chain, str(self.residue), self.name) if part)


@dataclass(frozen=True)
class Measurement:
    """One measured value.

    Attributes:
        kind: A key of `KINDS`, which says the unit.
        groups: The atoms: none, a residue or an atom, or two groups.
        value: Measured.
        error: Its standard deviation, that of the prediction included.
        group: Karplus set, predictor of shifts, or alignment medium.
        bound: "upper" or "lower" where only values beyond are wrong, else empty.
        target: The protein; empty for all.
        offset: Whether predicted shifts of this nucleus are moved by a constant that is fitted.
    """

    kind: str
    groups: tuple[tuple[AtomName, ...], ...]
    value: float
    error: float
    group: str = ""
    bound: str = ""
    target: str = ""
    offset: bool = False

    @property
    def label(self) -> str:
        """Kind and atoms of the measurement, for readers."""
        atoms = "-".join(",".join(map(str, group)) for group in self.groups)
        return " ".join(part for part in (self.kind, atoms, self.group) if part)

    @property
    def family(self) -> str:
        """What is summed up with others: the kind, of shifts also the nucleus, and the set."""
        nuclei = [nucleus(self.groups[0][0].name)] if self.kind == "SHIFT" else []
        return " ".join(part for part in (self.kind, *nuclei, self.group) if part)

    @property
    def unit(self) -> str:
        """Unit of the measured value."""
        if self.kind in ("S2", "SHIFT"):
            return "ppm" if self.kind == "SHIFT" else ""
        return "Hz" if self.kind.startswith(("3J", "RDC")) else "Å"


def read_measurements(path: Path) -> list[Measurement]:
    """Read measured values from a CSV file; see `read_commented`."""
    return read_commented(path)[0]


def read_commented(path: Path) -> tuple[list[Measurement], str]:
    """Read measured values from a CSV file; lines that begin with # are comments.

    Returns:
        The values, and the comment above the columns, in one line: where they are from, say.

    Raises:
        UserError: No such file, columns or kinds, or a value that cannot be used.
    """
    text = text_lines(require_file(path, "measurements", pipe=True), _HINT)
    above = itertools.takewhile(lambda line: not line.strip() or line[0] == "#", text)
    comment = " ".join(" ".join(line.lstrip("#") for line in above).split())
    lines = [(n, line) for n, line in enumerate(text, 1) if line.strip() and line[0] != "#"]
    reader = csv.DictReader((line for _, line in lines), restval="")
    fields = reader.fieldnames or ()
    if not set(_REQUIRED) <= set(fields):
        raise UserError(f"{path}: found the columns {', '.join(fields) or 'none'}", _HINT)
    found = []
    for row in reader:
        number = lines[reader.line_num - 1][0]
        if any(row.pop(None, ())):
            raise UserError(
                f"{path}, line {number}: more values than the {len(fields)} columns",
                'quote what has a comma in it, "2:HB1,2:HB2 4:H", and write 5.59, not 5,59',
            )
        try:
            found.append(_measurement(row))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}, line {number}: {error}", _HINT) from error
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error.args[0]}", error.hint) from error
    if not found:
        raise UserError(f"{path}: no measured value in it", _HINT)
    return found, comment


def _measurement(row: Mapping[str, str]) -> Measurement:
    kind = row["kind"].strip()
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}", did_you_mean(kind, KINDS))
    groups = tuple(
        tuple(_atom(word) for word in group.split(",")) for group in row["atoms"].split()
    )
    expected = {"RG": 0, "SHIFT": 1, **dict.fromkeys(COUPLINGS, 1)}.get(kind, 2)
    single = kind not in ("NOE", "NOE3")
    if len(groups) != expected or (single and any(len(group) > 1 for group in groups)):
        raise UserError(f"{kind}: cannot use the atoms {row['atoms']!r}", KINDS[kind])
    if any(bool(atom.name) == (kind in COUPLINGS) for group in groups for atom in group):
        raise UserError(f"{kind}: cannot use the atoms {row['atoms']!r}", KINDS[kind])
    group, offset = ((row.get(key) or "").strip() for key in ("set", "offset"))
    if offset not in _OFFSETS or (offset and kind != "SHIFT"):
        raise UserError(f"{kind}: cannot use the offset {offset!r}", "fit, and of shifts only")
    value = float(row["value"])
    if kind == "SHIFT" and not row["error"].strip():
        error = predictor(group).errors[nucleus(groups[0][0].name)]
    else:
        error = float(row["error"])
    if not (math.isfinite(value) and 0.0 < error < math.inf):
        raise UserError(
            f"value {value}, error {error}",
            "a value is a finite number, an error is a positive number",
        )
    if kind.startswith("NOE") and value <= 0.0:
        raise UserError(f"{kind}: the distance {value} is not positive", KINDS[kind])
    bound = (row.get("bound") or "").strip()
    if bound not in _BOUNDS:
        raise UserError(f"unknown bound {bound!r}", "upper, lower, or nothing")
    if kind in COUPLINGS:
        karplus(kind, group)
    if kind == "SHIFT":
        predictor(group), nucleus(groups[0][0].name)
    target = (row.get("target") or "").strip()
    return Measurement(kind, groups, value, error, group, bound, target, bool(offset))


def _atom(word: str) -> AtomName:
    parts = word.split(":")
    if parts[-1].lstrip("-").isdigit():
        parts.append("")
    if len(parts) not in (2, 3):
        raise UserError(f"cannot read the atom {word!r}", "write 2:HA, or A:2:HA with a chain")
    chain = parts[0] if len(parts) == 3 else ""
    return AtomName(chain, int(parts[-2]), parts[-1])
