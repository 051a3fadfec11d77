"""Sampling with each checkpoint, for `protenix-eba sample`."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protenix_eba.cli.refining import RefinedBy, refine_ensemble
from protenix_eba.core.errors import UserError

if TYPE_CHECKING:
    from protenix_eba.ebmfold.heads import Head
    from protenix_eba.host.embeddings import TrunkEmbeddings
    from protenix_eba.host.features import ProteinFeatures
    from protenix_eba.host.msa import MsaFiles
    from protenix_eba.host.trunk import Trunk
    from protenix_eba.sampling.run import Ensemble, Plan, SamplingRun
    from protenix_eba.structures.sequences import Protein

__all__ = ["Job", "Report", "model_folders", "sample_with"]


@dataclass(frozen=True)
class Job:
    """The part of a sampling job that is the same for all checkpoints."""

    configs: Any
    proteins: Sequence[Protein]
    plan: Plan
    sampler: str
    head: str | None
    precision: str
    embeddings: Path | None
    msas: MsaFiles | None
    relax: bool
    jobs: int
    several: bool


@dataclass(frozen=True)
class Report:
    """The failures and other problems of a sampling job.

    Attributes:
        failures: Target -> why it has no ensemble.
        problems: Sentences about ensembles that are not all that was asked for.
    """

    failures: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def model_folders(checkpoints: Sequence[str], out: Path) -> dict[Path, Path]:
    """Return the output folder of each checkpoint, with the checkpoint's path.

    Args:
        checkpoints: Words `PATH` or `NAME=PATH`; a single path alone has `out` itself.
        out: Folder of them all.

    Raises:
        UserError: No such file, a name that cannot be a folder's, or two of one name.
    """
    from protenix_eba.core.files import require_file

    if len(checkpoints) == 1 and Path(checkpoints[0]).is_file():
        return {out: Path(checkpoints[0])}
    models: dict[Path, Path] = {}
    for word in checkpoints:
        has_name = "=" in word and not Path(word).is_file()
        name, path = word.split("=", 1) if has_name else (Path(word).stem, word)
        if not name or "/" in name or name.startswith("."):
            raise UserError(
                f"--checkpoint {word}: {name!r} cannot name a folder", "write NAME=PATH"
            )
        if out / name in models:
            raise UserError(
                f"two checkpoints are called {name}: {models[out / name]} and {path}",
                "name them: --checkpoint NAME=PATH",
            )
        models[out / name] = require_file(path, "checkpoint")
    return models


def sample_with(job: Job, checkpoint: Path, out: Path, report: Report) -> None:
    """Sample all proteins with one model."""
    import torch

    from protenix_eba.core.files import make_folder, sha256_of_file
    from protenix_eba.host.denoiser import ConformerDenoiser
    from protenix_eba.host.features import to_device
    from protenix_eba.host.trunk import Trunk
    from protenix_eba.host.weights import build_diffusion_module, load_checkpoint
    from protenix_eba.sampling.run import SamplingRun
    from protenix_eba.sampling.samplers import CHURNED, DIFFUSION_SAMPLERS

    sampler = DIFFUSION_SAMPLERS.get(job.sampler)(job.configs)
    head = _head(job)
    state = load_checkpoint(checkpoint)
    make_folder(out)
    trunk = Trunk(job.configs, state, job.embeddings, job.msas)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    automatic = "bf16" if device.type == "cuda" else "fp32"
    precision = automatic if job.precision == "auto" else job.precision
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    denoiser = ConformerDenoiser(build_diffusion_module(job.configs, state), dtype)
    denoiser = denoiser.to(device).eval()

    def inputs(protein: Protein) -> tuple[ProteinFeatures, TrunkEmbeddings]:
        made, embedded = trunk.inputs(protein)
        on_device = replace(made, features=to_device(made.features, device))
        return on_device, embedded.to(device)

    provenance = {"checkpoint_sha256": sha256_of_file(checkpoint), "precision": precision}
    if job.sampler != CHURNED:  # records from before there was a choice name none
        provenance["diffusion_sampler"] = job.sampler
    run = SamplingRun(denoiser, inputs, job.plan, provenance, out, sampler)
    made = _sample_all(job, run, trunk, out, report)
    if job.relax:
        _relax_all(job, made, out, report)
    if head:
        refined_by = RefinedBy(str(job.head), head, trunk, state, run.settings)
        _refine_all(job, made, refined_by, out, report)


def _head(job: Job) -> Head | None:
    """Build the head that refines the samples, if one is asked for."""
    if job.head is None:
        return None
    from protenix_eba.ebmfold import protenix_head  # noqa: F401  registers our own
    from protenix_eba.host import environment

    # EBM-Fold refines by the part of one sampler, whatever it folds with.
    configs = deepcopy(job.configs)
    configs.ebmfold.sampler = "hybrid"
    head: Head = environment.HEADS.get(job.head)(configs)
    return head


def _sample_all(
    job: Job, run: SamplingRun, trunk: Trunk, out: Path, report: Report
) -> dict[str, Ensemble]:
    """Sample each protein; return the ensembles by the name of the protein."""
    from protenix_eba.core.progress import progress_bar, tell

    made: dict[str, Ensemble] = {}
    prefix = f"{out.name}/" if job.several else ""
    n = job.plan.n_samples
    with progress_bar() as bar:
        task = bar.add_task("sampling", total=n * len(job.proteins), note="")
        for number, protein in enumerate(job.proteins):

            def show(there: int, before: int = n * number, name: str = protein.name) -> None:
                bar.update(task, completed=before + there, note=name)

            try:
                made[protein.name] = run.ensemble(protein, trunk.msa(protein), show)
            except UserError as error:
                report.failures[prefix + protein.name] = str(error)
            except Exception as error:
                # Whatever Protenix says of this one, the others are not to be lost.
                report.failures[prefix + protein.name] = f"{type(error).__name__}: {error}"
            bar.update(task, completed=n * (number + 1))
    for name, ensemble in made.items():
        if ensemble.is_short:
            report.problems.append(f"{out / name}: {ensemble.remark}")
        elif ensemble.remark:
            tell(f"{out / name}: {ensemble.remark}")
    tell(f"{n} samples of {len(made)} sequences in {out}")
    return made


def _relax_all(job: Job, made: dict[str, Ensemble], out: Path, report: Report) -> None:
    """Minimise all ensembles into a folder beside `out`."""
    from protenix_eba.core.progress import progress_bar, tell
    from protenix_eba.energy.protocol import PROTOCOLS
    from protenix_eba.sampling.relaxation import relax_ensemble

    relaxed = out.resolve().with_name(f"{out.resolve().name}_relaxed")
    done = 0
    with progress_bar() as bar:
        total = sum(ensemble.n_written for ensemble in made.values())
        task = bar.add_task("relaxing", total=total, note="")
        for name, ensemble in made.items():

            def show(there: int, before: int = done, name: str = name) -> None:
                bar.update(task, completed=before + there, note=name)

            try:
                failed = relax_ensemble(
                    ensemble.folder, relaxed / name, PROTOCOLS["default"], jobs=job.jobs, tell=show
                )
            except UserError as error:
                report.problems.append(f"{relaxed / name}: {error}")
            else:
                report.problems.extend(
                    f"{relaxed / name}: sample {number}: {why}" for number, why in failed.items()
                )
            done += ensemble.n_written
            bar.update(task, completed=done)
    tell(f"relaxed samples and energies in {relaxed}")


def _refine_all(
    job: Job, made: dict[str, Ensemble], refined_by: RefinedBy, out: Path, report: Report
) -> None:
    """Refine the C-alpha traces of all ensembles into a folder beside `out`."""
    from protenix_eba.core.progress import tell

    refined = out.resolve().with_name(f"{out.resolve().name}_{refined_by.name}")
    for protein in job.proteins:
        if protein.name not in made:
            continue
        folder = refined / protein.name
        try:
            failed = refine_ensemble(made[protein.name].folder, protein, refined_by, folder)
        except UserError as error:
            report.problems.append(f"{folder}: {error}")
        else:
            report.problems.extend(f"{folder}: {name}: {why}" for name, why in failed.items())
    tell(f"refined C-alpha traces in {refined}")
