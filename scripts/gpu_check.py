"""What a GPU makes of it: tests, training steps, sampling, kernels and OpenMM, in 8 minutes.

Each part is kept in a JSON file as soon as it is done; a second run makes only what is missing, and
prints the table for docs/benchmarks.md. Nothing that fails ends it: an error is the part's result,
want of memory with its peak, and a part that takes its process down is named by the next one.

On a bare machine with Python 3.12 and torch 2.11 for CUDA this is enough beside a checkout, 55 MB
of wheels, of which scipy is 35 and numpy 15:

  python -m pip install numpy scipy safetensors PyYAML ml_collections optree pytest
  python -m pip install --no-deps protenix==2.0.0
  python scripts/gpu_check.py

Protenix pins rdkit, biotite, deepspeed, CUDA kernels and more: nothing here imports them. pytest is
for the tests that need a GPU; the part on OpenMM takes it if it is there (`openmm[cuda12]`, more
than 100 MB) and says so if not. Layer norms are torch's; LAYERNORM_TYPE=fast_layernorm in the
environment asks for Protenix's own, which a compiler for CUDA makes at the first start.

A training step is forward and backward of K conformers x 8 noise samples and a step of Adam, the
mean of those after the first; peak memory is that of the device, weights and Adam's moments
included. The paper's figures (Lu et al., 2025, ablation over K) are wall seconds of an iteration
and memory of one A100 40 GB in DDP, on proteins of ATLAS. Whether an iteration is one item or the
16 that it accumulates is not said there: they are context, and no ratio is made of them.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout need not be installed
# Of the EBA paper: seconds of an iteration, GB of a device, and seconds of a sample on an A100.
PAPER = {2: (4.3, 12.0), 3: (5.4, 13.9), 5: (7.8, 16.3)}
PAPER_SAMPLE_S = 0.9


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("gpu_check.json"),
        help="JSON file of the results, which a second run completes [default: %(default)s]",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=7.5,
        help="minutes after which no further part is begun and one that runs is ended "
        "[default: %(default)s]",
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="take a small model and a few residues, on the CPU if there is no GPU",
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# The worker, which makes part after part until one takes it down.


def work(out: Path, rehearse: bool) -> None:
    import torch

    from gpu_check_parts import SIZES, parts

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not rehearse:
        keep(out, "machine", {"error": f"torch {torch.__version__} finds no GPU"})
        return
    for name, part in parts(SIZES["rehearsal" if rehearse else "full"], device).items():
        if name in read(out):
            continue
        keep(out, name, {"begun": time.time()})
        print(name, flush=True)
        figures = attempt(part, device)
        keep(out, name, figures)
        if device == "cuda":
            torch.cuda.empty_cache()
            if "CUDA" in figures.get("error", ""):  # what a kernel broke stays broken here
                sys.exit(1)


def attempt(part: Callable[[], dict[str, Any]], device: str) -> dict[str, Any]:
    """Return the figures of a part, or why there are none."""
    import torch

    from gpu_check_parts import peak_gb

    try:
        return part()
    except torch.OutOfMemoryError:
        return {"out of memory": True, "peak_gb": peak_gb(device)}
    except Exception as error:
        import traceback

        where = traceback.format_exc().strip().splitlines()[-8:]
        return {"error": f"{type(error).__name__}: {error}"[:500], "where": where}


# The results.


def read(out: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(out.read_text()) if out.is_file() else {}
    except ValueError as error:
        sys.exit(f"{out} is no JSON ({error}): give another --out, or remove it")
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        sys.exit(f"{out} holds no results of this program: give another --out")
    return found


def keep(out: Path, name: str, figures: dict[str, Any]) -> None:
    write(out, read(out) | {name: figures})


def write(out: Path, results: dict[str, dict[str, Any]]) -> None:
    temporary = out.with_name(f".{out.name}.part")
    temporary.write_text(json.dumps(results, indent=1))
    temporary.replace(out)


def close_begun(out: Path, why: str) -> None:
    """Say of a part that did not come to its end why."""
    for name, figures in read(out).items():
        if "begun" in figures:
            keep(out, name, {"error": why})


def lines(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return the results as Markdown."""
    about = results.get("machine", {})
    found = [", ".join(f"{name} {_figure(value)}" for name, value in about.items()), ""]
    found += ["| N | K | mode | precision | s a step | structures a second | peak GB | paper |"]
    found += ["|---|---|---|---|---|---|---|---|"]
    for name, figures in chosen(results, "train"):
        mode, precision, n, k = name
        seconds, gb = PAPER.get(int(k[2:]), ("", ""))
        cells = _cells(figures, "seconds", "structures_per_s", "peak_gb")
        paper = f"{seconds} s, {gb} GB (A100)" if seconds else ""
        found.append(f"| {n[2:]} | {k[2:]} | {mode} | {precision} | {cells} | {paper} |")
    found += ["", "| N | precision | s a sample | samples at a time | peak GB | paper |"]
    found += ["|---|---|---|---|---|---|"]
    for (precision, n), figures in chosen(results, "sample"):
        cells = _cells(figures, "seconds_per_sample", "chunk", "peak_gb")
        found.append(f"| {n[2:]} | {precision} | {cells} | {PAPER_SAMPLE_S} s (A100) |")
    found += ["", "| atoms | smooth LDDT of 16 structures and its gradient, s | peak GB |"]
    found += ["|---|---|---|"]
    for (n,), figures in chosen(results, "lddt"):
        cells = _cells(figures, "seconds", "peak_gb")
        found.append(f"| {figures.get('atoms', n)} | {cells} |")
    for name in ("tests", "openmm"):
        about = results.get(name, {"error": "not reached"})
        found += ["", f"{name}: " + ", ".join(f"{k} {_figure(v)}" for k, v in about.items())]
    return found


