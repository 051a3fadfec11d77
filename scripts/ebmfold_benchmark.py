"""Measurements of the folding benchmark: rows of numbers for one target at a time.

A row is a dictionary for JSON. Times are CPU seconds of the process, per decoy.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from protenix_eba.ebmfold.checkpoint import load_network
from protenix_eba.ebmfold.domains import Domain
from protenix_eba.ebmfold.fold import Decoys, decoy_generators, fold, fold_by_peer
from protenix_eba.ebmfold.handedness import is_mirrored
from protenix_eba.ebmfold.metrics import gdt_ts, lddt_ca, tm_score
from protenix_eba.ebmfold.network import ScoreNetwork
from protenix_eba.ebmfold.prediction_files import read_predictions
from protenix_eba.ebmfold.refine import refining_sampler
from protenix_eba.ebmfold.sampling import SAMPLERS, anneal
from protenix_eba.ebmfold.standin import standin_predictions
from protenix_eba.ebmfold.structures import match_residues, read_trace
from protenix_eba.ebmfold.target import Target

__all__ = [
    "PEER",
    "Row",
    "bent_trace",
    "folding_rows",
    "hand_rows",
    "joined_domains",
    "length_row",
    "real_rows",
    "refinement_rows",
    "stage_rows",
    "standin_target",
]

Row = dict[str, Any]

PEER: Final = "peer"
# Displacements of a bent trace are correlated over this many residues; a share is independent.
_BEND_RESIDUES: Final = 4.0
_JITTER: Final = 0.3
_BISECTIONS: Final = 14
_FURTHEST: Final = 32.0
_REFINERS: Final = ("churned", "hybrid")


def standin_target(domain: Domain, noise: float, orientations: bool, seed: int) -> Target:
    """Return a domain with stand-in predictions, the same distances without orientations."""
    generator = torch.Generator().manual_seed(seed)
    made = standin_predictions(domain.backbone, noise, generator)
    return Target(
        domain.name, made if orientations else made.without_orientations(), domain.sequence
    )


def folding_rows(
    domain: Domain,
    noise: float,
    orientations: bool,
    methods: Sequence[str],
    network: ScoreNetwork,
    n_decoys: int,
    seed: int,
) -> list[Row]:
    """Fold a domain by several methods from the same predictions.

    Args:
        domain: Of a split that the network was not trained on.
        noise: Width of the stand-in predictions.
        orientations: Whether these have orientations.
        methods: Names of `SAMPLERS`, or "peer".
        network: In evaluation mode.
        n_decoys: Of each method.
        seed: Of predictions and decoys.

    Returns:
        A row for each method.
    """
    target = standin_target(domain, noise, orientations, seed)
    known = {"noise": noise, "orientations": orientations}
    return [
        known | _row(target, method, _decoys(target, method, network, n_decoys, seed), domain.ca)
        for method in methods
    ]


def _decoys(target: Target, method: str, network: ScoreNetwork, n: int, seed: int) -> Decoys:
    if method == PEER:
        return fold_by_peer(target, n, seed)
    return fold(network, target, SAMPLERS[method], n, seed)


def _row(
    target: Target,
    method: str,
    decoys: Decoys,
    native: Tensor,
    residues: Any = slice(None),
) -> Row:
    """Score each decoy; "mixed" ones are mirror images whose dihedral angles look native."""
    ca = decoys.ca[:, residues]
    score = tm_score(ca, native)
    mirrored = tm_score(-ca, native) > score
    return {
        "target": target.name,
        "length": target.n_residues,
        "method": method,
        "lddt_ca": lddt_ca(ca, native).tolist(),
        "gdt_ts": gdt_ts(ca, native).tolist(),
        "tm_score": score.tolist(),
        "mirrored": mirrored.tolist(),
        "mixed": (mirrored & ~is_mirrored(decoys.ca, target.bonded)).tolist(),
        "negative_log_likelihood": decoys.negative_log_likelihood.tolist(),
        "n_evaluations": decoys.n_evaluations,
        "cpu_seconds": decoys.cpu_seconds,
    }


def real_rows(
    predictions: Path,
    native: Path,
    models: Sequence[Path],
    methods: Sequence[str],
    network: ScoreNetwork,
    n_decoys: int,
    seed: int,
) -> list[Row]:
    """Fold from a real prediction, and score what others made of it too.

    Args:
        predictions: npz file.
        native: Structure of all or some of its residues.
        models: Structures by other programs of the same residues as the predictions.
        methods: As for `folding_rows`.
        network: In evaluation mode.
        n_decoys: Of each method.
        seed: Of the decoys.
    """
    read, true = read_predictions(predictions), read_trace(native)
    traces = {path.name: read_trace(path) for path in models}
    sequence = next((trace.sequence for trace in traces.values()), None)
    rows: list[Row] = []
    for orientations in (True, False) if read.has_orientations else (False,):
        given = read if orientations else read.without_orientations()
        target = Target(predictions.stem, given, sequence)
        ours, theirs = match_residues(true, target.n_residues, sequence)
        for method in methods:
            decoys = _decoys(target, method, network, n_decoys, seed)
            row = _row(target, method, decoys, true.ca[theirs], ours)
            rows.append({"orientations": orientations} | row)
    for name, trace in traces.items():
        x = trace.ca[None, ours]
        scores = (lddt_ca(x, true.ca[theirs]), gdt_ts(x, true.ca[theirs]))
        found = {"lddt_ca": float(scores[0]), "gdt_ts": float(scores[1])}
        rows.append({"target": predictions.stem, "model": name} | found)
    return rows


def bent_trace(ca: Tensor, lddt: float, seed: int) -> Tensor:
    """Bend and jitter a native trace `[L, 3]` until its lDDT is the given one."""
    generator = np.random.default_rng(seed)
    smooth = gaussian_filter1d(generator.standard_normal(ca.shape), _BEND_RESIDUES, axis=0)
    field = smooth / smooth.std() + _JITTER * generator.standard_normal(ca.shape)
    direction = torch.as_tensor(field).to(ca)
    low, high = 0.0, _FURTHEST
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        nearer = float(lddt_ca((ca + middle * direction)[None], ca)) > lddt
        low, high = (middle, high) if nearer else (low, middle)
    return ca + low * direction


def refinement_rows(
    domain: Domain, noise: float, lddts: Sequence[float], network: ScoreNetwork, seed: int
) -> list[Row]:
    """Refine bent traces of a domain, from the level that the head chooses."""
    target = standin_target(domain, noise, True, seed)
    rows: list[Row] = []
    for lddt in lddts:
        trace = bent_trace(domain.ca, lddt, seed)
        before: Row = {"asked": lddt, "noise": noise}
        before["lddt_ca_before"] = float(lddt_ca(trace[None], domain.ca))
        before["gdt_ts_before"] = float(gdt_ts(trace[None], domain.ca))
        for name in _REFINERS:
            sampler = refining_sampler(SAMPLERS[name], target, trace)
            refined = fold(network, target, sampler, 1, seed, start=trace)
            known = before | {"level": sampler.levels[0]}
            rows.append(known | _row(target, name, refined, domain.ca))
    return rows


def hand_rows(domains: Sequence[Domain]) -> list[Row]:
    """Measure whether a native domain, or its mirror image, is taken for the other."""
    rows = []
    for domain in domains:
        bonded = torch.ones(len(domain.ca) - 1, dtype=torch.bool)
        wrong = bool(is_mirrored(domain.ca, bonded)) or not bool(is_mirrored(-domain.ca, bonded))
        rows.append({"target": domain.name, "wrong": wrong})
    return rows


def stage_rows(domain: Domain, noise: float, network: ScoreNetwork, seed: int) -> list[Row]:
    """Score one decoy and its distances after each level of the default sampler."""
    target = standin_target(domain, noise, True, seed)
    condition = network.prepare(target)
    rows: list[Row] = []

    @torch.no_grad()
    def denoise(x: Tensor, sigma: float) -> Tensor:
        denoised: Tensor = network(x, torch.full((len(x),), sigma), condition)
        return denoised

    def told(level: float, x: Tensor) -> None:
        distances = torch.cdist(x[0], x[0]).round(decimals=1).tolist()
        score = float(lddt_ca(x, domain.ca))
        rows.append({"level": level, "lddt_ca": score, "distances": distances})

    shape = (target.n_residues, 3)
    anneal(denoise, shape, decoy_generators(seed, range(1)), SAMPLERS["churned"], on_level=told)
    native = torch.cdist(domain.ca, domain.ca).round(decimals=1).tolist()
    return [*rows, {"level": None, "lddt_ca": 1.0, "distances": native}]


def joined_domains(domains: Sequence[Domain], length: int) -> Domain:
    """Join domains to one long chain, each a bond away from the end of the one before."""
    parts: list[Tensor] = []
    sequence = ""
    for domain in domains:
        end = parts[-1][-1, 1] if parts else torch.zeros(3)
        away = torch.tensor([3.8, 0.0, 0.0])
        parts.append(domain.backbone - domain.ca[0] + end + away)
        sequence += domain.sequence
        if len(sequence) >= length:
            break
    backbone = torch.cat(parts)[:length]
    return Domain(f"joined{len(backbone)}", "test", "", sequence[:length], backbone)


def length_row(domain: Domain, noise: float, weights: Path, seed: int) -> Row:
    """Measure time and memory of one decoy from distances, in a process of its own."""
    # Made here: it would need more memory there than folding does.
    target = standin_target(domain, noise, False, seed)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_length_row, target, domain.ca.numpy(), weights, seed).result()


def _length_row(target: Target, native: NDArray[np.float32], weights: Path, seed: int) -> Row:
    torch.set_num_threads(1)
    network, ca = load_network(weights), torch.as_tensor(native)
    before = _peak_mb()
    condition = network.prepare(target)
    sigma = torch.ones(1)
    begun = time.process_time()
    with torch.no_grad():
        network(ca[None], sigma, condition)
    evaluation = time.process_time() - begun
    decoys = fold(network, target, SAMPLERS["hybrid"], 1, seed)
    row = _row(target, "hybrid", decoys, ca)
    return row | {
        "evaluation_seconds": evaluation,
        "peak_mb": _peak_mb(),
        "peak_mb_before": before,
    }


def _peak_mb() -> float:
    """Return the peak memory of this process alone; `getrusage` may count its parent's too."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = [row for row in status.read_text().splitlines() if row.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
