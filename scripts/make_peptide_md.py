"""Make the MD of the proof and the demo: peptides with and without a known bias, also hotter.

Amber ff14SB + OBC2, charged ends, Langevin dynamics with steps of 4 fs. One nanosecond of four
residues takes about 20 seconds of one CPU core. Finished replicas are kept.

Sets, each a folder of targets (gly3, gly4 or their sequence) in the layout of ATLAS:
    biased    300 K, with a well 3 kT deep that draws the ends together: what training sees
    unbiased  300 K: the truth, never shown to training
    strong    300 K, with a well 7 kT deep
    folded    300 K, with a well 5 kT deep and half an angstrom wider, for chains of three residues
    hot       450 K, without a bias

Example:
    python scripts/make_peptide_md.py --out runs/glycine --jobs 2
    python scripts/make_peptide_md.py --out runs/glycine --sets unbiased --lengths 4 --replicas 5
    python scripts/make_peptide_md.py --out runs/tripeptides --sequences AAA SAG --interval-ps 2
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from joblib import Parallel, delayed

from protenix_eba.core.progress import console, track
from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.energy.bias import EndBias
from simulate import SimulationSettings, simulate_replica, write_provenance

KT = thermal_energy_kj_mol(300.0)
PLAIN = SimulationSettings(
    frames=2000,
    interval_ps=1.0,
    equilibration_ps=50.0,
    force_field=("amber14-all.xml", "implicit/obc2.xml"),
)
# The seeds differ, so that the truth shares no random number with what is trained on.
SETS = {
    "biased": replace(PLAIN, bias=EndBias(depth_kj_mol=3 * KT), seed=100),
    "unbiased": replace(PLAIN, seed=200),
    "strong": replace(PLAIN, bias=EndBias(depth_kj_mol=7 * KT), seed=300),
    "folded": replace(PLAIN, bias=EndBias(depth_kj_mol=5 * KT, centre_angstrom=7.5), seed=500),
    "hot": replace(PLAIN, temperature_K=450.0, seed=400),
}


def main() -> int:
    """Run the replicas that are not there yet; exit status 1 on a geometry fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder to write to; each set gets a folder below it",
    )
    parser.add_argument(
        "--sets", nargs="+", choices=SETS, default=list(SETS), help="sets to make [default: all]"
    )
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        default=[3, 4, 5, 6],
        help="lengths of glycine chains, in residues [default: %(default)s]",
    )
    parser.add_argument(
        "--sequences", nargs="+", help="peptides instead of glycine chains, in one-letter codes"
    )
    add_md_options(parser, jobs=1)
    options = parser.parse_args()
    faults: list[str] = []
    for name in options.sets:
        settings = replace(SETS[name], frames=options.frames, interval_ps=options.interval_ps)
        chains = named(options.sequences or ["G" * n for n in options.lengths])
        faults += run(options.out / name, chains, options.replicas, settings, options.jobs)
    for fault in faults:
        console.print(f"geometry: {fault}")
    return 1 if faults else 0


def add_md_options(parser: argparse.ArgumentParser, jobs: int) -> None:
    """Add the options that say how much MD is made, and in how many processes by default."""
    parser.add_argument(
        "--replicas",
        type=int,
        default=3,
        help="number of trajectories of each chain [default: %(default)s]",
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=PLAIN.frames,
        help="number of frames of each trajectory [default: %(default)s]",
    )
    parser.add_argument(
        "--interval-ps",
        type=float,
        default=PLAIN.interval_ps,
        help="time between frames, ps [default: %(default)s]",
    )
    parser.add_argument(
        "--jobs", type=int, default=jobs, help="number of processes [default: %(default)s]"
    )


def named(sequences: list[str]) -> dict[str, str]:
    """Return sequences by name: gly4 for GGGG, others are their own names."""
    return {f"gly{len(one)}" if set(one) == {"G"} else one: one for one in sequences}


def run(
    out: Path, peptides: dict[str, str], replicas: int, settings: SimulationSettings, jobs: int
) -> list[str]:
    """Simulate peptides (sequences by name) and return the geometry faults that were found."""
    faults: list[str] = []
    for numbers in ([1], range(2, replicas + 1)):  # the others are superposed on replica 1
        tasks = [(name, replica) for replica in numbers for name in peptides]
        results = Parallel(n_jobs=jobs, return_as="generator", batch_size=1)(
            delayed(simulate_replica)(out / name, peptides[name], replica, settings)
            for name, replica in tasks
        )
        for found in track(results, f"{out.name}, from replica {numbers[0]}", len(tasks)):
            faults += found
    for name, sequence in peptides.items():
        write_provenance(out / name, sequence, settings, made_by="scripts/make_peptide_md.py")
    return faults


if __name__ == "__main__":
    sys.exit(main())
