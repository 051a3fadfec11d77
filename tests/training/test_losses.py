import itertools
import math
from collections import Counter
from functools import partial
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from scipy.special import log_softmax, logsumexp, softmax

from protenix_eba.core.errors import UserError
from protenix_eba.protein.rigid_motions import random_rotations
from protenix_eba.training import denoising_error
from protenix_eba.training.denoising_error import (
    ERROR_WEIGHTS,
    LDDT_RADIUS,
    LDDT_THRESHOLDS,
    DenoisingErrors,
    ErrorWeights,
    _bonded,
    _chains,
    aligned_mse,
    bond_error,
    by_edm,
    edm_weight,
    signed_volumes,
    smooth_lddt,
    volume_error,
)
from protenix_eba.training.energy_losses import (
    eba,
    eba_dpo,
    effective_number,
    energy_weights,
    plackett_luce,
    reduced_energies,
)
from protenix_eba.training.noise import NoiseSettings

K, S, N = 3, 4, 30
# kT at 300 K from CODATA 2018, as energy.md's published beta = 0.4009 mol/kJ.
KT = 2.494338785
DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"
THYMOPENTIN = DEMO / "thymopentin" / "thymopentin.pdb"
BOTH = pytest.mark.parametrize("expectation", ["bound", "official"])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def reduced(energies, n_residues=9, temperature_K=300.0, length_exponent=0.5):
    return reduced_energies(
        torch.as_tensor(energies, dtype=torch.float64),
        n_residues=n_residues,
        temperature_K=temperature_K,
        length_exponent=length_exponent,
    )


def weights(energies, **options):
    return energy_weights(reduced(energies, **options))


def ranked(*energies):
    return torch.tensor(energies, dtype=torch.float64)


def errors_and_reference(k, s=S, seed=0):
    drawn = torch.rand(2, k, s, generator=generator(seed), dtype=torch.float64)
    return drawn[0].requires_grad_(), drawn[1]


@pytest.fixture
def structures():
    target = torch.randn(K, N, 3, generator=generator()) * 5
    predicted = target[:, None] + torch.randn(K, S, N, 3, generator=generator(1))
    return predicted, target, torch.ones(K, N)


# The objective.


def test_equal_energies_and_equal_errors_give_log_k():
    loss = eba(torch.full((5, S), 0.7), weights([-3e4] * 5), diffusion_temperature=5000.0)
    assert loss.item() == pytest.approx(math.log(5), rel=1e-6)


def test_a_shift_of_all_energies_changes_nothing():
    energies = torch.tensor([-30000.0, -30004.0, -29991.5], dtype=torch.float64)
    torch.testing.assert_close(weights(energies), weights(energies + 12345.0), rtol=1e-10, atol=0)


def test_a_shift_of_all_errors_changes_nothing():
    errors = torch.rand(K, S, generator=generator()).double()
    w = weights([0.0, 5.0, 9.0])
    plain, shifted = (eba(e, w, diffusion_temperature=20.0) for e in (errors, errors + 3.0))
    torch.testing.assert_close(plain, shifted)


def test_weights_are_the_boltzmann_ratio_with_length_scaling():
    w = weights([0.0, 10.0], n_residues=16)
    assert (w[1] / w[0]).item() == pytest.approx(math.exp(-10 / (KT * 4)), rel=1e-8)


def test_energies_a_million_apart_give_a_finite_loss():
    loss = eba(torch.rand(2, S), weights([0.0, 1e6]), diffusion_temperature=5000.0)
    assert torch.isfinite(loss)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_energy_that_is_not_finite_is_refused(bad):
    with pytest.raises(UserError, match="energies must be finite, found"):
        reduced([0.0, bad])


def test_float32_errors_at_the_published_temperature_give_a_finite_gradient():
    errors = (100 * torch.rand(4, S, generator=generator())).requires_grad_()
    loss = eba(errors, weights([0.0, 1e6, 3.0, -1e6]), diffusion_temperature=5000.0)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    assert torch.isfinite(errors.grad).all() and errors.grad.abs().sum() > 0


def test_an_unknown_expectation_is_refused():
    with pytest.raises(ValueError, match="'bound' or 'official', found 'mean'"):
        eba(torch.rand(2, S), weights([0, 1]), diffusion_temperature=1.0, expectation="mean")


