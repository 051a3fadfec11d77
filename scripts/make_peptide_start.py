"""Make the small start that the package ships: MD, labels, embeddings, training, weights.

Two hours of one CPU core; a run that is stopped goes on where it was. With more --max-steps, other
--lengths or on a GPU the same makes a larger one. The result is copied only with --ship.

Examples:
    python scripts/make_peptide_start.py --out runs/peptides
    python scripts/make_peptide_start.py --out runs/peptides --max-steps 100000 --ship
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from make_glycine_md import SETS
from make_glycine_md import run as simulate
from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path
from protenix_eba.core.progress import console
from protenix_eba.energy.bias import write_bias_csv
from protenix_eba.host.weights import DIFFUSION_PREFIX, load_checkpoint
from protenix_eba.structures.trajectories import find_targets

PACKAGE = Path(__file__).resolve().parent.parent / "protenix_eba"
CONFIG = PACKAGE / "recipes" / "pretrain_peptides.yaml"


def command(*words: str | Path) -> None:
    """Run a command of this installation.

    Raises:
        UserError: It failed.
    """
    line = [str(word) for word in words]
    program = Path(sys.executable).parent / line[0]
    status = subprocess.run([program, *line[1:]], check=False).returncode
    if status:
        raise UserError(f"exit status {status}: {' '.join(line)}", "its message stands above")


def make(out: Path, lengths: list[int], replicas: int, jobs: int, max_steps: int | None) -> Path:
    """Make everything up to the trained model; return the average of its weights.

    Args:
        out: Folder of all that is made.
        lengths: Residues of the glycine chains.
        replicas: Of the MD of each.
        jobs: Processes of the MD.
        max_steps: Of the training; None for the recipe's.
    """
    data, start, table = out / "data", out / "init.pt", out / "bias.csv"
    faults = simulate(data, lengths, replicas, SETS["biased"], jobs)
    if faults:
        raise UserError(f"the MD has faults: {faults[0]}", "choose another seed")
    if not table.is_file():
        write_bias_csv(table, find_targets(data))
    labels, embeddings = out / "labels.parquet", out / "embeddings"
    command("protenix-eba", "label", "import-csv", table, "--bias", "--input", data,
            "--out", labels)  # fmt: skip
    command("protenix-eba", "init", "--config", CONFIG, "--quick-start", "--out", start)
    command("protenix-eba", "embed", "--config", CONFIG, "--checkpoint", start, "--input", data,
            "--out", embeddings)  # fmt: skip
    steps = () if max_steps is None else ("--max_steps", str(max_steps))
    command("protenix-train", "--plugin", "protenix_eba", "--config", CONFIG, "--base_dir", out,
            "--load_checkpoint_path", start, "--eba.data_dir", data, "--eba.labels", labels,
            "--eba.embeddings", embeddings, *steps)  # fmt: skip
    return out / "pretrain" / "model_ema.pt"


def ship(checkpoint: Path, path: Path) -> None:
    """Write the diffusion module alone, in float16: half the size, without a visible change."""
    state = load_checkpoint(checkpoint)
    own = {
        key.removeprefix(DIFFUSION_PREFIX): value.to(torch.float16).contiguous()
        for key, value in state.items()
        if key.startswith(DIFFUSION_PREFIX)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(own, temporary)
    console.print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB", markup=False)


def main() -> int:
    """Make what is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        default=[3, 4, 6],
        help="lengths of the glycine chains, in residues [default: %(default)s]",
    )
    parser.add_argument(
        "--replicas",
        type=int,
        default=3,
        help="number of trajectories of each chain [default: %(default)s]",
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="number of processes [default: %(default)s]"
    )
    parser.add_argument(
        "--max-steps", type=int, help="number of training steps [default: that of the recipe]"
    )
    parser.add_argument(
        "--ship", action="store_true", help="replace the start that the package ships by the result"
    )
    options = parser.parse_args()
    try:
        model = make(
            options.out, options.lengths, options.replicas, options.jobs, options.max_steps
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    folder = PACKAGE / "glycine" if options.ship else options.out
    ship(model, folder / "start.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
