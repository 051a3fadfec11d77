"""The protein to fold, with predictions from a file or from a model's distogram head."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from protenix_eba.cli.folding import FileChoice, ModelChoice, TargetChoice
from protenix_eba.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from protenix_eba.ebmfold.heads import Head
    from protenix_eba.ebmfold.predictions import Predictions
    from protenix_eba.ebmfold.target import Target
    from protenix_eba.host.msa import MsaFiles
    from protenix_eba.host.trunk import Trunk
    from protenix_eba.structures.sequences import Protein

__all__ = ["PREDICTIONS", "FoldTarget", "fold_target", "keep_predictions", "read_target"]

logger = logging.getLogger(__name__)

PREDICTIONS: Final = "predictions.npz"


@dataclass(frozen=True)
class FoldTarget:
    """A protein whose predictions are read, or made, when they are needed.

    Attributes:
        made: What they depend on, for the record of the decoys.
        load: Takes the output folder, the configuration and the head; gives the target and the
            lengths of its chains. The distogram of a model is kept in that folder: a second run
            needs no model.
    """

    made: dict[str, Any]
    load: Callable[[Path, Any, Head], tuple[Target, list[int]]]


def fold_target(choice: TargetChoice) -> FoldTarget:
    """Return the protein that the options choose.

    Raises:
        UserError: A file cannot be used. `load` raises it, too, for what is in them.
    """
    source = choice.source
    made, load = _from_file(source) if isinstance(source, FileChoice) else _from_model(source)

    def with_choice(out: Path, configs: Any, head: Head) -> tuple[Target, list[int]]:
        return read_target(*load(out, configs, head), distances_only=choice.distances_only)

    return FoldTarget(made | {"distances_only": choice.distances_only}, with_choice)


# A file of predictions, the name of the protein, and the sequence of each chain, or none.
_Loaded = tuple[Path, str, Sequence[str]]
_Load = Callable[[Path, Any, "Head"], _Loaded]


def read_target(
    path: Path, name: str, chains: Sequence[str], *, distances_only: bool
) -> tuple[Target, list[int]]:
    """Return a protein with the predictions in a file, and the lengths of its chains.

    Raises:
        UserError: The file cannot be used, or does not fit the chains.
    """
    from protenix_eba.ebmfold.prediction_files import read_predictions
    from protenix_eba.ebmfold.structures import check_sizes, whole_numbers
    from protenix_eba.ebmfold.target import Target

    read = read_predictions(path, orientations=not distances_only)
    lengths = [len(chain) for chain in chains] or [read.n_residues]
    check_sizes(lengths)
    return Target(name, read, "".join(chains) or None, whole_numbers(lengths)), lengths


def _from_file(source: FileChoice) -> tuple[dict[str, Any], _Load]:
    from protenix_eba.core.files import require_file, sha256_of_file
    from protenix_eba.ebmfold.prediction_files import read_chains

    path = require_file(source.predictions, "predictions")
    if source.fasta is None:
        name, chains = path.stem, read_chains(path)
    else:
        protein = _single_protein(source.fasta)
        name, chains = protein.name, protein.chains
    made = {"predictions_sha256": sha256_of_file(path), "chains": list(chains)}
    return made, lambda out, configs, head: (path, name, chains)


def _single_protein(path: Path) -> Protein:
    from protenix_eba.structures.sequences import read_proteins

    proteins = read_proteins(path)
    if len(proteins) != 1:
        raise UserError(
            f"{path}: expected one protein, found {len(proteins)}",
            "join the chains of a complex by ':' in one record",
        )
    return proteins[0]


def _from_model(source: ModelChoice) -> tuple[dict[str, Any], _Load]:
    from protenix_eba.core.files import require_file, sha256_of_file
    from protenix_eba.core.progress import tell
    from protenix_eba.ebmfold.prediction_files import read_chains
    from protenix_eba.host.msa import MsaFiles

    msas = MsaFiles(source.msa_path) if source.msa_path else None
    molecules = _molecules_in(source.fasta)
    made = {
        "checkpoint_sha256": sha256_of_file(require_file(source.checkpoint, "checkpoint")),
        "config_sha256": sha256_of_file(require_file(source.config_path, "configuration")),
        **molecules.described(msas),
    }

    def load(out: Path, configs: Any, head: Head) -> _Loaded:
        path = out / PREDICTIONS

        def make() -> tuple[Predictions, Sequence[str]]:
            from protenix_eba.host.trunk import Trunk
            from protenix_eba.host.weights import load_checkpoint

            tell(f"distogram of {molecules.name} ...")
            state = load_checkpoint(source.checkpoint)
            trunk = Trunk(configs, state, source.embeddings, msas)
            z_trunk, tokens, chains = molecules.pairs(trunk, int(configs.model.N_cycle))
            return head.predictions(state, z_trunk, tokens), chains

        keep_predictions(path, made, make)
        return path, molecules.name, read_chains(path)

    return made, load


def keep_predictions(
    path: Path, made: dict[str, Any], make: Callable[[], tuple[Predictions, Sequence[str]]]
) -> None:
    """Write the predictions that `make` returns, unless the file has them already.

    Args:
        path: npz file.
        made: What the predictions depend on.
        make: Function that gives the predictions and the sequence of each chain.
    """
    from protenix_eba.ebmfold.prediction_files import read_source, write_predictions

    made_from, before = json.dumps(made, sort_keys=True), None
    with contextlib.suppress(UserError):
        before = read_source(path)
    if before != made_from:
        write_predictions(path, *make(), made_from)


# Pair embeddings of all tokens, which of them are the protein's residues, and its chains.
_Pairs = tuple["Tensor", "Tensor | None", Sequence[str]]


@dataclass(frozen=True)
class _Proteins:
    """Chains of standard amino acids: each residue is a token."""

    protein: Protein

    @property
    def name(self) -> str:
        return self.protein.name

    def described(self, msas: MsaFiles | None) -> dict[str, Any]:
        """Return what embeddings depend on beside the model; stored ones decide without `msas`."""
        from protenix_eba.host.msa import fingerprint_of

        msa = fingerprint_of(msas.of(self.protein)) if msas else None
        return {"molecules": list(self.protein.chains), "msa": msa}

    def pairs(self, trunk: Trunk, n_cycles: int) -> _Pairs:
        """Return the pair embeddings, stored ones or else those that the trunk computes."""
        return trunk.embed(self.protein).z_trunk, None, self.protein.chains


@dataclass(frozen=True)
class _Complex:
    """An entry of the JSON of `protenix pred` that has more than plain proteins."""

    entry: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.entry["name"])

    def described(self, msas: MsaFiles | None) -> dict[str, Any]:
        """Return what the embeddings depend on besides the model.

        Raises:
            UserError: Alignments are given, which are not read here.
        """
        if msas:
            raise UserError(
                f"--msa: {self.name} has molecules beside proteins, with which no alignments are "
                "read",
                "leave --msa out, or give the proteins alone",
            )
        return {"molecules": self.entry, "msa": None}

    def pairs(self, trunk: Trunk, n_cycles: int) -> _Pairs:
        """Compute the pair embeddings with the trunk.

        Raises:
            UserError: Protenix cannot read the entry, or it has fewer than 4 residues.
        """
        from protenix_eba.ebmfold.protenix_head import ProteinTokens
        from protenix_eba.host.embeddings import compute_embeddings
        from protenix_eba.host.features import ProteinFeatures, complex_features
        from protenix_eba.structures.sequences import Protein

        try:
            features = complex_features(copy.deepcopy(self.entry))
        except Exception as error:  # whatever Protenix says of it
            raise UserError(
                f"Protenix cannot read the molecules of {self.name}: {type(error).__name__}: "
                f"{error}",
                "see its documentation of the inference JSON; ligands by CCD code and nucleic "
                "acids need the components.cif that `protenix pred` downloads, in "
                "PROTENIX_ROOT_DIR/common",
            ) from error
        chains = [next(iter(molecule.values())) for molecule in self.entry["sequences"]]
        if any("msa" in key.lower() for chain in chains for key in chain):
            logger.warning("%s: alignments in the JSON are not read", self.name)
        residues = ProteinTokens.of(features)
        # The trunk reads nothing but the features.
        molecules = ProteinFeatures(Protein(self.name, ()), features, (), ())
        z_trunk = compute_embeddings(trunk.model, molecules, n_cycles).z_trunk
        starts = itertools.accumulate(residues.chains, initial=0)
        sequences = [residues.sequence[a:b] for a, b in itertools.pairwise(starts)]
        return z_trunk, residues.tokens, sequences


def _molecules_in(path: Path) -> _Proteins | _Complex:
    """Read one protein, or the single entry of a JSON file that has other molecules as well.

    Raises:
        UserError: It is neither, or too small.
    """
    from protenix_eba.core.files import require_file
    from protenix_eba.ebmfold.structures import check_sizes

    try:
        content = json.loads(require_file(path, "sequences").read_text(encoding="utf-8"))
        (entry,) = content
        molecules = [next(iter(molecule.items())) for molecule in entry["sequences"]]
        plain = all(
            kind == "proteinChain" and not chain.get("modifications") for kind, chain in molecules
        )
        if not plain and isinstance(entry["name"], str):
            return _Complex(entry)
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration):
        pass  # no JSON, or not of this kind: what is wrong with it, `read_proteins` says
    protein = _single_protein(path)
    check_sizes([len(chain) for chain in protein.chains])
    return _Proteins(protein)
