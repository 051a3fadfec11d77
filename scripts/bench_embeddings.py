"""Size, rounding error and reading time of stored trunk embeddings and features.

The share is that of the whole file, with the features, in the embeddings' float32 tensors.

Numbers of a trunk that is not at hand: normal ones, the hardest to compress, with channels of
different sizes, and heavy-tailed ones (Student's t with 3 degrees of freedom).

Example:

  python scripts/bench_embeddings.py --residues 100 217 500
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

import torch

from protenix_eba.host import environment


def embeddings(n: int, kind: str):
    from protenix_eba.host.embeddings import TrunkEmbeddings

    torch.manual_seed(0)
    draw = torch.distributions.StudentT(3.0).sample if kind == "heavy-tailed" else torch.randn
    shapes = ((n, 449), (n, 384), (n, n, 128))
    scaled = (torch.exp(0.7 * torch.randn(shape[-1])) * draw(shape) for shape in shapes)
    return TrunkEmbeddings(*scaled)


def rms(values: torch.Tensor) -> float:
    return values.double().square().mean().sqrt().item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--residues",
        nargs="+",
        type=int,
        default=[50, 80, 100, 217],
        help="lengths of the proteins to measure, in residues [default: %(default)s]",
    )
    arguments = parser.parse_args()
    environment.prepare_environment()
    environment.ensure_ccd_cache()
    from protenix_eba.host.embeddings import EmbeddingFolder, save_embeddings
    from protenix_eba.host.features import protein_features
    from protenix_eba.structures.sequences import Protein

    columns = (
        *("residues", "values", "float32 MB", "stored MB", "share", "z error", "in bf16", "read s"),
        *("features made s", "read s"),
    )
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for n in arguments.residues:
        sequence = "".join(random.Random(n).choices("ACDEFGHIKLMNPQRSTVWY", k=n))
        started = time.process_time()
        protein = protein_features(Protein("x", (sequence,)))
        making = time.process_time() - started
        for kind in ("normal", "heavy-tailed"):
            made = embeddings(n, kind)
            whole = sum(t.numel() * 4 for t in made.tensors())
            with tempfile.TemporaryDirectory() as folder:
                files = EmbeddingFolder(Path(folder), "trunk", 1)
                path = files.path(protein.protein)
                save_embeddings(path, made, protein, "trunk", 1)
                stored = path.stat().st_size
                started = time.process_time()
                read = files(protein.protein)
                seconds = time.process_time() - started
                started = time.process_time()
                files.check(protein.protein)
                files.features(protein.protein)
                features = time.process_time() - started
            z = made.z_trunk
            error, half = rms(read.z_trunk - z) / rms(z), rms(z.bfloat16().float() - z) / rms(z)
            print(
                f"| {n} | {kind} | {whole / 1e6:.1f} | {stored / 1e6:.1f} | {stored / whole:.3f} | "
                f"{error:.4f} | {half:.4f} | {seconds:.2f} | {making:.2f} | {features:.3f} |"
            )


if __name__ == "__main__":
    main()
