"""The suite `saxs`: Debye's sum by hand and by AUSAXS, closed forms, fits of known curves."""

import json

import mdtraj
import numpy as np
import pytest

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.eval.experiment.debye import pair_counts, scattering
from protenix_eba.eval.experiment.groups import displaced, expansion, groups_of, in_vacuum
from protenix_eba.eval.experiment.saxs import (
    Curve,
    fit_curve,
    open_shares,
    partial_curves,
    read_curve,
)

NAME = "penta_alanine"
Q = np.linspace(0.01, 0.5, 40)


@pytest.fixture(scope="module")
def peptide(demo_data):
    frame = mdtraj.load(demo_data / NAME / f"{NAME}.pdb")
    atoms, groups = groups_of(frame.topology)
    return frame.atom_slice(atoms), groups


def by_hand(xyz, factors, q):
    """The sum over all pairs, a term each; factors `[N, Q]`."""
    total = np.zeros_like(q)
    for i in range(len(xyz)):
        for j in range(len(xyz)):
            r = np.linalg.norm(xyz[i] - xyz[j])
            wave = np.sin(q * r) / (q * r) if r > 0.0 else 1.0
            total += factors[i] * factors[j] * wave
    return total


def test_sums_over_bins_are_sums_over_pairs(peptide):
    """With all three kinds of scattering, mixed as a fit mixes them."""
    frame, groups = peptide
    xyz, share = 10.0 * frame.xyz[0], open_shares(frame)
    partials = partial_curves(xyz, groups, Q, share)
    mix = np.array([1.0, -1.1, 2.0])
    factors = np.array([
        in_vacuum(g, Q) - 1.1 * displaced(g, Q) + 2.0 * s * in_vacuum(("O", 2), Q)
        for g, s in zip(groups, share, strict=True)
    ])  # fmt: skip
    found = np.einsum("a,abq,b->q", mix, partials, mix)
    np.testing.assert_allclose(found, by_hand(xyz, factors, Q), rtol=3e-4)


def test_debyes_sum_is_that_of_ausaxs(peptide):
    """An independent implementation: pyausaxs, where it is installed."""
    sasview = pytest.importorskip("pyausaxs").sasview
    frame, _ = peptide
    xyz = 10.0 * frame.xyz[0].astype(np.float64)
    electrons = np.array([float(atom.element.atomic_number) for atom in frame.topology.atoms])
    counts = pair_counts(xyz, np.zeros(len(xyz), dtype=np.int64), electrons)
    theirs = np.array(sasview.debye_no_ff(Q, *xyz.T.copy(), electrons))
    found = scattering(counts, Q)[0, 0]
    # it is farther from the sum over pairs than ours is
    np.testing.assert_allclose(found / found[0], theirs / theirs[0], rtol=1e-3)


