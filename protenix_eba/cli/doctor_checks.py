"""The checks of `protenix-eba doctor`: what is installed here, and what this machine has."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protenix_eba.core.errors import UserError

__all__ = ["CHECKS", "Check", "run_check"]

GIB: Final = 2**30
# Below these a word is due, no more: what a run needs depends on its proteins and its model.
MEMORY_GIB: Final = 4
DISK_GIB: Final = 2
# The oldest drivers that run programs made for CUDA 13 and 12 (NVIDIA, "CUDA Toolkit Release
# Notes", table of minimum driver versions), and OpenMM's extra that brings such a program.
OPENMM_EXTRAS: Final = {580: "cuda13", 525: "cuda12"}


@dataclass(frozen=True)
class Check:
    """The result of one check of the machine.

    Attributes:
        name: What was looked at.
        found: What is there, in a few words.
        advice: What to do; empty where nothing has to be done.
        needed: Whether a run on a CPU needs what the advice is about.
    """

    name: str
    found: str
    advice: str = ""
    needed: bool = False

    @property
    def state(self) -> str:
        """Either "ok", "note" (advice that a run on a CPU can do without) or "failed"."""
        if not self.advice:
            return "ok"
        return "failed" if self.needed else "note"


def run_check(name: str, check: Callable[[], Check]) -> Check:
    """Run a check; an exception that it raises becomes its result.

    Args:
        name: Name of the check.
        check: Looks at the machine.
    """
    noise = io.StringIO()  # DeepSpeed greets on stdout, where the answer is to stand alone
    try:
        with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
            return check()
    except UserError as error:
        return Check(name, error.args[0], error.hint or "see the message", needed=True)
    except Exception as error:
        found = f"{type(error).__name__}: {error}".splitlines()[0]
        return Check(name, found, "see what is said of the packages; else report it", needed=True)


def _python() -> Check:
    return Check("Python", f"{platform.python_version()}, {platform.platform()}")


def _package(name: str, module: str | None = None, needed: bool = True) -> Callable[[], Check]:
    """Return the check of a package: its version, and whether it can be imported.

    Args:
        name: Name of the package.
        module: What is imported; nothing when None.
        needed: Whether a run on a CPU needs it.
    """

    def check() -> Check:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return Check(name, "not installed", "pip install protenix-eba", needed)
        try:
            if module:
                importlib.import_module(module)
        except Exception as error:  # a library of another version, a processor without AVX
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            advice = f"pip install --force-reinstall --no-deps {name}=={version}"
            return Check(name, f"{version}, cannot be imported: {reason}", advice, needed)
        return Check(name, version)

    return check


def _host() -> Check:
    from protenix_eba.host.environment import Plugin, prepare_environment

    prepare_environment()  # refuses another version
    theirs = Plugin.__module__.startswith("protenix.")
    return Check("host", "patched: its plugin hooks" if theirs else "not patched: our plugin hooks")


def _gpus() -> list[list[str]]:
    """Return name, driver and memory of each GPU that the driver shows."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    answer = subprocess.run([program, *query], capture_output=True, text=True, timeout=60)
    rows = answer.stdout.splitlines() if answer.returncode == 0 else []
    return [[cell.strip() for cell in row.split(",")] for row in rows if row.count(",") == 2]


def _gpu() -> Check:
    import torch

    gpus = _gpus()
    if not gpus and not torch.cuda.is_available():
        return Check("GPU", "none; upstream's model needs one to be trained")
    names = "; ".join(f"{name}, {memory}, driver {driver}" for name, driver, memory in gpus)
    found = names or torch.cuda.get_device_name()
    if torch.cuda.is_available():
        return Check("GPU", f"{found}; torch for CUDA {torch.version.cuda}")
    if torch.version.cuda is None:
        advice = "install a CUDA build of torch, in the version that Protenix pins"
    else:
        advice = (
            f"update the driver for torch's CUDA {torch.version.cuda}; look at CUDA_VISIBLE_DEVICES"
        )
    return Check("GPU", f"{found}; torch does not see it", advice)


