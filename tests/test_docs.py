"""Every code block of the documentation, run as a reader would.

A page is one session in an empty folder. Its blocks run from top to bottom. What a page needs
beyond that is said in the page, in HTML comments:

  given: NAMES    files that the reader has; small ones stand in here (`give`)
  file: NAME      the block below is the text of this file
  parse: REASON   the commands below are too long or need what a test has not: each is taken apart
                  by the command itself, which then does nothing; of Python the imports are done,
                  and what is called takes the arguments that it is given

A block without a mark is run.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mdtraj
import numpy as np
import pytest
import torch
import yaml
from command_lines import check_options, checked, commands, parse, save
from joblib.externals.loky import get_reusable_executor

from protenix_eba.cli.main import run as protenix_eba
from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.checkpoint import build_network, save_network
from protenix_eba.ebmfold.standin import standin_predictions
from protenix_eba.energy.functions import ENERGIES
from protenix_eba.eval.definitions import METRICS
from protenix_eba.eval.suites.catalogue import SUITES
from protenix_eba.host.environment import DATALOADERS, DATASETS, HEADS, LOSSES, SAMPLERS, TRAINERS
from protenix_eba.plugin_api import load_plugins
from protenix_eba.sampling.samplers import DIFFUSION_SAMPLERS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>file|parse): (?P<note>[^>]+?) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SHOWN = {"text", "math"}  # nothing to run
TRAIN = """
import os, sys
from protenix_eba.host import environment
from protenix_eba.cli import train
environment.prepare_environment()
import deepspeed, runner.train
for sys.argv in for_lines:
    if os.fork() == 0:
        train.program()
    if os.wait()[1]:
        sys.exit(1)
"""
REGISTRIES = [DATALOADERS, DATASETS, HEADS, LOSSES, SAMPLERS, TRAINERS]
REGISTRIES += [DIFFUSION_SAMPLERS, ENERGIES, METRICS, SUITES]
# What a reader's full-size configuration shrinks to.
SIZES = ["model_name", "c_s", "c_z", "model", "dtype", "blocks_per_ckpt", "max_steps"]
SIZES += ["warmup_steps", "log_interval", "checkpoint_interval", "eval_interval"]


class Block(NamedTuple):
    mark: str | None
    note: str
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(m["mark"], m["note"] or "", m["language"], m["code"]) for m in found]


class Session:
    """A reader at work in the current folder.

    Args:
        fixture: Name of a pytest fixture to its value, made when it is first asked for.
    """

    def __init__(self, fixture: Callable[[str], Any]) -> None:
        self.fixture = fixture
        self.peptide = fixture("demo_data") / "met_enkephalin"
        self.names: dict[str, Any] = {}

    def give(self, name: str) -> None:
        """A file that the page's reader has, made small from what the package ships."""
        if name.endswith((".xtc", ".dcd")):
            replica = re.search(r"\d", name)
            source = self.peptide / f"met_enkephalin_prod_R{replica[0] if replica else 1}_fit.xtc"
            md = mdtraj.load(source, top=self.peptide / "met_enkephalin.pdb")
            md[:: len(md) // 2][:2].save(name)
        elif name.endswith(".pdb"):
            shutil.copy(self.peptide / "met_enkephalin.pdb", name)
        elif name.endswith(".pt"):
            os.symlink(self.fixture("small_run") / "start.pt", name)
        elif name.endswith(".npz"):
            self._predictions(name)
        elif name.endswith(".safetensors"):
            save_network(name, build_network("equivariant", {"n_layers": 1, "channels": 4}))
        else:
            raise AssertionError(f"no stand-in for {name}")

    def _predictions(self, name: str) -> None:
        md = mdtraj.load(self.peptide / "met_enkephalin.pdb")
        n, ca, c = (10 * md.xyz[0, md.topology.select(f"name {atom}")] for atom in ("N", "CA", "C"))
        b, d = ca - n, c - ca
        cb = ca - 0.5827 * np.cross(b, d) + 0.5680 * b - 0.5407 * d  # ideal, glycine's too
        backbone = torch.tensor(np.stack([n, ca, c, cb], axis=1))
        made = standin_predictions(backbone, 0.25, torch.Generator().manual_seed(0))
        fields = {key: getattr(made, key) for key in ("omega", "theta", "phi")}
        np.savez(name, dist=made.distance, **fields)

    def do(self, block: Block) -> None:
        if block.language in SHOWN:
            return
        if block.mark == "file":
            self.write(Path(block.note), block.code)
        elif block.language == "python" and block.mark == "parse":
            parse_python(block.code, self.names)
        elif block.language == "python":
            exec(compile(block.code, "page", "exec"), self.names)
        elif block.language == "bash":
            lines = commands(block.code)
            if block.mark == "parse":
                for words in lines:
                    parse(words)
            else:
                for training, some in itertools.groupby(lines, key=trains):
                    (train if training else execute)(list(some))
        else:
            raise AssertionError(f"```{block.language}: no file, and nothing that can be run")

    def write(self, path: Path, text: str) -> None:
        if path.suffix == ".yaml":
            parse(["protenix-train", "--plugin", "protenix_eba", "--config", save(path, text)])
            text = self.shrunk(yaml.safe_load(text))
        save(path, text)

    def shrunk(self, config: dict[str, Any]) -> str:
        """The reader's configuration at the sizes of the small model, and for two steps."""
        text = (self.fixture("small_run") / "small.yaml").read_text(encoding="utf-8")
        small = yaml.safe_load(text) | {"max_steps": 2, "dtype": "fp32"}
        config["eba"]["validation_items"] = 2
        return yaml.safe_dump(config | {key: small[key] for key in SIZES})


def trains(words: list[str]) -> bool:
    return words[0] == "protenix-train" and "--print-config" not in words


def execute(lines: list[list[str]]) -> None:
    for words in lines:
        assert not re.search(r"[$|<>;`]", "".join(words)), f"no shell is at work here: {words}"
        if words[0] == "protenix-eba" and "--version" not in words:
            assert protenix_eba(words[1:]) == 0, words
        else:
            program = Path(sys.executable).parent / words[0]
            checked([str(program) if program.exists() else words[0], *words[1:]])


def train(lines: list[list[str]]) -> None:
    """The console script, forked from one that has imported DeepSpeed: that takes 10 seconds."""
    checked([sys.executable, "-c", f"for_lines = {lines!r}\n{TRAIN}"])


def parse_python(code: str, names: dict[str, Any]) -> None:
    """Import what a block imports, and hold its calls to the signatures of what it imported."""
    tree = ast.parse(code)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), "page", "exec"), names)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in names:
            given = {str(keyword.arg): None for keyword in call.keywords}
            try:
                inspect.signature(names[call.func.id]).bind(*call.args, **given)
            except TypeError as error:
                raise AssertionError(f"{ast.unparse(call)}: {error}") from error


