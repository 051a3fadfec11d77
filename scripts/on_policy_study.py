"""Alignment on the model's own samples beside alignment on MD, on the demo's tripeptides.

From one supervised model a seed, each arm gets the same number of energies: EBA on frames of MD,
EBA on samples of its own, and on a mixture. `eba_long` has as many energies and at least as much
time. The energy is minus the bias of the MD, so that the answer is known, or a minimised one as in
the paper. A run that is stopped goes on from what is finished, seed by seed; what
docs/benchmarks.md shows is derived from docs/proof/on_policy.json, which this writes.

Examples:
    python scripts/on_policy_study.py --out runs/on_policy --jobs 2   # two hours
    python scripts/on_policy_study.py --arms eba on_policy --kinds bias --seeds 0
    python scripts/on_policy_study.py --check       # the document against the stored results
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import glycine_bias
import on_policy_report
from bench_onpolicy import read
from demo_seeds import SFT_SEED, describe_md
from proof import Proof, collect, described, run_each, save
from protenix_eba.cli import demo_stages
from protenix_eba.cli.demo_stages import HELD_OUT, MINIMISED, Demo
from protenix_eba.core.files import atomic_path
from protenix_eba.energy.table import read_labels
from protenix_eba.eval.results import load_evaluation
from protenix_eba.structures.trajectories import find_targets
from user_errors import ends_on_user_error

# Frames are labelled in three replicas, of which two are trained on.
REPLICAS, TRAINED_REPLICAS = 3, 2
# Samples of each peptide that are minimised to compare their energies with the MD's.
MINIMISED_SAMPLES = 60
STEPS, REFRESHES = 200, 4


@dataclass(frozen=True)
class Kind:
    """An energy to align with.

    Attributes:
        energies: How many each peptide gets.
        labels: Options of `label` for the MD.
        keys: Of the configuration, for every arm.
        sampled: Of the section `replay`.
    """

    energies: int
    labels: tuple[str, ...]
    keys: Mapping[str, str]
    sampled: Mapping[str, str]


BIAS = ("--plugin", glycine_bias.__name__, "--energy", glycine_bias.FOLDED, "--no-minimize")
KINDS = {
    # The target is MD without the bias, exactly.
    "bias": Kind(
        200, BIAS, {}, {"energy": "initial", "energy_function": glycine_bias.FOLDED}
    ),
    # The paper's weights, exp(-E / (kT sqrt(N))): no MD has this distribution.
    "minimised": Kind(
        100, MINIMISED, {"eba.length_exponent": "0.5"},
        {"energy": "minimised", "force_field": "amber14", "solvent": "obc2",
         "protocol": "two-stage"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """A way to spend the energies.

    Attributes:
        md: Share of the energies that frames of MD get.
        keys: Of the configuration, over those of the kind.
    """

    md: float = 0.0
    keys: Mapping[str, str] = field(default_factory=dict)


# Of the demo's recipe a fifth: nothing but the model itself holds the molecules there.
SLOW = {"lr": "0.0001"}
ARMS = {
    "on_policy": Arm(keys=SLOW),
    "eba": Arm(md=1.0),
    "mixture": Arm(md=0.5),
    "eba_long": Arm(md=1.0, keys={"max_steps": str(2 * STEPS)}),
    # Two refreshes are in the buffer otherwise.
    "newest": Arm(keys=SLOW | {"replay.max_age": "1"}),
}
# Keys that a run without any MD leaves empty.
MD_ONLY = ("data_dir", "replicas", "validation_replicas", "validation_targets")


def main() -> int:
    """Run what is not there yet, then fill in the document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/on_policy"),
        help="folder to write to [default: %(default)s]",
    )
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=ARMS,
        default=list(ARMS),
        help="ways to align [default: all]",
    )
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="energies [default: all]"
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0, 1, 2],
        help="random seeds [default: %(default)s]",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time [default: %(default)s]")
    parser.add_argument(
        "--check",
        action="store_true",
        help="run nothing; derive the tables from the stored results and compare",
    )
    options = parser.parse_args()
    with ends_on_user_error():
        return on_policy_report.check() if options.check else run(options)


def run(options: argparse.Namespace) -> int:
    """Make what is missing, then the document; return status 0."""
    demo = Demo(options.out.resolve(), 1)
    proof = Proof(demo.out)
    prepare(proof, demo)
    first = [("", "sft", seed) for seed in options.seeds]
    arms = [(k, a, s) for s in options.seeds for a in options.arms for k in options.kinds]
    for runs in (first, arms):
        run_each(partial(one_run, proof, demo), runs, options.jobs)
    on_policy_report.write(collect(proof))
    return 0


def prepare(proof: Proof, demo: Demo) -> None:
    """Make data, start, embeddings and the labels of the MD, and describe the MD itself."""
    for stage in (demo_stages.copy_data, demo_stages.label, demo_stages.embed):
        stage(demo)
    with atomic_path(demo.out / "trained.fasta") as path:
        names = [t.name for t in find_targets(demo.data) if t.name != HELD_OUT]
        path.write_text("".join(f">{name}\n{name}\n" for name in names), encoding="utf-8")
    for name, kind in KINDS.items():
        for share in sorted({arm.md for arm in ARMS.values() if arm.md}):
            count = round(kind.energies * share) * REPLICAS // TRAINED_REPLICAS
            label(proof, demo.data, kind.labels, labels(demo, name, share), count)
    truth = demo.out / "labels" / "truth.parquet"
    label(proof, demo.truth, MINIMISED, truth, REPLICAS * MINIMISED_SAMPLES)
    describe_md(demo, partial(energies, truth))


def labels(demo: Demo, kind: str, share: float) -> Path:
    """Return the path of the MD's labels of an arm with this share of MD."""
    return demo.out / "labels" / f"{kind}_{100 * share:.0f}.parquet"


