import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protenix_eba.core.errors import UserError
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.environment import LOSSES
from protenix_eba.training.denoising_error import ERROR_WEIGHTS, by_edm
from protenix_eba.training.energy_losses import eba, eba_dpo, energy_weights, plackett_luce
from protenix_eba.training.objectives import ObjectiveInput, alignment_metrics, error_weights

K, S, N_RESIDUES = 4, 3, 16
NAMES = ("denoising", "eba", "eba_dpo", "plackett_luce")
ALIGNMENT = NAMES[1:]
METRICS = {"effective_energy", "effective_model", "cross_entropy", "kl", "rank_correlation"}
WITH_REFERENCE = {"drift", "leak", "accuracy", "margin"}
KT = 2.494338785 * N_RESIDUES**0.5  # at 300 K, kJ/mol

# Everything that changes what an objective computes, each with what else there is.
OPTIONS = (
    {},
    {"expectation": "official"},
    {"eba_with_ref": True, "sft_weight": 0.3},
    {"sampling_temperature_K": 400.0, "sft_weight": 2.0},
    {"linear_energy_weight": True, "length_exponent": 0.0},
)


def setup(name, **options):
    """Configuration and number of conformers for an objective."""
    k = 2 if name == "eba_dpo" else K
    options = {"diffusion_temperature": 20.0, "n_conformers": k, **options}
    config = EBAConfig(objective=name, **options)
    return config, LOSSES.get(name)(config), k


