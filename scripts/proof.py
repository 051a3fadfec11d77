"""The proof: MD under a bias in, the ensemble without it out, and how near each method comes.

Glycine chains are simulated under U + V (`biased`, `strong`) or hot, a model learns that, and is
then aligned; the ensemble under U at 300 K was simulated apart and is never shown to training.
Everything runs through the commands that users have. A run that is stopped goes on from what is
finished. All that the document shows is derived from docs/proof/results.json, which this writes.

Examples:
    python scripts/proof.py --out runs/proof --jobs 2     # hours of CPU time; then the document
    python scripts/proof.py --out runs/proof --arms eba dpo --seeds 1
    python scripts/proof.py --check                       # the document against the stored results
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from joblib import Parallel, delayed

import glycine_bias
import proof_report
from make_peptide_md import SETS, named
from make_peptide_md import run as simulate
from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path
from protenix_eba.core.progress import console
from protenix_eba.energy.bias import write_bias_csv
from protenix_eba.eval.metrics.features import torsions_of
from protenix_eba.plugin_api import ENTRY_POINT_GROUP
from protenix_eba.protein.chain_ends import end_distance
from protenix_eba.protein.validity import Checker
from protenix_eba.structures.trajectories import Target, find_targets, frame_count, read_frames
from user_errors import ends_on_user_error

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "protenix_eba" / "recipes"
CONFIG = RECIPES / "demo_eba.yaml"
LENGTHS = (3, 4, 5, 6)
REPLICAS = 3
N_SAMPLES = 400
SAMPLERS = {
    # 64 angstrom hide these molecules; from there 30 steps leave a Gaussian's spread to 1%.
    "exact": ("--preset", "exact", "--steps", "30", "--s-max", "4", "--s-min", "0.001"),
    "default": ("--steps", "20"),
}


@dataclass(frozen=True)
class System:
    """A set of MD to train on.

    Attributes:
        lengths: Residues of the chains that training sees.
        temperature_K: Of the weights exp(-E / kT) of what its labels hold.
        sft_steps: Supervised steps from the shipped start; 0 where that is the model already.
        energies: Whether labels are minimised energies; else minus the bias.
    """

    lengths: tuple[int, ...]
    temperature_K: float = 300.0
    sft_steps: int = 0
    energies: bool = False


SYSTEMS = {
    # The shipped start was trained on these very frames.
    "biased": System((3, 4, 6)),
    "strong": System((4,), sft_steps=800),
    # exp(-E / k 300) / exp(-E / k 450) = exp(-E / k 900)
    "hot": System((4,), temperature_K=900.0, sft_steps=800, energies=True),
}


@dataclass(frozen=True)
class Arm:
    """A way to train.

    Attributes:
        title: In tables.
        options: Keys of the configuration, over those of the recipe.
        systems: Where it is tried.
        labels: Kind of its labels: "bias", the energies -V that were imported; "energies",
            minimised ones, as in the paper; "computed", -V from an energy function, which samples
            can be given too.
        keys: Keys of the configuration outside the section `eba`.
        default_sampler: Whether it is judged under the default sampler as well.
        steps: Of training, where not the recipe's.
    """

    title: str
    options: dict[str, str] = field(default_factory=dict)
    systems: tuple[str, ...] = ("biased",)
    labels: str = "bias"
    default_sampler: bool = False
    steps: str | None = None
    keys: dict[str, str] = field(default_factory=dict)


EVERYWHERE = ("biased", "strong", "hot")
# In the place of the recipe's likelihood weights: those of the supervised stage.
CUSTOM = {
    "error_weights": "custom",
    "weight_lddt": "0",
    "weight_sigma_data": "4",
    "sft_weight": "10",
}
# Rewards are -T / 2 times the error: T = 2 takes the model for what it is.
REWARD = {"diffusion_temperature": "2"}
# Samples get -V as they are: it is defined for each conformation.
ON_POLICY = {"dataset": "replay"}
SAMPLED = {
    "trainer": "on_policy",
    "ema_decay": "0.9",
    "replay.refresh_steps": "50",
    "replay.new_samples": "128",
    "replay.max_samples": "256",
    "replay.energy": "initial",
    "replay.energy_function": glycine_bias.NAME,
    "replay.preset": "exact",
    "replay.sampler_steps": "20",
    "replay.s_max": "4",
    "replay.s_min": "0.001",
}
ARMS = {
    "plain": Arm(
        "plain fine-tuning, as long", {"objective": "denoising", "sampling_temperature_K": "0"}
    ),
    "weighted": Arm(
        "importance-weighted fine-tuning", {"objective": "denoising"}, EVERYWHERE,
        default_sampler=True,
    ),
    "weighted_900": Arm(
        "importance-weighted fine-tuning, 900 steps", {"objective": "denoising"}, steps="900"
    ),
    "eba": Arm("EBA", {}, EVERYWHERE, default_sampler=True),
    "eba_T025": Arm("EBA, T = 0.25", {"diffusion_temperature": "0.25"}),
    "eba_900": Arm("EBA, 900 steps", steps="900"),
    "eba_75": Arm("EBA, 75 steps", steps="75"),
    "eba_150": Arm("EBA, 150 steps", steps="150"),
    "eba_bound": Arm("EBA, expectation `bound`", {"expectation": "bound"}),
    "eba_auto": Arm(
        "EBA, EDM weights, T `auto`", CUSTOM | {"diffusion_temperature": "auto"}
    ),
    "eba_T50": Arm("EBA, EDM weights, T = 50", CUSTOM | {"diffusion_temperature": "50"}),
    "eba_T5000": Arm("EBA, EDM weights, T = 5000", CUSTOM | {"diffusion_temperature": "5000"}),
    "eba_no_reference": Arm("EBA without reference", {"eba_with_ref": "false"}),
    "dpo": Arm(
        "EBA-DPO",
        REWARD | {"objective": "eba_dpo", "n_conformers": "2", "n_noise": "64"},
        EVERYWHERE,
    ),
    "plackett_luce": Arm(
        "Plackett-Luce", REWARD | {"objective": "plackett_luce"}
    ),
    "paper": Arm(
        "EBA with the paper's weights",
        {"eba_with_ref": "false", "length_exponent": "0.5", "sampling_temperature_K": "0"},
        labels="energies",
    ),
    # Beside the next: without MD to hold the molecules the recipe's rate breaks them.
    "eba_slow": Arm("EBA, lr 1e-4", keys={"lr": "0.0001"}),
    "on_policy": Arm(
        "EBA on policy, lr 1e-4", ON_POLICY, labels="computed",
        keys=SAMPLED | {"replay.md_share": "0", "lr": "0.0001"},
    ),
    # What a refresh is worth: never again, and twice as often.
    "on_policy_once": Arm(
        "EBA on policy, sampled once", ON_POLICY, labels="computed",
        keys=SAMPLED | {"replay.md_share": "0", "lr": "0.0001", "replay.refresh_steps": "300"},
    ),
    "on_policy_25": Arm(
        "EBA on policy, sampled every 25 steps", ON_POLICY, labels="computed",
        keys=SAMPLED | {"replay.md_share": "0", "lr": "0.0001", "replay.refresh_steps": "25"},
    ),
    "on_policy_900": Arm(
        "EBA on policy, lr 1e-4, 900 steps", ON_POLICY, labels="computed", steps="900",
        keys=SAMPLED | {"replay.md_share": "0", "lr": "0.0001"},
    ),
    "mixture": Arm(
        "EBA, half on policy", ON_POLICY, labels="computed",
        keys=SAMPLED | {"replay.md_share": "0.5"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Proof:
    """Where the experiment keeps its files, and how it runs commands.

    Attributes:
        out: Its folder.
    """

    out: Path

    def run(self, *words: str | Path, log: Path, partial: bool = False) -> None:
        """Run a command of this installation on one core, its output in a file.

        Raises:
            UserError: It failed; with the end of its output.
        """
        line = [str(word) for word in words]
        log.parent.mkdir(parents=True, exist_ok=True)
        program = Path(sys.executable).parent / line[0]
        env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join([str(self.plugin()), *filter(None, sys.path)])
        with log.open("w", encoding="utf-8") as handle:
            done = subprocess.run(
                [program, *line[1:]], stdout=handle, stderr=subprocess.STDOUT, env=env, check=False
            )
        if done.returncode and not (partial and done.returncode == 3):
            tail = log.read_text(encoding="utf-8", errors="replace")[-600:]
            raise UserError(
                f"exit status {done.returncode}: {' '.join(line)}\n{tail}", f"see {log}"
            )

    def plugin(self) -> Path:
        """Return the folder that says where the plugin `glycine_bias` is, made if missing."""
        name = glycine_bias.__name__
        folder = self.out / "plugin"
        about = folder / f"{name}-1.dist-info"
        about.mkdir(parents=True, exist_ok=True)
        points = f"[{ENTRY_POINT_GROUP}]\n{name} = {name}:plugin\n"
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (about / "entry_points.txt").write_text(points)
        return folder

    def md(self, name: str) -> Path:
        """Return the folder of the MD of one set."""
        return self.out / "md" / name

    def labels(self, system: str, kind: str = "bias") -> Path:
        """Return the path of a system's label table."""
        kind = "energies" if SYSTEMS[system].energies else kind
        return self.out / "labels" / f"{system}_{kind}.parquet"

    def data(self, system: str) -> Path:
        """Return the folder of the targets that training sees."""
        return self.out / "data" / system

    def base(self, system: str) -> Path:
        """Return the path of the model before alignment."""
        if not SYSTEMS[system].sft_steps:
            return self.out / "start.pt"
        return self.out / "runs" / f"{system}_sft" / "model.pt"


