"""CPU time and peak memory of an EBA step, side by side with the published code's structure.

All modes compute the same loss and the same gradient from the same weights, noise and conformers,
each in a process of its own on one thread:

  published      K forward passes, K forward passes of a reference that EBA does not use (with
                 their graphs), upstream's losses of both one conformer at a time, checkpointing of
                 each block, and the 20-step rollout that upstream makes in every training step.
                 Upstream's own functions throughout.
  batched        what `protenix_eba.training.step` does: one forward pass over K x S.
  checkpointed   the same with activation checkpointing (blocks_per_ckpt 1).
  low_memory     `eba.low_memory` with checkpointing: without gradients first, then four noise
                 samples of a conformer at a time.

Times are user CPU seconds: the kernel's share is page faults, which depend on what ran before.
"In matmul" is the share of them that the step's matrix multiplications take at the machine's
measured rate; "without rollout" is the ratio to the published structure less its rollout. Peak
memory is that of the step over what weights and inputs take, gradients included; "with reference"
counts the second copy of the weights for the published structure, which keeps it.

Example:

  python scripts/bench_train.py --models tiny --residues 100 --conformers 2 3 5
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_protein import MODELS, awaken, benchmark_protein, configuration, embeddings

MODES = ("published", "batched", "checkpointed", "low_memory")
N_NOISE = 8
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # Freed tensors go back to the system at once: peaks are those of what is alive.
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "100000",
}
TEMPERATURE = 20.0  # makes the model's weights neither uniform nor certain


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which sizes of the model and of proteins are timed."""
    parser.add_argument(
        "--models",
        nargs="+",
        choices=MODELS,
        default=["tiny"],
        help="sizes of the model [default: %(default)s]",
    )
    parser.add_argument(
        "--residues",
        nargs="+",
        type=int,
        default=[100],
        help="lengths of the proteins, in residues [default: %(default)s]",
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_options(parser)
    parser.add_argument(
        "--conformers",
        nargs="+",
        type=int,
        default=[2, 3, 5],
        help="numbers of conformers K of a protein in each step [default: %(default)s]",
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=MODES,
        default=list(MODES),
        help="modes to time [default: all]",
    )
    parser.add_argument("--out", type=Path, help="JSON file to write the figures to as well")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    return parser.parse_args()


# The measured process.


class Memory:
    """Peak memory since `start`, in MB (Linux)."""

    def start(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self.idle = self._read("VmRSS")

    def peak(self) -> float:
        return self._read("VmHWM") - self.idle

    @staticmethod
    def _read(key: str) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"no {key}")


def user_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


class Setting:
    """Weights, inputs, conformers and noise, the same in every mode, on a device."""

    def __init__(
        self, mode: str, model: str, n_residues: int, n_conformers: int, device: str = "cpu"
    ):
        import copy
        import math

        import torch

        from protenix_eba.host.features import to_device
        from protenix_eba.host.weights import empty_diffusion_module
        from protenix_eba.training.noisy_conformers import add_noise

        self.device = torch.device(device)
        blocks = "null" if mode == "batched" else "1"
        self.configs = configuration(model, blocks_per_ckpt=blocks)
        draw = torch.Generator().manual_seed(0)
        module = empty_diffusion_module(self.configs).train()
        awaken(module, draw)
        self.module = module.to(self.device)
        if mode == "published":  # upstream's default; ours differs without a GPU
            for part in self.module.modules():
                if hasattr(part, "use_efficient_implementation"):
                    part.use_efficient_implementation = True
        self.reference = copy.deepcopy(self.module) if mode == "published" else None
        protein = benchmark_protein(n_residues)
        self.features, self.n_residues = to_device(protein.features, self.device), n_residues
        n_atoms = len(protein.atoms)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=draw)

        self.embeddings = embeddings(n_residues, draw).to(self.device)
        # As dense as a protein: 0.05 heavy atoms in a cubic angstrom.
        radius = (n_atoms / 0.05 * 3 / 4 / math.pi) ** (1 / 3)
        directions = normal(n_atoms, 3)
        lengths = radius * torch.rand(n_atoms, 1, generator=draw) ** (1 / 3)
        fold = directions / directions.norm(dim=-1, keepdim=True) * lengths
        self.target = (fold + 0.5 * normal(n_conformers, n_atoms, 3)).to(self.device)
        self.mask = torch.ones(n_conformers, n_atoms, device=self.device)
        self.energy = 50.0 * normal(n_conformers).double().to(self.device)
        noise = {"noise_mean": -1.2, "noise_std": 1.5, "sigma_data": 16.0}
        self.noisy = add_noise(self.target, self.mask, n_noise=N_NOISE, generator=draw, **noise)


