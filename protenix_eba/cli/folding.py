"""What `fold` and `refine` share: their options, and a folder of decoys with its scores."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from protenix_eba.cli.session import msa_option
from protenix_eba.core.errors import UserError

__all__ = [
    "FileChoice",
    "ModelChoice",
    "ScoreFolder",
    "TargetChoice",
    "backbone_option",
    "check_backbones",
    "compared_with",
    "target_options",
    "write_backbones",
]

_SCORES: Final = "scores.json"

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


def target_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of a `TargetChoice`, which the command gets as its argument `choice`."""

    @functools.wraps(function)
    def with_choice(*args: Any, **words: Any) -> None:
        seed = words.pop("seed")
        if seed < 0:
            raise UserError(f"--seed: expected at least 0, found {seed}")
        source = _source(*(words.pop(name) for name in _OF_SOURCE))
        choice = TargetChoice(source, words.pop("distances_only"), words.pop("native"), seed)
        function(*args, choice=choice, **words)

    for option in reversed(
        [
            click.option(
                "--predictions",
                type=_PATH,
                help="npz file of trRosetta (dist, omega, theta, phi), or with Protenix's 64 "
                "distance bins as dist.",
            ),
            click.option(
                "--checkpoint",
                type=_PATH,
                help="Protenix checkpoint, whose distogram is taken instead of --predictions.",
            ),
            click.option(
                "--config", "config_path", type=_PATH, help="Of --checkpoint: its configuration."
            ),
            click.option(
                "--fasta",
                type=_PATH,
                help="The sequence, chains joined by ':', or CSV; with --checkpoint also the JSON "
                "of `protenix pred`, with other molecules beside the protein.",
            ),
            msa_option,
            click.option(
                "--embeddings",
                type=_PATH,
                help="Of --checkpoint: folder of `protenix-eba embed`; the trunk runs for what is "
                "not there.",
            ),
            click.option(
                "--distances-only",
                is_flag=True,
                help="Do not use the orientations in the predictions.",
            ),
            click.option("--native", type=_PATH, help="PDB or mmCIF file to compare with."),
            click.option(
                "--seed", default=0, show_default=True, help="Decoy n is made from (seed, n)."
            ),
        ]
    ):
        with_choice = option(with_choice)
    return with_choice


def backbone_option(function: Callable[..., None]) -> Callable[..., None]:
    """The option `--backbone`."""
    return click.option(
        "--backbone",
        is_flag=True,
        help="Also write NAME_backbone.pdb with N, CA, C and O; needs `pip install pulchra`.",
    )(function)


def check_backbones() -> None:
    """That backbones can be rebuilt, before anything is computed.

    Raises:
        UserError: They cannot.
    """
    from protenix_eba.ebmfold.backbone import require_pulchra

    require_pulchra()


def write_backbones(folder: ScoreFolder) -> None:
    """Rebuild the backbone of each trace that is there, unless it is there as well."""
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
    """C-alpha atoms of a native structure, and which residues of the target and of it are equal.

    Raises:
        UserError: It cannot be read, or is another protein's.
    """
    from protenix_eba.ebmfold.structures import match_residues, read_trace

    if native is None:
        return None
    trace = read_trace(native)
    return trace.ca, match_residues(trace, target.n_residues, target.sequence, chains)


class ScoreFolder:
    """A folder of decoys with `scores.json`, which has a row for each decoy that is there.

    It is written anew with each decoy, so that a run that is killed goes on where it was.

    Args:
        out: The folder.
        made: What the decoys depend on; compared with what is there.
        files: Names of the decoys that are wanted, in the order of their rows.

    Raises:
        UserError: It holds decoys made in another way, or others, or scores that are damaged.
    """

    def __init__(self, out: Path, made: Mapping[str, Any], files: Sequence[str]) -> None:
        self.out = out
        self.files = list(files)
        self._path = out / _SCORES
        self._made = dict(made)
        self._rows: dict[str, dict[str, Any]] = {}
        if not self._path.is_file():
            return
        try:
            before = json.loads(self._path.read_text(encoding="utf-8"))
            changed = [key for key, value in made.items() if before["made"].get(key) != value]
            rows = {row["file"]: row for row in before["decoys"]}
        except (ValueError, KeyError, TypeError, AttributeError):
            changed, rows = ["settings, or they are damaged"], {}
        if changed:
            raise UserError(
                f"{out} holds decoys made with other {', '.join(changed)}",
                "choose another --out, or delete the folder",
            )
        self._rows = {file: row for file, row in rows.items() if (out / file).is_file()}
        if not self._rows.keys() <= set(files):
            raise UserError(
                f"{out} holds {len(self._rows)} decoys, {len(files)} are asked for",
                f"ask for {len(self._rows)} or more, or choose another --out",
            )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the decoys that are there."""
        return [self._rows[file] for file in self.files if file in self._rows]

    @property
    def missing(self) -> list[str]:
        """The decoys that are not there."""
        return [file for file in self.files if file not in self._rows]

    def add(self, file: str, row: Mapping[str, Any]) -> None:
        """Enter a decoy whose file is written."""
        self._rows[file] = {"file": file, **row}
        self.write({})

    def write(self, failed: Mapping[str, str]) -> None:
        """Write the scores, and why some have none.

        The decoy that the predictions make likeliest is `selected`.
        """
        from protenix_eba import __version__
        from protenix_eba.core.files import write_json

        likeliest = min((row["negative_log_likelihood"] for row in self.rows), default=None)
        for row in self.rows:
            row["selected"] = row["negative_log_likelihood"] == likeliest
        made = self._made | {"version": __version__}
        write_json(self._path, {"made": made, "failed": dict(failed), "decoys": self.rows})

    @property
    def selected(self) -> dict[str, Any]:
        """The row of the decoy that the predictions make likeliest."""
        return next(row for row in self.rows if row["selected"])
