"""Seconds and peak memory of one target's evaluation, against AlphaFlow's own script.

    python scripts/bench_evaluate.py protein.pdb --alphaflow ~/alphaflow

Builds an ATLAS-like target from one structure with hydrogens (three replicas of 10,001 frames that
fluctuate as an elastic network does, and 250 samples), in a temporary folder, and evaluates it in
processes of their own. AlphaFlow's script is not part of this project: give the folder of its
repository. It runs under the installed mdtraj on samples in the reference's atom order, which is
the only order that it gets right there, and needs scikit-learn, pandas and tqdm.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np

from bench_process import Taken, taken_by

NAME = "bench_A"
CUTOFF_NM = 1.5
MEAN_RMSF_NM = 0.12
LOCAL_NM = 0.03
CHUNK = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structure", type=Path, help="PDB or mmCIF file of a protein")
    parser.add_argument(
        "--alphaflow", type=Path, help="folder of AlphaFlow's repository, to time its script too"
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=10001,
        help="number of frames of each of the three replicas [default: %(default)s]",
    )
    parser.add_argument(
        "--samples", type=int, default=250, help="number of samples [default: %(default)s]"
    )
    parser.add_argument(
        "--compat", action="store_true", help="also time `evaluate --compat alphaflow-1.9.9`"
    )
    parser.add_argument(
        "--beyond",
        action="store_true",
        help="also time the metrics that AlphaFlow's protocol lacks",
    )
    parser.add_argument(
        "--second-model",
        type=int,
        metavar="TARGETS",
        help="time only the command `evaluate` on so many such targets, and then on the samples of "
        "a second model, which reads what the first one kept of the MD",
    )
    parser.add_argument("--ours", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        evaluate(*args.ours, compat=args.compat, beyond=args.beyond)
        return
    with tempfile.TemporaryDirectory() as folder:
        md, samples = build(args.structure, Path(folder), args.frames, args.samples)
        if args.second_model:
            second_model(md, samples, args.second_model)
            return
        reading(md)
        me = [sys.executable, __file__, str(args.structure), "--ours", str(md), str(samples)]
        measure(me, "first run, compiles")
        ours = measure(me, "protenix-eba")
        if args.compat:
            measure([*me, "--compat"], "protenix-eba, compat")
        if args.beyond:
            measure([*me, "--beyond"], "protenix-eba, all metrics")
        if args.alphaflow:
            script = str(args.alphaflow / "scripts" / "analyze_ensembles.py")
            command = [sys.executable, script, "--atlas_dir", str(md), "--pdbdir", str(samples)]
            theirs = measure(command, "AlphaFlow's script")
            print(f"CPU time: {theirs[0] / ours[0]:.1f} times less")
            print(f"peak memory: {theirs[1] / ours[1]:.1f} times less")
            compare(json.loads((samples / "ours.json").read_text()), samples / "out.pkl")


def evaluate(md: Path, samples: Path, *, compat: bool, beyond: bool) -> None:
    """Run our evaluation: from files to all metrics of the protocol and their floor."""
    from protenix_eba.eval.one_target import TargetSettings, evaluate_target
    from protenix_eba.structures.sources import find_references, find_samples

    settings = TargetSettings(compat="alphaflow-1.9.9" if compat else None, beyond=beyond)
    generated = find_samples([samples / f"{NAME}.pdb"])[0][NAME]
    found = evaluate_target(find_references(md)[0][NAME], generated, settings)
    (samples / "ours.json").write_text(json.dumps(found.values))


def second_model(md: Path, samples: Path, n_targets: int) -> None:
    """CPU seconds of `evaluate` for one model, for a second one, and of its report alone."""
    multiply(md, samples, n_targets)
    program = "import sys; from protenix_eba.cli.main import run; sys.exit(run(sys.argv[1:]))"
    me = [sys.executable, "-c", program, "evaluate", "--reference", str(md)]
    me += ["--samples", str(samples), "--out"]
    first, second = str(md.parent / "first"), str(md.parent / "second")
    one, other = measure([*me, first], "first model")[0], measure([*me, second], "second model")[0]
    print(f"second model over first: {other / one:.2f}")
    measure([*me, second], "nothing left but the report")


def multiply(md: Path, samples: Path, n_targets: int) -> None:
    """Make links to the MD and the samples under other names: targets of the same cost."""
    for number in range(1, n_targets):
        name = f"bench{number}_A"
        (md / name).mkdir()
        for path in (md / NAME).iterdir():
            (md / name / path.name.replace(NAME, name)).symlink_to(path)
        (samples / f"{name}.pdb").symlink_to(samples / f"{NAME}.pdb")


def reading(md: Path) -> None:
    """CPU milliseconds of random frames of one replica, as training reads them, and by mdtraj.

    The second way opens the file each time, finds all frames and reads the first one besides.
    """
    from protenix_eba.structures.trajectories import find_targets, frame_count, read_frames

    target = find_targets(md)[0]
    replica, path = next(iter(target.trajectory_paths.items()))
    draw, n_frames = np.random.default_rng(0), frame_count(target, replica)

    def anew(frames: np.ndarray) -> None:
        with mdtraj.formats.XTCTrajectoryFile(str(path)) as file:
            len(file)
            for frame in (0, *frames):
                file.seek(int(frame))
                file.read(1)

    for count in (1, 3, 100):
        items = [np.sort(draw.choice(n_frames, count, replace=False)) for _ in range(20)]
        ours = milliseconds(lambda frames: read_frames(target, replica, frames), items)
        theirs = milliseconds(anew, items)
        ratio = f"{theirs / ours:.2f} times"
        print(f"{count} of {n_frames} frames: {ours:.2f} ms, by mdtraj {theirs:.2f} ms: {ratio}")


def milliseconds(read: Callable[[np.ndarray], object], items: list[np.ndarray]) -> float:
    """Median CPU time of an item, after one that is not counted."""
    read(items[0])
    taken = []
    for frames in items:
        start = time.process_time()
        read(frames)
        taken.append(time.process_time() - start)
    return 1e3 * float(np.median(taken))


def measure(command: list[str], label: str) -> Taken:
    """Return CPU seconds and peak resident MB of a process with one thread."""
    found = taken_by(command, os.environ | {"MPLBACKEND": "Agg"})
    print(f"{label:26} {found.cpu_s:8.1f} CPU s {found.peak_mb:8.0f} MB", flush=True)
    return found


def build(structure: Path, folder: Path, n_frames: int, n_samples: int) -> tuple[Path, Path]:
    """Write MD in ATLAS's layout and samples in AlphaFlow's; return their folders."""
    protein = mdtraj.load(str(structure))[0]
    protein = protein.atom_slice(protein.topology.select("protein"))
    for atom in protein.topology.atoms:
        atom.serial = atom.index + 1  # text after mmCIF, which the PDB writer cannot write
    protein.center_coordinates()
    residue = np.array([atom.residue.index for atom in protein.topology.atoms])
    modes = elastic_modes(protein.xyz[0, protein.topology.select("name CA")])
    random = np.random.default_rng(0)
    md, samples = folder / "md", folder / "samples"
    (md / NAME).mkdir(parents=True)
    samples.mkdir()
    protein.save_pdb(str(md / NAME / f"{NAME}.pdb"))
    for replica in (1, 2, 3):
        path = md / NAME / f"{NAME}_prod_R{replica}_fit.xtc"
        with mdtraj.formats.XTCTrajectoryFile(str(path), "w") as out:
            for start in range(0, n_frames, CHUNK):
                n = min(CHUNK, n_frames - start)
                out.write(fluctuating(protein.xyz[0], residue, modes, n, random))
    heavy = protein.topology.select("element != H")
    xyz = fluctuating(protein.xyz[0], residue, 0.8 * modes, n_samples, random)[:, heavy]
    models = mdtraj.Trajectory(xyz, protein.topology.subset(heavy))
    models.save_pdb(str(samples / f"{NAME}.pdb"))
    n_atoms, n_residues = protein.n_atoms, protein.n_residues
    print(f"{n_residues} residues, {n_atoms} atoms, 3 x {n_frames} frames, {n_samples} samples")
    return md, samples


def elastic_modes(ca: np.ndarray) -> np.ndarray:
    """Return normal modes of an elastic network, scaled by fluctuation: `[3L - 6, L, 3]` nm."""
    apart = ca[:, None] - ca[None]
    distance = np.linalg.norm(apart, axis=-1)
    springs = (distance < CUTOFF_NM) & (distance > 0)
    unit = apart / np.where(distance > 0, distance, 1.0)[..., None]
    blocks = -1.0 * springs[..., None, None] * unit[..., :, None] * unit[..., None, :]
    blocks[np.arange(len(ca)), np.arange(len(ca))] = -blocks.sum(axis=1)
    values, vectors = np.linalg.eigh(blocks.transpose(0, 2, 1, 3).reshape(3 * len(ca), -1))
    modes = (vectors[:, 6:] / np.sqrt(values[6:])).T.reshape(-1, len(ca), 3)
    fluctuation = np.sqrt(np.square(modes).sum(axis=(0, 2))).mean()
    return modes * (MEAN_RMSF_NM / fluctuation)


def fluctuating(
    xyz: np.ndarray, residue: np.ndarray, modes: np.ndarray, n: int, random: np.random.Generator
) -> np.ndarray:
    """Return frames `[n, N, 3]` in nm: residues move with the network, atoms a little alone."""
    moved = random.normal(size=(n, len(modes))) @ modes.reshape(len(modes), -1)
    local = random.normal(scale=LOCAL_NM, size=(n, *xyz.shape))
    return (xyz + moved.reshape(n, -1, 3)[:, residue] + local).astype(np.float32)


def compare(ours: dict[str, float], pickled: Path) -> None:
    """Print the largest difference of what both computed, to show that the work was the same."""
    import pickle  # the script's own format, written a moment ago

    theirs = pickle.loads(pickled.read_bytes())[NAME]
    pairs = {
        "pairwise_rmsd": theirs["af_mean_pairwise_rmsd"],
        "md_pairwise_rmsd": theirs["ref_mean_pairwise_rmsd"],
        "rmsf_pearson": np.corrcoef(theirs["af_rmsf"], theirs["ref_rmsf"])[0, 1],
        "rmwd_translation": np.sqrt(np.square(theirs["emd_mean"]).mean()),
        "rmwd_variance": np.sqrt(np.square(theirs["emd_var"]).mean()),
        "md_pca_w2": theirs["EMD,ref"]["ref|af"],
        "joint_pca_w2": theirs["EMD,joint"]["ref|af"],
        "pc1_cosine": abs(theirs["cosine_sim"]),
    }
    worst = max(abs(ours[key] / value - 1.0) for key, value in pairs.items())
    print(f"largest relative difference of {len(pairs)} metrics: {worst:.1e}")


if __name__ == "__main__":
    main()
