import copy

import pytest
import torch
from torch.nn.utils import parametrize

from protenix_eba.core.errors import UserError
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.embeddings import compute_embeddings
from protenix_eba.host.features import protein_features
from protenix_eba.host.lora import (
    LowRankUpdate,
    adapters_off,
    add_adapters,
    has_adapters,
    merged_state,
)
from protenix_eba.host.weights import (
    DIFFUSION_PREFIX,
    build_diffusion_module,
    build_model,
)
from protenix_eba.structures.sequences import Protein

PATTERNS = ("diffusion_module.diffusion_transformer.*", "diffusion_module.*.linear_no_bias_q.*")
RANK, ALPHA = 4, 16.0


@pytest.fixture(scope="module")
def parts(awake):
    """Weights without the zeros of a fresh start, and a function that denoises with a module."""
    configs, state, generator = awake()
    protein = protein_features(Protein("x", ("GAG",)))
    embeddings = compute_embeddings(build_model(configs, state), protein, 1)
    noisy = 5 * torch.randn(2, len(protein.atoms), 3, generator=generator)
    sigma = torch.tensor([1.0, 20.0])

    def denoise(module):
        return ConformerDenoiser(module)(protein.features, embeddings, noisy, sigma)

    return configs, state, denoise


def adapted(parts, patterns=PATTERNS[:1], **changes):
    module = build_diffusion_module(*parts[:2])
    settings = {"rank": RANK, "alpha": ALPHA, "generator": torch.Generator().manual_seed(1)}
    return module, add_adapters(module, patterns, **settings | changes)