def published_step(setting: Setting, parts: dict[str, float]):
    """Make one step as the published code does; return the loss."""
    import torch
    from protenix.model.generator import InferenceNoiseScheduler, sample_diffusion
    from protenix.model.loss import MSELoss, SmoothLDDTLoss

    from protenix_eba.training.denoising_error import edm_weight
    from protenix_eba.training.energy_losses import eba, energy_weights, reduced_energies

    module, reference, embeddings = setting.module, setting.reference, setting.embeddings
    trunk = {
        "input_feature_dict": setting.features,
        "s_inputs": embeddings.s_inputs,
        "s_trunk": embeddings.s_trunk,
        "z_trunk": embeddings.z_trunk,
        "pair_z": None,
        "p_lm": None,
        "c_l": None,
    }
    # A structure's weight is 1 for protein atoms.
    kinds = {"is_rna": 0, "is_dna": 0, "is_ligand": 0}
    flags = {key: torch.zeros_like(setting.mask[0]) for key in kinds}
    features = setting.features | flags
    started = user_seconds()
    with torch.no_grad():
        sample_diffusion(
            module, noise_schedule=InferenceNoiseScheduler()(N_step=20), N_sample=1, **trunk
        )
    parts["rollout"] = user_seconds() - started
    sigma = setting.noisy.sigma
    mse, lddt = MSELoss(), SmoothLDDTLoss()
    totals = {module: [], reference: []}
    for denoiser, of_one in totals.items():
        started = user_seconds()
        outputs = [
            denoiser(x_noisy=x, t_hat_noise_level=sigma, **trunk) for x in setting.noisy.coordinates
        ]
        name = "policy" if denoiser is module else "reference"
        parts[f"{name} forward"] = user_seconds() - started
        started = user_seconds()
        for predicted, target, mask in zip(outputs, setting.target, setting.mask, strict=True):
            near = torch.cdist(target, target) < 15.0
            near.fill_diagonal_(False)
            aligned = mse(
                pred_coordinate=predicted,
                true_coordinate=target,
                coordinate_mask=mask,
                per_sample_scale=edm_weight(sigma, 16.0),
                **{key: features[key] for key in kinds},
            )
            # Upstream's sparse form has exact distances; its dense one, as fast here, has those of
            # torch.cdist by matrix multiplication, wrong by 0.01 angstrom.
            of_one.append(aligned + lddt.sparse_forward(predicted, target, near, 1))
        parts[f"{name} losses"] = user_seconds() - started
    scaled = reduced_energies(
        setting.energy, n_residues=setting.n_residues, temperature_K=300.0, length_exponent=0.5
    )
    errors = torch.stack(totals[module])[:, None]  # [K, 1]: upstream's losses average over noise
    return eba(errors, energy_weights(scaled), diffusion_temperature=TEMPERATURE)


def our_step(setting: Setting, low_memory: bool, precision: str = "float32"):
    """Make a step of `protenix_eba.training.step`; return the loss and scalars to differentiate."""
    import torch

    from protenix_eba.host.config import EBAConfig
    from protenix_eba.host.denoiser import ConformerDenoiser
    from protenix_eba.training.noise import NoiseSettings
    from protenix_eba.training.objectives import eba_objective
    from protenix_eba.training.step import ItemStep, NoisyItem

    config = EBAConfig(
        n_conformers=len(setting.target),
        n_noise=N_NOISE,
        diffusion_temperature=TEMPERATURE,
        expectation="official",
        low_memory=low_memory,
    )
    step = ItemStep(
        ConformerDenoiser(setting.module, getattr(torch, precision)),
        eba_objective(config),
        config,
        NoiseSettings(-1.2, 1.5, 16.0),
        setting.device,
    )
    item = NoisyItem(
        setting.features, setting.embeddings, setting.noisy, setting.target, setting.mask
    )
    keep = torch.ones(len(setting.target), dtype=torch.bool, device=setting.device)
    denoised = step.denoise_noisy(item, setting.energy, setting.n_residues, keep, ~keep)
    loss = step.loss(denoised)
    return loss.detach(), (term / step.n_backwards for term in step.backward_terms(denoised, loss))


def run_step(setting: Setting, mode: str, parts: dict[str, float]):
    """Make one forward and backward pass; return the loss."""
    if mode == "published":
        loss = published_step(setting, parts)
        started = user_seconds()
        loss.backward()
        parts["backward"] = user_seconds() - started
        return loss.detach()
    loss, terms = our_step(setting, mode == "low_memory")
    for term in terms:
        term.backward()
    return loss


