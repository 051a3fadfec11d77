"""Compression of tensors to a quarter of their float32 size, with an error known beforehand.

A number is rounded to a multiple of its step, and the multiples are compressed without loss. The
step is the same share of the root mean square of the number's channel (all numbers with its last
index) and of its row (all with the same other indices), so that neither heavy tails nor channels
or rows of small numbers lose precision: a layer norm over the channels, which is what reads trunk
embeddings first, would magnify the error of a small row. Eight bits per number with the scale set
by the largest, as is common, are worse on each count.
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

__all__ = ["pack", "unpack"]

_PER_OCTAVE: Final = 4  # scales of rows in each factor of 2


def pack(values: Tensor, steps: int) -> dict[str, Tensor]:
    """Round and compress values.

    Args:
        values: `[..., C]`.
        steps: Steps in the root mean square of a row and channel: the relative error is
            1 / (sqrt(12) steps) of it.

    Returns:
        The arguments of `unpack`: `low` and `high` (the two bytes of the multiples) and `exponent`
        (of the rows' scales), compressed, uint8; `step` (`[C]` bfloat16); `shape`.

    Raises:
        ValueError: A value, or its square, is not finite.
    """
    values = values.detach().cpu().float()
    channel = _zeros_as_ones(values.square().reshape(-1, values.shape[-1]).mean(dim=0).sqrt())
    if not channel.isfinite().all():
        raise ValueError("expected finite values, and finite squares of them")
    row = _zeros_as_ones((values / channel).square().mean(dim=-1, keepdim=True).sqrt())
    exponent = (row.log2() * _PER_OCTAVE).round().clamp(-127, 127).to(torch.int8)
    step = (channel / steps).bfloat16()  # any step near it will do
    codes = (values / (step * _scale(exponent))).round().to(torch.int16)
    low = codes.to(torch.int8)
    high = ((codes - low) >> 8).to(torch.int8)  # 0 but for a few
    # Noise has no repetitions to search for: Huffman's code is all it needs.
    deflate = zlib.compressobj(strategy=zlib.Z_RLE)
    return {
        "low": _as_tensor(deflate.compress(_bytes(low)) + deflate.flush()),
        "high": _as_tensor(bz2.compress(_bytes(high))),
        "exponent": _as_tensor(bz2.compress(_bytes(exponent))),
        "step": step,
        "shape": torch.tensor(values.shape),
    }


def unpack(packed: Mapping[str, Tensor]) -> Tensor:
    """Return the values that `pack` kept, `[..., C]` float32.

    Raises:
        zlib.error, OSError, ValueError: The bytes have changed.
    """
    shape = packed["shape"].tolist()
    low = _int8(zlib.decompress(_bytes(packed["low"]), bufsize=math.prod(shape)), shape)
    high = _int8(bz2.decompress(_bytes(packed["high"])), shape)
    scale = _scale(_int8(bz2.decompress(_bytes(packed["exponent"])), [*shape[:-1], 1]))
    return low.float().add_(high, alpha=256).mul_(packed["step"]).mul_(scale)


def _zeros_as_ones(scale: Tensor) -> Tensor:
    """Replace zeros by one: a channel or row of zeros may have any scale."""
    return torch.where(scale == 0, 1.0, scale)


def _scale(exponent: Tensor) -> Tensor:
    return torch.exp2(exponent.double() / _PER_OCTAVE).float()


def _bytes(plane: Tensor) -> bytes:
    return plane.numpy().tobytes()


def _as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _int8(data: bytes, shape: list[int]) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.int8).reshape(shape)
