"""BioEmu's benchmarks: closed forms always, the package's own numbers where its clone is at hand.

`BIOEMU_BENCHMARKS` names a clone of github.com/microsoft/bioemu-benchmarks.
"""

import csv
import json
import os
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.eval.suites.bioemu.data import DATA, find_part
from protenix_eba.eval.suites.bioemu.folding import folding_free_energy, soft_native_contacts
from protenix_eba.eval.suites.bioemu.landscapes import Landscape
from protenix_eba.eval.suites.bioemu.md import contact_features
from protenix_eba.eval.suites.bioemu.multiconf import distances_to, native_contacts
from protenix_eba.eval.suites.bioemu.physical import physical
from protenix_eba.eval.suites.bioemu.recall import DRAWN, coverage, recall
from protenix_eba.eval.suites.bioemu.references import Local, Reference, aligned_residues
from protenix_eba.eval.suites.bioemu.samples import Sampled

CLONE = Path(os.environ.get("BIOEMU_BENCHMARKS", "absent"))
ORACLE = json.loads((Path(__file__).parents[2] / "data" / "bioemu_oracle.json").read_text())
SEQUENCE = "AGSTVLIKDEARGWYFHCMQ"
NAMES = {"A": "ALA", "G": "GLY", "S": "SER", "T": "THR", "V": "VAL", "L": "LEU", "I": "ILE",
         "K": "LYS", "D": "ASP", "E": "GLU", "R": "ARG", "W": "TRP", "Y": "TYR", "F": "PHE",
         "H": "HIS", "C": "CYS", "M": "MET", "Q": "GLN"}  # fmt: skip


def chain(random=None):
    """`[20, 4, 3]` backbone along a helix, 1.5 angstrom a residue; atoms a little off their CA."""
    n = len(SEQUENCE)
    t = np.deg2rad(100.0) * np.arange(n)
    ca = np.stack([2.3 * np.cos(t), 2.3 * np.sin(t), 1.5 * np.arange(n)], axis=1)
    offsets = np.array([[-1.0, 0.5, -0.8], [0, 0, 0], [0.9, 0.4, 0.8], [1.2, 1.4, 0.3]])
    xyz = ca[:, None] + offsets
    return xyz if random is None else xyz + random.normal(0.0, 0.3, xyz.shape)


def reference(backbone, sequence=SEQUENCE, cell=None):
    return Reference("r", sequence, np.arange(1, len(sequence) + 1), backbone, cell)


def samples(backbones, sequence=SEQUENCE):
    n = len(backbones)
    return Sampled("s", sequence, np.asarray(backbones), np.full(n, 1.0 / n), n)


def test_coverage_and_recall_are_the_expectation_of_the_packages_draws():
    """Its draws, made 1,500 times here, with weights: means within four standard errors."""
    random = np.random.default_rng(0)
    distances, weights = random.gamma(2.0, 2.0, (3000, 2)), random.dirichlet(np.full(3000, 0.5))
    order = [distances[random.choice(3000, DRAWN, p=weights)] for _ in range(1500)]
    nearest = np.array([drawn.min(axis=0) for drawn in order])
    error = 4.0 * nearest.mean(axis=1).std() / np.sqrt(len(order))
    assert recall(distances, weights) == pytest.approx(nearest.mean(), abs=error)
    thresholds = np.quantile(nearest, [0.1, 0.5, 0.9])
    hit = (nearest[:, :, None] < thresholds).mean(axis=1)
    errors = 4.0 * hit.std(axis=0) / np.sqrt(len(order))
    assert (np.abs(coverage(distances, weights, thresholds) - hit.mean(axis=0)) < errors).all()


def test_coverage_of_one_conformation_is_yes_or_no():
    one = np.array([[2.0, 4.0]])
    np.testing.assert_allclose(coverage(one, np.ones(1), np.array([1.0, 2.0, 3.0, 5.0])),
                               [0.0, 0.0, 0.5, 1.0])  # fmt: skip
    assert recall(one, np.ones(1)) == pytest.approx(3.0)
    np.testing.assert_allclose(coverage(one, np.ones(1), np.array([3.0]), above=True), [0.5])
    rare = np.array([[0.0], [9.0]])
    p = 0.001
    found = coverage(rare, np.array([p, 1 - p]), np.array([1.0]))
    assert found[0] == pytest.approx(1.0 - (1.0 - p) ** 1000)


