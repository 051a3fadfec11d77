"""Imports go down only: the layers of the package, held by reading its source."""

import ast
from pathlib import Path

import pytest

import protenix_eba

PACKAGE = Path(protenix_eba.__file__).parent
HOST = {"protenix", "runner", "configs", "scripts"}
LAYERS = {
    0: "errors units files progress trajectories md_files residue_names plugin_api settings config "
    "run_folder records geometry runlog sharding signals stereo validity fold_config "
    "streams noise ends covalent pdb_text "
    "titration text_files psf_files",
    1: "losses denoising symmetry energy eval importing ebmfold",
    2: "compat",
    3: "objectives data diffusion windows weights embeddings engine ranks step reference lora ema "
    "model temperature",
    4: "trainer fold_trainer fold_head heads loop sample sampling_run ensembles chunk_size "
    "relaxation checkpoints validation starts replay",
    5: "cli plugin demo",
}
LAYER = {room: layer for layer, rooms in LAYERS.items() for room in rooms.split()}
# What a room must work without, besides the host below layer 2.
WITHOUT = {
    "eval": {"torch", "openmm", "deepspeed"},
    "energy": {"torch", "deepspeed"},
    "importing": {"torch", "openmm", "deepspeed"},
    "compat": {"torch"},
    "settings": {"torch"},
    "config": {"torch"},
    "plugin_api": {"torch"},
    "runlog": {"torch"},
}
# Configuration is written in the host's notation; that part of the host imports no torch.
NOTATION = ("protenix.config", "configs.")
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path):
    """The top-level module or subpackage: "energy" for energy/fast.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    """(module, line, whether it is imported with the file) of each import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.If)
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: write the import absolute"
            # `from protenix_eba.host import environment` imports a module as well
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, node.lineno, id(node) not in inside


def complaint(path, module, at_import):
    """What is wrong with one import, or None."""
    room, top = room_of(path), module.partition(".")[0]
    layer = LAYER[room]
    if top == "protenix_eba":
        other = module.split(".")[1]
        if other == room or other not in LAYER:  # its own room, or a name such as __version__
            return None
        if LAYER[other] > layer:
            return f"layer {layer} imports layer {LAYER[other]}"
        return "rooms of layer 1 never import each other" if layer == LAYER[other] == 1 else None
    if top in WITHOUT.get(room, ()):
        return f"{room} works without {top}"
    if top not in HOST or layer >= 3:
        return None
    if at_import:
        return "the host is imported inside functions here"
    allowed = NOTATION if room in ("config", "settings") else ()
    if room != "compat" and not module.startswith(allowed):
        return "only layers 2 and up import the host"
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    assert room_of(path) in LAYER, "a new module: give it a layer here and in the architecture"
    found = [
        f"line {line}: {module}: {wrong}"
        for module, line, at_import in imports(path)
        if (wrong := complaint(path, module, at_import))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "module", "at_import"),
    [
        ("errors.py", "protenix_eba.training.trainer.EBATrainer", True),
        ("losses.py", "protenix_eba.energy.protocol", False),
        ("losses.py", "protenix.model.loss", False),
        ("energy/fast.py", "torch", False),
        ("eval/protocol/metrics.py", "openmm.app", False),
        ("config.py", "protenix.config.config", True),
        ("config.py", "protenix.model.protenix", False),
        ("compat.py", "scripts.gen_ccd_cache", True),
        ("data/features.py", "protenix_eba.training.trainer", False),
    ],
)
def test_the_rule_finds_what_breaks_it(file, module, at_import):
    assert complaint(PACKAGE / file, module, at_import)


@pytest.mark.parametrize(
    ("file", "module", "at_import"),
    [
        ("energy/fast.py", "protenix_eba.energy.protocol", True),
        ("losses.py", "protenix_eba.core.units.thermal_energy_kj_mol", True),
        ("losses.py", "torch", True),
        ("config.py", "protenix.config.config", False),
        ("trainer.py", "runner.train", True),
        ("cli/train.py", "protenix_eba.__version__", True),
    ],
)
def test_the_rule_lets_pass_what_is_allowed(file, module, at_import):
    assert complaint(PACKAGE / file, module, at_import) is None
