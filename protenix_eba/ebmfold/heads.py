"""The interface of a head of a Protenix model: C-alpha traces beside the model's atoms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from protenix_eba.ebmfold.fold import Decoys
from protenix_eba.ebmfold.predictions import Predictions
from protenix_eba.ebmfold.target import Target
from protenix_eba.host.weights import StateDict

__all__ = ["Head"]


class Head(Protocol):
    """Folds and refines C-alpha traces with the predictions of a Protenix model.

    In `HEADS` stands what builds one from the resolved configuration, whose sections it finds
    there; `--head` of `fold`, `refine` and `sample` names it. Building raises `UserError` for
    weights or settings that cannot be used.
    """

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the head's traces depend on, for JSON; traces made with other values are refused."""

    def attach(self, model: nn.Module) -> None:
        """Watch a `protenix.model.protenix.Protenix`, whoever runs it, without changing it.

        Raises:
            UserError: The model does not say what the head reads.
        """

    def detach(self) -> None:
        """Stop watching the model; what its last run gave stays."""

    def target(self, name: str) -> Target:
        """Return the protein in the last run of the model, with its predictions.

        Args:
            name: Name for files and reports.

        Raises:
            UserError: The model has not run, or has no protein that can be folded.
        """

    def predictions(
        self, state: StateDict, z_trunk: Tensor, tokens: Tensor | None = None
    ) -> Predictions:
        """Make the same predictions without a run, from the trunk's pair embeddings.

        Args:
            state: Weights of the whole model.
            z_trunk: `[N_token, N_token, c_z]`.
            tokens: `[L]` those of the residues; None for all.

        Raises:
            UserError: They do not fit the configured model, or are not finite.
        """

    def fold_target(self, target: Target, n_decoys: int, seed: int) -> Decoys:
        """Fold traces.

        Args:
            target: A protein of L residues; its predictions may be from a file.
            n_decoys: B.
            seed: Decoy n is made from (seed, n).

        Raises:
            UserError: This protein cannot be folded; others may be.
        """

    def refine_trace(
        self, target: Target, ca: Tensor, seed: int, level: float | None = None
    ) -> tuple[Decoys, float]:
        """Refine one trace, so that its fold stays.

        Args:
            target: A protein of L residues.
            ca: `[L, 3]` in angstrom.
            seed: Seed of the noise.
            level: How far the trace may move, in angstrom of noise to start from; None for what
                it needs.

        Returns:
            One decoy, and the noise level that it started from.

        Raises:
            UserError: This trace cannot be refined; others may be.
        """
