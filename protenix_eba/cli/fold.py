"""`protenix-eba fold`: C-alpha traces from predictions, by EBM-Fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from protenix_eba.cli.fold_targets import fold_target
from protenix_eba.cli.folding import (
    TargetChoice,
    backbone_option,
    check_backbones,
    compared_with,
    target_options,
    write_backbones,
)
from protenix_eba.cli.head import build_head, head_options, head_provenance
from protenix_eba.cli.session import exit_with_failures
from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.config import FOLD_SAMPLERS, PEER
from protenix_eba.ebmfold.score_folder import ScoreFolder

if TYPE_CHECKING:
    from protenix_eba.ebmfold.fold import Decoys
    from protenix_eba.ebmfold.heads import Head
    from protenix_eba.ebmfold.target import Target

__all__ = ["fold"]


@click.command(
    epilog="""Examples, without a network, with one, and with the distogram of Protenix:

    \b
    protenix-eba fold --predictions t1008.npz --sampler peer --decoys 4 --out folded
    protenix-eba fold --predictions t1008.npz --fasta t1008.fasta --decoys 16 --out folded16
    protenix-eba fold --checkpoint model.pt --config configs/eba.yaml --fasta my.fasta \\
        --out folded_protenix

The decoy that is `selected` in scores.json is the one that the predictions make likeliest.

Exit status: 0 all decoys are there, 2 unusable input or none is, 3 some failed."""
)
@target_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("-n", "--decoys", default=4, show_default=True, help="Number of traces to make.")
@head_options
@click.option(
    "--sampler",
    type=click.Choice(FOLD_SAMPLERS),
    help="How the head ebmfold searches. `hybrid`: by network and likelihood in turn; `peer`: "
    "without a network, by scaling and then L-BFGS on the likelihood; all others: by the network "
    "alone.  [default: ebmfold.sampler of --config, else hybrid]",
)
@backbone_option
def fold(
    choice: TargetChoice,
    out: Path,
    decoys: int,
    head: str,
    weights: Path | None,
    plugins: tuple[str, ...],
    sampler: str | None,
    backbone: bool,
) -> None:
    """Fold a C-alpha trace from inter-residue predictions: decoy_N.pdb and scores.json.

    The predictions come from a file, or from the distogram head of a Protenix model, and are then
    kept as OUT/predictions.npz. A second run continues where the first was stopped; with a larger
    -n it adds decoys, which are the traces that it makes.
    """
    if decoys < 1:
        raise UserError(f"--decoys: expected at least 1, found {decoys}")
    if weights is not None and sampler == PEER:
        raise UserError("--sampler peer uses no --weights", "leave out one of the two")
    from protenix_eba.core.files import make_folder, require_file, sha256_of_file
    from protenix_eba.core.progress import tell

    if backbone:
        check_backbones()
    chosen = fold_target(choice)
    configs, used = build_head(head, choice, plugins, weights=weights, sampler=sampler)
    native_path = choice.native and require_file(choice.native, "native")
    made = {
        **chosen.made,
        **head_provenance(head, used),
        "native_sha256": native_path and sha256_of_file(native_path),
        "sampler": configs.ebmfold.sampler,
        "seed": choice.seed,
    }
    files = [f"decoy_{n + 1}.pdb" for n in range(decoys)]
    folder = ScoreFolder(out, made, files)
    failures: dict[str, str] = {}
    if folder.missing:
        make_folder(out)
        target, chains = chosen.load(out, configs, used)
        failures = _fold_missing(folder, target, chains, choice, used)
        _tell(folder)
    else:
        tell(f"{out} holds these decoys already")
    if backbone:
        write_backbones(folder)
    exit_with_failures(failures, decoys)


def _fold_missing(
    folder: ScoreFolder, target: Target, chains: Sequence[int], choice: TargetChoice, head: Head
) -> dict[str, str]:
    """Fold the missing decoys with a progress bar; return why some failed, by file name."""
    from protenix_eba.core.progress import progress_bar
    from protenix_eba.core.seeds import stream_seed
    from protenix_eba.ebmfold.structures import write_trace

    compared = compared_with(choice.native, target, chains) or ()
    missing, failures = folder.missing, {}
    with progress_bar() as bar:
        task = bar.add_task("folding", total=len(folder.files), note=target.name)
        for n, file in enumerate(folder.files):
            if file in missing:
                try:
                    decoy = head.fold_target(target, 1, stream_seed(choice.seed, n))
                except UserError as error:
                    failures[file] = str(error)
                else:
                    write_trace(folder.out / file, decoy.ca[0], target.sequence, chains)
                    folder.add(file, _row(decoy, compared))
            bar.advance(task)
    folder.write(failures)
    return failures


def _row(decoy: Decoys, compared: tuple[Any, ...]) -> dict[str, Any]:
    from protenix_eba.ebmfold.fold import score_table

    (scores,) = score_table(decoy, *compared)
    cost = {"n_evaluations": decoy.n_evaluations, "cpu_seconds": decoy.cpu_seconds}
    return scores | cost


def _tell(folder: ScoreFolder) -> None:
    from protenix_eba.core.progress import tell

    if not folder.rows:
        return
    best = folder.selected
    found = f"selected {best['file']}, {best['negative_log_likelihood']:.3f} nats per pair"
    if best["lddt_ca"] is not None:
        found += f", lDDT-Ca {best['lddt_ca']:.3f}, GDT-TS {best['gdt_ts']:.3f}"
    message = f"{len(folder.rows)} decoys in {folder.out}: {found}"
    tell(message)
