"""The whole way on the shipped peptides: every stage is a command that stands for itself."""

from __future__ import annotations

import importlib.resources
import json
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protenix_eba.errors import UserError
from protenix_eba.files import atomic_path
from protenix_eba.progress import console

__all__ = ["run_demo"]

MODEL_NAME: Final = "protenix_tiny_default_v0.5.0"
FRAMES_TO_RELABEL: Final = 8
SAMPLES: Final = 50
MODELS: Final = {"SFT": "sft", "EBA": "eba"}


@dataclass(frozen=True)
class Demo:
    """Where the demo keeps its files, and how it runs commands.

    Attributes:
        out: Output folder.
        jobs: Processes for energies.
        relabel: Label every shipped conformer afresh instead of a sample.
    """

    out: Path
    jobs: int
    relabel: bool

    @property
    def data(self) -> Path:
        """The MD, copied from the package."""
        return self.out / "data"

    def command(
        self, *words: str | Path, env: dict[str, str] | None = None, partial: bool = False
    ) -> None:
        """Run a command of this installation, visibly.

        Args:
            words: The command.
            env: Its environment.
            partial: Whether status 3, some rows failed, is a result: the command has named them.

        Raises:
            UserError: It failed.
            KeyboardInterrupt: It was interrupted.
        """
        line = [str(word) for word in words]
        console.print(f"$ {shlex.join(line)}", style="dim", markup=False, soft_wrap=True)
        program = Path(sys.executable).parent / line[0]
        status = subprocess.run([program, *line[1:]], env=env, check=False).returncode
        if status in (130, -2):
            raise KeyboardInterrupt
        if status and not (partial and status == 3):
            raise UserError(
                f"the stage failed with exit status {status}: {shlex.join(line)}",
                "its message stands above; the same command goes on from what is finished",
            )


def run_demo(out: Path, *, jobs: int, relabel: bool) -> None:
    """Run all stages; those that are finished are skipped by their own commands.

    Args:
        out: Output folder, `runs/demo` by default.
        jobs: Processes for energies.
        relabel: Label every shipped conformer afresh instead of a sample.

    Raises:
        UserError: A stage failed.
    """
    demo = Demo(out, jobs, relabel)
    stages = (
        ("data", copy_data),
        ("label", label_again),
        ("embed", embed),
        ("train", train),
        ("sample", sample),
        ("evaluate", evaluate),
        ("export", export),
    )
    started = time.monotonic()
    for number, (name, stage) in enumerate(stages, start=1):
        console.rule(f"[bold]{number}/{len(stages)} {name}", align="left")
        before = time.monotonic()
        stage(demo)
        console.print(f"{name}: {time.monotonic() - before:.0f} s", style="green")
    console.rule("[bold]what was learnt", align="left")
    summarise(demo, time.monotonic() - started)


def recipe(name: str) -> Path:
    """A shipped configuration."""
    return Path(str(importlib.resources.files("protenix_eba") / "recipes" / name))


def copy_data(demo: Demo) -> None:
    """Stage 1: the shipped MD, in ATLAS's layout."""
    if not demo.data.is_dir():
        with atomic_path(demo.data) as temporary:
            shutil.copytree(str(importlib.resources.files("protenix_eba") / "demo_data"), temporary)
    from protenix_eba.data.sequences import protein_of_target
    from protenix_eba.trajectories import find_targets, frame_count

    lines = []
    for target in find_targets(demo.data):
        sequence = ":".join(protein_of_target(target).chains)
        lines.append(f">{target.name}\n{sequence}\n")
        frames = [frame_count(target, replica) for replica in target.trajectory_paths]
        console.print(
            f"{target.name}: {sequence}, {len(frames)} replicas of {min(frames)} frames",
            highlight=False,
        )
    with atomic_path(demo.out / "sequences.fasta") as path:
        path.write_text("".join(lines), encoding="utf-8")


def label_again(demo: Demo) -> None:
    """Stage 2: energies of a sample of frames, compared with the shipped ones."""
    chosen = () if demo.relabel else ("--per-target", str(FRAMES_TO_RELABEL))
    demo.command(
        "protenix-eba", "label", "--input", demo.data, "--jobs", str(demo.jobs), *chosen,
        "--protocol", "two-stage",  # the shipped labels' own
        "--out", demo.out / ("labels_all.parquet" if demo.relabel else "labels_check.parquet"),
        "--compare", demo.data / "labels.parquet",
    )  # fmt: skip


def embed(demo: Demo) -> None:
    """Stage 3: a random start (no upstream weights here) and its trunk's embeddings."""
    config = recipe("demo_sft.yaml")
    start = demo.out / "start.pt"
    demo.command("protenix-eba", "init", "--config", config, "--out", start, "--quick-start")
    demo.command(
        "protenix-eba", "embed", "--config", config, "--checkpoint", start,
        "--input", demo.data, "--out", demo.out / "embeddings",
    )  # fmt: skip


