import pytest

from protenix_eba.core.errors import UserError
from protenix_eba.training.engine import engine_settings, zero_stage


def test_the_section_is_passed_on_and_protenixs_keys_are_added():
    options = {"zero_optimization": {"stage": 2}, "wall_clock_breakdown": True}
    settings = engine_settings(options, accumulate=4, clip_norm=10.0)
    assert settings["wall_clock_breakdown"] is True
    assert settings["zero_optimization"] == {"stage": 2}
    assert settings["gradient_accumulation_steps"] == 4
    assert settings["gradient_clipping"] == 10.0


def test_the_default_stage_is_0():
    assert zero_stage({}) == zero_stage({"zero_optimization": None}) == 0


@pytest.mark.parametrize("key", ["gradient_clipping", "optimizer", "bf16", "train_batch_size"])
def test_a_key_that_protenix_sets_is_refused_and_its_own_key_named(key):
    with pytest.raises(UserError, match=f"deepspeed.{key} is set by Protenix's own keys"):
        engine_settings({key: 1}, accumulate=1, clip_norm=0.0)


def test_an_unknown_stage_is_refused():
    with pytest.raises(UserError, match="expected 0, 1, 2 or 3, found 4"):
        engine_settings({"zero_optimization": {"stage": 4}}, accumulate=1, clip_norm=0.0)
