import json

import numpy as np
import pytest
import torch

from protenix_eba.cli.main import run
from protenix_eba.cli.session import load_configuration
from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.conformations import find_conformations
from protenix_eba.ebmfold.prediction_files import read_predictions
from protenix_eba.ebmfold.predictions import HOST_EDGES
from protenix_eba.ebmfold.protenix_head import (
    EBMFoldHead,
    ProteinTokens,
    distogram_logits,
    host_predictions,
    refine_trace,
)
from protenix_eba.ebmfold.structures import match_residues, read_trace
from protenix_eba.host.embeddings import compute_embeddings
from protenix_eba.host.features import complex_features, protein_features
from protenix_eba.host.weights import build_model, save_checkpoint
from protenix_eba.structures.sequences import Protein

CHAINS = ("MKTAYIAKQRG", "GSHMLEDPVW")
COMPLEX = {
    "name": "complex",
    "sequences": [
        {"ligand": {"ligand": "CCO", "count": 1}},
        {"proteinChain": {"sequence": "MKTG", "count": 2}},
        {"proteinChain": {"sequence": "AGWDR", "count": 1}},
    ],
}


@pytest.fixture(scope="module")
def awake_model(awake):
    """The small model whose distogram head says something, its configuration and weights."""
    configs, state, _ = awake()
    state["distogram_head.linear.weight"] *= 10
    configs.sample_diffusion.N_step = 2
    configs.sample_diffusion.N_sample = 2
    return build_model(configs, state), configs, state


@pytest.fixture(scope="module")
def model_words(small_run, awake_model, tmp_path_factory):
    """The options that name the small model and a complex of two chains."""
    folder = tmp_path_factory.mktemp("model")
    save_checkpoint(folder / "awake.pt", awake_model[2])
    (folder / "my.fasta").write_text(f">my\n{':'.join(CHAINS)}\n")
    config = ["--config", str(small_run / "small.yaml")]
    return [
        "--checkpoint",
        str(folder / "awake.pt"),
        *config,
        "--fasta",
        str(folder / "my.fasta"),
    ]


def head_of(model, weights):
    """As the commands build it, on the model."""
    head = EBMFoldHead(load_configuration(None, ebmfold__weights=str(weights)))
    head.attach(model)
    return head


def run_stock(model, features):
    """Protenix's inference; it draws rows of the alignment, with this seed all of them."""
    from protenix.utils.seed import seed_everything

    seed_everything(0, deterministic=False)
    with torch.no_grad():
        prediction, _, _ = model(dict(features), None, None, mode="inference")
    return prediction


def test_the_hook_and_the_stored_pair_embeddings_give_the_same_predictions(awake_model, weights):
    """Protenix's own inference, and its trunk alone with the head applied to what it gives."""
    model, configs, state = awake_model
    made = protein_features(Protein("my", CHAINS))
    head = head_of(model, weights)
    with pytest.raises(UserError, match="has not run"):
        head.fold(1, 0)
    prediction = run_stock(model, made.features)
    target = head.target("my")
    z_trunk = compute_embeddings(model, made, int(configs.model.N_cycle)).z_trunk
    logits = distogram_logits(configs, state, z_trunk)
    np.testing.assert_allclose(
        target.predictions.distance, host_predictions(logits).distance, atol=1e-5
    )
    assert target.predictions.distance.std() > 0.005  # it is not the same for all pairs
    assert target.sequence == "".join(CHAINS)
    # What the host itself says of the same logits: contacts, by bins that begin below 8 angstrom.
    below = target.predictions.distance[..., 1:13].sum(-1)
    assert np.corrcoef(below.ravel(), prediction["contact_probs"].numpy().ravel())[0, 1] > 0.99
    head.detach()
    run_stock(model, protein_features(Protein("other", ("GGGGG",))).features)
    assert head.target().n_residues == len("".join(CHAINS))


def test_the_head_folds_and_refines_what_the_diffusion_module_sampled(awake_model, weights):
    model, _, _ = awake_model
    head = head_of(model, weights)
    made = protein_features(Protein("my", CHAINS))
    samples = run_stock(model, made.features)["coordinate"]
    decoys = head.fold(2, seed=0)
    assert decoys.ca.shape == (2, 21, 3)
    refined = head.refine(samples, seed=0, level=0.3)
    traces = samples[:, made.alpha_carbons]
    for one, trace in zip(refined, traces, strict=True):
        again, _ = refine_trace(head.network, head.target(), trace, 0, 0.3)
        torch.testing.assert_close(one.ca, again.ca)
    head.detach()


