"""A DeepSpeed engine, started so that it works on a CPU, on one GPU and on many."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from protenix_eba.core.errors import UserError
from protenix_eba.plugin_api import did_you_mean

__all__ = [
    "engine_settings",
    "gathered",
    "make_engine",
    "start_distributed",
    "to_universal",
    "trainable",
    "zero_stage",
]

# Keys of DeepSpeed's configuration that can be passed on (DeepSpeed 0.17's documentation).
_KNOWN: Final = (
    *("zero_optimization", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer"),
    *("communication_data_type", "seq_parallel_communication_data_type", "data_types"),
    *("prescale_gradients", "gradient_predivide_factor", "sparse_gradients", "disable_allgather"),
    *("steps_per_print", "wall_clock_breakdown", "dump_state", "memory_breakdown"),
    *("flops_profiler", "comms_logger", "tensorboard", "wandb", "csv_monitor", "timers"),
    *("activation_checkpointing", "checkpoint", "aio", "compile", "autotuning", "elasticity"),
    *("data_efficiency", "compression_training", "dataloader_drop_last", "graph_harvesting"),
)
# Keys of DeepSpeed's configuration that Protenix's own keys set.
_OWNED: Final = {
    "train_batch_size": "iters_to_accumulate",
    "train_micro_batch_size_per_gpu": "eba.n_conformers and eba.n_noise",
    "gradient_accumulation_steps": "iters_to_accumulate",
    "gradient_clipping": "grad_clip_norm",
    "optimizer": "lr and adam",
    "scheduler": "lr_scheduler",
    # These cast the weights, which Protenix's modules do not expect.
    "bf16": "dtype: bf16 and skip_amp.sample_diffusion_training: false",
    "fp16": "dtype: bf16 and skip_amp.sample_diffusion_training: false",
    # Its gradients are 65,536 times too large in DeepSpeed 0.17.
    "torch_autocast": "dtype: bf16 and skip_amp.sample_diffusion_training: false",
}


def start_distributed(device: torch.device) -> None:
    """Join the process group that a launcher announced, or make one of a single process.

    Args:
        device: Device of this process; its kind decides between NCCL and gloo.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if device.type == "cuda" else "cpu")
    if "RANK" not in os.environ:
        # Without these DeepSpeed looks for an MPI launcher. Port 0: any that is free, which
        # nobody else has to know.
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        os.environ.update(alone, MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    # Created at import with the level INFO, for two lines on each process.
    logging.getLogger("DeepSpeed").addFilter(_is_warning)
    logging.getLogger("deepspeed").addFilter(_is_warning)
    import deepspeed

    if device.type == "cpu":
        # Otherwise a shared-memory kernel is compiled for a minute, even for one process.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        _wait_for_each_gather(deepspeed.comm)
    backend = "nccl" if device.type == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, verbose=False)


def _wait_for_each_gather(comm: Any) -> None:
    """Make DeepSpeed wait for each of many gathers, as it does since its pull request 8539.

    Enough on a CUDA stream; with gloo ZeRO 3 then computes with weights that are not there yet.
    """
    gather = comm.all_gather_into_tensor
    if getattr(gather, "waits", False):
        return

    def gather_and_wait(*args: Any, **kwargs: Any) -> Any:
        handle = gather(*args, **kwargs)
        if handle is not None:
            handle.wait()
        return handle

    gather_and_wait.waits = True  # type: ignore[attr-defined]
    comm.all_gather_into_tensor = gather_and_wait


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def engine_settings(
    options: Mapping[str, Any], *, accumulate: int, clip_norm: float
) -> dict[str, Any]:
    """Return DeepSpeed's configuration, from the section `deepspeed` and Protenix's own keys.

    Args:
        options: The section, with DeepSpeed's own keys.
        accumulate: Backward passes per optimizer step on each process.
        clip_norm: Largest norm of the global gradient; 0 for no limit.

    Raises:
        UserError: The section sets what one of Protenix's keys sets.
    """
    for key in options:
        if key in _OWNED:
            raise UserError(f"deepspeed.{key} is set by Protenix's own keys", f"set {_OWNED[key]}")
        if key not in _KNOWN:  # DeepSpeed takes it in silence
            raise UserError(f"deepspeed: unknown key {key!r}", did_you_mean(key, _KNOWN))
    if not isinstance(options.get("zero_optimization", {}), Mapping | None):
        raise UserError(
            f"deepspeed.zero_optimization is a section, found {options['zero_optimization']!r}",
            "set deepspeed.zero_optimization.stage",
        )
    stage = zero_stage(options)
    if stage not in (0, 1, 2, 3):
        raise UserError(f"deepspeed.zero_optimization.stage: expected 0, 1, 2 or 3, found {stage}")
    return {
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        **options,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulate,
        "gradient_clipping": clip_norm,
    }


