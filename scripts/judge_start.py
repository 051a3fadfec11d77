"""Judge a small start: are its samples sound, and distributed as the MD that it was trained on?

Each peptide of a folder that make_peptide_start.py has filled is sampled, also those that training
never saw, and compared with its own MD. A stopped run goes on from what is sampled.

Example:
    python scripts/judge_start.py runs/tetra -n 100 --document tetrapeptides
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import proof_report
from proof import SAMPLERS, Proof, described
from protenix_eba.core.progress import console
from protenix_eba.eval.coordinate import w1_angstrom
from protenix_eba.structures.trajectories import Target, find_targets
from user_errors import ends_on_user_error

CONFIG = Path(__file__).resolve().parent.parent / "protenix_eba/recipes/pretrain_peptides.yaml"


def sample(start: Path, sampler: str, n: int) -> dict[str, Target]:
    """Return the samples of every peptide under one sampler, by name, made where missing."""
    sequences, folder = start / "sequences.fasta", start / "samples" / sampler
    peptides = {target.name: target for target in find_targets(start / "md")}
    entries = (f">{name}\n{sequence_of(name)}\n" for name in peptides)
    sequences.write_text("".join(entries), encoding="utf-8")
    Proof(start).run(
        "protenix-eba", "sample", "--config", CONFIG,
        "--checkpoint", start / "pretrain" / "model_ema.pt", "--input", sequences,
        "--embeddings", start / "embeddings", "--out", folder, "-n", str(n), "--seed", "1",
        *SAMPLERS[sampler], "--precision", "bf16", log=start / "logs" / f"sample_{sampler}.log",
    )  # fmt: skip
    return {target.name: target for target in find_targets(folder)}


def sequence_of(name: str) -> str:
    """Return the sequence of a peptide by its name: gly4 is GGGG, others are their own."""
    return "G" * int(name.removeprefix("gly")) if name.startswith("gly") else name


def row(md: Target, samples: Target, *, seen: bool, sampler: str) -> dict[str, Any]:
    """Return a peptide's line in the table: its samples against its MD, and MD against itself."""
    truth, found = described(md), described(samples)
    replicas = [np.array(part) / 100 for part in truth["distance_pm"]]
    (ends,) = proof_report.distances([found])
    return {
        "target": md.name,
        "seen": seen,
        "sampler": sampler,
        "samples": len(ends),
        "valid": found["valid"] / len(ends),
        "inverted": found["inverted"] / len(ends),
        "bond_rms_angstrom": found["bond_rms_angstrom"],
        "torsions": proof_report.torsion_jsd([found], truth),
        "torsions_drawn": torsions_drawn(truth, int(np.sum(found["torsions"]))),
        "torsions_md": proof_report.torsions_among(truth),
        "w1_angstrom": w1_angstrom(ends, np.concatenate(replicas)),
        "w1_md": proof_report.among(replicas, w1_angstrom),
        "bond_rms_md": truth["bond_rms_angstrom"],
    }


def torsions_drawn(truth: dict[str, Any], n: int) -> float:
    """Return the divergence that as many torsions show which are drawn from the MD's own."""
    counts = np.sum(truth["torsions"], axis=0)
    drawn = np.random.default_rng(0).multinomial(n, counts / counts.sum())
    return proof_report.torsion_jsd([{"torsions": [drawn]}], truth)


def judge(start: Path, n: int) -> list[dict[str, Any]]:
    """Return the lines of all peptides under both samplers."""
    seen = {target.name for target in find_targets(start / "data")}
    rows = []
    for sampler in SAMPLERS:
        found = sample(start, sampler, n)
        for md in find_targets(start / "md"):
            rows.append(row(md, found[md.name], seen=md.name in seen, sampler=sampler))
            console.print(rows[-1], soft_wrap=True)
    return rows


def main() -> int:
    """Sample, compare, and fill in the document if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("start", type=Path, help="folder that make_peptide_start.py has filled")
    parser.add_argument(
        "-n", type=int, default=200, help="samples of each peptide [default: %(default)s]"
    )
    parser.add_argument(
        "--document", choices=proof_report.JUDGED, help="fill in this table of docs/proof.md"
    )
    options = parser.parse_args()
    with ends_on_user_error():
        rows = judge(options.start, options.n)
    if options.document:
        proof_report.write_judged(options.document, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
