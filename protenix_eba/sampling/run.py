"""Ensembles of many proteins: what exists is kept, what is missing is sampled and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from protenix_eba import __version__
from protenix_eba.core.errors import UserError
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.embeddings import TrunkEmbeddings
from protenix_eba.host.features import ProteinFeatures
from protenix_eba.protein.validity import Checker
from protenix_eba.sampling.chunk_size import samples_at_a_time
from protenix_eba.sampling.ensembles import EnsembleFolder, Samples, rounded, topology_of
from protenix_eba.sampling.samplers import (
    DiffusionSampler,
    TargetSampler,
    in_chunks,
    sample_coordinates,
)
from protenix_eba.sampling.settings import SamplerSettings
from protenix_eba.structures.sequences import Protein

__all__ = ["Ensemble", "Plan", "SamplingRun"]

Inputs = Callable[[Protein], tuple[ProteinFeatures, TrunkEmbeddings]]


@dataclass(frozen=True)
class Plan:
    """What to sample of each protein.

    Attributes:
        n_samples: N.
        settings: Settings of the sampler.
        seed: Sample n is made from (seed, n).
        chunk: Samples at a time; None for what fits into memory.
        valid_only: Invalid samples are left out, and others made in their place.
        max_attempts: Samples that are tried for N valid ones.
        split_cif: Each sample also as an mmCIF file.
    """

    n_samples: int
    settings: SamplerSettings
    seed: int = 0
    chunk: int | None = None
    valid_only: bool = False
    max_attempts: int = 0
    split_cif: bool = False

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise UserError(f"--samples: expected at least 1, found {self.n_samples}")
        if self.chunk is not None and self.chunk < 1:
            raise UserError(f"--batch: expected at least 1, found {self.chunk}")
        if self.seed < 0:
            raise UserError(f"--seed: expected 0 or above, found {self.seed}")
        if self.valid_only and self.max_attempts < self.n_samples:
            raise UserError("--max-attempts-factor: expected 1 or above")

    def missing(self, samples: Samples) -> list[int]:
        """Return the numbers of the samples to make next, in their order."""
        limit = self.max_attempts if self.valid_only else self.n_samples
        left = [number for number in range(limit) if number not in samples.tried]
        return left[: self.n_samples - len(samples.xyz)] if self.valid_only else left


@dataclass(frozen=True)
class Ensemble:
    """The ensemble of one protein, and how complete it is.

    Attributes:
        folder: Folder of the protein's files.
        n_samples: Number of samples that were asked for.
        n_written: Number of samples in the files.
        attempts: Samples that were made for them.
        invalid: Number of a sample to what is wrong with it.
    """

    folder: Path
    n_samples: int
    n_written: int
    attempts: int
    invalid: dict[int, str]

    @property
    def is_short(self) -> bool:
        """Whether samples are missing."""
        return self.n_written < self.n_samples

    @property
    def remark(self) -> str:
        """What a reader must know about the samples; empty when all is well."""
        if not self.invalid:
            return ""
        reasons = (part for reason in self.invalid.values() for part in reason.split("; "))
        counts = Counter(part.partition(":")[0] for part in reasons)
        kinds = ", ".join(f"{kind} in {count}" for kind, count in counts.most_common())
        text = f"{len(self.invalid)} of {self.attempts} samples invalid: {kinds}"
        if self.is_short:
            return f"only {self.n_written} of {self.n_samples} samples can be used; {text}"
        return text


def _recorded(settings: SamplerSettings) -> dict[str, Any]:
    """Return settings for the record, without the order of Euler's steps as in older records."""
    values = asdict(settings)
    return {key: value for key, value in values.items() if (key, value) != ("order", 1)}