def test_k_2_with_reference_and_cold_weights_is_dpo_at_half_its_temperature():
    errors, reference = torch.rand(2, 2, S, generator=generator()).double()
    cold = weights([5.0, 0.0], temperature_K=1e-3)
    ours = eba(errors, cold, diffusion_temperature=50.0, reference_errors=reference)
    theirs = eba_dpo(errors, reference, torch.tensor([5.0, 0.0]), diffusion_temperature=100.0)
    torch.testing.assert_close(ours, theirs)


def test_dpo_of_a_model_that_equals_its_reference_is_log_2():
    errors = torch.rand(2, S)
    loss = eba_dpo(errors, errors, torch.tensor([1.0, 0.0]), diffusion_temperature=5000.0)
    assert loss.item() == pytest.approx(math.log(2))


def test_dpo_falls_when_the_winner_is_denoised_better():
    reference = torch.full((2, S), 0.5)
    better = torch.tensor([0.5, 0.4])[:, None].expand(2, S)
    loss = eba_dpo(better, reference, torch.tensor([1.0, 0.0]), diffusion_temperature=10.0)
    assert loss.item() < math.log(2)


def test_dpo_lowers_the_winners_error_and_raises_the_losers():
    errors, reference = errors_and_reference(2)
    eba_dpo(errors, reference, ranked(1.0, 0.0), diffusion_temperature=3.0).backward()
    assert (errors.grad[1] > 0).all() and (errors.grad[0] < 0).all()


def test_dpo_refuses_three_conformers():
    with pytest.raises(UserError, match="2 conformers, found 3"):
        eba_dpo(torch.rand(3, S), torch.rand(3, S), torch.rand(3), diffusion_temperature=1.0)


@pytest.mark.parametrize("linear", [False, True])
def test_dpo_takes_no_side_between_equal_energies(linear):
    errors, reference = errors_and_reference(2)
    options = {"diffusion_temperature": 9.0, "linear_energy_weight": linear}
    loss = eba_dpo(errors, reference, ranked(4.0, 4.0), **options)
    loss.backward()
    assert loss.item() == 0 and (errors.grad == 0).all()


@pytest.mark.parametrize("gap", [0.25, 7.0, 1e6])
def test_the_linear_weight_multiplies_the_temperature_by_the_reduced_difference_in_energy(gap):
    errors, reference = errors_and_reference(2)
    rest = (errors, reference, reduced([gap * KT * 3, 0.0]))
    plain = eba_dpo(*rest, diffusion_temperature=4.0 * gap)
    weighed = eba_dpo(*rest, diffusion_temperature=4.0, linear_energy_weight=True)
    assert weighed.item() == pytest.approx(plain.item(), rel=1e-8)


