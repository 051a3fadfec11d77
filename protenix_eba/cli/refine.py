"""`protenix-eba refine`: C-alpha traces refined with predictions, by EBM-Fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
from protenix_eba.cli.numbers import NumberRange
from protenix_eba.cli.session import exit_with_failures
from protenix_eba.ebmfold.score_folder import ScoreFolder

__all__ = ["refine"]

_PATH = click.Path(path_type=Path)


@click.command(
    epilog="""Examples, with a file of predictions, and with the distogram of the sampling model:

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
    help="Structures to refine, all of one protein: a PDB or mmCIF file with all its models, or a "
    "folder that `protenix-eba sample` or `protenix pred` wrote. May be repeated.",
)
@target_options
@head_options
@click.option("--out", type=_PATH, required=True, help="Folder to write to.")
@click.option(
    "--level",
    type=NumberRange(0.1, 10.0, min_open=True),
    default=None,
    help="How far a trace may change: the noise in angstrom that it starts from.  [default: "
    "chosen for each structure]",
)
@backbone_option
def refine(
    structures: Sequence[Path],
    choice: TargetChoice,
    head: str,
    weights: Path | None,
    plugins: tuple[str, ...],
    out: Path,
    level: float | None,
    backbone: bool,
) -> None:
    """Refine C-alpha traces of one protein with predictions for it: NAME.pdb and scores.json.

    Models of a file and frames of a trajectory are called NAME_1, NAME_2 and so on. Residues that
    a structure lacks are left out. Refinement starts from a small noise level, so that the fold
    stays. A second run continues where the first was stopped.
    """
    from protenix_eba.core.files import make_folder, require_file, sha256_of_file
    from protenix_eba.core.progress import tell
    from protenix_eba.ebmfold.refinement import Refinement, all_conformations, refine_missing

    if backbone:
        check_backbones()
    found = all_conformations(structures)
    chosen = fold_target(choice)
    # EBM-Fold refines by the part of one sampler, whatever it folds with.
    configs, used = build_head(head, choice, plugins, weights=weights, sampler="hybrid")
    native_path = choice.native and require_file(choice.native, "native")
    made = {
        **chosen.made,
        **head_provenance(head, used),
        "structures_sha256": sorted(map(sha256_of_file, {c.path for c in found})),
        "native_sha256": native_path and sha256_of_file(native_path),
        "level": level,
        "seed": choice.seed,
    }
    folder = ScoreFolder(out, made, [f"{conformation.name}.pdb" for conformation in found])
    failures: dict[str, str] = {}
    if folder.missing:
        make_folder(out)
        target, chains = chosen.load(out, configs, used)
        native = compared_with(choice.native, target, chains)
        refinement = Refinement(target, chains, used, native, level)
        failures = refine_missing(folder, found, refinement, choice.seed)
        tell(f"{len(folder.rows)} refined traces in {out}")
    else:
        tell(f"{out} holds these traces already")
    if backbone:
        write_backbones(folder)
    exit_with_failures(failures, len(found))
