import random

import pytest
import torch

from protenix_eba.cli.session import load_configuration
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.embeddings import TrunkEmbeddings
from protenix_eba.host.features import (
    compact,
    complete,
    protein_features,
    with_atom_windows,
    with_random_references,
)
from protenix_eba.host.weights import build_diffusion_module, load_checkpoint
from protenix_eba.structures.sequences import Protein
from protenix_eba.training.data.crop import (
    atoms_of,
    choose_crop,
    contiguous_crop,
    crop_features,
    spatial_crop,
)
from protenix_eba.training.noisy_conformers import add_noise, denoising_errors

ALPHABET = "ACDEFGHIKLMNPQRSTVWY"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sequence(n, seed=0):
    return "".join(random.Random(seed).choices(ALPHABET, k=n))


@pytest.fixture(scope="module")
def protein():
    """Two chains, so that relative positions and chains' numbers are not trivial."""
    return protein_features(Protein("two", (sequence(40), sequence(20, 1))))


def leaves(features, prefix=""):
    for key, value in features.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def same(first, second):
    first, second = dict(leaves(first)), dict(leaves(second))
    assert first.keys() == second.keys()
    for key, value in first.items():
        if torch.is_tensor(value):
            assert value.dtype == second[key].dtype and torch.equal(value, second[key]), key
        else:
            assert value == second[key], key


def test_a_crop_of_everything_changes_nothing(protein):
    same(crop_features(protein.features, torch.arange(60)), protein.features)


def test_a_crop_is_a_slice_key_by_key(protein):
    """Sizes 60 (tokens) and N_atom occur in no other dimension here: shapes tell which to slice."""
    tokens = torch.cat([torch.arange(3, 12), torch.arange(30, 45), torch.tensor([50, 59])])
    atoms = torch.tensor(
        [n for n, (c, r, _) in enumerate(protein.atoms) if int(r + 40 * c) in tokens.tolist()]
    )
    assert torch.equal(atoms_of(protein.features, tokens), atoms)
    cropped = dict(leaves(crop_features(protein.features, tokens)))
    whole = dict(leaves(protein.features))
    assert cropped.keys() == whole.keys()
    chosen = {60: tokens, len(protein.atoms): atoms}
    anew = ("d_lm", "v_lm", "pad_info", "atom_to_token_idx", "frame_atom_index")
    for key in (k for k in whole if not k.startswith(anew)):
        expected = whole[key]
        for dim, size in enumerate(expected.shape):
            if size in chosen:
                expected = expected.index_select(dim, chosen[size])
        assert torch.equal(cropped[key], expected), key
    assert torch.equal(tokens[cropped["atom_to_token_idx"]], whole["atom_to_token_idx"][atoms])
    assert torch.equal(atoms[cropped["frame_atom_index"]], whole["frame_atom_index"][tokens])
    windows = with_atom_windows({k: cropped[k] for k in ("ref_pos", "ref_space_uid")})
    assert torch.equal(cropped["d_lm"], windows["d_lm"])
    assert torch.equal(cropped["v_lm"], windows["v_lm"])
    assert cropped["pad_info.q_pad"] == windows["pad_info"]["q_pad"]


def test_relative_positions_are_those_of_the_whole_protein(protein):
    """Residues 5 and 25 are 20 apart, also when what lies between them is left out."""
    tokens = torch.tensor([5, 25, 41])
    relp = crop_features(protein.features, tokens)["relp"]
    assert torch.equal(relp, protein.features["relp"][tokens][:, tokens])
    assert relp[0, 1, :66].argmax() == 32 - 20
    assert relp[0, 2, :66].argmax() == 65  # of another chain
    assert torch.equal(complete(crop_features(compact(protein).features, tokens))["relp"], relp)


@pytest.mark.parametrize("key", ["esm_token_embedding", "is_something"])
def test_an_unknown_feature_is_an_error(protein, key):
    features = protein.features | {key: torch.zeros(60, 7)}
    with pytest.raises(ValueError, match=f"unknown feature {key!r}"):
        crop_features(features, torch.arange(5))


def test_a_feature_of_another_shape_and_tokens_out_of_order_are_errors(protein):
    features = protein.features | {"restype": torch.zeros(59, 32)}
    with pytest.raises(
        ValueError, match=r"'restype': expected shape \[60, 'any'\], found \[59, 32\]"
    ):
        crop_features(features, torch.arange(5))
    with pytest.raises(ValueError, match="ascending"):
        crop_features(protein.features, torch.tensor([3, 1]))


