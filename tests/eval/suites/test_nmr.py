"""The suite `nmr`: closed forms, and couplings as mdtraj computes them."""

import csv
import json
import os
import threading
from functools import partial

import mdtraj
import numpy as np
import pytest

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.eval.experiment.averages import averaged
from protenix_eba.eval.experiment.bonds import (
    alignment_tensor,
    dipolar_constant_hz,
    dipolar_couplings,
    order_parameters,
    second_moments,
)
from protenix_eba.eval.experiment.frames import Frames
from protenix_eba.eval.experiment.karplus import COUPLINGS, karplus
from protenix_eba.eval.experiment.measurements import (
    AtomName,
    Measurement,
    read_commented,
    read_measurements,
)
from protenix_eba.eval.experiment.prediction import Prediction, residuals
from protenix_eba.eval.suites.nmr import agreement

NAME = "penta_alanine"
MDTRAJS = {
    ("3J_HN_HA", "vogeli2007"): partial(mdtraj.compute_J3_HN_HA, model="Bax2007"),
    ("3J_HN_HA", "hu1997"): partial(mdtraj.compute_J3_HN_HA, model="Bax1997"),
    ("3J_HN_HA", "schmidt1999"): partial(mdtraj.compute_J3_HN_HA, model="Ruterjans1999"),
    ("3J_HN_CB", "vogeli2007"): partial(mdtraj.compute_J3_HN_CB, model="Bax2007"),
    ("3J_HN_C", "vogeli2007"): partial(mdtraj.compute_J3_HN_C, model="Bax2007"),
}


def atom(word):
    residue, _, name = word.partition(":")
    return AtomName("", int(residue), name)


def measured(kind, atoms="", value=1.0, error=0.5, **more):
    groups = tuple(tuple(atom(w) for w in group.split(",")) for group in atoms.split())
    return Measurement(kind, groups, value, error, **more)


@pytest.fixture(scope="module")
def md(demo_data):
    return mdtraj.load(
        demo_data / NAME / f"{NAME}_prod_R1_fit.xtc", top=demo_data / NAME / f"{NAME}.pdb"
    )


@pytest.fixture(scope="module")
def frames(md):
    return Frames(md.topology, 10.0 * md.xyz, NAME)


@pytest.fixture
def points():
    """Frames of single atoms, one a residue, wherever a test puts them: `[S, N, 3]`."""

    def make(xyz, names):
        topology = mdtraj.Topology()
        chain = topology.add_chain()
        for word in names:
            residue = topology.add_residue("ALA", chain, resSeq=atom(word).residue)
            element = mdtraj.element.Element.getBySymbol(atom(word).name[0])
            topology.add_atom(atom(word).name, element, residue)
        return Frames(topology, np.asarray(xyz, dtype=np.float64), "t")

    return make


@pytest.mark.parametrize("coupling", MDTRAJS, ids="-".join)
def test_couplings_are_mdtrajs(coupling, md, frames):
    kind, name = coupling
    _, theirs = MDTRAJS[coupling](md)
    asked = [measured(kind, str(n), group=name) for n in range(2, 6)]
    np.testing.assert_allclose(averaged(frames, asked).signals, theirs, atol=2e-5)


def test_each_curve_has_its_phase():
    """At the torsion that undoes the phase a coupling is A + B + C, its largest or nearly."""
    for kind, sets in COUPLINGS.items():
        for name, curve in sets.items():
            assert karplus(kind, name) is curve
            top = curve.couplings(np.deg2rad(-curve.phase))
            assert top == pytest.approx(curve.a + curve.b + curve.c)
    with pytest.raises(UserError, match="known are: hu1997, schmidt1999"):
        karplus("3J_HA_C", "vogeli2007")


def test_distances_of_noes_are_averaged_as_powers(points):
    near, far, w = 2.0, 4.0, np.array([0.2, 0.8])
    found = points([[[0, 0, 0], [near, 0, 0]], [[0, 0, 0], [far, 0, 0]]], ["1:H", "2:H"])
    for kind, p in (("NOE", 6), ("NOE3", 3)):
        predicted = Prediction(found, [measured(kind, "1:H 2:H")])(w)
        assert predicted[0] == pytest.approx((0.2 * near**-p + 0.8 * far**-p) ** (-1.0 / p))
    assert Prediction(found, [measured("DISTANCE", "1:H 2:H")])(w)[0] == pytest.approx(3.6)


