"""The section `replay`: samples of the model that is trained, which it is then trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.ranges import Ranged
from protenix_eba.host.config import EBAConfig, section_from

__all__ = ["ENERGY_KINDS", "INVALID_KINDS", "ReplayConfig", "replay_config", "replay_folder"]

ENERGY_KINDS: Final = ("minimised", "strained", "short", "initial")
INVALID_KINDS: Final = ("last", "out", "kept")


@dataclass(frozen=True)
class ReplayConfig(Ranged):
    """The section `replay`, for the dataset `replay` and the trainer `on_policy`.

    Attributes:
        refresh_steps: Optimizer steps after which new samples are made of the averaged weights.
        new_samples: Number of new samples of each target that is sampled.
        targets_per_refresh: How many targets are sampled, those whose samples are oldest first; 0
            for all. Before the first step it is all.
        asynchronous: Whether samples are labelled by another process while training goes on. They
            are then trained on one refresh later than without, but for the first ones; training
            waits at a refresh for the labels of the one before, where they are not done yet.
        max_samples: Size of a target's buffer: the newest so many samples are trained on.
        max_age: Samples that are older than this many optimizer steps are not trained on, but the
            newest ones of each target are; 0 for no limit.
        md_share: Share of MD frames among the conformers of each target, from 0, none, to below 1.
            Where the MD has too few frames, fewer samples are taken: the share holds.
        md_dataset: Name of the registered dataset that the MD of `eba.data_dir` is read by.
        sequences: FASTA, CSV or JSON file of the targets, where `eba.data_dir` is empty: alignment
            without any MD.
        buffer: Folder of the samples; that of the run itself if empty.
        energy: What samples are ranked by. "minimised": energy after minimisation, as in the
            paper. "strained": with half of `strain_kj_mol_A2` times the squared distance that the
            minimisation moved each atom. "short": energy after 50 steps of minimisation, without
            MD only. "initial": energy as it is, which bonds and hydrogens decide.
        strain_kj_mol_A2: Stiffness of that term, for each heavy atom, kJ/mol/angstrom^2.
        invalid: What becomes of broken samples, and of those that have no energy. "last": they
            rank below all others of their target. "out": they are left out. "kept": their energy
            counts if they have one.
        protocol: Energy protocol of the samples, a preset of `protenix-eba label`; where MD has a
            share it is that of the MD's labels, whatever stands here.
        energy_function: Registered energy function in the place of a force field; one of a plugin
            needs `jobs` 1 and `asynchronous` false.
        force_field: Other force field than the preset's, as for `label`.
        solvent: Likewise.
        jobs: Processes for the energies.
        platform: OpenMM platform, or "auto".
        sampler: Registered diffusion sampler.
        preset: Its settings, as for `protenix-eba sample`.
        sampler_steps: Denoising steps.
        s_max: Largest noise level in units of sigma_data.
        s_min: Smallest one.
        valid_floor: The run stops when fewer of the fresh samples than this share are valid.
        rmsf_floor: The run stops when the C-alpha RMSF of the fresh samples, over that of the
            first ones of the same target, is on average below this: the ensemble collapses.
        clusters_floor: The run stops when the effective number of clusters among the fresh samples,
            over that of the first ones of the same target, is on average below this.
        coverage_floor: The run stops when the fresh samples visit clusters that hold less than this
            share of the MD, or of the first samples where there is no MD, on average.
        drift_limit: The run stops when what it was trained on since the last refresh has become so
            many nats likelier than it is for the start, on average; for objectives with a
            reference. 0 for no limit.

    Raises:
        UserError: A value is outside its range.
    """

    prefix: ClassVar[str] = "replay."

    refresh_steps: int = 100
    new_samples: int = 16
    targets_per_refresh: int = 0
    asynchronous: bool = False
    max_samples: int = 64
    max_age: int = 0
    md_share: float = 0.5
    md_dataset: str = "atlas"
    sequences: str = ""
    buffer: str = ""
    energy: str = "minimised"
    strain_kj_mol_A2: float = 10.0
    invalid: str = "last"
    protocol: str = "default"
    energy_function: str = ""
    force_field: str = ""
    solvent: str = ""
    jobs: int = 1
    platform: str = "auto"
    sampler: str = "churned"
    preset: str = "exact"
    sampler_steps: int = 20
    s_max: float = 160.0
    s_min: float = 4e-4
    valid_floor: float = 0.1
    rmsf_floor: float = 0.2
    clusters_floor: float = 0.2
    coverage_floor: float = 0.0
    drift_limit: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for key, lowest in (
            *(("refresh_steps", 1), ("new_samples", 1), ("max_samples", 1), ("jobs", 1)),
            *(("targets_per_refresh", 0), ("max_age", 0), ("sampler_steps", 1)),
        ):
            self._require(key, getattr(self, key) >= lowest, f"at least {lowest}")
        self._require("md_share", 0 <= self.md_share < 1, "a share from 0 to below 1")
        for key in ("valid_floor", "rmsf_floor", "clusters_floor", "coverage_floor"):
            self._require(key, 0 <= getattr(self, key) <= 1, "a share, 0 to 1")
        for key in ("strain_kj_mol_A2", "drift_limit"):
            self._require(key, 0 <= getattr(self, key) < math.inf, "0 or above")
        self._require("energy", self.energy in ENERGY_KINDS, f"one of {', '.join(ENERGY_KINDS)}")
        self._require(
            "invalid", self.invalid in INVALID_KINDS, f"one of {', '.join(INVALID_KINDS)}"
        )
        alike = self.energy != "short" or self.md_share == 0
        self._require("energy", alike, "minimised or strained, as MD is labelled, or md_share 0")
        if self.energy_function:  # which only the process has that loaded the plugin
            self._require("jobs", self.jobs == 1, "1 with an energy function of a plugin")
            here = not self.asynchronous
            self._require("asynchronous", here, "false with an energy function of a plugin")


def replay_config(config: EBAConfig) -> ReplayConfig:
    """Return the section `replay` of the configuration around `config`, checked against it.

    Args:
        config: The section `eba`.

    Raises:
        UserError: A value is outside its range, or there are neither MD nor sequences.
    """
    replay = section_from(config.configs["replay"], ReplayConfig)
    if bool(config.data_dir) == bool(replay.sequences):
        found = "both" if config.data_dir else "neither"
        raise UserError(
            f"eba.data_dir and replay.sequences: expected one of them, found {found}",
            "the targets are those of the MD in eba.data_dir, or else the sequences of a file",
        )
    if replay.md_share and not config.data_dir:
        raise UserError(
            f"replay.md_share: expected 0 without MD, found {replay.md_share}",
            "set it to 0, or give MD in eba.data_dir",
        )
    return replay


def replay_folder(config: EBAConfig) -> Path:
    """Return the folder of the samples: `replay.buffer`, or the run's own."""
    configs: Any = config.configs
    given = configs["replay"]["buffer"]
    return Path(given) if given else Path(configs["base_dir"]) / configs["run_name"] / "replay"
