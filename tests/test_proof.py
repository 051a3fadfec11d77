"""What docs/proof.md says, on models in closed form and, for a few steps, on the shipped start."""

import numpy as np
import pytest
import torch

from protenix_eba.sample import SamplerSettings, sample_coordinates

CLOSED, OPEN = 4.0, 10.0  # angstrom: distances of two atoms
SHARE = 0.4


def pair_denoiser(*, aligned, share=SHARE):
    """The best denoiser of two atoms whose distance is 4 or 10 angstrom, in any orientation.

    The vector r between two noisy atoms has noise s = sqrt(2) sigma on each axis. Averaged over
    orientations, p(r | d) = exp(-(r^2 + d^2) / 2 s^2) sinh(k) / k with k = r d / s^2, and the mean
    vector given r and d is d (coth k - 1 / k) along r. Superposed on r it is d along r.
    """
    lengths = torch.tensor([CLOSED, OPEN], dtype=torch.float64)
    log_share = torch.tensor([share, 1 - share], dtype=torch.float64).log()

    def denoise(x, sigma):
        x = x.double()
        vector, centre = x[:, 1] - x[:, 0], x.mean(dim=1)
        r, variance = vector.norm(dim=-1, keepdim=True), 2 * sigma.double()[:, None] ** 2
        k = r * lengths / variance
        log_p = (
            log_share - (r - lengths) ** 2 / (2 * variance) + (1 - (-2 * k).exp()).log() - k.log()
        )
        length = lengths if aligned else lengths * (1 / torch.tanh(k) - 1 / k)
        mean = (torch.softmax(log_p, dim=-1) * length).sum(-1, keepdim=True) * vector / r
        return torch.stack([centre - mean / 2, centre + mean / 2], dim=1).float()

    return denoise


def closed_share(denoise, n=2000, steps=200):
    generators = [torch.Generator().manual_seed(i) for i in range(n)]
    settings = SamplerSettings(n_steps=steps, gamma0=0.0, s_max=10.0)
    x = sample_coordinates(denoise, 2, generators, settings, torch.device("cpu"))
    distance = (x[:, 1] - x[:, 0]).norm(dim=-1).numpy()
    assert (np.abs(distance[:, None] - [CLOSED, OPEN]).min(axis=1) < 0.5).mean() > 0.95
    return (distance < (CLOSED + OPEN) / 2).mean()


def test_the_posterior_mean_samples_the_populations_and_the_superposed_one_too_few_closed_ones():
    error = 3 * np.sqrt(SHARE * (1 - SHARE) / 2000)
    assert closed_share(pair_denoiser(aligned=False)) == pytest.approx(SHARE, abs=error + 0.01)
    assert closed_share(pair_denoiser(aligned=True)) < 0.5 * SHARE
