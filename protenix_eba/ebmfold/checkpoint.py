"""Files of trained networks, each with its weights and what is needed to build it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, require_file
from protenix_eba.ebmfold.distance_network import DistanceNetwork, DistanceNetworkConfig
from protenix_eba.ebmfold.equivariant_network import EquivariantNetwork, EquivariantNetworkConfig
from protenix_eba.ebmfold.network import ScoreNetwork

__all__ = ["NETWORKS", "SHIPPED_WEIGHTS", "build_network", "load_network", "save_network"]

NETWORKS: Final[dict[str, tuple[type[ScoreNetwork], type[Any]]]] = {
    "distance": (DistanceNetwork, DistanceNetworkConfig),
    "equivariant": (EquivariantNetwork, EquivariantNetworkConfig),
}
"""Name -> network and its configuration."""

SHIPPED_WEIGHTS: Final = Path(__file__).parent / "weights.safetensors"
"""Made by configs/ebmfold.yaml."""

_KEY: Final = "ebmfold"


def build_network(name: str, settings: dict[str, Any]) -> ScoreNetwork:
    """Build a network with fresh weights.

    Args:
        name: One of `NETWORKS`.
        settings: Fields of its configuration; those left out have their defaults.

    Raises:
        UserError: No such network or no such field.
    """
    if name not in NETWORKS:
        raise UserError(f"network: expected one of {', '.join(NETWORKS)}, found {name!r}")
    network, config = NETWORKS[name]
    unknown = sorted(set(settings) - set(config.__dataclass_fields__))
    if unknown:
        raise UserError(
            f"network {name}: unknown settings {', '.join(unknown)}",
            f"it has {', '.join(config.__dataclass_fields__)}",
        )
    return network(config(**settings))


def save_network(path: Path | str, network: ScoreNetwork) -> None:
    """Write a network's weights and configuration, as safetensors."""
    (name,) = [name for name, (kind, _) in NETWORKS.items() if type(network) is kind]
    described = {"network": name, "settings": asdict(network.config)}
    with atomic_path(path) as temporary:
        save_file(network.state_dict(), temporary, metadata={_KEY: json.dumps(described)})


def load_network(path: Path | str) -> ScoreNetwork:
    """Load a network in evaluation mode from a file that `save_network` wrote.

    Raises:
        UserError: It is no such file.
    """
    path = require_file(path, "weights of EBM-Fold")
    try:
        with safe_open(path, framework="pt") as archive:
            described = json.loads((archive.metadata() or {})[_KEY])
            state = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118
        network = build_network(described["network"], described["settings"])
        network.load_state_dict(state)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"weights of EBM-Fold: {path} holds no such network: {error}",
            "give a file that a training of EBM-Fold wrote",
        ) from error
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise UserError(f"weights of EBM-Fold: {path} holds NaN or infinity")
    return network.eval()
