import copy
import dataclasses
import os
from pathlib import Path

import pytest
import torch
import yaml

from protenix_eba.core.errors import UserError
from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.ebmfold.config import EBMFoldConfig
from protenix_eba.host.config import (
    EBAConfig,
    check_ranges,
    check_required,
    eba_config,
    resolve_config,
    section_defaults,
    section_from,
)
from protenix_eba.host.environment import CPU_KERNELS, Plugin
from protenix_eba.plugin import plugin
from protenix_eba.training.energy_losses import effective_number
from protenix_eba.training.objectives import ObjectiveInput, alignment_metrics

RECIPES = Path(__file__).parents[2] / "configs"
PLUGIN = Plugin("protenix_eba", {"eba": section_defaults(EBAConfig)})
MODELS = [
    "protenix-v2",
    "protenix_base_default_v1.0.0",
    "protenix_base_20250630_v1.0.0",
    "protenix_base_default_v0.5.0",
    "protenix_base_constraint_v0.5.0",
    "protenix_mini_default_v0.5.0",
    "protenix_tiny_default_v0.5.0",
    "protenix_mini_esm_v0.5.0",
    "protenix_mini_ism_v0.5.0",
]
# Words without blanks, since Protenix's own command loses those.
OVERRIDES = {
    "run_name": "a",
    "max_steps": "7",
    "c_z": "64",  # linked from many modules
    "warmup_steps": "3",
    "adam.lr": "1e-4",  # breaks a link
    "model.pairformer.c_z": "32",
    "blocks_per_ckpt": "null",
    "diffusion_chunk_size": "8",
    "use_wandb": "false",
    "finetune_params_with_substring": "x,y",
    "data.train_sets": "s1,s2",
    "infer_setting.chunk_size_thresholds.1024": "-1",
    "sample_diffusion.gamma0": "0.5",
}


@pytest.fixture(autouse=True)
def cpu_kernels(monkeypatch):
    for variable, value in CPU_KERNELS.items():
        monkeypatch.setenv(variable, value)


def host_configs(overrides):
    """What `runner.train.main` resolves, step by step, without its change of module globals."""
    from configs.configs_base import configs as base
    from configs.configs_data import data_configs
    from configs.configs_model_type import model_configs
    from protenix.config.config import parse_configs

    def deep_update(tree, changes):
        for key, value in changes.items():
            if isinstance(value, dict) and isinstance(tree.get(key), dict):
                deep_update(tree[key], value)
            else:
                tree[key] = value

    base = copy.deepcopy({**base, "data": data_configs})
    for key in ("triangle_attention", "triangle_multiplicative"):
        base[key] = os.environ[key.upper()]
    words = " ".join(f"--{key} {value}" for key, value in overrides.items())
    first = parse_configs(base, arg_str=words, fill_required_with_null=True)
    deep_update(base, model_configs[first.model_name])
    return parse_configs(base, arg_str=words, fill_required_with_null=True).to_dict()


@pytest.fixture
def write(tmp_path):
    def write_yaml(text):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write_yaml


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("overrides", [{}, OVERRIDES], ids=["defaults", "overrides"])
def test_equals_what_protenix_resolves(model_name, overrides):
    overrides = {"model_name": model_name, **overrides}
    if "mini" in model_name or "tiny" in model_name:
        # There the model's 0 makes Protenix read gamma0 as an integer.
        overrides.pop("sample_diffusion.gamma0", None)
    # A patched host has the key `trainer` itself.
    expected = {"trainer": "af3", **host_configs(overrides)}
    assert resolve_config(overrides=overrides).to_dict() == expected


def test_protenix_has_no_model_that_we_do_not_compare():
    from configs.configs_model_type import model_configs

    assert sorted(model_configs) == sorted(MODELS)


def test_module_level_defaults_stay_as_they_are():
    from configs.configs_base import configs as base

    keys = set(base)
    before = copy.deepcopy({k: v for k, v in base.items() if isinstance(v, int | float | str)})
    resolve_config([PLUGIN], overrides={**OVERRIDES, "model_name": "protenix-v2"})
    assert {k: v for k, v in base.items() if isinstance(v, int | float | str)} == before
    assert set(base) == keys


def test_links_follow_and_own_values_win(write):
    path = write("c_z: 64\nmodel: {pairformer: {c_z: 32}}\n")
    configs = resolve_config(yaml_path=path)
    assert configs.model.msa_module.c_z == 64
    assert configs.model.pairformer.c_z == 32


