"""What `protenix-train --dry-run` estimates, beside what the run then takes.

For each size a start is made and the shipped peptides are embedded; a dry run and a run of the same
configuration follow, each in a process of its own. Compared are the peak of the process's memory,
the mean step and all that comes between the first step and the last line (steps, validations,
checkpoints), and the bytes in the run folder. Times are CPU seconds of the process on one thread,
which do not depend on what else the machine does; the library's clock is replaced by that of the
process in both.

Example:

  python scripts/bench_dry_run.py --steps 40 --sizes small wide stock
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

TINY = "protenix_tiny_default_v0.5.0"
ONE_BLOCK = {"N_cycle": 1, "diffusion_module": {"transformer": {"n_blocks": 1}}}
# What is another thing in each: the model, K and S.
SIZES = {
    "small": {"model": ONE_BLOCK, "eba": {"n_conformers": 2, "n_noise": 4}},
    "wide": {"model": ONE_BLOCK, "eba": {"n_conformers": 8, "n_noise": 16}},
    "stock": {"model": {"N_cycle": 1}, "eba": {"n_conformers": 3, "n_noise": 8}},
}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--steps", type=int, default=40, help="steps of the runs")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


# The measured processes.


def child(what: str, config: str) -> None:
    """A dry run or a run; its figures are the last line of the output."""
    time.perf_counter = time.process_time
    from protenix_eba.cli.train import _resolve
    from protenix_eba.plugin_api import load_plugins, split_args

    arguments = split_args(["--plugin", "protenix_eba", "--config", config])
    plugins = load_plugins(arguments.plugins)
    configs = _resolve(arguments, plugins)
    for plugin in plugins:
        plugin.register()
    figures = estimate(configs) if what == "estimate" else measure(configs)
    print(json.dumps(figures), flush=True)
    os._exit(0)


def estimate(configs) -> dict[str, float]:
    from protenix_eba.training.rehearse.dry_run import dry_run
    from protenix_eba.training.trainer import EBATrainer

    run = dry_run(EBATrainer, configs)
    return {
        "memory": max(peak.host for peak in run.costs.peaks.values()),
        "activations": run.costs.memory["activations"].host,
        "step": run.costs.seconds_typical,
        "all": run.seconds_left,
        "disk": run.disk_bytes,
    }


def measure(configs) -> dict[str, float]:
    import csv
    import resource

    from protenix_eba.training.trainer import EBATrainer

    trainer = EBATrainer(configs)
    started = time.perf_counter()
    trainer.run()
    seconds = time.perf_counter() - started
    with open(trainer.folder.log, newline="") as handle:
        steps = [float(row["seconds"]) for row in csv.DictReader(handle)]
    files = [path for path in trainer.folder.path.rglob("*") if path.is_file()]
    return {
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "step": sum(steps) / len(steps),
        "all": seconds,
        "disk": sum(path.stat().st_size for path in files),
    }


# The process that compares.


def configuration(folder: Path, size: str, steps: int) -> Path:
    """Write the configuration of a size, whose folder is this one."""
    demo = Path(str(importlib.resources.files("protenix_eba") / "demo_data"))
    values = {
        **{"trainer": "eba", "project": "bench", "run_name": "run", "base_dir": str(folder)},
        **{"model_name": TINY, "load_checkpoint_path": str(folder / "start.pt")},
        **{"blocks_per_ckpt": None, "lr": 1e-4, "lr_scheduler": "constant", "warmup_steps": 1},
        **{"iters_to_accumulate": 1, "use_wandb": False, "ema_decay": 0.999, "log_interval": 1},
        **{"max_steps": steps, "eval_interval": steps, "checkpoint_interval": steps // 2},
        "model": SIZES[size]["model"],
        "eba": {
            **{"data_dir": str(demo), "labels": str(demo / "labels.parquet")},
            **{"embeddings": str(folder / "embeddings"), "validation_items": 8},
            **{"replicas": [1, 2], "validation_replicas": [3], **SIZES[size]["eba"]},
        },
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def prepare(folder: Path, config: Path) -> None:
    """A start and embeddings."""
    from protenix_eba.cli.main import run

    data = yaml.safe_load(config.read_text())["eba"]["data_dir"]
    start, common = str(folder / "start.pt"), ["--config", str(config)]
    embed = ["embed", *common, "--checkpoint", start, "--input", data]
    for words in (
        ["init", *common, "--out", start],
        [*embed, "--out", str(folder / "embeddings")],
    ):
        if run(words):
            raise SystemExit(f"failed: {words}")


def run_child(what: str, config: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", what, str(config)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def line(size: str, estimated: dict[str, float], measured: dict[str, float]) -> str:
    cells = [size]
    for name, unit, digits in (
        ("memory", 1e6, 0), ("step", 1.0, 3), ("all", 1.0, 1), ("disk", 1e6, 1),
    ):  # fmt: skip
        ours, theirs = estimated[name] / unit, measured[name] / unit
        cells.append(f"{ours:.{digits}f} / {theirs:.{digits}f} ({100 * (ours / theirs - 1):+.0f}%)")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    arguments = parse()
    if arguments.child:
        child(*arguments.child)
        return
    print("estimated / measured (difference)\n")
    print("| size | peak memory, MB | a step, s | all steps, s | run folder, MB |")
    print("|---|---|---|---|---|")
    rows = {}
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            config = configuration(Path(folder), size, arguments.steps)
            prepare(Path(folder), config)
            found = [run_child(what, config) for what in ("estimate", "measure")]
            rows[size] = dict(zip(("estimated", "measured"), found, strict=True))
            print(line(size, *found), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
