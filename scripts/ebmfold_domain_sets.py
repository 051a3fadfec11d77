"""Protein chains from public structures, and splits of them that share no fold."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file
from protenix_eba.core.progress import tell, track
from protenix_eba.ebmfold.domains import Domain
from protenix_eba.ebmfold.structures import one_letter

__all__ = [
    "Selection",
    "as_domain",
    "folder_chains",
    "ideal_cb",
    "promod3_chains",
    "read_topologies",
    "select_domains",
    "split_by_topology",
    "structure_chains",
]

_SUFFIXES: Final = (".pdb", ".ent", ".cif", ".bcif")
_AMINO_ACIDS: Final = "ACDEFGHIKLMNPQRSTVWY"
# A longer bond between C and the next N is a chain break.
_LONGEST_BOND: Final = 1.7
# Of an entry in the table of contents: offset, size, number of the first residue, shift.
_ENTRY: Final = struct.Struct("<IHH3f")
_COUNT_AT: Final = 0x4D
_ATOMS: Final = 4  # N, CA, C, O
_RESOLUTION: Final = 0.01  # angstrom


@dataclass(frozen=True)
class Selection:
    """The limits that decide which chains are taken.

    Attributes:
        shortest: Residues.
        longest: Residues.
    """

    shortest: int = 40
    longest: int = 256

    def complaint(self, sequence: str, backbone: NDArray[np.float32]) -> str:
        """Return why a chain is not taken; empty if it is.

        Args:
            sequence: L letters.
            backbone: `[L, 3, 3]` N, CA, C in angstrom.
        """
        if not self.shortest <= len(sequence) <= self.longest:
            return f"not {self.shortest} to {self.longest} residues"
        if set(sequence) - set(_AMINO_ACIDS):
            return "an amino acid beyond the 20"
        if not np.isfinite(backbone).all():
            return "coordinates that are not finite"
        bonds = np.linalg.norm(backbone[1:, 0] - backbone[:-1, 2], axis=-1)
        return "a chain break" if (bonds > _LONGEST_BOND).any() else ""


def promod3_chains(path: Path | str) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Yield the 21,119 chains in ProMod3's database (Debian's promod3-data 3.2.1).

    Args:
        path: `structure_db.dat`. A header, the table of contents, then for all chains together
            sequences and coordinates of N, CA, C and O, in steps of 0.01 angstrom from a shift.

    Yields:
        Name such as "1a6j.B", sequence, and `[L, 3, 3]` N, CA, C in angstrom.

    Raises:
        UserError: It is no such file, or it is cut.
    """
    path = require_file(path, "ProMod3's structure database")
    content = np.memmap(path, dtype=np.uint8, mode="r")
    try:
        entries, at = _table_of_contents(content)
        sequences, at = _array(content, at, 1)
        coordinates, _ = _array(content, at, 2 * 3 * _ATOMS)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise UserError(
            f"{path} is not ProMod3's structure database, or it is cut: {error}",
            "take structure_db.dat from Debian's package promod3-data",
        ) from error
    for name, offset, size, shift in entries:
        letters = sequences[offset : offset + size].tobytes().decode("ascii", "replace")
        steps = coordinates[offset : offset + size].view("<u2").reshape(size, _ATOMS, 3)
        yield name, letters, (steps[:, :3] * _RESOLUTION + shift).astype(np.float32)


def _table_of_contents(
    content: NDArray[np.uint8],
) -> tuple[list[tuple[str, int, int, NDArray[np.float32]]], int]:
    """Return name, first residue, length and shift of each chain; where arrays begin."""
    (count,) = struct.unpack_from("<Q", content.data, _COUNT_AT)
    if count * _ENTRY.size > len(content):
        raise ValueError(f"it tells of {count} chains")
    entries, at = [], _COUNT_AT + 8
    for _ in range(count):
        words = []
        for _ in range(2):
            (length,) = struct.unpack_from("<I", content.data, at)
            words.append(content[at + 4 : at + 4 + length].tobytes().decode("ascii"))
            at += 4 + length
        offset, size, _, *shift = _ENTRY.unpack_from(content.data, at)
        at += _ENTRY.size
        name = f"{words[0].lower()}.{words[1].strip()}"
        entries.append((name, offset, size, np.array(shift, dtype=np.float32)))
    return entries, at


