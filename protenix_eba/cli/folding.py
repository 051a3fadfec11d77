"""Options of `fold` and `refine`, and the files that they write beside the traces."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from protenix_eba.cli.session import msa_option
from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.score_folder import ScoreFolder

__all__ = [
    "FileChoice",
    "ModelChoice",
    "TargetChoice",
    "backbone_option",
    "check_backbones",
    "compared_with",
    "target_options",
    "write_backbones",
]

_PATH: Final = click.Path(path_type=Path)
_OF_SOURCE: Final = ("predictions", "checkpoint", "config_path", "fasta", "msa_path", "embeddings")


@dataclass(frozen=True)
class FileChoice:
    """Predictions in a file, and perhaps the sequence."""

    predictions: Path
    fasta: Path | None


@dataclass(frozen=True)
class ModelChoice:
    """A Protenix model, and the protein that its trunk makes predictions of."""

    checkpoint: Path
    config_path: Path
    fasta: Path
    msa_path: Path | None
    embeddings: Path | None


@dataclass(frozen=True)
class TargetChoice:
    """The options that say what is folded and what it is compared with."""

    source: FileChoice | ModelChoice
    distances_only: bool
    native: Path | None
    seed: int


def _source(
    predictions: Path | None,
    checkpoint: Path | None,
    config_path: Path | None,
    fasta: Path | None,
    msa_path: Path | None,
    embeddings: Path | None,
) -> FileChoice | ModelChoice:
    if predictions is not None and checkpoint is None:
        of_model = {"--config": config_path, "--msa": msa_path, "--embeddings": embeddings}
        given = [name for name, value in of_model.items() if value is not None]
        if given:
            raise UserError(
                f"{', '.join(given)}: for --checkpoint, not for --predictions", "leave it out"
            )
        return FileChoice(predictions, fasta)
    if checkpoint is None or predictions is not None:
        raise UserError(
            "expected either --predictions or --checkpoint",
            "give a file of predictions, or a Protenix checkpoint whose trunk makes them",
        )
    if config_path is None or fasta is None:
        raise UserError(
            "--checkpoint needs --config and --fasta",
            "give the model's configuration and the sequence",
        )
    return ModelChoice(checkpoint, config_path, fasta, msa_path, embeddings)


_TARGET_OPTIONS: Final = (
    click.option(
        "--predictions",
        type=_PATH,
        help="Predicted distances and orientations: an npz or JSON file of trRosetta or "
        "RoseTTAFold (dist, omega, theta, phi), Protenix (dist with 64 bins) or AlphaFold 2 "
        "(logits, bin_edges).",
    ),
    click.option(
        "--checkpoint",
        type=_PATH,
        help="Protenix checkpoint whose distogram is used, instead of --predictions.",
    ),
    click.option(
        "--config",
        "config_path",
        type=_PATH,
        help="With --checkpoint: YAML configuration of its model.",
    ),
    click.option(
        "--fasta",
        type=_PATH,
        help="The sequence, with chains joined by ':': a FASTA or CSV file. With "
        "--checkpoint also the JSON file of `protenix pred`, which may hold other "
        "molecules beside the protein.",
    ),
    msa_option,
    click.option(
        "--embeddings",
        type=_PATH,
        help="With --checkpoint: folder that `protenix-eba embed` wrote. The trunk runs "
        "if it lacks the protein.",
    ),
    click.option(
        "--distances-only",
        is_flag=True,
        help="Ignore the orientations in the predictions.",
    ),
    click.option(
        "--native",
        type=_PATH,
        help="PDB or mmCIF file of the true structure, to compare the traces with.",
    ),
    click.option(
        "--seed",
        default=0,
        show_default=True,
        help="Random seed; trace number n depends on the seed and n only.",
    ),
)


def target_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a `TargetChoice`, which the command gets as its argument `choice`."""

    @functools.wraps(function)
    def with_choice(*args: Any, **words: Any) -> None:
        seed = words.pop("seed")
        if seed < 0:
            raise UserError(f"--seed: expected at least 0, found {seed}")
        source = _source(*(words.pop(name) for name in _OF_SOURCE))
        choice = TargetChoice(source, words.pop("distances_only"), words.pop("native"), seed)
        function(*args, choice=choice, **words)

    for option in reversed(_TARGET_OPTIONS):
        with_choice = option(with_choice)
    return with_choice


def backbone_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add the option `--backbone`."""
    return click.option(
        "--backbone",
        is_flag=True,
        help="Also write the backbone atoms N, CA, C and O to NAME_backbone.pdb. Needs `pip "
        "install pulchra`.",
    )(function)


def check_backbones() -> None:
    """Check that backbones can be rebuilt, before anything is computed.

    Raises:
        UserError: They cannot.
    """
    from protenix_eba.ebmfold.backbone import require_pulchra

    require_pulchra()


def write_backbones(folder: ScoreFolder) -> None:
    """Rebuild the backbone of each trace, unless its file exists already."""
    from protenix_eba.core.progress import track
    from protenix_eba.ebmfold.backbone import write_backbone

    for row in track(folder.rows, "backbones", len(folder.rows)):
        trace = folder.out / row["file"]
        path = trace.with_name(f"{trace.stem}_backbone.pdb")
        if not path.is_file():
            write_backbone(path, trace)


def compared_with(
    native: Path | None, target: Any, chains: Sequence[int]
) -> tuple[Any, tuple[Any, Any]] | None:
    """Read a native structure's C-alpha atoms and match its residues to the target's.

    Raises:
        UserError: It cannot be read, or is another protein's.
    """
    from protenix_eba.ebmfold.structures import match_residues, read_trace

    if native is None:
        return None
    trace = read_trace(native)
    return trace.ca, match_residues(trace, target.n_residues, target.sequence, chains)
