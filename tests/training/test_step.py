import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import kstest

from protenix_eba.host.config import EBAConfig
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.embeddings import compute_embeddings
from protenix_eba.host.environment import LOSSES
from protenix_eba.host.features import protein_features
from protenix_eba.host.weights import build_diffusion_module, build_model
from protenix_eba.structures.sequences import Protein
from protenix_eba.training.data.item import Item
from protenix_eba.training.noise import NoiseSettings
from protenix_eba.training.step import ItemStep
from protenix_eba.training.symmetry import symmetric_partners

K, S = 3, 2
NOISE = NoiseSettings(-1.2, 1.5, 16.0)
OBJECTIVES = ("denoising", "eba", "eba_dpo", "plackett_luce")


@pytest.fixture(scope="module")
def parts(awake):
    """A configuration, weights whose outputs are not zero, and an item of three conformers."""
    configs, state, draw = awake()
    protein = protein_features(Protein("x", ("DFV",)))
    embeddings = compute_embeddings(build_model(configs, state), protein, 1)
    n_atoms = len(protein.atoms)
    item = Item(
        target="x",
        frames=((1, 0), (1, 1), (2, 0)),
        features=protein.features,
        embeddings=embeddings,
        coordinates=5 * torch.randn(K, n_atoms, 3, generator=draw),
        mask=torch.ones(K, n_atoms),
        energy_kj_mol=torch.tensor([-30.0, -35.0, -28.0], dtype=torch.float64),
        n_residues=3,
        keep=torch.ones(K, dtype=torch.bool),
        sampled=torch.zeros(K, dtype=torch.bool),
        n_tokens=3,
        partners=symmetric_partners(protein.atoms, protein.protein.chains),
    )
    return configs, state, item


def make(
    parts, objective="eba", n_conformers=K, dtype=torch.float32, checkpointing=None, **options
):
    configs, state, _ = parts
    config = EBAConfig(
        objective=objective, n_conformers=n_conformers, n_noise=S, diffusion_temperature=5.0,
        sft_weight=0.5, **options,
    )  # fmt: skip
    module = build_diffusion_module(configs, state)
    module.blocks_per_ckpt = checkpointing
    module.diffusion_transformer.blocks_per_ckpt = checkpointing
    chosen = LOSSES.get(objective)(config)
    reference = None
    if chosen.needs_reference:
        reference = ConformerDenoiser(build_diffusion_module(configs, load_zeros(state)))
    model = ConformerDenoiser(module, dtype)
    return model, ItemStep(model, chosen, config, NOISE, torch.device("cpu"), reference)


def load_zeros(state):
    return {k: 0.5 * v for k, v in state.items()}


def gradients(parts, **options):
    model, step = make(parts, **options)
    item = parts[2]
    if options.get("n_conformers", K) == 2:
        names = ("coordinates", "mask", "energy_kj_mol", "keep", "sampled")
        first = {name: getattr(item, name)[:2] for name in names}
        item = type(item)(**{**item.__dict__, **first})
    denoised = step.denoise(item, torch.Generator().manual_seed(1))
    loss = step.loss(denoised)
    for term in step.backward_terms(denoised, loss):
        (term / step.n_backwards).backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def relative(ours, theirs):
    assert ours.keys() == theirs.keys()
    norm = sum(g.double().square().sum() for g in theirs.values())
    return math.sqrt(sum((ours[n] - g).double().square().sum() for n, g in theirs.items()) / norm)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_passes_give_the_gradient_of_one(parts, objective):
    k = 2 if objective == "eba_dpo" else K
    options = {"objective": objective, "n_conformers": k, "weight_volume": 1.0}
    loss, plain = gradients(parts, **options)
    again, split = gradients(parts, **options, low_memory=True)
    assert again == pytest.approx(loss, rel=1e-5)
    assert relative(split, plain) < 1e-4


@pytest.mark.parametrize("low_memory", [False, True])
def test_symmetric_atoms_are_compared_in_the_better_order_unless_switched_off(parts, low_memory):
    def errors(item, **options):
        step = make(parts, low_memory=low_memory, **options)[1]
        with torch.no_grad():
            return step.denoise(item, torch.Generator().manual_seed(1)).errors

    item = parts[2]
    on, off = errors(item), errors(item, symmetric_atoms=False)
    assert torch.equal(off.mse, errors(replace(item, partners=None)).mse)
    assert (on.mse <= off.mse).all() and (on.mse < off.mse).any()
    assert not torch.equal(on.lddt, off.lddt)


def test_activation_checkpointing_changes_nothing(parts):
    loss, plain = gradients(parts)
    again, checked = gradients(parts, checkpointing=1)
    assert again == pytest.approx(loss, rel=1e-6)
    assert relative(checked, plain) < 1e-5


def test_bfloat16_is_near_and_keeps_the_coordinates_precision(parts):
    """Coordinates in bfloat16 would be wrong by up to 0.06 angstrom at 16 to 32 angstrom."""
    item = parts[2]
    coordinates = item.coordinates[:, None] + 30.0
    sigma = torch.tensor([0.01])
    outputs = []
    for dtype in (torch.float32, torch.bfloat16):
        model, _ = make(parts, dtype=dtype)
        with torch.no_grad():
            outputs.append(model(item.features, item.embeddings, coordinates, sigma))
    difference = (outputs[0] - outputs[1]).abs().max().item()
    assert 0 < difference < 2e-3
    reduced, whole = gradients(parts, dtype=torch.bfloat16), gradients(parts)
    assert reduced[0] == pytest.approx(whole[0], rel=0.03)
    assert relative(reduced[1], whole[1]) < 0.2


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_skipped_item_adds_a_gradient_of_zero_to_every_weight(parts, low_memory):
    model, step = make(parts, low_memory=low_memory)
    nan = torch.full_like(parts[2].coordinates, math.nan)
    bad = type(parts[2])(**{**parts[2].__dict__, "coordinates": nan})
    denoised = step.denoise(bad, torch.Generator().manual_seed(1))
    assert not math.isfinite(step.loss(denoised))
    terms = list(step.zero_terms(denoised))
    assert len(terms) == step.n_backwards
    sum(terms).backward()
    trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    given = {n: g for n, g in trained.items() if g is not None}
    assert len(given) > 0.9 * len(trained)
    assert all(float(g.abs().max()) == 0.0 for g in given.values())


def test_noise_level_quantiles_have_the_distributions_moments():
    logs = torch.log(NOISE.quantiles(1000) / 16.0)
    assert logs.mean().item() == pytest.approx(-1.2, abs=1e-3)
    assert logs.std().item() == pytest.approx(1.5, rel=0.01)


def test_stratified_levels_take_one_of_each_share_and_keep_the_distribution():
    draw = torch.Generator().manual_seed(0)
    rounds = torch.stack([NOISE.quantiles(8, draw) for _ in range(500)])
    standard = (torch.log(rounds / 16.0) - NOISE.mean) / NOISE.std
    share = (torch.special.ndtr(standard) * 8).floor()
    assert (share == torch.arange(8)).all()
    assert kstest(standard.flatten().numpy(), "norm").pvalue > 0.01


def test_stratified_levels_are_those_of_the_items_own_generator(parts):
    items = [make(parts, stratified_noise=True) for _ in range(2)]
    both = [step.denoise(parts[2], torch.Generator().manual_seed(3)) for _, step in items]
    torch.testing.assert_close(*(denoised.errors.sigma for denoised in both), rtol=0, atol=0)
    low, high = both[0].errors.sigma
    assert low < 16 * math.exp(NOISE.mean) < high  # one below the median, one above