def test_equivalent_protons_at_one_distance_give_that_distance(points):
    xyz = [[[0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]]]
    found = points(xyz, ["1:H", "2:HB1", "3:HB2", "4:HB3"])
    predicted = Prediction(found, [measured("NOE", "2:HB1,3:HB2,4:HB3 1:H")])(np.ones(1))
    assert predicted[0] == pytest.approx(3.0)


def test_the_radius_of_gyration_is_mdtrajs_about_the_centre_of_mass(md, frames):
    """mdtraj takes squares about the geometric centre: Steiner's theorem says by how much more."""
    masses = np.array([a.element.mass for a in md.topology.atoms])
    off = np.linalg.norm(mdtraj.compute_center_of_mass(md) - md.xyz.mean(axis=1), axis=1)
    theirs = 10.0 * np.sqrt(mdtraj.compute_rg(md, masses=masses) ** 2 - off**2)
    np.testing.assert_allclose(averaged(frames, [measured("RG")]).signals[:, 0], theirs, rtol=1e-5)


def cone(half_angle, n=200):
    """Directions that fill a cone about z evenly, `[n * n, 3]`."""
    z = np.cos(half_angle) + (1.0 - np.cos(half_angle)) * (np.arange(n) + 0.5) / n
    turn = 2.0 * np.pi * np.arange(n) / n
    z, turn = (grid.ravel() for grid in np.meshgrid(z, turn))
    r = np.sqrt(1.0 - z**2)
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1)


@pytest.mark.parametrize("degrees", [0.0, 20.0, 60.0, 180.0])
def test_the_order_parameter_of_a_cone_is_that_of_lipari_and_szabo(degrees, points):
    """S = cos t (1 + cos t) / 2 (J. Am. Chem. Soc. 104, 4546 (1982), Eq. A3)."""
    t, random = np.deg2rad(degrees), np.random.default_rng(0)
    bonds = cone(t, 60)
    ca = random.normal(size=(4, 3))
    xyz = [np.concatenate([ca, np.zeros((1, 3)), 1.02 * bond[None]]) for bond in bonds]
    # whole conformations turned about: the tumbling is taken out by the C-alpha atoms
    turns = np.linalg.qr(random.normal(size=(len(xyz), 3, 3)))[0]
    turns *= np.linalg.det(turns)[:, None, None]
    found = points(xyz @ turns, ["1:CA", "2:CA", "3:CA", "4:CA", "5:N", "5:H"])
    predicted = Prediction(found, [measured("S2", "5:N 5:H")])(np.full(len(xyz), 1 / len(xyz)))
    order = np.cos(t) * (1.0 + np.cos(t)) / 2.0
    assert predicted[0] == pytest.approx(order**2, abs=1e-3)


def test_two_sites_have_the_order_parameter_of_two_sites():
    """1 - 3 p q sin^2 of the angle between them."""
    one, two, p = np.array([0.0, 0.0, 1.0]), np.array([np.sin(0.7), 0.0, np.cos(0.7)]), 0.3
    moments = p * np.outer(one, one) + (1 - p) * np.outer(two, two)
    assert order_parameters(moments) == pytest.approx(1 - 3 * p * (1 - p) * np.sin(0.7) ** 2)


def test_a_known_tensor_is_found_and_gives_its_couplings():
    random = np.random.default_rng(2)
    bonds = random.normal(size=(12, 3))
    bonds /= np.linalg.norm(bonds, axis=1, keepdims=True)
    moments = bonds[:, :, None] * bonds[:, None]
    made = random.normal(size=(3, 3)) * 1e-4
    tensor = made + made.T
    tensor -= np.eye(3) * np.trace(tensor) / 3.0
    constants = np.full(12, dipolar_constant_hz("N", "H", 1.02))
    values = constants * ((bonds @ tensor) * bonds).sum(axis=1)
    found = alignment_tensor(moments, constants, values, np.full(12, 0.5))
    np.testing.assert_allclose(found, tensor, atol=1e-12)
    np.testing.assert_allclose(dipolar_couplings(moments, constants, found), values, atol=1e-9)
    with pytest.raises(UserError, match="5 couplings of one medium"):
        alignment_tensor(moments[:5], constants[:5], values[:5], np.ones(5))
    same = np.repeat(moments[:1], 8, axis=0)
    with pytest.raises(UserError, match="determine 1 of 5"):
        alignment_tensor(same, constants[:8], values[:8], np.ones(8))


