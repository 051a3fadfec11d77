"""Communication between the processes of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

__all__ = ["any_rank", "average", "from_first", "gather_rows"]

T = TypeVar("T")


def any_rank(flag: bool, device: torch.device) -> bool:
    """Return whether any process raises the flag."""
    if dist.get_world_size() == 1:
        return flag
    shared = torch.tensor(float(flag), device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return bool(shared.item() > 0)


def average(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Return the mean over processes; all give the same names in the same order."""
    shared = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    if dist.get_world_size() > 1:
        dist.all_reduce(shared)
        shared /= dist.get_world_size()
    return dict(zip(values, shared.tolist(), strict=True))


def gather_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of all processes, in the order of their ranks."""
    if dist.get_world_size() == 1:
        return list(rows)
    parts: list[list[dict[str, Any]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, list(rows))
    return [row for part in parts for row in part]


def from_first(value: T) -> T:
    """Return the first process's value, to the last bit."""
    if dist.get_world_size() == 1:
        return value
    shared = [value]
    dist.broadcast_object_list(shared)
    return shared[0]