def child(mode: str, model: str, residues: str, conformers: str, out: str) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(1)
    setting = Setting(mode, model, int(residues), int(conformers))
    parts: dict[str, float] = {}
    memory = Memory()
    memory.start()
    # Memory is that of the first step. Time is that of the second: a virtual machine gets its
    # memory from the host when it first touches it, which counts as the process's time.
    run_step(setting, mode, parts)
    peak = memory.peak()
    setting.module.zero_grad()
    wall, started = time.perf_counter(), user_seconds()
    loss = run_step(setting, mode, parts)
    seconds = user_seconds() - started
    wall = time.perf_counter() - wall
    gradients = {n: p.grad for n, p in setting.module.named_parameters() if p.grad is not None}
    counter = FlopCounterMode(display=False)
    if mode == "batched":
        setting.module.zero_grad()
        with counter:
            run_step(setting, mode, parts)
    figures = {
        "user_s": seconds,
        "wall_s": wall,
        "peak_mb": peak,
        "gflop": counter.get_total_flops() / 1e9 if mode == "batched" else None,
        "loss": loss.item(),
        "parts": parts,
        "weights_mb": sum(p.numel() * 4 for p in setting.module.parameters()) / 2**20,
    }
    torch.save({"figures": figures, "gradients": gradients}, out)


# The process that compares.


def matmul_gflops() -> float:
    """Measure the machine's rate of matrix products of the transformer's size, one thread."""
    code = (
        "import torch,resource;torch.set_num_threads(1);a=torch.randn(2400,768);"
        "b=torch.randn(768,1536);a@b;u=lambda:resource.getrusage(0).ru_utime;t=u();"
        "[a@b for _ in range(60)];print(2*2400*768*1536*60/(u()-t)/1e9)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(out.stdout)


def run_child(mode: str, model: str, n: int, k: int) -> dict:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.pt"
        words = [mode, model, str(n), str(k), str(path)]
        subprocess.run(
            [sys.executable, __file__, "--child", *words],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | ENVIRONMENT,
        )
        return torch.load(path, weights_only=True)


def difference(ours: dict, theirs: dict) -> float:
    """Return the relative distance of two gradients, over all weights together."""
    distance = sum(
        float((theirs[n].double() - ours[n].double()).square().sum()) for n in theirs if n in ours
    )
    missing = [n for n in theirs if n not in ours and float(theirs[n].abs().max()) > 0]
    if missing:
        raise RuntimeError(f"no gradient of {missing[:3]}")
    return (distance / sum(float(g.double().square().sum()) for g in theirs.values())) ** 0.5


def main() -> None:
    arguments = parse()
    if arguments.child:
        mode, *rest = arguments.child
        child(mode, *rest)
        return
    rate = matmul_gflops()
    print(f"{platform.machine()}, one thread, {rate:.0f} GFLOP/s in matrix multiplication")
    print(
        "| model | N | K | mode | user CPU s | ratio | without rollout | in matmul | peak MB |"
        " memory | with reference | loss diff. | gradient diff. |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for model in arguments.models:
        for n in arguments.residues:
            for k in arguments.conformers:
                first = None
                for mode in arguments.modes:
                    result = run_child(mode, model, n, k)
                    first = first or result
                    rows.append(row(model, n, k, mode, result, first) | {"gflops": rate})
                    print(line(rows[-1]), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps({"gflops": rate, "rows": rows}, indent=1))


def row(model: str, n: int, k: int, mode: str, result: dict, first: dict) -> dict:
    ours, theirs = result["figures"], first["figures"]
    rollout = theirs["parts"].get("rollout", 0.0)
    return {
        "model": model,
        "n": n,
        "k": k,
        "mode": mode,
        **ours,
        "ratio": theirs["user_s"] / ours["user_s"],
        "ratio_without_rollout": (theirs["user_s"] - rollout) / ours["user_s"],
        "memory": ours["peak_mb"] / theirs["peak_mb"],
        "memory_and_reference": ours["peak_mb"] / (theirs["peak_mb"] + theirs["weights_mb"]),
        "loss_difference": abs(ours["loss"] - theirs["loss"]) / abs(theirs["loss"]),
        "gradient_difference": difference(result["gradients"], first["gradients"]),
    }


def line(r: dict) -> str:
    share = f"{r['gflop'] / r['gflops'] / r['user_s']:.0%}" if r["gflop"] else ""
    return (
        f"| {r['model']} | {r['n']} | {r['k']} | {r['mode']} | {r['user_s']:.1f} | "
        f"{r['ratio']:.2f} | {r['ratio_without_rollout']:.2f} | "
        f"{share} | {r['peak_mb']:.0f} | "
        f"{r['memory']:.2f} | {r['memory_and_reference']:.2f} | "
        f"{r['loss_difference']:.0e} | {r['gradient_difference']:.0e} |"
    )


if __name__ == "__main__":
    main()
