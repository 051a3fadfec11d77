"""Protocols between the parts of the data: a dataset, its conformers, and a loader.

Each is a `Protocol`: a plugin's class needs the members, and nothing of ours as its base.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from protenix_eba.host.config import EBAConfig
from protenix_eba.host.embeddings import TrunkEmbeddings
from protenix_eba.host.features import ProteinFeatures
from protenix_eba.structures.sequences import Protein
from protenix_eba.training.data.item import Item

__all__ = ["Dataset", "EnsembleLoader", "LabelledConformers", "Loader", "LoaderFactory"]


class LabelledConformers(Protocol):
    """F conformers of one protein with their energies, in Protenix's atom order.

    Its length is F. Nothing but the coordinates may take much memory, and these are read when they
    are asked for.
    """

    @property
    def protein(self) -> ProteinFeatures:
        """Return features and atom order, as they were given to `Dataset.conformers`."""

    @property
    def energy_kj_mol(self) -> Tensor:
        """Return the energies, `[F]` float64."""

    @property
    def replica(self) -> Tensor:
        """Return `[F]` replicas, which name a conformer in messages and logs, with `frame`."""

    @property
    def frame(self) -> Tensor:
        """Return the frames within the replicas, `[F]` integers."""

    @property
    def sampled(self) -> Tensor:
        """Return `[F]` bool, true for a model's own samples, whose density is not known."""

    @property
    def mask(self) -> Tensor:
        """Return a mask, `[N_atom]` float32, 1 where the conformers have the atom."""

    @property
    def partners(self) -> Tensor:
        """Return `[N_atom]` from `symmetry.symmetric_partners`: which atoms may change places."""

    def __len__(self) -> int:
        """Return the number F of conformers."""

    def coordinates(self, rows: Sequence[int] | None = None) -> Tensor:
        """Read conformers.

        Called by several threads at a time.

        Args:
            rows: Which, in any order; all when None.

        Returns:
            `[len(rows), N_atom, 3]` float32 in angstrom, 0 where an atom is absent.

        Raises:
            UserError: They cannot be read. The item is then left out, and training goes on.
        """


class Dataset(Protocol):
    """Targets with conformers and energies.

    In `DATASETS` stands what builds one from the section `eba`; `eba.dataset` names it. Building
    raises `UserError` for what cannot be used.
    """

    def replicas(self) -> Mapping[str, Sequence[int]]:
        """Return the replicas of each target, by its name, in the order of training.

        What is held out is chosen by both; a target that is a single ensemble has replica 1.
        """

    def protein(self, target: str) -> Protein:
        """Return the sequence of a target, which is called by the target's name.

        Raises:
            UserError: It cannot be read.
        """

    def conformers(
        self, target: str, features: ProteinFeatures, replicas: Sequence[int]
    ) -> LabelledConformers:
        """Load the conformers of some replicas of a target.

        Args:
            target: Its name.
            features: Features of its protein, with the order of the atoms.
            replicas: Which.

        Raises:
            UserError: There are none, or they are of another protein.
        """


class Loader(Protocol):
    """Items by their number: item i is the same whoever asks for it, and in whatever order.

    In `DATALOADERS` stands a `LoaderFactory`; `eba.dataloader` names it.
    """

    def __getitem__(self, index: int, /) -> Item:
        """Load item `index`, from 0 without end. Called by another thread than the rest.

        An item whose coordinates cannot be read says so in its `problem`.
        """

    def generator(self, index: int) -> torch.Generator:
        """Return a new generator for the noise of item `index`, on the CPU."""

    def share(self, steps: Iterable[int], rank: int, world_size: int) -> Iterator[int]:
        """Return the numbers of one process's items, all of a step before those of the next.

        Args:
            steps: Optimizer steps; `batch_items` items belong to each.
            rank: Rank of the process.
            world_size: Number of processes.
        """


@runtime_checkable
class EnsembleLoader(Loader, Protocol):
    """A loader of held-out items whose targets can be sampled (`eba.validation_samples`)."""

    @property
    def sources(self) -> Sequence[LabelledConformers]:
        """Return the source of each target."""

    def protein(self, number: int) -> ProteinFeatures:
        """Return the protein of `sources[number]` with all features of the diffusion module."""

    def embedding(self, number: int) -> TrunkEmbeddings:
        """Load the trunk's embeddings of `sources[number]`, whole."""


class LoaderFactory(Protocol):
    """A function registered in `DATALOADERS` that builds a loader."""

    def __call__(
        self,
        config: EBAConfig,
        /,
        *,
        held_out: bool,
        seed: int,
        trunk: str,
        n_cycles: int,
        batch_items: int,
    ) -> Loader | None:
        """Build a loader.

        Args:
            config: The section `eba`.
            held_out: Whether of the conformers that are held out, or of those that are trained on.
            seed: Seed of the run.
            trunk: Fingerprint of the trunk's weights, which embeddings must be made with.
            n_cycles: Recycling iterations of the embeddings.
            batch_items: Items of one optimizer step, on all ranks.

        Returns:
            A loader, or None if nothing is held out.

        Raises:
            UserError: Something is missing, does not belong together, or leaves nothing to train
                on.
        """
