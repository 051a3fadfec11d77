"""Test whether a small diffusion module learns the hand of a peptide, one change at a time.

Stock sampling turns each structure at random in every step. So the hand of an amino acid has to be
read from a product of three coordinates, and small budgets did not learn it. Each variant trains a
small module from nothing on MD of one peptide. It is judged by its samples (residues that come out
D) and by its errors on held-out conformers and on their mirror images: a module that knows the hand
cannot reproduce the latter. A stopped run goes on from its last checkpoint, not to the last bit:
its learning rate falls with the CPU time that is used.

Examples:
    python scripts/peptide_hand.py --out runs/hand --document   # 80 minutes; then the document
    python scripts/peptide_hand.py --out runs/hand --minutes 90 --variants fading
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import mdtraj
import numpy as np
import torch
from torch import Tensor

import proof_report
from make_peptide_md import PLAIN
from proof_errors import centred, frames
from protenix_eba.cli.session import load_configuration
from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path, write_json
from protenix_eba.core.progress import console
from protenix_eba.eval.metrics.distributions import jsd_bits
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.starts import quick_start, random_state, silent_trunk
from protenix_eba.host.trunk import Trunk
from protenix_eba.host.weights import build_diffusion_module
from protenix_eba.protein.rigid_motions import random_rotations, rigid_align
from protenix_eba.protein.stereo import CENTRE
from protenix_eba.sampling.samplers import sample_coordinates
from protenix_eba.sampling.settings import SamplerSettings
from protenix_eba.structures.sequences import Protein
from protenix_eba.structures.trajectories import find_targets
from protenix_eba.training.denoising_error import (
    VOLUME_NOISE,
    bond_error,
    edm_weight,
    signed_volumes,
    squared_error,
    volume_error,
)
from protenix_eba.training.ema import Ema
from protenix_eba.training.noise import NoiseSettings
from simulate import simulate_replica
from user_errors import ends_on_user_error

CONFIG = Path(__file__).resolve().parent.parent / "protenix_eba/recipes/pretrain_peptides.yaml"
BACKBONE: Final = ("N", "CA", "C")
STRUCTURES: Final = 128  # of a step: Adam takes a tenth of a second, so small batches waste time
RATE: Final = 1e-3
NOISE: Final = NoiseSettings(mean=0.0, std=1.5, sigma_data=1.0)  # the median is 1 angstrom
SIGMA_DATA: Final = 4.0  # of the error's weight
MEASURED_SIGMA: Final = (0.5, 1.0, 2.0, 4.0)  # noise, angstrom
N_SAMPLES: Final = 200
SAMPLER: Final = SamplerSettings(30, gamma0=0.0, s_max=4.0, s_min=1e-3, order=2)


@dataclass(frozen=True)
class Variant:
    """A way to train.

    Attributes:
        title: In the table.
        blocks: Of the atom encoder, the token transformer, and the atom decoder.
        volume: Weight of the error of signed volumes, in the beginning.
        volume_until: Part of the run at which that weight has fallen to 0; infinite to keep it.
        chains: Whether the error is the trainer's: of the volumes of all atoms with three bonds and
            of chains of four, not of C-alphas alone.
        mirrored: Share of structures above 1 angstrom of noise that are shown as mirror images,
            with the L conformer that is nearest as the answer.
        curriculum: Part of the run during which rotations grow from none to all.
    """

    title: str
    blocks: tuple[int, int, int] = (3, 0, 3)
    volume: float = 0.0
    volume_until: float = math.inf
    chains: bool = False
    mirrored: float = 0.0
    curriculum: float = 0.0


VARIANTS: Final = {
    "shallow": Variant("1 + 1 + 1 blocks", blocks=(1, 1, 1)),
    "deep": Variant("3 + 0 + 3 blocks"),
    "mirrored": Variant("mirror images above 1 Å, L the answer", mirrored=0.5),
    "curriculum": Variant("rotations grow for 6 minutes", curriculum=0.6),
    "volume": Variant("signed volumes", volume=1.0),
    "fading": Variant("signed volumes, fading in 7 minutes", volume=1.0, volume_until=0.7),
    "shallow_fading": Variant(
        "the same, 1 + 1 + 1 blocks", blocks=(1, 1, 1), volume=1.0, volume_until=0.7
    ),
    "chains": Variant(
        "and of chains of four atoms",
        blocks=(1, 1, 1),
        volume=1.0,
        volume_until=0.7,
        chains=True,
    ),
}


@dataclass(frozen=True)
class Peptide:
    """The peptide to learn: its features, conformers and centres.

    Attributes:
        known: `[F, N, 3]` conformers that training sees, about their centres, in angstrom.
        held: `[F, N, 3]` of another replica.
        centres: `[C, 4]` atoms that tell the hand of each residue.
        torsions: `[T, 4]` atoms of phi and psi of all residues.
        features: Of Protenix.
        embeddings: Of a trunk that says nothing.
    """

    known: Tensor
    held: Tensor
    centres: Tensor
    torsions: Tensor
    features: dict[str, Any]
    embeddings: Any


def configuration(variant: Variant) -> Any:
    """Return the configuration of the small module, with the variant's blocks."""
    names = ("atom_encoder", "transformer", "atom_decoder")
    keys = (f"model__diffusion_module__{name}__n_blocks" for name in names)
    return load_configuration(CONFIG, **dict(zip(keys, map(str, variant.blocks), strict=True)))


