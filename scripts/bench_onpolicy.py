"""Where the time of an on-policy run goes: sampling, labelling, training, and waiting for labels.

The recipe `demo_on_policy.yaml` is run from the shipped start, with labels in the way of training
and in the background, by one process and by several. Times are seconds of the clock, so that the
machine should do nothing else. "Hidden" is the share of the labelling, after the first refresh, for
which training did not wait; "speed-up" is that of the labelling over one process.

Example:

  python scripts/bench_onpolicy.py --jobs 1 2 --steps 120
"""

from __future__ import annotations

import argparse
import csv
import importlib.resources
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPE = Path(str(importlib.resources.files("protenix_eba"))) / "recipes" / "demo_on_policy.yaml"
PARTS = ("sampling", "labelling", "waiting")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--jobs",
        nargs="+",
        type=int,
        default=[1, 2],
        help="numbers of processes that label [default: %(default)s]",
    )
    parser.add_argument(
        "--steps", type=int, default=120, help="training steps of each run [default: %(default)s]"
    )
    parser.add_argument(
        "--refresh-steps",
        type=int,
        default=20,
        help="training steps between refreshes [default: %(default)s]",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=32,
        help="new samples of each of two peptides at a refresh [default: %(default)s]",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the training")
    parser.add_argument("--out", type=Path, help="JSON file to write the figures to")
    return parser.parse_args()


def run(*words: object, threads: int) -> None:
    """Run a command of this installation.

    Raises:
        SystemExit: It failed.
    """
    program = Path(sys.executable).parent / str(words[0])
    env = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    if subprocess.run([program, *map(str, words[1:])], env=env, check=False).returncode:
        raise SystemExit(f"failed: {words}")


def prepare(folder: Path, threads: int) -> None:
    """Make the start, two sequences and their embeddings."""
    (folder / "sequences.fasta").write_text(">gly3\nGGG\n>gly4\nGGGG\n", encoding="utf-8")
    common, start = ("--config", RECIPE), folder / "start.pt"
    run(*("protenix-eba", "init", *common, "--start", "glycine", "--out", start), threads=threads)
    run(
        *("protenix-eba", "embed", *common, "--checkpoint", start),
        *("--input", folder / "sequences.fasta", "--out", folder / "embeddings"),
        threads=threads,
    )


def measured(folder: Path, jobs: int, asynchronous: bool, options: argparse.Namespace) -> dict:
    """Train once and return the seconds of each part."""
    name = f"{'background' if asynchronous else 'in_turn'}_{jobs}"
    keys = {
        "base_dir": folder,
        "run_name": name,
        "load_checkpoint_path": folder / "start.pt",
        "max_steps": options.steps,
        "checkpoint_interval": options.steps,
        "eba.embeddings": folder / "embeddings",
        "replay.sequences": folder / "sequences.fasta",
        "replay.refresh_steps": options.refresh_steps,
        "replay.new_samples": options.samples,
        "replay.jobs": jobs,
        "replay.asynchronous": str(asynchronous).lower(),
    }
    words = [word for key, value in keys.items() for word in (f"--{key}", value)]
    run(
        *("protenix-train", "--plugin", "protenix_eba", "--config", RECIPE, *words),
        threads=options.threads,
    )
    refreshes = read(folder / name / "replay.csv")
    seconds = {part: sum(row[f"{part}_seconds"] for row in refreshes) for part in PARTS}
    later = refreshes[1:]
    labelling = sum(row["labelling_seconds"] for row in later)
    waiting = sum(row["waiting_seconds"] for row in later)
    # A step that begins with a refresh lasts until the samples and their labels are there.
    all_steps = sum(row["seconds"] for row in read(folder / name / "log.csv"))
    return seconds | {
        "training": all_steps - seconds["sampling"] - seconds["waiting"],
        "hidden": 1 - waiting / labelling,
        "per_refresh": seconds["labelling"] / len(refreshes),
        "refreshes": len(refreshes),
    }


def read(path: Path) -> list[dict[str, float]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return [
            {name: float(value) for name, value in row.items()} for row in csv.DictReader(handle)
        ]


def main() -> None:
    options = parse()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), options.threads)
        for asynchronous in (False, True):
            for jobs in options.jobs:
                found = measured(Path(name), jobs, asynchronous, options)
                rows.append({"jobs": jobs, "asynchronous": asynchronous, **found})
    print(table(rows))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def table(rows: list[dict]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| labels | processes | training, s | sampling, s | waiting, s | waiting, % of all "
        "| labelling a refresh, s | speed-up | hidden, % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        whole = row["training"] + row["sampling"] + row["waiting"]
        [alone] = [
            each["per_refresh"]
            for each in rows
            if each["asynchronous"] == row["asynchronous"] and each["jobs"] == rows[0]["jobs"]
        ]
        cells = [
            "in the background" if row["asynchronous"] else "in turn",
            str(row["jobs"]),
            *(f"{row[part]:.1f}" for part in ("training", "sampling", "waiting")),
            f"{100 * row['waiting'] / whole:.0f}",
            f"{row['per_refresh']:.1f}",
            f"{alone / row['per_refresh']:.2f}",
            f"{100 * row['hidden']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
