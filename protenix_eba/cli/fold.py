"""`protenix-eba fold`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from protenix_eba.cli.folding import SCORES, is_finished, read_target, target_options
from protenix_eba.cli.session import make_folder
from protenix_eba.errors import UserError

if TYPE_CHECKING:
    from protenix_eba.ebmfold.fold import Decoys
    from protenix_eba.ebmfold.target import Target

__all__ = ["fold"]

# Those of ebmfold.sampling.SAMPLERS, listed here since torch takes seconds to import.
_SAMPLERS: Final = ("churned", "churned64", "langevin", "algorithm1", "heun", "peer")


@click.command(
    epilog="""Example, first without a network, then with one:

    \b
    protenix-eba fold --predictions t1008.npz --sampler peer --decoys 4 --out folded
    protenix-eba fold --predictions t1008.npz --weights ebmfold.safetensors \\
        --fasta t1008.fasta --decoys 16 --out folded16

The decoy that is `selected` in scores.json is the one that the predictions make likeliest."""
)
@target_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Output folder.")
@click.option("-n", "--decoys", default=4, show_default=True, help="How many traces.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    default=None,
    help="Trained network; not for the peer.",
)
@click.option(
    "--sampler",
    type=click.Choice(_SAMPLERS),
    default="churned",
    show_default=True,
    help="`peer` needs no network: scaling, then L-BFGS on the likelihood.",
)
def fold(
    predictions: Path,
    fasta: Path | None,
    distances_only: bool,
    native: Path | None,
    seed: int,
    out: Path,
    decoys: int,
    weights: Path | None,
    sampler: str,
) -> None:
    """Fold a C-alpha trace from inter-residue predictions: decoy_N.pdb and scores.json.

    A folder that holds the same decoys already is left as it is.
    """
    for name, value, least in (("--decoys", decoys, 1), ("--seed", seed, 0)):
        if value < least:
            raise UserError(f"{name}: expected at least {least}, found {value}")
    if (weights is None) != (sampler == "peer"):
        needs = "needs --weights" if weights is None else "uses no --weights"
        raise UserError(
            f"--sampler {sampler} {needs}",
            "give the weights of a trained network, or take --sampler peer, which has none",
        )
    from protenix_eba import __version__
    from protenix_eba.ebmfold.structures import match_residues, read_trace
    from protenix_eba.files import sha256_of_file
    from protenix_eba.progress import console

    target, chains = read_target(predictions, fasta, distances_only)
    trace = read_trace(native) if native else None
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
    files = [f"decoy_{n + 1}.pdb" for n in range(decoys)]
    if is_finished(out, made, files):
        console.print(f"{out} holds these decoys already", markup=False, soft_wrap=True)
        return
    compared = trace and (trace.ca, match_residues(trace, target.n_residues, target.sequence))
    make_folder(out)
    folded = _fold(target, weights, sampler, decoys, seed)
    made["version"] = __version__
    _write(out, files, target, chains, folded, compared or (None, None), made)


def _fold(target: Target, weights: Path | None, sampler: str, n_decoys: int, seed: int) -> Decoys:
    """Fold with a bar."""
    import torch

    from protenix_eba.ebmfold.checkpoint import load_network
    from protenix_eba.ebmfold.fold import fold, fold_by_peer
    from protenix_eba.ebmfold.sampling import SAMPLERS
    from protenix_eba.progress import progress_bar

    network = None if weights is None else load_network(weights)
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
    files: list[str],
    target: Target,
    chains: list[int],
    folded: Decoys,
    compared: tuple[Any, Any],
    made: dict[str, Any],
) -> None:
    """The traces, then the scores as a sign of completeness."""
    from protenix_eba.ebmfold.fold import score_table
    from protenix_eba.ebmfold.structures import write_trace
    from protenix_eba.files import write_json
    from protenix_eba.progress import console

    for name, ca in zip(files, folded.ca, strict=True):
        write_trace(out / name, ca, target.sequence, chains)
    rows = score_table(folded, *compared)
    for name, row in zip(files, rows, strict=True):
        row["file"] = name
    cost = {"n_evaluations": folded.n_evaluations, "cpu_seconds": folded.cpu_seconds}
    write_json(out / SCORES, {"made": made, "per_decoy": cost, "decoys": rows})
    best = rows[folded.selected]
    found = f"selected {best['file']}, {best['negative_log_likelihood']:.3f} nats per pair"
    if best["lddt_ca"] is not None:
        found += f", lDDT-Ca {best['lddt_ca']:.3f}, GDT-TS {best['gdt_ts']:.3f}"
    console.print(f"{len(rows)} decoys in {out}: {found}", markup=False, soft_wrap=True)
