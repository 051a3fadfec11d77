"""One pass over the MD: sums of all frames, and copies of the few that were drawn before.

Memory does not depend on the number of frames: the draws need only know how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.eval.protocol import kernels
from protenix_eba.eval.protocol.alignment import Floats, centred, placements
from protenix_eba.eval.protocol.ensemble import AtomMatch
from protenix_eba.eval.protocol.metrics import fluctuation
from protenix_eba.structures.sources import Conformations

__all__ = ["Kept", "Moments", "Placement", "pool", "read_moments"]

_CHUNK_BYTES: Final = 8 << 20

Float64s = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Moments:
    """Sums over superposed frames, as deviations from the reference structure, in float64.

    Attributes:
        n: Number of frames.
        heavy: `[N, 3]` sum of the heavy atoms' deviations.
        heavy_squares: `[N]` sum of their squares.
        ca: `[3 L]` sum of the C-alpha atoms' deviations.
        ca_products: `[3 L, 3 L]` sum of their outer products.
    """

    n: int
    heavy: Float64s
    heavy_squares: Float64s
    ca: Float64s
    ca_products: Float64s

    @property
    def rmsf(self) -> Float64s:
        """Fluctuation of each heavy atom about its own mean, `[N]` in angstrom."""
        mean = self.heavy / self.n
        return fluctuation(self.heavy_squares / self.n - np.square(mean).sum(axis=1))

    @property
    def ca_rmsf(self) -> Float64s:
        """Fluctuation of the C-alpha atoms, superposed among themselves, `[L]` in angstrom."""
        return fluctuation(np.diag(self.ca_covariance).reshape(-1, 3).sum(axis=1))

    @property
    def ca_covariance(self) -> Float64s:
        """Covariance divided by the number of frames, `[3 L, 3 L]` in square angstrom."""
        mean = self.ca / self.n
        result: Float64s = self.ca_products / self.n - np.outer(mean, mean)
        return result


def pool(parts: Iterable[Moments]) -> Moments:
    """Return the moments of all their frames together."""
    names = [field.name for field in fields(Moments)]
    columns = zip(*([getattr(part, name) for name in names] for part in parts), strict=True)
    return Moments(*(sum(column) for column in columns))


@dataclass(frozen=True)
class Placement:
    """Superposition of frames: heavy atoms on heavy atoms, C-alpha atoms on C-alpha atoms.

    Fitting the C-alpha atoms once more after all heavy atoms, as AlphaFlow does, is the same as
    fitting them alone.

    Attributes:
        heavy: `[N, 3]` the reference's matched heavy atoms, centred, angstrom.
        ca: `[L, 3]` its C-alpha atoms, centred on their own.
        ca_index: `[L]` their positions among the heavy atoms.
    """

    heavy: Float64s
    ca: Float64s
    ca_index: Ints

    @classmethod
    def on(cls, structure_xyz: Floats, match: AtomMatch) -> Placement:
        """Make the superposition on the reference structure `[N_atom, 3]` of the topology file."""
        heavy = structure_xyz[match.reference_atoms]
        return cls(centred(heavy), centred(heavy[match.ca]), match.ca)


class Kept:
    """Frames that were drawn before the pass, kept superposed.

    Args:
        heavy: Name of a draw to frame numbers whose heavy atoms are kept.
        ca: The same for the C-alpha atoms.
        placement: The atoms.
    """

    def __init__(
        self, heavy: Mapping[str, Ints], ca: Mapping[str, Ints], placement: Placement
    ) -> None:
        self._order: dict[tuple[str, str], tuple[Ints, Ints]] = {}
        self.heavy = {k: self._empty("heavy", k, v, placement.heavy) for k, v in heavy.items()}
        self.ca = {k: self._empty("ca", k, v, placement.ca) for k, v in ca.items()}

    def _empty(self, kind: str, name: str, frames: Ints, atoms: Float64s) -> NDArray[np.float32]:
        order = np.argsort(frames, kind="stable")
        self._order[kind, name] = order, frames[order]
        return np.empty((len(frames), len(atoms), 3), dtype=np.float32)

    def take(self, start: int, frames: Floats, fitted_ca: Float64s, fit: _Fit) -> None:
        """Store those of the frames that were drawn.

        Args:
            start: Number of the first frame.
            frames: `[F, N, 3]` as they were read.
            fitted_ca: `[F, L, 3]`.
            fit: Superposition of the heavy atoms.
        """
        for (kind, name), (order, wanted) in self._order.items():
            low, high = np.searchsorted(wanted, [start, start + len(frames)])
            if low == high:
                continue
            rows = wanted[low:high] - start
            if kind == "ca":
                self.ca[name][order[low:high]] = fitted_ca[rows]
            else:
                self.heavy[name][order[low:high]] = fit.moved(frames, rows)


@dataclass(frozen=True)
class _Fit:
    centres: Float64s
    turns: Float64s

    def moved(self, frames: Floats, rows: Ints | slice) -> Float64s:
        result: Float64s = (frames[rows] - self.centres[rows, None]) @ self.turns[rows]
        return result


def read_moments(
    source: Conformations, atoms: Ints, placement: Placement, kept: Kept
) -> dict[int, Moments]:
    """Read every frame of every replica once.

    Args:
        source: The MD.
        atoms: `[N]` the matched heavy atoms.
        placement: What the frames are superposed on.
        kept: Receives the frames that were drawn, numbered through all replicas in their order.

    Returns:
        The moments of the frames, by number of the replica.

    Raises:
        UserError: A file that cannot be read, or that holds another number of frames than it said.
    """
    size = max(1, _CHUNK_BYTES // (12 * len(atoms)))
    # Readers are asked for ascending atoms only: no reader's order can then be wrong.
    ascending, order = np.unique(atoms, return_inverse=True)
    in_order = bool((np.diff(atoms) > 0).all())
    found = {}
    start = 0
    for replica in sorted(source.n_frames):
        n, heavy, squares = 0, np.zeros_like(placement.heavy), np.zeros(len(placement.heavy))
        ca, products = np.zeros(placement.ca.size), np.zeros((placement.ca.size,) * 2)
        for chunk in source.chunks(replica, ascending, size):
            frames = chunk if in_order else np.ascontiguousarray(chunk[:, order])
            fit = _Fit(*placements(frames, placement.heavy))
            own = frames[:, placement.ca_index]
            fitted = _Fit(*placements(own, placement.ca)).moved(own, slice(None))
            kept.take(start + n, frames, fitted, fit)
            kernels.add_moments(frames, fit.centres, fit.turns, placement.heavy, heavy, squares)
            deviation = (fitted - placement.ca).reshape(len(frames), -1)
            ca += deviation.sum(axis=0)
            products += deviation.T @ deviation
            n += len(frames)
        if n != source.n_frames[replica]:
            raise UserError(
                f"target {source.name}: replica {replica} has {n} frames, "
                f"{source.n_frames[replica]} were expected",
                "the file changed while it was read, or is cut: copy it again",
            )
        found[replica] = Moments(n, heavy, squares, ca, products)
        start += n
    return found