def test_a_dense_ball_scatters_as_a_ball():
    """(3 (sin x - x cos x) / x^3)^2, x = q R: Rayleigh, Proc. R. Soc. A 84, 25 (1911)."""
    radius, step = 12.0, 1.5
    line = np.arange(-radius, radius + step, step) + 0.3
    grid = np.stack(np.meshgrid(line, line, line), axis=-1).reshape(-1, 3)
    ball = grid[np.linalg.norm(grid, axis=1) < radius]
    n = len(ball)
    counts = pair_counts(ball, np.zeros(n, dtype=np.int64), np.ones(n))
    assert counts.sum() == pytest.approx(n**2)
    q = np.linspace(0.02, 0.3, 30)
    x = q * radius * (n * step**3 / (4.0 / 3.0 * np.pi * radius**3)) ** (1.0 / 3.0)
    expected = (3.0 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2
    np.testing.assert_allclose(scattering(counts, q)[0, 0] / n**2, expected, atol=3e-3)


def test_the_beginning_of_the_curve_gives_the_radius_of_gyration(peptide):
    """I(q) = I(0) (1 - q^2 Rg^2 / 3): Guinier. Here of equal points."""
    xyz = 10.0 * peptide[0].xyz[0]
    counts = pair_counts(xyz, np.zeros(len(xyz), dtype=np.int64), np.ones(len(xyz)))
    q = np.array([1e-3, 2e-2])
    one, two = scattering(counts, q)[0, 0] / len(xyz) ** 2
    rg = np.sqrt(np.square(xyz - xyz.mean(axis=0)).sum(axis=1).mean())
    slope = -3.0 * np.log(two / one) / (q[1] ** 2 - q[0] ** 2)
    assert np.sqrt(slope) == pytest.approx(rg, rel=2e-3)


def test_forward_scattering_counts_electrons_and_displaced_water(peptide):
    """Ala5 as a chain of residues, its hydrogens within the heavy atoms."""
    _, groups = peptide
    zero = np.array([1e-6])
    electrons = sum(float(in_vacuum(g, zero)[0]) for g in groups)
    # five residues C3 H5 N O of 38 electrons, and OXT of 8; NH3+ counts as NH
    assert electrons == pytest.approx(5 * 38 + 8, abs=0.1)
    volume = 5 * (3 * 16.44 + 5 * 5.15 + 2.49 + 9.13) + 9.13
    assert sum(float(displaced(g, zero)[0]) for g in groups) == pytest.approx(0.334 * volume)
    assert expansion(zero, 1.05)[0] == pytest.approx(1.05**3)
    np.testing.assert_allclose(expansion(Q, 1.0), 1.0)


@pytest.mark.parametrize("background", [False, True])
def test_a_fit_finds_the_parameters_that_were_put_in(peptide, background):
    frame, groups = peptide
    partials = partial_curves(10.0 * frame.xyz[0], groups, Q, open_shares(frame))
    mix = np.stack([np.ones_like(Q), -expansion(Q, 1.02), np.full_like(Q, 1.5)])
    added = 7.0 if background else 0.0
    intensity = 3.0 * np.einsum("aq,abq,bq->q", mix, partials, mix) + added
    curve = Curve(Q, intensity, 0.01 * intensity)
    found = fit_curve(partials, curve, background=background)
    assert (found.c1, found.c2) == (pytest.approx(1.02), pytest.approx(1.5))
    assert found.scale == pytest.approx(3.0) and found.background == pytest.approx(added)
    assert found.chi2 < 1e-12 and found.at_end == []


def test_parameters_at_an_end_of_what_is_tried_are_named(peptide):
    """A curve that was made with more water on the surface than any that is tried."""
    frame, groups = peptide
    partials = partial_curves(10.0 * frame.xyz[0], groups, Q, open_shares(frame))
    mix = np.stack([np.ones_like(Q), -expansion(Q, 1.0), np.full_like(Q, 9.0)])
    intensity = np.einsum("aq,abq,bq->q", mix, partials, mix)
    assert "c2 = 4" in fit_curve(partials, Curve(Q, intensity, 0.01 * intensity)).at_end


def test_noise_of_the_measurement_gives_a_chi_square_of_one(peptide):
    frame, groups = peptide
    partials = partial_curves(10.0 * frame.xyz[0], groups, Q, open_shares(frame))
    mix = np.stack([np.ones_like(Q), -np.ones_like(Q), np.ones_like(Q)])
    intensity = np.einsum("aq,abq,bq->q", mix, partials, mix)
    random = np.random.default_rng(0)
    chi2 = [
        fit_curve(partials, Curve(Q, intensity * (1.0 + 0.03 * random.normal(size=len(Q))),
                                  0.03 * intensity)).chi2
        for _ in range(8)
    ]  # fmt: skip
    # three parameters are fitted to 40 points
    assert np.mean(chi2) == pytest.approx(1.0 - 3.0 / 40.0, abs=0.25)


def test_curves_are_read_with_their_unit(tmp_path):
    rows = "\n".join(f"{10 * q:.4f} {1 / q:.4f} 0.1" for q in Q)
    (tmp_path / "c.dat").write_text("# instrument\nq I error\n" + rows)
    curve = read_curve(tmp_path / "c.dat", per_nm=True)
    np.testing.assert_allclose(curve.q, Q, atol=1e-4)
    part = read_curve(tmp_path / "c.dat", per_nm=True, q_max=float(Q[9:11].mean()))
    assert (len(part.q), part.n_beyond) == (10, len(Q) - 10)
    (tmp_path / "d.dat").write_text("0.1 1 0.1\n")
    with pytest.raises(UserError, match=r"1 points with q up to 0\.5 per angstrom"):
        read_curve(tmp_path / "d.dat")


def test_the_command_finds_the_weights_that_a_curve_was_made_of(demo_data, peptide, tmp_path):
    """A curve of one conformation: the ensemble of that one agrees, that of another does not."""
    frame, groups = peptide
    partials = partial_curves(10.0 * frame.xyz[0], groups, Q, open_shares(frame))
    mix = np.array([1.0, -1.0, 1.0])
    intensity = np.einsum("a,abq,b->q", mix, partials, mix)
    rows = [f"{q} {i} {0.002 * i}" for q, i in zip(Q, intensity, strict=True)]
    (tmp_path / "curve.dat").write_text("\n".join([*rows, "0.9 1 1"]))
    (tmp_path / "s").mkdir()
    swollen = 1.3 * frame.xyz[0]
    both = mdtraj.Trajectory(np.array([frame.xyz[0], swollen]), frame.topology)
    both.save_pdb(tmp_path / "s" / f"{NAME}.pdb")
    found = []
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        lines = [f"{NAME},{n},{w}" for n, w in enumerate(weights)]
        (tmp_path / "w.csv").write_text("target,sample,weight\n" + "\n".join(lines))
        words = ["--suite", "saxs", "--reference", str(tmp_path / "curve.dat"), "--samples",
                 str(tmp_path / "s"), "--out", str(tmp_path / "o"), "--weights",
                 str(tmp_path / "w.csv")]  # fmt: skip
        assert run(["evaluate", *words]) == 0
        record = json.loads((tmp_path / "o" / "metrics.json").read_text())
        assert any(f"1 of {len(Q) + 1} points" in note for note in record["notes"])
        found.append(next(v["value"] for v in record["values"] if v["key"] == "chi2"))
    assert found[0] < 0.2 and found[1] > 10.0 * found[0]
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert (
        f"chi^2 per point {found[1]:.2f} over {len(Q)} points; farthest from measured at q" in page
    )