@BOTH
@pytest.mark.parametrize("energies", [(0.0, 2.0), (2.0, 0.0), (2.0, 2.0)])
def test_the_ranking_of_two_conformers_is_dpo(energies, expectation):
    errors, reference = errors_and_reference(2)
    options = {"diffusion_temperature": 11.0, "expectation": expectation}
    pair = eba_dpo(errors, reference, ranked(*energies), **options)
    (by_pair,) = torch.autograd.grad(pair, errors)
    listed = plackett_luce(errors, reference, ranked(*energies), **options)
    (by_list,) = torch.autograd.grad(listed, errors)
    torch.testing.assert_close(pair, listed, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(by_pair, by_list, rtol=1e-12, atol=1e-15)


def test_a_ranking_by_a_model_that_equals_its_reference_is_one_of_all_orders():
    errors = torch.rand(5, S, generator=generator()).double()
    loss = plackett_luce(errors, errors, ranked(4, 2, 9, 1, 0), diffusion_temperature=5000.0)
    assert loss.item() == pytest.approx(math.log(math.factorial(5)))


def test_conformers_of_equal_energy_are_compared_with_those_of_higher_energy_only():
    errors, reference = errors_and_reference(3)
    loss = plackett_luce(errors, reference, ranked(1.0, 5.0, 1.0), diffusion_temperature=6.0)
    pairs = [
        eba_dpo(errors[[i, 1]], reference[[i, 1]], ranked(1.0, 5.0), diffusion_temperature=6.0)
        for i in (0, 2)
    ]
    torch.testing.assert_close(loss, sum(pairs))


@settings(deadline=None, max_examples=50)
@given(
    k=st.integers(2, 6),
    s=st.integers(1, 5),
    scale=st.floats(0.0, 1e6),
    temperature=st.floats(0.1, 5000.0),
    expectation=st.sampled_from(["bound", "official"]),
    with_reference=st.booleans(),
    sampled_at=st.sampled_from([None, 250.0, 300.0, 400.0]),
    seed=st.integers(0, 2**31),
)
def test_eba_equals_numpy_and_is_bounded_by_the_entropy(
    k, s, scale, temperature, expectation, with_reference, sampled_at, seed
):
    rng = np.random.default_rng(seed)
    energies, errors, reference = scale * rng.normal(size=k), *rng.random((2, k, s))
    log_q = np.zeros(k) if sampled_at is None else -energies / (KT * sampled_at / 300 * 3.0)
    proposal = None if sampled_at is None else torch.as_tensor(log_q)
    w = energy_weights(reduced(energies), proposal)
    loss = eba(
        torch.as_tensor(errors),
        w,
        diffusion_temperature=temperature,
        expectation=expectation,
        reference_errors=torch.as_tensor(reference) if with_reference else None,
        log_proposal=proposal,
    )
    expected_w = softmax(-energies / (8.31446261815324e-3 * 300 * 3.0) - log_q)
    relative = errors - reference if with_reference else errors
    columns = [relative.mean(1)] if expectation == "official" else list(relative.T)
    expected = np.mean([-expected_w @ log_softmax(-temperature * c - log_q) for c in columns])
    np.testing.assert_allclose(w.numpy(), expected_w, rtol=1e-4 if sampled_at else 1e-9, atol=1e-9)
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-9 * (1 + scale))
    assert loss.item() >= torch.special.entr(w).sum().item() - 1e-9 * (1 + scale)


@settings(deadline=None, max_examples=50)
@given(
    k=st.integers(2, 6),
    s=st.integers(1, 5),
    temperature=st.floats(0.1, 200.0),
    expectation=st.sampled_from(["bound", "official"]),
    seed=st.integers(0, 2**31),
)
def test_preferences_equal_numpy(k, s, temperature, expectation, seed):
    rng = np.random.default_rng(seed)
    energies, errors, reference = rng.normal(size=k), *rng.random((2, k, s))
    relative = errors - reference
    columns = [relative.mean(1)] if expectation == "official" else list(relative.T)
    rewards = [-0.5 * temperature * c[np.argsort(energies)] for c in columns]
    arguments = [torch.as_tensor(x) for x in (errors, reference, energies)]
    options = {"diffusion_temperature": temperature, "expectation": expectation}
    ranking = -np.mean([sum(r[i] - logsumexp(r[i:]) for i in range(k)) for r in rewards])
    assert plackett_luce(*arguments, **options).item() == pytest.approx(ranking, rel=1e-9)
    if k == 2:
        pair = np.mean([np.log1p(np.exp(-(r[0] - r[1]))) for r in rewards])
        assert eba_dpo(*arguments, **options).item() == pytest.approx(pair, rel=1e-9)


@settings(deadline=None, max_examples=50)
@given(k=st.integers(2, 5), s=st.integers(2, 6), seed=st.integers(0, 2**31))
def test_errors_averaged_first_never_give_a_larger_loss(k, s, seed):
    """Jensen: log-sum-exp is convex, so its value at the mean is at most its mean."""
    errors, reference = (x.detach() for x in errors_and_reference(k, s, seed))
    energies = torch.rand(k, generator=generator(seed + 1)).double()
    for objective in (
        lambda e: eba(errors, weights(energies), diffusion_temperature=30.0, expectation=e),
        lambda e: plackett_luce(
            errors, reference, energies, diffusion_temperature=30.0, expectation=e
        ),
        lambda e: eba_dpo(
            errors[:2], reference[:2], energies[:2], diffusion_temperature=30.0, expectation=e
        ),
    ):
        assert objective("official") < objective("bound")


@BOTH
def test_both_expectations_agree_where_noise_does_not_matter(expectation):
    errors = torch.rand(K, 1, generator=generator()).double()
    options = {"diffusion_temperature": 30.0, "expectation": expectation}
    many = eba(errors.expand(K, S), weights([0.0, 4.0, 9.0]), **options)
    torch.testing.assert_close(many, eba(errors, weights([0.0, 4.0, 9.0]), **options))


