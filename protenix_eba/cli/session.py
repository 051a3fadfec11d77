"""What the commands that use the model share: configuration, checkpoint, embeddings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from protenix_eba.data.features import ProteinFeatures
    from protenix_eba.embeddings import TrunkEmbeddings
    from protenix_eba.weights import StateDict

__all__ = ["Trunk", "config_option", "load_configuration"]

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


def load_configuration(config_path: Path | None, **overrides: str) -> Any:
    """The resolved configuration, in an environment where Protenix can be imported.

    Args:
        config_path: YAML file, or None for the defaults.
        overrides: Keys, their dots written as `__`.
    """
    from protenix_eba import compat
    from protenix_eba.config import resolve_config
    from protenix_eba.plugin_api import load_plugins

    compat.prepare_environment()
    compat.ensure_ccd_cache()
    # Protenix logs each featurised input; our progress bars say the same.
    logging.getLogger("protenix").setLevel(logging.WARNING)
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return resolve_config(load_plugins(["protenix_eba"]), config_path, dotted)


class Trunk:
    """Trunk embeddings of a checkpoint: from a folder, or computed when they are not there.

    The trunk is built only when it is needed.

    Args:
        configs: Resolved configuration.
        state: The checkpoint's weights.
        folder: Where embeddings are kept, or None.
    """

    def __init__(self, configs: Any, state: StateDict, folder: Path | None) -> None:
        from protenix_eba.weights import trunk_fingerprint

        self._configs = configs
        self._state = state
        self._folder = folder
        self._model: Any = None
        self.fingerprint = trunk_fingerprint(state)
        self.n_cycles = int(configs.model.N_cycle)

    def embed(self, protein: ProteinFeatures) -> TrunkEmbeddings:
        """Embeddings of a protein; a file of another trunk or sequence is an error."""
        from protenix_eba.embeddings import (
            as_stored,
            compute_embeddings,
            load_embeddings,
            save_embeddings,
        )
        from protenix_eba.weights import build_model

        path = self._folder and self._folder / f"{protein.protein.name}.safetensors"
        if path and path.is_file():
            return load_embeddings(path, protein, self.fingerprint, self.n_cycles)
        if self._model is None:
            self._model = build_model(self._configs, self._state)
        embeddings = compute_embeddings(self._model, protein, self.n_cycles)
        if path:
            save_embeddings(path, embeddings, protein, self.fingerprint, self.n_cycles)
        return as_stored(embeddings)
