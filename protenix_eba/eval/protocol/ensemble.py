"""Matching of the atoms that two ensembles share.

Atoms are matched by (chain, residue number, atom name), never by position: GROMACS, AlphaFlow and
the CCD each order them differently, and mdtraj >= 1.10.3 sorts the indices given to `atom_slice`,
so that AlphaFlow's own script compares wrong atoms without an error (alphaflow issue 55). The
insertion code is a part of the number: 52A is another residue than 52.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.protein.residue_names import standard_atom, standard_residue
from protenix_eba.structures.topologies import insertion_code

__all__ = ["MIN_COVERAGE", "AtomKey", "AtomMatch", "ResidueNumber", "match_atoms"]

# Terminal oxygens aside, every heavy atom of a complete prediction is in the MD; 5% tolerate a
# missing residue at an end or a few unresolved side chains.
MIN_COVERAGE: Final = 0.95
_EXAMPLES: Final = 4

Ints = NDArray[np.int64]
# Of a chain its residues' numbers and names, in the file's order.
_Chain: TypeAlias = "dict[ResidueNumber, str]"


class ResidueNumber(NamedTuple):
    """A residue's number and its insertion code: 52A is another residue than 52."""

    number: int
    insertion: str = ""

    def __str__(self) -> str:
        return f"{self.number}{self.insertion}"


@dataclass(frozen=True, order=True)
class AtomKey:
    """The identity of an atom within one ensemble."""

    chain: str
    number: ResidueNumber
    atom_name: str

    @property
    def residue(self) -> tuple[str, ResidueNumber]:
        """The identity of the atom's residue."""
        return self.chain, self.number

    def __str__(self) -> str:
        return f"{self.chain or '-'}/{self.number}/{self.atom_name}"


@dataclass(frozen=True)
class AtomMatch:
    """The heavy protein atoms that two topologies share, in the reference's order.

    Attributes:
        reference_atoms: `[N]` indices in the reference's topology, ascending.
        sample_atoms: `[N]` indices of the same atoms in the samples' topology.
        ca: `[L]` positions of the C-alpha atoms among the N matched ones.
        residue: `[N]` position in `ca` of the C-alpha atom of each atom's residue.
        coverage: Matched fraction of the reference's heavy atoms, terminal OXT not counted; of
            its C-alpha atoms where one side has no others.
        ca_only: Whether one side has C-alpha atoms only.
        notes: What was not matched, for the reader.
    """

    reference_atoms: Ints
    sample_atoms: Ints
    ca: Ints
    residue: Ints
    coverage: float
    ca_only: bool
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Side:
    """The heavy protein atoms of one topology, under standard names."""

    atoms: Ints
    keys: list[AtomKey]
    residue_names: list[str]

    @property
    def residue_range(self) -> str:
        numbers = [key.number for key in self.keys]
        return f"{min(numbers)} to {max(numbers)}" if numbers else "none"

    @property
    def is_ca_only(self) -> bool:
        return bool(self.keys) and all(key.atom_name == "CA" for key in self.keys)

    def ca(self) -> _Side:
        return self.only([i for i, key in enumerate(self.keys) if key.atom_name == "CA"])

    def only(self, rows: list[int]) -> _Side:
        names = [self.residue_names[i] for i in rows]
        return _Side(self.atoms[rows], [self.keys[i] for i in rows], names)

    def without_chains(self) -> _Side:
        keys = [AtomKey("", key.number, key.atom_name) for key in self.keys]
        return _Side(self.atoms, keys, self.residue_names)


def match_atoms(reference: mdtraj.Topology, samples: mdtraj.Topology, name: str) -> AtomMatch:
    """Pair the heavy protein atoms of two topologies by chain, residue number and atom name.

    Where each side has a single chain its id is ignored. Where the numbers or the ids of chains do
    not fit, whole chains are matched by their sequences, and the notes say so. OXT is matched
    where both have it and its absence is tolerated. The result does not depend on the order of the
    samples' atoms.

    Args:
        reference: Topology of the MD.
        samples: Topology of the generated conformations.
        name: Name of the target, for messages.

    Raises:
        UserError: Different residue names under one number, less than `MIN_COVERAGE` of the
            reference matched, an atom that occurs twice, or fewer than three C-alpha atoms in
            common.
    """
    ours, theirs = _side(reference, name, "MD"), _side(samples, name, "samples")
    if max(len({key.chain for key in side.keys}) for side in (ours, theirs)) <= 1:
        # A single chain is "the" chain whatever its id: ATLAS writes A, Protenix A0 or blank.
        ours, theirs = ours.without_chains(), theirs.without_chains()
    ca_only = ours.is_ca_only or theirs.is_ca_only
    if ca_only:
        ours, theirs = ours.ca(), theirs.ca()
    theirs, renumbered = _numbered_as(ours, theirs)
    pairs = _pairs(ours, theirs)
    _check_residue_names(ours, theirs, pairs, name)
    coverage, notes = _coverage(ours, theirs, name)
    notes += renumbered
    first, second = np.array(pairs, dtype=np.int64).T
    keys = [ours.keys[i] for i in first]
    ca = [n for n, key in enumerate(keys) if key.atom_name == "CA"]
    if len(ca) < 3:
        raise UserError(
            f"target {name}: {len(ca)} C-alpha atoms in common, at least 3 are needed",
            "the evaluation is for proteins and peptides of three or more residues",
        )
    if ca_only:
        notes.append("C-alpha atoms only: RMSF and RMWD are not those of all heavy atoms.")
    rows = {keys[n].residue: row for row, n in enumerate(ca)}
    residue = np.array([rows[key.residue] for key in keys], dtype=np.int64)
    return AtomMatch(
        ours.atoms[first], theirs.atoms[second], np.array(ca), residue, coverage, ca_only, notes
    )