def test_an_axial_tensor_gives_the_textbooks_coupling():
    """D_max S (3 cos^2 t - 1) / 2 for the order S along z; 21.7 kHz for N-H at 1.04 angstrom."""
    constant, order, t = dipolar_constant_hz("N", "H", 1.04), 1e-3, 0.4
    assert constant == pytest.approx(21.7e3, rel=0.01)
    bond = np.array([np.sin(t), 0.0, np.cos(t)])
    tensor = order * np.diag([-0.5, -0.5, 1.0])
    (found,) = dipolar_couplings(np.outer(bond, bond)[None], np.array([constant]), tensor)
    assert found == pytest.approx(constant * order * (3.0 * np.cos(t) ** 2 - 1.0) / 2.0)


def test_couplings_of_an_ensemble_do_not_depend_on_how_it_lies(frames):
    pairs = [f"{n}:N {n}:H" for n in range(2, 6)] + [f"{n}:CA {n}:HA" for n in range(1, 6)]
    asked = [measured("RDC", pair, value=v) for pair, v in zip(pairs, range(-4, 5), strict=True)]
    weights = np.full(len(frames), 1.0 / len(frames))
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = Frames(frames.topology, frames.xyz @ (turn * np.linalg.det(turn)), NAME)
    np.testing.assert_allclose(
        Prediction(turned, asked)(weights), Prediction(frames, asked)(weights), atol=1e-3
    )


def test_an_amide_hydrogen_is_built_where_the_force_field_has_it(frames):
    heavy = [a.index for a in frames.topology.atoms if a.element.symbol != "H"]
    without = Frames(frames.topology.subset(heavy), frames.xyz[:, heavy], NAME)
    for n in range(2, 6):
        nitrogen = frames.position(AtomName("", n, "N"))
        one, two = (f.position(AtomName("", n, "H")) - nitrogen for f in (frames, without))
        cosine = (one * two).sum(axis=1) / (
            np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
        )
        # improper and angle vibrations of the force field at 300 K
        assert np.rad2deg(np.arccos(cosine)).mean() < 12.0
    moments, lengths = second_moments(without, [measured("S2", "3:N 3:H")])
    assert lengths[0] == pytest.approx(1.02) and moments.shape == (len(frames), 1, 3, 3)