def test_of_a_complex_the_tokens_of_c_beta_atoms_of_proteins_are_taken():
    from protenix.data.inference.json_to_feature import SampleDictToFeatures

    features = complex_features(COMPLEX)
    residues = ProteinTokens.of(features)
    assert residues.sequence == "MKTG" + "MKTG" + "AGWDR"
    assert residues.chains == [4, 4, 5]
    assert np.diff(residues.residue_index).tolist() == [1] * 3 + [201] + [1] * 3 + [201] + [1] * 4
    # The host's own tables of tokens and atoms.
    _, atoms, tokens = SampleDictToFeatures(COMPLEX).get_feature_dict()
    assert len(tokens) == len(residues.tokens) + 3
    for code, token, alpha in zip(
        residues.sequence, residues.tokens.tolist(), residues.alpha_carbons.tolist(), strict=True
    ):
        within = atoms[np.array(tokens[token].atom_indices)]
        assert set(within.chain_mol_type) == {"protein"}
        assert ("CA" if code == "G" else "CB") in within.atom_name
        assert atoms.atom_name[alpha] == "CA" and atoms.res_id[alpha] == within.res_id[0]


def test_structures_that_protenix_pred_writes_are_those_of_the_complex(tmp_path):
    """By the host's own writer of mmCIF files, other molecules and all."""
    from protenix.data.inference.json_to_feature import SampleDictToFeatures
    from protenix.data.utils import save_structure_cif

    made = SampleDictToFeatures(COMPLEX)
    _, atoms, _ = made.get_feature_dict()
    xyz = torch.randn(len(atoms), 3, generator=torch.Generator().manual_seed(0))
    folder = tmp_path / "pred" / "seed_7"
    folder.mkdir(parents=True)
    name = str(folder / "complex_sample_0.cif")
    save_structure_cif(atoms, xyz, name, made.entity_poly_type, "complex", False)
    (found,) = find_conformations(tmp_path / "pred")
    assert found.name == "seed_7_complex_sample_0"
    trace, residues = found.read(), ProteinTokens.of(complex_features(COMPLEX))
    ours, theirs = match_residues(trace, 13, residues.sequence, residues.chains)
    assert ours.tolist() == list(range(13))
    expected = xyz[residues.alpha_carbons]
    torch.testing.assert_close(trace.ca[theirs], expected, atol=2e-3, rtol=0)


def test_a_modified_residue_is_its_c_beta_token_and_one_without_is_its_c_alpha():
    """The host gives a modified residue one token per atom; of 3 other residues one is glycine."""
    names = ["CA", "CB", "CA", "CA", "CB", "N", "CA", "CB", "OG"]
    token = torch.tensor([0, 0, 1, 2, 2, 3, 4, 5, 6])
    residue = torch.tensor([1, 2, 3, 4, 4, 4, 4])
    characters = torch.tensor([[ord(c) - 32 for c in name.ljust(4)] for name in names])
    restype = torch.nn.functional.one_hot(torch.tensor([0, 7, 1, 20, 20, 20, 20]), 32)
    features = {
        "asym_id": torch.zeros(7, dtype=torch.long),
        "residue_index": residue,
        "restype": restype,
        "atom_to_token_idx": token,
        "ref_atom_name_chars": torch.nn.functional.one_hot(characters, 64),
        "is_protein": torch.ones(9),
        "distogram_rep_atom_mask": torch.tensor([0, 1, 1, 0, 1, 1, 1, 1, 1]),
    }
    residues = ProteinTokens.of(features)
    assert residues.tokens.tolist() == [0, 1, 2, 5]
    assert residues.alpha_carbons.tolist() == [0, 2, 3, 6]
    assert residues.sequence == "AGRX" and residues.chains == [4]
    features["residue_index"] = torch.tensor([1, 2, 6, 7, 7, 7, 7])  # as in a training crop
    assert np.diff(ProteinTokens.of(features).residue_index).tolist() == [1, 4, 1]


