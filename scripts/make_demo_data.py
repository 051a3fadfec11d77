"""Make the MD of the demonstration peptides (about half an hour of CPU time).

The shipped set is made without any option but --out. Finished replicas are kept.

Example:
    python scripts/make_demo_data.py --out protenix_eba/demo_data --jobs 2
    python scripts/make_demo_data.py --out md --sequence trpzip=SWTWENGKWTWK --frames 500
    python scripts/make_demo_data.py --out md --pdb lysozyme=1aki.pdb
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from joblib import Parallel, delayed

from protenix_eba.core.progress import console, track
from simulate import SimulationSettings, simulate_replica, write_provenance

PEPTIDES = {
    "met_enkephalin": "YGGFM",
    "grgds": "GRGDS",
    "penta_alanine": "AAAAA",
    "thymopentin": "RKDVY",
}


def main() -> int:
    """Run the replicas that are not there yet; exit status 1 on a geometry fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set to write")
    parser.add_argument(
        "--sequence",
        action="append",
        metavar="NAME=SEQUENCE",
        default=[],
        help="peptide to build and simulate; may be repeated [default: the shipped four]",
    )
    parser.add_argument(
        "--pdb",
        action="append",
        metavar="NAME=FILE",
        default=[],
        help="structure to start from, in place of a sequence; may be repeated",
    )
    parser.add_argument(
        "--replicas",
        type=int,
        default=3,
        help="number of trajectories of each target [default: %(default)s]",
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=SimulationSettings.frames,
        help="number of frames of each trajectory [default: %(default)s]",
    )
    parser.add_argument(
        "--interval-ps",
        type=float,
        default=SimulationSettings.interval_ps,
        help="time between frames, in ps [default: %(default)s]",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=SimulationSettings.seed,
        help="random seed [default: %(default)s]",
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="number of processes [default: %(default)s]"
    )
    options = parser.parse_args()
    starts: dict[str, str | Path] = dict(pair.split("=", 1) for pair in options.sequence)
    starts |= {name: Path(file) for name, file in (pair.split("=", 1) for pair in options.pdb)}
    settings = SimulationSettings(
        frames=options.frames, interval_ps=options.interval_ps, seed=options.seed
    )
    return run(options.out, starts or PEPTIDES, options.replicas, settings, options.jobs)


def run(
    out: Path,
    peptides: dict[str, str | Path],
    replicas: int,
    settings: SimulationSettings,
    jobs: int,
) -> int:
    """Simulate replica 1 of every peptide, onto which others are superposed, then the rest."""
    faults: list[str] = []
    for numbers in ([1], range(2, replicas + 1)):
        tasks = [(name, replica) for name in peptides for replica in numbers]
        results = Parallel(n_jobs=jobs, return_as="generator", batch_size=1)(
            delayed(simulate_replica)(out / name, peptides[name], replica, settings)
            for name, replica in tasks
        )
        label = f"replicas {min(numbers, default=0)} to {max(numbers, default=0)}"
        for found in track(results, label, len(tasks)):
            faults += found
    for name, origin in peptides.items():
        write_provenance(out / name, origin, settings, made_by="scripts/make_demo_data.py")
    for fault in faults:
        console.print(f"geometry: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