@BOTH
@pytest.mark.parametrize("proposal", [None, ranked(-1.0, 0.0, -2.0)])
def test_the_gradient_of_eba_equals_finite_differences(expectation, proposal):
    errors, reference = errors_and_reference(K)
    w = weights([0.0, 4.0, 9.0])

    def objective(e):
        return eba(
            e,
            w,
            diffusion_temperature=7.0,
            expectation=expectation,
            reference_errors=reference,
            log_proposal=proposal,
        )

    assert torch.autograd.gradcheck(objective, errors)


@BOTH
@pytest.mark.parametrize("linear", [False, True])
def test_the_gradient_of_dpo_equals_finite_differences(expectation, linear):
    errors, reference = errors_and_reference(2)

    def objective(e):
        return eba_dpo(
            e,
            reference,
            ranked(3.0, 1.0),
            diffusion_temperature=7.0,
            expectation=expectation,
            linear_energy_weight=linear,
        )

    assert torch.autograd.gradcheck(objective, errors)


@BOTH
@pytest.mark.parametrize("energies", [(3.0, 1.0, 2.0, 0.0), (3.0, 1.0, 1.0, 0.0)])
def test_the_gradient_of_a_ranking_equals_finite_differences(expectation, energies):
    errors, reference = errors_and_reference(4)
    options = {"diffusion_temperature": 7.0, "expectation": expectation}
    assert torch.autograd.gradcheck(
        lambda e: plackett_luce(e, reference, ranked(*energies), **options), errors
    )


def test_no_gradient_flows_to_the_reference():
    errors, reference = errors_and_reference(2)
    reference.requires_grad_()
    for loss in (
        eba(errors, weights([0, 1]), diffusion_temperature=2.0, reference_errors=reference),
        eba_dpo(errors, reference, ranked(0, 1), diffusion_temperature=2.0),
        plackett_luce(errors, reference, ranked(0, 1), diffusion_temperature=2.0),
    ):
        loss.backward()
    assert reference.grad is None


# Conformers that were not drawn uniformly.


def test_conformers_drawn_at_the_target_temperature_have_equal_weights():
    energies = reduced([-3e4, -3.01e4, -2.99e4])
    torch.testing.assert_close(
        energy_weights(energies, -energies), torch.full((3,), 1 / 3, dtype=torch.float64)
    )


@pytest.mark.parametrize("sampled_at", [200.0, 300.0, 450.0])
def test_many_conformers_give_the_divergence_of_all_states_however_they_were_drawn(sampled_at):
    """Of KL(p || p_theta) over M states, the derivative by l_m is T (p_m - p_theta(m))."""
    energies, temperature = reduced([0.0, 2.0, 5.0, 9.0]), 3.0
    log_q = -reduced([0.0, 2.0, 5.0, 9.0], temperature_K=sampled_at)
    theta = torch.tensor([0.4, 0.1, 0.3, 0.2], dtype=torch.float64, requires_grad=True)
    states = torch.multinomial(log_q.softmax(0), 200_000, replacement=True, generator=generator())
    w = energy_weights(energies[states], log_q[states])
    eba(
        theta[states, None], w, diffusion_temperature=temperature, log_proposal=log_q[states]
    ).backward()
    model = torch.softmax(-temperature * theta.detach(), dim=0)
    expected = temperature * (energies.neg().softmax(0) - model)
    torch.testing.assert_close(theta.grad, expected, rtol=0, atol=0.02)


def test_effective_number_is_k_for_uniform_and_1_for_certain():
    assert effective_number(torch.full((4,), 0.25)).item() == pytest.approx(4)
    assert effective_number(torch.tensor([1.0, 0.0])).item() == pytest.approx(1)


# The denoising errors.


def moved(target):
    rotation = random_rotations((len(target),), generator(7))
    return target @ rotation + torch.randn(len(target), 1, 3, generator=generator(8))


def test_a_rigid_motion_of_a_target_changes_nothing(structures):
    predicted, target, mask = structures
    for measure in (aligned_mse, smooth_lddt):
        before, after = measure(predicted, target, mask), measure(predicted, moved(target), mask)
        torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)


