"""Metrics beyond the protocol: limits that can be written down, and other libraries' values."""

from __future__ import annotations

from pathlib import Path

import biotite.structure as struc
import mdtraj
import numpy as np
import pytest
from mdtraj.core.element import get_by_symbol

from protenix_eba.eval.metrics.conformational import CONFORMATIONAL, conformational
from protenix_eba.eval.metrics.distributions import coverage, evenly, histogram, jsd_bits
from protenix_eba.eval.metrics.features import HELIX, STRAND, features_of, torsions_of
from protenix_eba.eval.metrics.kinetics import (
    KINETICS,
    compare_kinetics,
    effective_frames,
    tica_axes,
)
from protenix_eba.eval.protocol.drawn import Drawn
from protenix_eba.structures.sources import Conformations, find_references

HELICAL, EXTENDED = (-57.0, -47.0), (-135.0, 135.0)
SIDE_CHAIN = ("CB", "CG", "CD1", "CD2", "CE1", "CE2", "CZ", "OH")


def place(a: np.ndarray, b: np.ndarray, c: np.ndarray, bond: float, angle: float, torsion):
    """The atoms d with |cd|, the angle bcd and the torsion abcd `[F]` in degrees; `[F, 3]`."""
    along = (c - b) / np.linalg.norm(c - b, axis=1, keepdims=True)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    torsion = np.radians(torsion)[:, None]
    across = np.cos(torsion) * np.cross(normal, along) + np.sin(torsion) * normal
    return c + bond * (np.sin(np.radians(angle)) * across - np.cos(np.radians(angle)) * along)


def backbone(phi_psi: np.ndarray) -> np.ndarray:
    """`[F, L * 4, 3]` N, CA, C, O of chains with these torsions `[F, L, 2]` in degrees."""
    phi, psi = phi_psi.transpose(2, 1, 0)
    start = np.zeros((len(phi_psi), 3))
    trans = np.full(len(phi_psi), 180.0)
    n, ca = start, start + np.array([1.46, 0.0, 0.0])
    c = place(start + np.array([0.0, 1.0, 0.0]), n, ca, 1.52, 111.0, phi[0])
    atoms = []
    for i in range(len(psi)):
        atoms += [n, ca, c, place(n, ca, c, 1.23, 120.0, psi[i] + 180.0)]
        if i + 1 < len(psi):
            following = place(n, ca, c, 1.33, 117.0, psi[i])
            next_ca = place(ca, c, following, 1.46, 122.0, trans)
            next_c = place(c, following, next_ca, 1.52, 111.0, phi[i + 1])
            n, ca, c = following, next_ca, next_c
    return np.stack(atoms, axis=1)


def chain(n_residues: int, names: tuple[str, ...] = ("N", "CA", "C", "O")) -> mdtraj.Topology:
    topology = mdtraj.Topology()
    only = topology.add_chain("A")
    for i in range(n_residues):
        residue = topology.add_residue("ALA", only, resSeq=i + 1)
        for name in names:
            topology.add_atom(name, get_by_symbol(name[0]), residue)
    return topology


def ensemble(seed: int, n_frames: int, centre: tuple[float, float], spread: float = 10.0):
    """`[F, 48, 3]` of 12 residues, their torsions scattered about a centre."""
    torsions = np.random.default_rng(seed).normal(centre, spread, (n_frames, 12, 2))
    return backbone(torsions).astype(np.float32), torsions


def drawn(md: np.ndarray, samples: np.ndarray, n_replicas: int = 3) -> Drawn:
    return Drawn(chain(12), md, np.arange(len(md)) % n_replicas + 1, samples)


# --- torsions and secondary structure ---


def test_torsions_are_those_that_the_chain_was_built_with() -> None:
    xyz, built = ensemble(0, 20, HELICAL, 40.0)
    torsions = torsions_of(chain(12), xyz)
    found = np.degrees(features_of(chain(12), xyz, torsions).phi_psi)
    # The first residue has no phi and the last no psi.
    assert torsions.residues.tolist() == list(range(1, 11))
    difference = (found - built[:, 1:-1] + 180.0) % 360.0 - 180.0
    assert np.abs(difference).max() < 0.05


