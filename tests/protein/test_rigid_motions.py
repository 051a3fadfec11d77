import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from protenix_eba.protein.rigid_motions import random_rotations, rigid_align


def random_motion(x, seed):
    rotation = torch.tensor(Rotation.random(random_state=seed).as_matrix(), dtype=x.dtype)
    return x @ rotation.T + torch.randn(3, generator=torch.Generator().manual_seed(seed)).to(x)


@pytest.fixture
def structure():
    return torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_moved_structure_is_moved_back(structure):
    moved = random_motion(structure, 1)
    back = rigid_align(moved, structure, torch.ones(20))
    torch.testing.assert_close(back, structure, atol=1e-10, rtol=0)


def test_a_mirror_image_is_not_aligned_onto_its_original(structure):
    mirrored = structure * torch.tensor([-1.0, 1.0, 1.0])
    back = rigid_align(mirrored, structure, torch.ones(20))
    assert (back - structure).norm(dim=-1).mean() > 0.3


def test_alignment_equals_scipys_rotation_with_weights(structure):
    generator = torch.Generator().manual_seed(3)
    other = random_motion(structure, 2) + 0.3 * torch.randn(20, 3, generator=generator)
    weight = torch.rand(20, generator=generator).double()
    ours = rigid_align(other, structure, weight).numpy()
    w, x, y = weight.numpy(), other.numpy(), structure.numpy()
    cx, cy = np.average(x, axis=0, weights=w), np.average(y, axis=0, weights=w)
    rotation, _ = Rotation.align_vectors(y - cy, x - cx, weights=w)
    np.testing.assert_allclose(ours, rotation.apply(x - cx) + cy, atol=1e-8)


def test_atoms_of_weight_zero_have_no_say(structure):
    moved = random_motion(structure, 4)
    spoilt = moved.clone()
    spoilt[0] = 1e3
    weight = torch.ones(20)
    weight[0] = 0
    back = rigid_align(spoilt, structure, weight)
    torch.testing.assert_close(back[1:], structure[1:], atol=1e-9, rtol=0)


def test_no_gradient_flows_through_the_alignment(structure):
    mobile = structure.clone().requires_grad_()
    assert not rigid_align(mobile, structure, torch.ones(20)).requires_grad


def test_random_rotations_are_proper_and_average_to_zero():
    rotations = random_rotations((4000,), torch.Generator().manual_seed(0))
    identity = torch.eye(3).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.transpose(-1, -2), identity, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(4000), atol=1e-5, rtol=0)
    # The mean of a uniform rotation is 0; each entry has variance 1/3.
    assert rotations.mean(dim=0).abs().max() < 5 * (1 / 3 / 4000) ** 0.5
    assert (rotations**2).mean(dim=0).sub(1 / 3).abs().max() < 0.03
