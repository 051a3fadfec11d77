import itertools

import pytest
import torch

from protenix_eba.host.features import protein_features
from protenix_eba.protein.rigid_motions import random_rotations, rigid_align
from protenix_eba.structures.sequences import Protein
from protenix_eba.training.data.crop import atoms_of, renumbered
from protenix_eba.training.denoising_error import aligned_mse, smooth_lddt
from protenix_eba.training.noisy_conformers import NoisyConformers, denoising_errors
from protenix_eba.training.symmetry import SYMMETRIC_ATOMS, symmetric_partners, with_best_order

K, S = 3, 4
THREE = {
    "ASP": "D", "GLU": "E", "PHE": "F", "LEU": "L", "ARG": "R", "VAL": "V", "TYR": "Y"
}  # fmt: skip


@pytest.fixture(scope="module")
def protein():
    """Two chains; each residue with symmetric atoms, and some without."""
    return protein_features(Protein("x", ("DEFGLRVYA", "VKD")))


@pytest.fixture(scope="module")
def partners(protein):
    return symmetric_partners(protein.atoms, protein.protein.chains)


@pytest.fixture(scope="module")
def residue(protein):
    return protein.features["atom_to_token_idx"]


@pytest.fixture
def structures(protein):
    """Predictions near a third of the targets, far from the others; a mask with gaps."""
    draw = torch.Generator().manual_seed(0)
    n = len(protein.atoms)
    target = 4 * torch.randn(K, n, 3, generator=draw)
    far = torch.tensor([0.1, 2.0, 6.0])[:, None, None, None]
    predicted = target[:, None] + far * torch.randn(K, S, n, 3, generator=draw)
    turned = predicted @ random_rotations((K, S), draw) + 1.0
    return turned, target, (torch.rand(K, n, generator=draw) > 0.2).float()


def order_of(swapped, partners, residue):
    """Atoms with those of some residues exchanged."""
    chosen = torch.isin(residue, torch.tensor(swapped, dtype=torch.long))
    return torch.where(chosen, partners, torch.arange(len(partners)))


def symmetric_residues(partners, residue):
    moved = partners != torch.arange(len(partners))
    return residue[moved].unique().tolist()


def test_partners_are_those_of_the_ccd_by_residue(protein, partners):
    assert torch.equal(partners[partners], torch.arange(len(partners)))
    pairs = set()
    for n, m in enumerate(partners.tolist()):
        (c, r, name), (other_c, other_r, other) = protein.atoms[n], protein.atoms[m]
        assert (c, r) == (other_c, other_r)
        if n != m:
            pairs.add((c, r, name, other))
    expected = {
        (c, r, *both)
        for c, chain in enumerate(protein.protein.chains)
        for r, code in enumerate(chain)
        for pair in SYMMETRIC_ATOMS.get(code, ())
        for both in (pair, pair[::-1])
    }
    assert pairs == expected


@pytest.mark.parametrize(("name", "code"), THREE.items())
def test_an_exchange_keeps_the_bonds_of_the_residue(name, code):
    """Independent of our table: the CCD's bonds between heavy atoms, as biotite ships them."""
    from biotite.structure.info import residue as ccd_residue

    component = ccd_residue(name)
    component = component[component.element != "H"]
    bonds = {frozenset(map(int, bond)) for bond in component.bonds.as_array()[:, :2]}
    atoms = [(0, 0, str(atom)) for atom in component.atom_name]
    moved = symmetric_partners(atoms, [code]).tolist()
    assert moved != list(range(len(moved)))
    assert {frozenset(moved[n] for n in bond) for bond in bonds} == bonds


def test_a_lone_atom_of_a_pair_stays_where_it_is():
    assert symmetric_partners([(0, 0, "OD1"), (0, 0, "CG")], ["D"]).tolist() == [0, 1]


def test_the_names_of_symmetric_atoms_in_the_target_change_nothing(structures, partners, residue):
    predicted, target, mask = structures
    mask = torch.ones_like(mask)
    order = order_of([0, 2, 6, 9], partners, residue)

    def errors(truth):
        best = with_best_order(predicted, truth, mask, partners, residue)
        return aligned_mse(best, truth, mask), smooth_lddt(best, truth, mask)

    # the second half are conformers that the alignment places without doubt
    for one, other in zip(errors(target), errors(target[:, order]), strict=True):
        torch.testing.assert_close(one[:2], other[:2], rtol=1e-6, atol=1e-6)
    plain = aligned_mse(predicted, target[:, order], mask)[0]
    assert (plain > 2 * aligned_mse(predicted, target, mask)[0]).all()


def fixed_mse(structure, moved, mask):
    return (mask * (structure - moved).square().sum(-1)).sum(-1)


