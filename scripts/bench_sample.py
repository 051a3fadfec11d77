"""CPU time of sampling, side by side with upstream's own sampling loop on the same weights.

All modes run in one process, on one thread, with the same module, trunk embeddings and number of
steps; the weights are random, which costs the same:

  plain      `protenix.model.generator.sample_diffusion` as the EBA authors' code calls it: nothing
             shared between steps, 5 samples at a time (upstream's chunk).
  cached     the same as `protenix pred` calls it: pair conditioning and atom features computed
             once, the pair bias fused, scaled dot product attention, 5 at a time.
  ours       `protenix_eba.sampling.samplers.TargetSampler`, chunks as `--batch auto` chooses them.

Times are user CPU seconds per sample; what is computed once per target (`prepare`) is listed apart
and in no mode's time. "In matmul" is the share of the time that ours takes which its floating point
operations (counted by torch) need at the rate of a large matrix product measured here. "Difference"
is the largest one of the denoised coordinates from ours, angstrom, at one noise level.

Example:

  python scripts/bench_sample.py --models tiny base --residues 100 217
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench_protein import awaken, benchmark_protein, configuration, embeddings
from bench_train import add_model_options
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.features import to_device
from protenix_eba.host.weights import empty_diffusion_module
from protenix_eba.sampling.chunk_size import samples_at_a_time
from protenix_eba.sampling.samplers import TargetSampler, noise_levels
from protenix_eba.sampling.settings import SamplerSettings

UPSTREAM_CHUNK = 5
# Of 32 atoms even where all residues are glycine.
FEWEST_RESIDUES = 8


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_options(parser)
    parser.add_argument(
        "--steps",
        type=int,
        default=4,
        help="number of denoising steps; the cost is proportional to it [default: %(default)s]",
    )
    parser.add_argument(
        "--samples", type=int, default=10, help="number of samples [default: %(default)s]"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write the figures to as well")
    return parser.parse_args()


def user_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def timed(function) -> float:
    started = user_seconds()
    function()
    return user_seconds() - started


def matmul_gflops() -> float:
    """Measure the machine's rate of matrix products of the transformer's size, one thread."""
    a, b, repeats = torch.randn(2400, 768), torch.randn(768, 1536), 60
    a @ b
    seconds = timed(lambda: [a @ b for _ in range(repeats)])
    return 2 * 2400 * 768 * 1536 * repeats / seconds / 1e9


class Setting:
    """Weights and inputs, the same in every mode, on a device."""

    def __init__(
        self, model: str, n_residues: int, device: str = "cpu", dtype: torch.dtype = torch.float32
    ):
        self.device = torch.device(device)
        self.configs = configuration(model)
        draw = torch.Generator().manual_seed(0)
        module = empty_diffusion_module(self.configs).eval()
        awaken(module, draw)
        self.module = module.to(self.device)
        protein = benchmark_protein(n_residues)
        self.protein = replace(protein, features=to_device(protein.features, self.device))
        self.embeddings = embeddings(n_residues, draw).to(self.device)
        self.denoiser = ConformerDenoiser(self.module, dtype)
        with torch.no_grad():
            self.shared = self.denoiser.prepare(self.protein.features, self.embeddings.z_trunk)

    def upstream(self, cached: bool) -> dict:
        """Return the arguments of upstream's loop and module."""
        pair_z, p_lm, c_l = self.shared if cached else (None, None, None)
        # Upstream's default; ours differs without a GPU.
        for part in self.module.modules():
            if hasattr(part, "use_efficient_implementation"):
                part.use_efficient_implementation = cached
        return {
            "input_feature_dict": self.protein.features,
            "s_inputs": self.embeddings.s_inputs,
            "s_trunk": self.embeddings.s_trunk,
            "z_trunk": self.embeddings.z_trunk,
            "pair_z": pair_z,
            "p_lm": p_lm,
            "c_l": c_l,
            "enable_efficient_fusion": cached,
        }


@torch.no_grad()
def upstream_seconds(setting: Setting, cached: bool, settings: SamplerSettings, n: int) -> float:
    from protenix.model.generator import sample_diffusion

    trunk = setting.upstream(cached)
    seconds = timed(
        lambda: sample_diffusion(
            setting.module,
            noise_schedule=noise_levels(settings),
            N_sample=n,
            diffusion_chunk_size=UPSTREAM_CHUNK,
            **trunk,
        )
    )
    setting.upstream(cached=False)
    return seconds


@torch.no_grad()
def difference(setting: Setting, cached: bool) -> float:
    x = 10.0 * torch.randn(2, len(setting.protein.atoms), 3)
    sigma = torch.full((2,), 5.0)
    ours = setting.denoiser(
        setting.protein.features, setting.embeddings, x[:, None], sigma[:1], setting.shared
    )[:, 0]
    theirs = setting.module(x_noisy=x, t_hat_noise_level=sigma, **setting.upstream(cached))
    setting.upstream(cached=False)
    return float((ours - theirs).abs().max())


def measure(model: str, n_residues: int, n_steps: int, n_samples: int, gflops: float) -> dict:
    setting = Setting(model, n_residues)
    settings = SamplerSettings(n_steps=n_steps)
    features, embeddings = setting.protein, setting.embeddings
    chunk = samples_at_a_time(n_residues, len(features.atoms), torch.device("cpu"))
    sampler = TargetSampler(setting.denoiser, features, embeddings, settings, 0)

    def ours() -> None:
        for first in range(0, n_samples, chunk):
            sampler(range(first, min(first + chunk, n_samples)))

    modes = {
        "plain": lambda: upstream_seconds(setting, False, settings, n_samples),
        "cached": lambda: upstream_seconds(setting, True, settings, n_samples),
        "ours": lambda: timed(ours),
    }
    # Twice, and the faster: the first run touches its memory for the first time.
    seconds = {name: min(mode(), mode()) / n_samples for name, mode in modes.items()}
    with FlopCounterMode(display=False) as counter:
        ours()
    floor = counter.get_total_flops() / 1e9 / gflops / n_samples
    return {
        "model": model,
        "residues": n_residues,
        "atoms": len(features.atoms),
        "steps": n_steps,
        "chunk": chunk,
        "seconds_per_sample": seconds,
        "prepare_s": timed(
            lambda: TargetSampler(setting.denoiser, features, embeddings, settings, 0)
        ),
        "in_matmul": floor / seconds["ours"],
        "difference": {name: difference(setting, name == "cached") for name in ("plain", "cached")},
    }


def main() -> None:
    arguments = parse()
    if min(arguments.residues) < FEWEST_RESIDUES:
        sys.exit(
            f"--residues: expected {FEWEST_RESIDUES} or more: upstream's cached loop fails with "
            "fewer atoms than the 32 of an attention window"
        )
    torch.set_num_threads(1)
    gflops = matmul_gflops()
    print(f"matrix products: {gflops:.0f} GFLOP/s", flush=True)
    rows = []
    for model in arguments.models:
        for n in arguments.residues:
            row = measure(model, n, arguments.steps, arguments.samples, gflops)
            rows.append(row)
            times = row["seconds_per_sample"]
            told = [f"{name} {s:.2f} s ({s / times['ours']:.2f}x)" for name, s in times.items()]
            print(
                f"{model}, {n} residues, {row['steps']} steps, per sample: {', '.join(told)}; "
                f"in matmul {row['in_matmul']:.0%}; prepare {row['prepare_s']:.2f} s; "
                f"differences {row['difference']}",
                flush=True,
            )
    if arguments.out:
        arguments.out.write_text(json.dumps({"gflops": gflops, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
