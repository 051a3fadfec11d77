import json
from pathlib import Path

import numpy as np
import pytest
import torch

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.checkpoint import build_network, save_network
from protenix_eba.ebmfold.config import FOLD_SAMPLERS, PEER
from protenix_eba.ebmfold.conformations import find_conformations
from protenix_eba.ebmfold.fold import fold, fold_by_peer, score_table
from protenix_eba.ebmfold.likelihood import PairLikelihood
from protenix_eba.ebmfold.metrics import ca_rmsd, lddt_ca
from protenix_eba.ebmfold.network import ScoreNetwork
from protenix_eba.ebmfold.peer import PeerFolder, classical_scaling, completed_distances
from protenix_eba.ebmfold.prediction_files import (
    read_chains,
    read_predictions,
    read_source,
    write_predictions,
)
from protenix_eba.ebmfold.predictions import Predictions
from protenix_eba.ebmfold.refine import starting_level
from protenix_eba.ebmfold.sampling import SAMPLERS
from protenix_eba.ebmfold.standin import orientations, standin_predictions
from protenix_eba.ebmfold.structures import match_residues, read_trace, write_trace
from protenix_eba.ebmfold.target import Target
from protenix_eba.ebmfold.trace import PSEUDO_CB, PSEUDO_N, pseudo_atoms
from protenix_eba.protein.rigid_motions import rigid_align

T1008 = Path(__file__).parents[3] / "shared" / "data" / "trrosetta_T1008"


@pytest.fixture(scope="module")
def helix():
    """Backbones of two right-handed alpha helices side by side, atoms where pseudo atoms are."""
    t = torch.arange(18) * np.deg2rad(100)
    ca = torch.stack([2.3 * t.cos(), 2.3 * t.sin(), 1.5 * torch.arange(18)], -1)
    n, cb = pseudo_atoms(ca, PSEUDO_N), pseudo_atoms(ca, PSEUDO_CB)
    one = torch.stack([n, ca[1:-1], ca[1:-1], cb], 1)
    half_turn = torch.tensor([1.0, -1.0, -1.0])
    return torch.cat([one, one * half_turn + torch.tensor([10.0, 0, 25])])


