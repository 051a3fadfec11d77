"""What a model's denoising errors say of its populations, beside what it samples.

For the best denoiser the mean error with the likelihood's weights is -log p (Guo, Shamai, Verdu,
2005; see `by_likelihood`). So the errors before alignment less those after it are the logarithm of
how much likelier each held-out conformer has become. Where the samples do not follow, something is
wrong with the sampler or the training.

A part of proof.py, in a process of its own:
    python scripts/proof_errors.py --config demo_eba.yaml --embeddings runs/proof/embeddings \
        --before start.pt --after model.pt --md runs/proof/md/biased --target gly4 --out gly4.json
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import mdtraj
import numpy as np
import torch
from torch import Tensor

from protenix_eba.cli.session import Trunk, load_configuration
from protenix_eba.data.sequences import Protein
from protenix_eba.diffusion import ConformerDenoiser, add_noise, denoising_errors
from protenix_eba.ends import end_distance
from protenix_eba.files import atomic_path
from protenix_eba.trajectories import Target, find_targets, read_frames
from protenix_eba.weights import build_diffusion_module, load_checkpoint

# Below, noise hides nothing; above, it hides all: contributions vanish on both sides.
SIGMA_ANGSTROM: Final = (0.15, 60.0)
N_LEVELS: Final = 24
N_DRAWS: Final = 2
FRAMES: Final = slice(0, 2000, 8)
CHUNK: Final = 25


def log_ratios(
    config: Path, embeddings: Path, before: Path, after: Path, target: Target, replica: int
) -> dict[str, Any]:
    """ln p(after) - ln p(before) of each held-out frame, as the errors say.

    Args:
        config: YAML file of the models.
        embeddings: Of the trunk.
        before: Checkpoint before alignment.
        after: Checkpoint after it.
        target: MD of a glycine chain.
        replica: Which no training saw.

    Returns:
        `distance_pm` of the ends and `log_ratio` of each frame, `log_ratio_by_level` `[S]` of
        closed and of open frames, and `sigma_angstrom` `[S]`.
    """
    configs, states = load_configuration(config), [load_checkpoint(p) for p in (before, after)]
    protein = Protein(target.name, ("G" * int(target.name.removeprefix("gly")),))
    inputs = Trunk(configs, states[0], embeddings).inputs(protein)
    xyz, distance = _frames(target, replica, inputs[0].atoms)
    sigma = torch.logspace(*(math.log10(s) for s in SIGMA_ANGSTROM), N_LEVELS)
    errors = []
    for state in states:
        module = build_diffusion_module(configs, state)
        errors.append(_errors(ConformerDenoiser(module, torch.bfloat16).eval(), inputs, xyz, sigma))
    step = math.log(SIGMA_ANGSTROM[1] / SIGMA_ANGSTROM[0]) / (N_LEVELS - 1)
    gain = 3 * xyz.shape[1] * step * (errors[0] - errors[1]) / sigma**2
    closed = torch.from_numpy(distance < 6.0)
    return {
        "sigma_angstrom": _rounded(sigma),
        "distance_pm": np.rint(100 * distance).astype(int).tolist(),
        "log_ratio": _rounded(gain.sum(dim=1)),
        "log_ratio_by_level": {
            "closed": _rounded(gain[closed].mean(dim=0)),
            "open": _rounded(gain[~closed].mean(dim=0)),
        },
    }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def _frames(target: Target, replica: int, atoms: Any) -> tuple[Tensor, np.ndarray]:
    """Heavy atoms in Protenix's order, `[F, N, 3]`, and the distance of the ends, `[F]`."""
    topology = mdtraj.load_pdb(str(target.topology_path)).topology
    index = {(a.residue.index, a.name): a.index for a in topology.atoms}
    xyz = read_frames(target, replica, np.arange(FRAMES.start, FRAMES.stop, FRAMES.step))
    order = [index[residue, name] for _, residue, name in atoms]
    return torch.from_numpy(xyz[:, order]).float(), end_distance(topology, xyz)


@torch.no_grad()
def _errors(denoiser: ConformerDenoiser, inputs: Any, xyz: Tensor, sigma: Tensor) -> Tensor:
    """Mean squared error of each frame at each level, `[F, S]`; the same noise for any model."""
    protein, embeddings = inputs
    draws = [
        torch.cat([
            denoising_errors(
                denoiser, protein.features, embeddings, noisy, part, mask, aligned=False
            ).mse
            for part, mask, noisy in _noisy(xyz, sigma, seed)
        ])
        for seed in range(N_DRAWS)
    ]  # fmt: skip
    return torch.stack(draws).mean(dim=0)


def _noisy(xyz: Tensor, sigma: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor, Any]]:
    generator = torch.Generator().manual_seed(seed)
    for part in xyz.split(CHUNK):
        mask = torch.ones(part.shape[:2])
        # The distribution of levels plays no part where they are given.
        noisy = add_noise(
            part, mask, n_noise=len(sigma), noise_mean=0.0, noise_std=1.0, sigma_data=16.0,
            generator=generator, levels=sigma,
        )  # fmt: skip
        yield part, mask, noisy


def main() -> None:
    """Write what `log_ratios` returns as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("config", "embeddings", "before", "after", "md", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--replica", type=int, default=3)
    args = parser.parse_args()
    (target,) = (found for found in find_targets(args.md) if found.name == args.target)
    made = log_ratios(args.config, args.embeddings, args.before, args.after, target, args.replica)
    with atomic_path(args.out) as temporary:
        temporary.write_text(json.dumps(made), encoding="utf-8")


if __name__ == "__main__":
    main()