def _platforms() -> Check:
    import openmm

    numbers = range(openmm.Platform.getNumPlatforms())
    found = [openmm.Platform.getPlatform(number).getName() for number in numbers]
    if "CPU" not in found:
        advice = "pip install --force-reinstall --no-deps openmm"
        return Check("OpenMM platforms", ", ".join(found), advice, needed=True)
    gpus = _gpus()
    if "CUDA" in found or not gpus:
        return Check("OpenMM platforms", ", ".join(found))
    driver = int(gpus[0][1].split(".")[0])
    extra = next((extra for least, extra in OPENMM_EXTRAS.items() if driver >= least), None)
    version = importlib.metadata.version("openmm")
    advice = f'energies on the GPU: pip install "openmm[{extra}]=={version}"'
    if extra is None:
        advice = f"energies on the GPU: OpenMM needs driver {min(OPENMM_EXTRAS)} or later"
    return Check("OpenMM platforms", ", ".join(found), advice)


def _compiler() -> Check:
    from protenix_eba.energy.fast import c_compiler, can_accelerate

    found = c_compiler() or "none"
    if can_accelerate():
        return Check("C compiler", f"{found}; the GBn2 routine is built")
    advice = "energies on a CPU are faster with it: install gcc and OpenMM 8.4 or later"
    return Check("C compiler", f"{found}; the GBn2 routine cannot be built", advice)


def _components() -> Check:
    from protenix_eba.host.environment import has_components, protenix_root

    root = protenix_root()
    if has_components(root):
        return Check("CCD cache", f"{root}: present")
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    if there.is_dir() and os.access(there, os.W_OK):
        return Check("CCD cache", f"{root}: absent, is made at the first use")
    advice = "set XDG_CACHE_HOME to a folder that you can write to"
    return Check(
        "CCD cache", f"{root}: absent, {there} is no folder to write to", advice, needed=True
    )


def _memory() -> Check:
    rows = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    kib = {name: int(value.split()[0]) for name, _, value in (row.partition(":") for row in rows)}
    free, total = kib["MemAvailable"] * 1024 / GIB, kib["MemTotal"] * 1024 / GIB
    advice = "close other programs, or ask the queue for more memory"
    found = f"{free:.1f} GiB free of {total:.1f}; {os.cpu_count()} CPU cores"
    return Check("memory", found, "" if free >= MEMORY_GIB else advice)


def _disk() -> Check:
    usage = shutil.disk_usage(Path.cwd())
    advice = "checkpoints and samples may not fit: make room, or work in another folder"
    found = f"{usage.free / GIB:.1f} GiB free of {usage.total / GIB:.1f} in {Path.cwd()}"
    return Check("disk", found, "" if usage.free >= DISK_GIB * GIB else advice)


def _plugins() -> Check:
    from protenix_eba.host.environment import HookError, load_plugins
    from protenix_eba.plugin_api import installed_plugins

    names = sorted(installed_plugins())
    if "protenix_eba" not in names:
        advice = "install the package itself: pip install protenix-eba, or make env in a checkout"
        return Check("plugins", ", ".join(names) or "none", advice, needed=True)
    broken = {}
    for name in names:
        try:
            load_plugins([name])
        except HookError as error:
            broken[name] = error.args[0]
    if not broken:
        return Check("plugins", ", ".join(names))
    found = f"{', '.join(names)}; {'; '.join(broken.values())}"
    return Check("plugins", found, f"reinstall {', '.join(broken)}", "protenix_eba" in broken)


def _all() -> Iterator[tuple[str, Callable[[], Check]]]:
    yield "Python", _python
    yield "protenix-eba", _package("protenix-eba")
    yield "protenix", _package("protenix")
    yield "host", _host  # settles the host's kernels, before anything imports it
    for name in ("torch", "deepspeed", "openmm", "mdtraj"):
        yield name, _package(name, name)
    yield "GPU", _gpu
    yield "OpenMM platforms", _platforms
    yield "C compiler", _compiler
    yield "CCD cache", _components
    yield "memory", _memory
    yield "disk", _disk
    yield "plugins", _plugins


CHECKS: Final = dict(_all())
"""Each check under its name, in the order in which they are shown."""
