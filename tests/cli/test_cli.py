import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import click
import pytest
import yaml
from click.testing import CliRunner

from protenix_eba.cli import main as verbs
from protenix_eba.cli import train
from protenix_eba.cli.numbers import NumberRange
from protenix_eba.core.errors import UserError
from protenix_eba.host.environment import TRAINERS

REQUIRED = ["--run_name", "a", "--base_dir", "b", "--max_steps", "1", "--use_wandb", "false"]
REQUIRED += ["--eval_interval", "-1", "--log_interval", "1"]
# `protenix` itself is only its version; it is asked for the plugin hook at import.
SLOW_MODULES = {"torch", "protenix.config", "openmm", "rdkit", "biotite"}


def imported_by(statement):
    """Modules that a fresh interpreter has after a statement."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


@pytest.fixture
def verb(monkeypatch):
    """A verb whose module is made up, and what it shall do."""

    def make(do):
        module = ModuleType("protenix_eba.cli.label")
        module.label = click.command("label")(do)
        monkeypatch.setitem(sys.modules, "protenix_eba.cli.label", module)

    return make


@pytest.fixture
def call_train(monkeypatch, capsys):
    """Call `protenix-train` and return its exit status and what it printed."""
    from protenix_eba.host import environment

    monkeypatch.setattr(environment, "prepare_environment", lambda: None)
    monkeypatch.setattr(environment, "ensure_ccd_cache", lambda: None)

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["protenix-train", *argv])
        try:
            train.main()
        except SystemExit as stop:
            return stop.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("command", "words"), [("main", ""), ("main", "doctor"), ("train", "")], ids=str
)
def test_help_imports_nothing_slow(command, words):
    statement = (
        f"from protenix_eba.cli import {command}\nsys.argv = {['x', *words.split(), '--help']}\n"
        f"try: {command}.main()\nexcept SystemExit: pass"
    )
    assert not imported_by(statement) & SLOW_MODULES


def test_a_comparison_does_not_take_the_place_of_what_it_compares(tmp_path, capsys):
    assert verbs.run(["compare", str(tmp_path), "--out", str(tmp_path / "." / "")]) == 2
    assert "would be lost" in capsys.readouterr().err


def test_print_config_does_not_import_torch():
    statement = "from protenix_eba.cli import train\ntrain.run(['--print-config'])"
    assert not imported_by(statement) & (SLOW_MODULES - {"protenix.config"})


def test_the_table_of_verbs_names_modules(capsys):
    assert verbs.run(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {verb}" in printed for verb in verbs.VERBS)


def test_version(capsys):
    assert verbs.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("protenix-eba, version 0.")


def test_a_misspelt_verb_is_corrected(capsys):
    assert verbs.run(["lable"]) == 2
    assert "Did you mean 'label'?" in capsys.readouterr().err


def test_a_verb_runs(verb, capsys):
    verb(lambda: click.echo("labelled"))
    assert verbs.run(["label"]) == 0
    assert capsys.readouterr().out == "labelled\n"
    assert verbs.run(["label", "--nonsense"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_errors_of_a_verb_are_printed_without_traceback(verb, capsys):
    def fail():
        raise UserError("no trajectory", "give one")

    verb(fail)
    assert verbs.run(["label"]) == 2
    assert capsys.readouterr().err == "error: no trajectory\n  What to do: give one\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_verb_says_what_is_kept(verb, capsys, number, status):
    verb(lambda: signal.raise_signal(number))
    before = signal.getsignal(signal.SIGTERM)
    assert verbs.run(["label"]) == status
    assert signal.getsignal(signal.SIGTERM) is before
    assert "interrupted; what is finished is kept" in capsys.readouterr().err


def test_defects_are_not_hidden(verb):
    def crash():
        raise ZeroDivisionError

    verb(crash)
    with pytest.raises(ZeroDivisionError):
        verbs.run(["label"])


def test_train_help_lists_installed_plugins(call_train):
    status, out, _ = call_train("--lr", "--help")
    assert status == 0
    assert "installed: protenix_eba" in out and "--print-config" in out


@pytest.mark.parametrize(
    ("key", "value"),
    [("eba.n_noise", "0"), ("ebmfold.n_layers", "0"), ("replay.md_share", "2"), ("lr", "-1")],
)
def test_values_outside_their_ranges_are_not_printed(call_train, key, value):
    status, out, err = call_train("--plugin", "protenix_eba", "--print-config", f"--{key}", value)
    assert status == 2 and not out
    assert f"{key}: expected" in err


def test_print_config_prints_yaml(call_train):
    status, out, _ = call_train("--print-config", "--c_z", "64", "--run_name", "two words")
    configs = yaml.safe_load(out)
    assert status == 0
    assert configs["trainer"] == "af3"
    assert configs["run_name"] == "two words"
    assert configs["model"]["pairformer"]["c_z"] == 64


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lr"], "error: --lr has no value"),
        (["--plugin", "nope"], "error: there is no plugin called 'nope'"),
        (["--lrr", "1"], "error: command line: unknown key 'lrr'"),
        ([], "error: these keys need a value: project, run_name"),
        ([*REQUIRED, "--trainer", "af4"], "error: there is no trainer called 'af4'"),
    ],
)
def test_train_prints_errors(call_train, argv, message):
    status, _, err = call_train(*argv)
    assert status == 2
    assert err.startswith(message)


def test_train_has_the_other_name_protenix_eba_train():
    """The same words give the same configuration, with a plugin more and a value that is no key."""
    words = ["--print-config", "--run_name", "-1", "--eba.n_noise=3"]
    commands = (
        ["main", "train", *words],
        ["main", "train", *words, "--plugin", "protenix_eba"],
        ["train", "--plugin", "protenix_eba", *words],
    )
    printed = [
        subprocess.run(
            [sys.executable, "-m", f"protenix_eba.cli.{module}", *rest],
            capture_output=True, text=True, check=True,
        ).stdout
        for module, *rest in commands
    ]  # fmt: skip
    assert yaml.safe_load(printed[0])["eba"]["n_noise"] == 3
    assert printed[0] == printed[1] == printed[2]


def test_the_line_of_the_install_page_completes_verbs_and_options():
    """As bash does it when Tab is pressed."""
    page = (Path(__file__).parents[2] / "docs" / "install.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^eval .*$", page, re.MULTILINE)
    script = f"""{line}
        COMP_WORDS=(protenix-eba "$1" "$2"); COMP_CWORD=$3
        _protenix_eba_completion protenix-eba
        echo "${{COMPREPLY[@]}}" """
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}

    def completed(*words):
        command = ["bash", "-c", script, "bash", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("la", "", "1") == ["label"]
    assert completed("sample", "--sh", "2") == ["--shard"]


def test_train_runs_the_trainer_that_was_chosen(call_train, monkeypatch):
    ran = []
    trainers = {
        name: lambda configs, name=name: SimpleNamespace(
            run=lambda: ran.append((name, configs.max_steps))
        )
        for name in ("af3", "mine")
    }
    monkeypatch.setattr(TRAINERS, "_components", trainers)
    assert call_train(*REQUIRED)[0] == 0
    assert call_train(*REQUIRED, "--trainer", "mine")[0] == 0
    assert ran == [("af3", 1), ("mine", 1)]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_says_so(call_train, monkeypatch, number, status):
    def interrupt(configs):
        signal.raise_signal(number)

    monkeypatch.setattr(TRAINERS, "_components", {"af3": interrupt})
    ended, _, err = call_train(*REQUIRED)
    assert ended == status and err.endswith("checkpoints that were written are kept\n")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "much"])
def test_an_option_takes_a_finite_number_in_its_range(text):
    @click.command()
    @click.option("--limit", type=NumberRange(min=0))
    def command(limit):
        raise AssertionError(limit)

    found = CliRunner().invoke(command, ["--limit", text])
    assert found.exit_code == 2
    assert text in found.output