def test_a_gap_in_the_reference_is_no_partner():
    ours, theirs = aligned_residues("ACDEGHIK", "ACDEFGHIKL")
    assert ours.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert theirs.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


def test_a_local_distance_is_that_of_the_region_after_the_others_are_superposed():
    """Five residues at the end are 2 angstrom off; the rest fits, wherever the sample lies."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    moved = chain()
    moved[-5:] += np.array([0.0, 0.0, 2.0])
    local = Local(frozenset(range(1, 16)), frozenset(range(16, 21)))
    lying = samples([moved @ turn + 7.0])
    assert distances_to(lying, reference(chain()), local)[0] == pytest.approx(2.0, abs=1e-6)
    every = distances_to(samples([chain() @ turn - 3.0]), reference(chain()), None)
    assert every[0] == pytest.approx(0.0, abs=1e-6)


def test_native_contacts_of_a_region_are_counted_with_the_rest():
    ca = chain()[:, 1]
    pairs = [(i, j) for i in range(20) for j in range(i + 3, 20)
             if np.linalg.norm(ca[i] - ca[j]) < 8.0 and (i >= 15 or j >= 15)]  # fmt: skip
    local = Local(None, frozenset(range(16, 21)))
    torn = chain()
    torn[-5:] += 100.0
    found = native_contacts(samples([chain(), torn]), reference(chain()), local)
    kept = sum(i >= 15 for i, _ in pairs) / len(pairs)
    np.testing.assert_allclose(found, [1.0, kept])


def test_contacts_across_the_crystals_cell_are_counted_on_demand_only():
    """A cell as short as the helix: the last residue touches the first of the next molecule."""
    cell = np.array([60.0, 60.0, 31.0, 90.0, 90.0, 90.0])
    local = Local(None, frozenset(range(1, 21)))
    known = reference(chain(), cell=cell)
    assert native_contacts(samples([chain()]), known, local)[0] == 1.0
    assert native_contacts(samples([chain()]), known, local, images=True)[0] < 1.0


def test_soft_contacts_leave_out_mutated_residues():
    native = reference(chain())
    assert soft_native_contacts(chain()[None, :, 1], SEQUENCE, native)[0] > 0.99
    mutant = "W" + SEQUENCE[1:]
    moved = chain()
    moved[0] += 100.0
    assert soft_native_contacts(moved[None, :, 1], SEQUENCE, native)[0] < 0.97
    assert soft_native_contacts(moved[None, :, 1], mutant, native)[0] > 0.99
    with pytest.raises(UserError, match="19 residues, the wild type has 20"):
        soft_native_contacts(chain()[None, 1:, 1], SEQUENCE[1:], native)


def test_the_free_energy_of_a_share_is_its_logarithm():
    """9 of 10 folded: -kT ln 9; all or none: the limit of 1e-10."""
    contacts = np.repeat([1.0, 0.0], [9, 1])
    kt = 0.0019872043 * 295.0
    found = folding_free_energy(contacts, np.full(10, 0.1), 295.0)
    assert found == pytest.approx(-kt * np.log(9.0), abs=1e-3)
    weighted = folding_free_energy(contacts, np.repeat([0.1 / 9, 0.9], [9, 1]), 295.0)
    assert weighted == pytest.approx(kt * np.log(9.0), abs=1e-3)


def test_features_of_neighbours_are_one_and_others_fall_with_the_distance():
    ca = chain()[None, :, 1]
    found = contact_features(ca)[0]
    i, j = np.triu_indices(16)
    assert (found[j - i <= 2] == 1.0).all()
    apart = np.linalg.norm(ca[0, 2 + i] - ca[0, 2 + j], axis=-1)
    np.testing.assert_allclose(found[j - i > 2], np.exp(-apart / 8.0)[j - i > 2])


def test_two_gaussians_have_the_errors_of_their_free_energies():
    """Widths s1 of the reference and s2: F differs by a u, u = r^2 / R^2 even over the disc.

    The disc's radius R is where the reference is 4 kcal/mol above its lowest, so that
    a = 4 kcal/mol ((s1 / s2)^2 - 1), and the mean of |u - 1/2| is 1/4. Counts add some noise.
    """
    random = np.random.default_rng(0)
    reference_width, width = np.hypot(1.0, 0.25), np.hypot(0.8, 0.25)
    landscape = Landscape(random.normal(size=(200_000, 2)))
    same = landscape.errors(random.normal(size=(200_000, 2)), np.full(200_000, 1.0 / 200_000))
    assert same.mae < 0.1 and same.coverage > 0.99
    found = landscape.errors(0.8 * random.normal(size=(200_000, 2)))
    assert found.mae == pytest.approx(((reference_width / width) ** 2 - 1.0), rel=0.1)


def test_the_surface_of_a_gaussian_is_a_paraboloid():
    """kT r^2 / (2 (1 + 0.25^2)) above the lowest: the width with the noise of the draws."""
    random = np.random.default_rng(0)
    x, y, energy = Landscape(random.normal(size=(200_000, 2)), 300.0).surface()
    x, y = (0.5 * (edges[1:] + edges[:-1]) for edges in (x, y))
    square = np.add.outer(x**2, y**2)
    shown = square < 4.0
    expected = 0.0019872 * 300.0 * square / (2.0 * (1.0 + 0.25**2))
    assert np.isfinite(energy[shown]).all() and np.isnan(energy[square > 20.0]).all()
    # bins of 0.2 hold some 1,000 of the million draws: the lowest is a maximum over noise
    np.testing.assert_allclose(energy[shown] - energy[shown].min(), expected[shown], atol=0.1)


def test_torn_and_clashing_conformations_are_left_out():
    whole = np.array([chain()] * 4)
    whole[1, 10:] += np.array([0.0, 0.0, 3.0])  # a break
    whole[2, 19, 3] = whole[2, 5, 1] + 0.3  # a clash
    whole[3, 7, 3] = whole[3, 5, 1] + 0.3  # neighbours' neighbours are not looked at
    whole[:, :, 0] = whole[:, :, 1] - 0.3
    whole[:, :-1, 2] = whole[:, 1:, 0] - 0.5
    owner = np.repeat(np.arange(20), 4)
    found = physical(whole.reshape(4, -1, 3).astype(np.float32), owner, whole)
    assert found.tolist() == [True, False, False, True]


def test_data_that_are_others_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected .*ood60 below it, found nothing"):
        find_part(tmp_path, "ood60")
    folder = tmp_path / "assets" / DATA["ood60"][0]
    folder.mkdir(parents=True)
    (folder / "testcases.csv").write_text("test_case,sequence\n")
    with pytest.raises(UserError, match=r"not those of bioemu-benchmarks 0\.0\.2\.post1"):
        find_part(tmp_path, "ood60")
    assert find_part(tmp_path, "ood60", check=False) == folder


def pdb(path, backbones):
    topology = mdtraj.Topology()
    one = topology.add_chain()
    for number, code in enumerate(SEQUENCE, 1):
        name = NAMES[code]
        residue = topology.add_residue(name, one, resSeq=number)
        for atom in ("N", "CA", "C", "O"):
            topology.add_atom(atom, mdtraj.element.Element.getBySymbol(atom[0]), residue)
    path.parent.mkdir(parents=True, exist_ok=True)
    xyz = np.asarray(backbones).reshape(len(backbones), -1, 3) / 10.0
    mdtraj.Trajectory(xyz, topology).save_pdb(path)


def test_a_small_benchmark_runs_from_the_command(tmp_path):
    """Two references, samples near one of them; two sets of samples of one sequence are joined."""
    random, folder = np.random.default_rng(0), tmp_path / "assets" / DATA["domainmotion"][0]
    other = chain()
    other[10:] += np.array([0.0, 6.0, 0.0])
    pdb(folder / "reference" / "X" / "1AAA_A.pdb", [chain()])
    pdb(folder / "reference" / "X" / "1BBB_A.pdb", [other])
    (folder / "testcases.csv").write_text(f"test_case,sequence\nX,{SEQUENCE}\nY,AAAA\n")
    for name in ("one", "two"):
        pdb(tmp_path / "samples" / f"{name}.pdb", [chain(random) for _ in range(5)])
    words = ["--suite", "bioemu-multiconf", "--samples", str(tmp_path / "samples"),
             "--reference", str(tmp_path), "--out", str(tmp_path / "out"), "--set",
             "check_data=false", "--set", "filter_torn=false",
             "--set", "benchmark=domainmotion"]  # fmt: skip
    assert run(["evaluate", *words]) == 0
    with open(tmp_path / "out" / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = {(r["target"], r["item"], r["key"]): float(r["value"]) for r in csv.DictReader(file)}
    assert rows["X", "domainmotion 1AAA_A", "nearest_distance"] < 0.6
    assert rows["X", "domainmotion 1BBB_A", "nearest_distance"] > 1.5
    assert rows["", "domainmotion", "coverage_threshold"] in (0.5, 1.0)
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert record["notes"] == ["domainmotion: 1 of 2 test cases have samples."]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "least covered are X (" in page and "Coverage of known conformations" in page


needs_clone = pytest.mark.skipif(
    not (CLONE / "tests" / "test_data").is_dir(), reason="BIOEMU_BENCHMARKS names no clone"
)


def evaluate(suite, name, out, *changes):
    words = ["--suite", suite, "--reference", str(CLONE), "--out", str(out), "--samples",
             str(CLONE / "tests" / "test_data" / "samples_example" / name)]  # fmt: skip
    words += [word for change in ("filter_torn=false", *changes) for word in ("--set", change)]
    assert run(["evaluate", *words]) == 0
    with open(out / "metrics.csv", newline="", encoding="utf-8") as file:
        return {(r["target"], r["item"], r["key"]): float(r["value"]) for r in csv.DictReader(file)}


@needs_clone
@pytest.mark.parametrize(
    ("name", "part", "items"),
    [
        ("multiconf_ood60", "ood60", {"ood60": "rmsd"}),
        ("multiconf_domainmotion", "domainmotion", {"domainmotion": "rmsd"}),
        (
            "multiconf_crypticpocket",
            "crypticpocket",
            {"crypticpocket holo": "rmsd_holo", "crypticpocket apo": "rmsd_apo"},
        ),
        (
            "singleconf_localunfolding",
            "localunfolding",
            {"localunfolding folded": "fnc_unfold_f", "localunfolding unfolded": "fnc_unfold_u"},
        ),
    ],
)
def test_known_conformations_are_found_as_the_package_finds_them(name, part, items, tmp_path):
    found = evaluate("bioemu-multiconf", name, tmp_path, f"benchmark={part}", "as_published=true")
    theirs = ORACLE["aggregates"][name]
    for item, suffix in items.items():
        for key, other in (
            ("krecall", "krecall_mean"),
            ("coverage_auc", "coverage_auc"),
            ("coverage_threshold", "coverage_threshold"),
        ):
            expected = theirs[f"{other}_{suffix}"]
            assert found["", item, key] == pytest.approx(expected, abs=2e-5), (item, key)


@needs_clone
def test_free_energies_are_the_packages(tmp_path):
    theirs = ORACLE["aggregates"]["folding_free_energies"]
    name = "folding_free_energies"
    found = evaluate("bioemu-folding", name, tmp_path, "as_published=true")
    for system, value in ORACLE["systems"].items():
        assert found[system, "", "dG"] == pytest.approx(value, abs=1e-6)
    for item in ("dG", "ddG"):
        assert found["", item, "mae"] == pytest.approx(theirs[f"{item}_mae"], abs=1e-6)


@needs_clone
def test_landscapes_are_the_packages(tmp_path):
    theirs = ORACLE["aggregates"]["md_emulation"]
    found = evaluate("bioemu-md", "md_emulation", tmp_path)
    for key in ("mae", "rmse", "coverage"):
        assert found["", "", key] == pytest.approx(theirs[key], abs=2e-5)


@needs_clone
def test_the_same_conformations_are_whole(tmp_path):
    from protenix_eba.eval.suites.bioemu.samples import sampled
    from protenix_eba.eval.suites.registry import Request
    from protenix_eba.structures.sources import find_samples

    for name, whole in ORACLE["whole"].items():
        found, _ = find_samples([CLONE / "tests" / "test_data" / "samples_example" / name])
        request = Request(found, CLONE, {}, None, 0)
        for ensemble in found:
            expected = whole[ensemble]
            if not expected:
                with pytest.raises(UserError, match="have a broken chain or a clash"):
                    sampled(request, ensemble, filter_torn=True)
            else:
                kept = sampled(request, ensemble, filter_torn=True)
                assert len(kept.backbone) == len(expected)
