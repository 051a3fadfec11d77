"""Sets of protein domains to train and test with, in one npz file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, require_file

__all__ = ["SPLITS", "Domain", "read_domains", "write_domains"]

SPLITS: Final = ("train", "valid", "test")
_CENTI: Final = 100.0


@dataclass(frozen=True)
class Domain:
    """The backbone of a domain.

    Attributes:
        name: Such as "1a6j.B".
        split: One of `SPLITS`.
        topology: CATH topology such as "3.40.930", or another name of its group.
        sequence: One letter per residue.
        backbone: `[L, 4, 3]` N, CA, C, CB in angstrom, an ideal CB for glycine; no chain breaks.
    """

    name: str
    split: str
    topology: str
    sequence: str
    backbone: Tensor

    @property
    def ca(self) -> Tensor:
        """`[L, 3]`."""
        return self.backbone[:, 1]


def read_domains(path: Path | str, split: str | None = None) -> list[Domain]:
    """Read a set: all domains, or those of one split.

    Args:
        path: npz file with names, split, cath_topology, seq, length `[N]` and
            coords_centi_angstrom `[sum of lengths, 4, 3]`.
        split: One of `SPLITS`.

    Raises:
        UserError: It cannot be read, or has no such domains.
    """
    path = require_file(path, "domains")
    try:
        with np.load(path, allow_pickle=False) as archive:
            columns = [archive[key] for key in ("names", "split", "cath_topology", "seq", "length")]
            coordinates = archive["coords_centi_angstrom"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(
            f"domains: cannot read {path}: {error}", "make it anew, or check the path"
        ) from error
    ends = np.cumsum(columns[-1])
    if len(ends) == 0 or ends[-1] != len(coordinates):
        raise UserError(f"domains: the lengths in {path} do not sum to its {len(coordinates)} rows")
    chosen = []
    for name, part, topology, sequence, length, end in zip(*columns, ends, strict=True):
        if split in (None, str(part)):
            rows = coordinates[end - length : end].astype(np.float32) / _CENTI
            chosen.append(
                Domain(str(name), str(part), str(topology), str(sequence), torch.from_numpy(rows))
            )
    if not chosen:
        raise UserError(f"domains: {path} has none of the split {split!r}")
    return chosen


def write_domains(path: Path | str, domains: Sequence[Domain]) -> None:
    """Write a set as `read_domains` reads it, coordinates rounded to 0.01 angstrom."""
    backbone = torch.cat([domain.backbone for domain in domains])
    centred = backbone.new_tensor(_CENTI) * backbone
    if float(centred.abs().max()) > np.iinfo(np.int16).max:
        raise UserError("domains: a coordinate is beyond 327 angstrom", "centre the domains")
    columns: dict[str, Any] = {
        "coords_centi_angstrom": centred.round().numpy().astype(np.int16),
        "names": np.array([domain.name for domain in domains]),
        "split": np.array([domain.split for domain in domains]),
        "cath_topology": np.array([domain.topology for domain in domains]),
        "seq": np.array([domain.sequence for domain in domains]),
        "length": np.array([len(domain.sequence) for domain in domains], dtype=np.int32),
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **columns)
