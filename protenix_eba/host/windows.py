"""One attention window for all atoms of a small system; Protenix's 32 x 128 would be mostly empty.

AlphaFold 3's atoms attend in windows (Algorithm 7): 32 queries, and the 128 keys around them. Of up
to 64 atoms each query sees all of them, so that one window of N x N gives the same result: for a
peptide of 30 atoms with a seventh of the products.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

__all__ = ["one_window", "window_size", "with_one_window"]

# The second window of queries, 32 to 63, reaches back to key -16: none is left out.
LARGEST: Final = 64


def window_size(diffusion_module: nn.Module, n_atoms: int) -> int | None:
    """Return how many queries and keys one window has, an even number; None to keep several.

    Several are also kept if activations are computed again in the backward pass, because
    `one_window` has then been left.

    Args:
        diffusion_module: `protenix.model.modules.diffusion.DiffusionModule`.
        n_atoms: Number of atoms of the system.
    """
    module: Any = diffusion_module
    again = module.blocks_per_ckpt and torch.is_grad_enabled()
    return None if again or n_atoms > LARGEST else n_atoms + n_atoms % 2


@contextlib.contextmanager
def one_window(diffusion_module: nn.Module, size: int | None) -> Iterator[None]:
    """Let the module's atoms attend in one window of this size within the block."""
    module: Any = diffusion_module
    encoder, decoder = module.atom_attention_encoder, module.atom_attention_decoder
    parts = (encoder, encoder.atom_transformer, decoder.atom_transformer) if size else ()
    kept = [(part.n_queries, part.n_keys) for part in parts]
    try:
        for part in parts:
            part.n_queries = part.n_keys = size
        yield
    finally:
        for part, (n_queries, n_keys) in zip(parts, kept, strict=True):
            part.n_queries, part.n_keys = n_queries, n_keys


def with_one_window(features: dict[str, Any], size: int | None) -> dict[str, Any]:
    """Return the features with the atom pairs of `one_window` (Algorithm 5, lines 1 to 3).

    Args:
        features: Protenix's input features of one sequence.
        size: Size from `window_size`.
    """
    position: Tensor = features["ref_pos"]
    if size is None:
        return features
    n_atoms = len(position)
    pad = size - n_atoms
    position = torch.nn.functional.pad(position, (0, 0, 0, pad))
    # The host pads with zeros, which is also the number of the first residue; padding is masked.
    space = torch.nn.functional.pad(features["ref_space_uid"], (0, pad)).int()
    present = torch.arange(size, device=position.device) < n_atoms
    windows = {
        "d_lm": (position[:, None] - position[None, :])[None],
        "v_lm": (space[:, None] == space[None, :])[None, ..., None],
        "pad_info": features["pad_info"]
        | {"mask_trunked": (present[:, None] & present[None, :])[None]},
    }
    return features | windows
