"""What `gpu_check.py` measures: each part returns its figures.

torch and what is timed are imported inside: one that is missing is the result of its part alone.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIZES = {
    "full": {"model": "base", "residues": (100, 217, 384), "conformers": (2, 3, 5), "steps": 20},
    "rehearsal": {"model": "tiny", "residues": (4,), "conformers": (2,), "steps": 2},
}
MODES = ("batched", "checkpointed")
PRECISIONS = ("bfloat16", "float32")
N_TIMED = 3


def parts(size: dict[str, Any], device: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what is to be measured, by name, what matters most first."""
    model, residues = size["model"], size["residues"]
    found: dict[str, Callable[[], dict[str, Any]]] = {"machine": partial(machine, device)}
    found |= {"tests": tests, "openmm": openmm}
    found |= {f"lddt N={n}": partial(lddt, n, device) for n in residues}
    for precision in PRECISIONS:
        for n in residues:
            rest = (model, n, size["steps"], precision, device)
            found[f"sample {precision} N={n}"] = partial(sample, *rest)
    for mode in MODES:
        for precision in PRECISIONS:
            for n in residues:
                for k in size["conformers"]:
                    rest = (mode, model, n, k, precision, device)
                    found[f"train {mode} {precision} N={n} K={k}"] = partial(train, *rest)
    return found


def machine(device: str) -> dict[str, Any]:
    """Describe the device, and measure its rate in matrix multiplication."""
    import platform

    import torch

    from bench_protein import configuration

    configuration("tiny")
    name = platform.machine()
    kernel = os.environ["LAYERNORM_TYPE"]
    figures: dict[str, Any] = {"torch": torch.__version__, "layer norm": kernel}
    if device == "cuda":
        about = torch.cuda.get_device_properties(0)
        name = f"{about.name} (compute capability {about.major}.{about.minor})"
        figures |= {"memory_gb": about.total_memory / 1e9, "cuda": torch.version.cuda}
    n = 8192 if device == "cuda" else 256
    for precision in PRECISIONS:
        a = torch.randn(n, n, device=device, dtype=getattr(torch, precision))
        seconds, _ = timed(lambda a=a: a @ a, device)
        figures[f"tflops_{precision}"] = 2 * n**3 / seconds / 1e12
    return {"device": name, **figures}


def train(mode: str, model: str, n: int, k: int, precision: str, device: str) -> dict[str, Any]:
    """Time training steps, as `bench_train.py` makes them on a CPU."""
    import torch

    from bench_train import Setting, our_step

    setting = Setting(mode, model, n, k, device)
    torch.backends.cuda.matmul.allow_tf32 = setting.configs.enable_tf32
    adam = torch.optim.Adam(setting.module.parameters(), lr=1e-6)
    losses = []

    def step() -> None:
        adam.zero_grad()
        loss, terms = our_step(setting, False, precision)
        for term in terms:
            term.backward()
        adam.step()
        losses.append(float(loss))

    seconds, peak = timed(step, device)
    return {
        **{"seconds": seconds, "peak_gb": peak, "loss": losses[0]},
        "tf32": bool(setting.configs.enable_tf32),
        "structures_per_s": k * setting.noisy.coordinates.shape[1] / seconds,
    }


def sample(model: str, n: int, n_steps: int, precision: str, device: str) -> dict[str, Any]:
    """Time samples, as many at a time as `--batch auto` takes, but ten at most."""
    import torch

    from bench_sample import Setting
    from protenix_eba.sampling.chunk_size import samples_at_a_time
    from protenix_eba.sampling.samplers import TargetSampler
    from protenix_eba.sampling.settings import SamplerSettings

    setting = Setting(model, n, device, getattr(torch, precision))
    torch.backends.cuda.matmul.allow_tf32 = setting.configs.enable_tf32
    n_atoms = len(setting.protein.atoms)
    chunk = min(10, samples_at_a_time(n, n_atoms, setting.device))
    settings = SamplerSettings(n_steps=n_steps)
    sampler = TargetSampler(setting.denoiser, setting.protein, setting.embeddings, settings, 0)
    seconds, peak = timed(lambda: sampler(range(chunk)), device, n_timed=1)
    return {
        "seconds_per_sample": seconds / chunk,
        "chunk": chunk,
        "peak_gb": peak,
        "atoms": n_atoms,
    }


def lddt(n: int, device: str) -> dict[str, Any]:
    """Time the smooth LDDT of 2 x 8 structures of a compact protein with its gradient."""
    import torch

    from bench_protein import benchmark_protein
    from protenix_eba.training.denoising_error import smooth_lddt

    n_atoms = len(benchmark_protein(n).atoms)
    draw = torch.Generator().manual_seed(0)
    side = (n_atoms / 0.05) ** (1 / 3)
    target = (side * torch.rand(2, n_atoms, 3, generator=draw)).to(device)
    moved = target[:, None] + torch.randn(2, 8, n_atoms, 3, generator=draw).to(device)
    mask = torch.ones(2, n_atoms, device=device)

    def both() -> None:
        predicted = moved.detach().requires_grad_()
        smooth_lddt(predicted, target, mask).sum().backward()

    seconds, peak = timed(both, device)
    return {"seconds": seconds, "peak_gb": peak, "atoms": n_atoms}


def tests() -> dict[str, Any]:
    """Run the tests that need a GPU; conftest.py is left out, since it needs all of Protenix."""
    words = ["-m", "pytest", "-q", "--noconftest", "-m", "gpu", "tests/test_gpu.py"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR", "E  "))]
    return {"status": done.returncode, "summary": lines[-1], "failures": failures[:20]}


def openmm() -> dict[str, Any]:
    """Compare the energy of argon atoms on CUDA, else on the CPU, with the Reference platform's."""
    from openmm import Platform

    names = [Platform.getPlatform(i).getName() for i in range(Platform.getNumPlatforms())]
    figures: dict[str, Any] = {"version": Platform.getOpenMMVersion(), "platforms": names}
    fast = "CUDA" if "CUDA" in names else "CPU"
    energies = {name: argon_energy(name) for name in ("Reference", fast)}
    difference = abs(energies[fast] / energies["Reference"] - 1)
    return {**figures, "compared": fast, "relative_difference": difference}


def argon_energy(platform: str) -> float:
    """Return the energy of 1,000 argon atoms on a grid, kJ/mol."""
    import numpy as np
    from openmm import Context, NonbondedForce, Platform, System, VerletIntegrator

    system, force = System(), NonbondedForce()
    force.setNonbondedMethod(NonbondedForce.NoCutoff)
    grid = 0.38 * np.stack(np.meshgrid(*[np.arange(10)] * 3), axis=-1).reshape(-1, 3)
    for _ in grid:
        system.addParticle(39.948)
        force.addParticle(0.0, 0.3405, 0.996)
    system.addForce(force)
    context = Context(system, VerletIntegrator(0.001), Platform.getPlatformByName(platform))
    context.setPositions(grid)
    return float(context.getState(getEnergy=True).getPotentialEnergy()._value)


def timed(
    action: Callable[[], object], device: str, n_timed: int = N_TIMED
) -> tuple[float, float | None]:
    """Return the mean seconds of an action after a first one, and the peak of the GPU in GB."""
    import torch

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(1 + n_timed):
        wait()
        started = time.perf_counter()
        action()
        wait()
        seconds.append(time.perf_counter() - started)
    return statistics.mean(seconds[1:]), peak_gb(device)


def peak_gb(device: str) -> float | None:
    """Return the peak of the GPU's memory in GB; None on a CPU."""
    import torch

    return torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None