def _array(content: NDArray[np.uint8], at: int, width: int) -> tuple[NDArray[np.uint8], int]:
    """Return `[N, width]` bytes behind their number N, and where they end."""
    (n,) = struct.unpack_from("<Q", content.data, at)
    end = at + 8 + n * width
    if end > len(content):
        raise ValueError(f"{len(content)} bytes, expected {end} or more")
    return content[at + 8 : end].reshape(n, width), end


def structure_chains(path: Path | str) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Yield the protein chains of a file's first model, as `promod3_chains` gives them.

    Raises:
        UserError: It cannot be read.
    """
    from biotite.structure import filter_amino_acids, get_chains
    from biotite.structure.io import load_structure

    path = require_file(path, "structure")
    try:
        atoms: Any = load_structure(path, model=1)
    except Exception as error:  # whatever biotite's parsers raise on what is not their format
        raise UserError(f"structure: cannot read {path}: {error}") from error
    atoms = atoms[filter_amino_acids(atoms)]
    for chain in get_chains(atoms):
        residues = _backbones(atoms[atoms.chain_id == chain])
        letters = "".join(one_letter(name) for name, _ in residues)
        coordinates = np.array([xyz for _, xyz in residues], dtype=np.float32).reshape(-1, 3, 3)
        yield f"{path.name.split('.')[0].lower()}.{chain or 'A'}", letters, coordinates


def _backbones(chain: Any) -> list[tuple[str, NDArray[np.float32]]]:
    """Return name and N, CA, C of the residues with all three; without one a chain is broken."""
    from biotite.structure import residue_iter

    found = []
    for residue in residue_iter(chain):
        atoms = dict(zip(residue.atom_name.tolist(), residue.coord, strict=True))
        if atoms.keys() >= {"N", "CA", "C"}:
            found.append((str(residue.res_name[0]), np.stack([atoms[a] for a in ("N", "CA", "C")])))
    return found


def folder_chains(
    folder: Path | str, left_out: Counter[str]
) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Yield `structure_chains` of all PDB and mmCIF files in a folder and below it.

    Args:
        folder: With files .pdb, .ent, .cif or .bcif.
        left_out: Counts the files that cannot be read, which are also printed.

    Raises:
        UserError: It has none.
    """
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise UserError(
            f"{folder}: found no files {', '.join(_SUFFIXES)}", "give a folder of structures"
        )
    for path in track(files, "reading structures", len(files)):
        try:
            yield from structure_chains(path)
        except UserError as error:
            tell(f"left out: {error}")
            left_out["a file that cannot be read"] += 1


def select_domains(
    chains: Iterable[tuple[str, str, NDArray[np.float32]]],
    topologies: Mapping[str, str],
    selection: Selection,
    left_out: Counter[str],
) -> list[Domain]:
    """Select the chains that are whole and have one topology.

    Args:
        chains: Name, sequence and backbone of each.
        topologies: From `read_topologies`.
        selection: What else they must be.
        left_out: Counts the others by reason.
    """
    taken = []
    for name, sequence, backbone in chains:
        reason = selection.complaint(sequence, backbone)
        if not reason and name not in topologies:
            reason = "no topology in the list, or several"
        if reason:
            left_out[reason] += 1
        else:
            taken.append(as_domain(name, topologies[name], sequence, backbone))
    return taken


def as_domain(name: str, topology: str, sequence: str, backbone: NDArray[np.float32]) -> Domain:
    """Return a centred domain with ideal C-beta atoms; its split is chosen later.

    Args:
        name: Of the chain.
        topology: Of its fold.
        sequence: L letters.
        backbone: `[L, 3, 3]` N, CA, C in angstrom.
    """
    atoms = torch.from_numpy(backbone)
    atoms = atoms - atoms[:, 1].mean(0)
    return Domain(name, "train", topology, sequence, torch.cat([atoms, ideal_cb(atoms)], dim=1))


