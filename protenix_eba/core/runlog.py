"""Curves of a training run for TensorBoard and, if asked for, Weights & Biases.

The numbers to compute with stay in the CSV files of the run folder.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protenix_eba.core.errors import UserError

__all__ = ["RunLog", "WandbSettings", "open_run_log"]


@dataclass(frozen=True)
class WandbSettings:
    """How Protenix's keys describe a run to Weights & Biases.

    Attributes:
        project: `project`.
        run_name: `run_name`.
        run_id: `wandb_id`; where empty a new run gets an id, and a resumed one keeps its own.
        configuration: The resolved configuration, shown beside the run.
    """

    project: str
    run_name: str
    run_id: str = ""
    configuration: Mapping[str, Any] = field(default_factory=dict)


class RunLog:
    """An open log, which `open_run_log` makes.

    Args:
        writer: `tensorboardX.SummaryWriter`, or None.
        run: `wandb.Run`, or None.
    """

    def __init__(self, writer: Any = None, run: Any = None) -> None:
        self._writer = writer
        self._run = run

    def scalars(self, step: int, values: Mapping[str, float], prefix: str) -> None:
        """Add one point to each curve `prefix/name`.

        Args:
            step: Optimizer steps done.
            values: Metrics by name.
            prefix: "train" or "validation", a group of curves.
        """
        tagged = {f"{prefix}/{name}": value for name, value in values.items()}
        if self._writer is not None:
            for tag, value in tagged.items():
                self._writer.add_scalar(tag, value, step)
        # A point that was sent cannot be taken back: what a resumed run repeats is not sent again.
        if self._run is not None and step >= self._run.step:
            self._run.log(tagged, step=step)

    def close(self) -> None:
        """Write what is pending and close the files."""
        if self._writer is not None:
            self._writer.close()
        if self._run is not None:
            self._run.finish()


def open_run_log(
    folder: Path, *, resume_step: int, wandb: WandbSettings | None, silent: bool = False
) -> RunLog:
    """Open the log of a run, new or resumed.

    TensorBoard drops the points that an interrupted run wrote after `resume_step`.

    Args:
        folder: The run's; events go to its subfolder `tensorboard`, offline runs of Weights &
            Biases to `wandb`, the id that these are resumed by to `wandb_id.txt`.
        resume_step: Optimizer steps done in the checkpoint that the run goes on from; 0 for none.
        wandb: For Weights & Biases, which is imported only then; None for TensorBoard alone.
        silent: On all processes but the first: nothing is opened or written.

    Raises:
        UserError: Weights & Biases cannot be reached, or refuses the account or the id.
    """
    if silent:
        return RunLog()
    run = None if wandb is None else _wandb_run(folder, wandb)
    from tensorboardX import SummaryWriter  # which imports torch

    # A loss that is not finite is the trainer's to report; here it is one line more per metric.
    logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)
    writer = SummaryWriter(
        str(folder / "tensorboard"),
        purge_step=resume_step + 1,
        # Names have whole seconds: a run that is resumed within one writes another file.
        filename_suffix=f".{resume_step}",
        flush_secs=30,
    )
    return RunLog(writer, run)


def _wandb_run(folder: Path, settings: WandbSettings) -> Any:
    import wandb

    kept = folder / "wandb_id.txt"
    before = kept.read_text(encoding="utf-8").strip() if kept.is_file() else ""
    run_id = settings.run_id or before
    try:
        run = wandb.init(
            project=settings.project,
            name=settings.run_name,
            id=run_id or None,
            config=dict(settings.configuration),
            dir=folder,
            resume="allow" if run_id else None,
            settings=wandb.Settings(console="off"),
        )
    except wandb.Error as error:
        raise UserError(
            f"Weights & Biases: {error}",
            "log in with `wandb login`, set WANDB_MODE=offline to send the run later with "
            "`wandb sync`, or set use_wandb false",
        ) from error
    kept.write_text(f"{run.id}\n", encoding="utf-8")
    return run
