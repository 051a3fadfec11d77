"""The MD's side of a comparison: what one pass over all of its frames gives, with the floor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.eval.definitions import floor_table
from protenix_eba.eval.protocol import kernels
from protenix_eba.eval.protocol.alignment import Floats
from protenix_eba.eval.protocol.draws import Draws
from protenix_eba.eval.protocol.ensemble import AtomMatch
from protenix_eba.eval.protocol.exposure import Bools, SideChains
from protenix_eba.eval.protocol.metrics import (
    PrincipalComponents,
    leading_axes,
    principal_components,
    rmsf,
)
from protenix_eba.eval.protocol.panel import (
    CONTACT_ANGSTROM,
    PROTOCOL_METRICS,
    Panel,
    Side,
    Structure,
)
from protenix_eba.eval.protocol.stream import Kept, Moments, Placement, pool, read_moments
from protenix_eba.structures.sources import Conformations

__all__ = ["ReferenceSide", "check_size", "reference_arrays"]

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ReferenceSide:
    """The MD as the protocol sees it, from the arrays of `reference_arrays`."""

    arrays: Arrays

    @property
    def structure(self) -> Structure:
        """Properties of the reference structure."""
        return Structure(self.arrays["contacts"], self.arrays.get("buried"))

    @property
    def side(self) -> Side:
        """The ensemble, as the samples are compared with it."""
        a = self.arrays
        axes = PrincipalComponents(a["axes_mean"], a["axes"])
        return Side(a["rmsf"], axes, a["heavy"], a["ca"], a["second_ca"], a.get("exposed"))

    @property
    def n_frames(self) -> list[int]:
        """Number of frames of each replica."""
        found: list[int] = self.arrays["n_frames"].tolist()
        return found


def check_size(name: str, side: str, n_frames: int) -> None:
    """Refuse an ensemble of fewer than two conformations.

    Raises:
        UserError: It has none or one.
    """
    if n_frames < 2:
        raise UserError(
            f"target {name}: {n_frames} conformations in the {side}, at least two are needed",
            "sample more conformations (AlphaFlow's protocol: 250)",
        )


def reference_arrays(
    reference: Conformations,
    match: AtomMatch,
    placement: Placement,
    side_chains: SideChains | None,
    draws: Draws,
) -> Arrays:
    """Read every frame of the MD once, and compute all that needs no sample.

    Args:
        reference: The MD, all replicas.
        match: Pairs of atoms of the reference and the samples.
        placement: What frames are superposed on.
        side_chains: Side chains of the matched atoms; None without side chains.
        draws: Frames to keep.

    Returns:
        What `Side` and `Structure` hold: `rmsf [N]`, `axes_mean [3 L]`, `axes [2, 3 L]`,
        `heavy [1000, N, 3]`, `ca` and `second_ca [S, L, 3]`, `contacts [L, L]`, and with side
        chains `exposed [1000, L]` and `buried [L]`; `heavy_replica [1000]`, `n_frames [R]`;
        for the figures `ca_rmsf [L]`, `ca_rmsf_replicas [R, L]`, `pca [<= 1500, 2]` and
        `floor_rmsf [R, 2, N]`; and the floor of `PROTOCOL_METRICS` as `floor [R, M]`.

    Raises:
        UserError: Files that cannot be read.
    """
    return _Read(reference, match, placement, side_chains, draws).arrays()


class _Read:
    """MD whose frames have been read."""

    def __init__(
        self,
        reference: Conformations,
        match: AtomMatch,
        placement: Placement,
        side_chains: SideChains | None,
        draws: Draws,
    ) -> None:
        self.placement, self.side_chains, self.draws = placement, side_chains, draws
        self.kept = _kept(draws, placement)
        self.parts = read_moments(reference, match.reference_atoms, placement, self.kept)
        self.every = pool(self.parts.values())

    def arrays(self) -> Arrays:
        structure, md = self._structure(), self._side()
        floor = list(self._floor_sides(md))
        profiles = [(own.rmsf, others.rmsf) for others, own in floor]
        arrays = {
            "rmsf": md.rmsf,
            "axes_mean": md.axes.mean,
            "axes": md.axes.axes,
            "heavy": md.heavy,
            "heavy_replica": self.draws.gaussian_replica,
            "ca": md.ca,
            "second_ca": md.second_ca,
            "exposed": md.exposed,
            "contacts": structure.contacts,
            "buried": structure.buried,
            "n_frames": np.array([part.n for part in self.parts.values()]),
            "ca_rmsf": self.every.ca_rmsf,
            "ca_rmsf_replicas": np.array([part.ca_rmsf for part in self.parts.values()]),
            "pca": md.axes.project(self.kept.ca["plotted"]),
            "floor_rmsf": np.array(profiles).reshape(len(floor), 2, len(md.rmsf)),
            "floor": floor_table(PROTOCOL_METRICS, Panel(structure, md, md, floor)),
        }
        return {key: value for key, value in arrays.items() if value is not None}

    def _structure(self) -> Structure:
        contacts = kernels.count_contacts(self.placement.ca[None], CONTACT_ANGSTROM) > 0
        heavy = self.placement.heavy.astype(np.float32)
        return Structure(contacts, self.side_chains.buried(heavy) if self.side_chains else None)

    def _side(self) -> Side:
        heavy, ca = self.kept.heavy["gaussian"], self.kept.ca
        return Side(
            rmsf=self.every.rmsf,
            axes=self._axes(self.every),
            heavy=heavy,
            ca=ca["first"],
            second_ca=ca["second"],
            exposed=self._exposed(heavy),
        )

    def _exposed(self, heavy: Floats) -> Bools | None:
        return self.side_chains.exposed(heavy) if self.side_chains else None

    def _floor_sides(self, md: Side) -> Iterator[tuple[Side, Side]]:
        """Yield the other replicas as MD, and as many frames of each one as there are samples.

        Exposure costs too much to be computed again: it is of the frames that the protocol draws
        anyway, this replica's against the others'.
        """
        ca = self.kept.ca
        for replica in self.draws.floor:
            others = pool(part for number, part in self.parts.items() if number != replica)
            mine = self.draws.gaussian_replica == replica
            own, own_ca = self.kept.heavy[f"own {replica}"], ca[f"own {replica}"]
            yield (
                Side(
                    rmsf=others.rmsf,
                    axes=self._axes(others),
                    heavy=md.heavy[~mine],
                    ca=ca[f"others {replica}"],
                    second_ca=ca[f"second others {replica}"],
                    exposed=None if md.exposed is None else md.exposed[~mine],
                ),
                Side(
                    rmsf=rmsf(own),
                    axes=principal_components(own_ca),
                    heavy=own,
                    ca=own_ca,
                    second_ca=own_ca,
                    exposed=None if md.exposed is None else md.exposed[mine],
                ),
            )

    def _axes(self, moments: Moments) -> PrincipalComponents:
        mean = self.placement.ca.ravel() + moments.ca / moments.n
        return leading_axes(mean, moments.ca_covariance)


def _kept(draws: Draws, placement: Placement) -> Kept:
    heavy = {"gaussian": draws.gaussian}
    ca = {"first": draws.first, "second": draws.second, "plotted": draws.plotted}
    for replica, floor in draws.floor.items():
        heavy[f"own {replica}"] = ca[f"own {replica}"] = floor.own
        ca[f"others {replica}"] = floor.others
        ca[f"second others {replica}"] = floor.second_others
    return Kept(heavy, ca, placement)
