"""`protenix-eba label`: energies for every frame of an ensemble, and tools for label tables."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from protenix_eba.cli.frame_options import frame_options
from protenix_eba.cli.label_tables import combine, import_csv, merge, report
from protenix_eba.cli.numbers import Number, NumberRange
from protenix_eba.cli.session import plugin_option, shard_option
from protenix_eba.cli.status import SOME_FAILED
from protenix_eba.energy.choices import BACKENDS
from protenix_eba.energy.protocol import PROTOCOLS

if TYPE_CHECKING:
    from protenix_eba.core.sharding import Shard
    from protenix_eba.energy.label import LabelReport
    from protenix_eba.energy.table import EnergyLabels
    from protenix_eba.structures.frame_choice import FrameChoice

__all__ = ["label"]

_FRAMES = "frames"


class _FramesByDefault(click.Group):
    """A command group that runs `frames` unless the first word names another command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command's name in front where there is none."""
        if not args or args[0] not in self.commands:
            args.insert(0, _FRAMES)
        return super().parse_args(ctx, args)


@click.group(cls=_FramesByDefault)
def label() -> None:
    """Compute energies of trajectory frames."""


label.add_command(report)
label.add_command(merge)
label.add_command(combine)
label.add_command(import_csv)


@label.command(
    _FRAMES,
    epilog="""Examples:

    \b
    protenix-eba label --input atlas --out labels.parquet --per-target 100 --jobs 4
    protenix-eba label --input 2wnp_F_*.cif --out labels.parquet --repeat 3
    protenix-eba label --input atlas --out labels.parquet --shard "$SLURM_ARRAY_TASK_ID/50"

    Tools for label tables: protenix-eba label report|merge|combine|import-csv --help

Exit status: 0 all rows ok, 2 unusable input, 3 some frames or trajectories failed.""",
)
@click.option("--input", "inputs", required=True, multiple=True, type=click.Path(path_type=Path),
              help="Frames to label: a folder of targets (NAME/NAME.pdb with "
              "NAME/NAME_prod_R1_fit.xtc), or PDB and mmCIF files with one frame each, where "
              "1abc_0.cif and 1abc_1.cif are two frames of the target 1abc.")  # fmt: skip
@click.argument("more", nargs=-1, type=click.Path(path_type=Path), metavar="[FILES]")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False),
              help="Label table to write (Parquet). If it is there already from a run that was "
              "stopped, the run continues from it.")  # fmt: skip
@click.option(
    "--target",
    "name",
    help="Treat all the files given as frames of a single target, and give it this name.",
)
@click.option("--reference", "reference_dir", type=click.Path(path_type=Path),
              help="Folder of MD targets whose PDB files decide protonation states and "
              "disulfides. Give it when you label generated samples, so that their energies can "
              "be compared with the MD's.")  # fmt: skip
@click.option("--protocol", type=click.Choice(list(PROTOCOLS)),
              default="default", show_default=True,
              help="How a frame gets its energy. default: with the least noise; two-stage: "
              "cheaper but noisier; published: as in the EBA authors' script; paper: like "
              "published, with 150 mM salt.")  # fmt: skip
@click.option(
    "--force-field",
    help="Protein force field: charmm36, charmm36m or amber14.  [default: charmm36]",
)
@click.option("--system", type=click.Path(path_type=Path),
              help="The MD's own force field instead: an Amber prmtop, a GROMACS top, a CHARMM PSF "
              "with its parameter files beside it, or a System that OpenMM wrote (XML) with a PDB "
              "file of its atoms beside it. If there are several targets, a folder of such files "
              "named by target.")  # fmt: skip
@click.option(
    "--solvent",
    help="Implicit solvent: gbn2, obc2 or none. It takes the place of the water of --system.  "
    "[default: gbn2]",
)
@click.option("--salt-mM", "salt_mM", type=Number(),
              help="Concentration of monovalent salt in the implicit solvent, in mmol/l.  "
              "[default: that of --protocol]")  # fmt: skip
@click.option("--temperature-K", "temperature_K", type=Number(), default=300.0, show_default=True,
              help="Temperature in kelvin at which the salt screens charges; it matters only with "
              "--salt-mM.")  # fmt: skip
@click.option(
    "--energy",
    "function",
    metavar="NAME",
    help="Use this energy function instead of a force field: gfn2-xtb or gfn1-xtb, quantum "
    "chemistry in ALPB water (needs the extra xtb); ani-1ccx or ani-1x, a learned potential of "
    "molecules of H, C, N and O without charged groups in vacuum (needs the extra ml); or one that "
    "a plugin registers.",
)
@plugin_option
@click.option("--protonation", multiple=True, metavar="CHOICE",
              help="Protonation states of residues whose hydrogens the files do not show. frames: "
              "take what the files say, else pH 7; ph:7.4: the states at this pH; A:HIS12=HIP: "
              "the state of one residue (TARGET/A:HIS12=HIP if there are several targets). May be "
              "repeated.  [default: frames]")  # fmt: skip
