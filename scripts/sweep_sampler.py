"""Quality of ensembles over a grid of noise scales (lambda) and step scales (eta).

The recipe behind Figure 4 of the EBA paper: for each pair it calls `protenix-eba sample` and
`protenix-eba evaluate`, and writes `OUT/sweep.csv`: the share of invalid samples and every
aggregated metric. Both commands keep what is there, so that a sweep that was stopped goes on, and
a larger -n adds to it. Trunk embeddings are computed once, for the first pair.

Words after `--` go to `protenix-eba sample`.

Example:

  python scripts/sweep_sampler.py --config eba.yaml --checkpoint runs/eba/model.pt \
      --input validation.fasta --reference md --out sweep -n 50 \
      --noise-scales 1 1.5 1.75 2 --step-scales 1 1.25 1.5 -- --steps 20 --msa msas
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path


def parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML configuration of the model"
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="Protenix checkpoint to sample with"
    )
    parser.add_argument(
        "--input", type=Path, required=True, help="sequences to sample: a FASTA or CSV file"
    )
    parser.add_argument(
        "--reference", type=Path, required=True, help="folder of MD of these sequences"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "-n",
        "--samples",
        type=int,
        default=50,
        help="number of samples of each sequence for each pair [default: %(default)s]",
    )
    parser.add_argument(
        "--noise-scales",
        type=float,
        nargs="+",
        default=[1, 1.25, 1.5, 1.75, 2],
        help="noise scales (lambda) of the grid [default: %(default)s]",
    )
    parser.add_argument(
        "--step-scales",
        type=float,
        nargs="+",
        default=[1, 1.25, 1.5],
        help="step scales (eta) of the grid [default: %(default)s]",
    )
    split = words.index("--") if "--" in words else len(words)
    return parser.parse_args(words[:split]), words[split + 1 :]


def protenix_eba(*words: object) -> None:
    """Run a command; status 3 means that some targets failed, which is no error here."""
    program = Path(sys.executable).parent / "protenix-eba"
    status = subprocess.run([program, *map(str, words)], check=False).returncode
    if status not in (0, 3):
        raise SystemExit(f"protenix-eba {words[0]} ended with status {status}")


def invalid_share(samples: Path) -> float:
    """Return the share of invalid ones among all samples of all targets."""
    records = [json.loads(path.read_text()) for path in samples.glob("[!.]*/*.json")]
    tried = sum(record["attempts"] for record in records)
    return sum(len(record["invalid"]) for record in records) / tried


def measure(arguments: argparse.Namespace, more: list[str], noise: float, step: float) -> dict:
    folder = arguments.out / f"lambda_{noise:g}_eta_{step:g}"
    protenix_eba(
        "sample", "--config", arguments.config, "--checkpoint", arguments.checkpoint,
        "--input", arguments.input, "--embeddings", arguments.out / "embeddings",
        "--out", folder / "samples", "-n", arguments.samples,
        "--noise-scale", noise, "--step-scale", step, *more,
    )  # fmt: skip
    protenix_eba(
        "evaluate", "--reference", arguments.reference, "--samples", folder / "samples",
        "--out", folder / "evaluation",
    )  # fmt: skip
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    return {
        "noise_scale": noise,
        "step_scale": step,
        "invalid_share": invalid_share(folder / "samples"),
        **metrics["aggregate"],
    }


def main() -> None:
    arguments, more = parse(sys.argv[1:])
    rows: list[dict] = []
    for noise, step in itertools.product(arguments.noise_scales, arguments.step_scales):
        rows.append(measure(arguments, more, noise, step))
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (arguments.out / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    print(arguments.out / "sweep.csv")


if __name__ == "__main__":
    main()
