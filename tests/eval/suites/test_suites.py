"""Suites: what is registered, `states` on ensembles whose answer is known, and the command."""

import csv
import json

import mdtraj
import numpy as np
import pytest

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.eval.metrics.energies import effective_sample_size
from protenix_eba.eval.suites import catalogue
from protenix_eba.eval.suites.ensembles import bootstrap_interval
from protenix_eba.eval.suites.registry import SUITES
from protenix_eba.eval.suites.run import changed_settings
from protenix_eba.eval.suites.states import STATES, populations
from protenix_eba.eval.suites.superposition import rmsd, tm_scores

N_RESIDUES = 40


def helix(n=N_RESIDUES):
    """C-alpha atoms of an ideal alpha helix, angstrom: 100 degrees and 1.5 angstrom a residue."""
    t = np.deg2rad(100.0) * np.arange(n)
    return np.stack([2.3 * np.cos(t), 2.3 * np.sin(t), 1.5 * np.arange(n)], axis=1)


def bent(x, angle=1.0):
    """The same with its second half turned about an axis through its middle."""
    middle, turned = len(x) // 2, x.copy()
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    turned[middle:] = (x[middle:] - x[middle]) @ turn + x[middle]
    return turned


def topology(n=N_RESIDUES):
    made = mdtraj.Topology()
    chain = made.add_chain()
    for number in range(1, n + 1):
        residue = made.add_residue("ALA", chain, resSeq=number)
        made.add_atom("CA", mdtraj.element.carbon, residue)
    return made


def moved(x, random):
    """The same conformation somewhere else in space."""
    q, r = np.linalg.qr(random.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    q[:, 0] *= np.sign(np.linalg.det(q))
    return x @ q + random.normal(0.0, 20.0, 3)


@pytest.fixture
def two_states(tmp_path):
    """30 samples at one structure, 10 at the other, 10 at neither; noise of 0.2 angstrom."""
    random = np.random.default_rng(1)
    apo, holo = helix(), bent(helix())
    centres = [apo] * 30 + [holo] * 10 + [bent(helix(), -1.4)] * 10
    xyz = np.array([moved(c + random.normal(0.0, 0.2, c.shape), random) for c in centres])
    (tmp_path / "samples").mkdir()
    mdtraj.Trajectory(xyz / 10.0, topology()).save_pdb(tmp_path / "samples" / "p.pdb")
    (tmp_path / "known" / "p").mkdir(parents=True)
    for name, x in (("apo", apo), ("holo", holo)):
        file = tmp_path / "known" / "p" / f"{name}.pdb"
        mdtraj.Trajectory(x[None] / 10.0, topology()).save_pdb(file)
    return tmp_path


def evaluate(folder, *words):
    common = ["--samples", str(folder / "samples"), "--reference", str(folder / "known")]
    return run(["evaluate", "--suite", "states", *common, "--out", str(folder / "out"), *words])


def read(folder):
    with open(folder / "out" / "metrics.csv", newline="", encoding="utf-8") as file:
        return {(row["item"], row["key"]): row for row in csv.DictReader(file)}


def test_two_known_states_have_the_populations_that_were_put_in(two_states):
    assert evaluate(two_states) == 0
    found = read(two_states)
    for item, share in (("apo", 0.6), ("holo", 0.2), ("elsewhere", 0.2)):
        row = found[item, "population"]
        assert float(row["value"]) == pytest.approx(share, abs=1e-12)
        # of 50 independent draws: 1.96 sqrt(p (1 - p) / 50)
        half = 1.96 * np.sqrt(share * (1.0 - share) / 50.0)
        assert float(row["low"]) == pytest.approx(share - half, abs=0.03)
        assert float(row["high"]) == pytest.approx(share + half, abs=0.03)
    assert 30 <= float(found["holo", "nearest_sample"]["value"]) < 40
    # RMSD of Gaussian noise that superposition takes six degrees of freedom of
    expected = 0.2 * np.sqrt(3.0) * np.sqrt(1.0 - 6.0 / (3 * N_RESIDUES))
    assert float(found["apo", "nearest_rmsd"]["value"]) == pytest.approx(expected, rel=0.25)
    assert float(found["", "effective_samples"]["value"]) == pytest.approx(50.0)
    assert (two_states / "out" / "figures" / "states.svg").is_file()
    record = json.loads((two_states / "out" / "metrics.json").read_text())
    assert record["suite"] == "states" and record["settings"]["cutoff_angstrom"] == 3.0


def test_weights_make_another_population(two_states):
    weights = np.repeat([1.0 / 60.0, 1.0 / 20.0, 0.0], [30, 10, 10])
    rows = ["target,sample,weight", *(f"p,{n},{w}" for n, w in enumerate(weights))]
    (two_states / "w.csv").write_text("\n".join(rows))
    assert evaluate(two_states, "--weights", str(two_states / "w.csv")) == 0
    found = read(two_states)
    assert float(found["holo", "population"]["value"]) == pytest.approx(0.5, abs=1e-9)
    assert float(found["", "effective_samples"]["value"]) == pytest.approx(30.0, abs=1e-9)


def test_a_reference_that_lacks_residues_is_compared_over_the_others(two_states):
    part = topology().subset(range(5, N_RESIDUES))
    file = two_states / "known" / "p" / "holo.pdb"
    mdtraj.Trajectory(bent(helix())[None, 5:] / 10.0, part).save_pdb(file)
    assert evaluate(two_states, "--set", "tm_score=false") == 0
    found = read(two_states)
    assert float(found["holo", "population"]["value"]) == pytest.approx(0.2)
    assert ("holo", "tm_score_max") not in found
    notes = json.loads((two_states / "out" / "metrics.json").read_text())["notes"]
    assert any("holo has 35 of the samples' 40 residues" in note for note in notes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "cutof_angstrom=1"], "has the settings cutoff_angstrom, tm_score"),
        (["--set", "cutoff_angstrom=near"], "expected a number, found 'near'"),
        (["--set", "cutoff_angstrom=-1"], "expected a positive number, found -1.0"),
        (["--compat", "alphaflow-1.9.9"], "the suite states has no --compat"),
        (["--suite", "state"], "did you mean states?"),
        (["--set", "cutoff_angstrom=nan"], "expected a number, found 'nan'"),
        (["--set", "cutoff_angstrom=inf"], "expected a number, found 'inf'"),
        (["--label", "eba"], "the suite states has no --label"),
    ],
)
def test_what_a_user_gets_wrong_is_said(two_states, words, message, capsys):
    assert evaluate(two_states, *words) == 2
    assert message in capsys.readouterr().err


