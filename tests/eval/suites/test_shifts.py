"""Chemical shifts: closed forms with a predictor made here, CAUSTIC by its own command line."""

import csv
import sys

import mdtraj
import numpy as np
import pytest

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.eval.experiment import shifts
from protenix_eba.eval.experiment.averages import averaged
from protenix_eba.eval.experiment.caustic import Caustic, pdb_text
from protenix_eba.eval.experiment.frames import Frames
from protenix_eba.eval.experiment.measurements import AtomName, Measurement, read_measurements
from protenix_eba.eval.experiment.prediction import Prediction
from protenix_eba.eval.experiment.shift_predictors import NUCLEI, SHIFT_PREDICTORS, nucleus
from protenix_eba.eval.reweighting.entropy import Problem, chi_square

# Wishart et al., J. Biomol. NMR 5, 67 (1995), Table 2: X in GGXAGG, ppm; H and HA, N, CA, CB, C.
COIL = {
    "ALA": (8.24, 4.32, 123.8, 52.5, 19.1, 177.8),
    "LEU": (8.16, 4.34, 121.8, 55.1, 42.4, 177.6),
    "VAL": (8.03, 4.12, 119.2, 62.2, 32.9, 176.3),
    "SER": (8.31, 4.47, 115.7, 58.3, 63.8, 174.6),
    "LYS": (8.29, 4.32, 120.4, 56.2, 33.1, 176.6),
}


class Toy:
    """The shift of a nucleus is 10 times its column plus the x of the residue's CA."""

    errors = dict.fromkeys(NUCLEI, 0.5)
    source = "made up"
    calls = 0

    def version(self):
        return "toy 1"

    def predict(self, topology, xyz):
        Toy.calls += 1
        ca = [a.index for a in topology.atoms if a.name == "CA"]
        return xyz[ca, :1] + 10.0 * np.arange(6.0)

    def random_coil(self, topology):
        return np.full((topology.n_residues, 6), 10.0 * np.arange(6.0))

    def remarks(self, topology, xyz):
        return ["it is a toy"]


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(SHIFT_PREDICTORS._components, "toy", Toy())


@pytest.fixture
def frames(random):
    topology = mdtraj.Topology()
    chain = topology.add_chain("A")
    for number, name in enumerate(("GLY", "ALA", "LEU", "ALA", "GLY"), start=11):
        residue = topology.add_residue(name, chain, resSeq=number)
        for atom in ("N", "CA", "C", "O"):
            topology.add_atom(atom, mdtraj.element.Element.getBySymbol(atom[0]), residue)
    return Frames(topology, random.normal(0.0, 2.0, (40, 20, 3)), "t")


@pytest.fixture
def random():
    return np.random.default_rng(0)


def measured(residue, atom="CA", value=30.0, error=0.5, group="toy", **more):
    return Measurement("SHIFT", ((AtomName("", residue, atom),),), value, error, group, **more)


def test_shifts_are_averages_with_weights(frames, random):
    weights = random.dirichlet(np.ones(40))
    predicted = Prediction(frames, [measured(12), measured(13, "HN", 0.0)])(weights)
    x = weights @ frames.xyz[:, [5, 9], 0]
    np.testing.assert_allclose(predicted, [30.0 + x[0], x[1]], atol=1e-5)


def test_an_offset_is_the_constant_that_leaves_the_least_chi_square(frames, random):
    """Tried on a grid; of one nucleus, in other errors, and the others stay as they are."""
    asked = [measured(n, value=32.0 + n, error=e, offset=True) for n, e in ((12, 0.3), (13, 1.0),
             (14, 0.6))] + [measured(12, "CB", 41.0)]  # fmt: skip
    weights = random.dirichlet(np.ones(40))
    plain = averaged(frames, [Measurement(**{**vars(m), "offset": False}) for m in asked])
    moved = averaged(frames, asked)
    value, error = np.array([(m.value, m.error) for m in asked]).T
    off = (weights @ plain.signals - value)[:3, None] + np.linspace(-30.0, 30.0, 60001)
    least = (
        np.square(off / error[:3, None]).sum(axis=0).min()
        + ((weights @ plain.signals - value)[3] / error[3]) ** 2
    )
    problem = Problem(moved.signals, moved.values, moved.errors, moved.bounds, weights)
    assert chi_square(problem, weights) * 4 == pytest.approx(least, rel=1e-5)
    constants = Prediction(frames, asked).offsets(weights)
    np.testing.assert_allclose(constants[:3], constants[0])
    assert constants[3] == 0.0
    with pytest.raises(UserError, match="SHIFT CA toy: an offset cannot be fitted to 2 values"):
        averaged(frames, asked[:2])


