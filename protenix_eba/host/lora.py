"""Low-rank adapters on the matrices of the diffusion module (LoRA, Hu et al., arXiv:2106.09685).

W becomes W + (alpha / rank) B A with a frozen W `[n_out, n_in]`, B `[n_out, rank]` and
A `[rank, n_in]`. B starts as zeros, so the start is the start exactly, and W stays in its place, so
the frozen reference is the same module with its adapters off.

The host's code is untouched: `torch.nn.utils.parametrize` computes the sum wherever a layer's
`weight` is read, in its own forward or elsewhere. That is once per use, also in the second forward
of activation checkpointing; autograd keeps the sums, as large as the adapted matrices, until the
backward pass.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from protenix_eba.core.errors import UserError
from protenix_eba.host.weights import DIFFUSION_PREFIX, StateDict, matching

__all__ = ["LowRankUpdate", "adapters_off", "add_adapters", "has_adapters", "merged_state"]

# How `parametrize` renames a matrix `weight` and its first parametrization.
_ORIGINAL: Final = ".parametrizations.weight.original"
_UPDATE: Final = ".parametrizations.weight.0"


class LowRankUpdate(nn.Module):
    """The low-rank update of a weight: W -> W + scale B A.

    Args:
        weight: W `[n_out, n_in]`, for its shape, type and device.
        rank: Rank of the update, at most that of W, min(n_out, n_in).
        scale: alpha / rank.
        generator: Draws A, on the CPU.
    """

    def __init__(
        self, weight: Tensor, *, rank: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        n_out, n_in = weight.shape
        rank = min(rank, n_out, n_in)
        drawn = torch.empty(rank, n_in)
        # As the authors' code, loralib: uniform within 1 / sqrt(n_in).
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        self.a = nn.Parameter(drawn.to(weight))
        self.b = nn.Parameter(weight.new_zeros(n_out, rank))
        self.scale = scale
        self.on = True

    def forward(self, weight: Tensor) -> Tensor:
        """Return W with the update, or W itself in value when the update is off.

        It is a new tensor in both cases: DeepSpeed's ZeRO stage 3 frees W when this returns. It has
        the precision of W under autocast too, whose rounding then is that of a plain weight.
        """
        scale = self.scale if self.on else 0.0
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (scale * self.b) @ self.a


def add_adapters(
    module: nn.Module,
    patterns: Sequence[str],
    rank: int,
    alpha: float,
    generator: torch.Generator,
) -> int:
    """Add a low-rank update to each chosen matrix and freeze everything else.

    A matrix whose rank is no higher than `rank` gets an update of its full rank: the diffusion
    module has many with a side of 3 (coordinates) or 16 (heads and atom pairs), and a pattern such
    as "diffusion_module.*" names them with the large ones.

    Args:
        module: The diffusion module, with the weights of the start; it is changed in place.
        patterns: Globs over names in the checkpoint ("diffusion_module.diffusion_transformer.*").
            Of what they name only the weights of linear layers are adapted.
        rank: Rank of the updates.
        alpha: Their scale is alpha / rank.
        generator: On the CPU, so that every device starts alike.

    Returns:
        The number of weights that are trained now.

    Raises:
        UserError: A pattern matches no matrix, or no matrix matched has a rank above `rank`.
    """
    chosen = _chosen(module, patterns)
    highest = max(min(layer.weight.shape) for layer in chosen)
    if rank >= highest:
        raise UserError(
            f"eba.lora_rank: expected less than {highest}, the highest rank of the matrices that "
            f"eba.trainable names, found {rank}",
            "choose a lower rank, or 0 to train the matrices themselves",
        )
    module.requires_grad_(False)
    for layer in chosen:
        update = LowRankUpdate(layer.weight, rank=rank, scale=alpha / rank, generator=generator)
        parametrize.register_parametrization(layer, "weight", update)
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _chosen(module: nn.Module, patterns: Sequence[str]) -> list[nn.Linear]:
    """Return the linear layers whose weight a pattern names, in the order of the module."""
    layers = {
        f"{DIFFUSION_PREFIX}{name}.weight": layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    }
    chosen = matching(
        patterns,
        layers,
        "matrix",
        "adapters stand on the weights of linear layers; train biases and norms with "
        "eba.lora_rank 0",
    )
    return [layer for name, layer in layers.items() if name in chosen]


@torch.no_grad()
def merged_state(module: nn.Module) -> StateDict:
    """Return the weights under their plain names, with the updates of adapters added, if any.

    As with `state_dict`, values may share memory with the module. Under ZeRO stage 3 call it where
    the parameters are gathered.

    Args:
        module: The diffusion module. Updates count whether they are on or off.
    """
    state: StateDict = dict(module.state_dict())
    for name, update in _updates(module).items():
        plain = name.removesuffix(_UPDATE)
        factors = [state.pop(f"{name}.{factor}") for factor in "ba"]
        original = state.pop(plain + _ORIGINAL)
        state[f"{plain}.weight"] = original + (update.scale * factors[0]) @ factors[1]
    return state


@contextlib.contextmanager
def adapters_off(module: nn.Module) -> Iterator[None]:
    """Turn the adapters off within the block: the module is then the start, bit for bit.

    For passes without gradients: a backward pass after its end would recompute checkpointed
    activations with the updates on.

    Args:
        module: The diffusion module or one around it, such as a DeepSpeed engine.
    """
    updates = _updates(module).values()
    before = [update.on for update in updates]
    for update in updates:
        update.on = False
    try:
        yield
    finally:
        for update, on in zip(updates, before, strict=True):
            update.on = on


def has_adapters(module: nn.Module) -> bool:
    """Return whether `add_adapters` was called on the module or a part of it."""
    return bool(_updates(module))


def _updates(module: nn.Module) -> dict[str, LowRankUpdate]:
    return {n: layer for n, layer in module.named_modules() if isinstance(layer, LowRankUpdate)}