def test_a_perfect_prediction_has_no_error(structures):
    _, target, mask = structures
    perfect = moved(target)[:, None]
    assert aligned_mse(perfect, target, mask).max() < 1e-9
    # The best that sigmoids give: mean of sigmoid(0.5), sigmoid(1), sigmoid(2), sigmoid(4).
    best = np.mean([1 / (1 + math.exp(-t)) for t in (0.5, 1, 2, 4)])
    torch.testing.assert_close(smooth_lddt(perfect, target, mask), torch.full((K, 1), best).float())


def test_the_mse_of_a_mirror_image_is_not_zero(structures):
    _, target, mask = structures
    mirrored = (target * torch.tensor([1.0, 1.0, -1.0]))[:, None]
    assert aligned_mse(mirrored, target, mask).min() > 0.1


def test_the_gradient_flows_to_the_prediction_only(structures):
    predicted, target, mask = structures
    predicted, target = predicted.requires_grad_(), target.requires_grad_()
    aligned_mse(predicted, target, mask).sum().backward()
    assert predicted.grad is not None and predicted.grad.abs().sum() > 0
    assert target.grad is None


def test_absent_atoms_change_nothing(structures):
    predicted, target, mask = structures
    mask[:, 5] = 0
    before = [f(predicted, target, mask) for f in (aligned_mse, smooth_lddt)]
    target[:, 5], predicted[:, :, 5] = 0.0, 100.0
    after = [f(predicted, target, mask) for f in (aligned_mse, smooth_lddt)]
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b)


def test_mse_equals_upstreams(structures):
    from protenix.model.loss import MSELoss

    predicted, target, mask = structures
    none = torch.zeros(N)
    upstream = MSELoss(weight_mse=1 / 3, reduction=None)
    theirs = upstream(predicted, target, mask, none, none, none)
    torch.testing.assert_close(
        aligned_mse(predicted, target, mask).mean(1), theirs, rtol=1e-5, atol=0
    )


def test_smooth_lddt_equals_upstreams_with_each_conformers_own_mask(structures):
    from protenix.model.loss import SmoothLDDTLoss, compute_lddt_mask

    predicted, target, mask = structures
    ours = smooth_lddt(predicted, target, mask).mean(1)
    for k in range(K):
        distance = torch.cdist(target[k], target[k])
        near = compute_lddt_mask(distance, torch.ones(N, N), torch.zeros(N))
        theirs = 1 - SmoothLDDTLoss().dense_forward(predicted[k], target[k], near)
        torch.testing.assert_close(ours[k], theirs, rtol=1e-5, atol=1e-6)


def plain_smooth_lddt(predicted, target, mask):
    """Algorithm 27 over all ordered pairs, by autograd."""
    size = predicted.shape[-2]
    true = (target[:, :, None] - target[:, None]).norm(dim=-1)
    distance = (predicted[:, :, :, None] - predicted[:, :, None]).norm(dim=-1)
    error = (distance - true[:, None]).abs()
    passed = torch.stack([torch.sigmoid(t - error) for t in LDDT_THRESHOLDS]).mean(dim=0)
    near = (true < LDDT_RADIUS) & ~torch.eye(size, dtype=torch.bool)
    near = (near & mask.bool()[:, :, None] & mask.bool()[:, None])[:, None]
    return (passed * near).sum(dim=(-1, -2)) / near.sum(dim=(-1, -2))


@pytest.fixture(params=[7, 10_000])
def chunks(request, monkeypatch):
    monkeypatch.setattr(denoising_error, "_PAIRS_AT_ONCE_CPU", request.param)


def test_smooth_lddt_and_its_gradient_equal_the_plain_formula(structures, chunks):
    predicted, target, mask = structures
    predicted, target = predicted.double().requires_grad_(), target.double()
    mask[1, 4:9] = 0
    upstream = torch.rand(K, S, generator=generator(2)).double()
    ours, plain = (f(predicted, target, mask) for f in (smooth_lddt, plain_smooth_lddt))
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    mine, theirs = (torch.autograd.grad(x, predicted, upstream)[0] for x in (ours, plain))
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    single = smooth_lddt(predicted.float(), target.float(), mask)
    torch.testing.assert_close(single.double(), plain, rtol=0, atol=1e-6)


def test_the_gradient_of_smooth_lddt_equals_finite_differences(structures, chunks):
    predicted, target, mask = (x[:2, ..., :8, :].double() for x in (*structures[:2], structures[1]))
    predicted, mask = predicted[:, :2].requires_grad_(), torch.ones(2, 8)
    assert torch.autograd.gradcheck(lambda x: smooth_lddt(x, target, mask), predicted)


