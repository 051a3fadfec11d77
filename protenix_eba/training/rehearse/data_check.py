"""Read all data of a run once, to find what it would stop at and what it would leave out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.core.progress import track
from protenix_eba.core.ranks import gather_rows
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.environment import DATASETS
from protenix_eba.training.data.conformers import within_deviations
from protenix_eba.training.data.interfaces import Dataset, EnsembleLoader, LabelledConformers
from protenix_eba.training.data.labels import training_labels
from protenix_eba.training.data.split import replicas_of

__all__ = ["LeftOut", "check_data", "unlabelled", "unreadable", "used_replicas"]

# Conformers that are read at once: 100 of a protein of 5,000 atoms are 6 MB.
_AT_ONCE: Final = 100


@dataclass(frozen=True)
class LeftOut:
    """Frames of a target that are left out of the training, for one reason.

    Attributes:
        target: Name of the target.
        n_frames: Number of frames.
        reason: Why they are left out; that of the first frame if each has its own.
    """

    target: str
    n_frames: int
    reason: str


def check_data(loader: EnsembleLoader, config: EBAConfig, configs: Any) -> list[LeftOut]:
    """Read the embeddings and all labelled frames of each target, each process its share.

    Frames are compared with the hashes in their labels, as in the run.

    Args:
        loader: Loader of a run.
        config: The section `eba`.
        configs: Resolved configuration, which knows the sizes of embeddings.

    Returns:
        What is left out of training; all processes get the same list.

    Raises:
        UserError: Embeddings that the model cannot take: the run would stop there.
    """
    world, rank = dist.get_world_size(), dist.get_rank()
    mine = range(rank, len(loader.sources), world)
    rows = []
    for number in track(mine, "reading every frame", len(mine), visible=rank == 0):
        _check_embeddings(loader, number, configs)
        rows += [vars(one) for one in _left_out(loader.sources[number], config)]
    return [LeftOut(**row) for row in gather_rows(rows)]


def used_replicas(config: EBAConfig, targets: Container[str]) -> dict[str, set[int]]:
    """Return the replicas of some targets that are trained on or held out, by target.

    Args:
        config: The section `eba`.
        targets: Names of the targets.
    """
    dataset: Dataset = DATASETS.get(config.dataset)(config)
    return {
        name: {
            number
            for held_out in (False, True)
            for number in replicas_of(config, name, numbers, held_out=held_out)
        }
        for name, numbers in dataset.replicas().items()
        if name in targets
    }


def unlabelled(config: EBAConfig, replicas: Mapping[str, Container[int]]) -> list[LeftOut]:
    """Return the frames whose label is not usable, by target and status.

    Args:
        config: The section `eba`.
        replicas: Replicas that a run uses, by target; frames of others are not counted.
    """
    table = training_labels(config)
    rows = zip(table.target.tolist(), table.replica.tolist(), table.status.tolist(), strict=True)
    counts = Counter(
        (target, status)
        for target, replica, status in rows
        if status != "ok" and replica in replicas.get(target, ())
    )
    return [
        LeftOut(target, n, f"the label's status is {status}")
        for (target, status), n in sorted(counts.items())
    ]


def _check_embeddings(loader: EnsembleLoader, number: int, configs: Any) -> None:
    protein = loader.sources[number].protein.protein
    n = protein.n_residues
    found = loader.embedding(number)
    for name, shape in (
        ("s_inputs", (n, configs.c_s_inputs)),
        ("s_trunk", (n, configs.c_s)),
        ("z_trunk", (n, n, configs.c_z)),
    ):
        tensor: Tensor = getattr(found, name)
        n_bad = int((~tensor.isfinite()).sum())
        if tensor.shape != shape or tensor.dtype != torch.float32 or n_bad:
            raise UserError(
                f"embeddings of {protein.name}: {name}: expected finite float32 of shape "
                f"{list(shape)}, found {tensor.dtype} of shape {list(tensor.shape)}"
                + (f", {n_bad:,} of its values not finite" if n_bad else ""),
                "delete the file and run `protenix-eba embed` again",
            )


def _left_out(source: LabelledConformers, config: EBAConfig) -> Iterator[LeftOut]:
    name = source.protein.protein.name
    bad = [
        one
        for first in range(0, len(source), _AT_ONCE)
        for one in unreadable(source, range(first, min(first + _AT_ONCE, len(source))))
    ]
    if bad:
        yield LeftOut(name, len(bad), f"cannot be read; the first: {bad[0][1]}")
    n_outliers = int((~within_deviations(source.energy_kj_mol, config.outlier_z)).sum())
    if n_outliers:
        yield LeftOut(name, n_outliers, "the energy is an outlier (eba.outlier_z)")


def unreadable(source: LabelledConformers, rows: Sequence[int]) -> list[tuple[int, str]]:
    """Return the numbers of the conformers that cannot be read, each with its reason in one line.

    Args:
        source: Conformers of a protein.
        rows: Numbers of those to read; they are halved until the bad ones are alone.
    """
    try:
        found = source.coordinates(rows)
    except UserError as error:
        if len(rows) == 1:
            return [(rows[0], str(error.args[0]))]
        middle = len(rows) // 2
        return unreadable(source, rows[:middle]) + unreadable(source, rows[middle:])
    shape = (len(rows), len(source.mask), 3)
    if found.shape != shape or found.dtype != torch.float32:
        raise UserError(
            f"conformers of {source.protein.protein.name}: expected float32 of shape "
            f"{list(shape)}, found {found.dtype} of shape {list(found.shape)}",
            "the dataset's `coordinates` returns what LabelledConformers promises",
        )
    bad = ~found.isfinite().all(dim=(1, 2))
    return [(rows[i], "coordinates that are not finite") for i in bad.nonzero().flatten().tolist()]
