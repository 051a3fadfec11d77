"""The stages of `protenix-eba demo`: the whole pipeline on peptides whose answer is known.

MD under U + V in, a model of it, alignment with E = -V, and the samples against MD under U, which
training never saw, and one peptide's against measured couplings.
"""

from __future__ import annotations

import importlib.resources
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protenix_eba.cli.status import INTERRUPTED, SOME_FAILED
from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path
from protenix_eba.core.progress import console, tell

__all__ = ["Demo", "run_stages"]

MODEL_NAME: Final = "protenix_tiny_default_v0.5.0"
START: Final = "tripeptides"
SAMPLES: Final = 200
# The sequence that training does not see.
HELD_OUT: Final = "SAL"
# The sequence that has measured couplings.
MEASURED: Final = "AAA"
# Between the two states of these chains: folded back to 5 to 7 angstrom, and stretched.
CLOSED_ANGSTROM: Final = 7.0
# Energies in the MD's own force field.
MINIMISED: Final = (*("--force-field", "amber14", "--solvent", "obc2", "--protocol", "two-stage"),)
MODELS: Final = {"SFT": "sft", "EBA": "eba"}


@dataclass(frozen=True)
class Demo:
    """Where the demo keeps its files, and how it runs commands.

    Attributes:
        out: Output folder.
        jobs: Processes for energies.
    """

    out: Path
    jobs: int

    @property
    def data(self) -> Path:
        """Folder of the MD under U + V, copied from the package."""
        return self.out / "md" / "biased"

    @property
    def truth(self) -> Path:
        """Folder of the MD under U alone, copied likewise."""
        return self.out / "md" / "unbiased"

    @property
    def ensembles(self) -> dict[str, Path]:
        """Folder of each ensemble by its name; the last is the truth."""
        samples = {title: self.out / "samples" / name for title, name in MODELS.items()}
        return {"MD with the bias": self.data, **samples, "MD without it (the truth)": self.truth}

    @property
    def couplings(self) -> dict[str, Path]:
        """Folder of each ensemble's couplings beside experiment, by the ensemble's name."""
        names = ("MD_biased", *MODELS, "MD_unbiased")
        folder = self.out / "evaluation" / "couplings"
        return {t: folder / name for t, name in zip(self.ensembles, names, strict=True)}

    @property
    def labels(self) -> Path:
        """Label table with minus the bias of each frame."""
        return self.out / "labels.parquet"

    def training(self, config: str, start: Path) -> list[str | Path]:
        """Return the command that trains from `start` by one of the demo's recipes."""
        return [
            "protenix-train", "--plugin", "protenix_eba", "--config", recipe(config),
            "--base_dir", self.out, "--load_checkpoint_path", start,
            "--eba.data_dir", self.data, "--eba.labels", self.labels,
            "--eba.embeddings", self.out / "embeddings",
            f"--eba.validation_targets={HELD_OUT}",
        ]  # fmt: skip

    def sampling(self, checkpoints: Sequence[str | Path], folder: Path) -> list[str | Path]:
        """Return the command that samples checkpoints, PATH or NAME=PATH, into a folder."""
        return [
            "protenix-eba", "sample", "--config", recipe("demo_eba.yaml"),
            *(word for one in checkpoints for word in ("--checkpoint", one)),
            "--input", self.out / "sequences.fasta", "--embeddings", self.out / "embeddings",
            "--out", folder, "-n", str(SAMPLES), "--preset", "exact",
            # 64 angstrom hide these molecules: from there 20 steps of second order suffice.
            "--steps", "20", "--s-max", "4", "--s-min", "0.001", "--precision", "bf16",
        ]  # fmt: skip

    def command(
        self, *words: str | Path, env: dict[str, str] | None = None, partial: bool = False
    ) -> None:
        """Print a command of this installation and run it.

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
        if status in (INTERRUPTED, -signal.SIGINT):
            raise KeyboardInterrupt
        if status and not (partial and status == SOME_FAILED):
            raise UserError(
                f"the stage failed with exit status {status}: {shlex.join(line)}",
                "its message stands above; the same command goes on from what is finished",
            )


def run_stages(demo: Demo) -> float:
    """Run all stages; those that are finished are skipped by their own commands.

    Returns:
        The seconds that they took.

    Raises:
        UserError: A stage failed.
    """
    stages = (
        ("data", copy_data),
        ("label", label),
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
    return time.monotonic() - started


def shipped(*parts: str) -> Path:
    """Return the path of a file or folder that the package ships."""
    return Path(str(importlib.resources.files("protenix_eba"))).joinpath(*parts)


def recipe(name: str) -> Path:
    """Return the path of a configuration that the package ships."""
    return shipped("recipes", name)


def copy_data(demo: Demo) -> None:
    """Stage 1: copy the shipped MD in ATLAS's layout, what training sees apart from the truth.

    Raises:
        UserError: The folder holds other MD, as of the demo of an earlier version.
    """
    for folder in (demo.data, demo.truth):
        source = shipped(START, "md", folder.name)
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(folder) as temporary:
                shutil.copytree(source, temporary)
        expected, found = map(_folders, (source, folder))
        if found != expected:
            raise UserError(
                f"{folder} holds {', '.join(found)}; the demo's MD is of {', '.join(expected)}",
                f"delete {demo.out}, or give another --out",
            )
    from protenix_eba.structures.trajectories import find_targets, frame_count

    for folder, what in ((demo.data, "MD under U + V"), (demo.truth, "MD under U")):
        for target in find_targets(folder):
            frames = [frame_count(target, replica) for replica in target.trajectory_paths]
            tell(f"{what}: {target.name}, {len(frames)} replicas of {min(frames)} frames")
    with atomic_path(demo.out / "sequences.fasta") as path:
        lines = [f">{target.name}\n{target.name}\n" for target in find_targets(demo.truth)]
        path.write_text("".join(lines), encoding="utf-8")


def _folders(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir() if path.is_dir())


def label(demo: Demo) -> None:
    """Stage 2: label each frame with minus its bias, from a CSV table such as users have."""
    from protenix_eba.energy.bias import write_bias_csv
    from protenix_eba.structures.trajectories import find_targets

    table = demo.out / "bias.csv"
    if not table.is_file():
        write_bias_csv(table, find_targets(demo.data))
    demo.command(
        "protenix-eba", "label", "import-csv", table, "--bias",
        "--input", demo.data, "--out", demo.labels,
    )  # fmt: skip


def embed(demo: Demo) -> None:
    """Stage 3: make the shipped start (no upstream weights here) and store its embeddings."""
    config = recipe("demo_sft.yaml")
    start = demo.out / "start.pt"
    demo.command("protenix-eba", "init", "--config", config, "--start", START, "--out", start)
    demo.command(
        "protenix-eba", "embed", "--config", config, "--checkpoint", start,
        "--input", demo.data, "--out", demo.out / "embeddings",
    )  # fmt: skip


def train(demo: Demo) -> None:
    """Stage 4: supervised fine-tuning, then energy-based alignment from its result."""
    demo.command(*demo.training("demo_sft.yaml", demo.out / "start.pt"))
    demo.command(*demo.training("demo_eba.yaml", demo.out / "sft" / "model.pt"))


def sample(demo: Demo) -> None:
    """Stage 5: sample ensembles with both models, from the sequences alone."""
    checkpoints = [f"{name}={demo.out / name / 'model.pt'}" for name in MODELS.values()]
    demo.command(*demo.sampling(checkpoints, demo.out / "samples"))
    for name in MODELS.values():
        folder = demo.out / "samples" / name
        # A sample that cannot be minimised is reported and left out.
        demo.command(
            "protenix-eba", "label", "--input", folder, "--reference", demo.truth,
            *MINIMISED, "--out", folder / "energies.parquet", "--jobs", str(demo.jobs),
            partial=True,
        )  # fmt: skip
    demo.command(
        "protenix-eba", "label", "--input", demo.truth, *MINIMISED,
        "--per-target", str(SAMPLES), "--out", demo.out / "truth_energies.parquet",
        "--jobs", str(demo.jobs),
    )  # fmt: skip


def evaluate(demo: Demo) -> None:
    """Stage 6: compare ensembles with MD and experiment, side by side, and write the report."""
    folders = []
    for title, name in MODELS.items():
        folders.append(demo.out / "evaluation" / name)
        demo.command(
            "protenix-eba", "evaluate", "--reference", demo.truth,
            "--samples", demo.out / "samples" / name, "--label", title,
            "--training", demo.out / name, "--labels", demo.out / "truth_energies.parquet",
            "--out", folders[-1], "--jobs", str(demo.jobs),
        )  # fmt: skip
    predict_couplings(demo)
    comparison = demo.out / "evaluation" / "comparison"
    demo.command("protenix-eba", "compare", *folders, *demo.couplings.values(), "--out", comparison)
    with atomic_path(demo.out / "report.html") as path:
        shutil.copyfile(comparison / "report.html", path)


def predict_couplings(demo: Demo) -> None:
    """Compare each ensemble of one peptide with its measured couplings."""
    for title, ensemble in demo.ensembles.items():
        demo.command(
            "protenix-eba", "evaluate", "--suite", "nmr", "--samples", ensemble / MEASURED,
            "--reference", shipped(START, f"{MEASURED}_couplings.csv"),
            "--out", demo.couplings[title],
        )  # fmt: skip


def export(demo: Demo) -> None:
    """Stage 7: export a plain checkpoint, and run stock `protenix pred` on it."""
    from protenix_eba.host.environment import prepare_pred_root, protenix_pred_environment

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
        "--dtype", "fp32", "--sample", "4", "--step", "20", "--cycle", "1",
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
        told = f"stock Protenix wrote {path}: {_verdict(path)}"
        tell(told)


def _verdict(path: Path) -> str:
    """Return in words whether a structure file could be a protein's."""
    from protenix_eba.protein.validity import Checker
    from protenix_eba.structures.topologies import read_topology

    topology, xyz = read_topology(path)
    if xyz is None:
        return "no coordinates"
    (reason,) = Checker.of(topology).check(xyz[None]).reasons()
    return f"invalid ({reason})" if reason else "a valid structure"