def prepare(proof: Proof, systems: Sequence[str], jobs: int, kinds: set[str]) -> None:
    """Make MD, labels, start, embeddings, and the supervised models.

    Args:
        proof: The experiment.
        systems: Which.
        jobs: Processes.
        kinds: Kinds of labels that arms need, see `Arm`.
    """
    wanted = [*systems, "unbiased"]
    for name in wanted:
        lengths = list(LENGTHS if name in ("biased", "unbiased") else SYSTEMS[name].lengths)
        simulate(proof.md(name), named(["G" * n for n in lengths]), REPLICAS, SETS[name], jobs)
    for system in systems:
        link_data(proof, system)
        label(proof, system, jobs)
    if "biased" in systems and "energies" in kinds:
        label_minimised(proof, "biased", jobs)
    if "biased" in systems and "computed" in kinds:
        label_computed(proof, "biased")
    if not (proof.out / "start.pt").is_file():
        words = ("protenix-eba", "init", "--config", CONFIG, "--start", "glycine", "--out")
        proof.run(*words, proof.out / "start.pt", log=proof.out / "logs" / "init.log")
    proof.run(
        "protenix-eba", "embed", "--config", CONFIG, "--checkpoint", proof.out / "start.pt",
        "--input", proof.md("unbiased"), "--out", proof.out / "embeddings",
        log=proof.out / "logs" / "embed.log",
    )  # fmt: skip
    fasta = "".join(f">gly{n}\n{'G' * n}\n" for n in (4, 5))
    (proof.out / "sequences.fasta").write_text(fasta, encoding="utf-8")
    for system in systems:
        if SYSTEMS[system].sft_steps and not proof.base(system).is_file():
            options = {"objective": "denoising", "sft_weight": "0"}
            first = Arm("", options, steps=str(SYSTEMS[system].sft_steps))
            train(proof, system, f"{system}_sft", proof.out / "start.pt", first, 0)


