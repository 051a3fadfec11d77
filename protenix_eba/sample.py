"""Sequence -> ensemble: AlphaFold 3's churned Euler sampler, one random stream per sample."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import torch
from biotite.sequence import ProteinSequence
from mdtraj.core.element import get_by_symbol
from numpy.typing import NDArray
from torch import Tensor

from protenix_eba.data.features import ProteinFeatures
from protenix_eba.diffusion import ConformerDenoiser
from protenix_eba.embeddings import TrunkEmbeddings
from protenix_eba.errors import UserError
from protenix_eba.files import atomic_path, write_json
from protenix_eba.geometry import random_rotations
from protenix_eba.units import ANGSTROM_PER_NM

__all__ = ["Denoise", "SamplerSettings", "noise_levels", "sample_batches", "sample_coordinates"]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""Noisy `[B, N, 3]` in angstrom and sigma `[B]` -> denoised `[B, N, 3]`."""


@dataclass(frozen=True)
class SamplerSettings:
    """Algorithm 18 of AlphaFold 3.

    Attributes:
        n_steps: Denoising steps.
        gamma0: Churn: how much noise is added again before each step, while sigma > gamma_min.
            AlphaFold 3 takes 0.8. It corrects errors of the model, and narrows the samples (a
            Gaussian of 4 angstrom by an eighth); 0 solves the probability-flow equation.
        gamma_min: In angstrom.
        noise_scale: lambda, on the added noise; AlphaFold 3 takes 1.003.
        step_scale: eta, on the step; 1 is the Euler step, AlphaFold 3 takes 1.5, which narrows
            the samples.
        s_max: Largest noise level in units of sigma_data.
        s_min: Smallest one.
        rho: Exponent of the schedule.
        sigma_data: In angstrom.
    """

    n_steps: int = 20
    gamma0: float = 0.8
    gamma_min: float = 1.0
    noise_scale: float = 1.0
    step_scale: float = 1.0
    s_max: float = 160.0
    s_min: float = 4e-4
    rho: float = 7.0
    sigma_data: float = 16.0

    def __post_init__(self) -> None:
        if self.n_steps < 1:
            raise UserError(f"expected at least 1 denoising step, found {self.n_steps}")
        for name in ("gamma0", "noise_scale", "step_scale"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}: expected 0 or above, found {getattr(self, name)}")


def noise_levels(settings: SamplerSettings) -> Tensor:
    """The decreasing noise levels, the last one 0 (Karras et al., 2022, Eq. 5).

    Returns:
        `[n_steps + 1]` in angstrom.
    """
    first, last = settings.s_max ** (1 / settings.rho), settings.s_min ** (1 / settings.rho)
    ramp = torch.linspace(0, 1, settings.n_steps + 1)
    levels: Tensor = settings.sigma_data * (first + ramp * (last - first)) ** settings.rho
    levels[-1] = 0.0
    return levels


@torch.no_grad()
def sample_coordinates(
    denoise: Denoise,
    n_atoms: int,
    generators: list[torch.Generator],
    settings: SamplerSettings,
    device: torch.device,
) -> Tensor:
    """Samples of a denoiser.

    Each sample draws from its own generator: it is the same in whatever batch it is made.

    Args:
        denoise: The model.
        n_atoms: N.
        generators: B generators on the CPU, one for each sample.
        settings: Of the sampler.
        device: Of the model.

    Returns:
        `[B, N, 3]` in angstrom.
    """

    def normal() -> Tensor:
        return torch.stack([torch.randn(n_atoms, 3, generator=g) for g in generators]).to(device)

    levels = noise_levels(settings).tolist()
    x: Tensor = levels[0] * normal()
    for previous, following in itertools.pairwise(levels):
        x = _random_motion(x, generators)
        gamma = settings.gamma0 if following > settings.gamma_min else 0.0
        sigma = previous * (1.0 + gamma)
        added = settings.noise_scale * (sigma**2 - previous**2) ** 0.5
        noisy = x + added * normal()
        denoised = denoise(noisy, torch.full((len(x),), sigma, device=device))
        x = noisy + settings.step_scale * (following - sigma) * (noisy - denoised) / sigma
    return x