@click.option(
    "--tolerance",
    "tolerance_kj_mol_nm",
    type=Number(),
    help="Minimise until the RMS force is below this, in kJ/mol/nm.  [default: 10]",
)
@click.option("--repeat", "repeats", type=click.IntRange(min=1), default=1, show_default=True,
              help="Minimise each frame this many times, from starting points that differ only "
              "by rounding errors. The label is the mean energy; the spread is stored as its "
              "noise.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True,
              help="Number of processes, with one thread each.")  # fmt: skip
@click.option("--backend", type=click.Choice(BACKENDS), default="loky",
              show_default=True, help="Where the processes run: loky on this machine, dask or ray "
                                 "on a cluster.")  # fmt: skip
@click.option("--scheduler", metavar="ADDRESS", help="Address of a running dask or ray cluster.")
@shard_option("Afterwards `protenix-eba label merge` puts the parts together.")
@click.option("--platform", default="auto", show_default=True,
              help="OpenMM platform, such as CPU or CUDA; auto takes CUDA where there is one, "
              "else CPU.")  # fmt: skip
@click.option("--frame-timeout", "frame_timeout_s", type=NumberRange(min=0, min_open=True),
              default=21600.0, show_default=True,
              help="Give up on a frame after this many seconds; the table says which frames "
              "failed.")  # fmt: skip
@frame_options
@click.option(
    "--no-minimize",
    is_flag=True,
    help="Compute the energies of the frames as they are, without minimising them.",
)
@click.option("--csv", "csv_path", type=click.Path(path_type=Path, dir_okay=False),
              help="Also write the table as a CSV file, to this path.")  # fmt: skip
@click.option("--compare", type=click.Path(path_type=Path, dir_okay=False),
              help="Another label table: print how well the energies of the frames in both "
              "agree.")  # fmt: skip
def frames(
    inputs: tuple[Path, ...],
    more: tuple[Path, ...],
    out: Path,
    name: str | None,
    reference_dir: Path | None,
    system: Path | None,
    protocol: str,
    plugins: tuple[str, ...],
    jobs: int,
    backend: str,
    scheduler: str | None,
    shard: Shard | None,
    platform: str,
    frame_timeout_s: float,
    choice: FrameChoice,
    no_minimize: bool,
    csv_path: Path | None,
    compare: Path | None,
    **changes: Any,
) -> None:
    """Give every frame of MD trajectories a CHARMM36 + GBn2 energy after minimisation."""
    from protenix_eba.energy.label import Workers, label_targets
    from protenix_eba.energy.md_files import MdFiles
    from protenix_eba.energy.protocol import customised, protocol_by_name
    from protenix_eba.energy.table import read_labels, write_csv
    from protenix_eba.host.environment import use_plugins

    other = read_labels(compare) if compare else None
    systems = MdFiles.find(system) if system else None
    changes["system"] = systems is not None
    report = label_targets(
        [*inputs, *more],
        out,
        customised(protocol_by_name(protocol, minimise=not no_minimize), **changes),
        systems=systems,
        reference_dir=reference_dir,
        choice=choice,
        workers=Workers(
            jobs=jobs,
            platform=platform,
            backend=backend,
            scheduler=scheduler,
            frame_timeout_s=frame_timeout_s,
            prepare=partial(use_plugins, plugins),
        ),
        shard=shard,
        name=name,
    )
    if csv_path:
        write_csv(csv_path, report.labels)
    if other is not None:
        _print_comparison(report.labels, other)
    if _print_summary(report, out):
        raise click.exceptions.Exit(SOME_FAILED)


def _print_summary(report: LabelReport, out: Path) -> bool:
    """Print what was done; return whether any frame has no energy or could not be read."""
    from protenix_eba.core.progress import tell

    labels = report.labels
    statuses = ("ok", "outlier", "skipped", "failed")
    counts = {status: int((labels.status == status).sum()) for status in statuses}
    found = ", ".join(f"{n} {status}" for status, n in counts.items())
    tell(f"{out}: {len(labels)} rows ({found}), {report.computed} computed now")
    for problem in report.problems:
        tell(f"not labelled: {problem}")
    for row in [row for row in labels.rows() if row["status"] != "ok"][:20]:
        place = f"{row['target']} replica {row['replica']} frame {row['frame']}"
        tell(f"{row['status']}: {place}: {row['reason']}")
    return bool(counts["failed"] or counts["skipped"] or report.problems)


def _print_comparison(labels: EnergyLabels, other: EnergyLabels) -> None:
    from rich.table import Table

    from protenix_eba.core.progress import answers
    from protenix_eba.energy.compare import compare_labels

    table = Table(title="Energies of common frames")
    for heading in ("target", "n", "RMS diff. (kJ/mol)", "max diff. (kJ/mol)", "Spearman"):
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for row in compare_labels(labels, other):
        values = (f"{row.rms_kj_mol:.3f}", f"{row.max_kj_mol:.3f}", f"{row.spearman:.3f}")
        table.add_row(row.target, str(row.n), *values)
    answers.print(table)
