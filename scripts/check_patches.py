"""Check the patch series against a Protenix: `make patches`.

    python scripts/check_patches.py [--host FOLDER] [--keep FOLDER]

The series is applied to a copy of the installed release, or of a checkout given with --host.
Copies before and after it are then asked the same questions. Nothing outside of the scratch
folder is written, except Protenix's chemical components in the user's cache if they are absent.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from protenix_eba.host.environment import protenix_root

REPOSITORY = Path(__file__).resolve().parent.parent
PATCHES = sorted((REPOSITORY / "patches").glob("*.patch"))
PROBE = REPOSITORY / "scripts" / "check_patches_probe.py"
PACKAGES = ("configs", "protenix", "runner", "scripts", "tests")
ADDED_KEYS = {"trainer", "loss_name", "dataloader"}
WITHOUT_MINI_ROLLOUT = (
    "loss.weight.alpha_confidence=0",
    "chain_permutation.train.mini_rollout=false",
    "atom_permutation.train.mini_rollout=false",
)
TINY_RUN = """\
trainer: eba
project: check
run_name: run
model_name: protenix_tiny_default_v0.5.0
c_s: 32
c_z: 16
model:
  N_cycle: 1
  msa_module: {n_blocks: 1}
  pairformer: {n_blocks: 1}
  confidence_head: {n_blocks: 1}
  diffusion_module: {c_token: 64, transformer: {n_blocks: 1}}
