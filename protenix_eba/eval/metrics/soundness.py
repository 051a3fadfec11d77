"""Shares of conformations that could be a protein's at all, and of those with each fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.definitions import Metric
from protenix_eba.eval.md_cache import MdArrays
from protenix_eba.eval.protocol.drawn import Drawn
from protenix_eba.eval.target_result import Found
from protenix_eba.protein.validity import Checker, Validity

__all__ = ["SOUNDNESS", "soundness"]

# Without whole backbones.
_OF_CHAINS: Final = ("valid_percent", "broken_percent")


@dataclass(frozen=True)
class Checked:
    """The input of these metrics: conformations and their faults.

    Attributes:
        checker: Of the atoms.
        xyz: `[S, N, 3]` the samples, angstrom.
        replicas: `[F, N, 3]` of each replica of the MD.
    """

    checker: Checker
    xyz: NDArray[np.floating]
    replicas: Sequence[NDArray[np.floating]] = ()

    @cached_property
    def found(self) -> Validity:
        """Faults of each conformation."""
        return self.checker.check(self.xyz)

    def floors(self) -> Iterator[Checked]:
        """Yield each replica with all of its frames: the shares do not depend on their number."""
        if len(self.replicas) > 1:
            yield from (Checked(self.checker, xyz) for xyz in self.replicas)


def soundness(drawn: Drawn, kept: MdArrays | None = None) -> Found:
    """Compute the metrics of `SOUNDNESS`; from C-alphas alone only chains can be judged.

    Args:
        drawn: Frames of one target.
        kept: What is known of its MD.
    """
    checker = Checker.of(drawn.topology)
    numbers = np.unique(drawn.md_replica)
    replicas = [drawn.md_xyz[drawn.md_replica == number] for number in numbers]
    whole = len(checker.peptide_bonds) > 0
    known = [metric for metric in SOUNDNESS if whole or metric.key in _OF_CHAINS]
    checked = Checked(checker, drawn.sample_xyz, replicas)
    return Found(*(kept or MdArrays()).metrics("soundness", known, checked))


def _percent(values: NDArray[np.bool_] | NDArray[np.float64]) -> float:
    return 100.0 * float(np.mean(values))


SOUNDNESS: Final[tuple[Metric, ...]] = (
    Metric(
        "valid_percent",
        "Valid conformations",
        "%",
        "higher",
        "Share without a broken chain, a D-amino acid or a clash.",
        digits=1,
        compute=lambda c: _percent(c.found.valid),
    ),
    Metric(
        "broken_percent",
        "Broken chains",
        "%",
        "lower",
        "Share with a C-N distance above 2.0 or a CA-CA distance above 4.5 angstrom.",
        digits=1,
        compute=lambda c: _percent(c.found.chain_breaks > 0),
    ),
    Metric(
        "d_residue_percent",
        "With D-amino acids",
        "%",
        "lower",
        "Share with any of them.",
        digits=1,
        compute=lambda c: _percent(c.found.d_residues > 0),
    ),
    Metric(
        "clash_percent",
        "With clashes",
        "%",
        "lower",
        "Share with heavy atoms of residues that are not bonded within 2.0 angstrom.",
        digits=1,
        compute=lambda c: _percent(c.found.clashes > 0),
    ),
    Metric(
        "bond_outlier_percent",
        "Bond outliers",
        "%",
        "lower",
        "Backbone bonds 0.2 angstrom or more from the standard length, mean over conformations.",
        digits=1,
        compute=lambda c: _percent(c.found.bond_outliers),
    ),
    Metric(
        "angle_outlier_percent",
        "Angle outliers",
        "%",
        "lower",
        "Backbone bond angles 15 degrees or more from the standard value (Engh and Huber, 2001), "
        "mean over conformations; MD of peptides at 300 K has 0.02.",
        digits=2,
        compute=lambda c: _percent(c.found.angle_outliers),
    ),
)
