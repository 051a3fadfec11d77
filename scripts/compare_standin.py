"""Compare the stand-in predictor's errors with those of real predictions of known structures.

Prints, for each real prediction and for stand-in predictions of domains, how large errors of
distances and angles are, how large they are said to be and how much that differs along the chain,
how alike the errors of neighbouring pairs are, and the weight of orientations that follows.

Example:

  python scripts/compare_standin.py --domains cath_domains.npz \\
      --real T1008.npz=T1008-D1.pdb --real t000.npz=e2e.pdb
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ebmfold_domain_sets import as_domain, structure_chains
from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.domains import Domain, read_domains
from protenix_eba.ebmfold.likelihood import PairLikelihood
from protenix_eba.ebmfold.prediction_files import read_predictions
from protenix_eba.ebmfold.predictions import DISTANCE_CENTRES, ORIENTATION_BINS, Predictions
from protenix_eba.ebmfold.standin import orientations, standin_predictions
from protenix_eba.ebmfold.structures import match_residues, read_trace
from protenix_eba.ebmfold.target import Target
from user_errors import ends_on_user_error

Array = NDArray[np.float64]
Case = tuple[Predictions, Domain]

WIDTHS: Final = ((0.25, 0.0), (0.5, 0.0), (1.2, 0.2), (1.5, 0.2))
"""Noise and sharpness of the stand-in."""
N_DOMAINS: Final = 12
# Pairs that are surely near and truly so; expected distances are then not cut off.
NEAR, FURTHEST = 0.9, 19.0
RANGES: Final = {
    "sequence 3 to 5": (3, 5, 0.0, FURTHEST),
    "to 8 Å": (6, 10**6, 0.0, 8.0),
    "8 to 12 Å": (6, 10**6, 8.0, 12.0),
    "beyond 12 Å": (6, 10**6, 12.0, FURTHEST),
}
NEIGHBOURS: Final = ((0, 1), (0, 4), (1, 1), (1, -1), (4, -4))
# Of a normal distribution.
MEDIAN_TO_STD: Final = 0.6745
# Steps for second derivatives, longer than the bins' corners are apart, and how many directions.
STEP, N_DIRECTIONS = 0.3, 8


def distance_errors(
    predictions: Predictions, backbone: torch.Tensor
) -> tuple[Array, Array, NDArray[np.bool_], Array]:
    """Return errors of distances, their stated widths, which pairs count, expected distances."""
    cb = backbone[:, 3].numpy()
    true = np.linalg.norm(cb[:, None] - cb, axis=-1)
    share = (predictions.distance + predictions.distance.transpose(1, 0, 2)) / 2
    near = 1 - share[..., 0]
    within = share[..., 1:] / np.maximum(near, 1e-9)[..., None]
    expected = within @ DISTANCE_CENTRES
    width = np.sqrt(np.maximum(within @ DISTANCE_CENTRES**2 - expected**2, 0.02))
    return true - expected, width, (near > NEAR) & (true < FURTHEST), expected


def angle_errors(
    name: str, predictions: Predictions, backbone: torch.Tensor
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return errors of an angle in radians, their stated widths and whether pairs are near."""
    given = getattr(predictions, name)
    share = given[..., 1:] / np.maximum(given[..., 1:].sum(-1, keepdims=True), 1e-9)
    n_bins = ORIENTATION_BINS[name] - 1
    centres = (np.arange(n_bins) + 0.5) * np.pi / 12 - (0.0 if name == "phi" else np.pi)
    mean = share @ np.exp(1j * centres)
    width = np.sqrt(-2 * np.log(np.clip(np.abs(mean), 1e-6, 1 - 1e-6)))
    turn = orientations(backbone)[name].numpy() - np.angle(mean)
    return (turn + np.pi) % (2 * np.pi) - np.pi, width, given[..., 0] < 1 - NEAR


def statistics(case: Case) -> dict[str, float]:
    """Return the figures of one prediction by their names."""
    predictions, domain = case
    error, width, counts, expected = distance_errors(predictions, domain.backbone)
    residues = np.arange(len(error))
    separation = np.abs(residues[:, None] - residues)
    found: dict[str, float] = {}

    def describe(label: str, error: Array, width: Array, chosen: Any) -> None:
        if np.count_nonzero(chosen) < 2:
            return
        of = np.abs(error[chosen]), width[chosen]
        found[f"{label}: error"] = float(np.sqrt((of[0] ** 2).mean()))
        found[f"{label}: median / 0.67"] = float(np.median(of[0]) / MEDIAN_TO_STD)
        found[f"{label}: stated"] = float(of[1].mean())
        found[f"{label}: stated, std / mean"] = float(of[1].std() / of[1].mean())

    for label, (first, last, low, high) in RANGES.items():
        apart = (separation >= first) & (separation <= last)
        describe(label, error, width, counts & apart & (expected >= low) & (expected < high))
    for name in ORIENTATION_BINS if predictions.has_orientations else ():
        off, said, near = angle_errors(name, predictions, domain.backbone)
        describe(name, off, said, near & (separation >= 3))
    counts = counts & (separation >= 6)
    for shift in NEIGHBOURS:
        found["errors alike, {:+d} {:+d}".format(*shift)] = likeness(error / width, counts, shift)
    return found