def test_proline_has_no_amide_hydrogen():
    """Of alanine and proline, at any coordinates."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for name in ("ALA", "PRO"):
        residue = topology.add_residue(name, chain)
        for atom_name in ("N", "CA", "C"):
            topology.add_atom(atom_name, mdtraj.element.Element.getBySymbol(atom_name[0]), residue)
    two = Frames(topology, np.random.default_rng(0).normal(size=(1, 6, 3)), "two")
    second = topology.residue(1).resSeq
    with pytest.raises(UserError, match="proline has no amide hydrogen"):
        two.position(AtomName("", second, "H"))


def test_a_bound_is_wrong_on_one_side_only():
    asked = [measured("NOE", "1:H 2:H", 3.0, 0.5, bound=b) for b in ("upper", "lower", "")]
    np.testing.assert_allclose(residuals(asked, np.array([2.0, 2.0, 2.0])), [0.0, -2.0, -2.0])
    np.testing.assert_allclose(residuals(asked, np.array([4.0, 4.0, 4.0])), [2.0, 0.0, 2.0])


def test_agreement_is_what_its_words_say():
    asked = [measured("RDC", "1:N 1:H", v) for v in (1.0, 2.0, -3.0)]
    found = agreement(asked, np.array([2.0, 3.0, -2.0]))
    assert found["rmsd"] == pytest.approx(1.0) and found["chi2"] == pytest.approx(4.0)
    assert found["pearson"] == pytest.approx(1.0)
    assert found["q_factor"] == pytest.approx(1.0 / np.sqrt(14.0 / 3.0))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("3J_HN_XX,2,1,1", "line 2: unknown kind"),
        ("3J_HN_HA,2:H,1,1", "cannot use the atoms '2:H'"),
        ("NOE,2:H,1,1", "cannot use the atoms '2:H'"),
        ("RDC,2:N 2:H,1,0", "an error is a positive number"),
        ("NOE,2:H 3:H,x,1", "could not convert"),
        ("NOE,H 3:H,1,1", "cannot read the atom 'H'"),
        ("3J_HN_HA,2,5,59,0,42", "line 2: more values than the 4 columns"),
        ("3J_HN_HA,2,5.59", "line 2: could not convert string to float: ''"),
        ('"3J_HN_HA\n",2,5.59,x', "line 3: could not convert"),
    ],
)
def test_a_broken_line_is_named(row, message, tmp_path):
    (tmp_path / "d.csv").write_text(f"kind,atoms,value,error\n{row}\n")
    with pytest.raises(UserError, match=message):
        read_measurements(tmp_path / "d.csv")


def test_a_line_that_ends_early_is_named_whatever_the_order_of_columns(tmp_path):
    (tmp_path / "d.csv").write_text("# J\nvalue,error,atoms,kind\n5.59,0.4\n")
    with pytest.raises(UserError, match="line 3: unknown kind ''"):
        read_measurements(tmp_path / "d.csv")


def test_measured_couplings_stand_beside_the_shipped_md(demo_data, tmp_path):
    data = demo_data / "penta_alanine_couplings.csv"
    words = ["--suite", "nmr", "--reference", str(data), "--samples", str(demo_data / NAME)]
    assert run(["evaluate", *words, "--out", str(tmp_path)]) == 0
    with open(tmp_path / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = {(r["item"], r["key"]): r for r in csv.DictReader(file)}
    whole = rows["", "chi2"]
    assert 0.0 < float(whole["low"]) <= float(whole["value"]) <= float(whole["high"])
    predicted = float(rows["3J_HN_HA 3 vogeli2007_rigid", "predicted"]["value"])
    assert 2.0 < predicted < 10.0
    assert len([key for _, key in rows if key == "measured"]) == 15


def test_trialanines_md_agrees_with_its_couplings_and_the_note_says_how_they_were_measured(
    demo_data, tmp_path
):
    folder = demo_data.parent / "tripeptides"
    words = ["--reference", str(folder / "AAA_couplings.csv"), "--out", str(tmp_path)]
    words += ["--samples", str(folder / "md" / "unbiased" / "AAA")]
    assert run(["evaluate", "--suite", "nmr", *words]) == 0
    content = json.loads((tmp_path / "metrics.json").read_text())
    measured = {v["item"]: v["value"] for v in content["values"] if v["key"] == "measured"}
    # the transcription's first and last, of eight
    assert (len(measured), measured["3J_HA_C 2 hu1997"]) == (8, 1.84)
    assert measured["3J_HN_HA 3 vogeli2007_rigid"] == 6.52
    (chi2,) = (v["value"] for v in content["values"] if (v["item"], v["key"]) == ("", "chi2"))
    assert 0.0 < chi2 < 1.0
    (note,) = content["notes"]
    assert note.startswith("AAA_couplings.csv: Scalar couplings of Ala3 in water, 300 K, pH 2")
    assert "is charged, at pH 2 it is not." in note and "#" not in note
    assert note in (tmp_path / "report.html").read_text().replace("&#39;", "'")


def test_a_value_that_is_commented_out_is_no_note(tmp_path):
    (tmp_path / "d.csv").write_text("# of me\nkind,atoms,value,error\n#RG,,9,1\nRG,,5,1\n# end\n")
    (one,), comment = read_commented(tmp_path / "d.csv")
    assert (one.value, comment) == (5.0, "of me")


def test_lists_may_come_from_pipes(demo_data, tmp_path):
    """As bash makes them of <(command)."""
    pipes = {"--reference": (demo_data / "penta_alanine_couplings.csv").read_text(),
             "--targets": f"{NAME}\n"}  # fmt: skip
    words = ["--suite", "nmr", "--samples", str(demo_data / NAME), "--out", str(tmp_path / "out")]
    writers = []
    for option, text in pipes.items():
        pipe = tmp_path / option
        os.mkfifo(pipe)
        writers.append(threading.Thread(target=pipe.write_text, args=(text,), daemon=True))
        writers[-1].start()
        words += [option, str(pipe)]
    assert run(["evaluate", *words]) == 0
    for writer in writers:
        writer.join(timeout=5.0)
        assert not writer.is_alive()


def test_atoms_that_are_not_there_are_said(frames):
    with pytest.raises(UserError, match="there is no atom 3:QX"):
        Prediction(frames, [measured("NOE", "3:QX 2:H")])
    with pytest.raises(UserError, match="residue 1 has none before it"):
        Prediction(frames, [measured("3J_HN_HA", "1")])
