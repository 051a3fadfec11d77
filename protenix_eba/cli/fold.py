"""`protenix-eba fold`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from protenix_eba.cli.session import make_folder
from protenix_eba.errors import UserError

if TYPE_CHECKING:
    from protenix_eba.ebmfold.fold import Decoys
    from protenix_eba.ebmfold.target import Target

__all__ = ["fold"]

_PATH: Final = click.Path(path_type=Path)
# Those of ebmfold.sampling.SAMPLERS, listed here since torch takes seconds to import.
_SAMPLERS: Final = ("churned", "churned64", "langevin", "algorithm1", "heun", "peer")
_SCORES: Final = "scores.json"
# Between the residue numbers of two chains: features and bonds then see a break.
_CHAIN_STEP: Final = 200


@click.command(
    epilog="""Example, first without a network, then with one:

    \b
    protenix-eba fold --predictions t1008.npz --sampler peer --decoys 4 --out folded
    protenix-eba fold --predictions t1008.npz --weights ebmfold.safetensors \\
        --fasta t1008.fasta --decoys 16 --out folded16

The decoy that is `selected` in scores.json is the one that the predictions make likeliest."""
)
@click.option(
    "--predictions",
    type=_PATH,
    required=True,
    help="npz file of trRosetta (dist, omega, theta, phi), or with Protenix's 64 bins as dist.",
)
@click.option("--out", type=_PATH, required=True, help="Output folder.")
@click.option("-n", "--decoys", default=4, show_default=True, help="How many traces.")
@click.option("--fasta", type=_PATH, default=None, help="The sequence, chains joined by ':'.")
@click.option("--native", type=_PATH, default=None, help="PDB or mmCIF file to compare with.")
@click.option("--weights", type=_PATH, default=None, help="Trained network; not for the peer.")
@click.option(
    "--sampler",
    type=click.Choice(_SAMPLERS),
    default="churned",
    show_default=True,
    help="`peer` needs no network: scaling, then L-BFGS on the likelihood.",
)
@click.option(
    "--distances-only", is_flag=True, help="Do not use the orientations in the predictions."
)
@click.option("--seed", default=0, show_default=True, help="Decoy n is made from (seed, n).")
def fold(
    predictions: Path,
    out: Path,
    decoys: int,
    fasta: Path | None,
    native: Path | None,
    weights: Path | None,
    sampler: str,
    distances_only: bool,
    seed: int,
) -> None:
    """Fold a C-alpha trace from inter-residue predictions: decoy_N.pdb and scores.json.

    A folder that holds the same decoys already is left as it is.
    """
    if decoys < 1 or seed < 0:
        raise UserError(
            f"expected --decoys of at least 1 and --seed of at least 0, found {decoys}, {seed}"
        )
    if (weights is None) != (sampler == "peer"):
        raise UserError(
            f"--sampler {sampler} needs --weights"
            if weights is None
            else "--sampler peer uses no --weights",
            "give the weights of a trained network, or take --sampler peer, which has none",
        )
    from protenix_eba import __version__
    from protenix_eba.files import sha256_of_file
    from protenix_eba.progress import console

    target, chains = _read_target(predictions, fasta, distances_only)
    made = {
        "predictions_sha256": sha256_of_file(predictions),
        "weights_sha256": weights and sha256_of_file(weights),
        "native_sha256": native and sha256_of_file(native),
        "sequence": target.sequence,
        "chains": chains,
        "distances_only": distances_only,
        "sampler": sampler,
        "seed": seed,
        "n_decoys": decoys,
    }
    if _is_folded(out, made):
        console.print(f"{out} holds these decoys already", markup=False, soft_wrap=True)
        return
    reference = _read_native(native, target) if native else None
    make_folder(out)
    folded = _fold(target, weights, sampler, decoys, seed)
    _write(out, target, chains, folded, reference, made | {"version": __version__})


def _read_target(
    predictions: Path, fasta: Path | None, distances_only: bool
) -> tuple[Target, list[int]]:
    """The target, and the lengths of its chains."""
    import numpy as np

    from protenix_eba.data.sequences import read_proteins
    from protenix_eba.ebmfold.predictions import read_predictions
    from protenix_eba.ebmfold.target import Target

    read = read_predictions(predictions)
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
    index = np.arange(sum(lengths)) + offset
    if sum(lengths) != read.n_residues:
        raise UserError(
            f"{fasta} has {sum(lengths)} residues, {predictions} is for {read.n_residues}",
            "give the sequence that the predictions were made for",
        )
    return Target(proteins[0].name, read, "".join(proteins[0].chains), index), lengths


def _read_native(native: Path, target: Target) -> tuple[Any, Any]:
    """C-alpha atoms of the native structure, and which residues they are."""
    from protenix_eba.ebmfold.structures import match_residues, read_trace

    trace = read_trace(native)
    return trace.ca, match_residues(trace, target.n_residues, target.sequence)


def _is_folded(out: Path, made: dict[str, Any]) -> bool:
    """Whether the folder holds these decoys; an error if it holds others."""
    path = out / _SCORES
    if not path.is_file():
        return False
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["made"]
    except (ValueError, KeyError, TypeError):
        before = {}
    changed = [key for key, value in made.items() if before.get(key) != value]
    if changed:
        raise UserError(
            f"{out} holds decoys made with other {', '.join(changed)}",
            "choose another --out, or delete the folder",
        )
    return all((out / _name(n)).is_file() for n in range(made["n_decoys"]))


def _name(number: int) -> str:
    return f"decoy_{number + 1}.pdb"


def _fold(target: Target, weights: Path | None, sampler: str, n_decoys: int, seed: int) -> Decoys:
    """Fold with a bar."""
    import torch

    from protenix_eba.ebmfold.checkpoint import load_network
    from protenix_eba.ebmfold.fold import fold, fold_by_peer
    from protenix_eba.ebmfold.sampling import SAMPLERS
    from protenix_eba.progress import progress_bar

    network = weights and load_network(weights)
    with progress_bar() as bar:
        task = bar.add_task("folding", total=n_decoys, note=target.name)

        def told(n: int) -> None:
            bar.advance(task, n)

        if network is None:
            return fold_by_peer(target, n_decoys, seed, told=told)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return fold(network.to(device), target, SAMPLERS[sampler], n_decoys, seed, told=told)


def _write(
    out: Path,
    target: Target,
    chains: list[int],
    folded: Decoys,
    reference: tuple[Any, Any] | None,
    made: dict[str, Any],
) -> None:
    """The traces, then the scores as a sign of completeness."""
    from protenix_eba.ebmfold.fold import score_table
    from protenix_eba.ebmfold.structures import write_trace
    from protenix_eba.files import write_json
    from protenix_eba.progress import console

    for number, ca in enumerate(folded.ca):
        write_trace(out / _name(number), ca, target.sequence, chains)
    rows = score_table(folded, *(reference or ()))
    for number, row in enumerate(rows):
        row["file"] = _name(number)
    cost = {"n_evaluations": folded.n_evaluations, "cpu_seconds": folded.cpu_seconds}
    write_json(out / _SCORES, {"made": made, "per_decoy": cost, "decoys": rows})
    best = rows[folded.selected]
    found = f"selected {best['file']}, {best['negative_log_likelihood']:.3f} nats per pair"
    if best["lddt_ca"] is not None:
        found += f", lDDT-Ca {best['lddt_ca']:.3f}, GDT-TS {best['gdt_ts']:.3f}"
    console.print(f"{len(rows)} decoys in {out}: {found}", markup=False, soft_wrap=True)
