"""`protenix-eba refine`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from protenix_eba.cli.folding import SCORES, is_finished, read_target, target_options
from protenix_eba.cli.session import exit_with_failures, make_folder
from protenix_eba.errors import UserError

if TYPE_CHECKING:
    from protenix_eba.ebmfold.network import ScoreNetwork
    from protenix_eba.ebmfold.structures import Trace
    from protenix_eba.ebmfold.target import Target

__all__ = ["refine"]

_PATH = click.Path(path_type=Path)


@click.command(
    epilog="""Example:

    \b
    protenix-eba refine --structures sample_1.pdb --structures sample_2.cif \\
        --predictions distogram.npz --weights ebmfold.safetensors --out refined

Exit status: 0 all structures are refined, 2 unusable input or none is, 3 some failed."""
)
@click.option(
    "--structures", type=_PATH, multiple=True, required=True, help="PDB or mmCIF file; repeat it."
)
@target_options
@click.option("--weights", type=_PATH, required=True, help="Trained network.")
@click.option("--out", type=_PATH, required=True, help="Output folder.")
@click.option(
    "--level",
    type=click.FloatRange(0.1, 10.0, min_open=True),
    default=None,
    help="Noise in angstrom to start with.  [default: chosen for each structure]",
)
def refine(
    structures: Sequence[Path],
    predictions: Path,
    fasta: Path | None,
    distances_only: bool,
    native: Path | None,
    seed: int,
    weights: Path,
    out: Path,
    level: float | None,
) -> None:
    """Refine C-alpha traces of one protein by predictions for it: NAME.pdb and scores.json.

    Residues that a structure lacks are left out. The start is a small noise level, so that the
    fold stays. A folder that holds the same traces already is left as it is.
    """
    from protenix_eba import __version__
    from protenix_eba.ebmfold.checkpoint import load_network
    from protenix_eba.ebmfold.structures import read_trace
    from protenix_eba.files import sha256_of_file
    from protenix_eba.progress import console

    if seed < 0:
        raise UserError(f"--seed: expected at least 0, found {seed}")
    names = [path.stem for path in structures]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"--structures: {', '.join(twice)} occurs twice", "rename the files")
    target, chains = read_target(predictions, fasta, distances_only)
    network = load_network(weights)
    reference = read_trace(native) if native else None
    made = {
        "structures_sha256": {
            p.stem: sha256_of_file(p) if p.is_file() else None for p in structures
        },
        "predictions_sha256": sha256_of_file(predictions),
        "weights_sha256": sha256_of_file(weights),
        "native_sha256": native and sha256_of_file(native),
        "sequence": target.sequence,
        "chains": chains,
        "distances_only": distances_only,
        "level": level,
        "seed": seed,
    }
    if is_finished(out, made, [f"{name}.pdb" for name in names]):
        console.print(f"{out} holds these traces already", markup=False, soft_wrap=True)
        return
    make_folder(out)
    made["version"] = __version__
    failures = _refine_all(structures, target, network, reference, out, made)
    exit_with_failures(failures, len(structures))


def _refine_all(
    structures: Sequence[Path],
    target: Target,
    network: ScoreNetwork,
    reference: Trace | None,
    out: Path,
    made: dict[str, Any],
) -> dict[str, str]:
    """Refine each, with a bar, and write the scores; why some failed, by name."""
    from protenix_eba.files import write_json
    from protenix_eba.progress import console, track

    failures: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for path in track(structures, "refining", len(structures)):
        try:
            row = _refine_one(path, target, network, reference, out, made)
            rows.append(row | {"file": f"{path.stem}.pdb"})
        except UserError as error:
            failures[path.stem] = str(error)
    likeliest = min((row["negative_log_likelihood"] for row in rows), default=None)
    for row in rows:
        row["selected"] = row["negative_log_likelihood"] == likeliest
    write_json(out / SCORES, {"made": made, "failed": failures, "decoys": rows})
    console.print(f"{len(rows)} refined traces in {out}", markup=False, soft_wrap=True)
    return failures


def _refine_one(
    path: Path,
    target: Target,
    network: ScoreNetwork,
    reference: Trace | None,
    out: Path,
    made: dict[str, Any],
) -> dict[str, Any]:
    """Refine one structure and write it; its scores before and after."""
    import numpy as np

    from protenix_eba.ebmfold.fold import fold, score_table
    from protenix_eba.ebmfold.likelihood import PairLikelihood
    from protenix_eba.ebmfold.metrics import lddt_ca
    from protenix_eba.ebmfold.refine import starting_level
    from protenix_eba.ebmfold.sampling import SAMPLERS, refiner
    from protenix_eba.ebmfold.structures import match_residues, read_trace, write_trace

    trace = read_trace(path)
    present, rows = match_residues(trace, target.n_residues, target.sequence)
    part, ca = target.subset(present), trace.ca[rows]
    level = made["level"]
    start = starting_level(part, ca) if level is None else level
    refined = fold(network, part, refiner(SAMPLERS["churned"], start), 1, made["seed"], start=ca)
    added = {
        "starting_level_angstrom": start,
        "negative_log_likelihood_before": float(PairLikelihood(part)(ca)),
        "lddt_ca_before": None,
    }
    if reference is None:
        (scores,) = score_table(refined)
    else:
        theirs, native_rows = match_residues(reference, target.n_residues, target.sequence)
        _, ours, both = np.intersect1d(present, theirs, return_indices=True)
        if len(ours) < len(present) / 2:
            raise UserError(f"{reference.path} has {len(ours)} of the {len(present)} residues")
        (scores,) = score_table(refined, reference.ca, (ours, native_rows[both]))
        added["lddt_ca_before"] = float(lddt_ca(ca[None, ours], reference.ca[native_rows[both]])[0])
    ends = np.cumsum(made["chains"])
    chain = np.searchsorted(ends, present, side="right")
    lengths = np.bincount(chain, minlength=len(ends))
    numbers = present + 1 - (ends - made["chains"])[chain]
    write_trace(out / f"{path.stem}.pdb", refined.ca[0], part.sequence, lengths.tolist(), numbers)
    return scores | added
