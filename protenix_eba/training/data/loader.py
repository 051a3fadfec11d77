"""The sequence-coupled loader: K conformers of one sequence per item, the same for any rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from typing import Final

import torch
from torch import Tensor

import protenix_eba.training.data.atlas  # the datasets that are there without a plugin
import protenix_eba.training.data.replay  # noqa: F401
from protenix_eba.core.errors import UserError
from protenix_eba.core.progress import track
from protenix_eba.core.seeds import stream_generator
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.embeddings import EmbeddingFolder, TrunkEmbeddings
from protenix_eba.host.environment import DATALOADERS, DATASETS, SAMPLERS
from protenix_eba.host.features import (
    ProteinFeatures,
    complete,
    with_random_references,
    with_relative_positions,
)
from protenix_eba.structures.sequences import Protein
from protenix_eba.training.data.clusters import conformer_clusters
from protenix_eba.training.data.conformers import within_deviations
from protenix_eba.training.data.crop import choose_crop
from protenix_eba.training.data.epochs import BatchSampler, Epoch, Pool, structures
from protenix_eba.training.data.interfaces import Dataset, LabelledConformers
from protenix_eba.training.data.item import Item
from protenix_eba.training.data.split import check_split, replicas_of

__all__ = ["SequenceCoupledLoader", "eba_loader", "load_dataset"]

# Streams of random numbers of one item, beside that of its noise: which does not depend, then, on
# the number of residues.
_REFERENCES: Final = 2**40
_CROP: Final = 2**41


class SequenceCoupledLoader:
    """Loads items by their number: item i is the same for any process, in whatever order.

    A step of B items on all ranks has the items from step x B on; a resumed trainer goes on where
    it was. An item whose coordinates cannot be read says so in its `problem`: others are whole.

    Args:
        sources: Conformers of each sequence; of their features those of `compact` are used.
        embeddings: Function from a protein to its embeddings, called when an item of it is wanted.
        n_conformers: K.
        seed: Seed of the run.
        sampler: Chooses the K conformers of each item.
        batch_items: Items of one optimizer step, on all ranks.
        crop_size: Largest number of residues of an item; 0 for no crop.
        crop_spatial: Share of crops that are spatial.
        outlier_z: Robust standard deviations from a target's median energy beyond which a
            conformer is an outlier; 0 for none.

    Attributes:
        sources: As given.
        epoch_length: Items of one pass over all structures.

    Raises:
        UserError: A sequence has fewer than K conformers.
    """

    def __init__(
        self,
        sources: Sequence[LabelledConformers],
        embeddings: Callable[[Protein], TrunkEmbeddings],
        *,
        n_conformers: int,
        seed: int,
        sampler: BatchSampler = structures,
        batch_items: int = 1,
        crop_size: int = 0,
        crop_spatial: float = 0.5,
        outlier_z: float = 0.0,
    ) -> None:
        few = [c.protein.protein.name for c in sources if len(c) < n_conformers]
        if few:
            raise UserError(
                f"fewer than eba.n_conformers = {n_conformers} labelled conformers: "
                f"{', '.join(few)}",
                "label more frames, leave these targets out or compare fewer conformers",
            )
        self.sources = list(sources)
        self._embeddings = embeddings
        self._n_conformers = n_conformers
        self._seed = seed
        self._sampler = sampler
        self._batch_items = batch_items
        self._crop_size = crop_size
        self._crop_spatial = crop_spatial
        self._keep = [within_deviations(c.energy_kj_mol, outlier_z) for c in sources]
        self._pools = [
            Pool(c.energy_kj_mol.numpy(), cache(partial(conformer_clusters, c, n_conformers)))
            for c in sources
        ]
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self.epoch_length = len(self._epoch(0))

    @property
    def targets(self) -> tuple[str, ...]:
        """Return the names of the targets."""
        return tuple(c.protein.protein.name for c in self.sources)

    def _make_epoch(self, epoch: int) -> Epoch:
        rest = (self._n_conformers, self._seed, epoch, self._batch_items)
        return Epoch(self._pools, self._sampler, *rest)

    def _place(self, index: int) -> tuple[Epoch, int]:
        number, position = divmod(index, self.epoch_length)
        return self._epoch(number), position

    def target(self, index: int) -> int:
        """Return the number of an item's source, which is not loaded for that."""
        epoch, position = self._place(index)
        return epoch.target(position)

    def _rows(self, index: int) -> list[int]:
        """Return an item's conformers; a sampler's clusters may need all of the target's."""
        epoch, position = self._place(index)
        return list(epoch[position][1])

    def protein(self, number: int) -> ProteinFeatures:
        """Return the protein of `sources[number]` with all features of the diffusion module."""
        protein = self.sources[number].protein
        return replace(protein, features=complete(protein.features))

    def embedding(self, number: int) -> TrunkEmbeddings:
        """Load the trunk's embeddings of `sources[number]`, whole."""
        return self._embeddings(self.sources[number].protein.protein)

    def length(self, index: int) -> int:
        """Return the tokens of item `index`, which is not loaded for that."""
        n_residues = self.sources[self.target(index)].protein.protein.n_residues
        return min(n_residues, self._crop_size or n_residues)

    def share(self, steps: Iterable[int], rank: int, world_size: int) -> Iterator[int]:
        """Yield one process's items: of each step's batch, long ones beside long ones.

        Processes wait for each other at each backward pass, so that those of one should cost the
        same. What a batch holds does not depend on their number.

        Args:
            steps: Optimizer steps.
            rank: Rank of the process.
            world_size: Number of processes.
        """
        size = self._batch_items
        for step in steps:
            batch = sorted(range(step * size, (step + 1) * size), key=self.length)
            yield from batch[rank::world_size]

    def generator(self, index: int) -> torch.Generator:
        """Return item `index`'s generator: its noise is the same on any number of ranks."""
        return stream_generator(self._seed, index)

    def __getitem__(self, index: int) -> Item:
        item = self._whole(index)
        if self.length(index) < item.n_tokens:
            item = item.crop(self._choose_crop(item, index))
        features = with_random_references(item.features, self.generator(index + _REFERENCES))
        return replace(item, features=with_relative_positions(features))

    def _whole(self, index: int) -> Item:
        which = self.target(index)
        source = self.sources[which]
        rows, problem = list(range(self._n_conformers)), ""
        try:
            rows = self._rows(index)
            coordinates = source.coordinates(rows)
        except UserError as error:
            coordinates = torch.full((len(rows), len(source.mask), 3), torch.nan)
            problem = str(error)
        n_residues = source.protein.protein.n_residues
        return Item(
            target=source.protein.protein.name,
            frames=tuple((int(source.replica[r]), int(source.frame[r])) for r in rows),
            features=source.protein.features,
            embeddings=self.embedding(which),
            coordinates=coordinates,
            mask=source.mask.expand(len(rows), -1),
            energy_kj_mol=source.energy_kj_mol[rows],
            keep=self._keep[which][rows],
            sampled=source.sampled[rows],
            n_residues=n_residues,
            n_tokens=n_residues,
            partners=source.partners,
            problem=problem,
        )

    def _choose_crop(self, item: Item, index: int) -> Tensor:
        alpha = self.sources[self.target(index)].protein.alpha_carbons
        return choose_crop(
            item.coordinates[:, alpha],
            item.mask[0, alpha].bool(),
            item.features["asym_id"],
            size=self._crop_size,
            spatial=self._crop_spatial,
            generator=self.generator(index + _CROP),
        )


