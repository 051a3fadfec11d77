"""The section `ebmfold`: the C-alpha score network, as a head and in training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

from protenix_eba.core.ranges import Ranged

__all__ = ["FOLD_SAMPLERS", "PEER", "EBMFoldConfig"]

PEER: Final = "peer"
# Those of ebmfold.sampling.SAMPLERS, listed here since torch takes seconds to import.
FOLD_SAMPLERS: Final = ("hybrid", "churned", "churned64", "langevin", "algorithm1", "heun", PEER)
_NETWORKS: Final = ("equivariant", "distance", "paper")


@dataclass(frozen=True)
class EBMFoldConfig(Ranged):
    """The section `ebmfold`.

    Attributes:
        weights: Trained network of the head `ebmfold`; the shipped one if empty.
        sampler: How the head folds: "hybrid" (network and likelihood in turn), "churned",
            "churned64", "langevin", "algorithm1" or "heun" (the network alone), or "peer" (no
            network, scaling and then L-BFGS on the likelihood).
        domains: npz file with N, CA, C and CB of domains in the splits "train" and "valid"
            (scripts/make_domain_set.py).
        network: "equivariant" (coordinates and a pair state), "distance" (convolutions on the
            distance matrix, in a form that trains) or "paper" (as published).
        n_layers: Layers of the network; residual blocks of the convolutional ones.
        channels: Number of channels of the network's pair state.
        chiral: Whether the equivariant network can tell left from right.
        batch_size: Crops of an item, from as many domains; a step has `iters_to_accumulate` items
            of each process.
        crop_sizes: Residues of a crop; each item draws one of these.
        two_segments: Share of the crops that are two stretches of the chain.
        noise_max: The stand-in predictor's noise is uniform from 0 to this.
        sharpness_max: Its sharpness likewise; two real predictors' are like 0 and 0.2.
        orientation_dropout: Share of the crops without predicted orientations.
        sequence_dropout: Share of the crops without a sequence.
        level_first: Largest noise level, angstrom.
        level_last: Smallest noise level, angstrom.
        n_levels: Number of levels, geometric between these two; 0 for any level between, uniform in
            its logarithm. The paper's network has exactly these levels.
        align: Whether the native structure is superposed on the noisy one first: no network can
            learn the rigid motion in the noise.
        validation_domains: How many domains of the split "valid" are measured.
        validation_decoys: Decoys that are folded of each, for their lDDT; 0 folds none.
        validation_noise: Noise of the predictions that they are folded from.
        checkpoint_keep: How many of the newest checkpoints stay on disk.

    Raises:
        UserError: A value is outside its range.
    """

    prefix: ClassVar[str] = "ebmfold."

    weights: str = ""
    sampler: str = "hybrid"
    domains: str = ""
    network: str = "equivariant"
    n_layers: int = 5
    channels: int = 32
    chiral: bool = True
    batch_size: int = 8
    crop_sizes: tuple[int, ...] = (32, 48, 64)
    two_segments: float = 0.5
    noise_max: float = 1.5
    sharpness_max: float = 0.6
    orientation_dropout: float = 0.4
    sequence_dropout: float = 0.2
    level_first: float = 15.0
    level_last: float = 0.03
    n_levels: int = 0
    align: bool = True
    validation_domains: int = 16
    validation_decoys: int = 2
    validation_noise: float = 1.0
    checkpoint_keep: int = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        self._require("network", self.network in _NETWORKS, f"one of {', '.join(_NETWORKS)}")
        self._require(
            "sampler", self.sampler in FOLD_SAMPLERS, f"one of {', '.join(FOLD_SAMPLERS)}"
        )
        for key, lowest in (
            *(("n_layers", 1), ("channels", 1), ("batch_size", 1), ("checkpoint_keep", 1)),
            *(("n_levels", 0), ("validation_domains", 0), ("validation_decoys", 0)),
        ):
            self._require(key, getattr(self, key) >= lowest, f"at least {lowest}")
        for key in ("two_segments", "orientation_dropout", "sequence_dropout"):
            self._require(key, 0 <= getattr(self, key) <= 1, "a share, 0 to 1")
        for key in ("noise_max", "validation_noise"):
            self._require(key, 0 <= getattr(self, key) < math.inf, "0 or above")
        self._require("sharpness_max", 0 <= self.sharpness_max <= 1, "a number from 0 to 1")
        sizes = bool(self.crop_sizes) and min(self.crop_sizes, default=0) >= 4
        self._require("crop_sizes", sizes, "sizes of at least 4")
        self._require("level_last", self.level_last > 0, "a number above 0")
        above = self.level_last < self.level_first < math.inf
        self._require("level_first", above, "a number above ebmfold.level_last")
        paper = self.network != "paper" or self.n_levels > 0
        self._require("n_levels", paper, "at least 1 with the paper's network, such as 32")
