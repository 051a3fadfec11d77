"""Sequences to sample or embed: FASTA, CSV, Protenix's JSON, or the topology of an MD target."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file
from protenix_eba.core.text_files import read_text

if TYPE_CHECKING:
    from protenix_eba.structures.trajectories import Target

__all__ = ["Protein", "protein_of_target", "read_proteins", "read_seed"]

logger = logging.getLogger(__name__)

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
# Of an entry of Protenix's JSON and of a chain in it, what changes nothing here or is empty.
# AlphaFold Server's dialect has the same entries with these words besides.
_ENTRY_KEYS: Final = {"name", "sequences", "modelSeeds", "assembly_id", "dialect", "version"}
_CHAIN_KEYS: Final = {"sequence", "count", "id", "useStructureTemplate", "maxTemplateDate"}
_DIALECTS: Final = (None, "alphafoldserver")
_MSA_KEYS: Final = {"msa", "unpairedMsa", "pairedMsa", "unpairedMsaPath", "pairedMsaPath"}
_TEXT_HINT: Final = "give a FASTA, CSV or JSON file"
_JSON_HINT: Final = "stock Protenix's own format: see its documentation of the inference JSON"


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
        """Return the number of residues of all chains."""
        return sum(map(len, self.chains))


def read_proteins(path: Path | str) -> list[Protein]:
    """Read proteins from FASTA, from CSV with the columns `name` and `seqres`, or from JSON.

    In the first two, chains of one protein are separated by `:` or `/`. The JSON is the one of
    `protenix pred`, with proteins alone; `count` copies of a chain follow each other.

    Raises:
        UserError: No such file, another format, a name twice, an unknown residue, or a JSON with
            other molecules, modifications or constraints.

    Examples:
        >>> from pathlib import Path
        >>> _ = Path("two.fasta").write_text(">chain GGGG >dimer GGG:AAA".replace(" ", chr(10)))
        >>> read_proteins("two.fasta")[1]
        Protein(name='dimer', chains=('GGG', 'AAA'))
    """
    path = require_file(path, "sequences")
    text = read_text(path, _TEXT_HINT)
    if text.lstrip().startswith(("[", "{")):
        pairs = [_from_entry(n, entry, path) for n, entry in enumerate(_entries(text, path))]
    else:
        read = _from_fasta(text) if text.lstrip().startswith(">") else _from_csv(text, path)
        pairs = [(name, tuple(s.replace("/", ":").split(":"))) for name, s in read]
    if not pairs:
        raise UserError(f"no sequence in {path}", "give a FASTA, CSV or JSON file with sequences")
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: the names {', '.join(twice)} occur twice", "make names unique")
    return [Protein(name, chains) for name, chains in pairs]


def read_seed(path: Path | str) -> int | None:
    """Read the seed in a JSON of `protenix pred`; None if there is none, or in other formats.

    As in Protenix, the `modelSeeds` of the first entry are those of all.

    Raises:
        UserError: Several of them: here samples differ by their number, not by the seed.
    """
    path = require_file(path, "sequences")
    text = read_text(path, _TEXT_HINT)
    if not text.lstrip().startswith(("[", "{")):
        return None
    entries = _entries(text, path)
    seeds = (entries[0].get("modelSeeds") or []) if entries else []
    if not isinstance(seeds, list) or len(seeds) > 1 or not all(_is_seed(s) for s in seeds):
        raise UserError(
            f"{path}: expected at most one number in modelSeeds, found {seeds}",
            "choose one with --seed; raise -n for more samples",
        )
    return int(seeds[0]) if seeds else None


def _is_seed(value: object) -> bool:
    """Tell whether a value is a seed; AlphaFold Server writes seeds as text."""
    return isinstance(value, int) or (isinstance(value, str) and value.isdecimal())


def _entries(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not whole JSON: {error}", _JSON_HINT) from error
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise UserError(f"{path}: expected a list of entries in '[' and ']'", _JSON_HINT)
    return content


def _from_entry(number: int, entry: dict[str, Any], path: Path) -> tuple[str, tuple[str, ...]]:
    """Return an entry's name and chains; refuse what cannot be sampled instead of dropping it."""
    name = entry.get("name")
    where = f"{path}: entry {number + 1} ({name})"
    sequences = entry.get("sequences")
    if not isinstance(name, str) or not isinstance(sequences, list) or not sequences:
        raise UserError(f"{where}: expected a name and a list of sequences", _JSON_HINT)
    if entry.get("dialect") not in _DIALECTS:
        raise UserError(
            f"{where}: expected Protenix's JSON or the dialect alphafoldserver, found "
            f"{entry['dialect']!r}",
            "give the sequences as FASTA",
        )
    _refuse(where, entry, _ENTRY_KEYS)
    chains: list[str] = []
    for molecule in sequences:
        kinds = sorted(molecule) if isinstance(molecule, dict) else [type(molecule).__name__]
        if kinds != ["proteinChain"]:
            raise UserError(
                f"{where}: expected proteinChain only, found {', '.join(kinds)}",
                "ensembles are sampled of proteins alone: leave other molecules out",
            )
        chains += _copies(where, molecule["proteinChain"])
    return name, tuple(chains)


