"""Ensembles on disk against their MD reference: every target, every metric, every failure."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from protenix_eba.errors import UserError
from protenix_eba.eval.compare import Reference, compare_with, pool, profile_of
from protenix_eba.eval.energies import (
    ROOM_TEMPERATURE_K,
    TargetEnergies,
    boltzmann_weights,
    energy_floor,
    energy_metrics,
)
from protenix_eba.eval.ensemble import load_ensemble, scan_targets
from protenix_eba.eval.metrics import ALPHAFLOW_SEED, principal_components, rmsf
from protenix_eba.eval.results import EnsembleResult, Evaluation, Profile, TargetResult
from protenix_eba.progress import track
from protenix_eba.trajectories import Target

__all__ = ["evaluate"]

ALPHAFLOW_N_SAMPLES = 250
_VERSIONED = ("protenix-eba", "mdtraj", "numpy", "scipy")
# What bad data can cause. A defect of ours (KeyError, TypeError) shall stop the run.
_DATA_ERRORS = (UserError, ValueError, ArithmeticError, MemoryError, OSError)

Energies = Mapping[str, TargetEnergies]


class _Run:
    """One evaluation while it goes on: what was given, and what was found so far."""

    def __init__(
        self,
        labels: list[str],
        md_energies: Energies,
        sample_energies: Mapping[str, Energies],
        temperature_K: float,
        seed: int,
    ) -> None:
        self.results = {label: EnsembleResult({}, {}) for label in labels}
        self.profiles: dict[str, Profile] = {}
        self._md_energies = md_energies
        self._sample_energies = sample_energies
        self._temperature_K = temperature_K
        self._seed = seed

    def add_target(self, reference: Target, samples: Mapping[str, Target]) -> None:
        """Evaluate all ensembles of one target; a failure is recorded and the rest goes on."""
        try:
            md = Reference(load_ensemble(reference), self._seed)
        except _DATA_ERRORS as error:
            for label in samples:
                self.results[label].failed[reference.name] = f"MD reference: {_reason(error)}"
            return
        for label, target in samples.items():
            try:
                self._add(label, target, md)
            except _DATA_ERRORS as error:
                self.results[label].failed[target.name] = _reason(error)

    def _add(self, label: str, target: Target, md: Reference) -> None:
        result, match, aligned = compare_with(md, load_ensemble(target), self._seed)
        profile = self.profiles.get(target.name) or profile_of(md, match, self._seed)
        self._add_energies(label, target.name, result, profile)
        profile.sample_rmsf[label] = (match.residue_numbers, rmsf(aligned.ca))
        axes = principal_components(pool(md.replicas(match)).ca)
        profile.sample_pca[label] = axes.project(aligned.ca)
        self.profiles[target.name] = profile
        self.results[label].targets[target.name] = result

    def _add_energies(self, label: str, name: str, result: TargetResult, profile: Profile) -> None:
        md = self._md_energies.get(name)
        if md is None:
            return
        profile.md_energy = md.all
        profile.md_weights = boltzmann_weights(md.all, md.n_residues, self._temperature_K)
        samples = self._sample_energies.get(label, {}).get(name)
        if samples is None:
            return
        values = energy_metrics(samples.all, md.all, md.n_residues, self._temperature_K)
        floor = energy_floor(md, len(samples.all), self._temperature_K, self._seed)
        result.values.update(values, n_energies=len(samples.all))
        result.floor.update(floor)
        profile.sample_energy[label] = samples.all


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def evaluate(
    reference_dir: Path | str,
    ensembles: Mapping[str, Path | str],
    out_dir: Path | str,
    *,
    md_energies: Energies | None = None,
    sample_energies: Mapping[str, Energies] | None = None,
    temperature_K: float = ROOM_TEMPERATURE_K,
    seed: int = ALPHAFLOW_SEED,
) -> Evaluation:
    """Compare generated ensembles with MD and write `metrics.json` and `metrics.csv`.

    Args:
        reference_dir: MD in ATLAS's layout.
        ensembles: Label to a folder of `NAME/NAME.pdb` and `NAME/NAME.xtc`.
        out_dir: Where the files go.
        md_energies: Target to the minimised energies of its MD frames.
        sample_energies: Label to target to the minimised energies of the samples.
        temperature_K: Temperature of the Boltzmann weights.
        seed: Of the draws from MD; 137 is AlphaFlow's.

    Raises:
        UserError: A folder without targets, or not one target that could be evaluated.
    """
    reference, reference_failed = scan_targets(reference_dir)
    found = {label: scan_targets(folder) for label, folder in ensembles.items()}
    run = _Run(list(ensembles), md_energies or {}, sample_energies or {}, temperature_K, seed)
    names = sorted({name for targets, failed in found.values() for name in (*targets, *failed)})
    for name in track(names, "evaluating", len(names)):
        usable: dict[str, Target] = {}
        for label, (targets, failed) in found.items():
            reason = _unusable(name, reference, reference_failed, targets, failed)
            if reason:
                run.results[label].failed[name] = reason
            else:
                usable[label] = targets[name]
        if usable:
            run.add_target(reference[name], usable)
    if not any(result.targets for result in run.results.values()):
        reasons = {why for result in run.results.values() for why in result.failed.values()}
        raise UserError("no target could be evaluated:\n" + "\n".join(sorted(reasons)[:4]))
    evaluation = Evaluation(
        ensembles=run.results,
        profiles=run.profiles,
        not_evaluated=sorted((reference.keys() | reference_failed.keys()) - set(names)),
        notes=_notes(run.results, len(names)),
        settings={
            "reference": str(reference_dir),
            "samples": {label: str(folder) for label, folder in ensembles.items()},
            "temperature_K": temperature_K,
            "seed": seed,
        },
        versions=_versions(),
    )
    evaluation.write(Path(out_dir))
    return evaluation


def _unusable(
    name: str,
    reference: Mapping[str, Target],
    reference_failed: Mapping[str, str],
    targets: Mapping[str, Target],
    failed: Mapping[str, str],
) -> str:
    """Why a target cannot even be opened; empty if it can."""
    if name not in targets:
        return failed.get(name, "no samples of this target")
    if name not in reference:
        why = reference_failed.get(name, "no such target")
        return f"MD reference: {why}"
    return ""


def _notes(results: Mapping[str, EnsembleResult], n_targets: int) -> list[str]:
    notes = []
    for label, result in results.items():
        sizes = sorted({int(t.values["n_samples"]) for t in result.targets.values()})
        if sizes and sizes != [ALPHAFLOW_N_SAMPLES]:
            shown = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
            notes.append(
                f"{label}: {shown} conformations for each target. Published tables use "
                f"{ALPHAFLOW_N_SAMPLES}, and most metrics depend on this number."
            )
        if result.failed:
            notes.append(
                f"{label}: {len(result.failed)} of {n_targets} targets failed and are in no "
                "median of metrics.json; the report compares common targets."
            )
        without = sum(not t.floor_panels for t in result.targets.values())
        if without:
            notes.append(f"{label}: {without} targets have one MD replica and thus no MD floor.")
    return notes


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