def test_torsions_across_a_gap_in_the_chain_are_left_out() -> None:
    xyz, _ = ensemble(0, 5, HELICAL)
    xyz[:, 24:] += 30.0  # from the seventh residue on
    assert torsions_of(chain(12), xyz).residues.tolist() == [1, 2, 3, 4, 7, 8, 9, 10]


def test_secondary_structure_is_that_of_an_ideal_helix_and_an_extended_chain() -> None:
    helix, extended = (ensemble(1, 10, centre, 0.0)[0] for centre in (HELICAL, EXTENDED))
    topology = chain(12)
    helical = features_of(topology, helix, torsions_of(topology, helix)).structure
    assert (helical[:, 2:-2] == HELIX).all()
    assert not (features_of(topology, extended, torsions_of(topology, extended)).structure
                == HELIX).any()  # fmt: skip
    values = conformational(drawn(helix, extended)).values
    assert values["helix_mae"] == pytest.approx((helical == HELIX).mean())
    assert values["strand_mae"] == pytest.approx((helical == STRAND).mean()) == 0.0
    assert values["ramachandran_jsd_bits"] == pytest.approx(1.0)


def tyrosine() -> mdtraj.Topology:
    topology = mdtraj.Topology()
    residue = topology.add_residue("TYR", topology.add_chain("A"), resSeq=1)
    for name in ("N", "CA", "C", "O", *SIDE_CHAIN):
        topology.add_atom(name, get_by_symbol(name[0]), residue)
    return topology


def test_a_flipped_ring_is_the_same_side_chain_and_chi_is_that_of_biotite() -> None:
    topology = tyrosine()
    xyz = np.random.default_rng(0).normal(0.0, 3.0, (40, topology.n_atoms, 3)).astype(np.float32)
    # CD2 opposite to CD1, as in a ring: the torsion about CB-CG differs by half a turn.
    names = [a.name for a in topology.atoms]
    cg, cd1, cd2, cb = (names.index(n) for n in ("CG", "CD1", "CD2", "CB"))
    axis = xyz[:, cg] - xyz[:, cb]
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    arm = xyz[:, cd1] - xyz[:, cg]
    xyz[:, cd2] = xyz[:, cg] - arm + 2.0 * (arm * axis).sum(axis=1, keepdims=True) * axis
    flipped = xyz.copy()
    flipped[:, [cd1, cd2]] = xyz[:, [cd2, cd1]]
    torsions = torsions_of(topology, xyz)
    first, second = (features_of(topology, x, torsions) for x in (xyz, flipped))
    distance = np.abs(first.chi2 - second.chi2)
    assert np.minimum(distance, 1.0 - distance).max() < 1e-4
    chi1 = struc.dihedral(*(xyz[:, names.index(n)] for n in ("N", "CA", "CB", "CG")))
    assert first.chi1[:, 0] == pytest.approx(chi1, abs=1e-4)
    chi2 = struc.dihedral(*(xyz[:, names.index(n)] for n in ("CA", "CB", "CG", "CD1")))
    assert first.chi2[:, 0] == pytest.approx(np.mod(chi2, np.pi) / np.pi, abs=1e-4)


# --- divergence ---


def test_divergence_is_zero_of_equals_one_of_strangers_and_known_between() -> None:
    certain, uncertain = np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])
    assert jsd_bits(certain, certain) == pytest.approx([0.0])
    assert jsd_bits(certain, certain[:, ::-1]) == pytest.approx([1.0])
    # H(3/4, 1/4) - (H(1, 0) + H(1/2, 1/2)) / 2
    entropy = -0.75 * np.log2(0.75) - 0.25 * np.log2(0.25)
    assert jsd_bits(certain, uncertain) == pytest.approx([entropy - 0.5])
    assert jsd_bits(uncertain, certain) == pytest.approx([entropy - 0.5])


def test_divergence_of_draws_from_one_distribution_is_the_bias_that_is_documented() -> None:
    random, bins, n = np.random.default_rng(0), 12, 250
    draws = [histogram(random.random((n, 400, 1)), bins) for _ in range(2)]
    assert jsd_bits(*draws).mean() == pytest.approx((bins - 1) / (4 * n * np.log(2)), rel=0.1)


