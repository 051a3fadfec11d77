"""Folding a target: decoys of a network or of the peer, their hand, and the selected one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.core.seeds import stream_generator
from protenix_eba.ebmfold.handedness import (
    dihedral_divergence,
    hand_cost,
    is_mirrored,
    with_native_hand,
)
from protenix_eba.ebmfold.likelihood import PairLikelihood
from protenix_eba.ebmfold.metrics import ca_rmsd, gdt_ts, is_mirror_image, lddt_ca, tm_score
from protenix_eba.ebmfold.network import ScoreNetwork
from protenix_eba.ebmfold.peer import PeerFolder
from protenix_eba.ebmfold.sampling import Denoiser, Generators, Sampler, anneal, noised, refiner
from protenix_eba.ebmfold.target import Target

__all__ = ["Decoys", "decoy_generators", "fold", "fold_by_peer", "score_table"]

# Decoys are folded together while they have fewer pairs of residues than this: 1 GB of memory.
_PAIRS_AT_A_TIME: Final = 500_000
# Coordinates of a PDB file end before 10,000 angstrom on one side and at -999 on the other.
_WIDEST: Final = 999.0
# Angstrom. From distances of width 1.5, 3 of 14 rough traces (7 validation domains) have the wrong
# hand; after these levels, and after 5, 9 or 16 of them, dihedral angles tell all of them.
_LEVELS_TO_TELL_HANDS: Final = (8.0, 3.0, 1.0)
Told = Callable[[int], None]


@dataclass(frozen=True)
class Decoys:
    """Traces of a target, in the hand that looks native.

    Attributes:
        ca: `[B, L, 3]` in angstrom.
        reflected: `[B]` whether it was made from the mirror image of a sample.
        negative_log_likelihood: `[B]` of the predictions, nats per pair.
        n_evaluations: Evaluations of the network, or of the peer's objective, per decoy.
        cpu_seconds: Process time per decoy.
    """

    ca: Tensor
    reflected: Tensor
    negative_log_likelihood: Tensor
    n_evaluations: float
    cpu_seconds: float

    @property
    def selected(self) -> int:
        """Number of the decoy that the predictions make likeliest."""
        return int(self.negative_log_likelihood.argmin())


def decoy_generators(seed: int, numbers: range) -> list[torch.Generator]:
    """Return the generators of decoys; decoy n depends on (seed, n), not on its batch."""
    return [stream_generator(seed, number) for number in numbers]


@torch.no_grad()
def fold(
    network: ScoreNetwork,
    target: Target,
    sampler: Sampler,
    n_decoys: int,
    seed: int,
    *,
    start: Tensor | None = None,
    hand_each_level: bool = False,
    told: Told = lambda n: None,
) -> Decoys:
    """Sample decoys with a network.

    Args:
        network: Network in evaluation mode.
        target: The protein to fold, of any length; memory grows with L^2.
        sampler: One of `SAMPLERS`, or `refiner` of one with `start`.
        n_decoys: B.
        seed: Seed of the random numbers.
        start: `[L, 3]` a trace to refine; decoys then keep its hand.
        hand_each_level: Whether the hand is seen to after each noise level, as in the paper, and
            not only at the end.
        told: Called with the number of decoys that are finished.

    Raises:
        UserError: The decoys diverge.
    """
    begun = time.process_time()
    sample_batch = _BatchSampler(network, target, sampler, hand_each_level)
    at_a_time = max(1, _PAIRS_AT_A_TIME // target.n_residues**2)
    batches, reflected = [], []
    for first in range(0, n_decoys, at_a_time):
        numbers = range(first, min(first + at_a_time, n_decoys))
        x, turned = sample_batch(seed, numbers, start)
        batches.append(x)
        reflected.append(turned)
        told(len(numbers))
    n_evaluations = sample_batch.denoise.calls / n_decoys
    return _decoys(target, torch.cat(batches), torch.cat(reflected), n_evaluations, begun)


class _BatchSampler:
    """Runs a sampler on a target, a batch of decoys at a time."""

    def __init__(
        self, network: ScoreNetwork, target: Target, sampler: Sampler, hand_each_level: bool
    ) -> None:
        self.denoise = _CountedDenoiser(network, target)
        self._target = target
        self._sampler = sampler
        self._hand_each_level = hand_each_level
        self._peer = PeerFolder(target) if sampler.with_likelihood else None

    def __call__(self, seed: int, numbers: range, trace: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return decoys `[B, L, 3]`, and which are made from mirror images `[B]`."""
        generators = decoy_generators(seed, numbers)
        start = None if trace is None else trace.expand(len(numbers), -1, -1)
        if self._peer is None and start is not None:
            start = noised(start, self._sampler, generators)
        elif self._peer is not None and start is None:
            start = self._begin(self._peer, seed, numbers)
        x = anneal(
            self.denoise,
            (self._target.n_residues, 3),
            generators,
            self._sampler,
            start=start,
            after_level=self._after_level,
            before_rise=self._descend,
        )
        if start is None:
            return _more_native(self.denoise, x, generators, self._sampler, self._target)
        return x, torch.zeros(len(x), dtype=torch.bool)

    def _begin(self, peer: PeerFolder, seed: int, numbers: range) -> Tensor:
        """Return rough traces `[B, L, 3]` of the peer, in the hand that the network makes native.

        Which hand looks native is told after a few levels: rough traces are too poor to tell.
        """
        draws = [np.random.default_rng([seed, number]) for number in numbers]
        rough = torch.stack([peer.begin(draw) for draw in draws])
        x = rough
        for level in _LEVELS_TO_TELL_HANDS:
            x = self.denoise(x, level)
        mirrored = is_mirrored(x, self._target.bonded)
        return torch.where(mirrored[:, None, None], -rough, rough)

    def _after_level(self, x: Tensor) -> Tensor:
        return with_native_hand(x, self._target.bonded) if self._hand_each_level else x

    def _descend(self, x: Tensor) -> Tensor:
        return x if self._peer is None else torch.stack([self._peer.descend(trace) for trace in x])


