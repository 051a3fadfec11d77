"""Refinement of each protein's ensemble, for `sample --head`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protenix_eba.cli.fold_targets import PREDICTIONS, keep_predictions, read_target
from protenix_eba.cli.head import head_provenance
from protenix_eba.ebmfold.score_folder import ScoreFolder

if TYPE_CHECKING:
    from protenix_eba.ebmfold.heads import Head
    from protenix_eba.ebmfold.predictions import Predictions
    from protenix_eba.host.trunk import Trunk
    from protenix_eba.host.weights import StateDict
    from protenix_eba.structures.sequences import Protein

__all__ = ["RefinedBy", "refine_ensemble"]


@dataclass(frozen=True)
class RefinedBy:
    """The head that refines the ensembles of a model, and what it needs of the model.

    Attributes:
        name: Name of the head.
        head: Which.
        trunk: Source of the pair embeddings of a protein.
        state: Weights of the whole model.
        samples: What the samples depend on, for the record.
    """

    name: str
    head: Head
    trunk: Trunk
    state: StateDict
    samples: dict[str, Any]


def refine_ensemble(
    ensemble: Path, protein: Protein, refined_by: RefinedBy, out: Path
) -> dict[str, str]:
    """Refine the C-alpha trace of each sample: OUT/NAME_<number>.pdb and OUT/scores.json.

    What is there is kept, so that an ensemble that has grown has only its new samples refined.

    Returns:
        Name of each sample that could not be refined, with the reason.

    Raises:
        UserError: There are traces made in another way, or this protein cannot be refined.
    """
    from protenix_eba.core.files import make_folder
    from protenix_eba.ebmfold.refinement import Refinement, all_conformations, refine_missing

    found, model = all_conformations([ensemble]), refined_by
    chains = protein.chains
    made_from = {
        "checkpoint_sha256": model.samples["checkpoint_sha256"],
        "molecules": list(chains),
        "msa": model.trunk.msa(protein),
    }
    made = {**made_from, **head_provenance(model.name, model.head), "samples": model.samples}
    folder = ScoreFolder(out, made, [f"{conformation.name}.pdb" for conformation in found])
    if not folder.missing:
        return {}
    make_folder(out)

    def make() -> tuple[Predictions, Sequence[str]]:
        return model.head.predictions(model.state, model.trunk.embed(protein).z_trunk), chains

    keep_predictions(out / PREDICTIONS, made_from, make)
    target, lengths = read_target(out / PREDICTIONS, protein.name, chains, distances_only=False)
    refinement = Refinement(target, lengths, model.head, None, None)
    return refine_missing(folder, found, refinement, model.samples["seed"])
