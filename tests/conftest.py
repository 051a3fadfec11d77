import os

# Several test processes share two cores: one thread each. Before the first import of torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import csv
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from protenix_eba.host import environment

environment.prepare_environment()
environment.ensure_ccd_cache()

# A Protenix in all its parts, small enough to be trained in a test.
SMALL_MODEL = """
trainer: eba
project: test
run_name: run
model_name: protenix_tiny_default_v0.5.0
c_s: 32
c_z: 16
model:
  N_cycle: 1
  msa_module: {n_blocks: 1}
  pairformer: {n_blocks: 1}
  confidence_head: {n_blocks: 1}
  diffusion_module:
    c_token: 64
    transformer: {n_blocks: 1}
blocks_per_ckpt: null
max_steps: 4
lr: 0.001
lr_scheduler: constant
warmup_steps: 1
iters_to_accumulate: 2
log_interval: 1
checkpoint_interval: 2
eval_interval: 2
ema_decay: 0.9
use_wandb: false
eba:
  objective: eba
  n_conformers: 3
  n_noise: 2
  diffusion_temperature: 10.0
  replicas: [1, 2]
  validation_replicas: [3]
  validation_items: 2
"""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """A shell that starts the suite in the background lets all that is below it ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def demo_data():
    import importlib.resources

    return Path(str(importlib.resources.files("protenix_eba") / "demo_data"))


@pytest.fixture(scope="session")
def eval_reference(tmp_path_factory):
    """The evaluator's reference ensembles in full, from tests/data/eval_reference."""
    from pack_eval_reference import unpack

    folder = tmp_path_factory.mktemp("reference") / "eval_reference"
    unpack(Path(__file__).parent / "data" / "eval_reference", folder)
    return folder


@pytest.fixture(scope="session")
def shuffle_atoms():
    """The same trajectory with the atoms of each residue in another order, as other programs do."""
    import mdtraj
    import numpy as np

    def shuffle(md):
        residue = [atom.residue.index for atom in md.topology.atoms]
        order = np.lexsort((np.random.default_rng(0).permutation(md.n_atoms), residue))
        topology = mdtraj.Topology()
        chain = topology.add_chain()
        made = [topology.add_residue(r.name, chain, resSeq=r.resSeq) for r in md.topology.residues]
        for index in order:
            atom = md.topology.atom(index)
            topology.add_atom(atom.name, atom.element, made[atom.residue.index])
        return mdtraj.Trajectory(md.xyz[:, order], topology)

    return shuffle


@pytest.fixture(scope="session")
def a3m():
    """The text of an alignment with gaps, insertions and other residues, drawn at random."""
    import numpy as np

    def make(query, n_rows=6, seed=0, species=False):
        generator = np.random.default_rng(seed)
        lines = [">query", query]
        for number in range(n_rows):
            row = [generator.choice([*"ACDEFGHIKLMNPQRSTVWY-", *(code * 20)]) for code in query]
            row[number % len(row)] += "gh"[: number % 3]
            name = f"UniRef100_A0A{number}_{1000 + number}/" if species else f"hit{number}"
            lines += [f">{name} 1-{len(query)}", "".join(row)]
        return "\n".join(lines) + "\n"

    return make


# The command ends itself as it is about to keep its third file: there is no race to lose.
ENDED = """
import os, signal, sys
from protenix_eba.cli.main import run

number, suffix, kept = int(sys.argv[1]), sys.argv[2], []

def end_at_third(event, args):
    if event == "os.rename" and str(args[1]).endswith(suffix):
        kept.append(args[1])
        if len(kept) == 3:
            signal.raise_signal(number)  # in this thread, and before the next line

sys.addaudithook(end_at_third)
sys.exit(run(sys.argv[3:]))
"""


@pytest.fixture(scope="session")
def ended():
    """Run a command that a signal ends when two files of a suffix are kept; its status."""

    def end(number, suffix, words):
        program = [sys.executable, "-c", ENDED, str(int(number)), suffix]
        line = [*program, *map(str, words)]
        return subprocess.run(line, stderr=subprocess.DEVNULL, timeout=300, check=False).returncode

    return end


@pytest.fixture(scope="session")
def small_run(tmp_path_factory, demo_data):
    """A folder with a configuration, a random start and its embeddings of the shipped peptides."""
    from protenix_eba.cli.main import run

    folder = tmp_path_factory.mktemp("small")
    config = folder / "small.yaml"
    extra = (
        f"  data_dir: {demo_data}\n  labels: {demo_data / 'labels.parquet'}\n"
        f"  embeddings: {folder / 'embeddings'}\n"
        f"load_checkpoint_path: {folder / 'start.pt'}\n"
    )
    config.write_text(SMALL_MODEL + extra, encoding="utf-8")
    common = ["--config", str(config)]
    assert run(["init", *common, "--out", str(folder / "start.pt")]) == 0
    embed = ["--checkpoint", str(folder / "start.pt"), "--input", str(demo_data)]
    assert run(["embed", *common, *embed, "--out", str(folder / "embeddings")]) == 0
    return folder


@pytest.fixture(scope="session")
def awake(small_run):
    """The small model with weights that give no zeros, as a fresh diffusion module's do."""

    def make():
        """Its configuration and weights, and the generator that made these."""
        import torch

        from protenix_eba.cli.session import load_configuration
        from protenix_eba.host.weights import load_checkpoint

        generator = torch.Generator().manual_seed(0)
        state = {
            key: value + 0.05 * torch.randn(value.shape, generator=generator)
            for key, value in load_checkpoint(small_run / "start.pt").items()
        }
        return load_configuration(small_run / "small.yaml"), state, generator

    return make


@pytest.fixture(scope="session")
def protenix_train():
    """Start protenix-train: in forks of a warm process, or cold by a launcher, torchrun."""
    from warm import Warm

    warm = Warm()

    def start(*words, processes=1, launcher=()):
        if not launcher:
            return warm.start(words) if processes == 1 else warm.start_all(words, processes)
        program = Path(sys.executable).parent / "protenix-train"
        return subprocess.Popen(
            [*launcher, program, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    yield start
    warm.close()


@pytest.fixture(scope="session")
def train(small_run, protenix_train):
    """Run protenix-train on the small model in a process of its own, as users do."""

    def start(base: Path, *words: str, processes: int = 1):
        arguments = ["--plugin", "protenix_eba"]
        if "--config" not in words:
            arguments += ["--config", small_run / "small.yaml"]
        return protenix_train(*arguments, "--base_dir", base, *words, processes=processes)

    return start


@pytest.fixture(scope="session")
def read_log():
    """Rows of a run's log without the times."""

    def read(path: Path) -> list[dict[str, float]]:
        with open(path, newline="", encoding="utf-8") as handle:
            return [
                {key: float(value) for key, value in row.items() if key not in ("seconds", "wait")}
                for row in csv.DictReader(handle)
            ]

    return read