def label(proof: Proof, folder: Path, words: Sequence[str], out: Path, count: int) -> None:
    """Label so many conformations of each target, if that was not done."""
    if not out.is_file():
        proof.run(
            "protenix-eba", "label", "--input", folder, "--out", out, *words,
            "--per-target", str(count), partial=True,
            log=proof.out / "logs" / f"label_{out.parent.name}_{out.stem}.log",
        )  # fmt: skip


def energies(table: Path, target: str) -> dict[str, list[float]]:
    """Return the minimised energies of a target's conformations, kJ/mol."""
    rows = read_labels(table).for_target(target)
    return {"energy_kj_mol": np.round(rows.energy_kj_mol[rows.finished], 2).tolist()}


def one_run(proof: Proof, demo: Demo, kind: str, arm: str, seed: int) -> None:
    """Train, sample and measure one model, keep the numbers and let its weights go."""
    name = "_".join(filter(None, (kind, arm, str(seed))))
    results = demo.out / "results" / f"{name}.json"
    if results.is_file():
        return
    folder, log = demo.out / name, demo.out / "logs" / f"{name}.log"
    if arm == "sft":
        recipe = "demo_sft.yaml"
        keys = {"seed": str(SFT_SEED + seed), "load_checkpoint_path": str(demo.out / "start.pt")}
    else:
        recipe, keys = "demo_eba.yaml", arm_keys(demo, kind, arm, seed)
        keys["load_checkpoint_path"] = str(demo.out / f"sft_{seed}" / "model.pt")
    if not (folder / "model.pt").is_file():
        keys = md_keys(demo) | keys | {"base_dir": str(demo.out), "run_name": name}
        words = [word for key, value in keys.items() for word in (f"--{key}", value)]
        plugins = f"protenix_eba,{glycine_bias.__name__}"
        config = demo_stages.recipe(recipe)
        proof.run("protenix-train", "--plugin", plugins, "--config", config, *words, log=log)
    spent = seconds(folder)
    rows = list(measured(proof, demo, name, folder / "model.pt", seed))
    save(results, [row | {"kind": kind, "arm": arm, "seed": seed} | spent for row in rows])
    if arm != "sft":
        shutil.rmtree(folder)


def md_keys(demo: Demo) -> dict[str, str]:
    """Return the keys that name the demo's data."""
    return {
        "eba.data_dir": str(demo.data),
        "eba.labels": str(demo.labels),
        "eba.embeddings": str(demo.out / "embeddings"),
        "eba.validation_targets": HELD_OUT,
    }


def arm_keys(demo: Demo, kind: str, arm: str, seed: int) -> dict[str, str]:
    """Return the keys of the configuration, over those of the demo's recipe."""
    chosen, of_kind = ARMS[arm], KINDS[kind]
    keys = {"seed": str(100 + seed), "max_steps": str(STEPS), "eval_interval": "0"} | of_kind.keys
    if chosen.md:
        keys["eba.labels"] = str(labels(demo, kind, chosen.md))
    if chosen.md < 1:
        new = round(of_kind.energies * (1 - chosen.md) / REFRESHES)
        keys |= {"trainer": "on_policy", "ema_decay": "0.9", "eba.dataset": "replay"}
        sampler = {"preset": "exact", "sampler_steps": "20", "s_max": "4", "s_min": "0.001"}
        buffer = {
            "refresh_steps": str(STEPS // REFRESHES),
            "new_samples": str(new),
            "max_samples": str(2 * new),
            "md_share": str(chosen.md),
        }
        replay = sampler | buffer | dict(of_kind.sampled)
        if not chosen.md:
            keys |= {f"eba.{key}": "" for key in MD_ONLY}
            replay["sequences"] = str(demo.out / "trained.fasta")
        keys |= {f"replay.{key}": value for key, value in replay.items()}
    return keys | dict(chosen.keys)


def seconds(folder: Path) -> dict[str, float]:
    """Return the seconds that a run took in training, sampling and waiting for labels."""
    parts = {
        f"{part}_s": total(folder, "replay", f"{part}_seconds") for part in ("sampling", "waiting")
    }
    # A step that begins with a refresh lasts until the samples and their labels are there.
    return {"training_s": total(folder, "log", "seconds") - sum(parts.values())} | parts


def total(folder: Path, table: str, column: str) -> float:
    """Return the sum of a column of a table of a run, 0 if it has no such table."""
    path = folder / f"{table}.csv"
    return sum(row[column] for row in read(path)) if path.is_file() else 0.0


def measured(
    proof: Proof, demo: Demo, name: str, checkpoint: Path, seed: int
) -> Iterator[dict[str, Any]]:
    """Sample a model, and yield what its ensembles are, by target."""
    folder, evaluation = demo.out / "samples" / name, demo.out / "evaluation" / name
    logs = demo.out / "logs"
    proof.run(
        *demo.sampling([checkpoint], folder), "--seed", str(1000 + seed),
        log=logs / f"sample_{name}.log",
    )  # fmt: skip
    table = folder / "minimised.parquet"
    words = ("--reference", str(demo.truth), *MINIMISED)
    label(proof, folder, words, table, MINIMISED_SAMPLES)
    proof.run(
        "protenix-eba", "evaluate", "--reference", demo.truth, "--samples", folder,
        "--out", evaluation, log=logs / f"evaluate_{name}.log",
    )  # fmt: skip
    found = load_evaluation(evaluation).targets
    for target in find_targets(folder):
        values = {key: found[target.name].values[key] for key in on_policy_report.METRICS}
        yield described(target) | energies(table, target.name) | values


if __name__ == "__main__":
    sys.exit(main())
