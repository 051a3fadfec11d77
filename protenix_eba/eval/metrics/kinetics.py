"""Metrics that need MD frames in order of time: slow motions, number of independent frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from protenix_eba.eval.definitions import Metric
from protenix_eba.eval.md_cache import MdArrays
from protenix_eba.eval.metrics.distributions import evenly
from protenix_eba.eval.target_result import Found
from protenix_eba.structures.sources import Conformations

__all__ = ["KINETICS", "compare_kinetics", "effective_frames", "tica_axes"]

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

# 24 C-alpha atoms make 276 distances: enough for the slow motions of a protein, and few for
# 1,000 frames.
_MAX_ATOMS: Final = 24
_MAX_FRAMES: Final = 1000
_MIN_FRAMES: Final = 100
_LAG_FRACTION: Final = 50
# Many distances are nearly combinations of others, and TICA finds slow noise in what remains.
_VARIANCE_KEPT: Final = 0.99
_MAX_POINTS: Final = 1000
# Sokal's window: five autocorrelation times.
_WINDOW: Final = 5.0


@dataclass(frozen=True)
class SlowMotions:
    """The input of the metrics of `KINETICS`; without samples, they are not defined.

    Attributes:
        md: `[F, 2]` all frames along the MD's two slowest motions, in standard deviations of the
            MD.
        replica: `[F]` the replica of each.
        samples: `[S, 2]` the samples likewise.
        independent_frames: Number of independent frames of all replicas, by the MD's largest
            motion.
    """

    md: Floats
    replica: Ints
    samples: Floats
    independent_frames: float = math.nan

    @property
    def distance(self) -> float:
        """Distance between MD and samples."""
        return _wasserstein2(self.md, self.samples) if len(self.samples) else math.nan

    def floors(self) -> Iterator[SlowMotions]:
        """Yield each replica in the place of the samples, with as many frames if it has them."""
        replicas = dict.fromkeys(self.replica.tolist())
        for number in replicas if len(replicas) > 1 else ():
            mine = self.replica == number
            own = self.md[mine]
            yield SlowMotions(
                self.md[~mine], self.replica[~mine], own[evenly(len(own), len(self.samples))]
            )


def compare_kinetics(
    reference: Conformations,
    samples: Conformations,
    md_ca: Ints,
    sample_ca: Ints,
    kept: MdArrays | None = None,
) -> Found:
    """Find the slow motions of the MD and the distribution of the samples along them.

    Distances between at most 24 evenly spaced C-alpha atoms are read from at most 1,000 evenly
    spaced frames of each replica; the lag time is a fiftieth of the longest replica.

    Args:
        reference: MD, its frames in the order of time.
        samples: The ensemble; its order does not matter.
        md_ca: `[L]` matched C-alpha atoms among the reference's atoms.
        sample_ca: `[L]` the same atoms among the samples'.
        kept: What is known of the MD.

    Returns:
        The metrics of `KINETICS`; arrays `md_tica` and `sample_tica` (`[n, 2]`); notes on what is
        not defined and why.

    Raises:
        UserError: Frames that cannot be read.

    Source: Perez-Hernandez et al., JCP 2013 (TICA).
    """
    kept = kept or MdArrays()
    chosen = evenly(len(md_ca), _MAX_ATOMS)
    md = kept.get("slow motions", lambda: _slow_motions(reference, md_ca[chosen]))
    known = md["projected"], md["replica"]
    if "mean" not in md:
        undefined = kept.metrics("kinetics", KINETICS, SlowMotions(*known, np.empty((0, 2))))
        note = f"no TICA: it needs {_MIN_FRAMES} frames in time order of each replica"
        return Found(*undefined, notes=[note])
    drawn = np.concatenate([_distances(samples, r, sample_ca[chosen]) for r in samples.n_frames])
    projected = (drawn - md["mean"]) @ md["axes"] / md["scale"]
    motions = SlowMotions(*known, projected, float(md["independent_frames"]))
    arrays = {
        "md_tica": motions.md[evenly(len(motions.md), _MAX_POINTS)],
        "sample_tica": motions.samples,
    }
    return Found(*kept.metrics("kinetics", KINETICS, motions), arrays)


def _slow_motions(reference: Conformations, atoms: Ints) -> dict[str, NDArray[Any]]:
    """Return the MD's slow motions: mean and axes of distances, scale, and frames along them.

    Where atoms or frames are too few there is nothing but one row for each replica.
    """
    md = {replica: _distances(reference, replica, atoms) for replica in reference.n_frames}
    if len(atoms) < 3 or any(len(distances) < _MIN_FRAMES for distances in md.values()):
        return {"projected": np.full((len(md), 2), np.nan), "replica": np.array(list(md))}
    mean, axes = tica_axes(list(md.values()))
    projected = np.concatenate([(distances - mean) @ axes for distances in md.values()])
    scale = projected.std(axis=0)
    scale[scale == 0.0] = 1.0
    return {
        "mean": mean,
        "axes": axes,
        "scale": scale,
        "projected": projected / scale,
        "replica": np.repeat(list(md), [len(distances) for distances in md.values()]),
        "independent_frames": np.array(sum(map(effective_frames, _pc1(list(md.values()))))),
    }


def _distances(source: Conformations, replica: int, atoms: Ints) -> Floats:
    """Return distances `[<= 1000, pairs]` in angstrom, of evenly spaced frames."""
    frames = evenly(source.n_frames[replica], _MAX_FRAMES)
    xyz = source.frames(replica, frames, atoms).astype(np.float64)
    first, second = np.triu_indices(len(atoms), k=1)
    distances: Floats = np.linalg.norm(xyz[:, first] - xyz[:, second], axis=2)
    return distances


def tica_axes(replicas: list[Floats]) -> tuple[Floats, Floats]:
    """Find the two slowest linear combinations of features, by reversible TICA.

    Only the principal components with 99% of the variance take part. Written here, since deeptime,
    which the tests hold it to, loads torch and takes five seconds to import in every process.

    Args:
        replicas: `[F, D]` each, frames in the order of time.

    Returns:
        Mean `[D]` and axes `[D, 2]`, along which the MD has variance 1; the second is zero where
        the features have only one dimension.
    """
    lag = max(1, max(map(len, replicas)) // _LAG_FRACTION)
    now = np.concatenate([features[:-lag] for features in replicas])
    later = np.concatenate([features[lag:] for features in replicas])
    mean = (now.mean(axis=0) + later.mean(axis=0)) / 2.0
    now, later = now - mean, later - mean
    covariance = (now.T @ now + later.T @ later) / (2.0 * len(now))
    delayed = (now.T @ later + later.T @ now) / (2.0 * len(now))
    variance, vectors = (x[..., ::-1] for x in np.linalg.eigh(covariance))
    n_kept = int(np.searchsorted(np.cumsum(variance), _VARIANCE_KEPT * variance.sum())) + 1
    whiten = vectors[:, :n_kept] / np.sqrt(variance[:n_kept])
    _, slow = np.linalg.eigh(whiten.T @ delayed @ whiten)
    axes = np.zeros((len(mean), 2))
    found = whiten @ slow[:, ::-1][:, :2]
    axes[:, : found.shape[1]] = found
    return mean, axes


def _pc1(replicas: list[Floats]) -> list[Floats]:
    """Return the projection of each replica on the first principal component of all."""
    together = np.concatenate(replicas)
    mean = together.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(together.T))
    return [(x - mean) @ vectors[:, -1] for x in replicas]


def effective_frames(series: Floats) -> float:
    """Return the number of independent values in a correlated series, 1 to F.

    Args:
        series: `[F]` in the order of time. About the series' own mean, so that a motion slower
            than the series is not seen.

    Source: Sokal, "Monte Carlo Methods in Statistical Mechanics" (1997), automatic windowing.
    """
    n = len(series)
    centred = series - series.mean()
    if not np.any(centred):
        return 1.0
    spectrum = np.fft.rfft(centred, 2 * n)
    correlation = np.fft.irfft(spectrum * np.conj(spectrum))[:n]
    times = 2.0 * np.cumsum(correlation / correlation[0]) - 1.0
    within = np.arange(n) >= _WINDOW * times
    window = int(np.argmax(within)) if within.any() else n - 1
    return float(np.clip(n / times[window], 1.0, n))


def _wasserstein2(first: Floats, second: Floats) -> float:
    """Return the 2-Wasserstein distance between equal numbers of evenly spaced points."""
    n = min(len(first), len(second), _MAX_POINTS)
    cost = cdist(first[evenly(len(first), n)], second[evenly(len(second), n)], "sqeuclidean")
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


KINETICS: Final[tuple[Metric, ...]] = (
    Metric(
        "tica_w2",
        "TICA W2",
        "",
        "lower",
        "2-Wasserstein distance on the MD's two slowest motions (TICA of C-alpha distances), in "
        "standard deviations of the MD.",
        compute=lambda m: m.distance,
    ),
    Metric(
        "md_effective_frames",
        "Independent MD frames",
        "",
        "neither",
        "Frames of the MD over the autocorrelation time of its largest motion, all replicas.",
        digits=0,
        compute=lambda m: m.independent_frames,
        has_floor=False,
    ),
)