def _random_motion(x: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Centre, rotate and shift each sample at random (Algorithm 19)."""
    rotation = torch.stack([random_rotations((), g) for g in generators]).to(x)
    shift = torch.stack([torch.randn(1, 3, generator=g) for g in generators]).to(x)
    return (x - x.mean(dim=1, keepdim=True)) @ rotation + shift


def sample_batches(
    denoiser: ConformerDenoiser,
    protein: ProteinFeatures,
    embeddings: TrunkEmbeddings,
    *,
    n_samples: int,
    batch_size: int,
    settings: SamplerSettings,
    seed: int,
) -> Iterator[NDArray[np.float32]]:
    """Samples of one protein, batch by batch.

    Args:
        denoiser: In evaluation mode.
        protein: Features.
        embeddings: Of the trunk.
        n_samples: How many.
        batch_size: How many at a time.
        settings: Of the sampler.
        seed: Sample n is made from (seed, n).

    Yields:
        `[B, N_atom, 3]` in angstrom.
    """
    device = embeddings.s_trunk.device
    with torch.no_grad():
        shared = denoiser.prepare(protein.features, embeddings.z_trunk)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        out: Tensor = denoiser(protein.features, embeddings, x, sigma, shared)
        return out.float()

    for first in range(0, n_samples, batch_size):
        numbers = range(first, min(first + batch_size, n_samples))
        generators = [_generator(seed, number) for number in numbers]
        x = sample_coordinates(denoise, len(protein.atoms), generators, settings, device)
        yield x.cpu().numpy().astype(np.float32)


def _generator(seed: int, number: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)


def topology_of(protein: ProteinFeatures) -> mdtraj.Topology:
    """The protein's heavy atoms as Protenix orders them; chains A, B ..., residues from 1."""
    topology = mdtraj.Topology()
    residues: dict[tuple[int, int], Any] = {}
    for chain_number, sequence in enumerate(protein.protein.chains):
        chain = topology.add_chain()
        for number, code in enumerate(sequence):
            residues[chain_number, number] = topology.add_residue(
                ProteinSequence.convert_letter_1to3(code), chain, resSeq=number + 1
            )
    for (chain_number, number, name), element in zip(protein.atoms, protein.elements, strict=True):
        topology.add_atom(name, get_by_symbol(element), residues[chain_number, number])
    return topology


def write_ensemble(
    folder: Path,
    protein: ProteinFeatures,
    coordinates: NDArray[np.float32],
    provenance: dict[str, Any],
) -> None:
    """Write `NAME.pdb` (the first sample), `NAME.xtc` (all) and `NAME.json` into `folder`.

    Args:
        folder: Made if absent.
        protein: Names and order of the atoms.
        coordinates: `[F, N_atom, 3]` in angstrom.
        provenance: Checkpoint, settings, seed, versions; written last, as a sign of completeness.
    """
    name = protein.protein.name
    ensemble = mdtraj.Trajectory(coordinates / ANGSTROM_PER_NM, topology_of(protein))
    with atomic_path(folder / f"{name}.pdb") as path:
        ensemble[0].save_pdb(str(path))
    with atomic_path(folder / f"{name}.xtc") as path:
        ensemble.save_xtc(str(path))
    write_json(folder / f"{name}.json", provenance)


def is_sampled(folder: Path, name: str, provenance: dict[str, Any]) -> bool:
    """Whether `folder` holds this very ensemble already.

    Raises:
        UserError: It holds another one.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        return False
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key in provenance if before.get(key) != provenance[key]]
    if changed:
        raise UserError(
            f"{folder} holds samples made with other {', '.join(changed)}",
            "choose another --out, or delete the folder",
        )
    return (folder / f"{name}.xtc").is_file()


def describe(settings: SamplerSettings) -> dict[str, float]:
    """Settings for the provenance."""
    return asdict(settings)