def link_data(proof: Proof, system: str) -> None:
    """Make a folder of links to the targets that training sees, and no others."""
    folder = proof.data(system)
    folder.mkdir(parents=True, exist_ok=True)
    for length in SYSTEMS[system].lengths:
        link = folder / f"gly{length}"
        if not link.exists():
            link.symlink_to(proof.md(system).resolve() / link.name)


def label(proof: Proof, system: str, jobs: int) -> None:
    """Label each frame with minus its bias, or with its minimised energy."""
    if SYSTEMS[system].energies:
        label_minimised(proof, system, jobs)
        return
    out = proof.labels(system)
    if out.is_file():
        return
    table = out.with_suffix(".csv")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bias_csv(table, find_targets(proof.data(system)))
    words = ("--bias", "--input", proof.data(system), "--out", out)
    proof.run(
        "protenix-eba", "label", "import-csv", table, *words,
        log=proof.out / "logs" / f"label_{system}.log",
    )  # fmt: skip


def label_minimised(proof: Proof, system: str, jobs: int) -> None:
    """Label 200 frames of each chain by minimisation in the MD's own force field."""
    out = proof.labels(system, "energies")
    if not out.is_file():
        proof.run(
            "protenix-eba", "label", "--input", proof.data(system), "--out", out,
            "--force-field", "amber14", "--solvent", "obc2", "--protocol", "two-stage",
            "--per-target", "200", "--jobs", str(jobs), partial=True,
            log=proof.out / "logs" / f"energies_{system}.log",
        )  # fmt: skip