def target_of(backbone, noise=0.0, orientations=True, seed=0):
    made = standin_predictions(backbone, noise, torch.Generator().manual_seed(seed))
    index = np.arange(len(backbone))
    index[len(backbone) // 2 :] += 20  # the helices are not bonded to each other
    chosen = made if orientations else made.without_orientations()
    return Target("helices", chosen, "A" * len(backbone), index)


@pytest.mark.parametrize("orientations", [False, True])
def test_the_truth_is_likelier_than_its_mirror_image_and_than_noise(helix, orientations):
    target = target_of(helix, orientations=orientations)
    likelihood = PairLikelihood(target)
    ca = helix[:, 1]
    noisy = ca + torch.randn(ca.shape, generator=torch.Generator().manual_seed(0))
    assert likelihood(ca) < likelihood(-ca) - 0.05
    assert likelihood(ca) < likelihood(noisy) - 0.5


def test_the_likelihood_of_uniform_predictions_is_the_logarithm_of_the_bins(helix):
    """36 bins of 1/36 within 20 angstrom, wherever the atoms are."""
    share = np.zeros((8, 8, 37), dtype=np.float32)
    share[..., 1:] = 1 / 36
    value = PairLikelihood(Target("a", Predictions(share)))(helix[:8, 1])
    assert float(value) == pytest.approx(np.log(36), abs=0.01)


def test_the_gradient_of_the_likelihood_is_its_slope(helix):
    target = target_of(helix[:8], noise=0.5)
    likelihood = PairLikelihood(target)
    x = helix[:8, 1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(likelihood(x), x)
    direction = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    step = 1e-3 * direction
    with torch.no_grad():
        slope = (likelihood(x + step) - likelihood(x - step)) / 2e-3
    assert float(slope) == pytest.approx(float((gradient * direction).sum()), rel=0.05)


def test_scaling_of_exact_distances_gives_the_structure_or_its_mirror_image(helix):
    ca = helix[:, 1]
    found = torch.tensor(classical_scaling(torch.cdist(ca, ca).double().numpy())).float()
    assert min(float(ca_rmsd(hand * found, ca)) for hand in (1, -1)) < 1e-2


def test_pairs_beyond_all_bins_get_the_length_of_a_path(helix):
    """Atoms on a line: the path over near pairs is the distance."""
    line = torch.zeros(30, 4, 3)
    line[..., 0] = 3.8 * torch.arange(30)[:, None]
    line[:, 3, 1] = 1.5
    complete = completed_distances(Target("a", standin_predictions(line, 0.0, torch.Generator())))
    assert complete[0, 29] == pytest.approx(29 * 3.8, rel=0.05)


@pytest.mark.parametrize("orientations", [False, True])
def test_the_peer_folds_nearly_exact_predictions(helix, orientations):
    target = target_of(helix, orientations=orientations)
    decoys = fold_by_peer(target, 1, 0)
    assert lddt_ca(decoys.ca, helix[:, 1]).max() > 0.9
    best = decoys.ca[decoys.selected]
    assert float(ca_rmsd(best, helix[:, 1])) < 1.5


def test_the_peers_objective_does_not_rise(helix):
    target = target_of(helix, noise=0.5)
    folder = PeerFolder(target)
    start = torch.tensor(folder._start, dtype=torch.float32)
    found = folder(np.random.default_rng(0))
    assert folder.objective(found) < min(folder.objective(start), folder.objective(-start))
    assert folder.n_evaluations > 10


def test_decoys_of_a_network_are_the_same_again_in_other_batches_and_in_the_native_hand(
    helix, weights, monkeypatch
):
    from protenix_eba.ebmfold import fold as module
    from protenix_eba.ebmfold.checkpoint import load_network
    from protenix_eba.ebmfold.handedness import is_mirrored

    target, network = target_of(helix), load_network(weights)
    together = fold(network, target, SAMPLERS["churned"], 3, 7)
    monkeypatch.setattr(module, "_PAIRS_AT_A_TIME", 1)
    apart = fold(network, target, SAMPLERS["churned"], 3, 7)
    torch.testing.assert_close(together.ca, apart.ca, rtol=1e-3, atol=1e-2)
    refined = sum(0 < level < 1 for level in SAMPLERS["churned"].levels) + 1
    assert together.n_evaluations == 20 + 2 * refined <= 64
    reflected = fold(network, target, SAMPLERS["langevin"], 3, 7)
    assert not is_mirrored(reflected.ca, target.bonded).any()


def test_the_hand_after_each_level_and_at_the_end_are_the_same(helix):
    """For a network that does not see chirality."""
    torch.manual_seed(0)
    network = build_network("equivariant", {"n_layers": 1, "channels": 4, "chiral": False}).eval()
    target, sampler = target_of(helix), SAMPLERS["heun"]
    at_the_end = fold(network, target, sampler, 3, 0)
    each = fold(network, target, sampler, 3, 0, hand_each_level=True)
    # This sampler draws nothing after its start, so the two agree to rounding.
    for one, other in zip(at_the_end.ca, each.ca, strict=True):
        assert float(ca_rmsd(one, other)) < 0.05


class Stays(ScoreNetwork):
    """Knows nothing: what it is given is what it gives back."""

    def __init__(self):
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def embed(self, features):
        return features

    def forward(self, x, sigma, condition):
        return x


@pytest.mark.parametrize("orientations", [False, True])
def test_the_hybrid_folds_exact_predictions_whatever_the_network(helix, orientations):
    target = target_of(helix, orientations=orientations)
    decoys = fold(Stays(), target, SAMPLERS["hybrid"], 2, 0)
    assert ca_rmsd(decoys.ca, helix[:, 1]).max() < 1
    assert decoys.n_evaluations == 3 + len(SAMPLERS["hybrid"].levels) - 1
    known = fold(Knows(helix[:, 1] - helix[:, 1].mean(0)), target, SAMPLERS["hybrid"], 1, 0)
    assert float(ca_rmsd(known.ca, helix[:, 1])) < 0.05


def test_a_descent_stays_near_and_makes_the_distances_likelier(helix):
    folder = PeerFolder(target_of(helix, noise=0.25))
    before = helix[:, 1] + torch.randn(
        helix[:, 1].shape, generator=torch.Generator().manual_seed(0)
    )
    after = folder.descend(before)
    values = [float(folder.objective(x, orientation_weight=0.0)) for x in (before, after)]
    assert values[1] < values[0] - 1
    assert (after - before).square().mean().sqrt() < 1


def test_all_angles_at_once_are_those_of_each_pair(helix):
    """Orientations' part of the likelihood, pair by pair with the angles of the predictor."""
    target = target_of(helix[:16], noise=0.5)
    likelihood = PairLikelihood(target)
    x = helix[:16, 1] + 0.5 * torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    found = likelihood(x) - likelihood(x, orientation_weight=0.0)
    angles = orientations_of(x)
    expected = 0.0
    for name, symmetric in (("omega", True), ("theta", False), ("phi", False)):
        share = getattr(target.predictions, name)
        for i in range(16):
            for j in range(16):
                if i == j or (symmetric and i > j) or {i, j} & {0, 7, 8, 15}:
                    continue  # at the ends of both helices there are no pseudo atoms
                near = 1 - share[i, j, 0]
                if near > 0.5:
                    value = float(angles[name][i, j])
                    table = np.log(0.999 * share[i, j, 1:] / near + 0.001 / (share.shape[-1] - 1))
                    expected -= near * interpolated(table, value, name != "phi")
    assert float(found * likelihood.n_pairs) == pytest.approx(expected, rel=1e-3)


def orientations_of(ca):
    inner = [pseudo_atoms(ca, offset) for offset in (PSEUDO_N, PSEUDO_CB)]
    n, cb = (torch.cat([ca[:1], atoms, ca[-1:]]) for atoms in inner)
    return orientations(torch.stack([n, ca, ca, cb], 1))


def interpolated(table, value, periodic):
    step = np.deg2rad(15)
    position = (value + (np.pi if periodic else 0)) / step - 0.5
    if periodic:
        padded = np.concatenate([table[-1:], table, table[:1]])
        return np.interp(position, np.arange(-1, len(table) + 1), padded)
    return np.interp(position, np.arange(len(table)), table)


class Knows(ScoreNetwork):
    """Denoises to a structure or to its mirror image, whichever is nearer."""

    def __init__(self, ca):
        super().__init__()
        self.known = torch.nn.Parameter(torch.stack([ca, -ca]))

    def embed(self, features):
        return features

    def forward(self, x, sigma, condition):
        candidates = [
            rigid_align(known, y, torch.ones(len(known))) for known in self.known for y in x
        ]
        of_each = torch.stack(candidates).unflatten(0, (2, len(x)))
        error = (of_each - x).square().sum((-1, -2))
        return of_each[error.argmin(0), torch.arange(len(x))]


def test_of_a_sample_and_its_mirror_image_the_native_one_stays(helix):
    ca = helix[:, 1] - helix[:, 1].mean(0)
    network, target = Knows(ca), target_of(helix)
    decoys = fold(network, target, SAMPLERS["churned"], 4, 0)
    assert 0 < decoys.reflected.sum() < 4
    for trace in decoys.ca:
        assert float(ca_rmsd(trace, ca)) < 0.1


def test_the_hybrid_turns_a_rough_trace_of_the_wrong_hand(helix, monkeypatch):
    ca = helix[:, 1] - helix[:, 1].mean(0)
    monkeypatch.setattr(PeerFolder, "begin", lambda self, generator: -ca)
    decoys = fold(Knows(ca), target_of(helix), SAMPLERS["hybrid"], 2, 0)
    assert ca_rmsd(decoys.ca, ca).max() < 0.1


def test_the_scores_say_which_decoy_is_the_mirror_image(helix):
    from protenix_eba.ebmfold.fold import Decoys

    ca = helix[:, 1]
    decoys = Decoys(
        torch.stack([-ca, ca]), torch.tensor([False, False]), torch.tensor([2.0, 1]), 1, 1
    )
    mirrored, right = score_table(decoys, ca)
    assert (mirrored["mirrored"], right["mirrored"]) == (True, False)
    assert mirrored["lddt_ca"] == right["lddt_ca"] == 1.0
    assert mirrored["gdt_ts"] < right["gdt_ts"] == 1.0
    assert (mirrored["selected"], right["selected"]) == (False, True)
    assert score_table(decoys)[0]["lddt_ca"] is None


def test_a_trace_is_read_as_it_was_written_and_its_residues_found(tmp_path, helix):
    sequence = "ACDEFGHIKLMNPQRSTVWYACDEFGHIKLMN"
    write_trace(tmp_path / "a.pdb", helix[:, 1], sequence, [16, 16])
    trace = read_trace(tmp_path / "a.pdb")
    assert trace.sequence == sequence
    torch.testing.assert_close(trace.ca, helix[:, 1] - helix[:, 1].mean(0), atol=1e-3, rtol=0)
    longer = "GG" + sequence[:10] + "WWW" + sequence[10:]
    ours, theirs = match_residues(trace, len(longer), longer)
    assert all(longer[i] == sequence[j] for i, j in zip(ours, theirs, strict=True))
    assert len(ours) == 32
    with pytest.raises(UserError, match="numbers"):
        match_residues(trace, 14, None)
    with pytest.raises(UserError, match="those of the"):
        match_residues(trace, 32, "W" * 32)


def test_chains_are_matched_in_whatever_order_they_stand(tmp_path, helix):
    """A heteromer's second chain first, and a gap of which alignment alone does not know where."""
    one, other = "ACDEFGHIKLMNPQRS", "WWAAAAAAYYVVVVLL"
    order = [*range(16, 18), *range(20, 32), *range(16)]  # of the second chain, 3 and 4 are missing
    numbers = np.array([k % 16 + 1 for k in order])
    letters = "".join((one + other)[k] for k in order)
    write_trace(tmp_path / "a.pdb", helix[order, 1], letters, [14, 16], numbers)
    trace = read_trace(tmp_path / "a.pdb")
    ours, theirs = match_residues(trace, 32, one + other, [16, 16])
    assert ours.tolist() == sorted(order)
    expected = helix[ours, 1] - helix[order, 1].mean(0)
    torch.testing.assert_close(trace.ca[theirs], expected, atol=1e-3, rtol=0)
    with pytest.raises(UserError, match="without other chains"):
        match_residues(trace, 32, one + one, [16, 16])
    # Equal chains are taken in order, and one that is absent is the last.
    write_trace(tmp_path / "b.pdb", helix[:16, 1], one)
    assert match_residues(read_trace(tmp_path / "b.pdb"), 32, one * 2, [16, 16])[0].max() == 15


def test_models_of_a_file_and_files_of_a_folder_are_conformations(tmp_path, helix):
    from biotite.structure import stack
    from biotite.structure.io import load_structure, save_structure

    write_trace(tmp_path / "a.pdb", helix[:, 1], "A" * 32)
    atoms = load_structure(tmp_path / "a.pdb", model=1)
    moved = atoms.copy()
    moved.coord += 1
    (tmp_path / "in" / "seed_1").mkdir(parents=True)
    save_structure(tmp_path / "two.cif", stack([atoms, moved]))
    save_structure(tmp_path / "in" / "seed_1" / "s.cif", atoms)
    (tmp_path / "in" / "t.pdb").write_text("hello")
    (tmp_path / "in" / "t.json").write_text("{}")
    first, second = find_conformations(tmp_path / "two.cif")
    assert (first.name, second.name) == ("two_1", "two_2")
    torch.testing.assert_close(second.read().ca, first.read().ca + 1)
    found = {c.name: c for c in find_conformations(tmp_path / "in")}
    assert list(found) == ["seed_1_s", "t"]
    torch.testing.assert_close(found["seed_1_s"].read().ca, first.read().ca)
    with pytest.raises(UserError, match="cannot read"):
        found["t"].read()
    for absent in (tmp_path / "no", tmp_path / "in" / "seed_1" / "s"):
        with pytest.raises(UserError, match="nothing at"):
            find_conformations(absent)


def test_predictions_are_read_as_they_were_written(tmp_path, helix):
    made = standin_predictions(helix[:8], 0.5, torch.Generator().manual_seed(0))
    write_predictions(tmp_path / "p.npz", made, ["AAAA", "CCCC"], "here")
    read = read_predictions(tmp_path / "p.npz")
    np.testing.assert_allclose(read.distance, made.distance, atol=5e-4)
    np.testing.assert_allclose(read.theta, made.theta, atol=5e-4)
    assert read_chains(tmp_path / "p.npz") == ("AAAA", "CCCC")
    assert read_source(tmp_path / "p.npz") == "here"
    np.savez(tmp_path / "q.npz", dist=made.distance)
    assert read_chains(tmp_path / "q.npz") == () and read_source(tmp_path / "q.npz") is None


def predictions_file(path, backbone):
    made = standin_predictions(backbone, 0.25, torch.Generator().manual_seed(0))
    np.savez(path, dist=made.distance, omega=made.omega, theta=made.theta, phi=made.phi)
    return str(path)


def test_fold_writes_traces_and_scores_and_a_second_run_changes_nothing(tmp_path, helix, weights):
    predictions = predictions_file(tmp_path / "p.npz", helix[:16])
    (tmp_path / "p.fasta").write_text(">protein\n" + "A" * 16 + "\n")
    write_trace(tmp_path / "native.pdb", helix[:16, 1], "A" * 16)
    options = ["--fasta", str(tmp_path / "p.fasta"), "--native", str(tmp_path / "native.pdb")]
    for name, more in {"peer": ["--sampler", "peer"], "net": ["--weights", str(weights)]}.items():
        out = tmp_path / name
        words = [
            "fold",
            "--predictions",
            predictions,
            "--out",
            str(out),
            "-n",
            "2",
            *options,
            *more,
        ]
        assert run(words) == 0
        scores = json.loads((out / "scores.json").read_text())
        assert len(scores["decoys"]) == 2
        keys = {"lddt_ca", "gdt_ts", "mirrored", "negative_log_likelihood", "selected"}
        assert keys <= set(scores["decoys"][0])
        assert sum(row["selected"] for row in scores["decoys"]) == 1
        assert read_trace(out / "decoy_2.pdb").sequence == "A" * 16
        before = (out / "scores.json").stat().st_mtime_ns
        assert run(words) == 0
        assert (out / "scores.json").stat().st_mtime_ns == before
        assert run([*words, "--seed", "5"]) == 2  # other decoys are there
    assert scores["decoys"][0]["lddt_ca"] is not None


@pytest.mark.parametrize("bend", [0.0, 0.5, 1.5, 4.0])
def test_a_trace_that_is_further_off_is_refined_from_more_noise(helix, bend):
    """Stretched by up to a few angstrom: from the smallest level to more than the error."""
    target = target_of(helix, noise=0.25)
    generator = torch.Generator().manual_seed(0)
    ca = helix[:, 1] + bend * torch.randn(helix[:, 1].shape, generator=generator)
    level = starting_level(target, ca)
    if bend == 0:
        assert level == 0.3
    assert 0.3 <= level <= max(0.5, 1.2 * bend)
    assert level >= 0.3 * min(bend, 3.0)


def test_where_nothing_is_predicted_refinement_starts_high(helix):
    far = np.zeros((32, 32, 37), dtype=np.float32)
    far[..., 0] = 1
    assert starting_level(Target("a", Predictions(far)), helix[:, 1]) == 3.0


def test_refine_keeps_the_fold_and_reports_what_failed(tmp_path, helix, weights):
    predictions = predictions_file(tmp_path / "p.npz", helix)
    letters = "ACDEFGHIKLMNPQRS" * 2
    (tmp_path / "p.fasta").write_text(">p\n" + letters + "\n")
    write_trace(tmp_path / "whole.pdb", helix[:, 1], letters)
    write_trace(tmp_path / "part.pdb", helix[3:, 1], letters[3:])
    (tmp_path / "junk.pdb").write_text("hello")
    out = tmp_path / "out"
    words = ["refine", "--predictions", predictions, "--fasta", str(tmp_path / "p.fasta")]
    words += ["--weights", str(weights), "--out", str(out), "--native", str(tmp_path / "whole.pdb")]
    for name in ("whole", "part", "junk"):
        words += ["--structures", str(tmp_path / f"{name}.pdb")]
    assert run(words) == 3
    scores = json.loads((out / "scores.json").read_text())
    assert list(scores["failed"]) == ["junk"]
    whole, part = scores["decoys"]
    assert whole["lddt_ca_before"] == part["lddt_ca_before"] == 1.0
    assert whole["starting_level_angstrom"] == 0.3
    # An untrained network, between descents on the likelihood.
    assert whole["ca_rmsd_angstrom"] < 2 and not whole["mirrored"]
    assert read_trace(out / "part.pdb").numbers.tolist() == list(range(4, 33))


def test_refined_chains_keep_their_names_and_numbers(tmp_path, helix, weights):
    predictions = predictions_file(tmp_path / "p.npz", helix)
    letters = "ACDEFGHIKLMNPQRS"
    (tmp_path / "p.fasta").write_text(f">p\n{letters}:{letters}\n")
    write_trace(tmp_path / "a.pdb", helix[2:, 1], (letters + letters)[2:], [14, 16])
    words = ["--fasta", str(tmp_path / "p.fasta"), "--structures", str(tmp_path / "a.pdb")]
    words += ["--weights", str(weights), "--out", str(tmp_path / "out")]
    assert run(["refine", "--predictions", predictions, *words]) == 0
    lines = (tmp_path / "out" / "a.pdb").read_text().splitlines()
    found = [(line[21], int(line[22:26])) for line in lines if line.startswith("ATOM")]
    assert found == [("A", n) for n in range(3, 17)] + [("B", n) for n in range(1, 17)]


def test_the_command_lists_the_samplers_that_there_are():
    assert set(FOLD_SAMPLERS) == {*SAMPLERS, PEER}


def test_a_network_that_diverges_is_said_and_nothing_is_written(tmp_path, helix, capsys):
    """The paper's network without training: its score is many orders of magnitude too large."""
    torch.manual_seed(0)
    save_network(tmp_path / "w", build_network("distance", {"n_blocks": 1, "channels": 4}))
    predictions = predictions_file(tmp_path / "p.npz", helix[:8])
    words = ["--weights", str(tmp_path / "w"), "--out", str(tmp_path / "out")]
    assert run(["fold", "--predictions", predictions, *words]) == 2
    assert "did not learn" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.pdb"))


def test_chains_joined_by_a_colon_are_separate_in_the_output(tmp_path, helix):
    predictions = predictions_file(tmp_path / "p.npz", helix)
    (tmp_path / "p.fasta").write_text(">two\n" + "A" * 16 + ":" + "C" * 16 + "\n")
    words = ["--fasta", str(tmp_path / "p.fasta"), "--sampler", "peer", "-n", "1"]
    out = tmp_path / "out"
    assert run(["fold", "--predictions", predictions, "--out", str(out), *words]) == 0
    lines = (out / "decoy_1.pdb").read_text().splitlines()
    assert {line[21] for line in lines if line.startswith("ATOM")} == {"A", "B"}


@pytest.mark.parametrize(
    "words",
    [
        ["--predictions", "absent.npz", "--sampler", "peer"],
        ["--predictions", "p.npz", "--weights", "p.npz"],
        ["--predictions", "p.npz", "--weights", "p.npz", "--sampler", "peer"],
        ["--predictions", "p.npz", "--sampler", "peer", "--fasta", "short.fasta"],
        ["--predictions", "p.npz", "--sampler", "peer", "--fasta", "both.fasta"],
        ["--predictions", "p.npz", "--sampler", "peer", "--native", "short.fasta"],
        ["--predictions", "p.npz", "--sampler", "peer", "--decoys", "0"],
        ["--predictions", "p.npz", "--sampler", "peer", "--out", "p.npz/x"],
        ["--predictions", "p.npz", "--sampler", "best"],
    ],
)
def test_what_cannot_be_folded_is_said_with_status_2(tmp_path, helix, words, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    predictions_file(tmp_path / "p.npz", helix[:8])
    (tmp_path / "short.fasta").write_text(">a\nACD\n")
    (tmp_path / "both.fasta").write_text(">a\nAAAAAAAA\n>b\nAAAAAAAA\n")
    assert run(["fold", "--out", "out", *words]) == 2
    assert "rror" in capsys.readouterr().err
    assert not (tmp_path / "out" / "scores.json").exists()


@pytest.mark.skipif(
    not T1008.is_dir(), reason="needs a trRosetta prediction in shared/data, see docs/checks.md"
)
def test_the_peer_folds_a_real_prediction_better_than_its_authors_model(tmp_path):
    words = ["--sampler", "peer", "-n", "1", "--native", str(T1008 / "T1008-D1.pdb")]
    words += ["--predictions", str(T1008 / "T1008.npz"), "--out", str(tmp_path)]
    assert run(["fold", *words]) == 0
    (row,) = json.loads((tmp_path / "scores.json").read_text())["decoys"]
    assert row["lddt_ca"] > 0.65 and not row["mirrored"]
