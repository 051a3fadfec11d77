"""The number of samples made at a time: as many as fit into memory and save time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import torch

__all__ = ["free_memory", "samples_at_a_time"]

# Bytes of the diffusion module in float32, without gradients: what all samples share grows with the
# pairs of residues; each sample takes its windows of atoms or, of long chains, three attention
# matrices of 16 heads. Peaks measured on a CPU, 60 to 360 residues and 1 to 8 samples, are between
# a tenth above and a quarter below from 25 MB on. Not measured on a GPU, where fused attention
# should take less.
SHARED_PER_PAIR: Final = 800
SAMPLE_PER_ATOM: Final = 10_000
SAMPLE_PER_PAIR: Final = 200
# The rest of the free memory is for others, and for what the allocator loses.
SHARE: Final = 0.5
# On a CPU a sample in a chunk of 8 costs 10% less than in one of 4 (217 residues); more brings
# little, and a chunk is what an interrupt loses.
MOST: Final = {"cpu": 8, "cuda": 64}
# Of small molecules so many samples that their products are worth reading the weights for: of 21
# atoms, 97 instead of 8 samples at a time take a quarter of the time.
ATOMS_AT_LEAST: Final = 2048

_PROC: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")


def samples_at_a_time(
    n_tokens: int, n_atoms: int, device: torch.device, free_bytes: int | None = None
) -> int:
    """Return the size of a chunk by memory: at least 1, at most what makes it faster.

    Args:
        n_tokens: Residues.
        n_atoms: Heavy atoms.
        device: Device of the model.
        free_bytes: Free memory of the device; by default what is free now.
    """
    free = free_memory(device) if free_bytes is None else free_bytes
    most = max(MOST.get(device.type, 1), ATOMS_AT_LEAST // n_atoms)
    if free is None:
        return most
    shared = SHARED_PER_PAIR * n_tokens**2
    each = max(SAMPLE_PER_ATOM * n_atoms, SAMPLE_PER_PAIR * n_tokens**2)
    return max(1, min(most, int((SHARE * free - shared) // each)))


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of a GPU, or of the host within its control group; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    known = [value for value in (_available(), _left_in_group()) if value is not None]
    return min(known, default=None)


def _available() -> int | None:
    if not _PROC.is_file():
        return None
    found = re.search(r"MemAvailable:\s*(\d+) kB", _PROC.read_text(encoding="ascii"))
    return 1024 * int(found.group(1)) if found else None


def _left_in_group() -> int | None:
    """Return what a container or batch system leaves to this process (control groups, v. 2)."""
    try:
        limit, used = ((_CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
    except OSError:
        return None
    return max(0, int(limit) - int(used)) if limit.strip().isdigit() else None