def test_a_prediction_is_made_once(frames):
    Toy.calls = 0
    first = Prediction(frames, [measured(12)])(np.full(40, 1 / 40))
    assert Toy.calls == 40
    again = Frames(frames.topology, frames.xyz, "t")
    np.testing.assert_array_equal(Prediction(again, [measured(12)])(np.full(40, 1 / 40)), first)
    assert Toy.calls == 40
    kept = sorted((shifts.cache_folder() / "shifts").iterdir())
    kept[0].write_bytes(kept[0].read_bytes()[:-9])  # 32 conformations or 8
    again = Frames(frames.topology, frames.xyz, "t")
    np.testing.assert_array_equal(Prediction(again, [measured(12)])(np.full(40, 1 / 40)), first)
    assert Toy.calls in (40 + 32, 40 + 8)
    more = np.concatenate([frames.xyz, frames.xyz[:1] + 1.0])
    assert len(averaged(Frames(frames.topology, more, "t"), [measured(12)]).signals) == 41


def test_all_that_has_no_shift_is_named(frames):
    with pytest.raises(UserError, match=r"no shift can be predicted of 3:CA, 99:N: such"):
        averaged(frames, [measured(3), measured(12), measured(99, "N")])
    with pytest.raises(UserError, match="no shifts of CG"):
        nucleus("CG")


def test_the_suite_says_what_was_fitted_and_assumed(frames, tmp_path, capsys):
    whole = mdtraj.Trajectory(frames.xyz / 10.0, frames.topology)
    (tmp_path / "samples").mkdir()
    whole.save_pdb(tmp_path / "samples" / "t.pdb")
    rows = [f"SHIFT,{n}:CA,{30 + n / 10},,toy,fit" for n in (12, 13, 14)]
    (tmp_path / "d.csv").write_text("\n".join(["kind,atoms,value,error,set,offset", *rows]))
    words = ["--samples", str(tmp_path / "samples"), "--reference", str(tmp_path / "d.csv")]
    assert run(["evaluate", "--suite", "nmr", *words, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "ppm is added to the predicted shifts" in said and "it is a toy" in said
    assert "left empty" in said or "leaves empty: made up" in said
    with open(tmp_path / "out" / "metrics.csv", newline="", encoding="utf-8") as file:
        found = {(r["item"], r["key"]): r for r in csv.DictReader(file)}
    assert found["SHIFT CA toy", "rmsd"]["unit"] == "ppm"
    assert float(found["SHIFT 12:CA toy", "random_coil"]["value"]) == 30.0
    # the random coil is one constant here, so secondary shifts correlate as shifts do
    both = (found["SHIFT CA toy", key]["value"] for key in ("pearson", "pearson_secondary"))
    assert len({f"{float(value):.9f}" for value in both}) == 1
    words = ["--samples", str(tmp_path / "samples"), "--data", str(tmp_path / "d.csv")]
    assert run(["reweight", *words, "--min-effective", "1", "--theta", "10"]) == 0
    assert "ppm is added" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("SHIFT,2:CG,1,,toy,", "no shifts of CG"),
        ("SHIFT,2,1,,toy,", "cannot use the atoms '2'"),
        ("SHIFT,2:CA 3:CA,1,,toy,", "cannot use the atoms"),
        ("SHIFT,2:CA,1,,shiftx9,", "no shift predictor called 'shiftx9'"),
        ("SHIFT,2:CA,1,,toy,0.3", "cannot use the offset '0.3'"),
        ("NOE,2:CA 3:CA,1,1,,fit", "cannot use the offset 'fit'"),
        ("NOE,2:CA 3:CA,1,,,", "could not convert"),
        ("SHIFT,2:CA,1,0,toy,", "an error is a positive number"),
    ],
)
def test_a_broken_line_is_named(row, message, tmp_path):
    (tmp_path / "d.csv").write_text(f"kind,atoms,value,error,set,offset\n{row}\n")
    with pytest.raises(UserError, match=message):
        read_measurements(tmp_path / "d.csv")