def peptide(out: Path, sequence: str, configs: Any, state: Any) -> Peptide:
    """Return the MD of a peptide (three replicas of 2 ns, made if missing) and its features."""
    folder = out / "md" / sequence
    for replica in (1, 2, 3):
        faults = simulate_replica(folder, sequence, replica, replace(PLAIN, seed=500))
        if faults:
            raise UserError(f"the MD has faults: {faults[0]}", "choose another sequence")
    (target,) = (found for found in find_targets(out / "md") if found.name == sequence)
    protein, embeddings = Trunk(configs, state, None).inputs(Protein(sequence, (sequence,)))
    first, second, held = (
        centred(frames(target, replica, protein.atoms, slice(0, PLAIN.frames, 1))[0])
        for replica in (1, 2, 3)
    )
    place = {(residue, name): n for n, (_, residue, name) in enumerate(protein.atoms)}
    centres = [
        [place[residue, name] for name in CENTRE]
        for residue, letter in enumerate(sequence)
        if letter != "G"
    ]
    if not centres:
        raise UserError(f"{sequence}: no residue with a hand", "choose one that is not all glycine")
    torsions = [
        [place[residue + step, name] for step, name in zip(steps, names, strict=True)]
        for steps, names in (((0, 1, 1, 1), ("C", *BACKBONE)), ((0, 0, 0, 1), (*BACKBONE, "N")))
        for residue in range(len(sequence) - 1)
    ]
    known = torch.cat([first, second])
    quadruples = torch.tensor(centres), torch.tensor(torsions)
    return Peptide(known, held, *quadruples, protein.features, embeddings)


def volumes(xyz: Tensor, centres: Tensor) -> Tensor:
    """Return signed volumes `[..., C]` of `centres`, see `Peptide`."""
    return signed_volumes(xyz, centres[:, 3], centres[:, :3])


