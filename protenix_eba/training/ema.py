"""Exponential moving average of the weights that are trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from protenix_eba.core.errors import UserError

__all__ = ["Ema"]


class Ema:
    """Averages in float32 that follow the weights: average += (1 - decay) (weight - average).

    As in Protenix's trainer the average starts at the start's weights and the decay is constant,
    without a warm-up: a fine-tuning run leaves a trained model, and its start counts with
    decay**n after n steps. Unlike there, only weights that are trained are averaged, and weights
    are replaced in place, since DeepSpeed keeps them as views of its own buffers.

    Under ZeRO stage 3 each process holds a shard of each parameter, `p.ds_tensor`, and `p.data` is
    empty or a gathered copy. The average is that of the shard. Otherwise all processes hold the
    same. To save averages, gather the weights while they are `applied`; to load them, put them into
    the weights and `capture`.

    Args:
        parameters: `module.named_parameters()`, after the DeepSpeed engine was made, which shards
            them; those that are frozen are left out.
        decay: Share of the average that stays at each update, between 0 and 1.

    Attributes:
        averages: What this process holds of each, by name.

    Raises:
        UserError: The decay is outside its range.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        if not 0 < decay < 1:
            raise UserError(f"ema_decay: expected a number between 0 and 1, found {decay!r}")
        self.decay = decay
        self._parameters: dict[str, Any] = {name: p for name, p in parameters if p.requires_grad}
        self.averages = {
            name: _local(p).to(torch.float32, copy=True) for name, p in self._parameters.items()
        }

    def update(self) -> None:
        """Move the averages towards the weights; called once per step of the optimizer."""
        for name, parameter in self._parameters.items():
            self.averages[name].lerp_(_local(parameter).float(), 1 - self.decay)

    def capture(self) -> None:
        """Start anew from the present weights."""
        for name, parameter in self._parameters.items():
            self.averages[name].copy_(_local(parameter))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages in place of the weights; after the block these are back, bit for bit.

        For evaluation and export; no step of the optimizer may fall inside.
        """
        weights = {name: _local(p).clone() for name, p in self._parameters.items()}
        try:
            self._write(self.averages)
            yield
        finally:
            self._write(weights)

    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            if hasattr(parameter, "ds_tensor"):
                # ZeRO stage 3 keeps small parameters gathered. Let go, they are gathered anew from
                # the shards at their next use.
                parameter.partition()
            _local(parameter).copy_(values[name])


def _local(parameter: nn.Parameter) -> Tensor:
    """Return the part of a parameter that this process holds, as a view of the weights."""
    shard: Tensor | None = getattr(parameter, "ds_tensor", None)
    return parameter.data if shard is None else shard.data
