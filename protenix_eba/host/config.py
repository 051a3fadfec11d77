"""Protenix's configuration, from defaults of plugins, a YAML file and the command line.

What comes later wins: Protenix's defaults, the model's, the plugins' sections, the file, the
command line. Values are checked against the type of the default; keys that nobody declared are an
error. The links between Protenix's keys (`c_z` of each module follows the top-level `c_z`) are
followed by Protenix's own code after everything has been set.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeVar

from protenix_eba.core.errors import UserError
from protenix_eba.core.ranges import Ranged
from protenix_eba.host.settings import (
    COMMAND_LINE,
    Setting,
    apply_setting,
    declarations,
    flatten,
    list_value,
    load_yaml,
    number_or_word,
    take_section,
)
from protenix_eba.plugin_api import Plugin, did_you_mean, merge_sections

if TYPE_CHECKING:
    from ml_collections.config_dict import ConfigDict

__all__ = [
    "DEFAULT_TRAINER",
    "EBAConfig",
    "check_ranges",
    "check_required",
    "eba_config",
    "resolve_config",
    "section_defaults",
    "section_from",
]

# The top-level key `trainer` names an entry of TRAINERS; unless it is set, Protenix's own trains.
DEFAULT_TRAINER: Final = "af3"

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class EBAConfig(Ranged):
    """The section `eba`.

    Attributes:
        objective: Name of a registered loss: "denoising", "eba", "eba_dpo" or "plackett_luce".
        dataloader: Name of a registered dataloader.
        dataset: Name of a registered dataset: how `data_dir` and `labels` are read. "atlas": MD in
            the layout of ATLAS, which `protenix-eba import` writes.
        data_dir: Folder with the trajectories, one folder per protein.
        labels: Energy labels, the Parquet file that `protenix-eba label` writes.
        energy_column: Which energy of `labels` counts, in a table of several that
            `protenix-eba label combine` writes: a name, or names with weights for a weighted sum,
            such as [charmm36=0.5, gfn2-xtb=0.5]; empty for the one that the table was given first.
        double_counting: Whether a sum is taken although a Boltzmann factor counts more than once in
            it: energies whose weights do not add up to 1, or energies of MD together with its bias.
        embeddings: Folder that `protenix-eba embed` writes.
        replicas: Which replicas of each target to train on; empty means all that are not held out.
        validation_targets: Names of targets that are held out, to validate on every
            `eval_interval` steps.
        validation_replicas: Which replicas of all targets are held out likewise.
        validation_items: How many groups of K held-out conformers are measured.
        validation_samples: Size of the ensemble that is sampled of each held-out target at each
            validation, for its RMSF and energies; 0 samples none.
        sampler: Name of a registered batch sampler: which K conformers an item has. "structures":
            one drawn uniformly of all, and K - 1 others of its target. "targets": likewise, with as
            many items of each target, however many frames it has. "energy": one from each of K
            equal parts of the target's order by energy. "diverse": one from each of K clusters by
            C-alpha RMSD.
        n_conformers: K, conformers that are compared with each other in one step.
        n_noise: S, noise samples, each at its own level, shared by the K conformers.
        stratified_noise: Whether the S levels of an item are drawn from S equal shares of their
            distribution, one from each, instead of independently: a steadier gradient.
        crop_size: Largest number of residues of an item; longer ones are cropped. 0 for no crop.
        crop_spatial: Share of crops that are spatial (AlphaFold 3, section 2.7); the others are
            contiguous.
        temperature_K: Temperature of the Boltzmann weights, kelvin.
        length_exponent: a of the energies' factor 1 / N_res**a; 0.5 in the paper, 0 for none.
        diffusion_temperature: T, the scale from denoising errors to the model's energies: a number
            above 0, 1 for the weights "likelihood"; or "auto", which takes it from the start's
            errors on the training conformers once, and keeps it.
        expectation: For all objectives that compare errors: "bound" averages over noise outside of
            the logarithm, as the paper's derivation; "official" averages the errors first, as the
            published code.
        eba_with_ref: Whether `eba` compares errors relative to the frozen start.
        linear_energy_weight: Whether `eba_dpo` multiplies a pair's margin by its difference in
            energy.
        sampling_temperature_K: For importance weights: the conformers are taken as drawn with
            exp(-E / (kT N^a)) at this temperature, with the length scaling of the objective; 0
            takes them as drawn uniformly, as the paper does.
        outlier_z: Conformers whose energy lies more than this many robust standard deviations
            from their target's median are left out of the objective; 0 keeps all.
        sft_weight: Weight of the mean denoising error added to the objectives that compare errors,
            which do not hold their size; 0, as in the paper, adds none. The model's own samples
            have no part in it.
        error_weights: Weights of the denoising error's terms: "paper"; "upstream"; "likelihood",
            with which the mean error is -log p up to a constant, so that T is 1 (take `expectation`
            "official"); or "custom" for the six that follow.
        weight_mse: Weight of the aligned squared error, which the EDM weight multiplies.
        weight_lddt: Weight of the smooth LDDT.
        weight_bond: Weight of the squared error of bonds and angles at noise below 0.5 angstrom,
            which the EDM weight multiplies; what a small model learns last.
        weight_volume: Weight of the squared error of the signed volumes that four bonded atoms
            span, at noise below 3 angstrom, in units of a carbon's: what teaches a small model the
            hand of amino acids, and torsions. It bends the posterior mean, so let it fade.
        volume_steps: Optimizer steps in which that weight falls to 0, linearly; 0 keeps it.
        weight_sigma_data: sigma_d of the EDM weight, angstrom, about the size of the molecule, so
            that noise that moves it as a whole does not drown the rest; 0 for the network's 16.
        aligned: Whether the squared error is that of the best superposition of the true structure
            on the denoised one, as in AlphaFold 3. false compares them where the noise was added:
            its minimum is the posterior mean, which samplers need to give the learnt populations.
        symmetric_atoms: Whether atoms whose names are a convention (OD1 and OD2 of ASP, and so on)
            are compared in the better order of each structure, as the paper does.
        low_memory: Whether each item is passed twice, first without gradients, then one conformer
            and `diffusion_chunk_size` noise samples at a time: the same gradient in the memory of
            these, for a third more time.
        trainable: Glob patterns of parameter names; all other parameters are frozen. Of the trunk
            only `input_embedder.*` can be named.
        lora_rank: Rank of the low-rank updates that are trained in the place of the matrices named
            by `trainable` (LoRA, Hu et al., 2022); 0 trains the matrices themselves.
        lora_alpha: Scale of the updates, which are multiplied by alpha / rank.
        checkpoint_keep: How many of the newest checkpoints stay on disk.
        configs: No key, but the whole resolved configuration: a plugin's components find the
            plugin's own sections in it.

    Raises:
        UserError: A value is outside its range.
    """

    prefix: ClassVar[str] = "eba."

    objective: str = "eba"
    dataloader: str = "eba"
    dataset: str = "atlas"
    data_dir: str = ""
    labels: str = ""
    energy_column: tuple[str, ...] = ()
    double_counting: bool = False
    embeddings: str = ""
    replicas: tuple[int, ...] = ()
    validation_targets: tuple[str, ...] = ()
    validation_replicas: tuple[int, ...] = ()
    validation_items: int = 32
    validation_samples: int = 0
    sampler: str = "structures"
    n_conformers: int = 3
    n_noise: int = 8
    stratified_noise: bool = False
    crop_size: int = 0
    crop_spatial: float = 0.5
    temperature_K: float = 300.0
    length_exponent: float = 0.5
    diffusion_temperature: float | Literal["auto"] = 5000.0
    expectation: str = "bound"
    eba_with_ref: bool = False
    linear_energy_weight: bool = False
    sampling_temperature_K: float = 0.0
    outlier_z: float = 0.0
    sft_weight: float = 0.0
    error_weights: str = "custom"
    weight_mse: float = 1.0
    weight_lddt: float = 1.0
    weight_bond: float = 0.0
    weight_volume: float = 0.0
    volume_steps: int = 0
    weight_sigma_data: float = 0.0
    aligned: bool = True
    symmetric_atoms: bool = True
    low_memory: bool = False
    trainable: tuple[str, ...] = ("diffusion_module.*",)
    lora_rank: int = 0
    lora_alpha: float = 16.0
    checkpoint_keep: int = 2
    configs: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the ranges."""
        for key in ("n_conformers", "n_noise", "checkpoint_keep", "validation_items"):
            self._require(key, getattr(self, key) >= 1, "at least 1")
        for key in ("validation_samples", "crop_size", "lora_rank", "volume_steps"):
            self._require(key, getattr(self, key) >= 0, "at least 0")
        for key in ("temperature_K", "lora_alpha"):
            self._require(key, getattr(self, key) > 0, "a number above 0")
        temperature = self.diffusion_temperature
        fits = temperature == "auto" if isinstance(temperature, str) else 0 < temperature < math.inf
        self._require("diffusion_temperature", fits, "a number above 0, or auto")
        for key in (
            *("length_exponent", "sft_weight", "weight_mse", "weight_lddt", "weight_bond"),
            *("weight_volume", "weight_sigma_data"),
            *("sampling_temperature_K", "outlier_z", "crop_spatial"),
        ):
            self._require(key, getattr(self, key) >= 0, "0 or above")
        self._require("crop_spatial", self.crop_spatial <= 1, "a share, 0 to 1")
        for key, words in (
            ("expectation", ("bound", "official")),
            ("error_weights", ("custom", "paper", "upstream", "likelihood")),
        ):
            self._require(key, getattr(self, key) in words, f"one of {', '.join(words)}")
        self._require("weight_mse", self.weight_mse + self.weight_lddt > 0, "one weight above 0")
        self._require("trainable", bool(self.trainable), "at least one pattern")
        shared = set(self.replicas) & set(self.validation_replicas)
        self._require("validation_replicas", not shared, "replicas that are not trained on")

    def path(self, key: str) -> Path:
        """Return the path that a key holds.

        Raises:
            UserError: The key is not set.
        """
        if not getattr(self, key):
            raise UserError(f"eba.{key} is not set", f"add it to the configuration or --eba.{key}")
        return Path(getattr(self, key))


