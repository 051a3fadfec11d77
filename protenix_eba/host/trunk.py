"""Trunk embeddings of a checkpoint, stored or computed."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from protenix_eba.core.errors import UserError
from protenix_eba.host.embeddings import (
    EmbeddingFolder,
    TrunkEmbeddings,
    as_stored,
    compute_embeddings,
    save_embeddings,
)
from protenix_eba.host.features import ProteinFeatures, complete, protein_features
from protenix_eba.host.msa import MsaFiles, ProteinMsa, fingerprint_of
from protenix_eba.host.weights import StateDict, build_model, trunk_fingerprint
from protenix_eba.structures.sequences import Protein

__all__ = ["Trunk"]


class Trunk:
    """Trunk embeddings of a checkpoint: from a folder, or computed when they are not there.

    Args:
        configs: Resolved configuration.
        state: The checkpoint's weights.
        folder: Where embeddings are kept, or None.
        msas: Alignments; stored embeddings that were made with others are refused. None for any
            stored ones, and no alignments where there are none stored.
    """

    def __init__(
        self, configs: Any, state: StateDict, folder: Path | None, msas: MsaFiles | None = None
    ) -> None:
        self._configs = configs
        self._state = state
        self._msas = msas
        self._fingerprint = trunk_fingerprint(state)
        self._n_cycles = int(configs.model.N_cycle)
        self._stored = folder and EmbeddingFolder(folder, self._fingerprint, self._n_cycles)

    @cached_property
    def model(self) -> Any:
        """The whole model, on a GPU if there is one; built when it is first asked for.

        Raises:
            UserError: The checkpoint does not fit the configuration, or needs a language model.
        """
        if self._configs.esm.enable:
            raise UserError(
                f"the trunk of {self._configs.model_name} reads embeddings of a language model, "
                "which are not made here",
                "choose a model without ESM",
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return build_model(self._configs, self._state).to(device)

    def _alignments(self, protein: Protein) -> ProteinMsa | None:
        return self._msas.of(protein) if self._msas else None

    def stored_msa(self, protein: Protein) -> str | None:
        """Return the fingerprint of the MSA of a protein's stored embeddings; None without any.

        Raises:
            UserError: They are stale, or the alignments cannot be used.
        """
        if not self._stored or not self._stored.path(protein).is_file():
            return None
        expected = fingerprint_of(self._msas.of(protein)) if self._msas else None
        return self._stored.check(protein, expected)

    def msa(self, protein: Protein) -> str:
        """Return the fingerprint of the MSA that `embed` would use; raises as `stored_msa` does."""
        return self.stored_msa(protein) or fingerprint_of(self._alignments(protein))

    def embed(self, protein: Protein) -> TrunkEmbeddings:
        """Return the embeddings of a protein, see `inputs`."""
        return self.inputs(protein)[1]

    def inputs(self, protein: Protein) -> tuple[ProteinFeatures, TrunkEmbeddings]:
        """Return features and embeddings of a protein, stored ones, or new ones that are stored.

        Raises:
            UserError: Stored ones are stale, or the alignments cannot be used.
        """
        if self._stored and self.stored_msa(protein):
            stored = self._stored.features(protein)
            return replace(stored, features=complete(stored.features)), self._stored(protein)
        featurised = protein_features(protein, msa=self._alignments(protein))
        embeddings = compute_embeddings(self.model, featurised, self._n_cycles)
        if self._stored:
            path = self._stored.path(protein)
            save_embeddings(path, embeddings, featurised, self._fingerprint, self._n_cycles)
        return featurised, as_stored(embeddings)