@DATALOADERS.register("eba")
def eba_loader(
    config: EBAConfig,
    *,
    held_out: bool,
    seed: int,
    trunk: str,
    n_cycles: int,
    batch_items: int = 1,
) -> SequenceCoupledLoader | None:
    """Read a dataset and embeddings as the section `eba` names them.

    Args:
        config: The section.
        held_out: Whether the conformers that are held out, or those that are trained on.
        seed: Seed of the run.
        trunk: Fingerprint of the trunk's weights.
        n_cycles: Recycling iterations of the embeddings.
        batch_items: Items of one optimizer step, on all ranks.

    Returns:
        A loader, or None if nothing is held out.

    Raises:
        UserError: Something is missing, does not belong together, or leaves nothing to train on.
    """
    if held_out and not (config.validation_targets or config.validation_replicas):
        return None
    dataset: Dataset = DATASETS.get(config.dataset)(config)
    return load_dataset(
        dataset,
        config,
        held_out=held_out,
        seed=seed,
        trunk=trunk,
        n_cycles=n_cycles,
        batch_items=batch_items,
    )


def load_dataset(
    dataset: Dataset,
    config: EBAConfig,
    *,
    held_out: bool,
    seed: int,
    trunk: str,
    n_cycles: int,
    batch_items: int = 1,
) -> SequenceCoupledLoader:
    """Do as `eba_loader` does with a dataset that is there; what is held out has to exist."""
    embeddings = EmbeddingFolder(config.path("embeddings"), trunk, n_cycles)
    return SequenceCoupledLoader(
        _read_sources(dataset, config, held_out, embeddings),
        embeddings,
        n_conformers=config.n_conformers,
        seed=seed,
        # What is measured does not depend on how the model is trained.
        sampler=structures if held_out else SAMPLERS.get(config.sampler)(config),
        batch_items=batch_items,
        crop_size=config.crop_size,
        crop_spatial=config.crop_spatial,
        outlier_z=config.outlier_z,
    )


def _read_sources(
    dataset: Dataset, config: EBAConfig, held_out: bool, embeddings: EmbeddingFolder
) -> list[LabelledConformers]:
    targets = dataset.replicas()
    check_split(config, targets)
    parts = {
        name: chosen
        for name, numbers in targets.items()
        if (chosen := replicas_of(config, name, numbers, held_out=held_out))
    }
    if not parts:
        raise UserError(
            f"all targets in {config.data_dir} are held out",
            "shorten eba.validation_targets or eba.validation_replicas",
        )
    what = "reading held-out conformers" if held_out else "reading conformers"
    sources = []
    for name, replicas in track(parts.items(), what, len(parts)):
        protein = dataset.protein(name)
        embeddings.check(protein)
        sources.append(dataset.conformers(name, embeddings.features(protein), replicas))
    return sources
