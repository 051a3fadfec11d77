"""What needs a GPU, and no more than `scripts/gpu_check.py --help` names: no conftest, no rdkit."""

import pytest
import torch

from bench_protein import benchmark_protein
from bench_train import Setting, difference, our_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
DEVICE = "cuda"


def gradients(device, *, low_memory=False, precision="float32"):
    """The loss of a small item, the gradient of each weight, and the peak of the device."""
    setting = Setting("batched", "tiny", 12, 2, device)
    torch.backends.cuda.matmul.allow_tf32 = False
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    loss, terms = our_step(setting, low_memory, precision)
    for term in terms:
        term.backward()
    found = {n: p.grad.cpu() for n, p in setting.module.named_parameters() if p.grad is not None}
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return float(loss), found, peak


@pytest.fixture(scope="module")
def on_cpu():
    return gradients("cpu")


def test_the_loss_and_its_gradient_are_those_of_the_cpu(on_cpu):
    loss, found, _ = gradients(DEVICE)
    assert loss == pytest.approx(on_cpu[0], rel=1e-4)
    assert found.keys() == on_cpu[1].keys() and difference(found, on_cpu[1]) < 1e-3


def test_in_bfloat16_the_gradient_points_the_same_way(on_cpu):
    _, found, _ = gradients(DEVICE, precision="bfloat16")
    ours, theirs = (
        torch.cat([some[name].double().flatten() for name in on_cpu[1]])
        for some in (found, on_cpu[1])
    )
    assert float(torch.cosine_similarity(ours, theirs, dim=0)) > 0.95


def test_low_memory_gives_the_same_gradient_at_a_lower_peak():
    _, whole, peak = gradients(DEVICE)
    _, split, lower = gradients(DEVICE, low_memory=True)
    assert difference(split, whole) < 1e-3 and lower <= peak


def test_the_smooth_lddt_and_its_gradient_are_those_of_the_cpu():
    from protenix_eba.training.denoising_error import smooth_lddt

    n_atoms = len(benchmark_protein(30).atoms)
    draw = torch.Generator().manual_seed(0)
    target = 15.0 * torch.rand(2, n_atoms, 3, generator=draw)
    start = target[:, None] + torch.randn(2, 3, n_atoms, 3, generator=draw)
    found = []
    for device in ("cpu", DEVICE):
        predicted = start.to(device).requires_grad_()
        score = smooth_lddt(predicted, target.to(device), torch.ones(2, n_atoms, device=device))
        score.sum().backward()
        found.append((score.detach().cpu(), predicted.grad.cpu()))
    torch.testing.assert_close(*(score for score, _ in found), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*(slope for _, slope in found), rtol=1e-3, atol=1e-6)


def test_a_sample_is_that_of_the_cpu():
    from bench_sample import Setting as Sampled
    from protenix_eba.sampling.samplers import TargetSampler
    from protenix_eba.sampling.settings import SamplerSettings

    torch.backends.cuda.matmul.allow_tf32 = False
    samples = []
    for device in ("cpu", DEVICE):
        one = Sampled("tiny", 12, device)
        settings = SamplerSettings(n_steps=5)
        sampler = TargetSampler(one.denoiser, one.protein, one.embeddings, settings, 0)
        samples.append(torch.from_numpy(sampler(range(2))))
    torch.testing.assert_close(*samples, rtol=0, atol=0.05)  # angstrom