def train(demo: Demo) -> None:
    """Stage 4: supervised fine-tuning, then energy-based alignment from its result."""
    starts = {"sft": demo.out / "start.pt", "eba": demo.out / "sft" / "model.pt"}
    for name, start in starts.items():
        demo.command(
            "protenix-train", "--plugin", "protenix_eba",
            "--config", recipe(f"demo_{name}.yaml"),
            "--base_dir", demo.out, "--load_checkpoint_path", start,
            "--eba.data_dir", demo.data, "--eba.labels", demo.data / "labels.parquet",
            "--eba.embeddings", demo.out / "embeddings",
        )  # fmt: skip


def sample(demo: Demo) -> None:
    """Stage 5: ensembles of both models from the sequences alone, and their energies."""
    for name in MODELS.values():
        folder = demo.out / "samples" / name
        demo.command(
            "protenix-eba", "sample", "--config", recipe(f"demo_{name}.yaml"),
            "--checkpoint", demo.out / name / "model.pt",
            "--input", demo.out / "sequences.fasta", "--embeddings", demo.out / "embeddings",
            "--out", folder, "-n", str(SAMPLES),
        )  # fmt: skip
        _label_samples(demo, folder)


def _label_samples(demo: Demo, folder: Path) -> None:
    # A model's sample may have atoms in one place: such rows are reported and left out.
    demo.command(
        "protenix-eba", "label", "--input", folder, "--reference", demo.data,
        "--protocol", "two-stage",
        "--out", folder / "energies.parquet", "--jobs", str(demo.jobs), partial=True,
    )  # fmt: skip


def evaluate(demo: Demo) -> None:
    """Stage 6: each ensemble against MD, then both side by side, and the report."""
    folders = []
    for label, name in MODELS.items():
        folders.append(demo.out / "evaluation" / name)
        demo.command(
            "protenix-eba", "evaluate", "--reference", demo.data,
            "--samples", demo.out / "samples" / name, "--label", label,
            "--training", demo.out / name, "--labels", demo.data / "labels.parquet",
            "--out", folders[-1], "--jobs", str(demo.jobs),
        )  # fmt: skip
    comparison = demo.out / "evaluation" / "comparison"
    demo.command("protenix-eba", "compare", *folders, "--out", comparison)
    with atomic_path(demo.out / "report.html") as path:
        shutil.copyfile(comparison / "report.html", path)


def export(demo: Demo) -> None:
    """Stage 7: a plain checkpoint, and stock `protenix pred` on it."""
    from protenix_eba.compat import prepare_pred_root, protenix_pred_environment

    plain = demo.out / f"{MODEL_NAME}.pt"
    trained = demo.out / "eba" / "model.pt"
    if not plain.is_file() or plain.stat().st_mtime < trained.stat().st_mtime:
        demo.command(
            "protenix-eba", "export", "--checkpoint", trained,
            "--model-name", MODEL_NAME, "--out", plain,
        )  # fmt: skip
    root = prepare_pred_root(demo.out / "stock", plain, MODEL_NAME)
    first = (demo.out / "sequences.fasta").read_text(encoding="utf-8").split()
    name, sequence = first[0].removeprefix(">"), first[1]
    entry = {"name": name, "sequences": [{"proteinChain": {"sequence": sequence, "count": 1}}]}
    query = demo.out / "stock" / "input.json"
    query.write_text(json.dumps([entry]), encoding="utf-8")
    predictions = demo.out / "stock" / "predictions"
    shutil.rmtree(predictions, ignore_errors=True)
    demo.command(
        "protenix", "pred", "-i", query, "-o", predictions, "-n", MODEL_NAME,
        "--use_msa", "false", "--trimul_kernel", "torch", "--triatt_kernel", "torch",
        "--dtype", "fp32", "--sample", "2", "--step", "20", "--cycle", "1",
        env=protenix_pred_environment(root),
    )  # fmt: skip
    # `protenix pred` exits with 0 whatever happens: only its files tell.
    structures = sorted(predictions.rglob("*.cif"))
    if not structures:
        raise UserError(
            f"stock protenix pred wrote no structure into {predictions}",
            "its messages stand above",
        )
    for path in structures:
        console.print(f"stock Protenix wrote {path}", markup=False, highlight=False)


def summarise(demo: Demo, seconds: float) -> None:
    """Print what the numbers say, the unpleasant ones too."""
    from protenix_eba.eval.comparison import compare_evaluations
    from protenix_eba.eval.report.findings import findings
    from protenix_eba.eval.results import load_evaluation

    folders = [demo.out / "evaluation" / name for name in MODELS.values()]
    comparison = compare_evaluations([load_evaluation(folder) for folder in folders])
    training = {label: demo.out / name for label, name in MODELS.items()}
    for sentence in findings(comparison.groups[0].summaries, training):
        console.print(f"- {sentence}", markup=False, highlight=False)
    console.print(
        f"report: {demo.out / 'report.html'}   ({seconds / 60:.1f} minutes)", markup=False
    )