def section_defaults(section: type[Any]) -> dict[str, Any]:
    """Return the fields of a dataclass as a section of configuration in Protenix's notation.

    Args:
        section: A dataclass whose fields have defaults and are bool, int, float, str, a tuple of
            one of these (`tuple[int, ...]`), or a number or a word (`float | Literal["auto"]`). A
            field with a `default_factory` is no key.
    """
    hints = typing.get_type_hints(section)
    keys = [f for f in dataclasses.fields(section) if f.default is not dataclasses.MISSING]
    return {f.name: _default(f.default, hints[f.name]) for f in keys}


def _default(value: Any, hint: Any) -> Any:
    inside = typing.get_args(hint)
    if isinstance(value, tuple):
        return list_value(list(value), inside[0])
    words = [word for part in inside for word in typing.get_args(part)]
    return number_or_word(value, words) if words else value


def section_from(values: Mapping[str, Any], section: type[C]) -> C:
    """Build a section's dataclass from the resolved configuration; its own checks then run.

    Args:
        values: Values of a section, for example `configs.eba`.
        section: The dataclass that `section_defaults` made the section from.

    Raises:
        UserError: The dataclass refuses a value.
    """
    return section(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def eba_config(configs: Any) -> EBAConfig:
    """Return the section `eba`, for components, which find the sections of all plugins in it.

    Args:
        configs: Resolved configuration.

    Raises:
        UserError: A value is outside its range.
    """
    return dataclasses.replace(section_from(configs.eba, EBAConfig), configs=configs)


def resolve_config(
    plugins: Iterable[Plugin] = (),
    yaml_path: Path | str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> ConfigDict:
    """Resolve Protenix's configuration.

    For the same overrides it equals what Protenix's own command resolves, plus the key `trainer`
    and the plugins' sections. Nothing of Protenix's module-level defaults is changed. The
    environment has to be prepared before (`environment.prepare_environment`,
    `environment.protenix_root`).

    Args:
        plugins: Loaded plugins.
        yaml_path: A file of nested keys, or None.
        overrides: Dotted keys and their values as words of the command line.

    Raises:
        UserError: A key is unknown, a value has the wrong type, the file cannot be read, the
            model is unknown, or two plugins claim a section.

    Examples:
        >>> from protenix_eba.host.environment import ensure_ccd_cache, prepare_environment
        >>> from protenix_eba.plugin_api import load_plugins
        >>> prepare_environment()
        >>> _ = ensure_ccd_cache()
        >>> plugins = load_plugins(["protenix_eba"])
        >>> resolve_config(plugins, overrides={"eba.n_conformers": "4"}).eba.n_conformers
        4
    """
    from protenix.config.config import ConfigManager

    settings = {} if yaml_path is None else flatten(load_yaml(yaml_path), str(yaml_path))
    settings |= {key: Setting(word, COMMAND_LINE) for key, word in (overrides or {}).items()}

    defaults = _host_defaults()
    sections = merge_sections(plugins, defaults)
    # A section without declared keys passes what it holds to a library that checks it itself.
    passed: dict[str, Any] = {}
    for name in [name for name, section in sections.items() if not section]:
        settings, passed[name] = take_section(name, settings)
    defaults |= copy.deepcopy({name: sections[name] for name in sections.keys() - passed.keys()})
    general = declarations(defaults, defaults)
    _update(defaults, _model_defaults(settings, defaults["model_name"]))
    # A model that sets gamma0 to 0 does not make it an integer: the general default's type counts.
    declared = declarations(defaults, defaults) | general
    for key, setting in settings.items():
        apply_setting(key, setting, declared, defaults)
    resolved = ConfigManager(defaults, fill_required_with_null=True).merge_configs({})
    with resolved.unlocked():
        resolved.update(passed)
    return resolved


def check_required(configs: ConfigDict) -> None:
    """Check that the keys without a default were set.

    Raises:
        UserError: Some were not; the message lists them.
    """
    from protenix.config.extend_types import RequiredValue

    missing = [
        key
        for key, default in _host_defaults().items()
        if isinstance(default, RequiredValue) and configs[key] is None
    ]
    if "project" in missing and not configs.use_wandb:
        missing.remove("project")  # only Weights & Biases reads it
    if missing:
        raise UserError(
            f"these keys need a value: {', '.join(missing)}",
            "set them in the configuration file or as --key value",
        )


def check_ranges(configs: ConfigDict) -> None:
    """Check values of Protenix's own keys, which it does not check; unset ones are left out.

    Raises:
        UserError: A value is outside its range.
    """
    schedulers = ("af3", "cosine_annealing", "constant")
    for key, holds, expected in (
        ("max_steps", lambda n: n >= 0, "0 or above"),
        ("iters_to_accumulate", lambda n: n >= 1, "at least 1"),
        ("seed", lambda n: n >= 0, "0 or above"),
        ("lr", lambda rate: 0 < rate < math.inf, "a number above 0"),
        ("lr_scheduler", lambda name: name in schedulers, f"one of {', '.join(schedulers)}"),
        ("diffusion_chunk_size", lambda n: n >= 0, "at least 1, or null"),
    ):
        if configs[key] is not None and not holds(configs[key]):
            raise UserError(f"{key}: expected {expected}, found {configs[key]!r}")


def _host_defaults() -> dict[str, Any]:
    """Return a copy of Protenix's training defaults, with the kernels that its `main` takes."""
    from configs.configs_base import configs as base
    from configs.configs_data import data_configs

    defaults = copy.deepcopy({**base, "data": data_configs})
    for key in ("triangle_attention", "triangle_multiplicative"):
        defaults[key] = os.environ.get(key.upper(), "cuequivariance")
    return {**defaults, "trainer": DEFAULT_TRAINER}


def _model_defaults(settings: Mapping[str, Setting], default_name: str) -> dict[str, Any]:
    from configs.configs_model_type import model_configs

    chosen = settings.get("model_name", Setting(default_name, "Protenix's default"))
    name = str(chosen.value)
    if name not in model_configs:
        raise UserError(
            f"{chosen.origin}: model_name: Protenix has no model {name!r}; "
            f"it has {', '.join(sorted(model_configs))}",
            did_you_mean(name, model_configs),
        )
    return copy.deepcopy(dict(model_configs[name]))


def _update(tree: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _update(tree[key], value)
        else:
            tree[key] = value