def test_the_order_is_the_best_of_all_at_fixed_alignment(structures, partners, residue):
    """Absent atoms, some of them symmetric ones, lie at the origin and do not count."""
    predicted, target, mask = structures
    target = target * mask[..., None]
    moved = rigid_align(target[:, None], predicted, mask[:, None])
    found = with_best_order(predicted, target, mask, partners, residue)
    numbers = symmetric_residues(partners, residue)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(numbers, n) for n in range(len(numbers) + 1)
    )
    orders = torch.stack([order_of(subset, partners, residue) for subset in subsets])
    assert len(orders) == 2 ** len(numbers) == 512
    everything = torch.stack(
        [fixed_mse(predicted[:, :, order], moved, mask[:, None]) for order in orders]
    )
    torch.testing.assert_close(
        fixed_mse(found, moved, mask[:, None]), everything.min(dim=0).values, rtol=1e-6, atol=0
    )


def test_the_aligned_error_never_rises(structures, partners, residue):
    predicted, target, mask = structures
    found = with_best_order(predicted, target, mask, partners, residue)
    before, after = (aligned_mse(x, target, mask) for x in (predicted, found))
    assert (after <= before * (1 + 1e-6)).all() and (after < 0.999 * before).any()


def test_other_residues_and_their_gradients_stay(structures, partners, residue):
    predicted, target, mask = structures
    predicted = predicted.requires_grad_()
    found = with_best_order(predicted, target, mask, partners, residue)
    lone = ~torch.isin(residue, torch.tensor(symmetric_residues(partners, residue)))
    assert torch.equal(found[:, :, lone], predicted[:, :, lone])
    changed = (found != predicted).any(-1)
    assert changed.any() and torch.equal(changed, changed & (partners != torch.arange(len(lone))))
    # PHE's and TYR's carbons move together
    (ring,) = ((residue == 2) & (partners != torch.arange(len(lone)))).nonzero().T
    assert (changed[..., ring].sum(-1) % len(ring) == 0).all()


def test_conformers_that_differ_by_names_only_have_equal_errors(protein, partners, residue):
    """The denoiser is one that gives the same structure for both."""
    draw = torch.Generator().manual_seed(2)
    target = 4 * torch.randn(1, len(partners), 3, generator=draw)
    order = order_of([1, 3], partners, residue)
    both = torch.cat([target, target[:, order]])
    same = (target + 0.3 * torch.randn(S, *target.shape[1:], generator=draw)).expand(2, -1, -1, -1)
    nowhere = torch.zeros(2, S, len(partners), 3)
    noisy = NoisyConformers(nowhere, torch.ones(S), nowhere)
    rest = (lambda *_: same, protein.features, None, noisy, both, torch.ones(2, len(partners)))
    with_names, without = denoising_errors(*rest), denoising_errors(*rest, partners)
    for name in ("mse", "lddt"):
        first, second = getattr(without, name)
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-7)
    assert (with_names.mse[1] > 2 * with_names.mse[0]).all()
    assert (with_names.lddt[1] < with_names.lddt[0]).all()
    torch.testing.assert_close(without.mse[0], with_names.mse[0])


def test_the_gradient_is_that_of_finite_differences(structures, partners, residue):
    """Also through the alignment, which is the best and so has no first derivative."""
    predicted, target, mask = (t.double() for t in structures)
    predicted = predicted.detach().requires_grad_()

    def loss(x):
        return aligned_mse(with_best_order(x, target, mask, partners, residue), target, mask).sum()

    (gradient,) = torch.autograd.grad(loss(predicted), predicted)
    draw, h = torch.Generator().manual_seed(1), 1e-6
    for _ in range(5):
        step = torch.randn(predicted.shape, generator=draw, dtype=torch.float64)
        up, down = (loss(predicted.detach() + sign * h * step) for sign in (1, -1))
        torch.testing.assert_close(
            (up - down) / (2 * h), (gradient * step).sum(), rtol=1e-5, atol=1e-6
        )


def test_what_is_not_finite_stays_so(structures, partners, residue):
    predicted, target, mask = structures
    target[0, 3] = torch.nan
    found = with_best_order(predicted, target, mask, partners, residue)
    assert torch.equal(found[0], predicted[0]) and found.isfinite().all()


def test_a_crop_has_its_own_partners(protein, partners):
    tokens = torch.tensor([0, 2, 3, 7, 9])
    atoms = atoms_of(protein.features, tokens)
    kept = [protein.atoms[n] for n in atoms]
    expected = symmetric_partners(kept, protein.protein.chains)
    assert torch.equal(renumbered(partners[atoms], atoms, len(partners)), expected)
