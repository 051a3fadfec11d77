import math
from pathlib import Path

import numpy as np
import pytest
import torch
from biotite.structure import AtomArray
from biotite.structure import dihedral as biotite_dihedral
from biotite.structure import tm_score as biotite_tm_score

from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.domains import read_domains, write_domains
from protenix_eba.ebmfold.handedness import (
    REFERENCE_DIHEDRALS,
    dihedral_divergence,
    is_mirrored,
    with_native_hand,
)
from protenix_eba.ebmfold.metrics import ca_rmsd, gdt_ts, is_mirror_image, lddt_ca, tm_score
from protenix_eba.ebmfold.trace import (
    PSEUDO_CB,
    PSEUDO_N,
    angle,
    coordinate_score,
    dihedral,
    frames,
    pseudo_atoms,
    squared_distances,
    trace_dihedrals,
)
from protenix_eba.protein.rigid_motions import random_rotations, rigid_align

DOMAINS = Path(__file__).parents[3] / "shared" / "data" / "cath_domains.npz"
needs_domains = pytest.mark.skipif(
    not DOMAINS.is_file(), reason="needs the domains in shared/data, see docs/checks.md"
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def helix():
    """C-alpha atoms of a right-handed alpha helix: 100 degrees and 1.5 angstrom a residue."""
    t = torch.arange(30) * math.radians(100)
    return torch.stack([2.3 * t.cos(), 2.3 * t.sin(), 1.5 * torch.arange(30)], -1)


@pytest.fixture(scope="module")
def natives():
    return read_domains(DOMAINS, "test") if DOMAINS.is_file() else []


def whole(x):
    return torch.ones(x.shape[-2] - 1, dtype=torch.bool)


def test_the_chain_rule_equals_automatic_differentiation(generator):
    x = torch.randn(2, 9, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    h = torch.randn(2, 9, 9, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad((h * squared_distances(x)).sum(), x)
    torch.testing.assert_close(coordinate_score(h, x.detach()), expected)


def test_the_score_has_no_net_force_and_no_torque_and_mirrors_with_the_structure(generator):
    x = 10 * torch.randn(9, 3, generator=generator, dtype=torch.float64) + 50
    h = torch.randn(9, 9, generator=generator, dtype=torch.float64)
    score = coordinate_score(h, x)
    assert score.abs().max() > 10
    assert score.sum(0).abs().max() < 1e-9
    assert torch.linalg.cross(x, score).sum(0).abs().max() < 1e-8
    torch.testing.assert_close(coordinate_score(h, -x), -score)


def test_dihedrals_have_the_sign_of_another_library(generator):
    points = torch.randn(20, 4, 3, generator=generator, dtype=torch.float64)
    ours = dihedral(*points.unbind(1)).numpy()
    np.testing.assert_allclose(ours, biotite_dihedral(*points.numpy().swapaxes(0, 1)), atol=1e-6)


def test_an_angle_is_the_one_of_the_cosine(generator):
    a, b, c = torch.randn(3, 20, 3, generator=generator, dtype=torch.float64)
    cosine = torch.nn.functional.cosine_similarity(a - b, c - b)
    torch.testing.assert_close(angle(a, b, c), cosine.acos())


def test_a_right_handed_helix_has_c_alpha_dihedrals_near_50_degrees(helix):
    degrees = torch.rad2deg(trace_dihedrals(helix))
    torch.testing.assert_close(degrees, torch.full((27,), 50.0), atol=1.0, rtol=0)


def test_frames_are_rotations_and_move_with_the_trace(helix, generator):
    axes = frames(helix)
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).expand_as(axes), atol=1e-5, rtol=0)
    assert torch.linalg.det(axes).gt(0.99).all()
    rotation = random_rotations((), generator)
    torch.testing.assert_close(frames(helix @ rotation + 5), axes @ rotation, atol=1e-5, rtol=0)


def test_frames_of_a_straight_line_are_finite_with_a_finite_gradient():
    line = torch.arange(5.0)[:, None].expand(5, 3).clone().requires_grad_()
    frames(line).square().sum().backward()
    assert line.grad.isfinite().all()


@needs_domains
def test_pseudo_atoms_are_where_the_atoms_of_native_domains_are(natives):
    for atom, offset, limit in ((3, PSEUDO_CB, 0.45), (0, PSEUDO_N, 0.3)):
        squared = torch.cat(
            [
                (pseudo_atoms(d.ca, offset) - d.backbone[1:-1, atom]).square().sum(-1)
                for d in natives
            ]
        )
        assert squared.mean().sqrt() < limit


@needs_domains
def test_no_native_domain_is_taken_for_a_mirror_image(natives):
    assert len(natives) == 200
    wrong = [d.name for d in natives if is_mirrored(d.ca, whole(d.ca))]
    wrong += [d.name for d in natives if not is_mirrored(-d.ca, whole(d.ca))]
    assert not wrong


def test_a_reflection_changes_the_answer_and_is_undone(helix):
    traces = torch.stack([helix, -helix])
    assert is_mirrored(traces, whole(helix)).tolist() == [False, True]
    torch.testing.assert_close(with_native_hand(traces, whole(helix)), torch.stack([helix, helix]))


def test_the_divergence_of_one_bin_is_minus_the_logarithm_of_its_share(helix):
    degrees = float(torch.rad2deg(trace_dihedrals(helix))[0])
    expected = -math.log(REFERENCE_DIHEDRALS[int((degrees + 180) // 10)])
    assert float(dihedral_divergence(helix, whole(helix))) == pytest.approx(expected, rel=1e-4)


def test_angles_across_a_chain_break_do_not_count(helix):
    broken = torch.cat([helix[:15], 7 - helix[15:]])
    bonded = whole(broken)
    bonded[14] = False
    assert float(dihedral_divergence(broken[:15], bonded[:14])) == pytest.approx(
        float(dihedral_divergence(helix[:15], whole(helix[:15])))
    )
    counted = dihedral_divergence(torch.cat([helix[:15], helix[15:] + 9]), bonded)
    torch.testing.assert_close(counted, dihedral_divergence(helix, whole(helix)))


def test_three_residues_have_no_hand(helix):
    assert not is_mirrored(helix[:3], whole(helix[:3]))


def test_metrics_of_the_native_structure_are_perfect_wherever_it_lies(helix, generator):
    moved = (helix @ random_rotations((), generator) + 30)[None]
    for metric in (lddt_ca, gdt_ts, tm_score):
        assert float(metric(moved, helix)) == pytest.approx(1.0, abs=1e-4)
    assert float(ca_rmsd(moved, helix)) < 1e-3


def test_lddt_is_blind_to_reflection_and_the_others_are_not(helix):
    mirrored = torch.stack([helix, -helix])
    torch.testing.assert_close(lddt_ca(mirrored, helix), torch.ones(2))
    assert gdt_ts(mirrored, helix)[1] < 0.9
    assert is_mirror_image(mirrored, helix).tolist() == [False, True]


def test_gdt_finds_the_half_that_fits_exactly(generator):
    """Half of the atoms moved away together: all cutoffs are met by just the other half."""
    native = 10 * torch.randn(40, 3, generator=generator)
    decoy = native.clone()
    decoy[20:] += torch.tensor([100.0, 0, 0]) + 30 * torch.randn(20, 3, generator=generator)
    assert 0.5 <= float(gdt_ts(decoy[None], native)) < 0.6


def test_the_tm_score_is_that_of_another_library_on_its_superposition(generator):
    native = 8 * torch.randn(80, 3, generator=generator)
    decoy = native + 1.5 * torch.randn(80, 3, generator=generator)
    moved = rigid_align(decoy, native, torch.ones(80)).numpy()
    reference = AtomArray(80)
    reference.coord, reference.res_name[:], reference.atom_name[:] = native.numpy(), "ALA", "CA"
    reference.res_id = np.arange(80)
    subject = reference.copy()
    subject.coord = moved
    theirs = biotite_tm_score(reference, subject, np.arange(80), np.arange(80))
    ours = float(tm_score(decoy[None], native))
    assert theirs - 1e-5 <= ours < theirs + 0.02


@needs_domains
def test_domains_are_read_as_they_were_written(tmp_path, generator):
    some = read_domains(DOMAINS, "valid")[:3]
    write_domains(tmp_path / "some.npz", some)
    for before, after in zip(some, read_domains(tmp_path / "some.npz"), strict=True):
        assert (before.name, before.sequence) == (after.name, after.sequence)
        torch.testing.assert_close(before.backbone, after.backbone, atol=0.005, rtol=0)


def test_files_that_hold_no_domains_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["x"]))
    for path in (tmp_path / "a.npz", tmp_path / "absent.npz"):
        with pytest.raises(UserError, match="domains"):
            read_domains(path)
