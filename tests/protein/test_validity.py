import time

import mdtraj
import numpy as np
import pytest

from protenix_eba.protein.validity import Checker


@pytest.fixture(scope="module")
def peptide(demo_data):
    """MD of met-enkephalin without hydrogens: its checker and frames in angstrom."""
    folder = demo_data / "met_enkephalin"
    path = sorted(folder.glob("*.xtc"))[0]
    md = mdtraj.load_xtc(str(path), top=str(folder / "met_enkephalin.pdb"))
    md = md.atom_slice(md.topology.select("not element H"))
    return md.topology, 10 * md.xyz.astype(np.float64)


def atom(topology, residue, name):
    return next(a.index for a in topology.atoms if (a.residue.index, a.name) == (residue, name))


def from_residue(topology, first):
    return [a.index for a in topology.atoms if a.residue.index >= first]


def test_md_is_valid_and_its_bonds_are_standard(peptide):
    topology, xyz = peptide
    found = Checker.of(topology).check(xyz)
    assert found.valid.all() and not any(found.reasons())
    assert found.bond_outliers.max() < 0.05
    assert found.angle_outliers.mean() < 0.001


def test_a_gap_in_the_chain_is_one_break_at_its_place_only(peptide):
    topology, xyz = peptide
    moved = xyz[:3].copy()
    moved[1][from_residue(topology, 3)] += 20.0
    assert Checker.of(topology).check(moved).chain_breaks.tolist() == [0, 1, 0]


@pytest.mark.parametrize("limit", [2.0, 4.5])
def test_the_limits_of_a_break_are_at_2_and_4_5_angstrom(limit):
    """Two residues of backbone atoms on a line; either distance alone makes a break."""

    def breaks(c_n, ca_ca):
        checker = Checker.of_arrays(
            ["CA", "C", "N", "CA"], np.array([0, 0, 1, 1]), ["GLY"] * 4, np.zeros(4, dtype=int)
        )
        x = np.array([0.0, 1.5, 1.5 + c_n, ca_ca])
        return int(checker.check(np.stack([x, 0 * x, 0 * x], axis=1)[None]).chain_breaks[0])

    assert breaks(1.99, 4.49) == 0
    assert breaks(2.01, 4.49) == 1
    assert breaks(1.99, 4.51) == 1
    assert breaks(2.01, 4.51) == 1


def test_a_mirror_image_has_d_amino_acids_except_glycine(peptide):
    topology, xyz = peptide
    mirrored = xyz[:2] * np.array([1.0, 1.0, -1.0])
    assert Checker.of(topology).check(mirrored).d_residues.tolist() == [3, 3]  # YGGFM


def test_two_atoms_of_distant_residues_in_one_place_are_a_clash(peptide):
    topology, xyz = peptide
    near = xyz[:1].copy()
    near[0, atom(topology, 4, "CE")] = xyz[0, atom(topology, 0, "OH")] + [0.3, 0.0, 0.0]
    found = Checker.of(topology).check(near)
    assert found.clashes[0] >= 1
    assert "clash" in found.reasons()[0]


def pair(first, second, distance, residues=("CYS", "CYS")):
    """Two residues far apart in the chain, with a CA each and an atom of each at a distance."""
    checker = Checker.of_arrays(
        ["CA", first, "CA", second],
        np.array([0, 0, 5, 5]),
        [residues[0]] * 2 + [residues[1]] * 2,
        np.zeros(4, dtype=int),
    )
    xyz = np.array([[0, 8, 0], [0, 0, 0], [0, -8, 0], [distance, 0, 0]], dtype=float)
    return int(checker.check(xyz[None]).clashes[0])


def test_a_disulfide_is_no_clash_nor_are_hydrogens():
    assert pair("SG", "SG", 1.9) == 0
    assert pair("SG", "CB", 1.9) == 1
    assert pair("CB", "CB", 1.99) == 1
    assert pair("CB", "CB", 2.01) == 0
    assert pair("HB2", "CB", 1.0) == 0
    assert pair("1HB", "CB", 1.0) == 0


def test_chains_are_not_joined_however_their_residues_are_numbered():
    names, chain = ["CA", "C", "N", "CA"], np.array([0, 0, 1, 1])
    xyz = np.array([[0, 0, 0], [1.5, 0, 0], [60.0, 0, 0], [61.5, 0, 0]])[None]
    for numbers in ([0, 0, 1, 1], [0, 0, 0, 0], [7, 7, 0, 0]):
        checker = Checker.of_arrays(names, np.array(numbers), ["GLY"] * 4, chain)
        assert checker.check(xyz).valid.all()
        assert len(checker.alpha_carbons) == 0