def _pairs(ours: _Side, theirs: _Side) -> list[tuple[int, int]]:
    """Return the rows of equal atoms, in residues whose C-alpha atom both have."""
    row = {key: i for i, key in enumerate(theirs.keys)}
    pairs = [(i, row[key]) for i, key in enumerate(ours.keys) if key in row]
    with_ca = {ours.keys[i].residue for i, _ in pairs if ours.keys[i].atom_name == "CA"}
    return [(i, j) for i, j in pairs if ours.keys[i].residue in with_ca]


def _numbered_as(ours: _Side, theirs: _Side) -> tuple[_Side, list[str]]:
    """Return the samples with the reference's chain ids and numbers, if their own do not fit.

    Only whole chains are renumbered, by sequence. Numbers that shift within a chain mean a gap, or
    another protein, and stay an error.
    """
    mine, other = _chains(ours), _chains(theirs)
    if _fits(mine, other) or len(mine) != len(other):
        return theirs, []
    new: dict[tuple[str, ResidueNumber], tuple[str, ResidueNumber]] = {}
    notes: list[str] = []
    for chain, residues in mine.items():
        found = _counterpart(chain, residues, other)
        if found is None:
            return theirs, []
        old, pairs = found
        del other[old]
        new |= {(old, theirs_): (chain, ours_) for ours_, theirs_ in pairs}
        (first, start), (last, end) = pairs[0], pairs[-1]
        notes.append(
            f"Residues were matched by sequence: {old or '-'} {start} to {end} of the samples are "
            f"{chain or '-'} {first} to {last} of the reference."
        )
    rows = [i for i, key in enumerate(theirs.keys) if key.residue in new]
    kept = theirs.only(rows)
    keys = [AtomKey(*new[key.residue], key.atom_name) for key in kept.keys]
    if left := len(theirs.keys) - len(rows):
        notes.append(f"{left} heavy atoms of the samples' residues beyond these were left out.")
    return _Side(kept.atoms, keys, kept.residue_names), notes


def _chains(side: _Side) -> dict[str, _Chain]:
    found: dict[str, _Chain] = {}
    for key, residue in zip(side.keys, side.residue_names, strict=True):
        found.setdefault(key.chain, {})[key.number] = residue
    return found


def _fits(ours: dict[str, _Chain], theirs: dict[str, _Chain]) -> bool:
    """Return whether all residues of one side are on the other, with the same ids and numbers."""
    mine, other = (
        {(chain, *residue) for chain, found in side.items() for residue in found.items()}
        for side in (ours, theirs)
    )
    return mine <= other or other <= mine


def _counterpart(
    chain: str, ours: _Chain, others: dict[str, _Chain]
) -> tuple[str, list[tuple[ResidueNumber, ResidueNumber]]] | None:
    """Find the samples' chain with the sequence of a reference chain, and pairs of numbers.

    The chain of the same id is tried first.
    """
    for old in sorted(others, key=lambda name: name != chain):
        start = _position(list(ours.values()), list(others[old].values()))
        if start is None:
            continue
        pairs = list(
            zip(list(ours)[max(start, 0) :], list(others[old])[max(-start, 0) :], strict=False)
        )
        if _continues_alike(pairs):
            return old, pairs
    return None


