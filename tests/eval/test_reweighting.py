"""Maximum-entropy weights: closed forms, choices of theta, the command."""

import json

import mdtraj
import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.eval.reweighting.entropy import Problem, reweight
from protenix_eba.eval.reweighting.theta import cross_validated, l_curve
from protenix_eba.eval.weighting import read_weights, write_weights

NAME = "penta_alanine"


def problem(signals, values, errors, prior=None, bounds=None):
    signals = np.asarray(signals, dtype=float)
    prior = np.full(len(signals), 1.0 / len(signals)) if prior is None else prior
    values, errors = np.atleast_1d(values), np.atleast_1d(errors)
    return Problem(signals, values, errors, bounds or [""] * len(values), np.asarray(prior))


def two_states(measured, error, share=0.2, **more):
    return problem([[0.0], [1.0]], float(measured), float(error), [1.0 - share, share], **more)


@pytest.mark.parametrize("theta", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("measured", [0.1, 0.5, 0.9])
def test_two_states_have_the_population_of_the_closed_form(measured, theta):
    """ln(p / (1 - p)) - ln(p0 / (1 - p0)) = (F - p) / (theta error^2), the derivative being 0."""
    error, p0 = 0.1, 0.2
    found = reweight(two_states(measured, error), theta)

    def derivative(p):
        logit = np.log(p / (1 - p)) - np.log(p0 / (1 - p0))
        return logit + (p - measured) / (theta * error**2)

    expected = brentq(derivative, 1e-12, 1.0 - 1e-12)
    assert found.weights[1] == pytest.approx(expected, abs=1e-7)
    assert found.chi2 == pytest.approx(((expected - measured) / error) ** 2, abs=1e-5)
    p = np.array([1 - expected, expected])
    assert found.relative_entropy == pytest.approx(-(p @ np.log(p / [1 - p0, p0])), abs=1e-6)


@pytest.mark.parametrize("theta", [0.01, 1.0, 10.0])
def test_a_gaussian_with_a_measured_mean_is_shifted(theta):
    """N(0, s^2) becomes N(m s^2 / (s^2 + theta error^2), s^2); a grid is weighted by it."""
    s, m, error = 1.5, 2.0, 0.7
    x = np.linspace(-15.0, 15.0, 4001)
    prior = np.exp(-0.5 * (x / s) ** 2)
    found = reweight(problem(x[:, None], m, error, prior / prior.sum()), theta)
    mean = found.weights @ x
    assert mean == pytest.approx(m * s**2 / (s**2 + theta * error**2), abs=1e-6)
    assert found.weights @ (x - mean) ** 2 == pytest.approx(s**2, abs=1e-5)
    assert found.relative_entropy == pytest.approx(-0.5 * (mean / s) ** 2, abs=1e-5)


def test_the_weights_are_those_of_the_minimum_over_weights():
    """The same function, minimised in the weights themselves rather than in the multipliers."""
    random = np.random.default_rng(0)
    given = problem(random.normal(size=(12, 3)), random.normal(size=3) * 0.3, np.full(3, 0.4),
                    random.dirichlet(np.full(12, 5.0)))  # fmt: skip
    theta = 0.7

    def loss(logits):
        w = np.exp(logits - logits.max())
        w /= w.sum()
        chi2 = np.square(w @ given.deviations).sum()
        return 0.5 * chi2 + theta * (w @ np.log(w / given.prior))

    other = minimize(loss, np.log(given.prior), method="BFGS", options={"gtol": 1e-9})
    w = np.exp(other.x - other.x.max())
    np.testing.assert_allclose(reweight(given, theta).weights, w / w.sum(), atol=1e-5)


def test_large_theta_leaves_the_prior_and_small_theta_obeys():
    prior = reweight(two_states(0.7, 0.05), 1e8)
    obeyed = reweight(two_states(0.7, 0.05), 1e-6)
    assert prior.weights[1] == pytest.approx(0.2, abs=1e-5)
    assert obeyed.weights[1] == pytest.approx(0.7, abs=1e-6)


def test_a_bound_acts_on_one_side_only():
    met = reweight(two_states(0.5, 0.05, bounds=["upper"]), 0.1)
    assert met.weights[1] == pytest.approx(0.2, abs=1e-9) and met.chi2 == 0.0
    broken = reweight(two_states(0.05, 0.01, bounds=["upper"]), 0.01)
    assert broken.weights[1] == pytest.approx(0.05, abs=1e-3)
    unmet = reweight(two_states(0.5, 0.05, bounds=["lower"]), 0.01)
    assert unmet.weights[1] == pytest.approx(0.5, abs=1e-2)


def scattered(noise, seed=1):
    """Ten observables of 400 conformations, measured on a tilted ensemble."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(400, 2))
    signals = hidden @ random.normal(size=(2, 10)) + random.normal(size=(400, 10))
    tilted = np.exp(hidden[:, 0])
    values = tilted @ signals / tilted.sum() + noise * random.normal(size=10)
    return problem(signals, values, np.full(10, max(noise, 0.05)))


def test_cross_validation_takes_less_theta_where_there_is_a_signal():
    signal = cross_validated(scattered(0.05), seed=0)
    best = list(signal.scan).index(signal.result)
    assert min(signal.left_out) <= signal.left_out[best] < 0.5 * signal.left_out[0]
    random = np.random.default_rng(5)
    # measured on the ensemble itself: nothing is to be gained, whatever theta fits best
    given = scattered(0.05)
    own = problem(given.signals, given.signals.mean(axis=0) + 0.3 * random.normal(size=10),
                  np.full(10, 0.3))  # fmt: skip
    nothing = cross_validated(own, seed=0)
    assert nothing.result.theta > signal.result.theta
    assert nothing.result.effective > 0.8 * 400


def test_what_says_the_same_is_left_out_together():
    """Five pairs of copies: one copy predicts the other, which lets noise look like a signal."""
    random = np.random.default_rng(3)
    signals = random.normal(size=(300, 5))
    values = 0.5 * random.normal(size=5)  # noise alone
    given = problem(np.repeat(signals, 2, axis=1), np.repeat(values, 2), np.full(10, 0.2))
    alone = cross_validated(given, seed=0)
    together = cross_validated(given, seed=0, groups=np.repeat(range(5), 2).tolist())
    assert together.result.theta > 5.0 * alone.result.theta


def test_the_corner_of_the_l_curve_is_between_the_ends():
    choice = l_curve(scattered(0.2))
    chi2 = [found.chi2 for found in choice.scan]
    loss = [-found.relative_entropy for found in choice.scan]
    assert (np.diff(chi2) <= 1e-9).all() and (np.diff(loss) >= -1e-9).all()
    assert choice.scan[0].theta > choice.result.theta > choice.scan[-1].theta


def test_theta_has_to_be_positive():
    with pytest.raises(UserError, match="expected a positive number, found 0"):
        reweight(two_states(0.5, 0.1), 0.0)


@pytest.fixture
def ensemble(tmp_path):
    """90 conformations at a distance of 4 angstrom and 10 at 8, with three C-alpha atoms."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for number in (1, 2, 3):
        residue = topology.add_residue("ALA", chain, resSeq=number)
        topology.add_atom("CA", mdtraj.element.carbon, residue)
    far = np.repeat([4.0, 8.0], [90, 10])
    xyz = np.zeros((100, 3, 3))
    xyz[:, 1, 1], xyz[:, 2, 0] = 3.0, far
    (tmp_path / "s").mkdir()
    mdtraj.Trajectory(xyz / 10.0, topology).save_pdb(tmp_path / "s" / "p.pdb")
    return tmp_path


def command(folder, value, *words):
    (folder / "d.csv").write_text(f"kind,atoms,value,error\nDISTANCE,1:CA 3:CA,{value},0.01\n")
    common = ["--samples", str(folder / "s"), "--data", str(folder / "d.csv"), "--theta", "0.001"]
    return run(["reweight", *common, *words])


def test_a_measured_distance_gives_the_populations(ensemble):
    """4 (1 - p) + 8 p = 6 has p = 1/2; 100 conformations then count as 36."""
    assert command(ensemble, 6.0) == 0
    weights = read_weights(ensemble / "s" / "weights.csv")["p"]
    assert weights[90:].sum() == pytest.approx(0.5, abs=1e-3)
    record = json.loads((ensemble / "s" / "weights.json").read_text())["targets"]["p"]
    assert record["numbers"]["effective_after"] == pytest.approx(36.0, abs=0.2)
    assert record["values"][0]["before"] == pytest.approx(4.4, abs=1e-3)
    assert record["values"][0]["after"] == pytest.approx(6.0, abs=1e-3)
    out = ["--out", str(ensemble / "e"), "--weights", str(ensemble / "s" / "weights.csv")]
    words = ["--suite", "nmr", "--samples", str(ensemble / "s"), *out]
    assert run(["evaluate", *words, "--reference", str(ensemble / "d.csv")]) == 0
    values = json.loads((ensemble / "e" / "metrics.json").read_text())["values"]
    predicted = next(v["value"] for v in values if v["key"] == "predicted")
    assert predicted == pytest.approx(6.0, abs=1e-3)


def test_weights_that_rest_on_few_conformations_are_refused(ensemble, capsys):
    assert command(ensemble, 7.99, "--min-effective", "20") == 2
    message = capsys.readouterr().err
    assert "effective conformations of 100, at least 20 are needed" in message
    assert not (ensemble / "s" / "weights.csv").exists()
    assert command(ensemble, 7.99) == 0
    assert "10% of the effective conformations are left" in capsys.readouterr().out


def test_an_ensemble_of_fewer_conformations_than_are_needed_is_not_blamed_on_the_data(
    ensemble, capsys
):
    assert command(ensemble, 4.4, "--min-effective", "200") == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "100.0 effective conformations of 100 before any fit" in message
    assert "what was measured" not in message


def test_a_prior_is_where_one_starts_from(ensemble):
    prior = np.concatenate([np.full(90, 0.5 / 90), np.full(10, 0.05)])
    write_weights(ensemble / "prior.csv", {"p": prior})
    words = ["--prior", str(ensemble / "prior.csv"), "--out", str(ensemble / "w.csv")]
    assert command(ensemble, 6.0, *words) == 0
    np.testing.assert_allclose(read_weights(ensemble / "w.csv")["p"], prior, rtol=1e-4)


def test_labels_are_a_prior(demo_data, tmp_path):
    """A huge theta leaves softmax(-E / (kT sqrt(N))) of the labels."""
    from protenix_eba.energy.table import read_labels

    words = ["--samples", str(demo_data / NAME), "--theta", "1e9", "--prior",
             str(demo_data / "labels.parquet"), "--data",
             str(demo_data / "penta_alanine_couplings.csv"), "--out", str(tmp_path / "w.csv"),
             "--min-effective", "2"]  # fmt: skip
    assert run(["reweight", *words]) == 0
    labels = read_labels(demo_data / "labels.parquet")
    energy = labels.energy_kj_mol[labels.target == NAME]
    expected = np.exp(-(energy - energy.min()) / (2.494338785 * np.sqrt(5.0)))
    np.testing.assert_allclose(
        read_weights(tmp_path / "w.csv")[NAME], expected / expected.sum(), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--theta", "big"], "expected a number, cv, cv-residues or l-curve, found 'big'"),
        (["--theta", "-1"], "expected a positive number, found -1.0"),
        (["--theta", "inf"], "expected a positive number, found inf"),
        (["--out", "w.json"], "--out w.json: that name is for the record"),
        (["--samples", "more"], "--out: needed where --samples is not one folder"),
    ],
)
def test_what_a_user_gets_wrong_is_said(ensemble, words, message, capsys):
    assert command(ensemble, 6.0, *words) == 2
    assert message in capsys.readouterr().err


