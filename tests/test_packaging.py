"""What is shipped: the wheel holds this package whole, and nothing else."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel that is built from a copy of the source."""
    pytest.importorskip("setuptools", minversion="77")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "protenix_eba", source / "protenix_eba", ignore=ignore)
    command = [sys.executable, "-c", BUILD, str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_no_package_but_ours(wheel):
    assert {name.split("/")[0].partition("-")[0] for name in wheel} == {"protenix_eba"}


def test_the_wheel_holds_every_file_of_the_package(wheel):
    package = ROOT / "protenix_eba"
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours == {name for name in wheel if name.startswith("protenix_eba/")}


@pytest.mark.parametrize("folder", ["configs", "patches", "runner", "scripts", "tests"])
def test_no_folder_takes_the_name_of_a_package_of_the_host(folder):
    # The host installs top-level packages of such names: ours must never be imported for them.
    assert not (ROOT / folder / "__init__.py").exists()


def test_the_commands_and_the_plugin_that_are_declared_exist():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"console_scripts": declared["scripts"], **declared["entry-points"]}
    assert set(groups) == {"console_scripts", "protenix.plugins"}
    for group, expected in groups.items():
        points = {p.name: p for p in entry_points(group=group) if p.name in expected}
        assert {name: point.value for name, point in points.items()} == expected
        assert all(point.load() for point in points.values())
