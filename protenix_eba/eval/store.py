"""Results of finished targets on disk, for continued evaluations and for comparisons."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path
from protenix_eba.eval.target_result import TargetResult

__all__ = ["read_target", "require_target", "target_path", "write_target"]

_FORMAT = 1
# The part of the file that is no array: text as bytes, since pickles are not allowed.
_RECORD = "record"


def target_path(folder: Path, name: str) -> Path:
    """Return the path of a target's result in an evaluation's folder."""
    return folder / "targets" / f"{name}.npz"


def write_target(path: Path, result: TargetResult, inputs: str) -> None:
    """Write one target's result, whole or not at all.

    Args:
        path: Path from `target_path`.
        result: What was found.
        inputs: Fingerprint of everything that decided it.

    Raises:
        UserError: The folder cannot be written to.
    """
    record = {
        "format": _FORMAT,
        "inputs": inputs,
        "name": result.name,
        "values": _plain(result.values),
        "compat": _plain(result.compat),
        "floor": [_plain(row) for row in result.floor],
        "counts": _plain(result.counts),
        "notes": list(result.notes),
    }
    text = np.frombuffer(json.dumps(record, allow_nan=False).encode(), dtype=np.uint8)
    arrays: dict[str, Any] = {**result.arrays, _RECORD: text}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def read_target(path: Path, inputs: str | None = None) -> TargetResult | None:
    """Read a result back, if it is valid.

    Args:
        path: Path from `target_path`.
        inputs: The fingerprint that it must have; any when None.

    Returns:
        The result; None if there is no such file, if it was made from other inputs, or if it is cut
        or of another version: what can be computed again is no error.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            record = json.loads(archive[_RECORD].tobytes().decode())
            if record["format"] != _FORMAT or inputs not in (None, record["inputs"]):
                return None
            arrays = {key: archive[key] for key in archive.files if key != _RECORD}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return TargetResult(
        name=record["name"],
        values=_numbers(record["values"]),
        compat=_numbers(record["compat"]),
        floor=[_numbers(row) for row in record["floor"]],
        counts=_numbers(record["counts"]),
        arrays=arrays,
        notes=record["notes"],
    )


def require_target(path: Path) -> TargetResult:
    """Read a result that has to be there, as `read_target` does.

    Raises:
        UserError: It is not, or cannot be read.
    """
    result = read_target(path)
    if result is None:
        raise UserError(
            f"expected the result of a target at {path}, found nothing readable",
            "run `protenix-eba evaluate` with the same --out again: it goes on from what is there",
        )
    return result


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    return {k: float(v) if math.isfinite(v) else None for k, v in values.items()}


def _numbers(values: dict[str, float | None]) -> dict[str, float]:
    return {k: math.nan if v is None else v for k, v in values.items()}