blocks_per_ckpt: null
max_steps: 1
lr: 1.0e-3
log_interval: 1
checkpoint_interval: 0
eval_interval: 0
use_wandb: false
eba: {objective: eba, n_conformers: 3, n_noise: 2, diffusion_temperature: 10.0}
deepspeed: {zero_optimization: {stage: 0}}
"""


class CheckFailed(Exception):
    """A check found that the patches do not do what they promise."""


@dataclass(frozen=True)
class Host:
    """A copy of Protenix; what runs on it writes its files beside it."""

    folder: Path

    def run(self, *command, check=True):
        """Run Python with this copy as the installed Protenix, and this repository's package."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(REPOSITORY)]),
            # Our commands find the chemical components themselves, the host's is told.
            "PROTENIX_ROOT_DIR": str(protenix_root()),
            "LAYERNORM_TYPE": "torch",
            "TRIANGLE_ATTENTION": "torch",
            "TRIANGLE_MULTIPLICATIVE": "torch",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            env=environment, cwd=self.folder, capture_output=True, text=True,
        )  # fmt: skip
        if check and done.returncode:
            raise CheckFailed(f"{command} failed:\n{(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def ask(self, question, *words):
        """Return the answer of check_patches_probe.py about this copy."""
        out = self.folder.with_suffix(".json")
        self.run(PROBE, question, out, *words)
        return json.loads(out.read_text(encoding="utf-8"))

    def test(self, names):
        """Run tests of Protenix.

        Returns:
            The numbers of passed and failed tests in each file.
        """
        out = self.folder.with_suffix(".xml")
        out.unlink(missing_ok=True)
        files = [f"tests/{name}" for name in names]
        self.run(
            "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", self.folder,
            "--junitxml", out, *files, check=False,
        )  # fmt: skip
        if not out.is_file():
            raise CheckFailed(f"pytest wrote no report on {', '.join(names)}")
        counts = {name: [0, 0] for name in names}
        for case in ElementTree.parse(out).iter("testcase"):
            bad = any(case.find(tag) is not None for tag in ("failure", "error"))
            file = re.search(r"test_\w+", case.get("classname") or case.get("name"))[0]
            if case.find("skipped") is None:
                counts[f"{file}.py"][bad] += 1
        return counts


def git(folder, *words):
    """Run git in a folder as a committer of no name, without the user's settings."""
    identity = ["-c", "user.name=check", "-c", "user.email=check@localhost"]
    quiet = ["-c", "core.hooksPath=/dev/null", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *quiet, *map(str, words)], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise CheckFailed(f"git {words[0]} failed in {folder}:\n{done.stdout}{done.stderr}")
    return done.stdout


def installed_protenix():
    """Return the folder that Protenix's packages are installed in."""
    spec = importlib.util.find_spec("protenix")
    if spec is None:
        raise CheckFailed("Protenix is not installed: give a checkout with --host")
    return Path(spec.origin).parent.parent


def copy_host(source, folder, patches=()):
    """Copy Protenix into a git repository of its own and apply patches."""
    ignore = shutil.ignore_patterns("__pycache__")
    if absent := [package for package in PACKAGES if not (source / package).is_dir()]:
        raise CheckFailed(f"{source} is no Protenix: it has no folder {', '.join(absent)}")
    for package in PACKAGES:
        shutil.copytree(source / package, folder / package, ignore=ignore)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Protenix")
    if patches:
        git(folder, "am", "-q", "--whitespace=error-all", *patches)
    return Host(folder)


def changed_files(patches, kind):
    """Return files that patches change ("M") or add ("A"), as `git apply` reads them."""
    added = {line.split()[-1] for p in patches for line in _summary(p) if "create mode" in line}
    every = {line.split("\t")[-1] for p in patches for line in _numstat(p)}
    return sorted(added if kind == "A" else every - added)


def _summary(patch):
    return git(REPOSITORY, "apply", "--summary", patch).splitlines()


def _numstat(patch):
    return git(REPOSITORY, "apply", "--numstat", patch).splitlines()


def test_names(files):
    """Return the names of those files that are tests."""
    return [Path(name).name for name in files if re.match(r"tests/test_\w+\.py$", name)]


def check_upstreams_tests(clean, patched):
    """Check that Protenix's tests of changed modules pass as before."""
    changed = [name for name in changed_files(PATCHES, "M") if name.endswith(".py")]
    modules = [name.removesuffix(".py").replace("/", ".") for name in changed]
    names = [
        path.name
        for path in sorted((clean.folder / "tests").glob("test_*.py"))
        if any(module in path.read_text(encoding="utf-8") for module in modules)
    ]
    before, after = clean.test(names), patched.test(names)
    if before != after:
        raise CheckFailed(f"[passed, failed] were {before}, are {after}")
    return f"{', '.join(names)}: {sum(good for good, _ in after.values())} passed, as before"


def check_new_tests(patched):
    """Check that the tests that the series adds pass."""
    counts = patched.test(test_names(changed_files(PATCHES, "A")))
    bad = {name: n for name, n in counts.items() if n[1] or not n[0]}
    if bad:
        raise CheckFailed(f"[passed, failed]: {bad}")
    return f"{len(counts)} files, {sum(good for good, _ in counts.values())} passed"


def check_fixes(source, folder):
    """Check that each fix brings a test that fails without it."""
    fixes = [patch for patch in PATCHES if "-fix-" in patch.name]
    before = copy_host(source, folder, [patch for patch in PATCHES if patch not in fixes])
    git(folder, "apply", "--include=tests/*", *fixes)
    counts = before.test(test_names(changed_files(fixes, "A")))
    good = [name for name, (_, failed) in counts.items() if not failed]
    if good or len(counts) < len(fixes):
        raise CheckFailed(f"without the fixes these tests pass: {', '.join(good)}")
    return ", ".join(f"{name} {failed} failed" for name, (_, failed) in counts.items())


def check_configs(clean, patched):
    """Check that no model's resolved configuration changes, but for the new keys."""
    before, after = clean.ask("configs"), patched.ask("configs")
    for name, configs in after.items():
        different = {
            key
            for key in configs.keys() | before[name].keys()
            if configs.get(key) != before[name].get(key)
        }
        if different != ADDED_KEYS:
            raise CheckFailed(f"{name}: these top-level keys differ: {sorted(different)}")
    if before.keys() != after.keys():
        raise CheckFailed("other models")
    return f"{len(after)} models, equal but for the new {', '.join(sorted(ADDED_KEYS))}"


def check_own_step(clean, patched):
    """Check that a step of Protenix's own trainer gives the same losses and weights."""
    before, after = clean.ask("step"), patched.ask("step")
    if before["losses"] != after["losses"] or before["weights"] != after["weights"]:
        raise CheckFailed(f"before: {before}\nafter: {after}")
    without = patched.ask("step", *WITHOUT_MINI_ROLLOUT)
    if "train/mse_loss.avg" not in without["losses"] or "train/plddt_loss.avg" in without["losses"]:
        raise CheckFailed(f"without the mini-rollout: {without['losses']}")
    return (
        f"loss {before['losses']['train/loss.avg']!r} before and after, "
        f"{len(before['losses'])} losses and all weights equal; without the mini-rollout it trains"
    )


def check_plugin(clean, patched, folder):
    """Check one step of our plugin: the release with our command, the patched host with both."""
    demo_data = REPOSITORY / "protenix_eba" / "demo_data"
    config, start, embeddings = folder / "run.yaml", folder / "start.pt", folder / "embeddings"
    folder.mkdir()
    config.write_text(TINY_RUN, encoding="utf-8")
    command = ("-m", "protenix_eba.cli.main")
    clean.run(*command, "init", "--config", config, "--out", start)
    clean.run(
        *command, "embed", "--config", config, "--checkpoint", start,
        "--input", demo_data, "--out", embeddings,
    )  # fmt: skip
    words = (
        "--plugin", "protenix_eba", "--config", config, "--load_checkpoint_path", start,
        "--eba.data_dir", demo_data, "--eba.labels", demo_data / "labels.parquet",
        "--eba.embeddings", embeddings,
    )  # fmt: skip
    runs = {
        "protenix-train on the release": (clean, "protenix_eba.cli.train"),
        "protenix-train on the patched host": (patched, "protenix_eba.cli.train"),
        "runner/train.py of the patched host": (patched, "runner.train"),
    }
    results = {
        name: one_step(host, module, words, folder / str(number))
        for number, (name, (host, module)) in enumerate(runs.items())
    }
    first = results["protenix-train on the release"]
    for name, result in results.items():
        different = [key for key, value in result.items() if value != first[key]]
        if different:
            raise CheckFailed(f"{name}: another {', '.join(different)}")
    return f"{len(runs)} ways, configuration and weights equal, loss {first['loss']}"


def one_step(host, module, words, base):
    """Return the configuration, the loss as it was logged, and a digest of the weights."""
    import yaml

    from protenix_eba.host.weights import load_checkpoint

    words = ("-m", module, *words, "--base_dir", base)
    configs = yaml.safe_load(host.run(*words, "--print-config"))
    for key in (ADDED_KEYS - {"trainer"}) | {"base_dir"}:
        configs.pop(key, None)
    # DeepSpeed's threads can abort a process that has done its work, at its very end: what was
    # written tells.
    host.run(*words, check=False)
    log = base / "run" / "log.csv"
    if not log.is_file() or not (base / "run" / "finished.json").is_file():
        raise CheckFailed(f"{module} did not train:\n{host.run(*words)[-2000:]}")
    header, row = (line.split(",") for line in log.read_text(encoding="utf-8").splitlines())
    digest = hashlib.sha256()
    for _, tensor in sorted(load_checkpoint(base / "run" / "model.pt").items()):
        digest.update(tensor.numpy().tobytes())
    return {"configs": configs, "loss": row[header.index("loss")], "weights": digest.hexdigest()}


def check(source, folder):
    """Run all checks and print what each one found.

    Returns:
        The number of checks that failed.
    """
    print(f"{len(PATCHES)} patches on the Protenix in {source}")
    try:
        clean = copy_host(source, folder / "clean")
        patched = copy_host(source, folder / "patched", PATCHES)
    except CheckFailed as failed:
        print(f"FAILED  the series applies\n{failed}")
        return 1
    checks = {
        "upstream's tests": lambda: check_upstreams_tests(clean, patched),
        "new tests": lambda: check_new_tests(patched),
        "fixes": lambda: check_fixes(source, folder / "unfixed"),
        "configuration": lambda: check_configs(clean, patched),
        "Protenix's own step": lambda: check_own_step(clean, patched),
        "the plugin's step": lambda: check_plugin(clean, patched, folder / "plugin"),
    }
    print(f"ok      the series applies: {', '.join(changed_files(PATCHES, 'M'))}")
    n_failed = 0
    for name, run in checks.items():
        try:
            print(f"ok      {name}: {run()}", flush=True)
        except CheckFailed as failed:
            n_failed += 1
            print(f"FAILED  {name}: {failed}", flush=True)
    return n_failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--host",
        type=Path,
        help="checkout of Protenix to patch [default: a copy of the installed release]",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        help="new folder to work in, which is kept [default: a temporary folder]",
    )
    arguments = parser.parse_args()
    try:
        source = (arguments.host or installed_protenix()).resolve()
    except CheckFailed as failed:
        parser.error(str(failed))
    if not PATCHES:
        parser.error(f"there are no patches in {REPOSITORY / 'patches'}")
    if arguments.keep:
        if arguments.keep.exists():
            parser.error(f"--keep {arguments.keep}: it exists, name a new folder")
        arguments.keep.mkdir(parents=True)
        return min(check(source, arguments.keep.resolve()), 1)
    with tempfile.TemporaryDirectory(prefix="protenix-patches-") as folder:
        return min(check(source, Path(folder)), 1)


if __name__ == "__main__":
    sys.exit(main())
