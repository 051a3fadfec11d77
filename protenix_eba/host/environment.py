"""The only module that knows which Protenix is installed, and what it needs from its environment.

Protenix settles its kernels and its data folder when it is imported, and would download 1 GB of
chemical components first. `prepare_environment` and `ensure_ccd_cache` settle both before that,
without a GPU and without a network.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import logging
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file

if TYPE_CHECKING:
    import numpy as np

    from protenix_eba import plugin_api as hook
else:
    # A Protenix with our patches brings the same file: its command and ours, its components and
    # ours then share one set of registries.
    try:
        hook = importlib.import_module("protenix.plugin_api")
    except ModuleNotFoundError:
        hook = importlib.import_module("protenix_eba.plugin_api")

__all__ = [
    "DATALOADERS",
    "DATASETS",
    "HEADS",
    "LOSSES",
    "SAMPLERS",
    "TRAINERS",
    "HookError",
    "Plugin",
    "ensure_ccd_cache",
    "has_components",
    "has_cuda",
    "load_plugins",
    "point_to_ccd_cache",
    "prepare_environment",
    "prepare_pred_root",
    "protenix_pred_environment",
    "protenix_root",
    "use_plugins",
]

logger = logging.getLogger(__name__)

DATALOADERS: Final = hook.DATALOADERS
DATASETS: Final = hook.DATASETS
HEADS: Final = hook.HEADS
LOSSES: Final = hook.LOSSES
SAMPLERS: Final = hook.SAMPLERS
TRAINERS: Final = hook.TRAINERS
Plugin = hook.Plugin
load_plugins = hook.load_plugins
HookError = hook.UserError  # another class than ours if the hook is the host's

SUPPORTED_VERSION: Final = "2.0."
COMPONENTS: Final = "common/components.cif"
RDKIT_PICKLE: Final = "common/components.cif.rdkit_mol.pkl"
# What a protein sequence can ask for: the standard amino acids, X (UNK), and selenomethionine.
COMPONENT_CODES: Final = (
    "ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE", "LEU",
    "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL", "MSE", "UNK",
)  # fmt: skip
# Files that `protenix pred` downloads when they are absent, and never opens without templates.
PRED_STUBS: Final = {
    "common/clusters-by-entity-40.txt": "",
    "common/obsolete_release_date.csv": "pdb_id,release_date\n",
}
# Without CUDA: a layer norm that needs no compiler, triangle kernels that need no driver.
CPU_KERNELS: Final = {
    "LAYERNORM_TYPE": "torch",
    "TRIANGLE_ATTENTION": "torch",
    "TRIANGLE_MULTIPLICATIVE": "torch",
}


def has_cuda() -> bool:
    """Return whether torch would find a CUDA device; the driver tells, torch stays unloaded.

    NVML answers without making a CUDA context, so that worker processes can still be forked.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    if importlib.metadata.version("torch").endswith("+cpu"):
        return False
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    count = ctypes.c_uint(0)
    found = nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0
    return found and count.value > 0


def prepare_environment() -> None:
    """Check Protenix's version and choose its kernels; call before the first import of protenix.

    Variables that are already set stay as they are.

    Raises:
        UserError: Protenix is missing, or not a 2.0 release.
    """
    _check_version()
    if has_cuda():
        return
    for variable, value in CPU_KERNELS.items():
        os.environ.setdefault(variable, value)


def use_plugins(names: Iterable[str]) -> None:
    """Load plugins and register their components, in an environment where Protenix is imported.

    Twice is as good as once. Processes that compute for a command call it, too: what is registered
    is not handed over to them.

    Raises:
        HookError: A plugin is unknown, or cannot be imported.
    """
    plugins = load_plugins(names)
    if plugins:
        prepare_environment()
        point_to_ccd_cache()
    for plugin in plugins:
        plugin.register()