def test_an_absent_predictor_is_said(frames, monkeypatch):
    monkeypatch.setitem(sys.modules, "caustic", None)
    with pytest.raises(UserError, match=r"pip install \"protenix-eba\[shifts\]\""):
        averaged(frames, [measured(12, group="")])


def test_bonded_sulphurs_are_stated():
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(3):
        residue = topology.add_residue("CYX", chain)
        topology.add_atom("SG", mdtraj.element.sulfur, residue)
    text = pdb_text(topology, np.array([[0.0, 0, 0], [9.0, 0, 0], [11.05, 0, 0]]))
    assert text.startswith("SSBOND   1 CYS A    2    CYS A    3\nATOM")


@pytest.fixture(scope="module")
def caustic():
    pytest.importorskip("caustic")
    return Caustic()


def test_the_packages_own_command_has_the_same_shifts(caustic, demo_data, tmp_path):
    """Of structures that mdtraj wrote, with and without an aromatic ring; one and two processes."""
    from caustic.cli import main as command

    for jobs, name in enumerate(("met_enkephalin", "grgds"), start=1):
        folder = demo_data / name
        md = mdtraj.load(folder / f"{name}_prod_R1_fit.xtc", top=folder / f"{name}.pdb")[:40:20]
        files = [tmp_path / f"{name}{n}.pdb" for n in range(2)]
        for frame, file in zip(md, files, strict=True):
            frame.save_pdb(file)
        words = [*map(str, files), "-o", str(tmp_path), "--format", "csv"]
        assert command(words) == 0
        frames = Frames(md.topology, 10.0 * md.xyz, name, jobs)
        for n, file in enumerate(files):
            with open(file.with_suffix(".csv"), encoding="utf-8") as lines:
                theirs = list(csv.DictReader(line for line in lines if line[0] != "#"))
            asked = [measured(int(r["sequence_code"]), r["atom_name"].replace("HA%", "HA"),
                              group="") for r in theirs]  # fmt: skip
            ours = averaged(frames, asked).signals[n]
            assert len(ours) >= 25
            np.testing.assert_allclose(ours, [float(r["shift_ppm"]) for r in theirs], atol=1e-5)


def test_random_coils_are_those_of_wishart(caustic):
    """Within what neighbours, pH and temperature do."""
    for residue, shifts_ppm in COIL.items():
        topology = mdtraj.Topology()
        chain = topology.add_chain()
        for name in ("GLY", "GLY", residue, "ALA", "GLY", "GLY"):
            topology.add_residue(name, chain)
        near = np.array([0.15, 0.15, 1.5, 0.8, 0.8, 1.2])
        assert (np.abs(caustic.random_coil(topology)[2] - shifts_ppm) < near).all()


def test_a_short_peptide_has_nearly_the_shifts_of_a_random_coil(caustic, demo_data):
    """Five alanines in water have no structure to speak of; within the predictor's errors."""
    folder = demo_data / "penta_alanine"
    md = mdtraj.load(folder / "penta_alanine_prod_R1_fit.xtc", top=folder / "penta_alanine.pdb")
    frames = Frames(md.topology, 10.0 * md.xyz[::20], "a5")
    asked = [measured(3, atom, group="") for atom in NUCLEI]
    off = averaged(frames, asked).signals.mean(axis=0) - COIL["ALA"]
    assert (np.abs(off) < list(caustic.errors.values())).all()
    assert not shifts.shift_remarks(frames, [])


def test_what_the_files_lack_is_said(caustic, demo_data):
    folder = demo_data / "met_enkephalin"
    md = mdtraj.load(folder / "met_enkephalin.pdb")
    heavy = [
        a.index
        for a in md.topology.atoms
        if a.element.symbol != "H"
        and a.residue.index != 2
        and (a.name in ("N", "CA", "C", "O") or a.residue.index != 3)
    ]
    part = md.atom_slice(heavy)  # no third residue, no side chain of the fourth, no hydrogens
    next(part.topology.residues).name = "PTR"
    frames = Frames(part.topology, 10.0 * part.xyz, "part")
    averaged(frames, [measured(2, group="")])
    said = " ".join(shifts.shift_remarks(frames, []))
    for words in ("8 hydrogens H and HA are not in the files", "no side chain of 4 PHE",
                  "1 PTR (TYR)", "residues lack between 2 GLY and 4 PHE"):  # fmt: skip
        assert words in said
