"""Populations that a model's denoising errors imply, to compare with what it samples.

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

from protenix_eba.cli.session import load_configuration
from protenix_eba.core.files import atomic_path
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.trunk import Trunk
from protenix_eba.host.weights import build_diffusion_module, load_checkpoint
from protenix_eba.protein.chain_ends import end_distance
from protenix_eba.structures.sequences import Protein
from protenix_eba.structures.trajectories import Target, find_targets, read_frames
from protenix_eba.training.noisy_conformers import add_noise, denoising_errors

# Below, noise hides nothing; above, it hides all: contributions vanish on both sides.
SIGMA_ANGSTROM: Final = (0.15, 60.0)
N_LEVELS: Final = 24
N_DRAWS: Final = 2
FRAMES: Final = slice(0, 2000, 8)
CHUNK: Final = 25
# Where shapes are decided.
KERNEL_SIGMA: Final = (0.7, 1.0, 1.4, 2.0, 3.0)


def log_ratios(
    config: Path, embeddings: Path, before: Path, after: Path, target: Target, replica: int
) -> dict[str, Any]:
    """Compute ln p(after) - ln p(before) of each held-out frame from the errors.

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
    inputs = _inputs(configs, states[0], embeddings, target)
    xyz, distance = frames(target, replica, inputs[0].atoms, FRAMES)
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


def against_kernel(
    config: Path, embeddings: Path, checkpoint: Path, target: Target, replica: int
) -> dict[str, Any]:
    """Compare errors on held-out frames with those of the posterior mean over all others.

    What the frames alone say is no better than the best denoiser; a model whose error is larger has
    not learnt all that they hold.

    Args:
        config: YAML file of the model.
        embeddings: Of the trunk.
        checkpoint: The model.
        target: MD of a glycine chain.
        replica: Which no training saw; the frames of the others are those of the posterior mean.

    Returns:
        `sigma_angstrom`, and mean squared errors of `frames` and `model` about the centre, in
        square angstrom.
    """
    configs, state = load_configuration(config), load_checkpoint(checkpoint)
    protein, embedded = _inputs(configs, state, embeddings, target)
    module = ConformerDenoiser(build_diffusion_module(configs, state), torch.bfloat16).eval()
    others = [r for r in target.trajectory_paths if r != replica]
    known = torch.cat(
        [centred(frames(target, r, protein.atoms, slice(0, 2000, 1))[0]) for r in others]
    )
    true = centred(frames(target, replica, protein.atoms, slice(0, 2000, 20))[0])
    generator = torch.Generator().manual_seed(0)
    made: dict[str, Any] = {"sigma_angstrom": list(KERNEL_SIGMA), "frames": [], "model": []}
    for sigma in KERNEL_SIGMA:
        noisy = centred(true + sigma * torch.randn(true.shape, generator=generator))
        with torch.no_grad():
            denoised = module(protein.features, embedded, noisy[:, None], torch.tensor([sigma]))
        for name, found in (
            ("frames", torch.stack([posterior_mean(x, known, sigma) for x in noisy])),
            ("model", centred(denoised[:, 0].float())),
        ):
            made[name].append(round(float(((found - true) ** 2).mean()), 4))
    return made


def posterior_mean(noisy: Tensor, known: Tensor, sigma: float) -> Tensor:
    """Return the mean of known conformers, in all orientations, given a noisy one, `[N, 3]`.

    The integral over rotations is taken about the best one (Laplace): its width goes with the
    singular values of the covariance of the two.

    Args:
        noisy: `[N, 3]` about its centre.
        known: `[F, N, 3]` about theirs.
        sigma: Noise, angstrom.
    """
    u, values, vt = torch.linalg.svd(known.transpose(1, 2) @ noisy)
    sign = torch.ones_like(values)
    sign[:, 2] = torch.det(u @ vt)
    s1, s2, s3 = (values * sign).unbind(dim=1)
    width = ((s1 + s2) * (s1 + s3) * (s2 + s3).clamp(min=1e-3)).log()
    log_weight = (s1 + s2 + s3 - 0.5 * (known**2).sum((1, 2))) / sigma**2 - 0.5 * width
    rotated = known @ (u * sign[:, None, :] @ vt)
    return (torch.softmax(log_weight, dim=0)[:, None, None] * rotated).sum(dim=0)


def centred(xyz: Tensor) -> Tensor:
    """Return conformers `[..., N, 3]` about their centres."""
    return xyz - xyz.mean(dim=-2, keepdim=True)


def _inputs(configs: Any, state: Any, embeddings: Path, target: Target) -> Any:
    protein = Protein(target.name, ("G" * int(target.name.removeprefix("gly")),))
    return Trunk(configs, state, embeddings).inputs(protein)


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def frames(target: Target, replica: int, atoms: Any, rows: slice) -> tuple[Tensor, np.ndarray]:
    """Return heavy atoms in Protenix's order, `[F, N, 3]`, and end distances, `[F]`."""
    topology = mdtraj.load_pdb(str(target.topology_path)).topology
    index = {(a.residue.index, a.name): a.index for a in topology.atoms}
    xyz = read_frames(target, replica, np.arange(rows.start, rows.stop, rows.step))
    order = [index[residue, name] for _, residue, name in atoms]
    return torch.from_numpy(xyz[:, order]).float(), end_distance(topology, xyz)


@torch.no_grad()
def _errors(denoiser: ConformerDenoiser, inputs: Any, xyz: Tensor, sigma: Tensor) -> Tensor:
    """Return errors of each frame at each level, `[F, S]`, with the same noise for any model."""
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
    """Write what `log_ratios` or `against_kernel` returns as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, help_text in {
        "config": "YAML configuration of the model",
        "embeddings": "folder that `protenix-eba embed` wrote",
        "before": "checkpoint before the alignment",
        "md": "folder of MD targets",
        "out": "JSON file to write",
    }.items():
        parser.add_argument(f"--{name}", type=Path, required=True, help=help_text)
    parser.add_argument(
        "--after",
        type=Path,
        help="checkpoint after the alignment [default: compare --before with the MD's frames]",
    )
    parser.add_argument("--target", required=True, help="name of the target")
    parser.add_argument(
        "--replica", type=int, default=3, help="replica held out of training [default: 3]"
    )
    args = parser.parse_args()
    (target,) = (found for found in find_targets(args.md) if found.name == args.target)
    first, last = (args.config, args.embeddings, args.before), (target, args.replica)
    made = log_ratios(*first, args.after, *last) if args.after else against_kernel(*first, *last)
    with atomic_path(args.out) as temporary:
        temporary.write_text(json.dumps(made), encoding="utf-8")


if __name__ == "__main__":
    main()
