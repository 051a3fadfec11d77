"""Saving the state of a training run, and going on from it on any number of processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from protenix_eba.ema import Ema
from protenix_eba.engine import gathered, to_universal, zero_stage
from protenix_eba.errors import UserError
from protenix_eba.files import atomic_path
from protenix_eba.ranks import any_rank
from protenix_eba.run_folder import RunFolder

__all__ = ["Checkpoints", "wants_universal"]


def wants_universal(folder: RunFolder, options: dict[str, Any]) -> bool:
    """Whether the newest checkpoint must be rewritten for this number of processes.

    The engine has to know before it is made. Without ZeRO each process holds the whole state.

    Args:
        folder: Of the run.
        options: The section `deepspeed`.
    """
    steps = folder.complete_steps()
    if not steps or zero_stage(options) == 0:
        return False
    return folder.world_size(steps[0]) != dist.get_world_size()


class Checkpoints:
    """The checkpoints of a run: model, optimizer, schedule and moving average.

    Args:
        folder: Of the run.
        engine: DeepSpeed's.
        module: What the engine trains.
        ema: The moving average of its weights, or None.
        universal: From `wants_universal`.
    """

    def __init__(
        self, folder: RunFolder, engine: Any, module: nn.Module, ema: Ema | None, universal: bool
    ) -> None:
        self._folder = folder
        self._engine = engine
        self._module = module
        self._ema = ema
        self._universal = universal
        self._device = next(module.parameters()).device

    def save(self, step: int, keep: int) -> None:
        """Write the state after `step`; it counts once `complete.json` stands beside it."""
        tag = self._folder.tag(step)
        self._engine.save_checkpoint(str(self._folder.checkpoints), tag, save_latest=False)
        if self._ema is not None:
            with self._ema.applied(), gathered(self._module):
                if dist.get_rank() == 0:
                    self._write_average(self._folder.checkpoints / tag)
        dist.barrier()
        if dist.get_rank() == 0:
            self._folder.mark_complete(step, keep, dist.get_world_size())

    def resume(self, say: Callable[[str], None]) -> int:
        """Load the newest whole checkpoint.

        Args:
            say: Told which ones cannot be read, and why.

        Returns:
            Its step; 0 if there is none.
        """
        for step in self._folder.complete_steps():
            reason = ""
            try:
                self._load(self._folder.tag(step))
            except Exception as error:  # a cut file raises whatever its reader raises
                reason = (str(error) or type(error).__name__).splitlines()[0]
            if not any_rank(bool(reason), self._device):
                return step
            say(f"checkpoint of step {step} cannot be read, trying an older: {reason}")
        return 0

    def _load(self, tag: str) -> None:
        folder = self._folder.checkpoints
        if self._ema is not None:
            self._read_average(folder / tag)
        if self._universal:
            failed = None
            if dist.get_rank() == 0:
                try:
                    to_universal(folder, tag)
                except UserError as error:
                    failed = error
            if any_rank(failed is not None, self._device):
                raise failed or UserError(f"{folder / tag} cannot be rewritten")
            tag = f"{tag}_universal"
        self._engine.load_checkpoint(str(folder), tag)

    def _write_average(self, folder: Path) -> None:
        state = {n: p.detach().cpu().clone() for n, p in self._trained()}
        with atomic_path(folder / _AVERAGE) as temporary:
            save_file(state, temporary)

    def _read_average(self, folder: Path) -> None:
        """Through the module: the engine's load overwrites its weights right after."""
        assert self._ema is not None
        state = load_file(folder / _AVERAGE)
        with gathered(self._module, write=True), torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_(state[name])
        self._ema.capture()

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self._module.named_parameters() if p.requires_grad]


_AVERAGE = "ema.safetensors"