class SamplingRun:
    """Makes ensembles with one model.

    Args:
        denoiser: Denoiser in evaluation mode.
        inputs: Features and embeddings of a protein; called only where samples are missing.
        plan: What is asked for.
        provenance: What else the samples depend on: checkpoint, precision.
        out: Folder of the ensembles.
        sampler: Makes the samples.

    Attributes:
        settings: What the samples of all proteins depend on, for their record.
    """

    def __init__(
        self,
        denoiser: ConformerDenoiser,
        inputs: Inputs,
        plan: Plan,
        provenance: dict[str, Any],
        out: Path,
        sampler: DiffusionSampler = sample_coordinates,
    ) -> None:
        self._sampler = sampler
        self._denoiser = denoiser
        self._device = next(denoiser.parameters()).device
        self._inputs = inputs
        self._plan = plan
        self._out = out
        self.settings = provenance | {
            "seed": plan.seed,
            "sampler": _recorded(plan.settings),
            "valid_only": plan.valid_only,
        }

    def ensemble(self, protein: Protein, msa: str, tell: Callable[[int], None]) -> Ensemble:
        """Make what is missing of a protein's ensemble.

        Args:
            protein: The protein to sample.
            msa: Fingerprint of the alignments of its embeddings.
            tell: Called with the number of samples that are there, after each chunk.

        Raises:
            UserError: There are samples made with other settings, or more than are asked for; or
                no sample can be used.
        """
        settings = self.settings | {"sequence": list(protein.chains), "msa": msa}
        folder = EnsembleFolder(self._out, protein, settings)
        self._refuse_more(folder)
        samples = folder.load()
        if not (folder.record and not folder.has_parts and not self._plan.missing(samples)):
            samples = self._complete(folder, protein, samples, tell)
        elif self._plan.split_cif and folder.unsplit(samples):
            folder.split(self._inputs(protein)[0], samples)
        n_written = len(samples.xyz)
        return Ensemble(
            folder.folder, self._plan.n_samples, n_written, len(samples.tried), samples.invalid
        )

    def _refuse_more(self, folder: EnsembleFolder) -> None:
        there = (folder.record or {}).get("n_samples", 0)
        if there > self._plan.n_samples:
            raise UserError(
                f"{folder.folder} holds {there} samples, {self._plan.n_samples} are asked for",
                f"ask for {there} or more, or choose another --out",
            )

    def _complete(
        self,
        folder: EnsembleFolder,
        protein: Protein,
        found: Samples,
        tell: Callable[[int], None],
    ) -> Samples:
        """Sample what is missing, chunk by chunk, and write the ensemble."""
        plan = self._plan
        features, embeddings = self._inputs(protein)
        checker = Checker.of(topology_of(features))
        samples = Samples(invalid=found.invalid)
        if found.xyz:
            self._check_and_enter(
                samples, checker, list(found.xyz), np.stack(list(found.xyz.values()))
            )
        tell(len(samples.xyz))
        if plan.missing(samples):
            for chunk, xyz in self._sampled(features, embeddings, samples):
                folder.keep(chunk, xyz)
                self._check_and_enter(samples, checker, list(chunk), xyz)
                tell(len(samples.xyz))
        if not samples.xyz:
            empty = Ensemble(folder.folder, plan.n_samples, 0, len(samples.tried), samples.invalid)
            raise UserError(empty.remark, "check the checkpoint and the settings of the sampler")
        folder.finish(features, samples, self._result(samples, checker))
        if plan.split_cif:
            folder.split(features, samples)
        return samples

    def _sampled(
        self, features: ProteinFeatures, embeddings: TrunkEmbeddings, samples: Samples
    ) -> Iterator[tuple[Sequence[int], NDArray[np.float32]]]:
        """Yield chunks of missing samples, as they will be written; `samples` grows meanwhile."""
        plan = self._plan
        sampler = TargetSampler(
            self._denoiser, features, embeddings, plan.settings, plan.seed, self._sampler
        )
        size = plan.chunk or samples_at_a_time(
            len(embeddings.s_trunk), len(features.atoms), self._device
        )
        while numbers := plan.missing(samples):
            for chunk, xyz in in_chunks(sampler, numbers, size):
                yield chunk, rounded(xyz)

    def _check_and_enter(
        self, samples: Samples, checker: Checker, numbers: list[int], xyz: NDArray[np.float32]
    ) -> None:
        """Check and enter new samples; those that no file can hold are left out in any case."""
        validity = checker.check(xyz)
        told = zip(numbers, xyz, validity.reasons(), validity.finite, strict=True)
        for number, one, reason, finite in told:
            if reason:
                samples.invalid[number] = reason
            if finite and not (reason and self._plan.valid_only):
                samples.xyz[number] = one

    def _result(self, samples: Samples, checker: Checker) -> dict[str, Any]:
        outliers = checker.check(np.stack(list(samples.xyz.values()))).bond_outliers
        return {
            "n_samples": self._plan.n_samples,
            "attempts": len(samples.tried),
            "bond_outliers": round(float(outliers.mean()), 4),
            "device": self._device.type,
            "versions": {"protenix-eba": __version__, "torch": torch.__version__},
        }
