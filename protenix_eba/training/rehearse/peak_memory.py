"""The memory of a training process: how much its parts take, and its peak in each phase."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from protenix_eba.training.engine import trainable, zero_stage

if TYPE_CHECKING:
    from protenix_eba.training.trainer import EBATrainer

__all__ = ["Memory", "MemoryMeter", "n_weights", "permanent_parts"]


@dataclass(frozen=True)
class Memory:
    """Memory of a process, in bytes.

    Attributes:
        host: Bytes of the machine's memory.
        device: Bytes of the GPU's memory that torch has allocated; 0 where the model is on the CPU.
    """

    host: int = 0
    device: int = 0

    def __sub__(self, other: Memory) -> Memory:
        """Return how much more this is than the other."""
        return Memory(self.host - other.host, self.device - other.device)

    def __add__(self, other: Memory) -> Memory:
        """Return both together."""
        return Memory(self.host + other.host, self.device + other.device)

    def largest(self, other: Memory) -> Memory:
        """Return the larger of both on the host, and the larger of both on the device."""
        return Memory(max(self.host, other.host), max(self.device, other.device))


class MemoryMeter:
    """Reads the memory that this process takes; on the host that needs Linux.

    Args:
        device: Device of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None

    def restart(self) -> None:
        """Start a new peak: what was held before does not count."""
        _give_back()
        # Where it is forbidden, peaks are those since the process began: none is too small.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self._cuda)

    def now(self) -> Memory:
        """Return what is held at this moment."""
        device = torch.cuda.memory_allocated(self._cuda) if self._cuda else 0
        _give_back()
        return Memory(_status("VmRSS"), device)

    def peak(self) -> Memory:
        """Return the most that was held since `restart`."""
        device = torch.cuda.max_memory_allocated(self._cuda) if self._cuda else 0
        # Sandboxes such as gVisor do not show the peak there.
        whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Memory(_status("VmHWM") or whole, device)


def _give_back() -> None:
    """Let the allocator return what is free, so that what counts is what is used (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(key: str) -> int:
    """Return a value of `/proc/self/status` in bytes, 0 where it is not shown."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)


def permanent_parts(trainer: EBATrainer) -> dict[str, Memory]:
    """Return what a process holds from its first step to its last, and the gradients of a step.

    Args:
        trainer: A trainer that has made a step, so that its optimizer has a state.
    """
    model, stage = trainer.raw_model, zero_stage(trainer.deepspeed)
    n_split = trainer.engine.dp_world_size
    whole, trained = _weight_bytes(model.parameters()), _weight_bytes(trainable(model))
    state = [t for s in trainer.optimizer.state.values() for t in s.values()]
    # ZeRO trains a float32 copy of each process's share.
    masters = trained // n_split if stage else 0

    def there(n_bytes: int) -> Memory:
        return Memory(device=n_bytes) if trainer.use_cuda else Memory(n_bytes)

    return {
        "start checkpoint, kept to write models": Memory(_bytes(trainer.start.values())),
        "weights": there(whole // n_split if stage == 3 else whole),
        "frozen reference": there(_reference_bytes(trainer)),
        "optimizer state": there(_bytes(t for t in state if torch.is_tensor(t)) + masters),
        "moving average": there(_bytes(trainer.ema.averages.values() if trainer.ema else ())),
        "gradients": there(trained // n_split if stage >= 2 else trained),
    }


def _reference_bytes(trainer: EBATrainer) -> int:
    """Return the bytes of the frozen start, without the weights that it shares with the model."""
    if not isinstance(trainer.reference, nn.Module):
        return 0
    shared = {id(p) for p in trainer.raw_model.parameters()}
    return _weight_bytes(p for p in trainer.reference.parameters() if id(p) not in shared)


def n_weights(parameters: Iterable[nn.Parameter]) -> int:
    """Return the number of weights of the whole model.

    Where ZeRO 3 splits a weight over the processes, each holds an empty tensor that knows its size.
    """
    return sum(getattr(p, "ds_numel", p.numel()) for p in parameters)


def _weight_bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(n_weights([p]) * p.element_size() for p in parameters)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
