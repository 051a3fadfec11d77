import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from protenix_eba.errors import UserError
from protenix_eba.geometry import random_rotations
from protenix_eba.losses import (
    aligned_mse,
    eba,
    eba_dpo,
    edm_weight,
    effective_number,
    energy_weights,
    smooth_lddt,
)

K, S, N = 3, 4, 30


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def weights(energies, n_residues=9, temperature_K=300.0, length_exponent=0.5):
    return energy_weights(
        torch.as_tensor(energies, dtype=torch.float64),
        n_residues=n_residues,
        temperature_K=temperature_K,
        length_exponent=length_exponent,
    )


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
    # kT at 300 K from CODATA 2018, as energy.md's published beta = 0.4009 mol/kJ.
    assert (w[1] / w[0]).item() == pytest.approx(math.exp(-10 / (2.494338785 * 4)), rel=1e-8)


def test_energies_a_million_apart_give_a_finite_loss():
    loss = eba(torch.rand(2, S), weights([0.0, 1e6]), diffusion_temperature=5000.0)
    assert torch.isfinite(loss)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_energy_that_is_not_finite_is_refused(bad):
    with pytest.raises(UserError, match="finite"):
        weights([0.0, bad])


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


def test_dpo_refuses_three_conformers():
    with pytest.raises(UserError, match="2 conformers, found 3"):
        eba_dpo(torch.rand(3, S), torch.rand(3, S), torch.rand(3), diffusion_temperature=1.0)


@settings(deadline=None, max_examples=50)
@given(
    k=st.integers(2, 6),
    s=st.integers(1, 5),
    scale=st.floats(0.0, 1e6),
    temperature=st.floats(0.1, 5000.0),
    seed=st.integers(0, 2**31),
)
def test_loss_equals_numpy_and_is_bounded_by_the_entropy(k, s, scale, temperature, seed):
    rng = np.random.default_rng(seed)
    energies, errors = scale * rng.normal(size=k), rng.random((k, s))
    w = weights(energies)
    loss = eba(torch.as_tensor(errors), w, diffusion_temperature=temperature)
    kt = 8.31446261815324e-3 * 300
    expected_w = softmax(-(energies - energies.min()) / (kt * 3.0))
    expected = -(expected_w[:, None] * log_softmax(-temperature * errors, axis=0)).sum(0).mean()
    np.testing.assert_allclose(w.numpy(), expected_w, rtol=1e-9, atol=1e-300)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert loss.item() >= torch.special.entr(w).sum().item() - 1e-9


def test_order_of_conformers_changes_nothing():
    errors, energies = torch.rand(4, S).double(), torch.tensor([0.0, 3.0, 8.0, 1.0]).double()
    order = torch.tensor([2, 0, 3, 1])
    plain = eba(errors, weights(energies), diffusion_temperature=30.0)
    permuted = eba(errors[order], weights(energies[order]), diffusion_temperature=30.0)
    torch.testing.assert_close(plain, permuted)


def test_gradient_equals_finite_differences():
    errors = torch.rand(K, S, dtype=torch.float64, requires_grad=True)
    w = weights([0.0, 4.0, 9.0])
    assert torch.autograd.gradcheck(lambda e: eba(e, w, diffusion_temperature=7.0), errors)


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


def test_edm_weight_is_upstreams_formula():
    sigma = torch.tensor([0.1, 1.0, 16.0])
    assert edm_weight(sigma, 16.0)[2].item() == pytest.approx(2 / 256)


# A toy whose distribution can be written down.


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
    assert (implied[0] / implied[1]).item() == pytest.approx(math.exp(3.0 / 2.494338785), rel=0.01)
    # The states' frequencies in the model moved the same way, from 1 : 1.
    assert logits[0] > logits[1]
