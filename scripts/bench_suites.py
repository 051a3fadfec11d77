"""CPU seconds and peak memory of the suites of BioEmu's benchmarks, against the package's own code.

    git clone https://github.com/microsoft/bioemu-benchmarks
    python -m venv theirs && theirs/bin/pip install bioemu-benchmarks
    python scripts/bench_suites.py bioemu-benchmarks --theirs theirs/bin/bioemu-bench

Their package pins an mdtraj and a numpy of its own, so it lives in an environment of its own. Both
commands run in processes of their own on the same files, one after the other, with one thread, with
all that they do by default: reading, metrics, figures and tables; only torn samples stay in, since
theirs ends at a protein that has no others, as some of its examples. The samples are those of the
package's repository, five of each protein, each repeated with noise of 0.1 angstrom until there are
as many as wanted. A ratio is that of two neighbouring runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import mdtraj
import numpy as np

from bench_process import Taken, taken_by

# Their name of a benchmark, and our suite with its settings.
BENCHMARKS = {
    "multiconf_ood60": ("bioemu-multiconf", "benchmark=ood60"),
    "multiconf_domainmotion": ("bioemu-multiconf", "benchmark=domainmotion"),
    "multiconf_crypticpocket": ("bioemu-multiconf", "benchmark=crypticpocket"),
    "singleconf_localunfolding": ("bioemu-multiconf", "benchmark=localunfolding"),
    "md_emulation": ("bioemu-md",),
    "folding_free_energies": ("bioemu-folding",),
}
EXAMPLES = Path("tests") / "test_data" / "samples_example"
NOISE_NM = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clone", type=Path, help="clone of the repository of bioemu-benchmarks")
    parser.add_argument(
        "--theirs", type=Path, required=True, help="their command bioemu-bench, in its environment"
    )
    parser.add_argument(
        "--samples",
        type=int,
        nargs="+",
        default=[5, 250],
        help="numbers of samples of each protein; the papers take 4,000 and more "
        "[default: %(default)s]",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each command [default: %(default)s]"
    )
    parser.add_argument(
        "--benchmarks",
        nargs="+",
        choices=BENCHMARKS,
        default=list(BENCHMARKS),
        metavar="NAME",
        help="benchmarks by their names in the package [default: all]",
    )
    words = parser.parse_args()
    print("| benchmark | proteins | samples of each | theirs: CPU s | MB | ours: CPU s | MB |"
          " times less CPU | times less memory |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for n_samples in words.samples:
            for name in words.benchmarks:
                files = Path(folder) / f"{name}-{n_samples}"
                n_proteins = enlarge(words.clone / EXAMPLES / name, files, n_samples)
                commands = commands_for(name, files, words.clone, words.theirs, Path(folder))
                if not (Path(folder) / "compiled").exists():  # of all that Python compiles once
                    for command in commands:
                        measure(command, Path(folder))
                pairs = [
                    tuple(measure(command, Path(folder)) for command in commands)
                    for _ in range(words.repeats)
                ]
                print(row(name, n_proteins, n_samples, pairs), flush=True)


def enlarge(source: Path, target: Path, n_samples: int) -> int:
    """Write ensembles of `n_samples` each; return how many there are."""
    target.mkdir()
    random = np.random.default_rng(0)
    topologies = sorted(source.glob("*.pdb"))
    for topology in topologies:
        few = mdtraj.load(topology.with_suffix(".xtc"), top=topology)
        rows = np.arange(n_samples) % len(few)
        more = few[rows]
        again = (np.arange(n_samples) >= len(few))[:, None, None]
        more.xyz += again * random.normal(0.0, NOISE_NM, more.xyz.shape)
        (target / topology.name).write_bytes(topology.read_bytes())
        more.save_xtc(str(target / topology.with_suffix(".xtc").name))
    return len(topologies)


def commands_for(
    name: str, samples: Path, clone: Path, theirs: Path, folder: Path
) -> tuple[list[str], list[str]]:
    """Return their command and ours for one benchmark."""
    suite, *changes = BENCHMARKS[name]
    settings = [word for change in changes for word in ("--set", change)]
    ours = ["evaluate", "--suite", suite, *settings, "--set", "filter_torn=false"]
    ours += ["--reference", str(clone), "--samples", str(samples), "--out", str(folder / name)]
    return (
        [str(theirs), "eval", str(folder / "theirs"), "--overwrite", "--skip_filtering", "-b",
         name, "-s", str(samples)],
        [sys.executable, "-m", "protenix_eba.cli.main", *ours],
    )  # fmt: skip


def measure(command: list[str], folder: Path) -> Taken:
    """Run a command whose modules are compiled once for all runs."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return taken_by(command, environment | {"PYTHONPYCACHEPREFIX": str(folder / "compiled")})


def row(name: str, n_proteins: int, n_samples: int, pairs: list[tuple[Taken, Taken]]) -> str:
    """Return a line of the table: medians, and the median of ratios with their range."""
    middle = [
        f"{statistics.median(getattr(pair[who], what) for pair in pairs):.{digits}f}"
        for who in (0, 1)
        for what, digits in (("cpu_s", 1), ("peak_mb", 0))
    ]
    ratios = []
    for what in ("cpu_s", "peak_mb"):
        found = [getattr(a, what) / getattr(b, what) for a, b in pairs]
        ratios.append(f"{statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f})")
    return f"| {' | '.join([name, str(n_proteins), str(n_samples), *middle, *ratios])} |"


if __name__ == "__main__":
    main()
