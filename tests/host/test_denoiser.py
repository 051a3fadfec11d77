import pytest
import torch

from protenix_eba.cli.session import load_configuration
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.embeddings import compute_embeddings
from protenix_eba.host.features import protein_features, with_random_references
from protenix_eba.host.starts import quick_start
from protenix_eba.host.weights import (
    build_diffusion_module,
    build_input_embedder,
    build_model,
    load_checkpoint,
    with_depth,
)
from protenix_eba.structures.sequences import Protein
from protenix_eba.training.noisy_conformers import add_noise, denoising_errors


@pytest.fixture(scope="module")
def parts(awake):
    """A diffusion module whose outputs are not the zeros of a fresh one, with its inputs."""
    configs, state, _ = awake()
    protein = protein_features(Protein("x", ("GAG",)))
    embeddings = compute_embeddings(build_model(configs, state), protein, 1)
    return configs, state, protein, embeddings


def noisy(n_atoms, n_conformers=2, n_noise=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = 5 * torch.randn(n_conformers, n_atoms, 3, generator=generator)
    mask = torch.ones(n_conformers, n_atoms)
    kwargs = {"n_noise": n_noise, "noise_mean": -1.2, "noise_std": 1.5, "sigma_data": 16.0}
    return target, mask, add_noise(target, mask, generator=generator, **kwargs)


def upstream(module, protein, embeddings, batch, k):
    """The host's plain forward of conformer k at all noise levels."""
    return module(
        x_noisy=batch.coordinates[k],
        t_hat_noise_level=batch.sigma,
        input_feature_dict=protein.features,
        s_inputs=embeddings.s_inputs,
        s_trunk=embeddings.s_trunk,
        z_trunk=embeddings.z_trunk,
        pair_z=None,
        p_lm=None,
        c_l=None,
    )


@torch.no_grad()
def test_one_pass_over_all_conformers_equals_upstreams_plain_forward(parts):
    configs, state, protein, embeddings = parts
    denoiser = ConformerDenoiser(build_diffusion_module(configs, state)).eval()
    _, _, batch = noisy(len(protein.atoms))
    ours = denoiser(
        protein.features, embeddings, batch.coordinates.flatten(0, 1), batch.sigma.repeat(2)
    ).unflatten(0, (2, 3))
    for k in range(2):
        theirs = upstream(denoiser.diffusion_module, protein, embeddings, batch, k)
        torch.testing.assert_close(ours[k], theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("n_residues", [8, 15, 16])  # 33, 61 and 65 atoms
def test_one_window_for_few_atoms_equals_upstreams_windows(awake, n_residues):
    configs, state, _ = awake()
    protein = protein_features(Protein("x", ("G" * n_residues,)))
    embeddings = compute_embeddings(build_model(configs, state), protein, 1)
    module = build_diffusion_module(configs, state).eval()
    _, _, batch = noisy(len(protein.atoms), n_conformers=1)
    ours = ConformerDenoiser(module)(protein.features, embeddings, batch.coordinates, batch.sigma)
    theirs = upstream(module, protein, embeddings, batch, 0)
    torch.testing.assert_close(ours[0], theirs, rtol=1e-4, atol=1e-4)
    assert module.atom_attention_encoder.n_keys == 128  # upstream's own again


@torch.no_grad()
def test_a_trained_input_embedder_starts_from_the_trunks_own_output(parts):
    configs, state, protein, embeddings = parts
    module = build_diffusion_module(configs, state)
    embedder = build_input_embedder(configs, state)
    _, _, batch = noisy(len(protein.atoms))
    inputs = (protein.features, embeddings, batch.coordinates, batch.sigma)
    cached, live = (
        ConformerDenoiser(module, input_embedder=e).eval()(*inputs) for e in (None, embedder)
    )
    torch.testing.assert_close(live, cached, rtol=1e-5, atol=1e-5)
    for parameter in embedder.parameters():
        parameter.mul_(1.1)
    changed = ConformerDenoiser(module, input_embedder=embedder).eval()(*inputs)
    assert (changed - cached).abs().max() > 1e-4


@torch.no_grad()
def test_errors_do_not_depend_on_the_order_of_conformers(parts):
    configs, state, protein, embeddings = parts
    denoiser = ConformerDenoiser(build_diffusion_module(configs, state)).eval()
    target, mask, batch = noisy(len(protein.atoms))
    errors = denoising_errors(denoiser, protein.features, embeddings, batch, target, mask)
    flipped = type(batch)(batch.coordinates.flip(0), batch.sigma, batch.clean.flip(0))
    again = denoising_errors(denoiser, protein.features, embeddings, flipped, target.flip(0), mask)
    torch.testing.assert_close(errors.mse, again.mse.flip(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(errors.lddt, again.lddt.flip(0), rtol=1e-4, atol=1e-5)


def test_noise_and_level_are_shared_by_the_conformers_but_not_the_motion():
    target, _, batch = noisy(40, n_conformers=2, n_noise=2000)
    clean = target - target.mean(1, keepdim=True)
    # The same conformer twice: what differs is the motion only.
    twice = clean[:1].expand(2, -1, -1)
    batch = add_noise(
        twice, torch.ones(2, 40), n_noise=4, noise_mean=-9.0, noise_std=0.0, sigma_data=16.0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    distances = torch.cdist(batch.coordinates, batch.coordinates)
    # cdist rounds to 0.02 on the diagonal.
    torch.testing.assert_close(distances[0], distances[1], atol=0.05, rtol=0)
    assert (batch.coordinates[0] - batch.coordinates[1]).abs().mean() > 0.5


def test_noise_levels_have_alphafold_3s_distribution():
    _, _, batch = noisy(1, n_noise=20000)
    logs = torch.log(batch.sigma / 16.0)
    assert logs.mean().item() == pytest.approx(-1.2, abs=0.05)
    assert logs.std().item() == pytest.approx(1.5, abs=0.05)


@torch.no_grad()
def test_added_blocks_change_nothing_exactly(parts):
    configs, state, protein, embeddings = parts
    deeper = load_configuration(
        None, **shape(configs), model__diffusion_module__transformer__n_blocks="4"
    )
    _, _, batch = noisy(len(protein.atoms), n_conformers=1)
    outputs = [
        ConformerDenoiser(build_diffusion_module(c, s)).eval()(
            protein.features, embeddings, batch.coordinates[0], batch.sigma
        )
        for c, s in ((configs, state), (deeper, with_depth(state, 4)))
    ]
    assert torch.equal(outputs[0], outputs[1])


def shape(configs):
    return {
        "model_name": configs.model_name,
        "c_s": str(configs.c_s),
        "c_z": str(configs.c_z),
        "model__diffusion_module__c_token": str(configs.model.diffusion_module.c_token),
        "blocks_per_ckpt": "null",
    }


def test_random_references_keep_each_residues_shape(parts):
    protein = parts[2]
    moved = with_random_references(protein.features, torch.Generator().manual_seed(1))
    space = protein.features["ref_space_uid"]
    for uid in space.unique():
        before, after = (f["ref_pos"][space == uid] for f in (protein.features, moved))
        torch.testing.assert_close(
            torch.cdist(before, before), torch.cdist(after, after), atol=1e-3, rtol=1e-3
        )
    assert (moved["ref_pos"] - protein.features["ref_pos"]).abs().max() > 0.1
    assert not torch.equal(moved["d_lm"], protein.features["d_lm"])


def entering(state, protein):
    """Root mean square, between atoms, of what identity and reference positions add to them."""
    features = protein.features
    names = ("ref_mask", "ref_element", "ref_atom_name_chars")
    n_atoms = len(protein.atoms)
    parts = {
        "f": torch.cat([features[name].reshape(n_atoms, -1).float() for name in names], dim=1),
        "ref_pos": features["ref_pos"],
    }
    prefix = "diffusion_module.atom_attention_encoder.linear_no_bias_"
    added = {key: value @ state[f"{prefix}{key}.weight"].T for key, value in parts.items()}
    return {key: (x - x.mean(0)).square().mean().sqrt().item() for key, x in added.items()}


def test_a_quick_start_tells_atoms_apart_by_what_they_are_not_by_their_reference(small_run):
    fresh = load_checkpoint(small_run / "start.pt")
    protein = protein_features(Protein("x", ("YGGFM",)))
    before, after = entering(fresh, protein), entering(quick_start(fresh), protein)
    assert before["f"] < 0.1 * before["ref_pos"]
    assert after["f"] > after["ref_pos"]


def test_a_quick_start_scales_four_maps_opens_the_gates_and_leaves_the_rest(small_run):
    fresh = load_checkpoint(small_run / "start.pt")
    changed = quick_start(fresh)
    encoder = "diffusion_module.atom_attention_encoder.linear_no_bias_"
    for name, factor in {"r": 8.0, "f": 20.0, "ref_pos": 0.1, "d": 0.1}.items():
        key = f"{encoder}{name}.weight"
        torch.testing.assert_close(changed.pop(key), factor * fresh[key])
    others = {key for key, value in changed.items() if not torch.equal(value, fresh[key])}
    assert others
    assert all(key.endswith((".linear_a_last.bias", ".linear_s.bias")) for key in others)
    assert all(key.startswith("diffusion_module.") for key in others)
