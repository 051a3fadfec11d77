"""Saving the state of a training run, and resuming from it on any number of processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path
from protenix_eba.core.ranks import any_rank
from protenix_eba.core.run_folder import RunFolder
from protenix_eba.training.ema import Ema
from protenix_eba.training.engine import gathered, to_universal, zero_stage

__all__ = ["Checkpoints", "wants_universal"]


def wants_universal(folder: RunFolder, options: dict[str, Any], device: torch.device) -> bool:
    """Return whether the newest checkpoint must be rewritten for this number of processes.

    The engine has to know before it is made. Without ZeRO each process holds the whole state.

    Args:
        folder: Folder of the run.
        options: The section `deepspeed`.
        device: Device of this process.

    Raises:
        UserError: DeepSpeed would read the wrong parts.
    """
    steps = folder.complete_steps()
    if not steps or zero_stage(options) == 0:
        return False
    if folder.world_size(steps[0]) == dist.get_world_size():
        return False
    # DeepSpeed 0.17 takes the part of the rank within the node there.
    apart = int(os.environ.get("LOCAL_RANK", "0")) != dist.get_rank()
    if zero_stage(options) == 3 and any_rank(apart, device):
        raise UserError(
            f"{folder.path} was trained by {folder.world_size(steps[0])} processes with ZeRO stage "
            f"3, which cannot go on with {dist.get_world_size()} on several nodes",
            "take as many processes as before, or one node",
        )
    return True


class Checkpoints:
    """The checkpoints of a run: model, optimizer, schedule and moving average.

    Args:
        folder: Folder of the run.
        engine: DeepSpeed's.
        module: What the engine trains.
        ema: The moving average of its weights, or None.
        universal: Whether to read a universal checkpoint, from `wants_universal`.
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
        if dist.get_rank() == 0:
            self._folder.mark_incomplete(step)
        dist.barrier()
        self._engine.save_checkpoint(str(self._folder.checkpoints), tag, save_latest=False)
        if self._ema is not None:
            with self._ema.applied(), gathered(self._module):
                if dist.get_rank() == 0:
                    self._write_average(self._folder.checkpoints / tag)
        dist.barrier()
        if dist.get_rank() == 0:
            self._folder.mark_complete(step, keep, dist.get_world_size())

    def resume(self, say: Callable[[str], None]) -> int:
        """Load the newest whole checkpoint, and set aside those that cannot be read.

        Args:
            say: Told which ones these are, and why.

        Returns:
            The step of that checkpoint; 0 if there is none.

        Raises:
            UserError: There are checkpoints, and none can be read.
        """
        unreadable: list[int] = []
        for step in self._folder.complete_steps():
            # All processes agree before the first of them talks to the others in a load.
            reason = self._reason_of_failure(
                _check_files, self._folder.checkpoints / self._folder.tag(step)
            )
            if not any_rank(bool(reason), self._device):
                reason = self._reason_of_failure(self._load, self._folder.tag(step))
                if not any_rank(bool(reason), self._device):
                    if dist.get_rank() == 0:
                        self._folder.set_aside(unreadable)
                    return step
            unreadable.append(step)
            say(f"checkpoint of step {step} cannot be read, trying an older: {reason}")
        if unreadable:
            raise UserError(
                f"none of the checkpoints in {self._folder.checkpoints} can be read",
                "restore one of them, or choose another --run_name to start again",
            )
        return 0

    @staticmethod
    def _reason_of_failure(action: Callable[[Any], None], argument: Any) -> str:
        """Call `action`; return its error in one line, of whatever type, or an empty string."""
        try:
            action(argument)
        except Exception as error:
            return (str(error) or type(error).__name__).splitlines()[0]
        return ""

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
        """Read the average by way of the module, whose weights the engine loads right after."""
        assert self._ema is not None
        state = load_file(folder / _AVERAGE)
        with gathered(self._module, write=True), torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_(state[name])
        self._ema.capture()

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self._module.named_parameters() if p.requires_grad]


_AVERAGE: Final = "ema.safetensors"


def _check_files(folder: Path) -> None:
    """Open every file: a truncated one lacks the table of contents at its end."""
    for path in folder.glob("*.pt"):
        ZipFile(path).close()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt"):
            pass
