"""The sequence-coupled loader: K conformers of one sequence per item, the same for any rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from protenix_eba.config import EBAConfig
from protenix_eba.data.conformers import Conformers, load_conformers
from protenix_eba.data.features import protein_features, with_random_references
from protenix_eba.data.sequences import protein_of_target
from protenix_eba.embeddings import TrunkEmbeddings, load_embeddings
from protenix_eba.energy.table import read_labels
from protenix_eba.errors import UserError
from protenix_eba.plugin_api import DATALOADERS
from protenix_eba.progress import track
from protenix_eba.trajectories import find_targets

__all__ = ["Item", "SequenceCoupledLoader", "epoch_blocks"]


@dataclass(frozen=True)
class Item:
    """K conformers of one sequence.

    Attributes:
        target: Name.
        frames: Replica and frame of each conformer.
        features: Protenix's input features.
        embeddings: Of the frozen trunk.
        coordinates: `[K, N_atom, 3]` in angstrom.
        mask: `[K, N_atom]`.
        energy_kj_mol: `[K]` float64.
        n_residues: N.
    """

    target: str
    frames: tuple[tuple[int, int], ...]
    features: dict[str, Any]
    embeddings: TrunkEmbeddings
    coordinates: Tensor
    mask: Tensor
    energy_kj_mol: Tensor
    n_residues: int


def epoch_blocks(
    sizes: Sequence[int], n_conformers: int, seed: int, epoch: int
) -> list[tuple[int, tuple[int, ...]]]:
    """One pass over all structures in blocks of K of the same sequence.

    Every structure is drawn once (but for fewer than K left over in a sequence), with K - 1 others
    of its sequence drawn without replacement: EBA, section 4.1. The blocks go round the sequences,
    so that neighbours, which are what different ranks see at the same time, differ in sequence.

    Args:
        sizes: Number of conformers of each sequence.
        n_conformers: K.
        seed: Of the run.
        epoch: From 0.

    Returns:
        Sequence index and conformer indices of each block.
    """
    rng = np.random.default_rng([seed, epoch])
    queues = [
        rng.permutation(size)[: size // n_conformers * n_conformers].reshape(-1, n_conformers)
        for size in sizes
    ]
    blocks = []
    for turn in range(max(map(len, queues))):
        waiting = [i for i, queue in enumerate(queues) if turn < len(queue)]
        for i in rng.permutation(waiting):
            blocks.append((int(i), tuple(int(j) for j in queues[i][turn])))
    return blocks


class SequenceCoupledLoader:
    """Items by their number: item i is the same whoever asks for it, and in whatever order.

    A trainer on rank r of R takes items r, r + R, r + 2R ...; a resumed one goes on where it was.

    Args:
        conformers: One entry for each sequence.
        embeddings: Of each sequence.
        n_conformers: K.
        seed: Of the run.
    """

    def __init__(
        self,
        conformers: Sequence[Conformers],
        embeddings: Sequence[TrunkEmbeddings],
        *,
        n_conformers: int,
        seed: int,
    ) -> None:
        few = [c.protein.protein.name for c in conformers if len(c) < n_conformers]
        if few:
            raise UserError(
                f"fewer than eba.n_conformers = {n_conformers} labelled conformers: "
                f"{', '.join(few)}",
                "label more frames, leave these targets out or compare fewer conformers",
            )
        self._conformers = list(conformers)
        self._embeddings = list(embeddings)
        self._n_conformers = n_conformers
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self.epoch_length = len(self._make_epoch(0))

    @property
    def targets(self) -> tuple[str, ...]:
        """Names."""
        return tuple(c.protein.protein.name for c in self._conformers)

    def _make_epoch(self, epoch: int) -> list[tuple[int, tuple[int, ...]]]:
        sizes = [len(c) for c in self._conformers]
        return epoch_blocks(sizes, self._n_conformers, self._seed, epoch)

    def generator(self, index: int) -> torch.Generator:
        """The generator of item `index`: its noise is the same on any number of ranks."""
        seed = int(np.random.SeedSequence([self._seed, index]).generate_state(1, np.uint64)[0])
        return torch.Generator().manual_seed(seed % 2**63)

    def __getitem__(self, index: int) -> Item:
        epoch, position = divmod(index, self.epoch_length)
        which, chosen = self._epoch(epoch)[position]
        source, rows = self._conformers[which], list(chosen)
        # A stream of its own, so that the noise does not depend on the number of residues.
        references = self.generator(index + 2**40)
        return Item(
            target=source.protein.protein.name,
            frames=tuple((int(source.replica[r]), int(source.frame[r])) for r in rows),
            features=with_random_references(source.protein.features, references),
            embeddings=self._embeddings[which],
            coordinates=source.coordinates[rows],
            mask=source.mask.expand(len(rows), -1),
            energy_kj_mol=source.energy_kj_mol[rows],
            n_residues=source.protein.protein.n_residues,
        )


@DATALOADERS.register("eba")
def eba_loader(
    config: EBAConfig, *, replicas: Sequence[int], seed: int, trunk: str, n_cycles: int
) -> SequenceCoupledLoader:
    """Read trajectories, labels and embeddings as the section `eba` names them.

    Args:
        config: The section.
        replicas: Which replicas to draw from; all when empty.
        seed: Of the run.
        trunk: Fingerprint of the trunk's weights.
        n_cycles: Recycling iterations of the embeddings.
    """
    for key in ("data_dir", "labels", "embeddings"):
        if not getattr(config, key):
            raise UserError(f"eba.{key} is not set", f"add it to the configuration or --eba.{key}")
    targets, labels = find_targets(config.data_dir), read_labels(Path(config.labels))
    conformers, embeddings = [], []
    for target in track(targets, "reading conformers", len(targets)):
        protein = protein_features(protein_of_target(target))
        path = Path(config.embeddings) / f"{target.name}.safetensors"
        embeddings.append(load_embeddings(path, protein, trunk, n_cycles))
        conformers.append(load_conformers(target, protein, labels, replicas))
    return SequenceCoupledLoader(
        conformers, embeddings, n_conformers=config.n_conformers, seed=seed
    )