def test_the_gradient_of_smooth_lddt_is_only_computed_when_it_is_needed(structures, monkeypatch):
    predicted, target, mask = structures
    seen, add_pairs = [], denoising_error._add_pairs
    monkeypatch.setattr(
        denoising_error, "_add_pairs", lambda *a: seen.append(a[-1]) or add_pairs(*a)
    )
    smooth_lddt(predicted, target, mask)
    with torch.no_grad():
        smooth_lddt(predicted.requires_grad_(), target, mask)
    assert len(seen) == 2 * K and all(slope is None for slope in seen)
    smooth_lddt(predicted, target, mask)
    assert all(slope is not None for slope in seen[2 * K :])


def test_smooth_lddt_keeps_nothing_that_grows_with_the_pairs(structures):
    predicted, target, mask = structures
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        smooth_lddt(predicted.requires_grad_(), target, mask)
    assert [x.shape for x in kept] == [(S, N, 3)] * K


def test_second_derivatives_of_smooth_lddt_are_refused(structures):
    predicted, target, mask = structures
    score = smooth_lddt(predicted.requires_grad_(), target, mask).square().sum()
    (slope,) = torch.autograd.grad(score, predicted, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_atoms_in_one_place_have_a_finite_gradient(structures):
    predicted, target, mask = structures
    collapsed = torch.zeros_like(predicted).requires_grad_()
    smooth_lddt(collapsed, target, mask).sum().backward()
    assert (collapsed.grad == 0).all()


def test_a_conformer_without_neighbours_scores_0_without_a_gradient(structures):
    predicted, target, mask = structures
    mask[:, 1:] = 0
    score = smooth_lddt(predicted.requires_grad_(), target, mask)
    score.sum().backward()
    assert (score == 0).all() and (predicted.grad == 0).all()


def test_the_mse_takes_one_decomposition_for_all_structures(structures, monkeypatch):
    shapes, svd = [], torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda x: shapes.append(x.shape) or svd(x))
    aligned_mse(*structures)
    assert shapes == [(K, S, 3, 3)]


def test_error_weights_are_those_of_the_paper_and_of_the_published_code():
    mse, lddt, bond, volume = torch.rand(4, K, S, generator=generator())
    sigma = torch.tensor([0.1, 1.0, 16.0, 300.0])
    errors = DenoisingErrors(mse, lddt, bond, volume, sigma, torch.full((K,), N))
    noise = NoiseSettings(-1.2, 1.5, 16.0)
    paper = errors.total(ERROR_WEIGHTS["paper"], noise)
    torch.testing.assert_close(paper, mse + 1 - lddt)
    upstream = errors.total(ERROR_WEIGHTS["upstream"], noise)
    edm = (sigma**2 + 16**2) / (sigma * 16) ** 2
    torch.testing.assert_close(upstream, 4 * edm * mse + 4 * (1 - lddt))
    own = errors.total(ErrorWeights(mse=0.0, lddt=3.0, by_level=by_edm), noise)
    torch.testing.assert_close(own, 3 * (1 - lddt))
    small = ErrorWeights(1.0, 0.0, partial(by_edm, sigma_data=4.0), bond=2.0)
    bonds = errors.total(small, noise)
    little = sigma < 0.5  # angstrom of noise
    torch.testing.assert_close(
        bonds, (sigma**2 + 16) / (4 * sigma) ** 2 * (mse + 2 * bond * little)
    )
    hands = errors.total(ErrorWeights(0.0, 0.0, by_edm, volume=5.0), noise)
    torch.testing.assert_close(hands, 5 * volume * (sigma < 3))


def test_bonds_are_compared_by_their_lengths_alone():
    """Three atoms in a row, bonds of 1.5: the ends, 3.0 apart, do not count."""
    target = torch.tensor([[[0.0, 0, 0], [1.5, 0, 0], [3.0, 0, 0]]])
    turned = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, -1]])  # with a reflection
    stretched = target.clone()
    stretched[0, 2, 0] += 0.4
    predicted = torch.stack([target[0] @ turned + 5, stretched[0]])[None].requires_grad_()
    error = bond_error(predicted, target, torch.ones(1, 3))
    torch.testing.assert_close(error, torch.tensor([[0.0, 0.4**2 / 2]]))
    error.sum().backward()
    expected = torch.tensor([[-0.4, 0, 0], [0.4, 0, 0]])  # d/dx of 0.16 / 2 at both ends
    torch.testing.assert_close(predicted.grad[0, 1, 1:], expected)
    alone = bond_error(predicted, target, torch.tensor([[1.0, 0, 0]]))
    torch.testing.assert_close(alone, torch.zeros(1, 2))


