"""Folding by EBM-Fold against gradient descent, side by side on the same predictions.

Every third test domain gets stand-in predictions of several widths, with orientations and without
(from one width to the next and from one target to the next these take turns, unless
--both-settings is given). Each method makes its decoys from the same predictions:

  peer        multidimensional scaling, then L-BFGS on the likelihood: no network
  hybrid      the peer's rough start, then small steps of the network with two short descents
              between: the commands' default
  churned     the network alone; every fourth of the targets
  algorithm1  the paper's annealed Langevin dynamics, 2,048 evaluations; a few short targets

Further sections refine bent native traces, look at hands, long chains, stages of the annealing
and real predictions, if files are given. Every task (a section and a target) is
a file in --out: a run that was stopped goes on, and one that is finished only writes its report
anew: report.md, rows/*.json, figures/*.png and *.svg.

Example:

  python scripts/bench_ebmfold.py cath_domains.npz --weights ebmfold.safetensors --out bench
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

CHURNED_EVERY = 4
N_SLOW = 2
SLOW_NOISE = 0.5
DECOY_NOISE, N_DECOY_TARGETS, MANY_DECOYS = 1.0, 3, 8
N_REFINED, REFINED_NOISE, TRACE_LDDTS = 12, 0.5, (0.80, 0.65, 0.49)
LENGTHS = (125, 250, 500, 1000)
STAGE_NOISE = 0.5
REAL_DECOYS = 8


@dataclass(frozen=True)
class Plan:
    """The settings that all tasks share; rows made with other ones are not reused."""

    weights_sha256: str
    domains_sha256: str
    every: int
    noises: tuple[float, ...]
    decoys: int
    seed: int
    both_settings: bool


@dataclass(frozen=True)
class Task:
    """A section of the report on one target: a function of `TASKS`, and what it gets."""

    section: str
    key: str
    arguments: tuple[Any, ...]

    def path(self, out: Path) -> Path:
        return out / "rows" / f"{self.section}_{self.key}.json"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("domains", type=Path, help="npz file that scripts/make_domain_set.py wrote")
    parser.add_argument("--weights", type=Path, required=True, help="trained network (safetensors)")
    parser.add_argument(
        "--every",
        type=int,
        default=3,
        help="use only every n-th test domain [default: %(default)s]",
    )
    parser.add_argument(
        "--noises",
        default="0.25,0.5,1,1.5",
        help="widths of the stand-in predictions, separated by commas [default: %(default)s]",
    )
    parser.add_argument(
        "--decoys",
        type=int,
        default=2,
        help="number of decoys that each method makes of each target [default: %(default)s]",
    )
    parser.add_argument(
        "--both-settings",
        action="store_true",
        help="fold each target with orientations and without them; takes twice the time",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed [default: %(default)s]")
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of processes [default: %(default)s]"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/bench_ebmfold"),
        help="folder to write to [default: %(default)s]",
    )
    parser.add_argument(
        "--real",
        action="append",
        default=[],
        metavar="PREDICTIONS=NATIVE[=MODEL]",
        help="a real prediction, its structure and a model by another program; may be repeated",
    )
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=TASKS,
        default=list(TASKS),
        help="parts of the benchmark to run [default: all]",
    )
    arguments = parser.parse_args()
    for name in ("every", "decoys", "jobs"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name}: expected at least 1, found {getattr(arguments, name)}")
    for words in arguments.real:
        if not 2 <= len(words.split("=")) <= 3:
            parser.error(f"--real: expected PREDICTIONS=NATIVE or ...=MODEL, found {words!r}")
    try:
        arguments.noises = tuple(float(word) for word in arguments.noises.split(","))
    except ValueError:
        parser.error(f"--noises: expected numbers joined by commas, found {arguments.noises!r}")
    return arguments


def fold_task(plan: Plan, weights: Path, domain: Any, number: int) -> list[dict]:
    from ebmfold_benchmark import PEER, folding_rows

    methods = [PEER, "hybrid"] + ["churned"] * (number // 2 % CHURNED_EVERY == 0)
    rows = []
    for k, noise in enumerate(plan.noises):
        for orientations in (True, False):
            if plan.both_settings or (number + k) % 2 == orientations:
                setting = (domain, noise, orientations, methods)
                rows += folding_rows(*setting, network(weights), plan.decoys, plan.seed)
    return rows


def algorithm1_task(plan: Plan, weights: Path, domain: Any) -> list[dict]:
    from ebmfold_benchmark import folding_rows

    methods = ("algorithm1", "churned", "churned64", "hybrid")
    return folding_rows(domain, SLOW_NOISE, True, methods, network(weights), 1, plan.seed)


def decoys_task(plan: Plan, weights: Path, domain: Any) -> list[dict]:
    from ebmfold_benchmark import PEER, folding_rows

    methods = (PEER, "hybrid", "churned")
    return folding_rows(
        domain, DECOY_NOISE, True, methods, network(weights), MANY_DECOYS, plan.seed
    )


def refinement_task(plan: Plan, weights: Path, domain: Any) -> list[dict]:
    from ebmfold_benchmark import refinement_rows

    return refinement_rows(domain, REFINED_NOISE, TRACE_LDDTS, network(weights), plan.seed)


def hands_task(plan: Plan, weights: Path, domains: Any) -> list[dict]:
    from ebmfold_benchmark import hand_rows

    return hand_rows(domains)


def lengths_task(plan: Plan, weights: Path, domain: Any) -> list[dict]:
    from ebmfold_benchmark import length_row

    return [length_row(domain, DECOY_NOISE, weights, plan.seed)]


def stages_task(plan: Plan, weights: Path, domain: Any) -> list[dict]:
    from ebmfold_benchmark import stage_rows

    return stage_rows(domain, STAGE_NOISE, network(weights), plan.seed)


def real_task(plan: Plan, weights: Path, *files: Path) -> list[dict]:
    from ebmfold_benchmark import PEER, real_rows

    predictions, native, *models = files
    methods = (PEER, "hybrid", "churned")
    return real_rows(predictions, native, models, methods, network(weights), REAL_DECOYS, plan.seed)


TASKS: dict[str, Callable[..., list[dict]]] = {
    "folding": fold_task,
    "algorithm1": algorithm1_task,
    "decoys": decoys_task,
    "refinement": refinement_task,
    "hands": hands_task,
    "lengths": lengths_task,
    "stages": stages_task,
    "real": real_task,
}


@lru_cache(1)
def network(weights: Path) -> Any:
    import torch

    from protenix_eba.ebmfold.checkpoint import load_network

    torch.set_num_threads(1)
    return load_network(weights)


def all_tasks(arguments: argparse.Namespace) -> Iterator[Task]:
    """Yield all that is to be measured, in the order of the report."""
    from ebmfold_benchmark import joined_domains
    from protenix_eba.ebmfold.domains import read_domains

    everything = read_domains(arguments.domains, "test")
    chosen = everything[:: arguments.every]
    by_length = sorted(chosen, key=lambda domain: len(domain.sequence))
    for number, domain in enumerate(chosen):
        yield Task("folding", domain.name, (domain, number))
    for domain in by_length[:N_SLOW]:
        yield Task("algorithm1", domain.name, (domain,))
    for domain in chosen[:N_DECOY_TARGETS]:
        yield Task("decoys", domain.name, (domain,))
    for domain in chosen[:N_REFINED]:
        yield Task("refinement", domain.name, (domain,))
    yield Task("hands", "native", (everything,))
    for length in LENGTHS:
        joined = joined_domains(everything, length)
        yield Task("lengths", str(len(joined.sequence)), (joined,))
    middle = by_length[len(by_length) // 2]
    yield Task("stages", middle.name, (middle,))
    for words in arguments.real:
        files = tuple(Path(word) for word in words.split("="))
        yield Task("real", files[0].stem, files)


def run_task(task: Task, plan: Plan, weights: Path, out: Path) -> tuple[Task, str]:
    """Measure a task and write its rows; return why it failed, if it did."""
    from protenix_eba.core.errors import UserError
    from protenix_eba.core.files import write_json

    try:
        rows = TASKS[task.section](plan, weights, *task.arguments)
    except (UserError, ValueError, RuntimeError) as error:
        return task, str(error)
    write_json(task.path(out), {"plan": asdict(plan), "rows": rows})
    return task, ""


def stored(task: Task, plan: Plan, out: Path) -> list[dict] | None:
    """Read the rows of an earlier run.

    Raises:
        UserError: Of one with other settings.
    """
    from protenix_eba.core.errors import UserError

    path = task.path(out)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        before, rows = found["plan"], found["rows"]
    except (ValueError, KeyError, TypeError):
        return None
    now = json.loads(json.dumps(asdict(plan)))
    if before != now:
        changed = ", ".join(key for key in now if before.get(key) != now[key])
        raise UserError(f"{out} holds rows made with other {changed}", "choose another --out")
    return rows


def measure(arguments: argparse.Namespace) -> tuple[dict[str, list[dict]], dict[str, str]]:
    """Return rows by section, and failures by task."""
    from joblib import Parallel, delayed

    from protenix_eba.core.files import require_file, sha256_of_file
    from protenix_eba.core.progress import track
    from protenix_eba.ebmfold.checkpoint import load_network

    weights, out = arguments.weights, arguments.out
    load_network(weights)
    plan = Plan(
        sha256_of_file(weights),
        sha256_of_file(require_file(arguments.domains, "domains")),
        *(arguments.every, arguments.noises, arguments.decoys, arguments.seed),
        arguments.both_settings,
    )
    tasks = [task for task in all_tasks(arguments) if task.section in arguments.sections]
    missing = [task for task in tasks if stored(task, plan, out) is None]
    run = Parallel(n_jobs=arguments.jobs, return_as="generator_unordered")
    done = run(delayed(run_task)(task, plan, weights, out) for task in missing)
    failures = {}
    for task, failure in track(done, "benchmark", len(missing)):
        if failure:
            failures[f"{task.section} {task.key}"] = failure
    rows: dict[str, list[dict]] = {}
    for task in tasks:
        rows.setdefault(task.section, []).extend(stored(task, plan, out) or [])
    return {section: found for section, found in rows.items() if found}, failures


def main() -> int:
    arguments = parse()
    from protenix_eba.core.files import atomic_path
    from user_errors import ends_on_user_error

    with ends_on_user_error():
        rows, failures = measure(arguments)
        from bench_ebmfold_report import draw, report

        text = report(rows)
        with atomic_path(arguments.out / "report.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        draw(rows, arguments.out / "figures")
    print(text)
    for name, failure in failures.items():
        print(f"failed: {name}: {failure}", file=sys.stderr)
    return 3 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
