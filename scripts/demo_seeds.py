"""The demo with several seeds, and with other methods in the place of EBA.

Trains as the demo does, from the shipped start for tripeptides: supervised fine-tuning on MD under
a bias, then each method from its result, with the demo's own recipes and as many samples. Each
seed is one of training and of sampling. A run that is stopped goes on from what is finished; what
is shown in docs/proof.md is derived from docs/proof/tripeptide_seeds.json, which this writes.

Example:
    python scripts/demo_seeds.py --out runs/demo_seeds --seeds 3     # an hour of one core
    python scripts/proof.py --check                                  # the document against it
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import proof_report
from proof import ARMS, Proof, collect, described, save
from protenix_eba.cli.demo_stages import Demo, copy_data, embed, label
from protenix_eba.core.progress import console
from protenix_eba.structures.trajectories import find_targets
from user_errors import ends_on_user_error

METHODS = ("eba", "weighted", "dpo", "plain")
# The seeds in the demo's recipes.
SFT_SEED, SEED = 42, 43


def train(proof: Proof, demo: Demo, name: str, start: Path, seed: int, method: str) -> Path:
    """Train one model, if it is not there, and return its checkpoint."""
    checkpoint = demo.out / name / "model.pt"
    if checkpoint.is_file():
        return checkpoint
    options = ARMS[method].options if method != "sft" else {}
    proof.run(
        *demo.training("demo_sft.yaml" if method == "sft" else "demo_eba.yaml", start),
        "--run_name", name, "--seed", str(seed),
        *(word for key, value in options.items() for word in (f"--eba.{key}", value)),
        log=demo.out / "logs" / f"{name}.log",
    )  # fmt: skip
    return checkpoint


def sampled(proof: Proof, demo: Demo, name: str, checkpoint: Path, seed: int) -> Iterator[Any]:
    """Sample a model, and yield what its ensembles are, by target."""
    folder = demo.out / "samples" / name
    proof.run(
        *demo.sampling([checkpoint], folder), "--seed", str(1000 + seed),
        log=demo.out / "logs" / f"sample_{name}.log",
    )  # fmt: skip
    yield from (described(target) for target in find_targets(folder))


def one_model(proof: Proof, demo: Demo, method: str, seed: int) -> None:
    """Train and sample one model with one seed, keep the numbers and let its weights go."""
    results = demo.out / "results" / f"{method}_{seed}.json"
    if results.is_file():
        return
    before = demo.out / f"sft_{seed}" / "model.pt"
    start, first = (demo.out / "start.pt", SFT_SEED) if method == "sft" else (before, SEED)
    name = f"{method}_{seed}"
    checkpoint = train(proof, demo, name, start, first + seed, method)
    rows = sampled(proof, demo, name, checkpoint, seed)
    save(results, [row | {"arm": method, "seed": seed} for row in rows])
    if method != "sft":
        shutil.rmtree(demo.out / name)


def describe_md(demo: Demo, more: Callable[[str], dict[str, Any]] = lambda target: {}) -> None:
    """Describe the MD with and without the bias, if that was not done.

    Args:
        demo: Where it is.
        more: What else is known of the MD without the bias, of each target.
    """
    for arm, folder in ("biased", demo.data), ("unbiased", demo.truth):
        results = demo.out / "results" / f"{arm}.json"
        if not results.is_file():
            rows = [described(target) | {"arm": arm, "seed": 0} for target in find_targets(folder)]
            if arm == "unbiased":
                rows = [row | more(row["target"]) for row in rows]
            save(results, rows)


def run(out: Path, methods: Sequence[str], seeds: int) -> None:
    """Make what is missing, and write the results into the document's folder."""
    demo, proof = Demo(out, 1), Proof(out)
    for stage in (copy_data, label, embed):
        stage(demo)
    describe_md(demo)
    models = [(method, seed) for seed in range(seeds) for method in ("sft", *methods)]
    for number, (method, seed) in enumerate(models, start=1):
        one_model(proof, demo, method, seed)
        console.print(f"{number} of {len(models)}: {method}, seed {seed}")
    proof_report.write_seeds(collect(proof))


def main() -> int:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo_seeds"),
        help="folder to write to [default: %(default)s]",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=list(METHODS),
        help="methods to compare [default: all]",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="number of random seeds [default: %(default)s]"
    )
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds: expected at least 1, found {options.seeds}")
    with ends_on_user_error():
        run(options.out.resolve(), options.methods, options.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