def chosen(results: dict[str, Any], kind: str) -> list[tuple[list[str], dict[str, Any]]]:
    """Return the other words of the names of one kind of part, and its figures."""
    split = [(name.split(), figures) for name, figures in results.items()]
    return [(words[1:], figures) for words, figures in split if words[0] == kind]


def _cells(figures: dict[str, Any], *names: str) -> str:
    if "out of memory" in figures:
        return " | ".join(["out of memory"] * (len(names) - 1) + [_figure(figures["peak_gb"])])
    if "error" in figures:
        return " | ".join([figures["error"].replace("|", "/")[:60]] + [""] * (len(names) - 1))
    return " | ".join(_figure(figures.get(name)) for name in names)


def _figure(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


def main() -> None:
    arguments = parse()
    out: Path = arguments.out.absolute()
    if arguments.worker:
        work(out, arguments.rehearse)
        return
    if not out.parent.is_dir():
        sys.exit(f"there is no folder {out.parent}: make it, or give another --out")
    with out.with_name(f".{out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"another run writes {out}: wait for it, or give another --out")
        check(out, arguments)


def check(out: Path, arguments: argparse.Namespace) -> None:
    """Make the parts that are missing and print all."""
    # What failed in an earlier run is tried again: perhaps what it lacked is there now.
    write(
        out, {name: one for name, one in read(out).items() if not {"error", "begun"} & one.keys()}
    )
    words = [sys.executable, __file__, "--worker", "--out", str(out)]
    words += ["--rehearse"] if arguments.rehearse else []
    end = time.monotonic() + 60 * arguments.minutes
    going = True
    while going:
        before = read(out)
        try:
            status = subprocess.run(words, timeout=max(1, end - time.monotonic())).returncode
            going = status != 0 and read(out) != before
        except subprocess.TimeoutExpired:
            status, going = 0, False
            close_begun(out, "the time ended")
        close_begun(out, f"the process ended with status {status}")
    print("\n".join(lines(read(out))))
    if "error" in read(out).get("machine", {"error": ""}):
        sys.exit(2)


if __name__ == "__main__":
    main()