def test_residues_that_a_structure_lacks_are_no_break(peptide):
    topology, xyz = peptide
    kept = [a.index for a in topology.atoms if a.residue.index != 2]
    assert Checker.of(topology.subset(kept)).check(xyz[:5, kept]).valid.all()


def test_conformations_that_are_not_finite_are_invalid_and_the_others_are_still_judged(peptide):
    topology, xyz = peptide
    broken = xyz[:3].copy()
    broken[0, 4, 1] = np.nan
    broken[2][from_residue(topology, 3)] += 20.0
    found = Checker.of(topology).check(broken)
    assert found.valid.tolist() == [False, True, False]
    assert found.reasons()[1:] == ["", "chain break: 1"]
    assert "not finite" in found.reasons()[0]


def test_stretched_bonds_are_told_but_allowed(peptide):
    topology, xyz = peptide
    wide = 1.15 * xyz[:1]
    found = Checker.of(topology).check(wide)
    assert found.valid.all()
    assert found.bond_outliers[0] > 0.5


def test_an_angle_is_an_outlier_from_15_degrees_on():
    """N-CA-C laid out on a plane: 111 degrees is standard, and the only angle of one residue."""
    checker = Checker.of_arrays(["N", "CA", "C"], np.zeros(3, int), ["ALA"] * 3, np.zeros(3, int))

    def outliers(degrees):
        turn = np.deg2rad(degrees)
        xyz = np.array([[1.46, 0, 0], [0, 0, 0], [1.52 * np.cos(turn), 1.52 * np.sin(turn), 0]])
        return float(checker.check(xyz[None]).angle_outliers[0])

    assert [outliers(111.0 + bend) for bend in (-15.1, -14.9, 0.0, 14.9, 15.1)] == [1, 0, 0, 0, 1]


def test_bonds_to_the_next_residue_are_not_taken_across_a_gap(peptide):
    topology, xyz = peptide
    whole = Checker.of(topology)
    moved = xyz[:1].copy()
    moved[0][from_residue(topology, 3)] += 20.0
    names = [atom.name for atom in topology.atoms]
    numbers = np.array([a.residue.index + 7 * (a.residue.index >= 3) for a in topology.atoms])
    gapped = Checker.of_arrays(
        names, numbers, [a.residue.name for a in topology.atoms], np.zeros(len(names), int)
    )
    assert len(whole.angles) - len(gapped.angles) == 3
    assert whole.check(moved).angle_outliers[0] > 0.0 == gapped.check(moved).angle_outliers[0]


def test_atoms_in_any_order_give_the_same(peptide):
    topology, xyz = peptide
    atoms = list(topology.atoms)
    broken = xyz[:4].copy()
    broken[1][from_residue(topology, 3)] += 20.0
    broken[2] *= np.array([1.0, 1.0, -1.0])
    made = []
    for order in (np.arange(len(atoms)), np.random.default_rng(0).permutation(len(atoms))):
        checker = Checker.of_arrays(
            [atoms[i].name for i in order],
            np.array([atoms[i].residue.index for i in order]),
            [atoms[i].residue.name for i in order],
            np.zeros(len(atoms), dtype=int),
        )
        made.append(checker.check(broken[:, order]))
    assert made[0].reasons() == made[1].reasons()
    np.testing.assert_allclose(made[0].bond_outliers, made[1].bond_outliers)
    np.testing.assert_allclose(made[0].angle_outliers, made[1].angle_outliers)


def test_another_number_of_atoms_is_refused(peptide):
    topology, xyz = peptide
    with pytest.raises(ValueError, match="expected"):
        Checker.of(topology).check(xyz[:, :-1])


def test_no_conformation_and_no_protein_are_allowed(peptide):
    topology, xyz = peptide
    assert Checker.of(topology).check(xyz[:0]).reasons() == []
    others = Checker.of_arrays(
        ["O", "H1", "H2", "CA", "CA"], np.array([0, 0, 0, 1, 2]), ["HOH"] * 3 + ["CA"] * 2,
        np.zeros(5),
    )  # fmt: skip
    assert others.check(np.zeros((1, 5, 3))).valid.all()


def test_a_frame_of_a_thousand_atoms_takes_milliseconds():
    rng = np.random.default_rng(0)
    n = 200
    names = ["N", "CA", "C", "O", "CB"] * n
    checker = Checker.of_arrays(
        names, np.repeat(np.arange(n), 5), ["ALA"] * (5 * n), np.zeros(5 * n, dtype=int)
    )
    xyz = rng.uniform(0, 30, (50, 5 * n, 3))
    start = time.process_time()
    checker.check(xyz)
    assert time.process_time() - start < 50 * 0.05
