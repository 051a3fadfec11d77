"""The patch series: `make patches` asks more of it, and takes minutes."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

import protenix_eba
from protenix_eba import plugin_api

PATCHES = sorted((Path(__file__).resolve().parent.parent / "patches").glob("*.patch"))
FIXES = [path for path in PATCHES if "-fix-" in path.name]
# The same in the release and in upstream's main when the series was made.
CHANGED = {
    "configs/configs_base.py",
    "protenix/data/pipeline/dataloader.py",
    "protenix/model/loss.py",
    "protenix/model/protenix.py",
    "runner/train.py",
}
PATCHED_HOST = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("protenix.plugin_api", sys.argv[1])
host = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = host
spec.loader.exec_module(host)
"""


def git(folder, *words):
    return subprocess.run(
        ["git", *map(str, words)], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def release_with(patches, folder):
    """The files of the installed release that the series changes, with patches applied."""
    release = Path(str(distribution("protenix").locate_file("")))
    for name in CHANGED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(release / name, folder / name)
    git(folder, "init", "-q")
    git(folder, "apply", "--whitespace=error-all", *patches)
    return folder


@pytest.fixture(scope="module")
def applied(tmp_path_factory):
    return release_with(PATCHES, tmp_path_factory.mktemp("host"))


def new_files(patch):
    return re.findall(r"^--- /dev/null\n\+\+\+ b/(.+)$", patch.read_text("utf-8"), re.MULTILINE)


def on_patched_host(program):
    """Run a program for which the host brings the hook."""
    command = [sys.executable, "-c", PATCHED_HOST + program, plugin_api.__file__]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_series_applies_to_the_installed_release(applied):
    assert "resolve_configs(" in (applied / "runner/train.py").read_text("utf-8")


@pytest.mark.parametrize("patch", FIXES, ids=lambda path: path.name[:4])
def test_a_fix_applies_without_the_rest_of_the_series(patch, tmp_path):
    release_with([patch], tmp_path)


def test_the_first_patch_adds_our_own_plugin_api(applied):
    ours = Path(protenix_eba.__file__).parent / "plugin_api.py"
    assert new_files(PATCHES[0])[0] == "protenix/plugin_api.py"
    assert (applied / "protenix/plugin_api.py").read_bytes() == ours.read_bytes()


def test_only_files_that_upstream_left_alone_are_changed():
    lines = "".join(git("/", "apply", "--numstat", patch) for patch in PATCHES).splitlines()
    named = {line.split("\t")[-1] for line in lines}
    assert named - {name for patch in PATCHES for name in new_files(patch)} == CHANGED


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.name[:4])
def test_a_patch_has_tests_and_upstreams_manners(patch, applied):
    added = new_files(patch)
    assert any(name.startswith("tests/test_") for name in added)
    # `git am` would strip a subject's leading [...].
    assert re.search(r"^Subject: (feat|fix): [a-z]", patch.read_text("utf-8"), re.MULTILINE)
    header = (applied / "runner/train.py").read_text("utf-8").partition("\n\n")[0]
    for name in added:
        if name.endswith(".py"):
            assert (applied / name).read_text("utf-8").startswith(f"{header}\n\n"), name


def test_our_plugin_registers_with_the_hook_of_a_patched_host():
    done = on_patched_host("""
from protenix_eba.plugin import plugin
assert type(plugin) is host.Plugin
from protenix_eba.cli.train import TRAINERS
assert TRAINERS is host.TRAINERS and "af3" in host.TRAINERS
from protenix_eba.host import environment
for name in ("TRAINERS", "LOSSES", "DATALOADERS", "SAMPLERS", "DATASETS", "HEADS"):
    assert getattr(environment, name) is getattr(host, name), name
""")
    assert done.returncode == 0, done.stderr


def test_an_error_of_the_hosts_hook_is_a_message_too():
    done = on_patched_host("""
sys.argv = ["protenix-train", "--plugin", "absent"]
from protenix_eba.cli.train import main
main()
""")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no plugin called 'absent'")