def zero_stage(options: Mapping[str, Any]) -> int:
    """Return the ZeRO stage in the section `deepspeed`: what is split over the processes.

    0 nothing, 1 the optimizer's state, 2 gradients too, 3 weights too (Rajbhandari et al., 2020).
    """
    stage: int = (options.get("zero_optimization") or {}).get("stage", 0)
    return stage


def make_engine(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    settings: dict[str, Any],
) -> Any:
    """Make a DeepSpeed engine around a module.

    The weights stay in float32, as Protenix's modules expect; bfloat16 is a matter of autocast
    inside the module's forward.

    Args:
        module: On its device.
        optimizer: Over the trainable parameters; ours, since DeepSpeed's "Adam" is AdamW.
        scheduler: Stepped by the engine at each optimizer step.
        settings: Settings from `engine_settings`.

    Returns:
        The `deepspeed.DeepSpeedEngine`.
    """
    import deepspeed
    from pydantic import ValidationError

    try:
        engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, lr_scheduler=scheduler, config=settings
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"the section deepspeed: {place}: {first['msg']}", "see DeepSpeed's documentation"
        ) from error
    alone = engine.dp_world_size == 1 and zero_stage(settings) == 0
    if alone and settings["gradient_accumulation_steps"] == 1:
        # Nothing to reduce: copying all gradients for it is a tenth of a small step. With several
        # items in a step DeepSpeed would leave their sum undivided.
        engine.enable_backward_allreduce = False
    return engine


@contextlib.contextmanager
def gathered(module: nn.Module, *, write: bool = False) -> Iterator[None]:
    """Make a module's weights whole on every process within the block, if ZeRO 3 splits them.

    Args:
        module: Its parameters.
        write: Whether they are changed inside, equally on all processes.
    """
    split = [p for p in module.parameters() if hasattr(p, "ds_id")]
    if not split:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(split, modifier_rank=0 if write else None):
        yield


def to_universal(checkpoints: Path, tag: str) -> str:
    """Rewrite a checkpoint so that any number of processes can load it.

    ZeRO 1 to 3 save one file for each process and refuse them on another number.

    Args:
        checkpoints: Folder of all checkpoints of a run.
        tag: Name of the checkpoint.

    Returns:
        The tag of the rewritten one, in the same folder.

    Raises:
        UserError: DeepSpeed's converter fails; its last line is the reason.
    """
    universal = f"{tag}_universal"
    shutil.rmtree(checkpoints / universal, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    command += ["--input_folder", str(checkpoints / tag)]
    command += ["--output_folder", str(checkpoints / universal)]
    command += ["--inject_missing_state"]  # without it stages 1 and 2 fail
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(
            f"{checkpoints / tag} cannot be rewritten for another number of processes: {reason}",
            "resume on as many processes as wrote it",
        )
    return universal


def trainable(module: nn.Module) -> Iterable[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return (p for p in module.parameters() if p.requires_grad)