def test_a_mirror_image_has_the_volume_error_of_its_hand():
    """A carbon of tetrahedral bonds of 1.5 angstrom: 16 V^2 / V^2 / 4 where it is mirrored."""
    arms = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    target = (arms * 1.5 / 3**0.5)[None, :4]
    turned = target[0] @ random_rotations((1,), generator())[0] + 7.0
    flat = target[0].clone()
    flat[0] = target[0, 1:].mean(dim=0)  # the carbon in the plane of its neighbours
    predicted = torch.stack([turned, -turned, flat])[None]
    error = volume_error(predicted, target, torch.ones(1, 4))
    torch.testing.assert_close(error, torch.tensor([[0.0, 4.0, 1.0]]), atol=1e-4, rtol=1e-4)
    without = volume_error(predicted, target, torch.tensor([[1.0, 1, 1, 0]]))
    assert without.tolist() == [[0.0] * 3]  # two bonds have no volume


def heavy_atoms(path):
    """Topology without hydrogens and coordinates in angstrom of a structure."""
    whole = mdtraj.load(str(path))
    heavy = whole.topology.select("element != H")
    return whole.topology.subset(heavy), 10 * torch.from_numpy(whole.xyz[0, heavy])


def test_volumes_are_those_of_the_atoms_with_three_bonds_and_of_chains_of_four():
    """Of thymopentin (RKDVY), by mdtraj's bonds and RDKit's paths in them."""
    topology, xyz = heavy_atoms(THYMOPENTIN)
    bonds, neighbours, exists = _bonded(xyz, torch.ones(len(xyz), dtype=torch.bool))
    numbers = Counter(atom.index for bond in topology.bonds for atom in bond)
    assert exists.sum(dim=1).tolist() == [numbers[n] for n in range(len(xyz))]
    graph = Chem.RWMol()
    for _ in range(len(xyz)):
        graph.AddAtom(Chem.Atom(6))
    for one, other in topology.bonds:
        graph.AddBond(one.index, other.index, Chem.BondType.SINGLE)
    paths = [frozenset(path) for path in Chem.FindAllPathsOfLengthN(graph, 4, useBonds=False)]
    chains = [frozenset(chain) for chain in _chains(bonds, neighbours, exists).tolist()]
    assert Counter(chains) == Counter(paths)


def test_a_mirror_image_of_a_peptide_has_the_other_hand_at_each_alpha_carbon():
    """Thymopentin again: five of them, and the CB of its VAL, whose methyls have names."""
    topology, xyz = heavy_atoms(THYMOPENTIN)
    _, neighbours, exists = _bonded(xyz, torch.ones(len(xyz), dtype=torch.bool))
    centre = exists[:, 2].nonzero()[:, 0]
    handed = centre[signed_volumes(xyz, centre, neighbours[centre, :3]).abs() > 1.5]
    assert Counter(topology.atom(i).name for i in handed.tolist()) == {"CA": 5, "CB": 1}


def test_a_chain_of_four_has_the_volume_error_of_its_torsion():
    """Bonds b, angles of 90 degrees: a volume b^3 sin t, and ends b (3 - 2 cos t)^(1/2) apart."""
    b, torsions = 1.5, torch.tensor([1.0, 1.0, -1.0, 2.0])
    zero, one = torch.zeros(4), torch.ones(4)
    last = torch.stack([torch.cos(torsions), torch.sin(torsions), one], dim=-1)
    first = torch.stack([one, zero, zero], dim=-1)
    chains = b * torch.stack([first, 0 * first, torch.stack([zero, zero, one], -1), last], dim=1)
    error = volume_error(chains[None], chains[:1], torch.ones(1, 4))
    volume = b**3 * torsions.sin() / 2.598
    ends = b * (3 - 2 * torsions.cos()).sqrt()
    expected = ((volume - volume[0]) ** 2 + (ends - ends[0]) ** 2) / 2
    torch.testing.assert_close(error[0], expected, rtol=1e-3, atol=1e-6)


