"""A DeepSpeed engine, started so that it works on a CPU, on one GPU and on many."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["make_engine", "start_distributed"]


def start_distributed(device: torch.device) -> None:
    """Join the process group that a launcher announced, or make one of a single process.

    Args:
        device: Of this process; its kind decides between NCCL and gloo.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if device.type == "cuda" else "cpu")
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    if "RANK" not in os.environ:
        # Without these DeepSpeed looks for an MPI launcher.
        os.environ.update(alone, MASTER_PORT=str(_free_port()))
    # Created at import with the level INFO, for two lines on each process.
    logging.getLogger("DeepSpeed").addFilter(_is_warning)
    logging.getLogger("deepspeed").addFilter(_is_warning)
    import deepspeed

    if device.type == "cpu":
        # Otherwise a shared-memory kernel is compiled for a minute, even for one process.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if device.type == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, verbose=False)


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_engine(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    *,
    accumulate: int,
    clip_norm: float,
    zero_stage: int,
) -> Any:
    """A DeepSpeed engine in fp32 around a module.

    Args:
        module: On its device.
        optimizer: Over the trainable parameters; ours, since DeepSpeed's "Adam" is AdamW.
        scheduler: Stepped by the engine at each optimizer step.
        accumulate: Backward passes per optimizer step on each process.
        clip_norm: Of the global gradient; 0 for none.
        zero_stage: 0, 1 or 2. (Stage 3 would have to gather weights for the export; the trunk
            is never loaded for training, which saves more.)

    Returns:
        `deepspeed.DeepSpeedEngine`.
    """
    import deepspeed

    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulate,
        "gradient_clipping": clip_norm,
        "zero_optimization": {"stage": zero_stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, lr_scheduler=scheduler, config=settings
    )
    return engine


def trainable(module: nn.Module) -> Iterable[nn.Parameter]:
    """Parameters that are not frozen."""
    return (p for p in module.parameters() if p.requires_grad)
