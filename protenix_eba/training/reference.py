"""The frozen start that some objectives compare the model with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.lora import adapters_off, has_adapters

__all__ = ["make_reference"]


def make_reference(model: ConformerDenoiser, path: Path, *, split: bool) -> Callable[..., Tensor]:
    """Return the model as it is now, frozen for the rest of the run.

    A model that is trained through adapters is its own reference, without them. Otherwise the
    trained weights are copied; the frozen ones are the model's own.

    Args:
        model: Before its first step and before the engine is made.
        path: The run's copy of the weights; written the first time, read afterwards.
        split: Whether the engine is going to split the weights over processes (ZeRO 3): then
            nothing can be shared.
    """
    if has_adapters(model):

        def without_adapters(*inputs: Any) -> Tensor:
            with adapters_off(model):
                out: Tensor = model(*inputs)
                return out

        return without_adapters
    frozen = {id(p): p for p in model.parameters() if not p.requires_grad and not split}
    reference = copy.deepcopy(model, frozen)
    trained = {n: p for n, p in reference.named_parameters() if p.requires_grad}
    if path.is_file():
        try:
            with torch.no_grad():
                for name, value in load_file(path).items():
                    trained[name].copy_(value)
        except SafetensorError as error:
            raise UserError(
                f"{path} is not a whole file: {error}",
                "delete it: it is the start that the run was given, and is written again",
            ) from error
    elif dist.get_rank() == 0:
        with atomic_path(path) as temporary:
            try:
                save_file({n: p.detach().cpu() for n, p in trained.items()}, temporary)
            except SafetensorError as error:
                raise UserError(
                    f"{path} cannot be written: {error}", "make room, or choose another folder"
                ) from error
    dist.barrier()
    return reference.requires_grad_(False).eval()