def test_later_sources_win(write):
    path = write(
        "max_steps: 5\nlr: 1\neba: {n_noise: 4, replicas: [], trainable: ['a b', 'c,d']}\n"
    )
    configs = resolve_config([PLUGIN], path, {"eba.n_noise": "2", "run_name": " two words "})
    assert configs.eba.n_noise == 2
    assert configs.eba.n_conformers == 3
    assert configs.eba.trainable == ["a b", "c,d"]
    assert configs.eba.replicas == []
    assert configs.run_name == " two words "
    assert configs.max_steps == 5
    assert configs.lr == 1.0 and isinstance(configs.lr, float)


def test_a_model_does_not_turn_a_float_into_an_integer(write):
    path = write("model_name: protenix_tiny_default_v0.5.0\nsample_diffusion: {gamma0: 0.8}\n")
    assert resolve_config(yaml_path=path).sample_diffusion.gamma0 == 0.8


def test_numbers_in_exponent_notation_null_and_empty_values(write):
    path = write("lr: 1e-4\nblocks_per_ckpt: null\nwandb_id: ''\nfinetune: {}\nesm:\n")
    configs = resolve_config(yaml_path=path, overrides={"data.train_sets": ""})
    assert configs.lr == 1e-4
    assert configs.blocks_per_ckpt is None and configs.model.pairformer.blocks_per_ckpt is None
    assert configs.wandb_id == ""
    assert configs.data.train_sets == []


@pytest.mark.parametrize("model_name", MODELS)
def test_the_printed_configuration_reads_back(model_name, write):
    configs = resolve_config([PLUGIN], overrides={"model_name": model_name})
    again = resolve_config([PLUGIN], write(yaml.safe_dump(configs.to_dict())))
    assert again.to_dict() == configs.to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense_key: 1", r"run.yaml: unknown key 'nonsense_key'"),
        ("eba: {n_noize: 1}", r"unknown key 'eba.n_noize'\n.*did you mean eba.n_noise"),
        ("n_noise: 1", r"unknown key 'n_noise'\n.*did you mean eba.n_noise"),
        ("nonsense: {}", r"unknown key 'nonsense'"),
        ("lr: {a: 1}", r"unknown key 'lr.a'"),
        ("eba: 3", r"eba is a section, found 3"),
        ("lr: fast", r"lr: expected float, found 'fast' \(str\)"),
        ("lr: true", r"lr: expected float, found True \(bool\)"),
        ("use_wandb: 1", r"use_wandb: expected bool, found 1 \(int\)"),
        ("use_wandb: 'no'", r"use_wandb: expected bool, found 'no' \(str\)"),
        ("max_steps: 1.5", r"max_steps: expected int or null, found 1.5"),
        ("max_steps: true", r"max_steps: expected int or null, found True"),
        ("lr: null", r"lr: expected float, found None"),
        (
            "eba: {diffusion_temperature: automatic}",
            r"eba.diffusion_temperature: expected float or auto, found 'automatic' \(str\)",
        ),
        ("eba: {diffusion_temperature: null}", r"expected float or auto, found None"),
        ("run_name: 12", r"run_name: expected str or null, found 12 \(int\)"),
        ("eba: {replicas: 1}", r"eba.replicas: expected list of int, found 1"),
        ("eba: {replicas: [1, x]}", r"eba.replicas: expected list of int"),
        ("lr: 1\nlr: 2", r"'lr' is given twice"),
        ("eba: {n_noise: 1}\neba.n_noise: 2", r"eba.n_noise: given twice"),
        ("- lr", r"expected keys with values \(`key: value`\), found a list"),
        ("", r"found nothing"),
        ("lr: [", r"is no valid configuration"),
        ("true: 1", r"a key must be a word"),
        ("model_name: protenix_tiny", r"has no model 'protenix_tiny'; it has protenix-v2"),
    ],
)
def test_a_wrong_file_says_where_and_what(text, message, write):
    with pytest.raises(UserError, match=message):
        resolve_config([PLUGIN], write(text))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lr": "fast"}, r"command line: lr: expected float, found 'fast'"),
        ({"use_wandb": "maybe"}, r"use_wandb: expected bool"),
        ({"max_steps": ""}, r"max_steps: expected int or null, found ''"),
        ({"eba.replicas": "1,,2"}, r"eba.replicas: expected list of int"),
        ({"eba.diffusion_temperature": "none"}, r"expected float or auto, found 'none'"),
        ({"data": "x"}, r"data is a section"),
        ({"model_name": "nope"}, r"command line: model_name: Protenix has no model 'nope'"),
    ],
)
def test_a_wrong_word_on_the_command_line(overrides, message):
    with pytest.raises(UserError, match=message):
        resolve_config([PLUGIN], overrides=overrides)