def test_histogram_is_that_of_numpy_and_periodic() -> None:
    values = np.random.default_rng(0).random((50, 3, 2))
    for column, found in enumerate(histogram(values, 4)):
        expected = np.histogramdd(values[:, column], bins=4, range=[(0, 1)] * 2)[0]
        assert found.reshape(4, 4) == pytest.approx(expected / 50)
    np.testing.assert_array_equal(
        histogram(np.ones((1, 1, 1)), 4), histogram(np.zeros((1, 1, 1)), 4)
    )


def test_evenly_spaced_indices_are_unique_and_span_all() -> None:
    assert evenly(10, 3).tolist() == [0, 3, 6]
    assert evenly(3, 10).tolist() == [0, 1, 2]
    assert evenly(5, 0).tolist() == evenly(0, 5).tolist() == []


# --- coverage ---


def points(seed: int, n: int, n_atoms: int = 4, centre: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(centre, 1.0, (n, n_atoms, 3))


@pytest.mark.parametrize("n_atoms", [1, 10, 60])
def test_samples_of_the_mds_own_distribution_cover_it_whatever_it_is(n_atoms: int) -> None:
    md, replica = points(0, 900, n_atoms), np.arange(900) % 3
    for transform in (np.asarray, np.exp):
        found = coverage(transform(md), replica, transform(points(1, 250, n_atoms)))
        assert found.recall >= 0.94
        assert found.precision >= 0.9


def test_a_missed_state_costs_recall_and_a_false_one_precision() -> None:
    replica = np.arange(600) % 3
    both = np.concatenate([points(0, 300), points(1, 300, centre=50.0)])[
        np.random.default_rng(2).permutation(600)
    ]
    one = points(3, 200)
    missed = coverage(both, replica, one)
    assert missed.recall == pytest.approx(0.5, abs=0.15)
    assert missed.precision > 0.9
    false = coverage(one, np.arange(200) % 2, both)
    assert false.recall > 0.9
    assert false.precision == pytest.approx(0.5, abs=0.1)
    assert coverage(one, np.arange(200) % 2, one + 500.0) == (0.0, 0.0)


def test_correlated_frames_of_a_replica_do_not_shrink_the_balls() -> None:
    independent, replica = points(0, 60), np.arange(60) % 3
    correlated = np.repeat(independent, 10, axis=0) + points(1, 600) * 1e-3
    samples = points(2, 200)
    assert coverage(correlated, np.repeat(replica, 10), samples).precision > 0.9
    assert coverage(correlated, np.zeros(600, int), samples).precision < 0.1


def test_coverage_of_too_few_conformations_is_not_defined() -> None:
    for n_md, n_samples in ((5, 100), (100, 3), (0, 10)):
        found = coverage(points(0, n_md), np.zeros(n_md, int), points(1, n_samples))
        assert np.isnan(found).all()


# --- one target ---


def test_an_ensemble_against_itself_has_no_difference() -> None:
    xyz, _ = ensemble(0, 120, HELICAL)
    found = conformational(drawn(xyz, xyz))
    values, arrays, notes = dict(found.values), found.arrays, found.notes
    backbone_only = ("chi1_jsd_bits", "chi2_jsd_bits")
    assert np.isnan([values.pop(key) for key in backbone_only]).all()
    assert "Chi1 JSD" in notes[0]
    assert (values.pop("coverage"), values.pop("precision")) == (1.0, 1.0)
    assert values == pytest.approx(dict.fromkeys(values, 0.0), abs=1e-12)
    for key in ("rg", "helix", "strand", "ramachandran"):
        np.testing.assert_array_equal(arrays[f"md_{key}"], arrays[f"sample_{key}"])
    assert arrays["md_ramachandran"].sum() == pytest.approx(1.0)
    assert np.isnan(arrays["ramachandran_jsd_bits"][[0, -1]]).all()


def test_a_swollen_ensemble_has_a_larger_radius_by_its_factor() -> None:
    xyz, _ = ensemble(0, 150, HELICAL)
    found = conformational(drawn(xyz, xyz * np.float32(1.1)))
    values, arrays = found.values, found.arrays
    atoms = struc.AtomArrayStack(*xyz.shape[:2])
    atoms.coord = xyz
    rg = struc.gyration_radius(atoms, np.ones(xyz.shape[1]))
    assert arrays["md_rg"] == pytest.approx(rg, rel=1e-5)
    assert values["rg_difference_angstrom"] == pytest.approx(0.1 * rg.mean(), rel=1e-3)
    assert values["rg_w1_angstrom"] == pytest.approx(0.1 * rg.mean(), rel=1e-3)


def test_position_and_orientation_change_no_internal_feature() -> None:
    md, samples = ensemble(0, 60, HELICAL)[0], ensemble(1, 50, EXTENDED, 30.0)[0]
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turn[:, 0] *= np.linalg.det(turn)
    expected = conformational(drawn(md, samples)).values
    found = conformational(drawn(md, (samples @ turn + 20.0).astype(np.float32))).values
    for key in set(expected) - {"coverage", "precision"}:
        assert found[key] == pytest.approx(expected[key], abs=2e-3, nan_ok=True)


def test_the_floor_is_one_entry_a_replica_and_below_a_wrong_ensemble() -> None:
    md, wrong = ensemble(0, 300, HELICAL)[0], ensemble(1, 100, EXTENDED)[0]
    target = drawn(md, wrong)
    found = conformational(target)
    values, floor = found.values, found.floor
    assert len(floor) == 3
    for entry in floor:
        assert set(entry) == set(values)
        assert entry["ramachandran_jsd_bits"] < 0.2 < values["ramachandran_jsd_bits"]
        assert entry["coverage"] > 0.8 > values["coverage"]
    assert conformational(drawn(md, wrong, n_replicas=1)).floor == []


def test_the_floor_of_equal_replicas_is_what_samples_from_them_reach() -> None:
    md, more = ensemble(0, 600, HELICAL, 25.0)[0], ensemble(1, 200, HELICAL, 25.0)[0]
    target = drawn(md, more)
    found = conformational(target)
    values, floor = found.values, found.floor
    expected = np.mean([entry["ramachandran_jsd_bits"] for entry in floor])
    assert values["ramachandran_jsd_bits"] == pytest.approx(expected, rel=0.1)


def test_c_alpha_atoms_alone_have_a_size_and_a_coverage() -> None:
    xyz = ensemble(0, 60, HELICAL)[0][:, 1::4]
    target = Drawn(chain(12, ("CA",)), xyz, np.arange(60) % 2, xyz[::2])
    found = conformational(target)
    values, notes = found.values, found.notes
    defined = {key for key, value in values.items() if not np.isnan(value)}
    assert defined == {"rg_difference_angstrom", "rg_w1_angstrom", "coverage", "precision"}
    assert "Ramachandran JSD" in notes[0]
    assert "30 conformations" in notes[1]


def test_frames_cut_by_a_periodic_box_are_told() -> None:
    xyz, _ = ensemble(0, 120, HELICAL)
    torn = xyz.copy()
    torn[10:14, 20:] += 60.0
    assert not any("torn" in note for note in conformational(drawn(xyz, xyz)).notes)
    notes = conformational(drawn(torn, xyz)).notes
    assert "in 4 of 120 MD frames" in next(note for note in notes if "torn" in note)


def test_every_value_is_defined_for_readers_and_every_definition_has_a_value(
    tmp_path: Path,
) -> None:
    xyz, _ = ensemble(0, 20, HELICAL)
    timed = compare_kinetics(*[source(tmp_path, xyz)] * 2, np.arange(12), np.arange(12)).values
    found = [*conformational(drawn(xyz, xyz)).values, *timed]
    assert found == [metric.key for metric in CONFORMATIONAL + KINETICS]


# --- order in time ---


def source(root: Path, *replicas: np.ndarray) -> Conformations:
    """C-alpha traces `[F, L, 3]` as files."""
    folder = root / f"md{len(list(root.iterdir()))}" / "md"
    folder.mkdir(parents=True)
    n_atoms = replicas[0].shape[1]
    for number, xyz in enumerate(replicas, start=1):
        trajectory = mdtraj.Trajectory(xyz / 10.0, chain(n_atoms, ("CA",)))
        trajectory.save_dcd(str(folder / f"md_R{number}.dcd"))
        trajectory[0].save_pdb(str(folder / "md.pdb"))
    return find_references(folder)[0]["md"]


def hinge(seed: int, n_frames: int, switch: float) -> np.ndarray:
    """Two halves that flip between two distances, with much larger fast noise in one atom."""
    random = np.random.default_rng(seed)
    state = np.cumsum(random.random(n_frames) < switch) % 2
    xyz = np.zeros((n_frames, 6, 3))
    xyz[:, :, 0] = np.arange(6) * 4.0
    xyz[:, 3:, 1] += 6.0 * state[:, None]
    xyz += random.normal(0.0, 0.2, xyz.shape)
    xyz[:, 5] += random.normal(0.0, 4.0, (n_frames, 3))
    return xyz


def test_tica_axes_are_those_of_deeptime() -> None:
    covariance = pytest.importorskip("deeptime.covariance")
    decomposition = pytest.importorskip("deeptime.decomposition")
    random = np.random.default_rng(0)
    replicas = []
    for _ in range(2):
        noise = random.normal(size=(1000, 4))
        series = np.zeros_like(noise)
        for t in range(1, len(noise)):
            series[t] = series[t - 1] * [0.99, 0.9, 0.5, 0.0] + noise[t]
        series /= series.std(axis=0)
        replicas.append(series @ np.linalg.qr(np.arange(16.0).reshape(4, 4) + np.eye(4))[0])
    estimator = covariance.Covariance(
        20, compute_c0t=True, reversible=True, remove_data_mean=True, bessels_correction=False
    )
    for features in replicas:
        estimator.partial_fit((features[:-20], features[20:]))
    model = decomposition.TICA(dim=2, scaling=None).fit(estimator.fetch_model()).fetch_model()
    mean, axes = tica_axes(replicas)
    expected, found = model.transform(replicas[0]), (replicas[0] - mean) @ axes
    assert np.abs(found) == pytest.approx(np.abs(expected), abs=1e-4)


def test_tica_sees_the_slow_motion_and_not_the_largest(tmp_path: Path) -> None:
    md = source(tmp_path, *(hinge(seed, 1000, 0.02) for seed in (1, 2, 3)))
    order = np.arange(6)
    alike = source(tmp_path, hinge(4, 300, 0.5))
    closed = source(tmp_path, hinge(5, 300, 0.0))
    found = compare_kinetics(md, alike, order, order)
    value, floor, arrays = found.values, found.floor, found.arrays
    stuck = compare_kinetics(md, closed, order, order).values
    assert not found.notes
    assert value["tica_w2"] < 0.6 < 0.9 < stuck["tica_w2"]
    assert len(floor) == 3
    assert arrays["md_tica"].std(axis=0) == pytest.approx([1.0, 1.0], rel=0.1)
    assert arrays["sample_tica"].shape == (300, 2)


def test_the_order_of_the_samples_and_of_the_atoms_on_disk_does_not_matter(
    tmp_path: Path,
) -> None:
    xyz, samples = hinge(1, 400, 0.05), hinge(2, 100, 0.05)
    order = np.arange(6)
    expected = compare_kinetics(
        source(tmp_path, xyz), source(tmp_path, samples), order, order
    ).values
    shuffled = np.random.default_rng(0).permutation(100)
    found = compare_kinetics(
        source(tmp_path, xyz), source(tmp_path, samples[shuffled][:, ::-1]), order, order[::-1]
    ).values
    assert found == pytest.approx(expected, rel=1e-6)


def test_short_replicas_have_no_kinetics_but_a_reason(tmp_path: Path) -> None:
    md = source(tmp_path, hinge(1, 400, 0.05), hinge(2, 50, 0.05))
    found = compare_kinetics(md, md, np.arange(6), np.arange(6))
    values, floor, arrays, notes = found.values, found.floor, found.arrays, found.notes
    assert np.isnan(list(values.values())).all()
    assert len(floor) == 2
    assert arrays == {}
    assert "100 frames" in notes[0]


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_independent_frames_of_an_autoregressive_series_are_known(correlation: float) -> None:
    random, n, found = np.random.default_rng(0), 4000, []
    for _ in range(10):
        noise, series = random.normal(size=n), np.zeros(n)
        for t in range(1, n):
            series[t] = correlation * series[t - 1] + noise[t]
        found.append(effective_frames(series))
    expected = n * (1 - correlation) / (1 + correlation)
    assert np.mean(found) == pytest.approx(expected, rel=0.12)


def test_a_constant_series_is_one_frame_and_no_series_has_more_than_it_has() -> None:
    assert effective_frames(np.ones(50)) == 1.0
    alternating = np.tile([1.0, -1.0], 50)
    assert 1.0 <= effective_frames(alternating) <= 100
