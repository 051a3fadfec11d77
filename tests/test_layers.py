"""Imports go down only: the rooms of the package, held by reading its source."""

import ast
from functools import cache
from pathlib import Path

import pytest

import protenix_eba

PACKAGE = Path(protenix_eba.__file__).parent
HOST = {"protenix", "runner", "configs", "scripts"}
BASE = "plugin_api core protein structures"
# What a room may import besides itself; a file of its own line, in the place of its room's.
MAY_IMPORT = {
    "plugin_api": "",
    "core": "plugin_api",
    "protein": "core",
    "structures": "core protein",
    "energy": BASE,
    "importing": BASE,
    "eval": BASE,
    "ebmfold": BASE,
    "host": BASE,
    "sampling": f"{BASE} host energy",
    "training": f"{BASE} host energy eval sampling",
    "cli": f"{BASE} host energy importing eval sampling training ebmfold plugin",
    "plugin": f"{BASE} host training ebmfold",
    "ebmfold/heads.py": f"{BASE} host",
    "ebmfold/protenix_head.py": f"{BASE} host",
    "ebmfold/trainer.py": f"{BASE} host training",
    "training/energy_losses.py": BASE,
    "training/denoising_error.py": BASE,
    "training/noise.py": BASE,
    "training/symmetry.py": BASE,
}
# Who imports Protenix: with the module, or inside functions. All others do without.
WITH_HOST = {"training", "ebmfold/protenix_head.py", "ebmfold/trainer.py"}
HOST_INSIDE = {"host", "cli"}
WITHOUT_HOST = {path for path in MAY_IMPORT if path.startswith("training/")}
# Configuration is written in the host's notation; that part of the host imports no torch.
NOTATION = ("protenix.config", "configs.")
NOTATION_ONLY = {"host/config.py", "host/settings.py"}
# What a room, or a file, works without, and everything that it imports as well.
HEAVY = {"torch", "openmm", "deepspeed"}
WITHOUT = {
    "plugin_api": HEAVY,
    "core": HEAVY,
    "protein": HEAVY,
    "structures": HEAVY,
    "importing": HEAVY,
    "eval": HEAVY,
    "energy": HEAVY - {"openmm"},
    "energy/ani.py": HEAVY - {"torch"},  # inside functions: others are imported without
    "host/environment.py": HEAVY,
    "host/config.py": HEAVY,
    "host/settings.py": HEAVY,
    "core/ranks.py": HEAVY - {"torch"},
    "core/seeds.py": HEAVY - {"torch"},
    "protein/rigid_motions.py": HEAVY - {"torch"},
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path):
    """Its path in the package, such as "energy/fast.py"."""
    return path.relative_to(PACKAGE).as_posix()


def room_of(path):
    """The top-level folder or module: "energy" for energy/fast.py, "plugin" for plugin.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def rule(table, path, default=None):
    """The line of a table for a file: its own, or its room's."""
    return table.get(name_of(path), table.get(room_of(path), default))


@cache
def imports(path):
    """(module, line, whether it is imported with the file) of each import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.If)
        for node in ast.walk(outer)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: write the import absolute"
            # `from protenix_eba.host import environment` imports a module as well
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(name, node.lineno, id(node) not in inside) for name in names]
    return found


def file_of(module):
    """The file of "protenix_eba.energy.fast", or of a name in it; None where there is none."""
    words = module.split(".")[1:]
    while words:
        path = PACKAGE.joinpath(*words)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
        words.pop()
    return None


def reached(path):
    """Modules of others that are imported with a file: by itself, or by ours that it imports."""
    seen, found, left = {path}, set(), [path]
    while left:
        for module, _, at_import in imports(left.pop()):
            if at_import and module.startswith("protenix_eba."):
                file = file_of(module)
                if file and file not in seen:
                    seen.add(file)
                    left.append(file)
            elif at_import:
                found.add(module.partition(".")[0])
    return found


def complaint(path, module, at_import):
    """What is wrong with one import, or None."""
    room, top = room_of(path), module.partition(".")[0]
    if top == "protenix_eba":
        other = module.split(".")[1]
        allowed = rule(MAY_IMPORT, path).split()
        if other == room or other in allowed or other == "__version__":
            return None
        return f"{room} imports {other}"
    if top in rule(WITHOUT, path, ()):
        return f"{room} works without {top}"
    if top not in HOST:
        return None
    name = name_of(path)
    if name in WITHOUT_HOST or not {name, room} & (WITH_HOST | HOST_INSIDE):
        return f"{room} works without Protenix"
    if at_import and not {name, room} & WITH_HOST:
        return "the host is imported inside functions here"
    if name in NOTATION_ONLY and not module.startswith(NOTATION):
        return "only the host's notation is imported here"
    return None


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down(path):
    assert room_of(path) in MAY_IMPORT, "a new module belongs in a room, see CONTRIBUTING.md"
    found = [
        f"line {line}: {module}: {wrong}"
        for module, line, at_import in imports(path)
        if (wrong := complaint(path, module, at_import))
    ]
    assert not found, "\n".join(found)
    absent = set(rule(WITHOUT, path, ()))
    if not {name_of(path), room_of(path)} & WITH_HOST or name_of(path) in WITHOUT_HOST:
        absent |= HOST
    if room_of(path) != "cli":  # commands import what they need, inside functions for speed
        assert not reached(path) & absent


@pytest.mark.parametrize(
    ("file", "module", "at_import"),
    [
        ("core/errors.py", "protenix_eba.training.trainer.EBATrainer", True),
        ("core/files.py", "torch", False),
        ("structures/xtc.py", "torch", False),
        ("energy/fast.py", "protenix_eba.eval.evaluate", False),
        ("energy/fast.py", "torch", False),
        ("eval/protocol/metrics.py", "openmm.app", False),
        ("ebmfold/fold.py", "protenix_eba.host.weights", False),
        ("ebmfold/fold.py", "protenix.model", False),
        ("host/config.py", "protenix.config.config", True),
        ("host/config.py", "protenix.model.protenix", False),
        ("host/environment.py", "scripts.gen_ccd_cache", True),
        ("host/features.py", "protenix_eba.training.trainer", False),
        ("sampling/run.py", "protenix.model", False),
        ("sampling/run.py", "protenix_eba.training.step", False),
        ("training/energy_losses.py", "protenix_eba.energy.protocol", False),
        ("training/energy_losses.py", "protenix.model.loss", False),
    ],
)
def test_the_rule_finds_what_breaks_it(file, module, at_import):
    assert complaint(PACKAGE / file, module, at_import)


@pytest.mark.parametrize(
    ("file", "module", "at_import"),
    [
        ("energy/fast.py", "protenix_eba.energy.protocol", True),
        ("training/energy_losses.py", "protenix_eba.core.units.thermal_energy_kj_mol", True),
        ("training/energy_losses.py", "torch", True),
        ("host/config.py", "protenix.config.config", False),
        ("training/trainer.py", "runner.train", True),
        ("cli/train.py", "protenix_eba.__version__", True),
    ],
)
def test_the_rule_lets_pass_what_is_allowed(file, module, at_import):
    assert complaint(PACKAGE / file, module, at_import) is None


def test_what_is_imported_by_what_is_imported_counts():
    assert {"torch", "protenix", "runner"} <= reached(PACKAGE / "training" / "trainer.py")
    assert "openmm" in reached(PACKAGE / "sampling" / "relaxation.py")
