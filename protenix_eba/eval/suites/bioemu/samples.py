"""Samples for BioEmu's benchmarks: found by their sequence, without torn ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.eval.suites.bioemu.physical import physical
from protenix_eba.eval.suites.ensembles import coordinates
from protenix_eba.eval.suites.registry import Float64s, Request
from protenix_eba.structures.sources import Conformations

__all__ = ["BACKBONE", "Joined", "Sampled", "by_test_case", "joined", "residue_letters", "sampled"]

BACKBONE: Final = ("N", "CA", "C", "O")


@dataclass(frozen=True)
class Sampled:
    """Conformations of one sequence.

    Attributes:
        name: Name of the ensemble.
        sequence: One-letter code.
        backbone: `[S, L, 4, 3]` N, CA, C and O, angstrom; torn conformations are left out.
        weights: `[S]`, which sum to 1.
        n_all: How many there were.
    """

    name: str
    sequence: str
    backbone: NDArray[np.float32]
    weights: Float64s
    n_all: int

    @property
    def ca(self) -> NDArray[np.float32]:
        """C-alpha atoms, `[S, L, 3]` in angstrom."""
        return self.backbone[:, :, 1]


def residue_letters(topology: mdtraj.Topology) -> str:
    """Return the amino acids of all chains, X for one that has no letter."""
    return "".join(r.code or "X" for r in topology.residues if r.is_protein)


def by_test_case(
    samples: Mapping[str, Conformations], cases: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Return the names of each test case's ensembles; other ensembles are ignored.

    Args:
        samples: Name to ensemble.
        cases: Sequence to test cases.

    Raises:
        UserError: No ensemble is of a test case.
    """
    found: dict[str, list[str]] = {}
    for name, source in samples.items():
        for case in cases.get(residue_letters(source.topology), ()):
            found.setdefault(case, []).append(name)
    if not found:
        raise UserError(
            f"none of the {len(samples)} ensembles has the sequence of a test case",
            "sample the sequences of the benchmark's testcases.csv, whole and unchanged",
        )
    return dict(sorted(found.items()))


def sampled(request: Request, name: str, *, filter_torn: bool) -> Sampled:
    """Read an ensemble.

    Args:
        request: The request, with the ensemble and its weights.
        name: Name of the ensemble.
        filter_torn: Leave out conformations with a broken chain or a clash.

    Raises:
        UserError: Backbone atoms are missing, or no conformation is left.
    """
    source = request.samples[name]
    residues = [r for r in source.topology.residues if r.is_protein]
    atoms = np.array([_backbone(residue, name) for residue in residues], dtype=np.int64)
    heavy = [a for r in residues for a in r.atoms if a.element.symbol != "H"]
    index = np.array([a.index for a in heavy], dtype=np.int64)
    xyz = coordinates(source, index)
    row = {atom: n for n, atom in enumerate(index.tolist())}
    backbone = xyz[:, np.vectorize(row.__getitem__, otypes=[np.int64])(atoms)]
    weights, n_all = request.weights_of(name), len(xyz)
    if filter_torn:
        position = {residue: n for n, residue in enumerate(residues)}
        owner = np.array([position[a.residue] for a in heavy], dtype=np.int64)
        kept = physical(xyz, owner, backbone)
        backbone, weights = backbone[kept], weights[kept]
    if not len(backbone) or weights.sum() <= 0.0:
        raise UserError(
            f"{name}: all of its {n_all} conformations have a broken chain or a clash",
            "--set filter_torn=false keeps them",
        )
    return Sampled(name, residue_letters(source.topology), backbone, weights / weights.sum(), n_all)


@dataclass(frozen=True)
class Joined:
    """A property of all conformations of a test case, which may be in several ensembles.

    Attributes:
        values: `[S, ...]` of each conformation.
        weights: `[S]`, which sum to 1; each ensemble has as much as it has whole conformations.
        whole: Share of the conformations that are not torn.
    """

    values: Float64s
    weights: Float64s
    whole: float


def joined(
    request: Request,
    names: Sequence[str],
    compute: Callable[[Sampled], NDArray[np.floating]],
    *,
    filter_torn: bool,
) -> Joined:
    """Compute a property of each conformation of some ensembles.

    Args:
        request: The request, with the ensembles.
        names: Names of the ensembles.
        compute: Function that gives `[S, ...]` for one ensemble.
        filter_torn: As for `sampled`.
    """
    values, weights, n_all = [], [], 0
    for name in names:
        samples = sampled(request, name, filter_torn=filter_torn)
        values.append(np.asarray(compute(samples), dtype=np.float64))
        weights.append(samples.weights * len(samples.weights))
        n_all += samples.n_all
    together = np.concatenate(weights)
    return Joined(np.concatenate(values), together / together.sum(), len(together) / n_all)


def _backbone(residue: mdtraj.core.topology.Residue, name: str) -> list[int]:
    found = {atom.name: atom.index for atom in residue.atoms}
    missing = [atom for atom in BACKBONE if atom not in found]
    if missing:
        raise UserError(
            f"{name}: residue {residue} has no {', '.join(missing)}",
            "these benchmarks need N, CA, C and O of each residue",
        )
    return [found[atom] for atom in BACKBONE]