def label_computed(proof: Proof, system: str) -> None:
    """Compute -V of each frame by the energy function that samples get theirs from."""
    out = proof.labels(system, "computed")
    if not out.is_file():
        proof.run(
            "protenix-eba", "label", "--input", proof.data(system), "--out", out, "--plugin",
            glycine_bias.__name__, "--energy", glycine_bias.NAME, "--no-minimize",
            log=proof.out / "logs" / f"computed_{system}.log",
        )  # fmt: skip


def train(proof: Proof, system: str, name: str, start: Path, arm: Arm, seed: int) -> None:
    """Run protenix-train once."""
    keys = {
        "temperature_K": str(SYSTEMS[system].temperature_K),
        "data_dir": str(proof.data(system)),
        "labels": str(proof.labels(system, arm.labels)),
        "embeddings": str(proof.out / "embeddings"),
        **arm.options,
    }
    steps = {"max_steps": arm.steps} if arm.steps else {}
    keys = {f"eba.{key}": value for key, value in keys.items()} | steps | arm.keys
    words = [word for key, value in keys.items() for word in (f"--{key}", value)]
    proof.run(
        "protenix-train", "--plugin", f"protenix_eba,{glycine_bias.__name__}", "--config", CONFIG,
        "--base_dir", proof.out / "runs", "--run_name", name, "--load_checkpoint_path", start,
        "--seed", str(seed), *words,
        log=proof.out / "logs" / f"{name}.log",
    )  # fmt: skip


def one_run(proof: Proof, system: str, arm: str, seed: int) -> None:
    """Train one arm with one seed, sample, keep the numbers and let the weights go."""
    name = f"{system}_{arm}_{seed}"
    results = proof.out / "results" / f"{name}.json"
    if results.is_file():
        return
    chosen = ARMS[arm]
    train(proof, system, name, proof.base(system), chosen, seed + 1)
    folder = proof.out / "runs" / name
    samplers = list(SAMPLERS) if chosen.default_sampler else ["exact"]
    rows = sampled(proof, folder / "model.pt", name, seed, samplers)
    ratios = errors(proof, system, folder / "model.pt")
    rows.append({"target": "gly4", "implied": ratios})
    save(results, [row | {"system": system, "arm": arm, "seed": seed} for row in rows])
    shutil.rmtree(folder)


def sampled(
    proof: Proof, checkpoint: Path, name: str, seed: int, samplers: Sequence[str]
) -> list[dict[str, Any]]:
    """Sample a model under each of some samplers."""
    rows = []
    for sampler in samplers:
        folder = proof.out / "samples" / name / sampler
        proof.run(
            "protenix-eba", "sample", "--config", CONFIG, "--checkpoint", checkpoint,
            "--input", proof.out / "sequences.fasta", "--embeddings", proof.out / "embeddings",
            "--out", folder, "-n", str(N_SAMPLES), "--seed", str(1000 + seed), *SAMPLERS[sampler],
            "--precision", "bf16", log=proof.out / "logs" / f"sample_{name}_{sampler}.log",
        )  # fmt: skip
        rows += [described(target) | {"sampler": sampler} for target in find_targets(folder)]
    return rows


def errors(proof: Proof, system: str, after: Path | None = None) -> dict[str, Any]:
    """Run proof_errors.py on the chain of four residues and its replica for validation."""
    name = after.parent.name if after else system
    out = proof.out / "errors" / f"{name}.json"
    out.parent.mkdir(exist_ok=True)
    proof.run(
        "python", Path(__file__).with_name("proof_errors.py"), "--config", CONFIG,
        "--embeddings", proof.out / "embeddings", "--before", proof.base(system),
        *(("--after", after) if after else ()), "--md", proof.data(system), "--target", "gly4",
        "--out", out, log=proof.out / "logs" / f"errors_{name}.log",
    )  # fmt: skip
    return dict(json.loads(out.read_text(encoding="utf-8")))


