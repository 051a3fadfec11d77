"""Sequences to sample or embed, from FASTA, from CSV, or from the topology of an MD target."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from protenix_eba.errors import UserError
from protenix_eba.files import require_file
from protenix_eba.trajectories import Target, load_topology

__all__ = ["Protein", "protein_of_target", "read_proteins"]

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"


@dataclass(frozen=True)
class Protein:
    """A named protein.

    Attributes:
        name: Also the name of its output folder.
        chains: One-letter sequence of each chain, in the order of the chains.
    """

    name: str
    chains: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise UserError(
                f"{self.name!r} cannot be the name of a protein: it names a folder",
                "use letters, digits, '_' and '-'",
            )
        for sequence in self.chains:
            unknown = sorted(set(sequence) - set(AMINO_ACIDS))
            if unknown or not sequence:
                found = f"unknown residues {', '.join(unknown)}" if unknown else "an empty sequence"
                raise UserError(
                    f"protein {self.name}: expected one-letter codes {AMINO_ACIDS}, found {found}",
                    "replace modified residues by their parents, or leave the protein out",
                )

    @property
    def n_residues(self) -> int:
        """Residues of all chains."""
        return sum(map(len, self.chains))


def read_proteins(path: Path | str) -> list[Protein]:
    """Proteins of a FASTA file, or of a CSV file with the columns `name` and `seqres`.

    Chains of one protein are separated by `:` or `/`.

    Raises:
        UserError: No such file, another format, a name twice, an unknown residue.
    """
    path = require_file(path, "sequences")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file", "give a FASTA or CSV file") from error
    pairs = _from_fasta(text) if text.lstrip().startswith(">") else _from_csv(text, path)
    if not pairs:
        raise UserError(f"no sequence in {path}", "give a FASTA or CSV file with sequences")
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: the names {', '.join(twice)} occur twice", "make names unique")
    return [Protein(name, tuple(s.replace("/", ":").split(":"))) for name, s in pairs]


def _from_fasta(text: str) -> list[tuple[str, str]]:
    records = [record.splitlines() for record in text.lstrip()[1:].split("\n>")]
    return [
        ((lines[0].split() or [""])[0], "".join(lines[1:]).replace(" ", "").upper())
        for lines in records
    ]


def _from_csv(text: str, path: Path) -> list[tuple[str, str]]:
    reader = csv.DictReader(text.splitlines())
    if not {"name", "seqres"} <= set(reader.fieldnames or []):
        raise UserError(
            f"{path}: expected FASTA ('>name'), or CSV with the columns name and seqres, found "
            f"the columns {', '.join(reader.fieldnames or ['none'])}",
            "the ATLAS split files have these two columns",
        )
    return [(row["name"], row["seqres"].strip().upper()) for row in reader]


def protein_of_target(target: Target) -> Protein:
    """The sequence in a target's topology; residues that are no amino acid are left out."""
    chains = []
    for chain in load_topology(target).topology.chains:
        codes = [residue.code for residue in chain.residues if residue.code]
        if codes:
            chains.append("".join(codes))
    if not chains:
        raise UserError(
            f"target {target.name}: no amino acid in {target.topology_path}",
            "the topology must hold a protein",
        )
    return Protein(target.name, tuple(chains))
