"""Tensors in less than a quarter of their float32 size, with an error that is known beforehand.

A number is rounded to a multiple of its step, and the multiples are compressed without loss. The
step is the same share of the root mean square of the number's channel (all numbers with its last
index) and of its row (all with the same other indices), so that neither heavy tails nor channels
or rows of small numbers lose precision: a layer norm over the channels, which is what reads trunk
embeddings first, would magnify the error of a small row. Eight bits per number with the scale set
by the largest, as is common, are worse on each count.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

__all__ = ["pack", "unpack"]

_PER_OCTAVE: Final = 4  # scales of rows in each factor of 2


def pack(values: Tensor, steps: int) -> dict[str, Tensor]:
    """Round and compress.

    Args:
        values: `[..., C]`.
        steps: Steps in the root mean square of a row and channel: the relative error is
            1 / (sqrt(12) steps) of it.

    Returns:
        For `unpack`: `low` and `high` (the two bytes of the multiples) and `exponent` (of the
        rows' scales), compressed, uint8; `step` (`[C]` float32); `shape`.

    Raises:
        ValueError: A value, or its square, is not finite.
    """
    values = values.detach().cpu().float()
    channel = _or_one(values.square().reshape(-1, values.shape[-1]).mean(dim=0).sqrt())
    if not channel.isfinite().all():
        raise ValueError("expected finite values, and finite squares of them")
    row = _or_one((values / channel).square().mean(dim=-1, keepdim=True).sqrt())
    exponent = (row.log2() * _PER_OCTAVE).round().clamp(-127, 127).to(torch.int8)
    step = channel / steps
    codes = (values / (step * _scale(exponent))).round().to(torch.int16)
    low = codes.to(torch.int8)
    high = ((codes - low) >> 8).to(torch.int8)  # 0 but for a few
    planes = {"low": low, "high": high, "exponent": exponent}
    return {
        **{name: _compressed(plane) for name, plane in planes.items()},
        "step": step,
        "shape": torch.tensor(values.shape),
    }


def unpack(packed: Mapping[str, Tensor]) -> Tensor:
    """What `pack` kept of its values, `[..., C]` float32.

    Raises:
        zlib.error: The bytes have changed.
    """
    shape = packed["shape"].tolist()
    low, high = (_decompressed(packed[name], shape) for name in ("low", "high"))
    scale = _scale(_decompressed(packed["exponent"], [*shape[:-1], 1]))
    return low.float().add_(high, alpha=256).mul_(packed["step"]).mul_(scale)


def _or_one(scale: Tensor) -> Tensor:
    """A channel or row of zeros may have any scale."""
    return torch.where(scale == 0, 1.0, scale)


def _scale(exponent: Tensor) -> Tensor:
    return torch.exp2(exponent.double() / _PER_OCTAVE).float()


def _compressed(plane: Tensor) -> Tensor:
    """Deflate without a search for repetitions, of which noise has none: Huffman's code."""
    deflate = zlib.compressobj(strategy=zlib.Z_RLE)
    data = deflate.compress(plane.numpy().tobytes()) + deflate.flush()
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _decompressed(data: Tensor, shape: list[int]) -> Tensor:
    plane = zlib.decompress(data.numpy().tobytes(), bufsize=torch.Size(shape).numel())
    return torch.frombuffer(bytearray(plane), dtype=torch.int8).reshape(shape)