def likeness(z: Array, counts: NDArray[np.bool_], shift: tuple[int, int]) -> float:
    """Return the correlation of errors of pairs (i, j) and (i + a, j + b), i < j, about 0."""
    n = len(z)
    i, j = np.nonzero(np.triu(counts))
    k, m = i + shift[0], j + shift[1]
    inside = (k >= 0) & (k < n) & (m >= 0) & (m < n)
    i, j, k, m = (part[inside] for part in (i, j, k, m))
    both = counts[k, m]
    one, other = z[i, j][both], z[k, m][both]
    size = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / size) if size else float("nan")


def derivatives(case: Case, seed: int = 0) -> tuple[Array, Array]:
    """Return curvature and squared gradient at the native trace, of distances and orientations.

    Returns:
        The trace of the second derivatives of each part of -log p, by Hutchinson's estimator, and
        the squared norm of its gradient.
    """
    predictions, domain = case
    likelihood = PairLikelihood(Target(domain.name, predictions, domain.sequence))

    def gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = []
        for weight in (0.0, 1.0):
            y = x.clone().requires_grad_()
            value = likelihood(y, orientation_weight=weight) * likelihood.n_pairs
            parts.append(torch.autograd.grad(value, y)[0])
        return parts[0], parts[1] - parts[0]

    generator = torch.Generator().manual_seed(seed)
    curvature = np.zeros(2)
    for _ in range(N_DIRECTIONS):
        way = torch.randint(0, 2, domain.ca.shape, generator=generator).float() * 2 - 1
        ahead, behind = gradients(domain.ca + STEP * way), gradients(domain.ca - STEP * way)
        for part in range(2):
            curvature[part] += float(((ahead[part] - behind[part]) * way).sum())
    squared = np.array([float(part.square().sum()) for part in gradients(domain.ca)])
    return curvature / (2 * STEP * N_DIRECTIONS), squared


def orientation_weight(cases: Sequence[Case]) -> float:
    """Return the weight of orientations relative to distances in a composite likelihood.

    Of a likelihood, curvature and variance of the gradient at the truth are equal. Here terms of
    pairs are taken as independent and are not: the gradient varies 10 to 50 times as much as the
    curvature says, that of orientations by more. Each part counts by curvature over variance (the
    magnitude adjustment of Pauli, Racugno and Ventura, Statistica Sinica 21, 149, 2011).
    """
    found = [derivatives(case) for case in cases if case[0].has_orientations]
    if not found:
        return float("nan")
    curvature, squared = (np.sum([pair[k] for pair in found], axis=0) for k in range(2))
    distances, angles = curvature / squared
    return float(angles / distances)


def real_case(argument: str) -> Case:
    """Read PREDICTIONS=NATIVE, matched by residue number.

    Raises:
        UserError: They cannot be read or matched.
    """
    given, _, structure = argument.partition("=")
    if not structure:
        raise UserError(f"--real: expected PREDICTIONS=STRUCTURE, found {argument}")
    predictions, trace = read_predictions(given), read_trace(structure)
    chains = [c for c in structure_chains(structure) if len(c[2]) == len(trace.ca)]
    if not chains:
        raise UserError(f"{structure}: expected one chain whose residues all have N, CA and C")
    name, sequence, backbone = chains[0]
    ours, theirs = match_residues(trace, predictions.n_residues, None)
    part = "".join(sequence[k] for k in theirs)
    return predictions.subset(ours), as_domain(name, "", part, backbone[theirs])


def standin_cases(domains: Sequence[Domain], noise: float, sharpness: float) -> Iterator[Case]:
    """Yield stand-in predictions of domains."""
    for number, domain in enumerate(domains):
        generator = torch.Generator().manual_seed(number)
        yield standin_predictions(domain.backbone, noise, generator, sharpness=sharpness), domain


def table(columns: dict[str, list[Case]]) -> str:
    """Return means over the cases of each column, as Markdown."""
    found = {label: [statistics(case) for case in cases] for label, cases in columns.items()}
    weights = {label: orientation_weight(cases) for label, cases in columns.items()}
    keys = list(dict.fromkeys(key for rows in found.values() for row in rows for key in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for key in keys:
        means = [[row[key] for row in rows if key in row] for rows in found.values()]
        cells = [f"{np.mean(values):.2f}" if values else "" for values in means]
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    cells = [f"{weight:.2f}" for weight in weights.values()]
    return "\n".join([*lines, "| weight of orientations | " + " | ".join(cells) + " |"])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--domains", type=Path, required=True, help="npz file of make_domain_set")
    parser.add_argument(
        "--real",
        action="append",
        default=[],
        metavar="PREDICTIONS=STRUCTURE",
        help="a real prediction and the structure it is compared with; may be repeated",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small matrices: more threads only wait for each other
    with ends_on_user_error():
        columns = {f"{Path(a.partition('=')[0]).stem}": [real_case(a)] for a in arguments.real}
        chosen = [d for d in read_domains(arguments.domains, "valid") if len(d.sequence) >= 70]
        domains = chosen[:: max(1, len(chosen) // N_DOMAINS)][:N_DOMAINS]
        for noise, sharpness in WIDTHS:
            cases = list(standin_cases(domains, noise, sharpness))
            columns[f"stand-in {noise:g}, sharpness {sharpness:g}"] = cases
        print(table(columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