def _continues_alike(pairs: list[tuple[ResidueNumber, ResidueNumber]]) -> bool:
    """Return whether both sides' numbers jump at the same residues.

    Otherwise one side has to count its residues through: the samples do from 1, or the other side
    has insertion codes and leaves out no number either.
    """
    ours, theirs = zip(*pairs, strict=True)
    steps = [np.diff([residue.number for residue in side]) for side in (ours, theirs)]
    codes = [[residue.insertion for residue in side] for side in (ours, theirs)]
    if codes[0] == codes[1] and (steps[0] == steps[1]).all():
        return True
    if theirs[0].number == 1 and _counts_on(steps[1], codes[1]) and not any(codes[1]):
        return True
    one_has_codes = any(codes[0]) != any(codes[1])
    return one_has_codes and all(map(_counts_on, steps, codes))


def _counts_on(steps: Ints, codes: list[str]) -> bool:
    """Return whether each number is the next one, or equal with another insertion code."""
    after = zip(steps, codes[1:], strict=True)
    return all(step == 1 or (step == 0 and code) for step, code in after)


def _position(ours: list[str], theirs: list[str]) -> int | None:
    """Return the reference row at which the samples' sequence begins; negative if before it.

    None where one sequence is no part of the other, or stands in it twice.
    """
    short, long = sorted((ours, theirs), key=len)
    starts = [i for i in range(len(long) - len(short) + 1) if long[i : i + len(short)] == short]
    if len(starts) != 1:
        return None
    return starts[0] if long is ours else -starts[0]


def _side(topology: mdtraj.Topology, name: str, where: str) -> _Side:
    found = [a for a in topology.atoms if a.residue.is_protein and a.element.symbol != "H"]
    keys = [_key(atom) for atom in found]
    if len(set(keys)) != len(keys):
        seen: set[AtomKey] = set()
        twice = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise UserError(
            f"target {name}: atom {twice} occurs twice in the topology of the {where}",
            "give each chain its own id, and each residue of a chain its own number",
        )
    atoms = np.array([atom.index for atom in found], dtype=np.int64)
    return _Side(atoms, keys, [_residue_name(atom.residue) for atom in found])


def _residue_name(residue: mdtraj.core.topology.Residue) -> str:
    """Return the name without protonation states: HSD, HSE and HID are HIS."""
    return standard_residue(residue.name) or str(residue.name)


def _key(atom: mdtraj.core.topology.Atom) -> AtomKey:
    chain = (atom.residue.chain.chain_id or "").strip()
    number = ResidueNumber(atom.residue.resSeq, insertion_code(atom.residue))
    residue = standard_residue(atom.residue.name)
    # Of a modified residue O1 need not be an end's: N-formylmethionine (FME) has it beside O.
    return AtomKey(chain, number, standard_atom(residue, atom.name) if residue else atom.name)


def _coverage(ours: _Side, theirs: _Side, name: str) -> tuple[float, list[str]]:
    """Return the matched fraction of the reference, and what is missing on either side."""
    common = set(ours.keys) & set(theirs.keys)
    missing = [key for key in ours.keys if key not in common and key.atom_name != "OXT"]
    expected = sum(key.atom_name != "OXT" for key in ours.keys)
    coverage = 1.0 - len(missing) / expected if expected else 0.0
    if coverage < MIN_COVERAGE:
        raise UserError(
            f"target {name}: only {coverage:.1%} of the reference's {expected} heavy atoms are in "
            f"the samples (at least {MIN_COVERAGE:.0%} needed); missing "
            f"{_examples([str(key) for key in missing])}. Residues: reference "
            f"{ours.residue_range}, samples {theirs.residue_range}",
            "number the samples' residues and chains as in the reference, and give all heavy atoms "
            "of each residue or its C-alpha atom only",
        )
    extra = [key for key in theirs.keys if key not in common and key.atom_name != "OXT"]
    notes = []
    for atoms, where in ((missing, "in the samples"), (extra, "in the reference")):
        if atoms:
            shown = _examples([str(key) for key in atoms])
            notes.append(f"{len(atoms)} heavy atoms are not {where} and were left out: {shown}.")
    return coverage, notes


def _check_residue_names(
    ours: _Side, theirs: _Side, pairs: list[tuple[int, int]], name: str
) -> None:
    wrong = sorted(
        {
            (ours.keys[i].number, ours.residue_names[i], theirs.residue_names[j])
            for i, j in pairs
            if ours.residue_names[i] != theirs.residue_names[j]
        }
    )
    if wrong:
        shown = [f"{number} is {mine} in the reference, {other}" for number, mine, other in wrong]
        raise UserError(
            f"target {name}: {len(wrong)} residues have another name in the samples: "
            f"{_examples(shown)}",
            "check that the sequence is the same and that residues are numbered alike",
        )


def _examples(texts: list[str]) -> str:
    more = len(texts) - _EXAMPLES
    return "; ".join(texts[:_EXAMPLES]) + (f"; and {more} more" if more > 0 else "")