def test_the_shipped_couplings_reweight_the_shipped_md(demo_data, tmp_path):
    """Couplings of HN with CB are left out: they agree better for the others, unseen."""
    lines = (demo_data / "penta_alanine_couplings.csv").read_text().splitlines()
    fit = [line for line in lines if not line.startswith(("#", "3J_HN_CB"))]
    judge = [line for line in lines if line.startswith(("kind", "3J_HN_CB"))]
    (tmp_path / "fit.csv").write_text("\n".join(fit))
    (tmp_path / "judge.csv").write_text("\n".join(judge))
    words = ["--samples", str(demo_data / NAME), "--data", str(tmp_path / "fit.csv")]
    out = ["--held-out", str(tmp_path / "judge.csv"), "--out", str(tmp_path / "w.csv")]
    assert run(["reweight", *words, *out]) == 0
    numbers = json.loads((tmp_path / "w.json").read_text())["targets"][NAME]["numbers"]
    assert numbers["chi2_after"] < 0.5 * numbers["chi2_before"]
    assert numbers["held_out_chi2_after"] < numbers["held_out_chi2_before"]
    assert numbers["effective_after"] > 200.0
    # Residues of a peptide this short move alone: none gains by what is measured of the others.
    assert run(["reweight", *words, *out, "--theta", "cv-residues"]) == 0
    apart = json.loads((tmp_path / "w.json").read_text())["targets"][NAME]["numbers"]
    assert apart["effective_after"] > 590.0


def test_a_prior_of_other_targets_is_refused(ensemble, capsys):
    write_weights(ensemble / "prior.csv", {"q": np.full(100, 0.01)})
    assert command(ensemble, 6.0, "--prior", str(ensemble / "prior.csv")) == 2
    assert "--prior: expected weights of p, found those of q" in capsys.readouterr().err