def described(target: Target) -> dict[str, Any]:
    """Return counts and distances of an ensemble, from which all that is shown is derived."""
    topology = mdtraj.load_pdb(str(target.topology_path)).topology
    heavy = np.array([atom.index for atom in topology.atoms if atom.element.symbol != "H"])
    topology, checker = topology.subset(heavy), Checker.of(topology.subset(heavy))
    replicas = []
    for replica in target.trajectory_paths:
        frames = np.arange(frame_count(target, replica))
        replicas.append(read_frames(target, replica, frames)[:, heavy])
    xyz = np.concatenate(replicas)
    checked = checker.check(xyz)
    bonds = np.linalg.norm(xyz[:, checker.bonds[:, 0]] - xyz[:, checker.bonds[:, 1]], axis=-1)
    return {
        "target": target.name,
        "valid": int(checked.valid.sum()),
        "inverted": int((checked.d_residues > 0).sum()),
        "bond_rms_angstrom": float(np.sqrt(((bonds - checker.bond_lengths) ** 2).mean())),
        "distance_pm": [
            np.rint(100 * end_distance(topology, part)).astype(int).tolist() for part in replicas
        ],
        "torsions": [torsion_counts(topology, part) for part in replicas],
    }


def torsion_counts(topology: mdtraj.Topology, xyz: np.ndarray) -> list[int]:
    """Return the joint histogram of phi and psi, 12 x 12, over all residues."""
    torsions = torsions_of(topology, xyz)
    trajectory = mdtraj.Trajectory(xyz / 10, topology)
    phi, psi = (
        mdtraj.compute_dihedrals(trajectory, rows, periodic=False).ravel()
        for rows in (torsions.phi, torsions.psi)
    )
    cells = [np.floor((a + np.pi) / (2 * np.pi) * 12).astype(int) % 12 for a in (phi, psi)]
    return np.bincount(12 * cells[0] + cells[1], minlength=144).tolist()


def save(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows, all or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(rows), encoding="utf-8")


def references(proof: Proof, systems: Sequence[str]) -> None:
    """Describe the MD itself, and the models before alignment."""
    for name in [*systems, "unbiased"]:
        results = proof.out / "results" / f"md_{name}.json"
        if not results.is_file():
            rows = [described(target) for target in find_targets(proof.md(name))]
            rows = [row for row in rows if row["target"] in ("gly4", "gly5")]
            save(results, [row | {"system": name, "arm": "md", "seed": 0} for row in rows])
    for system in systems:
        results = proof.out / "results" / f"{system}_sft.json"
        if not results.is_file():
            rows = sampled(proof, proof.base(system), f"{system}_sft", 0, list(SAMPLERS))
            if system == "biased":
                rows.append({"target": "gly4", "kernel": errors(proof, system)})
            save(results, [row | {"system": system, "arm": "sft", "seed": 0} for row in rows])


def run_each(work: Callable[..., None], runs: Sequence[tuple[Any, ...]], jobs: int) -> None:
    """Do some work for each run, so many at a time, and say how many are done."""
    made = Parallel(n_jobs=jobs, backend="threading", return_as="generator_unordered")(
        delayed(work)(*each) for each in runs
    )
    for number, _ in enumerate(made, start=1):
        console.print(f"{number} of {len(runs)} runs")


def collect(proof: Proof) -> list[dict[str, Any]]:
    """Read all results, in the order of their names."""
    files = sorted((proof.out / "results").glob("*.json"))
    return [row for path in files for row in json.loads(path.read_text(encoding="utf-8"))]


def all_runs(arms: Iterable[str], systems: Sequence[str], seeds: int) -> list[tuple[str, str, int]]:
    """Return every run, seed by seed, so that a part of them is a whole comparison."""
    return [
        (system, arm, seed)
        for seed in range(seeds)
        for arm in arms
        for system in ARMS[arm].systems
        if system in systems
    ]


def main() -> int:
    """Run what is not there yet, then write the results and the document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/proof"),
        help="folder to write to [default: %(default)s]",
    )
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=SYSTEMS,
        default=list(SYSTEMS),
        help="simulated systems to learn from [default: all]",
    )
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=ARMS,
        default=list(ARMS),
        help="methods to compare [default: all]",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        help="number of random seeds for each method [default: %(default)s]",
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="number of processes [default: %(default)s]"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="run nothing; derive the document from the stored results and compare",
    )
    options = parser.parse_args()
    with ends_on_user_error():
        return proof_report.check() if options.check else run(options)


def run(options: argparse.Namespace) -> int:
    """Make what is missing, then the document; return status 0."""
    proof = Proof(options.out.resolve())
    kinds = {ARMS[arm].labels for arm in options.arms}
    prepare(proof, options.systems, options.jobs, kinds)
    references(proof, options.systems)
    runs = all_runs(options.arms, options.systems, options.seeds)
    run_each(partial(one_run, proof), runs, options.jobs)
    proof_report.write(collect(proof), {name: arm.title for name, arm in ARMS.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
