"""Command lines taken apart by the commands themselves, which then do nothing."""

from __future__ import annotations

import glob
import itertools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest import mock

import click

from protenix_eba.cli import train as protenix_train
from protenix_eba.cli.main import cli
from protenix_eba.cli.main import run as protenix_eba
from protenix_eba.ebmfold.config import EBMFoldConfig
from protenix_eba.host.config import EBAConfig, check_ranges, check_required, section_from
from protenix_eba.plugin_api import load_plugins

ROOT = Path(__file__).parent.parent


def commands(code: str) -> list[list[str]]:
    """The command lines of a block as words, with globs resolved where they match."""
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        words = [sorted(glob.glob(w)) or [w] for w in shlex.split(line, comments=True)]
        joined = itertools.groupby(itertools.chain(*words), key=lambda word: word == "&&")
        found += [list(command) for is_and, command in joined if not is_and]
    return found


def parse(words: list[str]) -> None:
    words = [os.path.expandvars(word) for word in words]
    program, rest = words[0], words[1:]
    if words[:2] == ["protenix-eba", "train"]:
        resolve(["--plugin", "protenix_eba", *words[2:]])
    elif program == "protenix-eba":
        parse_eba(rest)
    elif program == "protenix-train":
        resolve(rest)
    elif words[:2] == ["bash", "examples/torchrun.sh"]:
        resolve(["--plugin", "protenix_eba", "--config", *words[2:]])
    elif words[:2] == ["sbatch", "examples/slurm.sh"]:
        resolve(["--plugin", "protenix_eba", "--config", words[2], *words[4:]])
    elif program == "python" and rest[0].startswith("scripts/"):
        parse_script([sys.executable, *rest])
    elif program.startswith("scripts/"):
        parse_script([f"./{program}", *rest])
    elif program == "make":
        subprocess.run(["make", "-n", *rest], cwd=ROOT, check=True, capture_output=True)
    elif words[:2] == ["pip", "install"]:
        parse_pip(rest[1:])
    elif words[:2] == ["bash", "examples/atlas/submit.sh"]:
        assert all(word.startswith("--") for word in rest[1:]), "options of sbatch, for all jobs"
    else:
        assert words[:2] == ["git", "clone"] or program == "cd", f"cannot take apart: {words}"


def parse_eba(words: list[str]) -> None:
    if "..." in words:  # the rest stands above it
        check_options(words)
        return
    with mock.patch.object(click.Command, "invoke", lambda command, context: None):
        assert protenix_eba(words) == 0, words


def check_options(words: list[str]) -> None:
    """Verbs and options of an incomplete `protenix-eba` command."""
    command: click.Command = cli
    context = click.Context(cli)
    for word in words:
        if isinstance(command, click.Group) and not word.startswith("-"):
            command = command.get_command(context, word) or command.commands["frames"]
    if isinstance(command, click.Group):
        command = command.commands.get("frames", command)
    known = {name for option in command.params for name in option.opts} | {"--help", "--version"}
    wrong = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)} - known
    assert not wrong, f"{' '.join(words)}: no option {wrong}"


def resolve(words: list[str]) -> None:
    """What `protenix-train` does before it builds the model."""
    arguments, _ = protenix_train.split(words)
    plugins = load_plugins(arguments.plugins)
    configs = protenix_train._resolve(arguments, plugins)
    check_required(configs)
    check_ranges(configs)
    section_from(configs.eba, EBAConfig)
    section_from(configs.ebmfold, EBMFoldConfig)


def parse_script(words: list[str]) -> None:
    """Both argparse and our shell scripts read all words up to --help, then stop."""
    end = words.index("--") if "--" in words else len(words)
    command = [*words[:end], "--help"]
    usage = checked(command)
    missing = {w for w in words[:end] if w.startswith("--") and w not in usage}
    assert not missing, f"{words}: no option {missing}"


def parse_pip(words: list[str]) -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if words == ["-e", "."]:
        return install(Path.cwd())
    for word in words:
        wanted = Requirement(word)
        if wanted.name == project["name"]:
            assert wanted.extras <= project["optional-dependencies"].keys(), word


def install(folder: Path) -> None:
    """What pip leaves of a package with entry points: the folder on the path, and the points."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    lines = [f"Name: {project['name']}", f"Version: {project['version']}"]
    save(info / "METADATA", "Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
    groups = project["entry-points"].items()
    text = "".join(f"[{g}]\n" + "".join(f"{k} = {v}\n" for k, v in p.items()) for g, p in groups)
    save(info / "entry_points.txt", text)


def save(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def checked(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout
