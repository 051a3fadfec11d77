"""The same energy function, evaluated faster on a CPU.

98 % of an OpenMM CPU evaluation of CHARMM36 + GBn2 is the CustomGBForce, which interprets its
formulas pair by pair. `accelerate` replaces it by the C routine `gbn2.c`, and folds the
Lennard-Jones tables into the NonbondedForce, which is vectorised. Forces and energies stay the
same (`energy.self_check` compares them with OpenMM's for each target); only the time changes.
Amber's force fields have no such tables and take the C routine alone.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.resources
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from protenix_eba.core.files import cache_folder, sha256_of_file

__all__ = ["accelerate", "c_compiler", "can_accelerate", "routine_file"]

Compute = Callable[[Any], tuple[float, NDArray[np.float64]]]

_DOUBLES = np.ctypeslib.ndpointer(np.float64, flags="C_CONTIGUOUS")
_FLOATS = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
_INTS = np.ctypeslib.ndpointer(np.int32, flags="C_CONTIGUOUS")


def can_accelerate() -> bool:
    """Tell whether this machine has a C compiler and OpenMM with PythonForce (8.4 or later)."""
    return hasattr(openmm, "PythonForce") and _library() is not None


def c_compiler() -> str | None:
    """Return the C compiler that builds the routine, or None."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@functools.cache