def test_a_protein_that_is_too_short_or_absent_is_refused():
    lone = {"name": "a", "sequences": [{"ligand": {"ligand": "CCO", "count": 1}}]}
    with pytest.raises(UserError, match="at least 4 residues, found 0"):
        ProteinTokens.of(complex_features(lone))


def test_probabilities_of_the_host_keep_their_mass_and_near_pairs_their_bin():
    logits = torch.zeros(1, 1, 64)
    logits[..., 20] = 30.0  # all of it in one bin
    low, high = HOST_EDGES[19:21]
    distance = host_predictions(logits).distance[0, 0]
    assert distance.sum() == pytest.approx(1)
    edges = np.linspace(2, 20, 37)
    for n in np.flatnonzero(distance > 1e-6):
        assert edges[n] > low and edges[n - 1] < high
    with pytest.raises(UserError, match="not finite"):
        host_predictions(torch.full((1, 1, 64), torch.nan))


def test_other_bins_and_other_sizes_are_refused(awake_model, weights):
    import copy

    _, configs, state = awake_model
    other = copy.deepcopy(configs)
    other.loss.distogram.max_bin = 50.0
    with pytest.raises(UserError, match=r"21\.6875 angstrom, found 64 from 2\.3125 to 50"):
        distogram_logits(other, state, torch.zeros(4, 4, 16))
    less = {key: value for key, value in state.items() if "distogram" not in key}
    with pytest.raises(UserError, match="does not fit"):
        distogram_logits(configs, less, torch.zeros(4, 4, 16))


def fold_words(out, weights, *more):
    return ["fold", "--out", str(out), "--weights", str(weights), *more]


def scores_in(out):
    return json.loads((out / "scores.json").read_text())


def without_time(rows):
    return [{k: v for k, v in row.items() if k != "cpu_seconds"} for row in rows]


