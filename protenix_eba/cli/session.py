"""What the commands that use the model share: configuration, checkpoint, embeddings, failures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from protenix_eba.cli.status import SOME_FAILED, UNUSABLE_INPUT
from protenix_eba.core.errors import UserError

if TYPE_CHECKING:
    from protenix_eba.host.embeddings import TrunkEmbeddings
    from protenix_eba.host.features import ProteinFeatures
    from protenix_eba.host.msa import MsaFiles, ProteinMsa
    from protenix_eba.host.weights import StateDict
    from protenix_eba.structures.sequences import Protein

__all__ = [
    "Trunk",
    "config_option",
    "exit_with_failures",
    "load_configuration",
    "msa_option",
    "plugin_option",
]

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """The option `--config`: the YAML file that `protenix-train` takes, for the model's sizes."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        required=True,
        help="Configuration of the model, the file given to protenix-train.",
    )(function)


def plugin_option(function: F) -> F:
    """The option `--plugin`: what the plugins register is there before the command looks it up.

    The command gets their names as `plugins`, for the configuration and for its worker processes.
    """
    return click.option(
        "--plugin",
        "plugins",
        metavar="NAME[,NAME]",
        default="",
        callback=lambda context, option, value: _use_plugins(value),
        help="Plugins whose components and sections of the configuration are used.",
    )(function)


def _use_plugins(word: str) -> tuple[str, ...]:
    from protenix_eba.plugin_api import plugin_names

    names = plugin_names(word)
    if names:
        from protenix_eba.host.environment import use_plugins

        use_plugins(names)
    return names


def msa_option(function: F) -> F:
    """The option `--msa`."""
    return click.option(
        "--msa",
        "msa_path",
        type=click.Path(path_type=Path),
        default=None,
        help="Alignments: a folder with NAME.a3m or NAME/*.a3m for each protein, a folder of "
        "Protenix's own search (pairing.a3m, non_pairing.a3m), or one a3m file.  [default: none]",
    )(function)


def exit_with_failures(failures: Mapping[str, str], n_targets: int) -> None:
    """Print why targets failed and end the command; if none has, go on.

    Args:
        failures: Target -> reason.
        n_targets: All of them.

    Raises:
        click.exceptions.Exit: Status 3 if some failed, 2 if all did.
    """
    from protenix_eba.core.progress import tell

    for name, reason in failures.items():
        tell(f"failed: {name}: {reason}")
    if failures:
        raise click.exceptions.Exit(UNUSABLE_INPUT if len(failures) == n_targets else SOME_FAILED)


def load_configuration(
    config_path: Path | None, plugins: Sequence[str] = (), **overrides: str
) -> Any:
    """The resolved configuration, in an environment where Protenix can be imported.

    Args:
        config_path: YAML file, or None for the defaults.
        plugins: Names of those that add sections, besides our own.
        overrides: Keys, their dots written as `__`.
    """
    from protenix_eba.host import environment
    from protenix_eba.host.config import resolve_config

    environment.prepare_environment()
    environment.ensure_ccd_cache()
    # Protenix logs each featurised input; our progress bars say the same.
    logging.getLogger("protenix").setLevel(logging.WARNING)
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return resolve_config(environment.load_plugins(["protenix_eba", *plugins]), config_path, dotted)


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
        from protenix_eba.host.embeddings import EmbeddingFolder
        from protenix_eba.host.weights import trunk_fingerprint

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
        import torch

        from protenix_eba.host.weights import build_model

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
        """Fingerprint of the MSA of a protein's stored embeddings; None if it has none stored.

        Raises:
            UserError: They are stale, or the alignments cannot be used.
        """
        from protenix_eba.host.msa import fingerprint_of

        if not self._stored or not self._stored.path(protein).is_file():
            return None
        expected = fingerprint_of(self._msas.of(protein)) if self._msas else None
        return self._stored.check(protein, expected)

    def msa(self, protein: Protein) -> str:
        """Fingerprint of the MSA of what `embed` gives; it raises what `stored_msa` raises."""
        from protenix_eba.host.msa import fingerprint_of

        return self.stored_msa(protein) or fingerprint_of(self._alignments(protein))

    def embed(self, protein: Protein) -> TrunkEmbeddings:
        """Embeddings of a protein, see `inputs`."""
        return self.inputs(protein)[1]

    def inputs(self, protein: Protein) -> tuple[ProteinFeatures, TrunkEmbeddings]:
        """Features and embeddings of a protein, stored ones or new ones that are stored then.

        Raises:
            UserError: Stored ones are stale, or the alignments cannot be used.
        """
        from protenix_eba.host.embeddings import as_stored, compute_embeddings, save_embeddings
        from protenix_eba.host.features import complete, protein_features

        if self._stored and self.stored_msa(protein):
            stored = self._stored.features(protein)
            return replace(stored, features=complete(stored.features)), self._stored(protein)
        featurised = protein_features(protein, msa=self._alignments(protein))
        embeddings = compute_embeddings(self.model, featurised, self._n_cycles)
        if self._stored:
            path = self._stored.path(protein)
            save_embeddings(path, embeddings, featurised, self._fingerprint, self._n_cycles)
        return featurised, as_stored(embeddings)
