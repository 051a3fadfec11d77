"""Stand-ins for samples that a model has not made yet, so that steps on them can be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.host.environment import DATASETS
from protenix_eba.host.features import ProteinFeatures
from protenix_eba.training.data.interfaces import LabelledConformers
from protenix_eba.training.data.loader import SequenceCoupledLoader, load_dataset
from protenix_eba.training.data.replay import ReplayDataset, md_rows
from protenix_eba.training.replay.trainer import OnPolicyTrainer
from protenix_eba.training.symmetry import symmetric_partners

__all__ = ["FirstRound", "StandIn", "first_round_loader", "md_loader"]

# Heavy atoms in a cubic angstrom of protein.
_DENSITY: Final = 0.05


@dataclass(frozen=True, eq=False)
class StandIn:
    """Conformers that cost what a protein's own do: as many atoms, as dense, at random places.

    Attributes:
        protein: Features and atom order.
        count: F.
    """

    protein: ProteinFeatures
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def energy_kj_mol(self) -> Tensor:
        """Return `[F]` evenly spaced energies, of which none is an outlier."""
        return torch.linspace(-1.0, 1.0, self.count, dtype=torch.float64)

    @property
    def replica(self) -> Tensor:
        """Return `[F]` zeros: the step before which they were made."""
        return torch.zeros(self.count, dtype=torch.int64)

    @property
    def frame(self) -> Tensor:
        """Return the numbers `[F]`."""
        return torch.arange(self.count)

    @property
    def sampled(self) -> Tensor:
        """Return `[F]`, all true."""
        return torch.ones(self.count, dtype=torch.bool)

    @property
    def mask(self) -> Tensor:
        """Return `[N_atom]` ones."""
        return torch.ones(len(self.protein.atoms))

    @cached_property
    def partners(self) -> Tensor:
        """Return `[N_atom]`: which atoms may change places."""
        return symmetric_partners(self.protein.atoms, self.protein.protein.chains)

    def coordinates(self, rows: Sequence[int] | None = None) -> Tensor:
        """Draw atoms uniformly in a cube, see `LabelledConformers`."""
        chosen = range(self.count) if rows is None else rows
        n_atoms = len(self.protein.atoms)
        side = (n_atoms / _DENSITY) ** (1 / 3)
        found = torch.empty(len(chosen), n_atoms, 3)
        for one, row in zip(found, chosen, strict=True):
            one.uniform_(0.0, side, generator=torch.Generator().manual_seed(row))
        return found


class FirstRound(ReplayDataset):
    """The dataset `replay` as it is after its first refresh, with stand-ins for all conformers."""

    def conformers(
        self, target: str, features: ProteinFeatures, replicas: Sequence[int]
    ) -> LabelledConformers:
        """Return as many conformers of a target as the first round has."""
        count = min(self.settings.new_samples, self.settings.max_samples)
        if self._md and self.settings.md_share:
            n_md = len(self._md.conformers(target, features, replicas))
            rows, n_samples = md_rows(n_md, count, self.settings.md_share, [0])
            count = len(rows) + n_samples
        return StandIn(features, count)


def first_round_loader(trainer: OnPolicyTrainer) -> SequenceCoupledLoader:
    """Make a loader of the items of a run's first round, with stand-ins for its conformers.

    Raises:
        UserError: The run has another dataloader than `eba`, whose items are not known; or too
            few samples for an item.
    """
    if trainer.eba.dataloader != "eba":
        raise UserError(
            f"--dry-run: expected eba.dataloader eba beside the trainer on_policy, found "
            f"{trainer.eba.dataloader}, whose items are not known before there are samples",
            "leave --dry-run out, and try a small --max_steps under another --run_name",
        )
    dataset = FirstRound(trainer.eba)
    return load_dataset(dataset, trainer.eba, held_out=False, **trainer.loader_arguments())


def md_loader(trainer: OnPolicyTrainer) -> SequenceCoupledLoader | None:
    """Make a loader of the MD that a run trains on beside its samples; None if there is none."""
    settings = trainer.dataset.settings
    if not settings.md_share:
        return None
    config = replace(trainer.eba, dataset=settings.md_dataset)
    dataset = DATASETS.get(settings.md_dataset)(config)
    return load_dataset(dataset, config, held_out=False, **trainer.loader_arguments())
