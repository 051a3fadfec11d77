"""What `label` reads besides trajectories, and what it does with files that are wrong."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openmm import app

from protenix_eba.cli.label import label
from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.energy.label import label_targets
from protenix_eba.energy.protocol import PROTOCOLS
from protenix_eba.energy.sources import FilesSource
from protenix_eba.energy.structure import complete_structure
from protenix_eba.energy.table import EnergyLabels, read_labels

DATA = Path(__file__).parents[1] / "data" / "cobrotoxin"
DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"
PUBLISHED = Path(__file__).parents[1] / "data" / "atlas_2wnp_F"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "atlas_2wnp_F"
NEEDS_SHARED = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs more frames in shared/data, see docs/checks.md"
)
AS_IS = replace(PROTOCOLS["published"], minimise=False)
CHEAP = PROTOCOLS["two-stage"]  # without the quench, which is nine tenths of a minimisation
GRGDS = DEMO / "grgds" / "grgds.pdb"


def _pdb_lines() -> list[str]:
    return GRGDS.read_text().splitlines(keepends=True)


def _write(folder: Path, lines: list[str], name: str = "grgds_0.pdb") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(lines), encoding="utf-8")
    return folder / name


def _as_cif(pdb: Path, cif: Path) -> Path:
    source = app.PDBFile(str(pdb))
    with cif.open("w") as handle:
        app.PDBxFile.writeFile(source.topology, source.positions, handle)
    return cif


def test_disulfides_from_mmcif_and_pdb_give_the_same_energy(tmp_path: Path) -> None:
    """mmCIF has no disulfides of its own: without them the energy is wrong by tens of thousands."""
    pdb = DATA / "cobrotoxin.pdb"
    cif = _as_cif(pdb, tmp_path / "cobrotoxin_0.cif")
    first, second = complete_structure(pdb), complete_structure(cif)
    bridges = [
        [(a.residue.index, b.residue.index) for a, b in s.topology.bonds() if a.name == b.name]
        for s in (first, second)
    ]
    assert len(bridges[0]) == 4 and sorted(bridges[0]) == sorted(bridges[1])
    assert first.topology_hash == second.topology_hash
    energies = [
        label_targets(path, tmp_path / f"{path.suffix}.parquet", AS_IS).labels.energy_kj_mol[0]
        for path in (pdb, cif)
    ]
    assert energies[0] == pytest.approx(energies[1], abs=0.01)


def test_files_are_frames_of_the_target_that_their_names_share(tmp_path: Path) -> None:
    """Natural order, any order of atoms, several models in a file, two targets at once."""
    lines = _pdb_lines()
    atoms = [i for i, line in enumerate(lines) if line.startswith("ATOM")]
    swapped = lines.copy()
    swapped[atoms[0]], swapped[atoms[1]] = swapped[atoms[1]], swapped[atoms[0]]
    paths = [_write(tmp_path, lines, f"grgds_{i}.pdb") for i in (0, 2, 10)]
    _write(tmp_path, swapped, "grgds_2.pdb")
    body = [line for line in lines if line.startswith(("ATOM", "TER"))]
    moved = [
        line[:30] + f"{float(line[30:38]) + 1:8.3f}" + line[38:]
        for line in body
        if "TER" not in line
    ]
    models = ["MODEL        1\n", *body, "ENDMDL\n", "MODEL        2\n", *moved, "ENDMDL\n"]
    paths.append(_write(tmp_path, models, "nmr.pdb"))
    result = CliRunner().invoke(
        label,
        [
            "--input",
            *map(str, reversed(paths)),
            "--out",
            str(tmp_path / "l.parquet"),
            "--no-minimize",
        ],
    )
    assert result.exit_code == 0, result.output
    labels = read_labels(tmp_path / "l.parquet")
    assert labels.target.tolist() == ["grgds"] * 3 + ["nmr"] * 2
    assert labels.frame.tolist() == [0, 1, 2, 0, 1]
    assert labels.energy_kj_mol == pytest.approx(np.full(5, labels.energy_kj_mol[0]), abs=0.05)
    together = label_targets(paths, tmp_path / "t.parquet", AS_IS, name="one").labels
    assert set(together.target) == {"one"} and len(together) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "n_frames"), [(PUBLISHED, 1), pytest.param(SHARED, 5, marks=NEEDS_SHARED)]
)
def test_published_structures_have_their_published_energies(
    folder: Path, n_frames: int, tmp_path: Path
) -> None:
    """From mmCIF files as they are, and from the published table beside them."""
    table = tmp_path / "published.parquet"
    words = ["label", "import-csv", str(folder / "published_energies.csv"), "--out", str(table)]
    assert run([*words, "--structures", str(folder)]) == 0
    published = read_labels(table)
    paths = [folder / f"2wnp_F_{i}.cif" for i in range(n_frames)]
    ours = label_targets(paths, tmp_path / "l.parquet", AS_IS).labels
    assert ours.target.tolist() == published.target.tolist() == ["2wnp_F"] * n_frames
    assert ours.frame.tolist() == published.frame.tolist()
    assert ours.frame_hash.tolist() == published.frame_hash.tolist()
    assert ours.topology_hash.tolist() == published.topology_hash.tolist()
    assert (published.n_residues == 217).all()
    expected = published.initial_energy_kj_mol
    assert ours.initial_energy_kj_mol == pytest.approx(expected, abs=0.15)


CSV = "frame,initial_e,final_e,rmsd\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,initial_e,rmsd\n", "lacks final_e"),
        (CSV + "a_0.cif,-1,oops,0.1\n", "line 2"),
        (CSV + "a_0.cif,-1,-2\n", "line 2"),
        (CSV + "nonumber.cif,-1,-2,0.1\n", "nonumber.cif"),
        (CSV + "a_0.cif,-1,-2,0.1\na_0.cif,-1,-2,0.1\n", "stand twice"),
        ("", "lacks frame"),
    ],
)
def test_published_tables_that_are_wrong_are_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text(text)
    out = str(tmp_path / "l.parquet")
    result = CliRunner().invoke(label, ["import-csv", str(path), "--out", out])
    assert isinstance(result.exception, UserError) and message in str(result.exception)
    assert not Path(out).exists()


def test_published_row_without_an_energy_is_a_failed_row(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(CSV + "a_0.cif,-1,nan,0.1\na_1.cif,-1,-2,0.1\n")
    out = tmp_path / "l.parquet"
    assert run(["label", "import-csv", str(tmp_path / "e.csv"), "--out", str(out)]) == 0
    assert read_labels(out).status.tolist() == ["failed", "ok"]


def _gap(lines: list[str]) -> list[str]:
    return [line for line in lines if line[22:26].strip() != "3"]


def _nan(lines: list[str]) -> list[str]:
    return [lines[0], lines[1][:30] + "     nan" + lines[1][38:], *lines[2:]]


def _coincident(lines: list[str]) -> list[str]:
    hydrogens = [i for i, line in enumerate(lines) if line[76:78].strip() == "H"]
    first, second = hydrogens[0], hydrogens[4]
    changed = lines.copy()
    changed[second] = lines[second][:30] + lines[first][30:54] + lines[second][54:]
    return changed


def _without(name: str) -> object:
    def strip(lines: list[str]) -> list[str]:
        return [line for line in lines if line[12:16].strip() not in name.split()]

    return strip


def _rename(old: str, new: str) -> object:
    return lambda lines: [line.replace(f" {old} ", f" {new} ") for line in lines]


def _duplicate(lines: list[str]) -> list[str]:
    atom = next(i for i, line in enumerate(lines) if line.startswith("ATOM"))
    return [*lines[: atom + 1], lines[atom], *lines[atom + 1 :]]


def _altloc(lines: list[str]) -> list[str]:
    atom = next(i for i, line in enumerate(lines) if " CB " in line)
    both = [lines[atom][:16] + letter + lines[atom][17:] for letter in "AB"]
    both[1] = both[1][:30] + f"{float(both[1][30:38]) + 0.4:8.3f}" + both[1][38:]
    return [*lines[:atom], *both, *lines[atom + 1 :]]


def _mirrored(lines: list[str]) -> list[str]:
    return [
        line[:30] + f"{-float(line[30:38]):8.3f}" + line[38:] if line.startswith("ATOM") else line
        for line in lines
    ]


def _heavy_only(lines: list[str]) -> list[str]:
    return [line for line in lines if line[76:78].strip() != "H"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_gap, "lacks N of residue 3"),
        (_nan, "not finite"),
        (_coincident, "two atoms in one place"),
        (_without("CG OD1"), "lacks CG of residue 2"),
        (lambda lines: lines[: len(lines) // 2], "unlike the target's first file"),
        (lambda lines: ["not a structure\n"], "cannot read"),
        (lambda lines: [], "cannot read"),
    ],
    ids=["gap", "nan", "coincident", "side_chain", "half", "text", "empty"],
)
def test_bad_structure_is_a_row_with_its_reason_and_the_good_ones_stay(
    change: object, reason: str, tmp_path: Path
) -> None:
    lines = _pdb_lines()
    bad = _write(tmp_path, change(lines), "grgds_1.pdb")  # type: ignore[operator]
    good = [_write(tmp_path, lines, f"grgds_{i}.pdb") for i in (0, 2)]
    labels = label_targets([*good, bad], tmp_path / "l.parquet", AS_IS).labels
    assert labels.status.tolist() == ["ok", "skipped", "ok"], labels.reason
    assert labels.reason[1]
    assert reason in labels.reason[1]


@pytest.fixture(scope="module")
def whole_grgds(tmp_path_factory: pytest.TempPathFactory) -> EnergyLabels:
    """Minimised once for all that are compared with it."""
    return label_targets(GRGDS, tmp_path_factory.mktemp("whole") / "l.parquet", CHEAP).labels


@pytest.mark.parametrize(
    "change", [_altloc, _heavy_only, _without("OXT")], ids=["altloc", "heavy_only", "no_oxt"]
)
def test_structures_that_can_be_repaired_have_an_energy(
    change: object, whole_grgds: EnergyLabels, tmp_path: Path
) -> None:
    path = _write(tmp_path, change(_pdb_lines()))  # type: ignore[operator]
    labels = label_targets(path, tmp_path / "l.parquet", CHEAP).labels
    assert labels.status.tolist() == ["ok"], labels.reason
    assert abs(labels.energy_kj_mol[0] - whole_grgds.energy_kj_mol[0]) < 60
    assert labels.topology_hash[0] == whole_grgds.topology_hash[0]
    assert (labels.built_fraction[0] > 0) == (change is not _altloc)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_gap, "angstrom in the backbone"),
        (_without("N C O"), "heavy atoms are missing"),
        (_rename("ASP", "UNK"), "cannot"),
        (lambda lines: ["not a structure\n"], "cannot"),
        (lambda lines: [], "cannot"),
    ],
    ids=["gap", "no_backbone", "unknown", "text", "empty"],
)
def test_target_without_a_usable_structure_says_why(
    change: object, reason: str, tmp_path: Path
) -> None:
    path = _write(tmp_path, change(_pdb_lines()))  # type: ignore[operator]
    try:
        labels = label_targets(path, tmp_path / "l.parquet", AS_IS).labels
        assert labels.status.tolist() in (["skipped"], ["failed"])
        told = labels.reason[0]
    except UserError as error:
        told = str(error)
    assert reason in told


def test_two_files_of_one_name_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        shutil.copytree(DEMO / "grgds", tmp_path / folder / "grgds")
    with pytest.raises(UserError, match="given twice"):
        label_targets([tmp_path / "a", tmp_path / "b"], tmp_path / "l.parquet", AS_IS)
    with pytest.raises(UserError, match="no structure file"):
        label_targets(DEMO / "labels.parquet", tmp_path / "l.parquet", AS_IS)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 70),
    st.integers(0, 79),
    st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1, max_size=12),
)
def test_scribbled_file_is_a_frame_with_a_fault_or_with_numbers(
    tmp_path: Path, line: int, column: int, scribble: str
) -> None:
    """Whatever stands in one of the files, the other one is read."""
    lines = _pdb_lines()
    good = _write(tmp_path, lines, "g_0.pdb")
    at = line % len(lines)
    lines[at] = lines[at][:column] + scribble + lines[at][column + len(scribble) :]
    bad = _write(tmp_path, lines, "g_1.pdb")
    frames = FilesSource("g", [good, bad]).read(1, np.array([0, 1]))
    assert np.isfinite(frames.xyz_angstrom[0]).all() and frames.faults[0] == ""
    assert frames.faults[1] or np.isfinite(frames.xyz_angstrom[1]).mean() > 0.9


@pytest.mark.filterwarnings("ignore:WARNING. duplicate atom")
def test_first_of_two_atoms_of_one_name_is_taken(tmp_path: Path) -> None:
    path = _write(tmp_path, _duplicate(_pdb_lines()))
    labels = label_targets(path, tmp_path / "l.parquet", AS_IS).labels
    whole = label_targets(GRGDS, tmp_path / "whole.parquet", AS_IS).labels
    assert labels.energy_kj_mol[0] == pytest.approx(whole.energy_kj_mol[0], abs=0.01)


def test_d_residues_are_named(tmp_path: Path) -> None:
    """The energy cannot tell: a mirror image has nearly that of the original."""
    paths = [_write(tmp_path, _pdb_lines(), "grgds_0.pdb")]
    paths.append(_write(tmp_path, _mirrored(_pdb_lines()), "grgds_1.pdb"))
    labels = label_targets(paths, tmp_path / "l.parquet", AS_IS).labels
    assert labels.status.tolist() == ["ok", "skipped"]
    assert "not L" in labels.reason[1] and "ARG" in labels.reason[1]


def test_selenomethionine_becomes_methionine(tmp_path: Path) -> None:
    lines = (DEMO / "met_enkephalin" / "met_enkephalin.pdb").read_text().splitlines(keepends=True)
    changed = [
        line.replace(" SD  MET", "SE   MSE").replace("MET", "MSE")[:76]
        + ("SE" if " SD  MET" in line else line[76:78])
        + "\n"
        if " MET " in line
        else line
        for line in lines
    ]
    path = _write(tmp_path, changed, "m_0.pdb")
    labels = label_targets(path, tmp_path / "l.parquet", CHEAP).labels
    assert labels.status.tolist() == ["ok"], labels.reason
    original = DEMO / "met_enkephalin" / "met_enkephalin.pdb"
    whole = label_targets(original, tmp_path / "w.parquet", CHEAP).labels
    assert abs(labels.energy_kj_mol[0] - whole.energy_kj_mol[0]) < 60
    assert 0 < labels.built_fraction[0] < 0.05


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        blocked = tmp_path / "file"
        blocked.write_text("")
        out = blocked / "l.parquet"
    else:
        tmp_path.chmod(0o500)
        out = tmp_path / "l.parquet"
    with pytest.raises(UserError, match="cannot write"):
        label_targets(GRGDS, out, AS_IS)


def test_full_disk_is_told_and_what_was_written_is_kept(tmp_path: Path) -> None:
    """The file size limit of a process fails writes as a quota does."""
    out = tmp_path / "l.parquet"
    words = ["label", "--input", str(DEMO / "grgds"), "--out", str(out), "--no-minimize"]
    code = f"import sys; from protenix_eba.cli.main import run; sys.exit(run({words!r}))"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))

    full = subprocess.run(
        [sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert full.returncode == 2, full.stderr
    assert "cannot write" in full.stderr and "Traceback" not in full.stderr
    parts = list(tmp_path.glob("*.parts/*.jsonl"))
    assert parts and not out.exists()
    assert run(words) == 0
    frames = mdtraj.load(str(DEMO / "grgds" / "grgds_prod_R1_fit.xtc"), top=str(GRGDS)).n_frames
    assert int((read_labels(out).replica == 1).sum()) == frames
    assert not list(tmp_path.glob("*.parts"))


def test_stripped_histidines_get_the_variants_of_the_first_frame(tmp_path: Path) -> None:
    """Two frames of cobrotoxin (two histidines) without hydrogens: the same System for both."""
    trajectory = mdtraj.load(
        str(DATA / "cobrotoxin_prod_R1_fit.xtc"), top=str(DATA / "cobrotoxin.pdb")
    )
    heavy = trajectory.atom_slice(trajectory.topology.select("element != H"))
    paths = []
    for i in (0, 1):
        heavy[i].save_pdb(str(tmp_path / f"c_{i}.pdb"))
        paths.append(tmp_path / f"c_{i}.pdb")
    labels = label_targets(paths, tmp_path / "l.parquet", AS_IS).labels
    assert labels.status.tolist() == ["ok", "ok"], labels.reason
    assert len(set(labels.topology_hash)) == 1
    assert labels.built_fraction == pytest.approx(np.full(2, 1 - heavy.n_atoms / 918))


def test_what_a_structure_lacks_is_built_at_the_same_places_each_time(tmp_path: Path) -> None:
    """Cobrotoxin without hydrogens and ends of lysines, on as many threads as OpenMM takes."""
    whole = mdtraj.load(str(DATA / "cobrotoxin.pdb"))
    stripped = whole.atom_slice(whole.topology.select("element != H and name != NZ"))
    stripped.save_pdb(str(tmp_path / "stripped.pdb"))
    first, second = (complete_structure(tmp_path / "stripped.pdb") for _ in range(2))
    np.testing.assert_array_equal(first.reference_nm, second.reference_nm)