def protenix_root() -> Path:
    """Return the folder for Protenix's chemical components, whether or not it exists.

    It is the user's (PROTENIX_ROOT_DIR, or the home folder as Protenix itself has it) if the
    components are there, otherwise one in the user's cache.
    """
    root = Path(os.environ.get("PROTENIX_ROOT_DIR") or Path.home())
    return root if has_components(root) else _cache_root()


def has_components(root: Path) -> bool:
    """Return whether a folder holds both files of chemical components that Protenix reads."""
    return (root / COMPONENTS).is_file() and (root / RDKIT_PICKLE).is_file()


def ensure_ccd_cache(root: Path | str | None = None) -> Path:
    """Point PROTENIX_ROOT_DIR to a folder with chemical components, made offline if needed.

    The made ones cover proteins only. They come from biotite's copy of the PDB's Chemical
    Component Dictionary (about 5 s, once per RDKit version). Two processes may do so at once.

    Args:
        root: Folder to look in and to make them in; `protenix_root()` by default.

    Returns:
        The path of the folder.

    Raises:
        UserError: The folder cannot be written, or holds only one of the two files.
        RuntimeError: Protenix was imported before with another folder (an error of the caller).
    """
    root = point_to_ccd_cache(root)
    if not has_components(root):
        _build_ccd_cache(root)
    return root


def point_to_ccd_cache(root: Path | str | None = None) -> Path:
    """Set PROTENIX_ROOT_DIR as `ensure_ccd_cache` does, but make nothing.

    Raises:
        RuntimeError: Protenix was imported before with another folder (an error of the caller).
    """
    root = protenix_root() if root is None else Path(root).absolute()
    host = sys.modules.get("configs.configs_data")
    if host is not None and Path(host.PROTENIX_ROOT_DIR) != root:
        raise RuntimeError(
            f"Protenix was imported with PROTENIX_ROOT_DIR {host.PROTENIX_ROOT_DIR}; "
            f"choose {root} before that"
        )
    previous = os.environ.get("PROTENIX_ROOT_DIR")
    if previous and Path(previous) != root:
        logger.warning("PROTENIX_ROOT_DIR %s has no chemical components: using %s", previous, root)
    os.environ["PROTENIX_ROOT_DIR"] = str(root)
    return root


def prepare_pred_root(root: Path | str, checkpoint_path: Path | str, model_name: str) -> Path:
    """Lay out a PROTENIX_ROOT_DIR with which the stock `protenix pred` downloads nothing.

    It holds the chemical components, the checkpoint as `checkpoint/<model_name>.pt`, and two
    nearly empty files that the command wants to exist. Links are replaced, files never.

    Args:
        root: The folder to fill; made if absent.
        checkpoint_path: A file with {"model": state_dict}, as Protenix writes it.
        model_name: Protenix's name of the model, as in `protenix pred --model_name`.

    Returns:
        The path of the folder.

    Raises:
        UserError: There is no checkpoint at `checkpoint_path`, or a file is in the way.
    """
    root = Path(root)
    checkpoint_path = require_file(checkpoint_path, "checkpoint").resolve()
    if not has_components(root):
        source = protenix_root()
        if not has_components(source):
            _build_ccd_cache(source)
        for name in (COMPONENTS, RDKIT_PICKLE):
            _link(source / name, root / name)
    for name, content in PRED_STUBS.items():
        if not (root / name).exists():
            (root / name).write_text(content, encoding="utf-8")
    _link(checkpoint_path, root / "checkpoint" / f"{model_name}.pt")
    return root


def protenix_pred_environment(root: Path | str) -> dict[str, str]:
    """Return the environment variables for a run of the stock `protenix pred`.

    Args:
        root: A folder from `prepare_pred_root`.
    """
    kernels = {} if has_cuda() else CPU_KERNELS
    return {**kernels, **os.environ, "PROTENIX_ROOT_DIR": str(Path(root).resolve())}