def test_edm_weight_is_upstreams_formula():
    sigma = torch.tensor([0.1, 1.0, 16.0])
    assert edm_weight(sigma, 16.0)[2].item() == pytest.approx(2 / 256)


# Toys whose distributions can be written down.


def minimise(loss, parameter):
    optimizer = torch.optim.LBFGS(
        [parameter],
        max_iter=500,
        tolerance_grad=1e-9,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


@BOTH
@pytest.mark.parametrize("sampled_at", [None, 300.0, 420.0])
@pytest.mark.parametrize("length_exponent", [0.0, 0.5])
def test_free_errors_of_many_states_converge_to_boltzmann_ratios(
    expectation, sampled_at, length_exponent
):
    """Six states, compared three at a time in all ways: the minimum is the same in each group."""
    energies, temperature = [0.0, 1.5, 4.0, 2.0, 6.0, 3.0], 2.0
    scaling = {"n_residues": 4, "length_exponent": length_exponent}
    target = reduced(energies, **scaling)
    log_q = None
    if sampled_at is not None:
        log_q = -reduced(energies, temperature_K=sampled_at, **scaling)
    errors = torch.rand(6, S, dtype=torch.float64, generator=generator()).requires_grad_()

    def loss():
        total = 0.0
        for group in map(list, itertools.combinations(range(6), 3)):
            proposal = None if log_q is None else log_q[group]
            total += eba(
                errors[group],
                energy_weights(target[group], proposal),
                diffusion_temperature=temperature,
                expectation=expectation,
                log_proposal=proposal,
            )
        return total

    minimise(loss, errors)
    mean = errors.detach().mean(dim=1)
    ratios = torch.exp(-temperature * (mean - mean[0]))
    scale = KT * 4**length_exponent
    expected = torch.tensor([math.exp(-e / scale) for e in energies], dtype=torch.float64)
    torch.testing.assert_close(ratios, expected, rtol=1e-5, atol=0)


def test_a_model_over_features_converges_to_boltzmann_ratios_relative_to_its_reference():
    """With a reference, p_theta / p_reference becomes the Boltzmann ratio, as in DPO."""
    features = torch.randn(4, 3, dtype=torch.float64, generator=generator())
    start = torch.randn(3, 1, dtype=torch.float64, generator=generator(1))
    energies = 5 * features @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
    parameter = start.clone().requires_grad_()
    w = weights(energies[:, 0], n_residues=1)

    def loss():
        reference = features @ start
        return eba(features @ parameter, w, diffusion_temperature=3.0, reference_errors=reference)

    minimise(loss, parameter)
    gained = torch.softmax(-3.0 * (features @ (parameter.detach() - start))[:, 0], dim=0)
    torch.testing.assert_close(gained, w, rtol=1e-5, atol=0)


def test_two_state_denoiser_trained_with_eba_reaches_the_boltzmann_ratio():
    """The exact denoiser of pi_1 N(a, s^2) + pi_2 N(b, s^2) knows one number, log(pi_1 / pi_2).

    Both states are equally frequent in training; at the minimum of the cross-entropy the model's
    own weights softmax(-T l) equal the energies', so their ratio is exp(-dE / (kT sqrt(N))).
    """
    states = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    logits = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    w = weights([0.0, 3.0], n_residues=1)
    sigma, temperature = 2.0, 5.0
    noise = torch.randn(512, dtype=torch.float64, generator=generator())
    noise = torch.cat([noise, -noise])

    def errors():
        noisy = states[:, None] + sigma * noise
        log_posterior = logits.log_softmax(0) - (noisy[..., None] - states) ** 2 / (2 * sigma**2)
        denoised = (log_posterior.softmax(-1) * states).sum(-1)
        return (denoised - states[:, None]) ** 2

    for _ in range(600):
        optimizer.zero_grad()
        mean_error = errors().mean(dim=1, keepdim=True)
        eba(mean_error, w, diffusion_temperature=temperature).backward()
        optimizer.step()
    implied = torch.softmax(-temperature * errors().mean(dim=1), dim=0).detach()
    assert (implied[0] / implied[1]).item() == pytest.approx(math.exp(3.0 / KT), rel=0.01)
    # The states' frequencies in the model moved the same way, from 1 : 1.
    assert logits[0] > logits[1]