def item(k, s=S, seed=0, energies=None, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    return ObjectiveInput(
        errors=torch.as_tensor(rng.random((k, s)), dtype=dtype).requires_grad_(),
        reference_errors=torch.as_tensor(rng.random((k, s)), dtype=dtype),
        energy_kj_mol=torch.as_tensor(
            -3e4 + 20 * rng.normal(size=k) if energies is None else energies, dtype=torch.float64
        ),
        n_residues=N_RESIDUES,
        keep=torch.ones(k, dtype=torch.bool),
        sampled=torch.zeros(k, dtype=torch.bool),
    )


def with_left_out(view, places, error, energy):
    """The item with more conformers, which are not to be kept, at `places` of the result."""
    k = len(view.errors) + len(places)
    keep = torch.ones(k, dtype=torch.bool)
    keep[places] = False
    errors, reference = torch.full((2, k, view.errors.shape[1]), error, dtype=view.errors.dtype)
    energies = torch.full((k,), energy, dtype=torch.float64)
    errors[keep], reference[keep] = view.errors.detach(), view.reference_errors
    energies[keep] = view.energy_kj_mol
    return replace(
        view,
        errors=errors.requires_grad_(),
        reference_errors=reference,
        energy_kj_mol=energies,
        keep=keep,
        sampled=torch.zeros(k, dtype=torch.bool),
    )


def energy_weights_of(view):
    return torch.softmax(-view.energy_kj_mol / KT, dim=0)


def value_and_gradient(objective, view):
    loss = objective.loss(view)
    (gradient,) = torch.autograd.grad(loss, view.errors)
    return loss.detach(), gradient


def test_objectives_are_registered_with_their_needs():
    needs = {name: setup(name)[1].needs_reference for name in NAMES}
    assert needs == {"denoising": False, "eba": False, "eba_dpo": True, "plackett_luce": True}
    assert setup("eba", eba_with_ref=True)[1].needs_reference


@pytest.mark.parametrize(
    ("name", "count", "words"),
    [("eba", 1, "eba compares conformers, found 1"), ("eba_dpo", 3, "2 conformers, found 3")],
)
def test_an_objective_refuses_a_number_of_conformers_it_cannot_compare(name, count, words):
    with pytest.raises(UserError, match=words):
        setup(name, n_conformers=count)


@pytest.mark.parametrize("name", ["eba", "eba_dpo", "plackett_luce"])
def test_an_objective_with_a_reference_asks_for_its_errors(name):
    _, objective, k = setup(name, eba_with_ref=True)
    with pytest.raises(ValueError, match="reference"):
        objective.loss(replace(item(k), reference_errors=None))


@pytest.mark.parametrize("name", ALIGNMENT)
def test_nan_energies_are_refused_by_name(name):
    _, objective, k = setup(name)
    with pytest.raises(UserError, match="energies must be finite"):
        objective.loss(item(k, energies=[math.nan] + [0.0] * (k - 1)))


# What each objective computes.


def test_objectives_are_their_losses_with_the_configured_options():
    view = item(2)
    e = view.energy_kj_mol / KT
    dpo = {"diffusion_temperature": 20.0, "expectation": "official"}
    _, objective, _ = setup("eba_dpo", expectation="official", linear_energy_weight=True)
    expected = eba_dpo(view.errors, view.reference_errors, e, **dpo, linear_energy_weight=True)
    torch.testing.assert_close(objective.loss(view), expected)
    _, objective, _ = setup("plackett_luce", expectation="official")
    expected = plackett_luce(view.errors, view.reference_errors, e, **dpo)
    torch.testing.assert_close(objective.loss(view), expected)
    log_q = -view.energy_kj_mol / (KT * 1.5)
    _, objective, _ = setup(
        "eba", expectation="official", eba_with_ref=True, sampling_temperature_K=450.0
    )
    expected = eba(
        view.errors,
        energy_weights(e, log_q),
        **dpo,
        reference_errors=view.reference_errors,
        log_proposal=log_q,
    )
    torch.testing.assert_close(objective.loss(view), expected)


def test_without_a_sampling_temperature_the_denoising_error_is_the_mean():
    view = item(K)
    _, objective, _ = setup("denoising")
    torch.testing.assert_close(objective.loss(view), view.errors.mean())


@pytest.mark.parametrize("sampled_at", [300.0, 500.0])
def test_the_denoising_error_has_the_importance_weights_of_its_conformers(sampled_at):
    view = item(K)
    _, objective, _ = setup("denoising", sampling_temperature_K=sampled_at)
    energies = view.energy_kj_mol.numpy() - view.energy_kj_mol.numpy().min()
    w = np.exp(-energies / KT) / np.exp(-energies / (KT * sampled_at / 300))
    expected = np.average(view.errors.detach().numpy().mean(axis=1), weights=w)
    assert objective.loss(view).item() == pytest.approx(expected, rel=1e-6)
    if sampled_at == 300.0:
        torch.testing.assert_close(objective.loss(view), view.errors.mean())


@pytest.mark.parametrize("name", ALIGNMENT)
def test_sft_weight_adds_the_denoising_error(name):
    (_, alone, k), (_, mixed, _) = setup(name), setup(name, sft_weight=0.7)
    view = item(k)
    torch.testing.assert_close(mixed.loss(view), alone.loss(view) + 0.7 * view.errors.mean())


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(NAMES),
    options=st.sampled_from(OPTIONS),
    s=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_the_order_of_conformers_changes_nothing(name, options, s, seed):
    _, objective, k = setup(name, **options)
    view = item(k, s, seed)
    order = torch.as_tensor(np.random.default_rng(seed).permutation(k))
    shuffled = replace(
        view,
        errors=view.errors.detach()[order].requires_grad_(),
        reference_errors=view.reference_errors[order],
        energy_kj_mol=view.energy_kj_mol[order],
    )
    (loss, gradient), (other, permuted) = (
        value_and_gradient(objective, v) for v in (view, shuffled)
    )
    torch.testing.assert_close(loss, other, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(gradient[order], permuted, rtol=1e-8, atol=1e-10)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(NAMES),
    options=st.sampled_from(OPTIONS),
    k=st.integers(2, 7),
    s=st.integers(1, 5),
    spread=st.sampled_from([0.0, 1.0, 1e3, 1e6]),
    temperature=st.floats(0.1, 5000.0),
    seed=st.integers(0, 2**31),
)
def test_float32_errors_and_any_energies_give_a_finite_scalar_and_gradient(
    name, options, k, s, spread, temperature, seed
):
    k = 2 if name == "eba_dpo" else k
    config, objective, _ = setup(
        name, **{**options, "n_conformers": k, "diffusion_temperature": temperature}
    )
    rng = np.random.default_rng(seed)
    view = item(k, s, seed, -3e4 + spread * rng.normal(size=k), dtype=torch.float32)
    loss, gradient = value_and_gradient(objective, view)
    assert loss.shape == () and loss.dtype == torch.float32 and torch.isfinite(loss)
    assert gradient.shape == (k, s) and torch.isfinite(gradient).all()
    assert all(math.isfinite(value) for value in alignment_metrics(config, view).values())


# Conformers that are left out.


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(NAMES),
    options=st.sampled_from(OPTIONS),
    error=st.sampled_from([math.nan, math.inf, 0.0, 1e30]),
    energy=st.sampled_from([math.nan, -1e9, 1e9]),
    left_out=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_conformers_left_out_are_as_if_never_drawn(name, options, error, energy, left_out, seed):
    config, objective, k = setup(name, **options)
    view = item(k, seed=seed)
    places = np.random.default_rng(seed).permutation(k + left_out)[:left_out]
    more = with_left_out(view, places, error, energy)
    (loss, gradient), (other, padded) = (value_and_gradient(objective, v) for v in (view, more))
    torch.testing.assert_close(loss, other)
    torch.testing.assert_close(gradient, padded[more.keep])
    assert (padded[~more.keep] == 0).all()
    assert alignment_metrics(config, view) == pytest.approx(alignment_metrics(config, more))


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("name", ALIGNMENT)
def test_with_fewer_than_two_conformers_the_comparison_is_0_with_a_gradient_of_0(name, kept):
    _, objective, k = setup(name)
    view = replace(item(k), keep=torch.arange(k) < kept)
    loss, gradient = value_and_gradient(objective, view)
    assert loss.item() == 0 and (gradient == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sampled_at", [0.0, 300.0])
def test_one_conformer_left_gives_its_own_denoising_error_and_none_gives_0(name, sampled_at):
    _, objective, k = setup(name, sft_weight=1.0, sampling_temperature_K=sampled_at)
    view = item(k)
    one, none = (replace(view, keep=torch.arange(k) < kept) for kept in (1, 0))
    torch.testing.assert_close(objective.loss(one), view.errors[0].mean())
    loss, gradient = value_and_gradient(objective, none)
    assert loss.item() == 0 and (gradient == 0).all()


# Weights of the denoising error.


def test_error_weights_are_resolved_from_the_configuration():
    own = {"weight_mse": 0.5, "weight_lddt": 2.0, "weight_sigma_data": 4.0}
    custom = error_weights(EBAConfig(error_weights="custom", **own))
    assert (custom.mse, custom.lddt, custom.bond) == (0.5, 2.0, 0.0)
    assert custom.by_level.func is by_edm and custom.by_level.keywords == {"sigma_data": 4.0}
    for name in ("paper", "upstream", "likelihood"):
        assert error_weights(EBAConfig(error_weights=name, **own)) == ERROR_WEIGHTS[name]


def test_the_weight_of_signed_volumes_falls_to_nothing_or_stays():
    fading = EBAConfig(weight_volume=2.0, volume_steps=100)
    assert [error_weights(fading, s).volume for s in (0, 25, 100, 1000)] == [2.0, 1.5, 0.0, 0.0]
    assert error_weights(EBAConfig(weight_volume=2.0), 1000).volume == 2.0


# T of `auto`.


@pytest.mark.parametrize("name", ALIGNMENT)
@pytest.mark.parametrize("expectation", ["official", "bound"])
def test_t_is_the_slope_times_what_the_objective_makes_of_it(name, expectation):
    """Errors that are -log p / slope: with slope x factor as T they are taken as log p."""
    slope = 7.0
    factor = setup(name)[1].temperature_factor
    _, objective, k = setup(name, diffusion_temperature=factor * slope, expectation=expectation)
    log_ratio = torch.linspace(-1.0, 1.0, k, dtype=torch.float64)[:, None].expand(k, S)
    view = item(k)
    reference = view.reference_errors if objective.needs_reference else torch.zeros(k, S)
    view = replace(view, errors=reference - log_ratio / slope, reference_errors=reference)
    order = view.energy_kj_mol.argsort()
    ranked = log_ratio[order, 0]
    expected = {
        "eba": -(energy_weights_of(view) * log_ratio[:, 0].log_softmax(0)).sum(),
        "eba_dpo": -torch.nn.functional.logsigmoid(ranked[0] - ranked[1]),
        "plackett_luce": -sum(ranked[i:].log_softmax(0)[0] for i in range(k)),
    }[name]
    torch.testing.assert_close(objective.loss(view), expected)


def test_t_has_to_be_settled_before_the_first_item():
    _, objective, k = setup("eba", diffusion_temperature="auto")
    with pytest.raises(ValueError, match="T is auto"):
        objective.loss(item(k))


# Metrics.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept", [0, 1, 2])
def test_metrics_have_the_same_keys_and_are_finite_for_every_item(name, kept):
    config, objective, k = setup(name)
    view = replace(item(k), keep=torch.arange(k) < kept)
    if not objective.needs_reference:
        view = replace(view, reference_errors=None)
    metrics = alignment_metrics(config, view)
    assert set(metrics) == METRICS | (WITH_REFERENCE if objective.needs_reference else set())
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("options", OPTIONS)
def test_the_cross_entropy_is_the_value_of_the_objective_eba(options):
    config, objective, k = setup("eba", **{**options, "sft_weight": 0.0})
    view = item(k)
    metrics = alignment_metrics(config, view)
    assert metrics["cross_entropy"] == pytest.approx(objective.loss(view).item())
    entropy = math.log(metrics["effective_energy"])
    assert metrics["kl"] == pytest.approx(metrics["cross_entropy"] - entropy)


@pytest.mark.parametrize("sampled_at", [0.0, 300.0, 400.0])
def test_metrics_of_an_aligned_model_show_it(sampled_at):
    config, _, k = setup("eba", sampling_temperature_K=sampled_at)
    view = item(k)
    aligned = (view.energy_kj_mol / (KT * 20.0))[:, None].expand(k, S)
    metrics = alignment_metrics(config, replace(view, errors=aligned))
    assert metrics["kl"] == pytest.approx(0, abs=1e-9)
    assert metrics["rank_correlation"] == pytest.approx(1)
    assert metrics["effective_model"] == pytest.approx(metrics["effective_energy"])
    assert alignment_metrics(config, replace(view, errors=-aligned))["kl"] > 0.1


def test_effective_numbers_follow_the_conformers_drawn_at_the_target_temperature():
    config, _, k = setup("eba", sampling_temperature_K=300.0)
    assert alignment_metrics(config, item(k))["effective_energy"] == pytest.approx(k)


@pytest.mark.parametrize(("energies", "expected"), [([0, 5], 1), ([5, 0], -1), ([5, 5], 0)])
def test_rank_correlation_of_two_conformers(energies, expected):
    config, _, _ = setup("eba", n_conformers=2)
    view = replace(
        item(2, energies=energies), errors=torch.tensor([[0.1, 0.6, 0.2], [0.3, 0.4, 0.9]])
    )
    assert alignment_metrics(config, view)["rank_correlation"] == pytest.approx(expected)


def test_a_model_that_equals_its_reference_has_no_preference_and_no_drift():
    config, _, k = setup("plackett_luce")
    view = item(k)
    metrics = alignment_metrics(config, replace(view, reference_errors=view.errors.detach()))
    assert [metrics[name] for name in ("drift", "leak", "accuracy", "margin")] == [0, 0, 0.5, 0]


def test_nothing_leaks_where_a_distribution_becomes_another():
    """Ratios w / mean(w) of K conformers have mean 1; errors that all rise by c leak T c."""
    config, _, k = setup("eba", eba_with_ref=True, diffusion_temperature=3.0)
    weight = torch.linspace(0.5, 4.0, k, dtype=torch.float64)[:, None].expand(k, S)
    reference = torch.rand(k, S, dtype=torch.float64)
    moved = reference - (weight / weight.mean()).log() / 3.0
    view = replace(item(k), reference_errors=reference)
    for rise in (0.0, 0.5):
        metrics = alignment_metrics(config, replace(view, errors=moved + rise))
        assert metrics["leak"] == pytest.approx(3.0 * rise, abs=1e-9)


def test_accuracy_and_margin_are_over_pairs_that_differ_in_energy():
    """Rewards -T/2 (l - l_ref) of [2, 1, 1, 0] and [0, 1, 3, 0] at T = 20, energies 0, 1, 1, 2."""
    config, _, _ = setup("plackett_luce")
    reference = torch.rand(K, 2, dtype=torch.float64)
    reward = torch.tensor([[2.0, 0.0], [1.0, 1.0], [1.0, 3.0], [0.0, 0.0]]).double()
    view = ObjectiveInput(
        errors=reference - reward / 10,
        reference_errors=reference,
        energy_kj_mol=torch.tensor([0.0, 1.0, 1.0, 2.0]).double(),
        n_residues=N_RESIDUES,
        keep=torch.ones(K, dtype=torch.bool),
        sampled=torch.zeros(K, dtype=torch.bool),
    )
    metrics = alignment_metrics(config, view)
    # Pairs 01 02 03 13 23: +1 +1 +2 +1 +1 at the first noise sample, -1 -3 0 +1 +3 at the second.
    assert metrics["accuracy"] == pytest.approx((5 + 2 + 0.5) / 10)
    assert metrics["margin"] == pytest.approx(6 / 10)
    assert metrics["drift"] == pytest.approx(-reward.mean().item() / 10)


@pytest.mark.parametrize("name", ["eba", "eba_dpo", "plackett_luce"])
def test_own_samples_have_no_part_in_the_supervised_term(name):
    """It is the mean error of the MD, as if the samples had not been drawn."""
    _, objective, k = setup(name, sft_weight=0.0)
    _, with_term, _ = setup(name, sft_weight=3.0)
    sampled = torch.arange(k) > 0
    view = replace(item(k), sampled=sampled)
    added = with_term.loss(view) - objective.loss(view)
    assert added.item() == pytest.approx(3 * view.errors[~sampled].mean().item(), rel=1e-9)
    own = replace(view, sampled=torch.ones(k, dtype=torch.bool))
    assert with_term.loss(own).item() == pytest.approx(objective.loss(own).item(), rel=1e-12)


def test_training_on_a_preference_raises_accuracy_and_margin():
    config, objective, k = setup("plackett_luce")
    view = item(k)
    before = alignment_metrics(config, view)
    errors = view.errors.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([errors], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        objective.loss(replace(view, errors=errors)).backward()
        optimizer.step()
    after = alignment_metrics(config, replace(view, errors=errors))
    assert before["accuracy"] < 1 and after["accuracy"] == 1
    assert after["margin"] > max(before["margin"], 0)
