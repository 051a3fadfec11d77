"""What depends on the MD alone, computed for the first model and read by all others.

A file for each target holds plain arrays. Its name holds the fingerprint of all that decided them,
so that other MD, settings or code never find it; a checksum tells whether it is still what was
written.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, fingerprint
from protenix_eba.core.progress import tell
from protenix_eba.eval.definitions import Frames, Metric, floor_rows, floor_table, metric_values
from protenix_eba.eval.protocol.ensemble import AtomMatch
from protenix_eba.structures.sources import Conformations

__all__ = ["MdArrays", "MdCache"]

Arrays = dict[str, NDArray[Any]]

_CHECKSUM: Final = "sha256"


class MdArrays:
    """Named groups of arrays of one target, each computed once.

    Args:
        path: File that keeps them; without it they live as long as this object.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._groups = _read(path) if path else {}
        self._known = set(self._groups)

    def get(self, name: str, compute: Callable[[], Mapping[str, NDArray[Any]]]) -> Arrays:
        """Return a group of arrays, which is computed unless it is there already.

        Arrays that were just computed get the memory layout of those that are read from a file:
        sums in another order would differ in their last digit.
        """
        if name not in self._groups:
            found = compute()
            self._groups[name] = {key: np.array(value, order="C") for key, value in found.items()}
        return self._groups[name]

    def metrics(
        self, name: str, metrics: Sequence[Metric], frames: Frames
    ) -> tuple[dict[str, float], list[dict[str, float]]]:
        """Return what `compute_metrics` does; the floor is MD against MD and computed once."""
        floor = self.get(f"{name} floor", lambda: {"table": floor_table(metrics, frames)})
        return metric_values(metrics, frames), floor_rows(metrics, floor["table"])

    def write(self) -> None:
        """Write the file if something was computed; that it cannot be written is no failure."""
        if self._path is None or self._known == set(self._groups):
            return
        arrays: dict[str, Any] = {
            f"{group}/{key}": value
            for group, named in self._groups.items()
            for key, value in named.items()
        }
        arrays[_CHECKSUM] = _checksum(arrays)
        try:
            with atomic_path(self._path) as temporary:
                np.savez(temporary, **arrays)
        except (OSError, UserError) as error:
            tell(f"note: what depends on the MD alone is not kept for other models: {error}")


@dataclass(frozen=True)
class MdCache:
    """Where the arrays of a target are kept.

    Attributes:
        folder: Of all targets.
        inputs: Fingerprint of the MD's files, the settings and the code.
    """

    folder: Path
    inputs: str

    def of(self, name: str, match: AtomMatch, samples: Conformations) -> MdArrays:
        """Return the arrays of a target.

        Of the samples only their atoms and their numbers matter: the MD is compared with itself on
        the same atoms, and in the same numbers.
        """
        atoms = (match.reference_atoms, match.ca, match.residue)
        numbers = [samples.n_frames[replica] for replica in sorted(samples.n_frames)]
        key = fingerprint([self.inputs, match.ca_only, *(a.tolist() for a in atoms), numbers])
        return MdArrays(self.folder / f"{name}.{key}.npz")


def _read(path: Path) -> dict[str, Arrays]:
    """Return the groups of a file; none if there is no such file, or if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        whole = np.array_equal(arrays.pop(_CHECKSUM), _checksum(arrays))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile):
        whole = False
    if not whole:
        tell(f"note: {path} is damaged: what it held is computed from the MD again")
        return {}
    groups: dict[str, Arrays] = {}
    for name, value in arrays.items():
        group, _, key = name.partition("/")
        groups.setdefault(group, {})[key] = value
    return groups


def _checksum(arrays: Arrays) -> NDArray[np.uint8]:
    """Return the SHA-256 over names, types, shapes and values, `[32]`."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name]
        total.update(f"{name} {value.dtype.str} {value.shape} ".encode())
        total.update(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
    return np.frombuffer(total.digest(), dtype=np.uint8)
