"""Expected numbers for tests of the evaluation, computed by another route than ours.

    python scripts/make_eval_expected.py > tests/data/eval_expected.json

Follows AlphaFlow's protocol with mdtraj (superposition, RMSF, `shrake_rupley` of one frame at a
time), scikit-learn (PCA), POT (optimal transport) and scipy (matrix square root, Spearman), on an
ensemble that `tests/eval/test_protocol.py` builds from the same seeds.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import mdtraj
import numpy as np
import ot
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import pearsonr, spearmanr
from sklearn.decomposition import PCA
from sklearn.metrics import mutual_info_score

TESTS = Path(__file__).parents[1] / "tests"
STRUCTURE = TESTS / "data" / "cobrotoxin" / "cobrotoxin.pdb"


def main() -> None:
    structure = mdtraj.load(str(STRUCTURE))
    structure = structure.atom_slice(structure.topology.select("protein and element != H"))
    fluctuating = runpy.run_path(str(TESTS / "eval" / "test_protocol.py"))["fluctuating"]
    md, samples = (
        mdtraj.Trajectory(fluctuating(structure.xyz[0], seed, n, size), structure.topology)
        for seed, n, size in ((1, 120, 0.2), (2, 20, 0.25))
    )
    found = metrics(structure, md, samples)
    print(json.dumps({key: float(value) for key, value in found.items()}, indent=1))


def metrics(
    structure: mdtraj.Trajectory, md: mdtraj.Trajectory, samples: mdtraj.Trajectory
) -> dict[str, float]:
    n = len(samples)
    random = np.random.RandomState(137)
    first, second = random.randint(0, len(md), n), random.randint(0, len(md), n)
    gaussian = random.randint(0, len(md), 1000)
    for trajectory in (md, samples):
        trajectory.superpose(structure)
    rmsf = [mdtraj.rmsf(trajectory, structure) for trajectory in (md, samples)]
    is_ca = structure.topology.select("name CA")
    ca = [trajectory.atom_slice(is_ca) for trajectory in (structure, md, samples)]
    for trajectory in ca[1:]:
        trajectory.superpose(ca[0])
    flat = [10.0 * t.xyz.reshape(len(t), -1).astype(np.float64) for t in ca]
    scale = np.sqrt(len(is_ca))
    md_pca, own_pca = PCA(2, svd_solver="full").fit(flat[1]), PCA(2, svd_solver="full").fit(flat[2])
    joint_pca = PCA(2, svd_solver="full").fit(np.concatenate([flat[1][first], flat[2]]))
    translation, variance = rmwd(10.0 * md.xyz[gaussian], 10.0 * samples.xyz)
    return {
        "pairwise_rmsd": cdist(flat[2], flat[2]).mean() / scale,
        "md_pairwise_rmsd": cdist(flat[1][first], flat[1][second]).mean() / scale,
        "rmsf_pearson": pearsonr(*rmsf)[0],
        "rmwd": np.hypot(translation, variance),
        "rmwd_translation": translation,
        "rmwd_variance": variance,
        "md_pca_w2": w2(md_pca, flat[1][first], flat[2]) / scale,
        "joint_pca_w2": w2(joint_pca, flat[1][first], flat[2]) / scale,
        "pc1_cosine": abs(md_pca.components_[0] @ own_pca.components_[0]),
        **contacts(flat[0], flat[1][first], flat[2]),
        **exposure(structure, md, samples, gaussian),
    }


def rmwd(md: np.ndarray, samples: np.ndarray) -> tuple[float, float]:
    distances = []
    for atom in range(md.shape[1]):
        a, b = md[:, atom].astype(np.float64), samples[:, atom].astype(np.float64)
        s, t = np.cov(a.T, bias=True), np.cov(b.T, bias=True)
        trace = np.trace(s + t - 2.0 * np.real(sqrtm(s @ t)))
        distances.append((np.square(a.mean(0) - b.mean(0)).sum(), trace))
    return tuple(np.sqrt(np.mean(distances, axis=0)))


def w2(pca: PCA, md: np.ndarray, samples: np.ndarray) -> float:
    cost = ot.dist(pca.transform(md), pca.transform(samples))
    return float(np.sqrt(ot.emd2([], [], cost)))


def contacts(structure: np.ndarray, md: np.ndarray, samples: np.ndarray) -> dict[str, float]:
    closer = [
        np.mean([cdist(x, x) < 8.0 for x in flat.reshape(len(flat), -1, 3)], axis=0)
        for flat in (structure, md, samples)
    ]
    native = closer[0] > 0.5
    weak = [native & (p < 0.9) for p in closer[1:]]
    transient = [~native & (p > 0.1) for p in closer[1:]]
    return {
        "weak_contacts_jaccard": (weak[0] & weak[1]).sum() / (weak[0] | weak[1]).sum(),
        "transient_contacts_jaccard": (transient[0] & transient[1]).sum()
        / (transient[0] | transient[1]).sum(),
    }


def exposure(
    structure: mdtraj.Trajectory,
    md: mdtraj.Trajectory,
    samples: mdtraj.Trajectory,
    gaussian: np.ndarray,
) -> dict[str, float]:
    structure.center_coordinates()
    exposed = [side_chain_areas(t) > 0.02 for t in (md, samples)]
    exposed[0] = exposed[0][gaussian]
    buried = side_chain_areas(structure)[0] < 0.02
    opened = [buried & (side.mean(axis=0) > 0.1) for side in exposed]
    information = [
        [
            0.0 if i == j else mutual_info_score(side[:, i], side[:, j])
            for i in range(side.shape[1])
            for j in range(side.shape[1])
        ]
        for side in exposed
    ]
    return {
        "exposed_residue_jaccard": (opened[0] & opened[1]).sum() / (opened[0] | opened[1]).sum(),
        "exposed_mi_spearman": spearmanr(*(np.round(m, 12) for m in information))[0],
    }


def side_chain_areas(trajectory: mdtraj.Trajectory) -> np.ndarray:
    """Return areas `[F, L]` in nm2, by single frames: `shrake_rupley` carries areas over."""
    areas = np.concatenate([mdtraj.shrake_rupley(f, probe_radius=0.28) for f in trajectory])
    top = trajectory.topology
    side = np.array([a.name not in ("N", "CA", "C", "O", "OXT") for a in top.atoms])
    residue = np.array([a.residue.index for a in top.atoms])
    return np.stack([areas[:, side & (residue == r)].sum(1) for r in range(top.n_residues)], 1)


if __name__ == "__main__":
    main()