def test_results_of_another_suite_are_not_overwritten(two_states, capsys):
    assert evaluate(two_states) == 0
    before = (two_states / "out" / "metrics.json").read_bytes()
    assert evaluate(two_states) == 0  # the same again may
    assert evaluate(two_states, "--suite", "atlas") == 2
    assert "it holds the results of the suite states, not of atlas" in capsys.readouterr().err
    assert (two_states / "out" / "metrics.json").read_bytes() == before


def test_populations_are_a_partition():
    distance = np.array([[1.0, 2.0], [2.0, 1.0], [5.0, 4.0]])
    found = populations(distance, np.array([0.2, 0.3, 0.5]), 3.0)
    np.testing.assert_allclose(found, [0.2, 0.3, 0.5])


def test_the_interval_of_a_mean_is_the_normal_one():
    random = np.random.default_rng(0)
    values, n = random.normal(2.0, 3.0, 400), 400
    low, high = bootstrap_interval(lambda w: (w @ values)[:, None], np.full(n, 1.0 / n), 0, 4000)
    half = 1.96 * values.std() / np.sqrt(n)
    assert low[0] == pytest.approx(values.mean() - half, abs=0.02)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.02)
    assert effective_sample_size(np.array([1.0, 0.0])) == 1.0
    assert effective_sample_size(np.full(7, 2.0)) == pytest.approx(7.0)


def test_rmsd_is_mdtrajs():
    random = np.random.default_rng(3)
    xyz = helix()[None] + random.normal(0.0, 1.0, (5, N_RESIDUES, 3))
    theirs = 10.0 * mdtraj.rmsd(
        mdtraj.Trajectory(xyz / 10.0, topology()), mdtraj.Trajectory(helix() / 10.0, topology())
    )
    np.testing.assert_allclose(rmsd(xyz, helix()), theirs, rtol=1e-4)


# What TMscore, the authors' program (Debian's tm-align 20190822), prints for these structures
# written as PDB files.
TMSCORE_PROGRAM = {"noise": 0.6787, "hinge": 0.5367, "shuffled": 0.1674}


