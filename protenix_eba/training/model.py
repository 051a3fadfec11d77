"""The denoiser that a run trains, frozen but for the chosen weights, and its optimizer."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.lora import add_adapters
from protenix_eba.host.weights import (
    StateDict,
    build_diffusion_module,
    build_input_embedder,
    freeze,
    trains_embedder,
)
from protenix_eba.training.engine import gathered, trainable

__all__ = ["build_denoiser", "frozen_digest", "make_optimizer", "trained_digest"]


def build_denoiser(configs: Any, start: StateDict) -> ConformerDenoiser:
    """Build the denoiser of a start checkpoint, frozen but for what `eba.trainable` names.

    Args:
        configs: Resolved configuration with the section `eba`.
        start: Weights of the whole model.

    Raises:
        UserError: The checkpoint has other sizes, or a pattern matches nothing.
    """
    module = build_diffusion_module(configs, start)
    # As upstream: the diffusion module in float32 unless the configuration says otherwise.
    whole = configs.dtype != "bf16" or configs.skip_amp.sample_diffusion_training
    dtype = torch.float32 if whole else torch.bfloat16
    patterns, rank = configs.eba.trainable, configs.eba.lora_rank
    if rank:
        generator = torch.Generator().manual_seed(configs.seed)
        add_adapters(module, patterns, rank, configs.eba.lora_alpha, generator)
        return ConformerDenoiser(module, dtype)
    embedder = None
    if trains_embedder(patterns, start):
        embedder = build_input_embedder(configs, start)
    denoiser = ConformerDenoiser(module, dtype, embedder)
    freeze(denoiser, patterns)
    return denoiser


def make_optimizer(configs: Any, module: nn.Module) -> torch.optim.Optimizer:
    """Make Adam as Protenix's section `adam` says, for the weights that are not frozen."""
    adam = configs.adam
    kind = torch.optim.AdamW if adam.use_adamw else torch.optim.Adam
    return kind(
        trainable(module),
        lr=adam.lr,
        betas=(adam.beta1, adam.beta2),
        weight_decay=adam.weight_decay,
        fused=True,  # in one pass: on a CPU the plain loop takes as long as a small step
    )


def frozen_digest(module: nn.Module) -> str:
    """Return a fingerprint of all frozen weights, bit for bit."""
    return _digest(module, trained=False)


def trained_digest(module: nn.Module) -> str:
    """Return a fingerprint of all weights that are trained, as they are now."""
    return _digest(module, trained=True)


def _digest(module: nn.Module, *, trained: bool) -> str:
    digest = hashlib.sha256()
    with gathered(module):
        for parameter in module.parameters():
            if parameter.requires_grad == trained:
                digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
