"""Timing of energy labels against the way in which the published ones were made.

The published way does everything for each frame anew: PDBFixer, parsing the force field, building
the System, a Context, and one minimisation with rigid X-H bonds. Ours are the presets of
`protenix-eba label`, with OpenMM's own evaluation and with the compiled one. All run on OpenMM's
CPU platform with one thread; seconds are CPU time of the process.

Example:

    python scripts/bench_label.py tests/data/cobrotoxin --frames 1 --out bench_label.md
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENMM_CPU_THREADS", "1")

import mdtraj
import numpy as np
import openmm
from openmm import app, unit
from pdbfixer import PDBFixer
from scipy.stats import spearmanr

from protenix_eba.energy import fast
from protenix_eba.energy.protocol import PROTOCOLS
from protenix_eba.energy.structure import complete_structure
from protenix_eba.energy.system import FrameEnergy, TargetEnergy

ROUNDING_NM = 1e-6


def published_way(frame: mdtraj.Trajectory, seed: int) -> tuple[float, float]:
    """Return energies before and after, of one frame alone; `seed` moves atoms by rounding."""
    with tempfile.NamedTemporaryFile(suffix=".pdb") as handle:
        frame.save_pdb(handle.name)
        fixer = PDBFixer(filename=handle.name)
    fixer.findMissingResidues()
    fixer.findMissingAtoms()
    fixer.addMissingAtoms(seed=0)
    fixer.addMissingHydrogens(7.0)
    system = app.ForceField("charmm36.xml", "implicit/gbn2.xml").createSystem(
        fixer.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds
    )
    integrator = openmm.VerletIntegrator(0.001)
    platform = openmm.Platform.getPlatform("CPU")
    context = openmm.Context(system, integrator, platform, {"Threads": "1"})
    positions = np.array([[p.x, p.y, p.z] for p in fixer.positions])
    moved = ROUNDING_NM * np.random.default_rng(seed).standard_normal(positions.shape)
    context.setPositions(positions + moved * bool(seed))
    first = _energy(context)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0)
    return first, _energy(context)


def _energy(context: openmm.Context) -> float:
    energy = context.getState(getEnergy=True).getPotentialEnergy()
    return float(energy.value_in_unit(unit.kilojoule_per_mole))


def ours(
    pdb: Path, frames: mdtraj.Trajectory, preset: str, compiled: bool, repeats: int
) -> list[FrameEnergy]:
    """Label all frames; repeats are made one after the other, as separate labels would be."""
    known = fast.can_accelerate
    if not compiled:
        fast.can_accelerate = lambda: False  # type: ignore[assignment]
    try:
        structure = complete_structure(pdb)
        target = TargetEnergy(structure, PROTOCOLS[preset], "CPU")
    finally:
        fast.can_accelerate = known  # type: ignore[assignment]
    labels = []
    for seed in range(repeats):
        generator = np.random.default_rng(seed)
        for xyz in structure.fill(frames.xyz * 10.0):
            moved = ROUNDING_NM * generator.standard_normal(xyz.shape) * bool(seed)
            labels.append(target.label(xyz + moved))
    return labels


def timed(run: Callable[[], list[float]], n: int) -> tuple[float, np.ndarray]:
    """Return CPU seconds of each of `n` minimisations, with a share of set-up, and energies."""
    start = time.process_time()
    energies = np.array(run())
    return (time.process_time() - start) / n, energies


def line(name: str, seconds: float, base: float, energies: np.ndarray, first: np.ndarray) -> str:
    """Format one way as a row of the table; `energies` is `[repeats, frames]`."""
    mean = energies.mean(axis=0)
    noise = energies.std(axis=0, ddof=1) if len(energies) > 1 else np.full(len(mean), np.nan)
    pooled = float(np.sqrt(np.mean(noise**2)))
    rank = spearmanr(mean, first).statistic if len(mean) > 2 else np.nan
    shown = ", ".join(f"{e:.1f}" for e in mean)
    return (
        f"| {name} | {seconds:.1f} | {base / seconds:.1f} | {shown} | {pooled:.2f} "
        f"| {mean.std(ddof=1) if len(mean) > 1 else np.nan:.1f} | {rank:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "target", type=Path, help="folder NAME that holds NAME.pdb and a trajectory"
    )
    parser.add_argument(
        "--trajectory",
        type=Path,
        help="trajectory to take frames from [default: the first .xtc or .dcd in the folder]",
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=3,
        help="number of frames, spread evenly over the trajectory [default: %(default)s]",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=1,
        help="minimisations of each frame, from starts that differ by rounding [default: "
        "%(default)s]",
    )
    parser.add_argument(
        "--ways",
        default="published,two-stage,default",
        help="ways to compute the energies, separated by commas [default: %(default)s]",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("bench_label.md"),
        help="Markdown file to write [default: %(default)s]",
    )
    arguments = parser.parse_args()
    pdb = next(p for p in sorted(arguments.target.glob("*.pdb")))
    found = sorted([*arguments.target.glob("*.xtc"), *arguments.target.glob("*.dcd")])
    frames = mdtraj.load(str(arguments.trajectory or found[0]), top=str(pdb))
    chosen = np.linspace(0, len(frames) - 1, arguments.frames).round().astype(int)
    frames, repeats = frames[chosen], arguments.repeats
    n = len(frames) * repeats
    lines = [
        f"{arguments.target.name}: {frames.n_residues} residues, {frames.n_atoms} atoms, frames "
        f"{', '.join(map(str, chosen))}, {repeats} repeats; OpenMM {openmm.__version__}, "
        "CPU platform, 1 thread.",
        "",
        "| way | CPU s a frame | times faster | energies (kJ/mol) | noise | spread | Spearman |",
        "|---|---|---|---|---|---|---|",
    ]
    base, first = float("nan"), np.full(len(frames), np.nan)
    if "published" in arguments.ways.split(","):
        base, energies = timed(
            lambda: [published_way(f, seed)[1] for seed in range(repeats) for f in frames], n
        )
        energies = energies.reshape(repeats, -1)
        first = energies.mean(axis=0)
        lines.append(line("published, frame by frame", base, base, energies, first))
        print(lines[-1], flush=True)
    for preset in PROTOCOLS:
        if preset not in arguments.ways.split(","):
            continue
        for compiled in (False, True):
            if preset == "published" and not compiled:
                continue

            def run(preset: str = preset, compiled: bool = compiled) -> list[float]:
                return [r.energy_kj_mol for r in ours(pdb, frames, preset, compiled, repeats)]

            seconds, energies = timed(run, n)
            name = f"{preset}, {'compiled' if compiled else 'OpenMM'}"
            lines.append(line(name, seconds, base, energies.reshape(repeats, -1), first))
            print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