@pytest.fixture
def session(tmp_path, monkeypatch, request):
    for name in ("configs", "examples", "scripts"):
        os.symlink(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    # Ours are there before, for what is imported once registers once.
    load_plugins(["protenix_eba"])[0].register()
    for registry in REGISTRIES:  # what a page registers goes with it
        monkeypatch.setattr(registry, "_components", dict(registry._components))
    before = set(sys.modules)
    # Processes that an earlier page left behind would read relative paths in its folder.
    get_reusable_executor().shutdown()
    yield Session(request.getfixturevalue)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def slow_if_it_trains(page):
    run = [block for block in blocks(page) if block.language == "bash" and block.mark is None]
    trained = any(trains(words) for block in run for words in commands(block.code))
    return pytest.param(page, marks=[pytest.mark.slow] if trained else [])


@pytest.mark.parametrize("page", list(map(slow_if_it_trains, PAGES)), ids=IDS)
def test_every_block_of_the_page_works(page, session):
    for names in re.findall(r"<!-- given: ([^>]+) -->", page.read_text(encoding="utf-8")):
        for name in names.split():
            session.give(name)
    for block in blocks(page):
        session.do(block)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_block_escapes_and_no_link_leads_nowhere(page):
    text = page.read_text(encoding="utf-8")
    assert len(blocks(page)) * 2 == len(re.findall(r"^\s*(```|~~~)", text, re.MULTILINE))
    outside = BLOCK.sub("", text)
    assert not re.search(r"<!-- (file|parse):", outside), "a mark stands right above its block"
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", outside):
        assert "://" in target or (page.parent / target).exists(), target
    for span in re.findall(r"`(protenix-eba \w[^`]*)`", outside):
        check_options(span.split()[1:])


@pytest.mark.parametrize(
    "block",
    [
        "```bash\nprotenix-eba label --inptu md --out l.parquet\n```\n",
        "<!-- parse: long -->\n```bash\nprotenix-eba label --input md --out l --jbos 2\n```\n",
        "<!-- parse: long -->\n```bash\nprotenix-train --plugin protenix_eba --eba.lr 1\n```\n",
        "<!-- parse: long -->\n```bash\nscripts/download_atlas.sh --splt val --out a\n```\n",
        "<!-- parse: long -->\n```bash\npython scripts/make_reference.py --chek\n```\n",
        "<!-- parse: long -->\n```bash\nmake nonsense\n```\n",
        "<!-- parse: long -->\n```bash\nrm -r runs\n```\n",
        "<!-- skip: long -->\n```bash\nfalse\n```\n",
        "```yaml\ntrainer: eba\n```\n",
        "```\nprotenix-eba demo\n```\n",
        "<!-- file: a.yaml -->\n```yaml\neba: {objectve: eba}\n```\n",
        "```python\nassert 1 == 2\n```\n",
        "<!-- parse: long -->\n```python\nfrom ast import parse\nparse(sorce='1')\n```\n",
    ],
)
def test_a_wrong_block_is_found(block, session, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(block, encoding="utf-8")
    (found,) = blocks(page)
    with pytest.raises((AssertionError, UserError, subprocess.CalledProcessError)):
        session.do(found)