@pytest.mark.parametrize("lengths", [(60,), (40, 20), (7, 30, 1, 22)])
@pytest.mark.parametrize("size", [1, 13, 59])
def test_contiguous_crops_are_one_run_of_each_chain(lengths, size):
    chain = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    seen = torch.zeros(60, dtype=torch.bool)
    for seed in range(200):
        tokens = contiguous_crop(chain, size, generator(seed))
        assert len(tokens) == size and (tokens.diff() > 0).all()
        for number in range(len(lengths)):
            run = tokens[chain[tokens] == number]
            assert (run.diff() == 1).all()
        seen[tokens] = True
    assert seen.all() or size == 1


def test_spatial_crops_are_the_nearest_residues_of_a_centre(protein):
    alpha, present = 20 * torch.randn(60, 3, generator=generator()), torch.ones(60).bool()
    present[[4, 17]] = False
    centres = set()
    for seed in range(200):
        tokens = spatial_crop(alpha, present, 15, generator(seed))
        assert len(tokens) == 15 and (tokens.diff() > 0).all()
        assert present[tokens].all()
        distance = torch.cdist(alpha, alpha[present]).masked_fill(~present[:, None], torch.inf)
        nearest = distance.argsort(dim=0)[:15].sort(dim=0).values
        matches = (nearest == tokens[:, None]).all(dim=0).nonzero().flatten().tolist()
        assert matches
        centres.update(matches)
    assert len(centres) > 40


def test_a_spatial_crop_is_of_one_of_the_conformers():
    """Of conformers on a line in opposite orders and a circle, each gives crops of its own."""
    line = torch.arange(30.0)
    mixed = torch.arange(30.0)[torch.randperm(30, generator=generator(1))]
    alpha = torch.stack([line, mixed])[..., None] * torch.tensor([3.8, 0, 0])
    kinds = set()
    for seed in range(40):
        tokens = choose_crop(
            alpha, torch.ones(30).bool(), torch.zeros(30), size=8, spatial=1.0,
            generator=generator(seed),
        )  # fmt: skip
        in_line = bool((tokens.diff() == 1).all())
        in_mixed = bool((mixed[tokens].sort().values.diff() == 1).all())
        assert in_line or in_mixed
        kinds.add(in_line)
    assert kinds == {True, False}


def test_crops_are_drawn_by_the_generator_in_the_share_asked_for():
    alpha = 30 * torch.randn(2, 200, 3, generator=generator())
    rest = (alpha, torch.ones(200).bool(), torch.zeros(200))

    def draw(spatial, seed):
        return choose_crop(*rest, size=20, spatial=spatial, generator=generator(seed))

    assert torch.equal(draw(0.5, 3), draw(0.5, 3))
    assert not torch.equal(draw(0.5, 3), draw(0.5, 4))

    def runs(spatial):
        return sum(bool((draw(spatial, seed).diff() == 1).all()) for seed in range(200))

    assert (runs(0.0), runs(1.0)) == (200, 0)
    assert 70 < runs(0.5) < 130
    everything = choose_crop(*rest, size=200, spatial=1.0, generator=generator())
    assert torch.equal(everything, torch.arange(200))


@torch.no_grad()
def test_the_diffusion_module_runs_on_a_crop(small_run, protein):
    configs = load_configuration(small_run / "small.yaml")
    state = {
        key: value + 0.05 * torch.randn(value.shape, generator=generator(7))
        for key, value in load_checkpoint(small_run / "start.pt").items()
    }
    denoiser = ConformerDenoiser(build_diffusion_module(configs, state)).eval()
    widths = (449, configs.c_s), (60, configs.c_z)
    embeddings = TrunkEmbeddings(
        *(torch.randn(60, width, generator=generator()) for width in widths[0]),
        torch.randn(60, *widths[1], generator=generator()),
    )
    tokens = torch.cat([torch.arange(10, 30), torch.arange(44, 52)])
    features = crop_features(compact(protein).features, tokens)
    features = complete(with_random_references(features, generator()))
    n_atoms = len(features["ref_pos"])
    target, mask = 5 * torch.randn(2, n_atoms, 3, generator=generator()), torch.ones(2, n_atoms)
    noisy = add_noise(
        target, mask, n_noise=3, noise_mean=-1.2, noise_std=1.5, sigma_data=16.0,
        generator=generator(),
    )  # fmt: skip
    cropped = embeddings.crop(tokens)
    assert torch.equal(cropped.z_trunk, embeddings.z_trunk[tokens][:, tokens])
    errors = denoising_errors(denoiser, features, cropped, noisy, target, mask)
    assert errors.mse.isfinite().all() and errors.mse.shape == (2, 3)
    # The features left out are none that the module reads, and their types do not matter.
    full = crop_features(protein.features, tokens) | {
        key: features[key] for key in ("ref_pos", "d_lm")
    }
    again = denoising_errors(denoiser, full, cropped, noisy, target, mask)
    assert torch.equal(errors.mse, again.mse) and torch.equal(errors.lddt, again.lddt)
