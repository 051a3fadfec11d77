"""EBM-Fold as a head of Protenix: C-alpha traces from the model's distogram.

The distogram is that of the trunk, so a trace takes no diffusion. `EBMFoldHead` sits on a model
that runs by whatever code; `distogram_logits` gives the same from pair embeddings that are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file, sha256_of_file
from protenix_eba.ebmfold.checkpoint import SHIPPED_WEIGHTS, load_network
from protenix_eba.ebmfold.config import PEER, EBMFoldConfig
from protenix_eba.ebmfold.fold import Decoys, fold, fold_by_peer
from protenix_eba.ebmfold.network import ScoreNetwork
from protenix_eba.ebmfold.predictions import HOST_EDGES, Predictions, rebin_distogram
from protenix_eba.ebmfold.refine import refining_sampler
from protenix_eba.ebmfold.sampling import SAMPLERS
from protenix_eba.ebmfold.structures import check_sizes, joined_numbers
from protenix_eba.ebmfold.target import Target
from protenix_eba.host.config import section_from
from protenix_eba.host.environment import HEADS
from protenix_eba.host.weights import StateDict

__all__ = ["EBMFoldHead", "ProteinTokens", "distogram_logits", "host_predictions", "refine_trace"]

# Protenix's order (AlphaFold 3, Table 13); all other classes of `restype` are no amino acids.
_RESTYPES: Final = "ARNDCQEGHILKMFPSTWYV"
_HEAD: Final = "distogram_head."
_FEATURES: Final = (
    *("asym_id", "residue_index", "restype", "atom_to_token_idx", "ref_atom_name_chars"),
    *("is_protein", "distogram_rep_atom_mask"),
)


@dataclass(frozen=True)
class ProteinTokens:
    """The residues of the protein chains among a model's tokens.

    Attributes:
        tokens: `[L]` the token of each, rising: the one that C-beta represents (C-alpha where
            there is none), as the distances of EBM-Fold are between these. A modified residue has
            a token for each atom.
        alpha_carbons: `[L]` the C-alpha atom of each.
        sequence: One letter per residue, X where it is not one of the 20 amino acids.
        residue_index: `[L]` numbers that rise, with a wide gap between chains.
        chains: Length of each chain.
    """

    tokens: Tensor
    alpha_carbons: Tensor
    sequence: str
    residue_index: NDArray[np.int64]
    chains: list[int]

    @classmethod
    def of(cls, features: Mapping[str, Any]) -> ProteinTokens:
        """Find the protein residues among the tokens of a model's input features.

        Raises:
            UserError: There are fewer than 4 residues.
        """
        atoms = {key: torch.as_tensor(features[key]).detach().cpu() for key in _FEATURES}
        token = atoms["atom_to_token_idx"]
        chain, number = atoms["asym_id"][token], atoms["residue_index"][token]
        names = [_text(row) for row in atoms["ref_atom_name_chars"].argmax(-1).tolist()]
        protein, represents = atoms["is_protein"].bool(), atoms["distogram_rep_atom_mask"].bool()
        found: dict[tuple[int, int], dict[str, int]] = {}
        for n in protein.nonzero()[:, 0].tolist():
            if names[n] in ("CA", "CB"):
                residue = found.setdefault((int(chain[n]), int(number[n])), {})
                residue[names[n]] = n
        whole = {key: residue for key, residue in found.items() if "CA" in residue}
        shown = [
            next((r[name] for name in ("CB", "CA") if name in r and represents[r[name]]), r["CA"])
            for r in whole.values()
        ]
        tokens = token[torch.tensor(shown, dtype=torch.long)]
        chains = np.array([key[0] for key in whole], dtype=np.int64)
        lengths = [int(n) for n in np.unique(chains, return_counts=True)[1]]
        check_sizes(lengths)
        letters = atoms["restype"][tokens].argmax(-1).tolist()
        return cls(
            tokens,
            torch.tensor([residue["CA"] for residue in whole.values()]),
            "".join(_RESTYPES[k] if k < len(_RESTYPES) else "X" for k in letters),
            joined_numbers(np.array([key[1] for key in whole], dtype=np.int64), chains),
            lengths,
        )


def _text(characters: list[int]) -> str:
    """Decode text (AlphaFold 3, Table 5: code points less 32)."""
    return "".join(chr(32 + c) for c in characters).strip()


def distogram_logits(configs: Any, state: StateDict, z_trunk: Tensor) -> Tensor:
    """Apply a checkpoint's distogram head to pair embeddings, without building the trunk.

    Args:
        configs: Resolved configuration.
        state: Weights of the whole model.
        z_trunk: `[N_token, N_token, c_z]`.

    Returns:
        `[N_token, N_token, 64]`.

    Raises:
        UserError: Its bins are not those of the release, or it does not fit the configuration.
    """
    from protenix.model.modules.head import DistogramHead

    _check_bins(configs)
    head = DistogramHead(**configs.model.distogram_head)
    own = {key.removeprefix(_HEAD): v for key, v in state.items() if key.startswith(_HEAD)}
    try:
        head.load_state_dict(own)
    except RuntimeError as error:
        raise UserError(
            f"the checkpoint's distogram head does not fit the configured model: {error}",
            "give the configuration that the checkpoint was made with (model_name and sizes)",
        ) from error
    with torch.no_grad():
        logits: Tensor = head.to(z_trunk.device)(z_trunk)
    return logits


def _check_bins(configs: Any) -> None:
    bins = configs.loss.distogram
    edges = np.linspace(bins.min_bin, bins.max_bin, bins.no_bins - 1)
    if edges.shape != HOST_EDGES.shape or not np.allclose(edges, HOST_EDGES):
        raise UserError(
            f"loss.distogram: expected {len(HOST_EDGES) + 1} bins from {HOST_EDGES[0]} to "
            f"{HOST_EDGES[-1]} angstrom, found {bins.no_bins} from {bins.min_bin} to "
            f"{bins.max_bin}",
            "fold with a model whose distogram has the bins of the Protenix release",
        )


def host_predictions(logits: Tensor, tokens: Tensor | None = None) -> Predictions:
    """Convert the logits of Protenix's distogram head to EBM-Fold's distances.

    Args:
        logits: `[N_token, N_token, 64]`, of any float type.
        tokens: `[L]` which tokens; None for all.

    Raises:
        UserError: The logits are not finite.
    """
    chosen = slice(None) if tokens is None else tokens.to(logits.device)
    # One row at a time: the softmax of a long protein in float32 is larger than the logits.
    rows = [
        rebin_distogram(row[chosen].float().softmax(-1).cpu().numpy()) for row in logits[chosen]
    ]
    distance = np.stack(rows)
    if not np.isfinite(distance).all():
        raise UserError(
            "the distogram head gives numbers that are not finite",
            "check where the checkpoint is from",
        )
    return Predictions(distance)


def refine_trace(
    network: ScoreNetwork, target: Target, ca: Tensor, seed: int, level: float | None = None
) -> tuple[Decoys, float]:
    """Refine a trace by the predictions, from a small noise level, so that its fold stays.

    Args:
        network: Network in evaluation mode.
        target: The protein to fold, L residues.
        ca: `[L, 3]` in angstrom.
        seed: Seed of the noise.
        level: Noise level to start from, in angstrom; None for what the trace needs.

    Returns:
        One decoy, and the level that it started from.
    """
    sampler = refining_sampler(SAMPLERS["hybrid"], target, ca, level)
    return fold(network, target, sampler, 1, seed, start=ca), sampler.levels[0]


@HEADS.register("ebmfold")
class EBMFoldHead:
    """Folds and refines with a Protenix model's distogram; see `Head`.

    Attached, it has a hook on the distogram head and one on the model's inputs:

        head = EBMFoldHead(configs)
        head.attach(model)
        prediction, *_ = model(features, None, None, mode="inference")
        decoys = head.fold(8, seed=0)
        refined = head.refine(prediction["coordinate"], seed=0)

    Args:
        configs: Resolved configuration; the section `ebmfold` names the network, which is on a GPU
            if there is one.

    Raises:
        UserError: There are no such weights, or a value is outside its range.
    """

    def __init__(self, configs: Any) -> None:
        settings = section_from(configs.ebmfold, EBMFoldConfig)
        self._configs = configs
        self._sampler = settings.sampler
        self._weights = require_file(settings.weights or SHIPPED_WEIGHTS, "weights of EBM-Fold")
        self._hooks: list[Any] = []
        self._features: dict[str, Tensor] = {}
        self._logits: Tensor | None = None
        if settings.sampler != PEER:
            _ = self.network  # what is no network is said before anything is made

    @property
    def provenance(self) -> dict[str, str | None]:
        """See `Head`."""
        used = None if self._sampler == PEER else sha256_of_file(self._weights)
        return {"weights_sha256": used}

    @cached_property
    def network(self) -> ScoreNetwork:
        """The trained network, in evaluation mode.

        Raises:
            UserError: The file holds none.
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return load_network(self._weights).to(device)

    def attach(self, model: nn.Module) -> None:
        """See `Head`.

        Raises:
            UserError: The model's distogram has other bins.
        """
        configs: Any = model.configs
        _check_bins(configs)
        distogram: Any = model.distogram_head
        self._hooks = [
            model.register_forward_pre_hook(self._keep_features, with_kwargs=True),
            distogram.register_forward_hook(self._keep_logits),
        ]

    def detach(self) -> None:
        """Take the hooks off the model; what the last run gave stays."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _keep_features(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        features = kwargs["input_feature_dict"] if "input_feature_dict" in kwargs else args[0]
        self._features = {key: features[key] for key in _FEATURES}
        self._logits = None

    def _keep_logits(self, module: nn.Module, args: Any, logits: Tensor) -> None:
        self._logits = logits.detach()

    @property
    def residues(self) -> ProteinTokens:
        """The protein's residues in the last run of the model.

        Raises:
            UserError: The model has not run, or there are fewer than 4.
        """
        self._distogram()
        return ProteinTokens.of(self._features)

    def _distogram(self) -> Tensor:
        if self._logits is None:
            raise UserError("EBM-Fold: the model has not run", "call the model first")
        return self._logits

    def target(self, name: str = "protein") -> Target:
        """Return the protein and its predicted distances in the last run of the model.

        Raises:
            UserError: See `residues`.
        """
        residues = self.residues
        predictions = host_predictions(self._distogram(), residues.tokens)
        return Target(name, predictions, residues.sequence, residues.residue_index)

    def predictions(
        self, state: StateDict, z_trunk: Tensor, tokens: Tensor | None = None
    ) -> Predictions:
        """See `Head`."""
        return host_predictions(distogram_logits(self._configs, state, z_trunk), tokens)

    def fold_target(self, target: Target, n_decoys: int, seed: int) -> Decoys:
        """See `Head`."""
        if self._sampler == PEER:
            return fold_by_peer(target, n_decoys, seed)
        return fold(self.network, target, SAMPLERS[self._sampler], n_decoys, seed)

    def refine_trace(
        self, target: Target, ca: Tensor, seed: int, level: float | None = None
    ) -> tuple[Decoys, float]:
        """See `Head`."""
        return refine_trace(self.network, target, ca, seed, level)

    def fold(self, n_decoys: int, seed: int) -> Decoys:
        """Make decoys from the distogram of the model's last run.

        Args:
            n_decoys: B.
            seed: Decoy n is made from (seed, n).

        Raises:
            UserError: See `residues`.
        """
        return self.fold_target(self.target(), n_decoys, seed)

    def refine(self, coordinates: Tensor, seed: int, level: float | None = None) -> list[Decoys]:
        """Refine the C-alpha traces of structures that the diffusion module sampled.

        Args:
            coordinates: `[S, N_atom, 3]` in angstrom.
            seed: Seed of the noise.
            level: See `refine_trace`.

        Returns:
            One decoy of each structure.

        Raises:
            UserError: See `residues`.
        """
        target = self.target()
        traces = coordinates[:, self.residues.alpha_carbons].detach().float().cpu()
        return [self.refine_trace(target, ca, seed, level)[0] for ca in traces]