def _check_version() -> None:
    hint = f"install Protenix {SUPPORTED_VERSION}x: pip install 'protenix>=2.0,<2.1'"
    try:
        version = importlib.metadata.version("protenix")
    except importlib.metadata.PackageNotFoundError:
        raise UserError("Protenix is not installed", hint) from None
    if not version.startswith(SUPPORTED_VERSION):
        raise UserError(f"expected Protenix {SUPPORTED_VERSION}x, found {version}", hint)


def _cache_root() -> Path:
    # Pickled molecules do not load into an older RDKit, and their conformers differ between
    # versions: one folder for each.
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "protenix-eba" / f"ccd-rdkit{importlib.metadata.version('rdkit')}"


def _link(source: Path, target: Path) -> None:
    """Make `target` a link to `source`, but never in place of a file of the user's."""
    if target.exists() and target.resolve() == source.resolve():
        return
    if target.exists() and not target.is_symlink():
        raise UserError(
            f"{target} is in the way of a link to {source}", "choose an empty folder as the root"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.symlink_to(source.resolve())
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _build_ccd_cache(root: Path) -> None:
    """Make `root`/common in a temporary folder and rename it, so that it is whole or absent."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".common-", dir=root))
    except OSError as error:
        raise UserError(
            f"cannot make the cache of chemical components at {root}: {error.strerror}",
            "set XDG_CACHE_HOME to a folder that you can write to",
        ) from error
    try:
        components = temporary / Path(COMPONENTS).name
        _write_components(components)
        _write_rdkit_pickle(components, temporary / Path(RDKIT_PICKLE).name)
        temporary.chmod(0o755)
        temporary.rename(root / "common")
    except OSError as error:
        # Another process was faster: its folder is as good as ours.
        if not has_components(root):
            raise UserError(
                f"{root / 'common'} lacks components.cif or its RDKit pickle, and is in the way",
                "remove that folder and run the command again",
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_components(path: Path) -> None:
    """Write `COMPONENT_CODES` of biotite's component dictionary as CIF, one block each."""
    import numpy as np
    from biotite.structure.info import get_ccd
    from biotite.structure.io.pdbx import CIFBlock, CIFCategory, CIFFile

    ccd: Any = get_ccd()
    blocks: dict[str, dict[str, Any]] = {code: {} for code in COMPONENT_CODES}
    for category, key in (
        ("chem_comp", "id"),
        ("chem_comp_atom", "comp_id"),
        ("chem_comp_bond", "comp_id"),
    ):
        codes = ccd[category][key].as_array()
        columns = list(ccd[category].items())
        for code in COMPONENT_CODES:
            rows = np.flatnonzero(codes == code)
            if len(rows):  # bonds may be absent
                blocks[code][category] = CIFCategory(
                    {name: list(_cif_values(column, rows)) for name, column in columns}
                )
    CIFFile({code: CIFBlock(block) for code, block in blocks.items()}).write(path)


def _cif_values(column: Any, rows: np.ndarray) -> Iterator[str]:
    """Yield the strings of some rows of a BinaryCIF column.

    The raw array is indexed first: decoding whole columns takes minutes.
    """
    values = column.data.array[rows]
    masks = [0] * len(rows) if column.mask is None else column.mask.array[rows]
    for value, mask in zip(values, masks, strict=True):
        yield {1: ".", 2: "?"}.get(int(mask), str(value))


def _write_rdkit_pickle(components: Path, path: Path) -> None:
    """Write Protenix's own pickle of molecules with a reference conformer.

    Its `precompute_ccd_mol` does the same in a pool of processes, which neither daemons nor
    programs with threads should start; so its function for one molecule is called here.
    """
    import rdkit.Chem.AllChem  # noqa: F401  the host uses it without importing it
    from scripts.gen_ccd_cache import _get_component_rdkit_mol_processing

    molecules = {
        code: _get_component_rdkit_mol_processing((code, components)) for code in COMPONENT_CODES
    }
    with path.open("wb") as handle:
        pickle.dump(molecules, handle)
