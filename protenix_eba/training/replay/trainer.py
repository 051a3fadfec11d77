"""The trainer `on_policy`: it samples the model every few steps, and trains on the samples."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Generator, Iterator
from typing import Any

import torch
from protenix.utils.distributed import DIST_WRAPPER

from protenix_eba.core.errors import UserError
from protenix_eba.host.embeddings import EmbeddingFolder
from protenix_eba.host.environment import DATASETS, TRAINERS
from protenix_eba.training.data.buffer import RECORD, SAMPLED, require_made
from protenix_eba.training.data.item import Item
from protenix_eba.training.data.replay import ReplayDataset
from protenix_eba.training.engine import gathered, zero_stage
from protenix_eba.training.replay.record import refuse_ruin, summary
from protenix_eba.training.replay.refresh import Refresher
from protenix_eba.training.trainer import EBATrainer

__all__ = ["OnPolicyTrainer", "rounds"]


def rounds(steps: range, length: int) -> Iterator[range]:
    """Cut `steps` into ranges at the multiples of `length`."""
    first = steps.start
    while first < steps.stop:
        end = min(steps.stop, (first // length + 1) * length)
        yield range(first, end)
        first = end


@TRAINERS.register("on_policy")
class OnPolicyTrainer(EBATrainer):
    """Trains on the dataset `replay`, whose buffer it fills; with any objective and batch sampler.

    A refresh comes before each step that is a multiple of `replay.refresh_steps`. The items of the
    steps up to the next one depend on the buffer as it is then, the seed and their numbers, so that
    a run that was killed goes on to the same result; with `replay.asynchronous` too, since samples
    join the buffer exactly one refresh after they were made.

    Args:
        configs: Resolved configuration with the sections `eba`, `replay` and `deepspeed`.
    """

    def init_data(self) -> None:
        """Make the loader of what is held out; what is trained on does not exist yet."""
        self._check()
        self.hold_out()
        self.dataset: ReplayDataset = DATASETS.get("replay")(self.eba)
        pinned = (self.pinned["trunk"], self.configs.model.N_cycle)
        embeddings = EmbeddingFolder(self.eba.path("embeddings"), *pinned)
        for name in self.dataset.trained():
            embeddings.check(self.dataset.protein(name))
        chunk = self.eba.n_conformers * self.eba.n_noise
        self.refresher = Refresher(
            self.eba, self.dataset, embeddings, self.device, chunk, self.signals
        )
        self._drift: list[float] = []
        # Processes sample different targets, for which each needs all weights.
        split = zero_stage(self.deepspeed) == 3
        self._sampled = copy.deepcopy(self.raw_model).eval() if split else self.raw_model

    def hold_out(self) -> None:
        """Make the loader of what is held out; without MD nothing is."""
        if self.eba.data_dir:
            super().hold_out()
        else:
            self.held_out = None

    def _check(self) -> None:
        """Refuse settings of other sections that do not go with sampling.

        Raises:
            UserError: One does not.
        """
        for wrong, found, hint in (
            (
                self.eba.dataset != "replay",
                f"eba.dataset is {self.eba.dataset}",
                "set it to replay",
            ),
            (
                bool(self.configs.replay.buffer),
                f"replay.buffer is {self.configs.replay.buffer}",
                "leave it empty: this trainer fills the buffer of its own run",
            ),
            (
                self.eba.diffusion_temperature == "auto",
                "eba.diffusion_temperature is auto",
                "before the first samples there is nothing to measure: set a number, such as 1 "
                "with eba.error_weights likelihood",
            ),
        ):
            if wrong:
                raise UserError(f"the trainer on_policy: {found}", hint)

    def items_of(self, steps: range) -> Generator[tuple[int, Item], None, None]:
        """See `TrainingLoop`: each round from the buffer as it is at its start."""
        length = self.dataset.settings.refresh_steps
        with contextlib.closing(self.refresher):
            for part in rounds(steps, length):
                if part.start % length == 0:
                    self._refresh(part.start)
                else:
                    self._resume_round(part.start - part.start % length)
                self.loader = self.make_loader(held_out=False)
                yield from super().items_of(part)

    def _newest(self, step: int) -> int:
        """Return the refresh whose samples are the newest in the round that begins at a step."""
        settings = self.dataset.settings
        return max(0, step - settings.refresh_steps) if settings.asynchronous else step

    def _refresh(self, step: int) -> None:
        """Begin a round: new samples, and labels for those that the round is to train on."""
        newest = self._newest(step)
        self._require_refreshes(newest)
        if 0 < newest < step:
            self._finish(newest)
        self.refresher.show(min(newest, step - 1))
        self._sample(step)
        if newest == step:
            self._finish(step)
        self.refresher.show(newest)
        self._begin_labels(step)

    @torch.no_grad()
    def _sample(self, step: int) -> None:
        self._refuse_drift()
        self.engine.eval()
        with self.ema.applied() if self.ema else contextlib.nullcontext():
            self._make_whole()
            self.refresher.sample(self._sampled, step)
        self.engine.train()

    def _make_whole(self) -> None:
        """Copy the weights into the model that is sampled, if ZeRO 3 splits those of training."""
        if self._sampled is not self.raw_model:
            with gathered(self.raw_model):
                named = dict(self.raw_model.named_parameters())
                for name, parameter in self._sampled.named_parameters():
                    parameter.copy_(named[name])

    def _finish(self, step: int) -> None:
        record = self.refresher.finish(step)
        self.refresher.show(step)
        self._report(record)
        refuse_ruin(record, self.dataset.settings, self.dataset.buffer.folder)

    def _begin_labels(self, step: int) -> None:
        """Label samples in the background, if a later round will train on them."""
        later = step + self.dataset.settings.refresh_steps
        if self._newest(step) < step and later < self.configs.max_steps:
            self.refresher.begin_labels(step)

    def _resume_round(self, step: int) -> None:
        """Go back to the samples of the present round, made before the run was stopped."""
        newest = self._newest(step)
        self._require_refreshes(newest + 1)
        require_made(self.dataset.buffer.path(step) / SAMPLED)
        self.refresher.show(newest)
        self._begin_labels(step)

    def _require_refreshes(self, end: int) -> None:
        """Make sure that all refreshes before a step are there: a lost one would be left out."""
        for step in range(0, end, self.dataset.settings.refresh_steps):
            require_made(self.dataset.buffer.path(step) / RECORD)

    def _report(self, record: dict[str, Any]) -> None:
        line = summary(record)
        self.print(
            f"step {record['step']}: sampled {line['targets']:.0f} targets in "
            f"{line['sampling_seconds']:.0f} s, labelled in {line['labelling_seconds']:.0f} s "
            f"(waited {line['waiting_seconds']:.0f} s); "
            f"{100 * line['valid']:.0f}% valid, RMSF {line['rmsf_angstrom']:.2f} angstrom, "
            f"{line['above_first_kj_mol']:+.1f} kJ/mol from the first"
        )
        if DIST_WRAPPER.rank != 0:
            return
        buffer = self.dataset.buffer
        path = self.folder.path / "replay.csv"
        path.unlink(missing_ok=True)  # a resumed run may have fewer refreshes than it had
        for step in reversed(buffer.steps()):
            self.folder.append_row(path, summary(buffer.record(step)))
        names = {name: value for name, value in line.items() if name != "step"}
        self.runlog.scalars(record["step"], names, "replay")

    def train_step(self, batch: dict[str, Any] | None = None) -> dict[str, float]:
        """See `TrainingLoop`; remembers how far the model has gone from its start."""
        metrics = super().train_step(batch)
        if "drift" in metrics and isinstance(self.eba.diffusion_temperature, float):
            self._drift.append(-self.eba.diffusion_temperature * metrics["drift"])
        return metrics

    def _refuse_drift(self) -> None:
        """Stop if the model has drifted too far from its start.

        Raises:
            UserError: Since the last refresh, or since the run was resumed, the drift was above the
                limit.
        """
        limit, drift = self.dataset.settings.drift_limit, self._drift
        self._drift = []
        if limit and drift and sum(drift) / len(drift) > limit:
            raise UserError(
                f"since the last refresh conformers were {sum(drift) / len(drift):.2f} nats "
                f"likelier than for the start, above replay.drift_limit = {limit:g}",
                "take an earlier checkpoint; a lower lr, more of MD, or another limit",
            )