def ideal_cb(atoms: Tensor) -> Tensor:
    """Return C-beta atoms of ideal geometry, `[L, 1, 3]`, from N, CA, C, `[L, 3, 3]`.

    1.53 angstrom from CA, at 110.5 degrees to both bonds and on the side of an L-amino acid (mean
    values of Engh and Huber, 2001).
    """
    n, ca, c = atoms.unbind(1)
    one, other = (torch.nn.functional.normalize(x - ca, dim=-1) for x in (n, c))
    between = torch.nn.functional.normalize(one + other, dim=-1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(one, other), dim=-1)
    # cos(110.5 degrees) is the projection on each bond: along their bisector it is divided by the
    # cosine of half the angle between them.
    half = (0.5 * (1 + (one * other).sum(-1, keepdim=True))).sqrt()
    along = np.cos(np.deg2rad(110.5)) / half
    across = (1 - along**2).clamp_min(0).sqrt()
    cb: Tensor = ca + 1.53 * (along * between + across * normal)
    return cb[:, None]


def read_topologies(path: Path | str) -> dict[str, str]:
    """Read the fold of each chain that has exactly one, as CATH says.

    Args:
        path: CATH's list of domains (`cath-domain-list.txt`), or JSON with the topologies of each
            chain under "cath_nodes", as in the splits of Ingraham et al. (2019).

    Returns:
        Chain such as "1a6j.B" -> topology such as "3.40.930".

    Raises:
        UserError: It is neither.
    """
    path = require_file(path, "list of topologies")
    try:
        text = path.read_text(encoding="utf-8")
        nodes = json.loads(text)["cath_nodes"] if text.startswith("{") else _cath_list(text)
        found = {str(chain): sorted(set(nodes[chain])) for chain in nodes}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path} is no list of CATH topologies: {error}",
            "give cath-domain-list.txt of CATH, or a JSON file with cath_nodes",
        ) from error
    return {chain: topologies[0] for chain, topologies in found.items() if len(topologies) == 1}


def _cath_list(text: str) -> Mapping[str, list[str]]:
    """Read lines of columns: domain such as 1oaiA00, class, architecture, topology, ..."""
    nodes: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        domain, *node = line.split()[:4]
        nodes.setdefault(f"{domain[:4]}.{domain[4]}", []).append(".".join(node))
    if not nodes or any(topology.count(".") != 2 for t in nodes.values() for topology in t):
        raise ValueError("no rows with a domain and its class, architecture and topology")
    return nodes


def split_by_topology(
    domains: Iterable[Domain], n_valid: int, n_test: int, seed: int, n_train: int | None = None
) -> list[Domain]:
    """Split domains so that no two splits share a topology.

    Topologies in random order fill the test set, then the validation set, whole but for the last;
    one with more domains than a quarter of a split is not put there, so that a split has many. The
    domains of all others are to train on.

    Args:
        domains: Their splits are replaced.
        n_valid: Domains to validate on.
        n_test: Domains to test on.
        seed: Of the order.
        n_train: At most so many are trained on, drawn at random; None for all.

    Raises:
        UserError: There are too few topologies for three splits.
    """
    groups: dict[str, list[Domain]] = {}
    for domain in domains:
        groups.setdefault(domain.topology, []).append(domain)
    rng = np.random.default_rng(seed)
    order: list[str] = rng.permutation(sorted(groups)).tolist()
    chosen: list[Domain] = []
    for split, wanted in (("test", n_test), ("valid", n_valid)):
        taken: list[Domain] = []
        for topology in order:
            if topology in groups and len(groups[topology]) <= max(1, wanted // 4):
                if len(taken) >= wanted:
                    break
                taken += groups.pop(topology)
        if len(taken) < wanted:
            raise UserError(
                f"{len(order)} topologies are too few for {n_test} test and {n_valid} validation "
                "domains of their own",
                "ask for fewer, or give more structures",
            )
        chosen += [replace(domain, split=split) for domain in taken[:wanted]]
    rest: Sequence[Domain] = [replace(d, split="train") for group in groups.values() for d in group]
    if n_train is not None and n_train < len(rest):
        rest = [rest[i] for i in sorted(rng.permutation(len(rest))[:n_train])]
    return [*rest, *chosen]
