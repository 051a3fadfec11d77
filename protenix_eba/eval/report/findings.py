"""Findings in sentences, on ensembles and on the training runs behind them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import yaml

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file

__all__ = ["Findable", "findings", "read_curve", "training_settings"]

_STRUCTURE: Final = {"rmwd": "RMWD", "md_pca_w2": "MD PCA W2"}
_SHOWN: Final = ("model_name", "max_steps", "lr", "seed", "load_checkpoint_path", "eba")


class Findable(Protocol):
    """What findings are made of, such as `results.Summary`."""

    @property
    def values(self) -> Mapping[str, float]:
        """Aggregates of the samples."""

    @property
    def floor(self) -> Mapping[str, float]:
        """Aggregates of MD against MD."""


def read_curve(path: Path) -> dict[str, list[float]]:
    """Read a run's log.csv, validation.csv or replay.csv, by column.

    Raises:
        UserError: No such file, or not a table of numbers with the column `step`.
    """
    try:
        with open(require_file(path, "training curve"), newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            rows = list(reader)
            names = reader.fieldnames or ()
        if "step" not in names:
            raise ValueError("there is no column `step`")
        for number, row in enumerate(rows, start=2):
            if None in row or None in row.values():
                raise ValueError(f"line {number} is cut, or has more columns than the first")
        return {name: [float(row[name]) for row in rows] for name in names}
    except ValueError as error:
        raise UserError(
            f"{path}: expected numbers: {error}",
            "is it the log of a run? A last line that is cut can be deleted",
        ) from error


def training_settings(runs: Mapping[str, Path]) -> dict[str, Any]:
    """Return the part of each run's configuration that decides its result."""
    settings = {}
    for label, folder in runs.items():
        path = require_file(folder / "config.yaml", f"configuration of {label}")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings[f"training {label}"] = {key: values[key] for key in _SHOWN if key in values}
    return settings


def findings(models: Mapping[str, Findable], runs: Mapping[str, Path]) -> list[str]:
    """Return sentences on energies, alignment and structure.

    Args:
        models: Label to aggregates, of the samples and of the floor, over the same targets.
        runs: Label to run folder; the label is that of the ensemble it made.
    """
    sentences = _energies(models)
    for label, folder in runs.items():
        section = training_settings({label: folder})[f"training {label}"].get("eba", {})
        # Supervised fine-tuning has no diffusion temperature: its divergence says nothing.
        aligned = section.get("objective") != "denoising"
        if aligned and (folder / "validation.csv").is_file():
            sentences += _alignment(label, read_curve(folder / "validation.csv"))
    return sentences + _structure(models)


def _energies(models: Mapping[str, Findable]) -> list[str]:
    values = {
        label: model.values
        for label, model in models.items()
        if "energy_median_above_md_kj_mol" in model.values
    }
    if not values:
        return []
    parts = [
        f"{label} {v['energy_median_above_md_kj_mol']:+.1f} kJ/mol (W1 to the Boltzmann-weighted "
        f"MD {v['energy_w1_boltzmann_kj_mol']:.1f})"
        for label, v in values.items()
    ]
    target = next(iter(values.values()))["energy_target_above_md_kj_mol"]
    sentence = (
        "Minimised energies of the samples against the MD's (median over targets): "
        + ", ".join(parts)
        + f"; the Boltzmann-weighted MD lies at {target:+.1f}."
    )
    first, *_, last = values if len(values) > 1 else (next(iter(values)),) * 2
    if first == last:
        return [sentence]
    key = "energy_w1_boltzmann_kj_mol"
    gain = values[first][key] - values[last][key]
    verdict = "nearer to" if gain > 0 else "no nearer to"
    return [
        sentence,
        f"By W1 the energies of {last} are {verdict} the Boltzmann-weighted ensemble than those "
        f"of {first} ({values[first][key]:.1f} to {values[last][key]:.1f} kJ/mol).",
    ]


def _alignment(label: str, curve: Mapping[str, list[float]]) -> list[str]:
    kl, mse = curve.get("kl", []), curve.get("mse", [])
    if len(kl) < 2 or kl[0] == kl[-1]:
        return []
    return [
        f"{label} on held-out conformers, from its start to its end: the divergence between the "
        f"energies' weights and the model's went from {kl[0]:.3f} to {kl[-1]:.3f} nats, the "
        f"effective number of conformers in the model's weights from "
        f"{curve['effective_model'][0]:.2f} to {curve['effective_model'][-1]:.2f} (energies: "
        f"{curve['effective_energy'][-1]:.2f}), the denoising error from {mse[0]:.2f} to "
        f"{mse[-1]:.2f} square angstrom."
    ]


def _structure(models: Mapping[str, Findable]) -> list[str]:
    sentences = []
    for key, name in _STRUCTURE.items():
        parts = []
        for label, model in models.items():
            value, floor = model.values.get(key), model.floor.get(key)
            if value is not None and floor is not None:
                parts.append(f"{label} {value:.2f} (MD against itself {floor:.2f})")
        if parts:
            sentences.append(f"{name} in angstrom, lower is better: {', '.join(parts)}.")
    return sentences