@pytest.mark.parametrize(
    ("word", "value"), [("auto", "auto"), ("40", 40.0), ("1e3", 1000.0), ("", 5000.0)]
)
def test_t_is_a_number_or_the_word_auto_in_a_file_and_on_the_command_line(word, value, write):
    path = write(f"eba: {{diffusion_temperature: {word}}}" if word else "eba: {}")
    by_word = resolve_config([PLUGIN], None, {"eba.diffusion_temperature": word} if word else {})
    for configs in (resolve_config([PLUGIN], path), by_word):
        again = resolve_config([PLUGIN], write(yaml.safe_dump(configs.to_dict())))
        assert again.eba.diffusion_temperature == configs.eba.diffusion_temperature == value
        assert section_from(configs.eba, EBAConfig).diffusion_temperature == value


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"configuration: expected a file at .*absent.yaml"):
        resolve_config(yaml_path=tmp_path / "absent.yaml")


def test_required_keys_are_listed():
    overrides = {"run_name": "a", "use_wandb": "false", "eval_interval": "-1"}
    with pytest.raises(UserError, match="need a value: base_dir, log_interval, max_steps"):
        check_required(resolve_config(overrides=overrides))
    overrides |= {"base_dir": "out", "log_interval": "1", "max_steps": "1"}
    check_required(resolve_config(overrides=overrides))


def test_a_section_becomes_its_dataclass():
    configs = resolve_config(
        [PLUGIN], overrides={"eba.replicas": "0,2", "eba.temperature_K": "310"}
    )
    section = section_from(configs.eba, EBAConfig)
    assert section == dataclasses.replace(EBAConfig(), replicas=(0, 2), temperature_K=310.0)


def test_components_are_built_from_the_section_with_those_of_plugins_at_hand():
    mine = Plugin("mine", {"mine": {"slope": 1.0}})
    configs = resolve_config([PLUGIN, mine], overrides={"mine.slope": "2", "eba.n_noise": "3"})
    config = dataclasses.replace(eba_config(configs), n_conformers=4)
    assert config.configs["mine"]["slope"] == 2.0 and config.n_noise == 3
    assert "configs" not in section_defaults(EBAConfig)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_conformers", 0),
        ("n_noise", 0),
        ("temperature_K", 0.0),
        ("diffusion_temperature", -1.0),
        ("diffusion_temperature", 0.0),
        ("diffusion_temperature", float("nan")),
        ("diffusion_temperature", "Auto"),
        ("crop_size", -1),
        ("trainable", ()),
        ("checkpoint_keep", 0),
        ("length_exponent", float("nan")),
    ],
)
def test_values_outside_their_range_are_refused(key, value):
    with pytest.raises(UserError, match=f"eba.{key}: expected"):
        dataclasses.replace(EBAConfig(), **{key: value})


@pytest.mark.parametrize("section", [EBAConfig, EBMFoldConfig])
def test_every_field_of_a_section_is_explained(section):
    documented = section.__doc__ or ""
    assert [f.name for f in dataclasses.fields(section) if f"{f.name}: " not in documented] == []


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_resolves_and_its_section_is_in_range(recipe):
    configs = resolve_config([plugin], recipe)
    check_required(configs)
    check_ranges(configs)
    section_from(configs.eba, EBAConfig)
    section_from(configs.ebmfold, EBMFoldConfig)
    assert configs.trainer in ("eba", "ebmfold", "on_policy")


@pytest.mark.parametrize("model_name", MODELS)
def test_a_recipe_resolves_for_every_model(model_name):
    configs = resolve_config([plugin], RECIPES / "eba.yaml", {"model_name": model_name})
    assert configs.model_name == model_name


def test_the_recipe_without_the_bias_uses_the_weights_of_reweighting():
    """exp(-E / kT) with E = -V, relative to the start, each frame counted once."""
    section = section_from(resolve_config([plugin], RECIPES / "eba_unbias.yaml").eba, EBAConfig)
    assert (section.objective, section.eba_with_ref) == ("eba", True)
    assert (section.temperature_K, section.length_exponent) == (300.0, 0.0)
    assert section.outlier_z == 0.0
    # A proposal that is flat in energy: importance weights are those of the target, to 1e-6.
    energy = torch.tensor([7.5, 3.0, 0.0], dtype=torch.float64)
    seen = ObjectiveInput(torch.zeros(3, 2), torch.zeros(3, 2), energy, 4, energy >= 0, energy < 0)
    weights = torch.softmax(-energy / thermal_energy_kj_mol(300.0), dim=0)
    found = alignment_metrics(section, seen)["effective_energy"]
    assert found == pytest.approx(effective_number(weights).item(), rel=1e-5)


def test_every_key_of_the_recipe_without_the_bias_has_a_reason():
    lines = (RECIPES / "eba_unbias.yaml").read_text(encoding="utf-8").splitlines()
    section = lines.index("eba:")
    for before, line in zip(lines[section:], lines[section + 1 :], strict=False):
        assert "#" in line or before.lstrip().startswith("#"), line
