"""Energies of different kinds for the same conformers: what changes with the choice?

Labels frames of the shipped peptides by two force fields and, where CHARMM36's minimisation ended,
by quantum chemistry and a learned potential, and keeps the numbers in docs/energies/results.json.
From these alone the tables and the figure of docs/which-energy.md are made. What is there is kept,
so that a run that was stopped goes on; 24 frames of each of six peptides take about 4 CPU minutes.
The learned potential takes no charged groups, so two of the peptides are cut to have none.

Example:

    python scripts/which_energy.py --frames 24
    python scripts/which_energy.py --check
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from openmm import app

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import write_json
from protenix_eba.core.units import KJ_MOL_PER_HARTREE
from protenix_eba.energy.ani import Ani
from protenix_eba.energy.charges import charged_groups
from protenix_eba.energy.choices import WEIGHTS
from protenix_eba.energy.functions import ENERGIES
from protenix_eba.energy.label import minimised_energies
from protenix_eba.energy.protocol import PROTOCOLS, customised
from protenix_eba.energy.relax import relax
from protenix_eba.energy.structure import complete_structure
from protenix_eba.energy.system import FrameEnergy
from protenix_eba.protein.chain_ends import end_distance
from protenix_eba.structures.trajectories import Target, find_targets, frame_count, read_frames
from which_energy_report import RESULTS, derive, differences

DEFAULT = PROTOCOLS["default"]
AS_IT_IS = replace(PROTOCOLS["published"], minimise=False)
# Energies at the minima of CHARMM36: their own minimisations would take hours.
AT_MINIMA = {name: customised(AS_IT_IS, function=name) for name in ("gfn2-xtb", "ani-1ccx")}
MINIMISED = {"ff14sb-obc2": customised(DEFAULT, force_field="amber14", solvent="obc2")}
# A residue of a helix, degrees (Best and Hummer, J. Phys. Chem. B 2009, 113, 9004).
HELIX = {"phi": (-100.0, -30.0), "psi": (-67.0, -7.0)}
# Peptides whose inner residues have no charge and no sulfur, and what the middle is called.
MIDDLES = {"met_enkephalin": "ggf_capped", "penta_alanine": "aaa_capped"}
# Atoms that the first and the last residue leave, under their names in the caps ACE and NME.
CAPS = {0: ("ACE", {"CA": "CH3", "C": "C", "O": "O"}), -1: ("NME", {"N": "N", "CA": "C"})}


def chosen_frames(target: Target, count: int) -> np.ndarray:
    """`[count, N, 3]` in angstrom, evenly of all replicas."""
    replicas = list(target.trajectory_paths)
    parts = []
    for replica, n in zip(
        replicas, np.diff(np.linspace(0, count, len(replicas) + 1).astype(int)), strict=True
    ):
        rows = np.linspace(0, frame_count(target, replica) - 1, n).astype(int)
        parts.append(read_frames(target, replica, rows))
    return np.concatenate(parts)


def capped_middle(target: Target, xyz: np.ndarray, path: Path) -> np.ndarray:
    """Write a peptide whose outer residues are cut to caps, and return its frames `[F, M, 3]`.

    Heavy atoms stay where they are, hydrogens are built.
    """
    whole = mdtraj.load(str(target.topology_path)).topology
    cut, kept = mdtraj.Topology(), []
    chain = cut.add_chain()
    last = whole.n_residues - 1
    for residue in whole.residues:
        place = -1 if residue.index == last else residue.index
        name, names = CAPS.get(
            place, (residue.name, {atom.name: atom.name for atom in residue.atoms})
        )
        new = cut.add_residue(name, chain)
        for atom in residue.atoms:
            if atom.name in names and atom.element.symbol != "H":
                cut.add_atom(names[atom.name], atom.element, new)
                kept.append(atom.index)
    mdtraj.Trajectory(xyz[:1, kept] / 10, cut).save_pdb(str(path))
    structure = complete_structure(path)
    with path.open("w", encoding="utf-8") as file:
        app.PDBFile.writeFile(structure.topology, 10 * structure.reference_nm, file, keepIds=True)
    return 10 * structure.fill(xyz[:, kept])


def helical_share(topology: mdtraj.Topology, xyz_angstrom: np.ndarray) -> np.ndarray:
    """Of the residues with both torsions, those in a helix, for each frame."""
    trajectory = mdtraj.Trajectory(xyz_angstrom / 10, topology)
    residue = {atom.index: atom.residue.index for atom in topology.atoms}
    inside: dict[int, list[np.ndarray]] = {}
    # the nitrogen is the second atom of phi and the first of psi
    for key, nitrogen, compute in (
        ("phi", 1, mdtraj.compute_phi),
        ("psi", 0, mdtraj.compute_psi),
    ):
        atoms, angles = compute(trajectory)
        low, high = HELIX[key]
        for quartet, values in zip(atoms, np.degrees(angles).T, strict=True):
            found = inside.setdefault(residue[quartet[nitrogen]], [])
            found.append((values >= low) & (values <= high))
    return np.mean([np.logical_and(*both) for both in inside.values() if len(both) == 2], axis=0)


def disagreement(topology: mdtraj.Topology, minima: np.ndarray) -> dict[str, float | None]:
    """Mean over frames of the networks' standard deviation over the root of the atoms, kJ/mol.

    Of molecules that labels refuse, too: by this one sees that they are right to.
    """
    elements = [atom.element.symbol for atom in topology.atoms]
    found = {}
    for name in WEIGHTS:
        weights = ENERGIES.get(name).weights()  # type: ignore[attr-defined]
        known = set(elements) <= set(weights.self_energies_hartree)
        potential = Ani(weights, elements) if known else None
        spreads = [potential(xyz).spread_hartree for xyz in minima] if potential else []
        scale = KJ_MOL_PER_HARTREE / np.sqrt(len(elements))
        found[name] = round(float(np.mean(spreads)) * scale, 3) if spreads else None
    return found


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in values]


def timed(compute: Callable[[], list[FrameEnergy]]) -> dict[str, Any]:
    """Energies, NaN as null, reasons, and CPU seconds of a frame; null for a refused molecule."""
    start = time.process_time()
    try:
        found = compute()
    except UserError as error:
        return {"energy_kj_mol": None, "failed": [str(error).split("\n")[0]], "cpu_s": None}
    return {
        "energy_kj_mol": [round(e.energy_kj_mol, 3) if e.status == "ok" else None for e in found],
        "failed": sorted({e.reason for e in found if e.status != "ok"}),
        "cpu_s": round((time.process_time() - start) / len(found), 3),
    }


def compute(path: Path, xyz: np.ndarray) -> dict[str, Any]:
    """All energies of the frames `[F, N, 3]` of one peptide, whose PDB file is at `path`."""
    topology = mdtraj.load(str(path))
    minima = np.full_like(xyz, np.nan)  # a frame that has none is a row with its reason

    def charmm36() -> list[FrameEnergy]:
        ends = list(relax(path, dict(enumerate(xyz)), DEFAULT))
        for end in ends:
            if end.xyz_angstrom is not None:
                minima[end.number] = end.xyz_angstrom
        return [end.energy for end in sorted(ends, key=lambda end: end.number)]

    energies = {"charmm36-gbn2": timed(charmm36)}
    for name, protocol in MINIMISED.items():
        energies[name] = timed(partial(minimised_energies, topology, xyz, protocol))
    for name, protocol in AT_MINIMA.items():
        energies[name] = timed(partial(minimised_energies, topology, minima, protocol))
    names = {atom.residue.index for atom in topology.topology.atoms if atom.name == "CA"}
    acids = topology.topology.select(f"resid {' '.join(map(str, sorted(names)))}")
    return {
        "n_residues": len(names),
        "n_atoms": topology.n_atoms,
        "charged_groups": len(charged_groups(complete_structure(path).topology)),
        "helical": _rounded(helical_share(topology.topology, xyz)),
        "end_distance_angstrom": _rounded(
            end_distance(topology.topology.subset(acids), xyz[:, acids])
        ),
        "disagreement_kj_mol": disagreement(topology.topology, minima),
        "energies": energies,
    }


def peptides(count: int, folder: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Names of all peptides, and what computes their energies."""

    def whole(target: Target) -> dict[str, Any]:
        return compute(target.topology_path, chosen_frames(target, count))

    def middle(target: Target) -> dict[str, Any]:
        path = folder / f"{MIDDLES[target.name]}.pdb"
        return compute(path, capped_middle(target, chosen_frames(target, count), path))

    targets = find_targets(Path(str(files("protenix_eba") / "demo_data")))
    yield from ((target.name, partial(whole, target)) for target in targets)
    cut = (target for target in targets if target.name in MIDDLES)
    yield from ((MIDDLES[target.name], partial(middle, target)) for target in cut)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=24, help="frames of each peptide")
    parser.add_argument(
        "--check", action="store_true", help="only compare the page with the numbers"
    )
    arguments = parser.parse_args()
    if arguments.check:
        sys.exit("\n".join(differences()) or 0)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    names = {"charmm36-gbn2", *MINIMISED, *AT_MINIMA}
    with tempfile.TemporaryDirectory() as folder:
        for name, find in peptides(arguments.frames, Path(folder)):
            there = results.get(name, {"helical": (), "energies": ()})
            if len(there["helical"]) != arguments.frames or set(there["energies"]) != names:
                results[name] = find()
                write_json(RESULTS, results)
    derive(results)


if __name__ == "__main__":
    main()
