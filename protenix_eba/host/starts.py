"""Weights to start from without a checkpoint: random ones, and a small module that is shipped."""

from __future__ import annotations

import importlib.resources
from typing import Any, Final

import torch

from protenix_eba.core.errors import UserError
from protenix_eba.host.weights import DIFFUSION_PREFIX, StateDict, quiet, uninitialised

__all__ = ["quick_start", "random_state", "shipped_start", "silent_trunk"]

# Biases of the gates behind the residual branches of a diffusion transformer block (Algorithm 23).
_GATE_BIASES = ("linear_a_last.bias", "conditioned_transition_block.linear_s.bias")
# Factors on the maps by which features enter the diffusion module's atom encoder (Algorithm 5):
# noisy positions; mask, element and name; positions and offsets of the reference conformer.
_QUICK_START: Final = {
    "linear_no_bias_r": 8.0,
    "linear_no_bias_f": 20.0,
    "linear_no_bias_ref_pos": 0.1,
    "linear_no_bias_d": 0.1,
}


def random_state(configs: Any, seed: int) -> StateDict:
    """Return the weights of a randomly initialised Protenix of the configured sizes.

    Protenix initialises through SciPy, which draws from NumPy's global generator: its state, and
    torch's, are the same afterwards as before.
    """
    import numpy as np
    from protenix.model.protenix import Protenix

    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            np.random.seed(seed)
            torch.manual_seed(seed)
            return dict(Protenix(configs).state_dict())
    finally:
        np.random.set_state(state)


def quick_start(state: StateDict) -> StateDict:
    """Return random weights from which a small diffusion module learns peptides quickly.

    AlphaFold 3's initialisation is made for long training of long chains. Coordinates enter divided
    by sigma_data = 16 angstrom, so those of a peptide are lost among the atoms' other features:
    here they enter 8 times stronger. What an atom is (element and name) differs between atoms by an
    rms of 0.075, where its reference coordinates, in angstrom, differ by 1.7: here the first enters
    20 times stronger, positions and offsets of the reference conformer 10 times weaker. Each
    residual branch starts behind a gate of sigmoid(-2) = 0.12: here gates start half open.
    """
    changed = dict(state)
    for name, factor in _QUICK_START.items():
        key = f"{DIFFUSION_PREFIX}atom_attention_encoder.{name}.weight"
        changed[key] = factor * state[key]
    for key, value in state.items():
        if key.startswith(DIFFUSION_PREFIX) and key.endswith(_GATE_BIASES):
            changed[key] = torch.zeros_like(value)
    return changed


def silent_trunk(state: StateDict) -> StateDict:
    """Return the same diffusion module behind a trunk that says nothing: its weights are 0.

    Embeddings are then the same on every machine, and the diffusion module reads the sequence from
    its own features. A random trunk says nothing either, but differently for each seed and version.
    """
    return {
        key: value if key.startswith(DIFFUSION_PREFIX) else torch.zeros_like(value)
        for key, value in state.items()
    }


def shipped_start(configs: Any, name: str) -> StateDict:
    """Return a model around a small diffusion module that is shipped, with a silent trunk.

    Args:
        configs: Resolved configuration of the sizes that the module was trained with.
        name: Folder in this package that holds `start.safetensors`.

    Raises:
        UserError: The configuration has other sizes.
    """
    from protenix.model.protenix import Protenix
    from safetensors.torch import load_file

    path = importlib.resources.files("protenix_eba") / name / "start.safetensors"
    module = {f"{DIFFUSION_PREFIX}{k}": v.float() for k, v in load_file(str(path)).items()}
    with uninitialised():
        sizes = Protenix(configs).state_dict()
    wanted = {key: value.shape for key, value in sizes.items() if key.startswith(DIFFUSION_PREFIX)}
    if wanted != {key: value.shape for key, value in module.items()}:
        raise UserError(
            f"the start {name!r} does not fit the configured sizes",
            "give configs/demo_sft.yaml, or a configuration with its model_name and sizes",
        )
    return silent_trunk(sizes | module)
