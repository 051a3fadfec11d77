"""Make a small start from nothing: MD, labels, embeddings, training, weights.

Without --sequences it is the one of glycine chains that the package ships: two hours of one CPU
core. A run that is stopped goes on where it was. With --ship the result takes the place of one that
is shipped.

Examples:
    python scripts/make_peptide_start.py --out runs/peptides
    python scripts/make_peptide_start.py --out runs/peptides --max-steps 100000 --ship glycine
    python scripts/make_peptide_start.py --out runs/tetra --sequences ADNY CHAI GGG --held-out DIVE
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from make_peptide_md import PLAIN, SETS, add_md_options, named
from make_peptide_md import run as simulate
from protenix_eba.cli.session import load_configuration
from protenix_eba.core.errors import UserError
from protenix_eba.core.files import atomic_path
from protenix_eba.core.progress import console
from protenix_eba.energy.bias import write_bias_csv
from protenix_eba.host.weights import DIFFUSION_PREFIX, load_checkpoint
from protenix_eba.structures.trajectories import find_targets
from user_errors import ends_on_user_error

PACKAGE = Path(__file__).resolve().parent.parent / "protenix_eba"
CONFIG = PACKAGE / "recipes" / "pretrain_peptides.yaml"
SHIPPED: Final = ("glycine", "tripeptides")
FADED: Final = 0.65  # part of the training after which the error that teaches the hand is gone


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


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a start is made from.

    Attributes:
        peptides: Sequences by name.
        held_out: Names of those that are simulated, but never trained on.
        replicas: MD replicas of each.
        frames: Frames of each replica.
        interval_ps: Time between them.
        bias: Set of make_peptide_md.py.
        start: Name of a shipped start to go on from; None for random weights.
        max_steps: Steps of training; None for the recipe's.
    """

    peptides: dict[str, str]
    held_out: tuple[str, ...] = ()
    replicas: int = 3
    frames: int = PLAIN.frames
    interval_ps: float = PLAIN.interval_ps
    bias: str = "biased"
    start: str | None = None
    max_steps: int | None = None

    @property
    def handed(self) -> bool:
        """Whether a residue that is trained on has a hand, which training then has to teach."""
        return any(
            set(sequence) != {"G"}
            for name, sequence in self.peptides.items()
            if name not in self.held_out
        )


def make(out: Path, wanted: Wanted, jobs: int) -> Path:
    """Make what is not there yet, from the MD to the trained model.

    Args:
        out: Folder of all that is made.
        wanted: What the start is made from.
        jobs: Processes of the MD.

    Returns:
        The checkpoint with the average of the weights.

    Raises:
        UserError: A trajectory has residues of the other hand or cis bonds, or a command failed.
    """
    data, start, table = out / "md", out / "init.pt", out / "bias.csv"
    settings = replace(SETS[wanted.bias], frames=wanted.frames, interval_ps=wanted.interval_ps)
    faults = simulate(data, wanted.peptides, wanted.replicas, settings, jobs)
    if faults:
        raise UserError(f"the MD has faults: {faults[0]}", "choose another seed")
    if not table.is_file():
        write_bias_csv(table, find_targets(data))
    labels, embeddings = out / "labels.parquet", out / "embeddings"
    command("protenix-eba", "label", "import-csv", table, "--bias", "--input", data,
            "--out", labels)  # fmt: skip
    origin = ("--start", wanted.start) if wanted.start else ("--quick-start",)
    command("protenix-eba", "init", "--config", CONFIG, *origin, "--out", start)
    command("protenix-eba", "embed", "--config", CONFIG, "--checkpoint", start, "--input", data,
            "--out", embeddings)  # fmt: skip
    command("protenix-train", "--plugin", "protenix_eba", "--config", CONFIG, "--base_dir", out,
            "--load_checkpoint_path", start, "--eba.data_dir", shown(out, wanted),
            "--eba.labels", labels, "--eba.embeddings", embeddings,
            *training_keys(wanted))  # fmt: skip
    return out / "pretrain" / "model_ema.pt"


def shown(out: Path, wanted: Wanted) -> Path:
    """Link the targets that training may see into a folder of their own, and return it."""
    folder = out / "data"
    folder.mkdir(exist_ok=True)
    for name in wanted.peptides:
        link = folder / name
        if name in wanted.held_out:
            link.unlink(missing_ok=True)
        elif not link.exists():
            link.symlink_to((out / "md" / name).resolve())
    return folder


def training_keys(wanted: Wanted) -> list[str]:
    """Return what differs from the recipe: its length, and the error that teaches the hand."""
    keys = [] if wanted.max_steps is None else ["--max_steps", str(wanted.max_steps)]
    if wanted.handed:
        steps = wanted.max_steps or int(load_configuration(CONFIG).max_steps)
        keys += ["--eba.weight_volume", "1.0", "--eba.volume_steps", str(round(FADED * steps))]
    return keys


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
        help="lengths of the glycine chains, in residues [default: 3 4 6]",
    )
    parser.add_argument(
        "--sequences", nargs="+", help="peptides instead of glycine chains, in one-letter codes"
    )
    parser.add_argument(
        "--held-out", nargs="+", default=[], help="peptides that are simulated but not trained on"
    )
    add_md_options(parser, jobs=2)
    parser.add_argument(
        "--bias",
        choices=[name for name, settings in SETS.items() if settings.bias],
        default="biased",
        help="set of make_peptide_md.py [default: %(default)s]",
    )
    parser.add_argument(
        "--start", choices=SHIPPED, help="shipped start to go on from [default: random weights]"
    )
    parser.add_argument(
        "--max-steps", type=int, help="number of training steps [default: that of the recipe]"
    )
    parser.add_argument("--ship", choices=SHIPPED, help="shipped start to replace by the result")
    options = parser.parse_args()
    wanted = Wanted(
        peptides=named(
            [*(options.sequences or ("G" * n for n in options.lengths)), *options.held_out]
        ),
        held_out=tuple(named(options.held_out)),
        replicas=options.replicas,
        frames=options.frames,
        interval_ps=options.interval_ps,
        bias=options.bias,
        start=options.start,
        max_steps=options.max_steps,
    )
    with ends_on_user_error():
        model = make(options.out, wanted, options.jobs)
    folder = PACKAGE / options.ship if options.ship else options.out
    ship(model, folder / "start.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
