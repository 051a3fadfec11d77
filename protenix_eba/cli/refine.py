"""`protenix-eba refine`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from protenix_eba.cli.fold_targets import fold_target
from protenix_eba.cli.folding import (
    ScoreFolder,
    TargetChoice,
    backbone_option,
    check_backbones,
    compared_with,
    network_of,
    target_options,
    weights_file,
    weights_option,
    write_backbones,
)
from protenix_eba.cli.session import exit_with_failures, make_folder
from protenix_eba.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from protenix_eba.ebmfold.conformations import Conformation
    from protenix_eba.ebmfold.network import ScoreNetwork
    from protenix_eba.ebmfold.target import Target

    Indices = NDArray[np.int64]
    Match = tuple[Indices, Indices]

__all__ = ["refine"]

_PATH = click.Path(path_type=Path)


@click.command(
    epilog="""Examples, by a file of predictions, and by the distogram of the model that sampled:

    \b
    protenix-eba refine --structures sample_1.pdb --structures sample_2.cif \\
        --predictions distogram.npz --out refined
    protenix-eba refine --structures samples/my --checkpoint model.pt --config configs/eba.yaml \\
        --fasta my.fasta --out refined_samples

Exit status: 0 all structures are refined, 2 unusable input or none is, 3 some failed."""
)
@click.option(
    "--structures",
    type=_PATH,
    multiple=True,
    required=True,
    help="PDB or mmCIF file, all its models; or a folder of `protenix-eba sample` or `protenix "
    "pred`, of one protein. Repeat it for more.",
)
@target_options
@weights_option
@click.option("--out", type=_PATH, required=True, help="Output folder.")
@click.option(
    "--level",
    type=click.FloatRange(0.1, 10.0, min_open=True),
    default=None,
    help="Noise in angstrom to start with.  [default: chosen for each structure]",
)
@backbone_option
def refine(
    structures: Sequence[Path],
    choice: TargetChoice,
    weights: Path | None,
    out: Path,
    level: float | None,
    backbone: bool,
) -> None:
    """Refine C-alpha traces of one protein by predictions for it: NAME.pdb and scores.json.

    Models of a file and frames of a trajectory are NAME_1, NAME_2 and so on. Residues that a
    structure lacks are left out. The start is a small noise level, so that the fold stays. A
    second run goes on where the first was stopped.
    """
    from protenix_eba.files import require_file, sha256_of_file
    from protenix_eba.progress import console

    if backbone:
        check_backbones()
    found = _conformations(structures)
    chosen = fold_target(choice)
    used = weights_file(weights)
    made = chosen.made | {
        "structures_sha256": sorted(map(sha256_of_file, {c.path for c in found})),
        "weights_sha256": sha256_of_file(used),
        "native_sha256": choice.native and sha256_of_file(require_file(choice.native, "native")),
        "level": level,
        "seed": choice.seed,
    }
    folder = ScoreFolder(out, made, [f"{conformation.name}.pdb" for conformation in found])
    failures: dict[str, str] = {}
    if folder.missing:
        network = network_of(used)
        make_folder(out)
        target, chains = chosen.load(out)
        native = compared_with(choice.native, target, chains)
        failures = _refine_missing(
            folder, found, _Refinement(target, chains, network, native, level), choice.seed
        )
        console.print(f"{len(folder.rows)} refined traces in {out}", markup=False, soft_wrap=True)
    else:
        console.print(f"{out} holds these traces already", markup=False, soft_wrap=True)
    if backbone:
        write_backbones(folder)
    exit_with_failures(failures, len(found))


def _refine_missing(
    folder: ScoreFolder, found: Sequence[Conformation], refine_one: _Refinement, seed: int
) -> dict[str, str]:
    """Refine what is not there, with a bar; why some failed, by name."""
    from protenix_eba.progress import track
    from protenix_eba.streams import stream_seed

    failures: dict[str, str] = {}
    missing = folder.missing
    for number, conformation in enumerate(track(found, "refining", len(found))):
        file = f"{conformation.name}.pdb"
        if file in missing:
            try:
                row = refine_one(conformation, folder.out / file, stream_seed(seed, number))
                folder.add(file, row)
            except UserError as error:
                failures[conformation.name] = str(error)
    folder.write(failures)
    return failures


def _conformations(structures: Sequence[Path]) -> list[Conformation]:
    """All of all paths.

    Raises:
        UserError: There are none at a path, or two have one name.
    """
    from protenix_eba.ebmfold.conformations import find_conformations

    found = [conformation for path in structures for conformation in find_conformations(path)]
    names = [conformation.name for conformation in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"--structures: {', '.join(twice[:5])} occurs twice", "rename the files or folders"
        )
    return found


@dataclass(frozen=True)
class _Refinement:
    """What all structures are refined by.

    Attributes:
        target: The predictions.
        chains: Lengths of its chains.
        network: In evaluation mode.
        native: See `compared_with`.
        level: To start from in angstrom, or None.
    """

    target: Target
    chains: Sequence[int]
    network: ScoreNetwork
    native: tuple[Tensor, Match] | None
    level: float | None

    def __call__(self, conformation: Conformation, path: Path, seed: int) -> dict[str, Any]:
        """Refine one structure and write it; its scores before and after.

        Raises:
            UserError: It cannot be read, or is another protein.
        """
        import torch

        from protenix_eba.ebmfold.fold import score_table
        from protenix_eba.ebmfold.likelihood import PairLikelihood
        from protenix_eba.ebmfold.metrics import lddt_ca
        from protenix_eba.ebmfold.structures import match_residues
        from protenix_eba.fold_head import refine_trace

        trace = conformation.read()
        target = self.target
        present, rows = match_residues(trace, target.n_residues, target.sequence, self.chains)
        part, ca = target.subset(present), trace.ca[torch.from_numpy(rows)]
        refined, start = refine_trace(self.network, part, ca, seed, self.level)
        compared = self._compared(present)
        scores = score_table(refined, *compared)[0] | {
            "starting_level_angstrom": start,
            "n_residues": len(present),
            "negative_log_likelihood_before": float(PairLikelihood(part)(ca)),
            "lddt_ca_before": None,
        }
        if compared:
            native, (ours, theirs) = compared
            scores["lddt_ca_before"] = float(lddt_ca(ca[None, ours], native[theirs])[0])
        self._write(path, refined.ca[0], part.sequence, present)
        return scores

    def _compared(self, present: Indices) -> tuple[Any, ...]:
        """The native atoms, and which residues of the trace and of it are compared, or nothing."""
        import numpy as np

        if self.native is None:
            return ()
        ca, (known, rows) = self.native
        _, ours, both = np.intersect1d(present, known, return_indices=True)
        if len(ours) < len(present) / 2:
            raise UserError(
                f"the native structure has {len(ours)} of the {len(present)} residues",
                "compare with a structure that has more of them",
            )
        return ca, (ours, rows[both])

    def _write(self, path: Path, ca: Tensor, sequence: str | None, present: Indices) -> None:
        """With the numbers that residues have in their chains."""
        import numpy as np

        from protenix_eba.ebmfold.structures import write_trace

        ends = np.cumsum(self.chains)
        chain = np.searchsorted(ends, present, side="right")
        lengths = np.bincount(chain, minlength=len(ends))
        numbers = present + 1 - (ends - np.array(self.chains))[chain]
        write_trace(path, ca, sequence, lengths.tolist(), numbers)
