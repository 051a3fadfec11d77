"""Ensembles with named atoms: reading them, and finding the atoms that two of them share.

Atoms are matched by (chain, residue number, atom name), never by position: GROMACS, AlphaFlow and
the CCD each order them differently, and mdtraj >= 1.10.3 sorts the indices given to `atom_slice`,
so that AlphaFlow's own script compares wrong atoms without an error (alphaflow issue 55).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.errors import UserError
from protenix_eba.eval.alignment import Floats
from protenix_eba.trajectories import Target, find_targets, load_topology, read_frames
from protenix_eba.units import ANGSTROM_PER_NM

__all__ = [
    "MIN_COVERAGE",
    "AtomKey",
    "AtomMatch",
    "Ensemble",
    "from_mdtraj",
    "load_ensemble",
    "match_atoms",
    "scan_targets",
]

# Terminal oxygens aside, every heavy atom of a complete prediction is in the MD; 5% tolerate a
# missing residue at an end or a few unresolved side chains.
MIN_COVERAGE: Final = 0.95
_EXAMPLES: Final = 4


@dataclass(frozen=True, order=True)
class AtomKey:
    """What identifies an atom within one ensemble."""

    chain: str
    residue_number: int
    atom_name: str


@dataclass(frozen=True)
class Ensemble:
    """Heavy protein atoms of one target with their conformations.

    Attributes:
        name: Target name.
        atoms: `[N_atom]` keys, in the order of the file.
        residue_names: `[N_atom]` three-letter names after mdtraj's standardisation (HSD is HIS).
        reference_xyz: `[N_atom, 3]` coordinates of the PDB file, angstrom.
        replicas: Replica number to `[F, N_atom, 3]`, angstrom. A generated ensemble has one.
    """

    name: str
    atoms: tuple[AtomKey, ...]
    residue_names: tuple[str, ...]
    reference_xyz: Floats
    replicas: dict[int, Floats]

    @property
    def n_frames(self) -> int:
        """Conformations in all replicas."""
        return sum(len(xyz) for xyz in self.replicas.values())


@dataclass(frozen=True)
class AtomMatch:
    """Which atoms two ensembles share, in the reference's order.

    Attributes:
        reference_index: `[N]` positions in the reference ensemble, ascending.
        sample_index: `[N]` positions of the same atoms in the samples.
        ca_index: `[L]` positions of the C-alpha atoms among the N matched ones.
        residue_numbers: `[L]` their residue numbers.
        coverage: Matched fraction of the reference's heavy atoms, terminal OXT not counted.
    """

    reference_index: NDArray[np.int64]
    sample_index: NDArray[np.int64]
    ca_index: NDArray[np.int64]
    residue_numbers: NDArray[np.int64]
    coverage: float


def scan_targets(root: Path | str) -> tuple[dict[str, Target], dict[str, str]]:
    """The targets below `root`, and the reason for each folder that is not a usable one.

    Unlike `find_targets`, one broken folder does not hide the others.

    Raises:
        UserError: No such folder, or nothing in it looks like a target.
    """
    root = Path(root)
    if not root.is_dir() or (root / f"{root.resolve().name}.pdb").is_file():
        return {target.name: target for target in find_targets(root)}, {}
    targets: dict[str, Target] = {}
    failed: dict[str, str] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        has_topology = (folder / f"{folder.name}.pdb").is_file()
        if not has_topology and not any(folder.glob("*.xtc")):
            continue
        if not has_topology:
            failed[folder.name] = f"no topology: expected {folder.name}/{folder.name}.pdb"
            continue
        try:
            targets[folder.name] = find_targets(folder)[0]
        except UserError as error:
            failed[folder.name] = str(error)
    if not targets and not failed:
        raise UserError(
            f"no target in {root}: expected folders NAME with NAME.pdb and an .xtc file",
            "point to the folder above the targets' folders",
        )
    return targets, failed


def load_ensemble(target: Target) -> Ensemble:
    """All replicas of a target, heavy protein atoms only.

    Raises:
        UserError: Files that cannot be read, coordinates that are not finite, duplicate atoms.
    """
    topology = load_topology(target)
    keep = _heavy_protein_atoms(topology.topology)
    replicas: dict[int, Floats] = {}
    for replica, path in target.trajectory_paths.items():
        xyz = read_frames(target, replica)[:, keep]
        broken = np.count_nonzero(~np.isfinite(xyz).all(axis=(1, 2)))
        if broken:
            raise UserError(
                f"target {target.name}: {broken} of {len(xyz)} frames of {path.name} have "
                "coordinates that are not finite",
                "remove these frames or sample again",
            )
        replicas[replica] = xyz
    return _ensemble(target.name, topology, keep, replicas)


def from_mdtraj(name: str, trajectory: mdtraj.Trajectory) -> Ensemble:
    """An ensemble of one replica from a trajectory in memory; its first frame is the reference.

    Raises:
        UserError: Two atoms with the same chain, residue number and name.
    """
    keep = _heavy_protein_atoms(trajectory.topology)
    xyz = np.asarray(trajectory.xyz[:, keep] * ANGSTROM_PER_NM, dtype=np.float32)
    return _ensemble(name, trajectory[0], keep, {1: xyz})


def _heavy_protein_atoms(topology: mdtraj.Topology) -> NDArray[np.int64]:
    return np.array(
        [a.index for a in topology.atoms if a.residue.is_protein and a.element.symbol != "H"],
        dtype=np.int64,
    )


def _ensemble(
    name: str, topology: mdtraj.Trajectory, keep: NDArray[np.int64], replicas: dict[int, Floats]
) -> Ensemble:
    atoms = [topology.topology.atom(int(i)) for i in keep]
    keys = tuple(
        AtomKey((a.residue.chain.chain_id or "").strip(), a.residue.resSeq, a.name) for a in atoms
    )
    if len(set(keys)) != len(keys):
        seen: set[AtomKey] = set()
        twice = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise UserError(
            f"target {name}: atom {_show(twice)} occurs twice in its PDB file",
            "give each chain its own id, and each residue of a chain its own number",
        )
    reference = np.asarray(topology.xyz[0, keep] * ANGSTROM_PER_NM, dtype=np.float32)
    return Ensemble(name, keys, tuple(a.residue.name for a in atoms), reference, replicas)


def _show(key: AtomKey) -> str:
    return f"{key.chain or '-'}/{key.residue_number}/{key.atom_name}"


def match_atoms(reference: Ensemble, samples: Ensemble) -> AtomMatch:
    """Pair the atoms of two ensembles by chain, residue number and atom name.

    Where each side has a single chain its id is ignored. OXT is matched where both have it and
    its absence is tolerated. The result does not depend on the order of the samples' atoms.

    Raises:
        UserError: Different residue names under one number, less than `MIN_COVERAGE` of the
            reference matched, or fewer than three C-alpha atoms in common.
    """
    reference_keys = _comparable_keys(reference, samples)
    sample_keys = _comparable_keys(samples, reference)
    position = {key: i for i, key in enumerate(sample_keys)}
    pairs = [(i, position[key]) for i, key in enumerate(reference_keys) if key in position]
    _check_residue_names(reference, samples, pairs)
    missing = [k for k in reference_keys if k not in position and k.atom_name != "OXT"]
    expected = sum(key.atom_name != "OXT" for key in reference_keys)
    coverage = 1.0 - len(missing) / max(expected, 1)
    if coverage < MIN_COVERAGE:
        raise UserError(
            f"target {reference.name}: only {coverage:.1%} of the reference's {expected} heavy "
            f"atoms are in the samples (at least {MIN_COVERAGE:.0%} needed); missing "
            f"{_examples([_show(k) for k in missing])}. Residues: reference "
            f"{_residue_range(reference)}, samples {_residue_range(samples)}",
            "number the samples' residues and chains as in the reference PDB",
        )
    names = [reference_keys[i].atom_name for i, _ in pairs]
    ca = np.flatnonzero(np.array(names) == "CA")
    if len(ca) < 3:
        raise UserError(
            f"target {reference.name}: {len(ca)} C-alpha atoms in common, at least 3 are needed",
            "the evaluation is for proteins and peptides of three or more residues",
        )
    numbers = np.array([reference_keys[pairs[i][0]].residue_number for i in ca], dtype=np.int64)
    index = np.array(pairs, dtype=np.int64)
    return AtomMatch(index[:, 0], index[:, 1], ca, numbers, coverage)


def _comparable_keys(ensemble: Ensemble, other: Ensemble) -> list[AtomKey]:
    if any(len({key.chain for key in side.atoms}) > 1 for side in (ensemble, other)):
        return list(ensemble.atoms)
    # A single chain is "the" chain whatever its id: ATLAS writes A, Protenix A0 or blank.
    return [AtomKey("", key.residue_number, key.atom_name) for key in ensemble.atoms]


def _check_residue_names(
    reference: Ensemble, samples: Ensemble, pairs: list[tuple[int, int]]
) -> None:
    wrong = sorted(
        {
            (
                reference.atoms[i].residue_number,
                reference.residue_names[i],
                samples.residue_names[j],
            )
            for i, j in pairs
            if reference.residue_names[i] != samples.residue_names[j]
        }
    )
    if wrong:
        shown = [f"{number} is {ours} in the reference, {theirs}" for number, ours, theirs in wrong]
        raise UserError(
            f"target {reference.name}: {len(wrong)} residues have another name in the samples: "
            f"{_examples(shown)}",
            "check that the sequence is the same and that residues are numbered alike",
        )


def _examples(texts: list[str]) -> str:
    more = len(texts) - _EXAMPLES
    return "; ".join(texts[:_EXAMPLES]) + (f"; and {more} more" if more > 0 else "")


def _residue_range(ensemble: Ensemble) -> str:
    numbers = [key.residue_number for key in ensemble.atoms]
    return f"{min(numbers)} to {max(numbers)}" if numbers else "none"