def train(module, denoise, steps=3):
    optimizer = torch.optim.Adam((p for p in module.parameters() if p.requires_grad), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        denoise(module).square().mean().backward()
        optimizer.step()
    return module


@pytest.fixture(scope="module")
def trained(parts):
    """Adapters after some steps; tests leave it as it is."""
    return train(adapted(parts)[0], parts[2])


@torch.no_grad()
def test_the_start_is_the_start_bit_for_bit(parts):
    configs, state, denoise = parts
    module, _ = adapted(parts, patterns=("diffusion_module.*",))
    assert torch.equal(denoise(module), denoise(build_diffusion_module(configs, state)))


def test_only_adapters_are_trained_and_as_many_as_announced(parts):
    module, n_trained = adapted(parts)
    parts[2](module).square().mean().backward()
    with_gradient = {name: p for name, p in module.named_parameters() if p.grad is not None}
    assert all(name.rsplit(".", 1)[1] in "ab" for name in with_gradient)
    assert sum(p.numel() for p in with_gradient.values()) == n_trained
    # B starts as zeros, so that only B moves in the first step.
    assert all(p.grad.any() == (name[-1] == "b") for name, p in with_gradient.items())


def test_the_number_of_trained_weights_is_rank_times_the_sides(parts):
    plain = build_diffusion_module(*parts[:2])
    shapes = [
        layer.weight.shape
        for name, layer in plain.named_modules()
        if name.startswith("diffusion_transformer.") and isinstance(layer, torch.nn.Linear)
    ]
    expected = sum(min(RANK, *shape) * sum(shape) for shape in shapes)
    assert adapted(parts)[1] == expected


@torch.no_grad()
def test_merged_weights_give_the_same_outputs_in_a_plain_module(parts, trained):
    configs, state, denoise = parts
    merged = merged_state(trained)
    plain = build_diffusion_module(
        configs, state | {DIFFUSION_PREFIX + key: value for key, value in merged.items()}
    )
    assert merged.keys() == plain.state_dict().keys()
    start = denoise(build_diffusion_module(configs, state))
    moved = denoise(trained) - start
    assert moved.abs().max() > 1e-2
    torch.testing.assert_close(denoise(plain), denoise(trained), rtol=1e-5, atol=1e-5)


def test_autocast_leaves_the_sum_in_the_precision_of_the_weights(trained):
    merged = merged_state(trained)
    layer = "diffusion_transformer.blocks.0.attention_pair_bias.attention.linear_q"
    with torch.autocast("cpu", torch.bfloat16):
        weight = trained.get_submodule(layer).weight
    assert torch.equal(weight, merged[f"{layer}.weight"])


def test_a_module_without_adapters_is_its_own_merged_state(parts, trained):
    module = build_diffusion_module(*parts[:2])
    assert not has_adapters(module) and has_adapters(trained)
    merged, state = merged_state(module), module.state_dict()
    assert merged.keys() == state.keys()
    assert all(torch.equal(merged[key], value) for key, value in state.items())


@torch.no_grad()
def test_without_its_adapters_a_trained_module_is_the_start_bit_for_bit(parts, trained):
    configs, state, denoise = parts
    after = denoise(trained)
    with adapters_off(trained):
        assert torch.equal(denoise(trained), denoise(build_diffusion_module(configs, state)))
    assert torch.equal(denoise(trained), after)


@torch.no_grad()
def test_adapters_are_on_again_after_an_error(parts, trained):
    after = parts[2](trained)
    with pytest.raises(ZeroDivisionError), adapters_off(trained):
        raise ZeroDivisionError
    assert torch.equal(parts[2](trained), after)


def test_activation_checkpointing_gives_the_same_gradients(parts):
    configs, state, denoise = parts
    gradients = []
    for blocks in (None, 1):
        changed = copy.deepcopy(configs)
        changed.model.diffusion_module.blocks_per_ckpt = blocks
        module, _ = adapted((changed, state), patterns=("diffusion_module.*",))
        assert module.blocks_per_ckpt == blocks
        denoise(module).square().mean().backward()
        gradients.append([p.grad for p in module.parameters() if p.requires_grad])
    for plain, checkpointed in zip(*gradients, strict=True):
        # The plain one sees its atoms in one window, the other in several: sums in another order.
        torch.testing.assert_close(plain, checkpointed, rtol=2e-4, atol=2e-5)


@torch.no_grad()
def test_copies_and_saved_states_are_the_same_function(parts, trained):
    denoise = parts[2]
    copied = copy.deepcopy(trained)
    loaded, _ = adapted(parts)
    loaded.load_state_dict(trained.state_dict())
    for module in (copied, loaded):
        assert torch.equal(denoise(module), denoise(trained))
    for update in copied.modules():
        if isinstance(update, LowRankUpdate):
            update.b.zero_()
    with adapters_off(trained):
        assert torch.equal(denoise(copied), denoise(trained))


def test_the_draw_follows_the_generator_and_loralib(parts):
    first, second = (adapted(parts)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    drawn = LowRankUpdate(
        torch.zeros(64, 400), rank=32, scale=1.0, generator=torch.Generator().manual_seed(0)
    ).a
    # Uniform within 1 / sqrt(n_in) = 0.05, so with a variance of 0.05^2 / 3.
    assert drawn.abs().max() <= 0.05
    assert drawn.var().item() == pytest.approx(0.05**2 / 3, rel=0.05)


def test_a_small_matrix_gets_an_update_of_its_full_rank(parts):
    module, _ = adapted(parts, patterns=("diffusion_module.*",), rank=8)
    smaller = [
        (update.a.shape[0], min(layer.weight.shape))
        for layer in module.modules()
        if parametrize.is_parametrized(layer)
        for update in layer.parametrizations.weight
        if min(layer.weight.shape) < 8
    ]
    assert smaller and all(rank == full for rank, full in smaller)


@pytest.mark.parametrize("rank", [128, 1000])
def test_a_rank_that_is_none_is_refused(parts, rank):
    with pytest.raises(UserError, match=r"eba\.lora_rank: expected less than 128"):
        adapted(parts, rank=rank, patterns=("diffusion_module.*.linear_nobias_*",))


@pytest.mark.parametrize("pattern", ["pairformer_stack.*", "diffusion_module.*.bias"])
def test_a_pattern_without_a_matrix_is_named(parts, pattern):
    with pytest.raises(UserError, match=pattern.replace("*", r"\*")):
        adapted(parts, patterns=(PATTERNS[0], pattern))