def _copies(where: str, chain: dict[str, Any]) -> list[str]:
    sequence, count = chain.get("sequence"), chain.get("count", 1)
    if not isinstance(sequence, str) or not isinstance(count, int) or count < 1:
        raise UserError(
            f"{where}: expected a sequence and a count of 1 or more, found {sequence!r}, {count!r}",
            _JSON_HINT,
        )
    _refuse(where, chain, _CHAIN_KEYS | _MSA_KEYS)
    if any(chain.get(key) for key in _MSA_KEYS):
        logger.warning("%s: alignments in the JSON are not read, give them with --msa", where)
    return [_plain(sequence)] * count


def _refuse(where: str, values: dict[str, Any], known: set[str]) -> None:
    found = sorted(key for key, value in values.items() if key not in known and value)
    if found:
        raise UserError(
            f"{where}: {', '.join(found)} cannot be taken into account here",
            "take it out of the file, or sample it with `protenix pred`",
        )


def _from_fasta(text: str) -> list[tuple[str, str]]:
    records = [record.splitlines() or [""] for record in text.lstrip()[1:].split("\n>")]
    return [((lines[0].split() or [""])[0], _plain("".join(lines[1:]))) for lines in records]


def _plain(sequence: str) -> str:
    """Return a sequence in capitals, without spaces and the asterisk that may end it."""
    return "".join(sequence.split()).upper().removesuffix("*")


def _from_csv(text: str, path: Path) -> list[tuple[str, str]]:
    reader = csv.DictReader(text.splitlines())
    if not {"name", "seqres"} <= set(reader.fieldnames or []):
        raise UserError(
            f"{path}: expected FASTA ('>name'), Protenix's JSON, or CSV with the columns name and "
            f"seqres, found the columns {', '.join(reader.fieldnames or ['none'])}",
            "the ATLAS split files have these two columns",
        )
    return [((row["name"] or "").strip(), _plain(row["seqres"] or "")) for row in reader]


def protein_of_target(target: Target) -> Protein:
    """Return the sequence in a target's topology, without residues that are no amino acid."""
    # mdtraj and numba stay out of what needs a sequence only: features and the model.
    from protenix_eba.structures.trajectories import load_topology

    chains = []
    for chain in load_topology(target).chains:
        codes = [residue.code for residue in chain.residues if residue.code]
        if codes:
            chains.append("".join(codes))
    if not chains:
        raise UserError(
            f"target {target.name}: no amino acid in {target.topology_path}",
            "the topology must hold a protein",
        )
    return Protein(target.name, tuple(chains))