def routine_file() -> Path | None:
    """Return the compiled routine, built once for each source version; None where it cannot be."""
    compiler = c_compiler()
    source = importlib.resources.files("protenix_eba.energy").joinpath("gbn2.c")
    with importlib.resources.as_file(source) as path:
        name = f"gbn2-{sha256_of_file(path)[:12]}-{os.uname().nodename}.so"
        target = cache_folder() / name
        try:
            if not target.is_file():
                if compiler is None:
                    return None
                _compile(compiler, path, target)
        except (OSError, subprocess.SubprocessError):
            return None
    return target


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Load the compiled routine."""
    path = routine_file()
    try:
        library = ctypes.CDLL(str(path)) if path else None
    except OSError:
        return None
    if library is None:
        return None
    doubles, floats, number = _DOUBLES, _FLOATS, ctypes.c_float
    library.gbn2.argtypes = [
        ctypes.c_int, doubles, floats, _INTS, ctypes.c_int, floats, floats,
        number, number, number, floats, floats,
    ]  # fmt: skip
    library.gbn2.restype = ctypes.c_double
    return library


def _compile(compiler: str, source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built, shared = f"{folder}/gbn2.o", f"{folder}/gbn2.so"
        flags = ["-O3", "-march=native", "-ffast-math", "-fPIC", "-w"]
        # Linked in a second step: linking with -ffast-math would flush denormals in all of Python.
        run = functools.partial(subprocess.run, check=True, capture_output=True, timeout=120)
        run([compiler, *flags, "-c", str(source), "-o", built])
        run([compiler, "-shared", built, "-o", shared, "-lm"])
        os.replace(shared, target)


def accelerate(system: openmm.System) -> openmm.System:
    """Return a copy of `system` with the same energies and cheaper evaluation on a CPU.

    Args:
        system: System from a CHARMM36 or Amber force field with "implicit/gbn2.xml", NoCutoff.

    Raises:
        ValueError: The system has other forces than those of these force fields with GBn2.
        RuntimeError: No compiler, or an OpenMM without PythonForce: ask `can_accelerate` first.
    """
    if not can_accelerate():
        raise RuntimeError("no compiled GBn2 routine on this machine")
    fast = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    if any(isinstance(force, openmm.CustomNonbondedForce) for force in fast.getForces()):
        _fold_lennard_jones(fast)
    index, force = _the_force(fast, openmm.CustomGBForce)
    replacement = openmm.PythonForce(_gbn2(force))
    replacement.setForceGroup(force.getForceGroup())
    fast.removeForce(index)
    fast.addForce(replacement)
    return fast


def _the_force(system: openmm.System, kind: type) -> tuple[int, Any]:
    found = [(i, f) for i, f in enumerate(system.getForces()) if isinstance(f, kind)]
    if len(found) != 1:
        raise ValueError(f"expected one {kind.__name__}, found {len(found)}")
    return found[0]


def _fold_lennard_jones(system: openmm.System) -> None:
    """Move the tabulated Lennard-Jones terms into the NonbondedForce as sigma and epsilon.

    Exact where the tables obey the Lorentz-Berthelot rules (all protein types of CHARMM36) and
    the exclusions are the exceptions, whose own Lennard-Jones terms are a CustomBondForce.
    """
    index, tabulated = _the_force(system, openmm.CustomNonbondedForce)
    _, nonbonded = _the_force(system, openmm.NonbondedForce)
    if tabulated.getNumExclusions() != nonbonded.getNumExceptions():
        raise ValueError("Lennard-Jones exclusions differ from the Coulomb exceptions")
    tables = {
        tabulated.getTabulatedFunctionName(i): tabulated.getTabulatedFunction(i)
        for i in range(tabulated.getNumTabulatedFunctions())
    }
    a, b = (_table(tables[name]) for name in ("acoef", "bcoef"))
    self_a, self_b = np.diag(a), np.diag(b)
    present = self_b > 0
    sigma = np.where(present, np.where(present, self_a, 1) / np.where(present, self_b, 1), 0.1**6)
    sigma = sigma ** (1 / 6)
    epsilon = np.where(present, self_b**2 / (4 * np.where(present, self_a, 1)), 0.0)
    mean, depth = (sigma[:, None] + sigma) / 2, np.sqrt(epsilon[:, None] * epsilon)
    if not np.allclose(a, 4 * depth * mean**12, rtol=1e-9, atol=0) or not np.allclose(
        b, 4 * depth * mean**6, rtol=1e-9, atol=0
    ):
        raise ValueError("Lennard-Jones tables do not obey the Lorentz-Berthelot rules")
    for atom in range(system.getNumParticles()):
        kind = int(tabulated.getParticleParameters(atom)[0])
        charge = nonbonded.getParticleParameters(atom)[0]
        nonbonded.setParticleParameters(atom, charge, sigma[kind], epsilon[kind])
    system.removeForce(index)


def _table(function: Any) -> NDArray[np.float64]:
    """Return a Discrete2DFunction as an array `[x, y]`."""
    size_x, size_y, values = function.getFunctionParameters()
    return np.asarray(values, dtype=np.float64).reshape(size_y, size_x).T


def _gbn2(force: openmm.CustomGBForce) -> Compute:
    """Build a PythonForce callback with the parameters of an OpenMM GBSAGBn2Force."""
    library = _library()
    if library is None:
        raise RuntimeError("no compiled GBn2 routine on this machine")
    routine = library.gbn2
    count = force.getNumPerParticleParameters()
    names = [force.getPerParticleParameterName(i) for i in range(count)]
    if names != ["charge", "or", "sr", "alpha", "beta", "gamma", "radindex"]:
        raise ValueError(f"not a GBn2 force: its parameters are {names}")
    n = force.getNumParticles()
    rows = np.array([force.getParticleParameters(i) for i in range(n)], dtype=np.float32)
    parameters = np.ascontiguousarray(rows[:, :6].T)
    types = np.ascontiguousarray(rows[:, 6].astype(np.int32))
    tables = {
        force.getTabulatedFunctionName(i): _table(force.getTabulatedFunction(i))
        for i in range(force.getNumTabulatedFunctions())
    }
    d0, m0 = (
        np.ascontiguousarray(tables[name].T, np.float32).ravel() for name in ("getd0", "getm0")
    )
    n_types = len(tables["getd0"])
    solute, solvent, kappa = _dielectrics(force)
    work, forces = np.empty(11 * n, np.float32), np.empty((3, n), np.float32)

    def compute(state: Any) -> tuple[float, NDArray[np.float64]]:
        xyz = np.ascontiguousarray(state.getPositions(asNumpy=True)._value, dtype=np.float64)
        energy = routine(
            n, xyz, parameters, types, n_types, d0, m0, solute, solvent, kappa, work, forces
        )
        return float(energy), forces.T.astype(np.float64)

    return compute


def _dielectrics(force: openmm.CustomGBForce) -> tuple[float, float, float]:
    """Return solute and solvent permittivity and kappa (1/nm), from OpenMM's formula."""
    constants = {}
    for term in force.getEnergyTermParameters(0)[0].split(";")[1:]:
        name, _, value = term.partition("=")
        constants[name.strip()] = float(value)
    return (
        constants["soluteDielectric"],
        constants["solventDielectric"],
        constants.get("kappa", 0.0),
    )