def test_a_killed_run_goes_on_to_the_same_decoys_without_the_model(
    model_words, weights, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    words = fold_words(out, weights, "-n", "3", *model_words)
    assert run(words) == 0
    whole, before = scores_in(out), {p.name: p.read_bytes() for p in out.glob("*.pdb")}
    assert [row["file"] for row in whole["decoys"]] == [f"decoy_{n}.pdb" for n in (1, 2, 3)]
    # As after a kill: two decoys are recorded, the file of one of them is lost.
    cut = whole | {"decoys": [row for row in whole["decoys"] if row["file"] != "decoy_1.pdb"]}
    (out / "scores.json").write_text(json.dumps(cut))
    (out / "decoy_3.pdb").unlink()
    monkeypatch.setattr("protenix_eba.host.weights.load_checkpoint", None)  # it would fail
    kept = (out / "decoy_2.pdb").stat().st_mtime_ns
    assert run(words) == 0
    assert without_time(scores_in(out)["decoys"]) == without_time(whole["decoys"])
    assert {p.name: p.read_bytes() for p in out.glob("*.pdb")} == before
    assert (out / "decoy_2.pdb").stat().st_mtime_ns == kept
    assert run([*words, "-n", "4"]) == 0
    assert without_time(scores_in(out)["decoys"])[0]["file"] == "decoy_1.pdb"
    assert len(scores_in(out)["decoys"]) == 4
    assert run(words) == 2  # fewer than there are
    # The distogram that was kept, with its chains, folds into the same.
    stored = ["--predictions", str(out / "predictions.npz")]
    assert run(fold_words(tmp_path / "again", weights, "-n", "1", *stored)) == 0
    assert (tmp_path / "again" / "decoy_1.pdb").read_bytes() == before["decoy_1.pdb"]


def test_chains_and_stored_embeddings_of_a_model(model_words, weights, small_run, tmp_path):
    """Embeddings that are kept give the same distogram as those that are not."""
    embed = ["embed", *model_words[:4], "--input", model_words[-1], "--out", str(tmp_path / "e")]
    assert run(embed) == 0
    for name, more in {"a": [], "b": ["--embeddings", str(tmp_path / "e")]}.items():
        words = fold_words(tmp_path / name, weights, "-n", "1", *model_words, *more)
        assert run(words) == 0
    one, other = (read_predictions(tmp_path / n / "predictions.npz").distance for n in "ab")
    np.testing.assert_array_equal(one, other)
    trace = read_trace(tmp_path / "a" / "decoy_1.pdb")
    assert trace.sequence == "".join(CHAINS)
    assert [int((trace.chains == n).sum()) for n in (0, 1)] == [len(c) for c in CHAINS]


def test_the_proteins_of_a_complex_are_folded(model_words, weights, tmp_path, capsys):
    (tmp_path / "c.json").write_text(json.dumps([COMPLEX]))
    words = [*model_words[:4], "--fasta", str(tmp_path / "c.json")]
    assert run(fold_words(tmp_path / "out", weights, "-n", "1", *words)) == 0
    trace = read_trace(tmp_path / "out" / "decoy_1.pdb")
    assert trace.sequence == "MKTGMKTGAGWDR" and trace.chains[-1] == 2
    unknown = json.loads(json.dumps(COMPLEX).replace('"CCO"', '"CCD_XYZ9"'))
    (tmp_path / "c.json").write_text(json.dumps([unknown]))
    assert run(fold_words(tmp_path / "no", weights, "-n", "1", *words)) == 2
    assert "molecules of complex" in capsys.readouterr().err


def test_each_frame_of_a_sampled_ensemble_is_refined_and_a_bad_one_is_named(
    model_words, weights, tmp_path
):
    import mdtraj

    sample = ["sample", *model_words[:4], "--input", model_words[-1], "--steps", "2", "-n", "3"]
    assert run([*sample, "--out", str(tmp_path / "samples")]) == 0
    folder = tmp_path / "samples" / "my"
    ensemble = mdtraj.load(folder / "my.xtc", top=folder / "my.pdb")
    ensemble.xyz[1] = np.nan  # of which the file's format makes garbage
    ensemble.save_xtc(str(folder / "my.xtc"))
    out = tmp_path / "refined"
    words = ["refine", "--structures", str(folder), "--weights", str(weights), "--out", str(out)]
    words += ["--level", "0.2", *model_words]
    assert run(words) == 3
    scores = scores_in(out)
    assert list(scores["failed"]) == ["my_2"]
    assert [row["file"] for row in scores["decoys"]] == ["my_1.pdb", "my_3.pdb"]
    assert {row["n_residues"] for row in scores["decoys"]} == {21}
    assert {row["starting_level_angstrom"] for row in scores["decoys"]} == {0.2}
    # One that is lost is made again, the other stays as it is.
    (out / "my_1.pdb").rename(tmp_path / "before.pdb")
    kept = (out / "my_3.pdb").stat().st_mtime_ns
    assert run(words) == 3
    assert (out / "my_1.pdb").read_bytes() == (tmp_path / "before.pdb").read_bytes()
    assert (out / "my_3.pdb").stat().st_mtime_ns == kept


def test_a_long_protein_is_folded_and_what_cannot_be_is_refused(weights, tmp_path, capsys):
    """300 residues: longer than the crops of any training here."""
    length = 300
    share = np.full((length, length, 37), 1 / 37, dtype=np.float16)
    share[np.arange(length - 1), np.arange(1, length)] = np.eye(37)[7]
    np.savez(tmp_path / "long.npz", dist=share)
    words = ["--predictions", str(tmp_path / "long.npz"), "-n", "1", "--sampler", "heun"]
    assert run(fold_words(tmp_path / "out", weights, *words)) == 0
    assert len(read_trace(tmp_path / "out" / "decoy_1.pdb").sequence) == length
    np.savez(tmp_path / "short.npz", dist=share[:3, :3])
    words[1] = str(tmp_path / "short.npz")
    assert run(fold_words(tmp_path / "no", weights, *words)) == 2
    assert "at least 4 residues, found 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either --predictions or --checkpoint"),
        (["--predictions", "p", "--checkpoint", "c"], "either --predictions or --checkpoint"),
        (["--checkpoint", "c"], "needs --config and --fasta"),
        (["--predictions", "p", "--config", "c"], "--config: for --checkpoint"),
        (["--checkpoint", "c", "--config", "c", "--fasta", "f"], "f: expected FASTA"),
        (["--checkpoint", "c", "--config", "c", "--fasta", "s.fasta"], "found 3"),
        (["--checkpoint", "absent", "--config", "c", "--fasta", "a.fasta"], "checkpoint: expected"),
        (["--checkpoint", "c", "--config", "c", "--fasta", "a.fasta"], "c"),
    ],
)
def test_options_that_do_not_go_together_are_said(
    words, message, weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c").write_text("")
    (tmp_path / "f").write_text("")
    (tmp_path / "s.fasta").write_text(">a\nACD\n")
    (tmp_path / "a.fasta").write_text(">a\nACDEF\n")
    assert run(fold_words("out", weights, *words)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_backbones_need_pulchra_and_say_so_first(
    model_words, weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(__import__("sys").modules, "pulchra", None)
    assert run(fold_words(tmp_path / "out", weights, "--backbone", *model_words)) == 2
    assert "pip install pulchra" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_backbone_keeps_the_trace_and_has_no_bond_across_a_gap(tmp_path):
    """A helix of which residues are missing: bonds of a peptide within, none across."""
    pytest.importorskip("pulchra")
    from biotite.structure.io.pdb import PDBFile

    from protenix_eba.ebmfold.backbone import write_backbone
    from protenix_eba.ebmfold.structures import write_trace

    t = torch.arange(12) * np.deg2rad(100)
    ca = torch.stack([2.3 * t.cos(), 2.3 * t.sin(), 1.5 * torch.arange(12)], -1)
    kept = [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    write_trace(tmp_path / "a.pdb", ca[kept], "AGPSTVLKDE", [5, 5], np.array(kept) + 1)
    write_backbone(tmp_path / "b.pdb", tmp_path / "a.pdb")
    before, after = (
        PDBFile.read(tmp_path / name).get_structure(model=1) for name in ("a.pdb", "b.pdb")
    )
    again = after[after.atom_name == "CA"]
    np.testing.assert_allclose(again.coord, before.coord, atol=0.002)
    for key in ("chain_id", "res_id", "res_name"):
        assert (getattr(again, key) == getattr(before, key)).all()
    c, n = after[after.atom_name == "C"].coord, after[after.atom_name == "N"].coord
    bonds = np.linalg.norm(c[:-1] - n[1:], axis=-1)
    assert bonds[4] > 3
    assert np.delete(bonds, 4) == pytest.approx(1.33, abs=0.15)


def test_sampling_with_the_head_refines_as_the_command_does(model_words, tmp_path, capsys):
    common = [*model_words[:4], "--embeddings", str(tmp_path / "e")]
    words = [*common, "--input", model_words[-1], "--out", str(tmp_path / "s"), "--steps", "2"]
    assert run(["sample", *words, "-n", "2", "--head", "ebmfold"]) == 0
    by_sample = tmp_path / "s_ebmfold" / "my"
    words += ["-n", "3", "--head", "ebmfold"]
    kept = (by_sample / "my_1.pdb").stat().st_mtime_ns
    assert run(["sample", *words]) == 0
    assert (by_sample / "my_1.pdb").stat().st_mtime_ns == kept
    refine = ["refine", *common, "--fasta", model_words[-1], "--out", str(tmp_path / "r")]
    assert run([*refine, "--structures", str(tmp_path / "s" / "my")]) == 0
    for number in (1, 2, 3):
        name = f"my_{number}.pdb"
        assert (by_sample / name).read_bytes() == (tmp_path / "r" / name).read_bytes()
    assert run(["sample", *words[:-1], "ebmfolt"]) == 2
    assert "no head called 'ebmfolt'; registered are: ebmfold" in capsys.readouterr().err


def test_the_network_and_the_sampler_of_the_head_are_those_of_the_configuration(weights, tmp_path):
    configs = load_configuration(None, ebmfold__weights=str(weights), ebmfold__sampler="peer")
    assert EBMFoldHead(configs).provenance == {"weights_sha256": None}
    with pytest.raises(UserError, match=r"expected a file at .*absent"):
        EBMFoldHead(load_configuration(None, ebmfold__weights=str(tmp_path / "absent")))
    with pytest.raises(UserError, match=r"ebmfold\.sampler: expected one of hybrid"):
        EBMFoldHead(load_configuration(None, ebmfold__sampler="hybrit"))