def tm_case(kind, n=120):
    random = np.random.default_rng(7)
    if kind == "noise":
        other = helix(n) + random.normal(0.0, 2.0, (n, 3))
    elif kind == "hinge":
        other = bent(helix(n))
    else:
        other = np.cumsum(random.normal(0.0, 2.2, (n, 3)), axis=0)
    return np.round(helix(n), 3), np.round(other, 3)


@pytest.mark.parametrize("kind", TMSCORE_PROGRAM)
def test_tm_scores_are_those_of_the_authors_program(kind):
    reference, other = tm_case(kind)
    random = np.random.default_rng(0)
    (found,) = tm_scores(moved(other, random)[None], reference)
    assert found == pytest.approx(TMSCORE_PROGRAM[kind], abs=2e-3)
    assert tm_scores(reference[None], reference)[0] == pytest.approx(1.0)


def test_suites_are_listed_with_what_they_need(capsys):
    assert run(["suites"]) == 0
    text = capsys.readouterr().out
    for suite in catalogue.known_suites():
        assert suite.name in text and suite.n_samples.split()[0] in text
    assert "cutoff_angstrom=3.0" in text


def test_a_setting_keeps_its_type():
    assert changed_settings(STATES, ["cutoff_angstrom=2"]).cutoff_angstrom == 2.0
    with pytest.raises(UserError, match="expected true or false"):
        changed_settings(STATES, ["tm_score=1"])
    assert SUITES.get("atlas").compute is None


def test_the_models_of_one_file_are_references(two_states):
    """As an NMR entry has them; matched to the target by the name of the file."""
    both = np.array([helix(), bent(helix())])
    bundle = two_states / "known" / "p.pdb"
    mdtraj.Trajectory(both / 10.0, topology()).save_pdb(bundle)
    for file in (two_states / "known" / "p").iterdir():
        file.unlink()
    assert evaluate(two_states, "--set", "tm_score=false") == 0
    assert float(read(two_states)["p:2", "population"]["value"]) == pytest.approx(0.2)


def test_a_target_that_is_chosen_of_several_has_its_own_structures_only(two_states):
    """Alone, a target takes whatever the folder holds, under any name."""
    samples, known = two_states / "samples", two_states / "known"
    for state in ("apo", "holo"):
        (known / "p" / f"{state}.pdb").rename(known / f"{'p' if state == 'apo' else 'q'}_x.pdb")
    assert evaluate(two_states, "--set", "tm_score=false") == 0
    assert {item for item, key in read(two_states) if key == "visited"} == {"p_x", "q_x"}
    (samples / "q.pdb").write_bytes((samples / "p.pdb").read_bytes())
    (two_states / "names.txt").write_text("p\n")
    chosen = ["--targets", str(two_states / "names.txt")]
    assert evaluate(two_states, "--set", "tm_score=false", *chosen) == 0
    assert {item for item, key in read(two_states) if key == "visited"} == {"p_x"}


def test_a_suite_of_a_plugin_is_run_and_listed(two_states, monkeypatch, capsys):
    from protenix_eba.eval.suites.registry import Outcome, Suite, Value

    def compute(request):
        return Outcome(
            [Value(n, "", "size", float(len(request.weights_of(n)))) for n in request.samples]
        )

    monkeypatch.setattr(SUITES, "_components", dict(SUITES._components))
    SUITES.register("size")(Suite("size", "How many.", "anything", "1", "none", compute))
    assert evaluate(two_states, "--suite", "size") == 0
    assert float(read(two_states)["", "size"]["value"]) == 50.0
    page = (two_states / "out" / "report.html").read_text(encoding="utf-8")
    assert "How many." in page and ">50<" in page  # a table for nothing
    assert run(["suites"]) == 0 and "How many." in capsys.readouterr().out


def test_weights_of_other_targets_are_refused(two_states, tmp_path, capsys):
    (tmp_path / "w.csv").write_text("target,sample,weight\nother,0,1\n")
    assert evaluate(two_states, "--weights", str(tmp_path / "w.csv")) == 2
    assert "found those of other" in capsys.readouterr().err


def test_a_strange_metrics_file_is_no_other_result(two_states):
    (two_states / "out").mkdir(exist_ok=True)
    (two_states / "out" / "metrics.json").write_text("[1]")
    assert evaluate(two_states) == 0
