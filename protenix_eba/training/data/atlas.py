"""The dataset `atlas`: MD in the layout of ATLAS, with energies of `protenix-eba label`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from protenix_eba.energy.table import EnergyLabels
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.environment import DATASETS
from protenix_eba.host.features import ProteinFeatures
from protenix_eba.structures.sequences import Protein, protein_of_target
from protenix_eba.structures.trajectories import find_targets
from protenix_eba.training.data.conformers import Conformers, labels_by_target, load_conformers
from protenix_eba.training.data.labels import training_labels

__all__ = ["AtlasDataset"]


@DATASETS.register("atlas")
class AtlasDataset:
    """A dataset of trajectories in `eba.data_dir`, with energies in `eba.labels`.

    Args:
        config: The section `eba`; the labels are read when conformers are asked for.

    Raises:
        UserError: There is no such folder, or no target in it.
    """

    def __init__(self, config: EBAConfig) -> None:
        self._config = config
        self._targets = {t.name: t for t in find_targets(config.path("data_dir"))}

    def replicas(self) -> dict[str, tuple[int, ...]]:
        """Return each target's replicas, see `Dataset`."""
        return {name: tuple(target.trajectory_paths) for name, target in self._targets.items()}

    def protein(self, target: str) -> Protein:
        """Return a target's sequence, see `Dataset`."""
        return protein_of_target(self._targets[target])

    def conformers(
        self, target: str, features: ProteinFeatures, replicas: Sequence[int]
    ) -> Conformers:
        """Load a target's conformers, see `Dataset`."""
        # of a target without labels the error lists those with
        rows = self._by_target.get(target, self._labels)
        return load_conformers(self._targets[target], features, rows, replicas)

    @cached_property
    def _labels(self) -> EnergyLabels:
        return training_labels(self._config)

    @cached_property
    def _by_target(self) -> dict[str, EnergyLabels]:
        return labels_by_target(self._labels)