class _CountedDenoiser:
    """A network on one target that counts the structures it denoises."""

    def __init__(self, network: ScoreNetwork, target: Target) -> None:
        self._network = network
        self._condition = network.prepare(target)
        self._device = next(network.parameters()).device
        self.calls = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += len(x)
        level = torch.full((len(x),), sigma, device=self._device)
        denoised: Tensor = self._network(x.to(self._device), level, self._condition)
        return denoised.to(x)


def _more_native(
    denoise: Denoiser, x: Tensor, generators: Generators, sampler: Sampler, target: Target
) -> tuple[Tensor, Tensor]:
    """Return the samples or their mirror images, and which are mirror images.

    Samples whose helices are right-handed in a mirrored fold look native and are not. Refined from
    a small noise level, with a network that sees chirality, a trace comes into the hand of its
    fold: of the two refined traces of such a sample, the one with the right fold looks more native,
    and orientations, if they are predicted, are likelier in it.
    """
    if sampler.hand_level is None:
        turned = is_mirrored(x, target.bonded)
        return torch.where(turned[:, None, None], -x, x), turned
    again = refiner(sampler, sampler.hand_level)
    shape = (target.n_residues, 3)
    one, other = (
        anneal(denoise, shape, generators, again, start=noised(y, again, generators))
        for y in (x, -x)
    )
    cost, cost_other = (_strangeness(y, target) for y in (one, other))
    turned = cost_other < cost
    return torch.where(turned[:, None, None], other, one), turned


def _strangeness(x: Tensor, target: Target) -> Tensor:
    """Return `[B]` how little traces resemble the native hand.

    Refined against distances, a mirrored fold with right-handed helices is as likely as the native
    one: only orientations tell more than dihedral angles do.
    """
    if not target.predictions.has_orientations:
        return dihedral_divergence(x, target.bonded)
    likelihood = PairLikelihood(target)
    return torch.tensor([hand_cost(trace, target.bonded, likelihood) for trace in x])


def fold_by_peer(
    target: Target, n_decoys: int, seed: int, *, told: Told = lambda n: None
) -> Decoys:
    """Make decoys by multidimensional scaling and L-BFGS; see `fold`."""
    begun = time.process_time()
    folder = PeerFolder(target)
    traces = []
    for number in range(n_decoys):
        traces.append(folder(np.random.default_rng([seed, number])))
        told(1)
    ca = torch.stack(traces)
    unturned = torch.zeros(n_decoys, dtype=torch.bool)
    return _decoys(target, ca, unturned, folder.n_evaluations / n_decoys, begun)


def _decoys(
    target: Target, ca: Tensor, reflected: Tensor, n_evaluations: float, begun: float
) -> Decoys:
    extent = float((ca - ca.mean(1, keepdim=True)).abs().max())
    if not extent < _WIDEST:
        raise UserError(
            f"{target.name}: the decoys extend to {extent:.3g} angstrom",
            "the network did not learn to fold: train it longer, or take other weights",
        )
    likelihood = PairLikelihood(target)
    nll = torch.stack([likelihood(trace) for trace in ca])
    seconds = (time.process_time() - begun) / len(ca)
    return Decoys(ca, reflected, nll, n_evaluations, seconds)


def score_table(
    decoys: Decoys,
    native: Tensor | None = None,
    residues: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> list[dict[str, Any]]:
    """Return the scores of decoys, a row each, for JSON.

    Args:
        decoys: B of them.
        native: `[N, 3]` the native C-alpha atoms; without them the metrics are None.
        residues: Which residues of the target, and of the native structure, are compared; None for
            all.

    Returns:
        Rows with `lddt_ca, gdt_ts, tm_score, ca_rmsd_angstrom, mirrored, negative_log_likelihood,
        reflected, selected`; `mirrored` says that the mirror image is nearer to the native
        structure.
    """
    columns: dict[str, list[Any]] = {
        key: [None] * len(decoys.ca)
        for key in ("lddt_ca", "gdt_ts", "tm_score", "ca_rmsd_angstrom", "mirrored")
    }
    if native is not None:
        ours, theirs = (slice(None), slice(None)) if residues is None else residues
        x, true = decoys.ca[:, ours], native[theirs]
        metrics = (lddt_ca, gdt_ts, tm_score, ca_rmsd, is_mirror_image)
        columns = {
            key: metric(x, true).tolist() for key, metric in zip(columns, metrics, strict=True)
        }
    columns["negative_log_likelihood"] = decoys.negative_log_likelihood.tolist()
    columns["reflected"] = decoys.reflected.tolist()
    columns["selected"] = [n == decoys.selected for n in range(len(decoys.ca))]
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]