def turned(xyz: Tensor, part: float, generator: torch.Generator) -> Tensor:
    """Turn structures `[B, N, 3]` at random, their angles scaled by `part` of all."""
    rotation = random_rotations((len(xyz),), generator)
    if part < 1.0:
        angle = torch.acos(((rotation.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1))
        skew = (rotation - rotation.transpose(1, 2)) / (2 * angle.sin() + 1e-6)[:, None, None]
        rotation = torch.matrix_exp(part * angle[:, None, None] * skew)
    return xyz @ rotation


def batch_loss(
    model: ConformerDenoiser,
    data: Peptide,
    variant: Variant,
    progress: float,
    generator: torch.Generator,
) -> Tensor:
    """Return the loss of one random batch, with a noise level (in strata) for each structure."""
    rows = torch.randint(len(data.known), (STRUCTURES,), generator=generator)
    part = min(1.0, progress / variant.curriculum) if variant.curriculum else 1.0
    clean = turned(data.known[rows], part, generator)
    sigma = NOISE.quantiles(STRUCTURES, generator)
    shown, answer = clean, clean
    if variant.mirrored:
        chosen = (torch.rand(STRUCTURES, generator=generator) < variant.mirrored) & (sigma > 1.0)
        shown = torch.where(chosen[:, None, None], -clean, clean)
        nearest = rigid_align(clean, -clean, torch.ones(clean.shape[:2]))
        answer = torch.where(chosen[:, None, None], nearest, clean)
    shift = torch.randn(STRUCTURES, 1, 3, generator=generator)
    noise = torch.randn(clean.shape, generator=generator) * sigma[:, None, None]
    found = model(data.features, data.embeddings, shown + shift + noise, sigma).float()
    answer, mask = answer + shift, torch.ones(clean.shape[:2])
    error = squared_error(found[:, None], answer[:, None], mask)[:, 0]
    bonds = bond_error(found[:, None], answer, mask)[:, 0] * (sigma < 0.5)
    loss = edm_weight(sigma, SIGMA_DATA) * (error + bonds)
    weight = variant.volume * max(0.0, 1.0 - progress / variant.volume_until)
    if weight and variant.chains:
        hand = volume_error(found[:, None], answer, mask)[:, 0]
    elif weight:
        gap = volumes(found, data.centres) - volumes(answer, data.centres)
        hand = gap.square().mean(-1) / 2.6**2
    if weight:
        # Where noise leaves the orientation open, the mean of all is flat, and must be.
        loss = loss + weight * hand * (sigma < VOLUME_NOISE)
    return loss.mean()


@torch.no_grad()
def measured(model: ConformerDenoiser, data: Peptide) -> dict[str, Any]:
    """Sample a model and measure its errors.

    Returns:
        `inverted`: share of residues of the samples that are not L; `bond_rms`: of bonds and angles
        against those of held-out conformers, in angstrom; `torsions`: mean Jensen-Shannon
        divergence of phi and psi from those of held-out conformers, bits; by noise level
        (`sigma`): `true` and `mirrored`, mean squared errors on held-out conformers and on mirror
        images of them, and `inverted_true`, `inverted_mirrored`, shares of residues that come out
        D.
    """
    generators = [torch.Generator().manual_seed(n) for n in range(N_SAMPLES)]
    x = sample_coordinates(
        lambda noisy, sigma: model(data.features, data.embeddings, noisy, sigma).float(),
        data.known.shape[1], generators, SAMPLER, torch.device("cpu"),
    )  # fmt: skip
    mask = torch.ones(x.shape[:2])
    near = bond_error(x[:, None], data.held[: len(x)], mask).mean().sqrt()
    made: dict[str, Any] = {"inverted": share_inverted(x, data), "bond_rms": round(float(near), 3)}
    made["torsions"] = round(torsion_jsd(x, data), 3)
    made |= {"sigma": list(MEASURED_SIGMA), "true": [], "mirrored": []}
    made |= {"inverted_true": [], "inverted_mirrored": []}
    generator = torch.Generator().manual_seed(0)
    clean = turned(data.held[::16], 1.0, generator)
    for sigma in MEASURED_SIGMA:
        noise = sigma * torch.randn(clean.shape, generator=generator)
        for name, sign in (("true", 1), ("mirrored", -1)):
            level = torch.full((len(clean),), sigma)
            found = model(data.features, data.embeddings, sign * clean + noise, level).float()
            made[name].append(round(float((found - sign * clean).square().mean()), 4))
            made[f"inverted_{name}"].append(share_inverted(found, data))
    return made


def torsion_jsd(x: Tensor, data: Peptide) -> float:
    """Return the mean divergence of each phi and psi from the held-out ones, in 30 degrees."""
    parts = []
    for xyz in (x, data.held):
        trajectory = mdtraj.Trajectory(xyz.numpy() / 10, None)
        angles = mdtraj.compute_dihedrals(trajectory, data.torsions.numpy(), periodic=False)
        counts = [np.histogram(column, 12, (-np.pi, np.pi))[0] for column in angles.T]
        parts.append(np.array(counts) / len(xyz))
    return float(jsd_bits(*parts).mean())


def share_inverted(x: Tensor, data: Peptide) -> float:
    """Return the share of residues that are not L."""
    return round(float((volumes(x, data.centres) < 0).float().mean()), 3)


class Run:
    """The training of one variant: its model, its optimizer and the measurements on the way.

    The learning rate falls with the time that is used, so that a longer run is another one.

    Args:
        out: Folder of all runs, with a checkpoint for each.
        name: Of the variant.
        sequence: Of the peptide.
        minutes: Of one CPU core.
    """

    def __init__(self, out: Path, name: str, sequence: str, minutes: float) -> None:
        self._variant, self._name, self._seconds = VARIANTS[name], name, 60.0 * minutes
        self._path = out / f"{name}_{sequence}_{minutes:g}.pt"
        configs = configuration(self._variant)
        state = silent_trunk(quick_start(random_state(configs, 1)))
        self._data = peptide(out, sequence, configs, state)
        self._model = ConformerDenoiser(build_diffusion_module(configs, state), torch.bfloat16)
        self._optimizer = torch.optim.Adam(self._model.parameters(), RATE, betas=(0.9, 0.97))
        self._ema = Ema(self._model.named_parameters(), 0.995)
        self._generator = torch.Generator().manual_seed(1)
        self._steps, self._used = 0, 0.0
        self.history: list[dict[str, Any]] = []
        if self._path.is_file():
            self._load()

    def train(self) -> None:
        """Train; measure the model and keep a checkpoint every two minutes."""
        while self._used < self._seconds:
            began = time.process_time()
            until = min(self._used + 120.0, self._seconds)
            while self._used + time.process_time() - began < until:
                self._step((self._used + time.process_time() - began) / self._seconds)
            self._used = max(until, self._used + time.process_time() - began)
            with self._ema.applied():
                made = measured(self._model, self._data)
            made |= {"variant": self._name, "steps": self._steps}
            self.history.append(made | {"minutes": round(self._used / 60, 2)})
            console.print(self.history[-1], soft_wrap=True)
            self._save()

    def _step(self, progress: float) -> None:
        warm = min(1.0, (self._steps + 1) / 100)
        for group in self._optimizer.param_groups:
            group["lr"] = RATE * warm * (0.51 + 0.49 * math.cos(math.pi * min(1.0, progress)))
        loss = batch_loss(self._model, self._data, self._variant, progress, self._generator)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 2.0)
        self._optimizer.step()
        self._ema.update()
        self._steps += 1

    def _save(self) -> None:
        saved = {
            "model": self._model.state_dict(), "optimizer": self._optimizer.state_dict(),
            "averages": self._ema.averages, "generator": self._generator.get_state(),
            "steps": self._steps, "used": self._used, "history": self.history,
        }  # fmt: skip
        with atomic_path(self._path) as temporary:
            torch.save(saved, temporary)

    def _load(self) -> None:
        saved = torch.load(self._path, weights_only=True)
        self._model.load_state_dict(saved["model"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self._ema.averages = saved["averages"]
        self._generator.set_state(saved["generator"])
        self._steps, self._used = saved["steps"], saved["used"]
        self.history = saved["history"]


def main() -> int:
    """Run variants, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--sequence", default="AAA", help="sequence of the peptide [default: %(default)s]"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=list(VARIANTS),
        help="variants to train [default: all]",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        help="training time of each variant, in minutes of one CPU core [default: %(default)s]",
    )
    parser.add_argument(
        "--document", action="store_true", help="write the results into docs/proof.md"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    with ends_on_user_error():
        results = {name: result(options, name) for name in options.variants}
    if options.document:
        proof_report.write_hand({"sequence": options.sequence, "variants": results})
    return 0


def result(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Return a variant's title and history; run it if it has not been run."""
    path = options.out / f"{name}_{options.sequence}_{options.minutes:g}.json"
    if not path.is_file():
        run = Run(options.out, name, options.sequence, options.minutes)
        run.train()
        write_json(path, run.history)
    history = json.loads(path.read_text(encoding="utf-8"))
    return {"title": VARIANTS[name].title, "history": history}


if __name__ == "__main__":
    sys.exit(main())
