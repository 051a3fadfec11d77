"""What `fold` and `refine` share: the target, and a folder that is finished or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from protenix_eba.errors import UserError

if TYPE_CHECKING:
    from protenix_eba.ebmfold.target import Target

__all__ = ["SCORES", "is_finished", "read_target", "target_options"]

SCORES: Final = "scores.json"
# Between the residue numbers of two chains: features and bonds then see a break.
_CHAIN_STEP: Final = 200
# The shortest trace with a dihedral angle.
_FEWEST: Final = 4

F = TypeVar("F", bound=Callable[..., Any])


def target_options(function: F) -> F:
    """The options `--predictions`, `--fasta`, `--distances-only`, `--native` and `--seed`."""
    path = click.Path(path_type=Path)
    for option in reversed(
        [
            click.option(
                "--predictions",
                type=path,
                required=True,
                help="npz file of trRosetta (dist, omega, theta, phi), or with Protenix's 64 "
                "distance bins as dist.",
            ),
            click.option(
                "--fasta", type=path, default=None, help="The sequence, chains joined by ':'."
            ),
            click.option(
                "--distances-only",
                is_flag=True,
                help="Do not use the orientations in the predictions.",
            ),
            click.option(
                "--native", type=path, default=None, help="PDB or mmCIF file to compare with."
            ),
            click.option(
                "--seed", default=0, show_default=True, help="Decoy n is made from (seed, n)."
            ),
        ]
    ):
        function = option(function)
    return function


def read_target(
    predictions: Path, fasta: Path | None, distances_only: bool
) -> tuple[Target, list[int]]:
    """The target, and the lengths of its chains.

    Raises:
        UserError: A file cannot be used, they disagree, or there are fewer than 4 residues.
    """
    import numpy as np

    from protenix_eba.data.sequences import read_proteins
    from protenix_eba.ebmfold.predictions import read_predictions
    from protenix_eba.ebmfold.target import Target

    read = read_predictions(predictions)
    if read.n_residues < _FEWEST:
        raise UserError(
            f"{predictions}: expected at least {_FEWEST} residues, found {read.n_residues}"
        )
    if distances_only:
        read = read.without_orientations()
    if fasta is None:
        return Target(predictions.stem, read), [read.n_residues]
    proteins = read_proteins(fasta)
    if len(proteins) != 1:
        raise UserError(
            f"{fasta}: expected one protein, found {len(proteins)}",
            "join the chains of a complex by ':' in one record",
        )
    lengths = [len(chain) for chain in proteins[0].chains]
    offset = np.repeat(np.arange(len(lengths)) * _CHAIN_STEP, lengths)
    sequence = "".join(proteins[0].chains)
    index = np.arange(len(sequence)) + offset if len(sequence) == read.n_residues else None
    return Target(proteins[0].name, read, sequence, index), lengths


def is_finished(out: Path, made: Mapping[str, Any], files: Sequence[str]) -> bool:
    """Whether a folder holds these very decoys, made in this way.

    Raises:
        UserError: It holds others.
    """
    path = out / SCORES
    if not path.is_file():
        return False
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["made"]
        changed = [key for key, value in made.items() if before.get(key) != value]
    except (ValueError, KeyError, TypeError, AttributeError):
        changed = ["settings, or they are damaged"]
    if changed:
        raise UserError(
            f"{out} holds decoys made with other {', '.join(changed)}",
            "choose another --out, or delete the folder",
        )
    return all((out / name).is_file() for name in files)
