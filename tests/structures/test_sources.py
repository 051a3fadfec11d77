"""Reading ensembles: every format gives the same coordinates, every broken file its reason."""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import pickle
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import biotite.structure as struc
import mdtraj
import numpy as np
import pytest
from biotite.structure.io import pdbx
from mdtraj.core.element import get_by_symbol

from protenix_eba.core.errors import UserError
from protenix_eba.structures.sources import Conformations, find_references, find_samples

_MDANALYSIS = importlib.util.find_spec("MDAnalysisTests")  # carries trajectories of MD programs
REAL = Path(_MDANALYSIS.origin if _MDANALYSIS and _MDANALYSIS.origin else ".").parent / "data"
NEEDS_REAL = pytest.mark.skipif(
    not (REAL / "cobrotoxin.trr").is_file(), reason="needs the trajectories of MDAnalysisTests"
)
RESIDUES = ("GLY", "SER", "ALA", "GLY")
NAMES = {
    "GLY": ("N", "CA", "C", "O", "H"),
    "SER": ("N", "CA", "CB", "OG", "C", "O", "H"),
    "ALA": ("N", "CA", "CB", "C", "O", "H"),
}
N_FRAMES = 7
EVERY_FORMAT = ("xtc", "dcd", "trr", "nc", "h5", "models.pdb", "models.cif", "files.pdb",
                "files.cif", "predictions", "zip", "models.pdb.gz", "models.cif.gz",
                "files.cif.gz")  # fmt: skip


def molecule() -> mdtraj.Topology:
    topology = mdtraj.Topology()
    for chain_id, offset in (("A", 1), ("B", 11)):
        chain = topology.add_chain(chain_id)
        for number, name in enumerate(RESIDUES):
            residue = topology.add_residue(name, chain, resSeq=number + offset)
            for atom in NAMES[name]:
                topology.add_atom(atom, get_by_symbol(atom[0]), residue)
    water = topology.add_residue("HOH", topology.add_chain("W"), resSeq=1)
    topology.add_atom("O", get_by_symbol("O"), water)
    return topology


def ensemble(seed: int = 0, n_frames: int = N_FRAMES) -> mdtraj.Trajectory:
    """Coordinates of whole thousandths of an angstrom, which every format can hold."""
    topology = molecule()
    xyz = np.random.default_rng(seed).normal(0.0, 1.0, (n_frames, topology.n_atoms, 3))
    return mdtraj.Trajectory(np.round(xyz, 3), topology)


def angstrom(trajectory: mdtraj.Trajectory) -> np.ndarray:
    return np.asarray(trajectory.xyz * 10.0, dtype=np.float32)


def stack(trajectory: mdtraj.Trajectory) -> struc.AtomArrayStack:
    atoms = struc.AtomArrayStack(trajectory.n_frames, trajectory.n_atoms)
    atoms.coord = angstrom(trajectory)
    source = list(trajectory.topology.atoms)
    atoms.chain_id = np.array([a.residue.chain.chain_id for a in source])
    atoms.res_id = np.array([a.residue.resSeq for a in source])
    atoms.res_name = np.array([a.residue.name for a in source])
    atoms.atom_name = np.array([a.name for a in source])
    atoms.element = np.array([a.element.symbol for a in source])
    return atoms


def save_cif(trajectory: mdtraj.Trajectory, path: Path) -> None:
    file = pdbx.CIFFile()
    pdbx.set_structure(file, stack(trajectory))
    file.write(path)


def save_single(trajectory: mdtraj.Trajectory, path: Path) -> None:
    save_cif(trajectory, path) if path.suffix == ".cif" else trajectory.save(str(path))


def written(kind: str, root: Path, trajectory: mdtraj.Trajectory, name: str = "tiny") -> Path:
    """The ensemble below `root`, as one target in some layout."""
    if kind.endswith(".gz"):
        written(kind[:-3], root, trajectory, name)
        for path in [*root.glob(f"{name}.*"), *root.glob(f"{name}/*")]:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        return root
    folder = root / name
    folder.mkdir(parents=True)
    if kind == "h5":
        pytest.importorskip("tables")
    if kind in ("xtc", "dcd", "trr", "nc", "h5", "zip"):
        trajectory[0].save_pdb(str(folder / f"{name}.pdb"))
        suffix = "xtc" if kind == "zip" else kind
        trajectory.save(str(folder / f"{name}.{suffix}"))
    if kind == "zip":
        with zipfile.ZipFile(root / f"{name}_protein.zip", "w") as archive:
            for path in folder.iterdir():
                archive.write(path, path.name)
        shutil.rmtree(folder)
    if kind == "models.pdb":
        trajectory.save_pdb(str(root / f"{name}.pdb"))
    if kind == "models.cif":
        save_cif(trajectory, root / f"{name}.cif")
    if kind in ("files.pdb", "files.cif", "predictions"):
        suffix = "pdb" if kind == "files.pdb" else "cif"
        for i in range(trajectory.n_frames):
            path = folder / f"{name}_{i}.{suffix}"
            if kind == "predictions":
                path = folder / f"seed_{100 + i}" / "predictions" / f"{name}_sample_0.cif"
                path.parent.mkdir(parents=True)
            save_single(trajectory[i], path)
    return root


def only(path: Path) -> Conformations:
    usable, failed = find_samples([path])
    assert not failed
    assert len(usable) == 1
    return next(iter(usable.values()))


def everything(found: Conformations, size: int = 3) -> np.ndarray:
    every = np.arange(found.topology.n_atoms)
    return np.concatenate([c for r in found.n_frames for c in found.chunks(r, every, size)])


def atom_names(found: Conformations) -> list[tuple[str, int, str, str]]:
    return [
        (a.residue.chain.chain_id, a.residue.resSeq, a.residue.name, a.name)
        for a in found.topology.atoms
    ]


# --- formats ---


@pytest.mark.parametrize("kind", EVERY_FORMAT)
def test_every_format_gives_the_same_atoms_and_coordinates(kind: str, tmp_path: Path) -> None:
    trajectory = ensemble()
    found = only(written(kind, tmp_path, trajectory))
    assert found.name == "tiny"
    assert found.n_frames == {1: N_FRAMES}
    expected = [
        (a.residue.chain.chain_id, a.residue.resSeq, a.residue.name, a.name)
        for a in trajectory.topology.atoms
    ]
    assert atom_names(found) == expected
    assert [a.element.symbol for a in found.topology.atoms] == [
        a.element.symbol for a in trajectory.topology.atoms
    ]
    assert found.structure_xyz == pytest.approx(angstrom(trajectory)[0], abs=1e-5)
    assert everything(found) == pytest.approx(angstrom(trajectory), abs=1e-5)


@pytest.mark.parametrize("kind", EVERY_FORMAT)
def test_chunks_and_single_frames_are_the_same_whatever_their_size(
    kind: str, tmp_path: Path
) -> None:
    found = only(written(kind, tmp_path, ensemble()))
    atoms = np.array([4, 2, 9])
    whole = next(found.chunks(1, atoms, 100))
    for size in (1, 3, N_FRAMES):
        parts = list(found.chunks(1, atoms, size))
        assert max(map(len, parts)) == size
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    wanted = np.array([6, 0, 3, 3, 4])
    np.testing.assert_array_equal(found.frames(1, wanted, atoms), whole[wanted])
    assert found.frames(1, wanted[:0], atoms).shape == (0, 3, 3)
    with pytest.raises(UserError, match="frame 7 asked for, it has 7"):
        found.frames(1, np.array([7]), atoms)


def test_a_source_goes_to_another_process(tmp_path: Path) -> None:
    found = only(written("zip", tmp_path, ensemble()))
    expected = everything(found)
    np.testing.assert_array_equal(everything(pickle.loads(pickle.dumps(found))), expected)


@pytest.mark.parametrize("kind", ["xtc", "dcd", "trr", "nc", "models.pdb", "files.cif", "zip"])
def test_letters_outside_ascii_in_a_path_are_no_obstacle(kind: str, tmp_path: Path) -> None:
    # mdtraj's writers refuse such paths as well.
    found = only(written(kind, tmp_path / "plain", ensemble()).rename(tmp_path / "Übung λ"))
    assert everything(found) == pytest.approx(angstrom(ensemble()), abs=1e-5)


@NEEDS_REAL
def test_a_psf_has_no_structure_so_the_first_frame_is_it(tmp_path: Path) -> None:
    folder = tmp_path / "adk"
    folder.mkdir()
    shutil.copy(REAL / "adk.psf", folder)
    shutil.copy(REAL / "adk_dims.dcd", folder)
    found = only(folder)
    every = np.arange(found.topology.n_atoms)
    np.testing.assert_array_equal(found.structure_xyz, found.frames(1, np.array([0]), every)[0])
    assert found.n_frames == {1: 98}
    assert "first frame" in found.notes[0]
    # The run that wrote it ended early: its frames are good.
    assert "promises 500 frames, 98 are there" in found.notes[1]


def test_a_gro_file_is_a_topology_in_hundredths_of_an_angstrom(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    ensemble()[0].save_gro(str(folder / "tiny.gro"))
    ensemble().save_xtc(str(folder / "tiny.xtc"))
    found = only(tmp_path)
    expected = [(a.residue.name, a.name) for a in molecule().atoms]
    assert [(a.residue.name, a.name) for a in found.topology.atoms] == expected
    assert found.structure_xyz == pytest.approx(angstrom(ensemble())[0], abs=0.0051)
    assert everything(found) == pytest.approx(angstrom(ensemble()), abs=1e-5)


# --- layouts ---


def test_atlas_folders_and_archives_have_their_replicas_by_number(tmp_path: Path) -> None:
    parts = {number: ensemble(number) for number in (2, 1, 3)}
    folder = tmp_path / "4ew5_A"
    folder.mkdir()
    parts[1][0].save_pdb(str(folder / "4ew5_A.pdb"))
    for number, part in parts.items():
        part.save_xtc(str(folder / f"4ew5_A_prod_R{number}_fit.xtc"))
    archive = tmp_path / "zips" / "4ew5_A_analysis.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as out:
        for path in folder.iterdir():
            out.write(path, path.name)
        out.writestr("README.txt", "ATLAS")
    for place in (tmp_path, folder, archive, archive.parent):
        usable, failed = find_references(place)
        assert (list(usable), failed) == (["4ew5_A"], {})
        found = usable["4ew5_A"]
        assert list(found.n_frames) == [1, 2, 3]
        for number in (1, 2, 3):
            xyz = found.frames(number, np.arange(N_FRAMES), np.arange(found.topology.n_atoms))
            assert xyz == pytest.approx(angstrom(parts[number]), abs=1e-5)


def test_an_archive_beside_its_folder_is_passed_over_and_the_larger_archive_taken(
    tmp_path: Path,
) -> None:
    written("zip", tmp_path, ensemble())
    shutil.copy(tmp_path / "tiny_protein.zip", tmp_path / "tiny_analysis.zip")
    (tmp_path / "tiny_analysis.zip").write_bytes(b"broken")
    assert only(tmp_path).n_frames == {1: N_FRAMES}
    written("xtc", tmp_path, ensemble(n_frames=4))
    assert only(tmp_path).n_frames == {1: 4}


def test_files_named_one_by_one_are_as_good_as_their_folder(tmp_path: Path) -> None:
    trajectory = ensemble()
    flat = written("files.cif", tmp_path, trajectory) / "tiny"
    usable, failed = find_samples(sorted(flat.iterdir()))
    assert (list(usable), failed) == (["tiny"], {})
    assert everything(usable["tiny"]) == pytest.approx(angstrom(trajectory), abs=1e-5)
    beside = written("dcd", tmp_path, trajectory, "other") / "other"
    for files in ([beside / "other.dcd"], [beside / "other.pdb", beside / "other.dcd"]):
        usable, failed = find_samples(files)
        assert (list(usable), failed) == (["other"], {})
        assert usable["other"].n_frames == {1: N_FRAMES}


def test_a_flat_folder_of_several_targets_is_sorted_by_names(tmp_path: Path) -> None:
    for name in ("T1008", "T1009", "6uof_A"):
        ensemble().save_pdb(str(tmp_path / f"{name}.pdb"))
    ensemble()[0].save_pdb(str(tmp_path / "1abc_B.pdb"))
    ensemble().save_xtc(str(tmp_path / "1abc_B_R1.xtc"))
    ensemble().save_xtc(str(tmp_path / "1abc_B_R2.xtc"))
    usable, failed = find_samples([tmp_path])
    assert failed == {}
    assert {name: found.n_frames for name, found in usable.items()} == {
        "1abc_B": {1: N_FRAMES, 2: N_FRAMES},
        "6uof_A": {1: N_FRAMES},
        "T1008": {1: N_FRAMES},
        "T1009": {1: N_FRAMES},
    }


def test_files_of_both_kinds_may_make_up_an_ensemble(tmp_path: Path) -> None:
    trajectory = ensemble(n_frames=2)
    folder = tmp_path / "tiny"
    folder.mkdir()
    save_single(trajectory[0], folder / "tiny_0.pdb")
    save_single(trajectory[1], folder / "tiny_1.cif")
    assert everything(only(tmp_path)) == pytest.approx(angstrom(trajectory), abs=1e-5)


def test_samples_that_were_split_into_files_as_well_are_read_once(tmp_path: Path) -> None:
    trajectory = ensemble()
    folder = written("xtc", tmp_path, trajectory) / "tiny"
    for i in range(N_FRAMES):
        save_single(trajectory[i], folder / f"tiny_{i}.cif")
    for place in (tmp_path, folder):
        assert only(place).n_frames == {1: N_FRAMES}


def test_conformations_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    trajectory = ensemble(n_frames=12)
    found = only(written("files.pdb", tmp_path, trajectory))
    assert everything(found) == pytest.approx(angstrom(trajectory), abs=1e-5)


def test_files_that_a_sampler_named_without_the_target_take_the_name_of_the_folder(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "2wnp_F"
    folder.mkdir()
    for i in range(3):
        ensemble(i)[0].save_pdb(str(folder / f"sample_{i}.pdb"))
    for place in (folder, tmp_path):
        found = only(place)
        assert (found.name, found.n_frames) == ("2wnp_F", {1: 3})


def test_atoms_in_another_order_are_matched_and_names_of_md_programs_translated(
    tmp_path: Path,
) -> None:
    trajectory = ensemble()
    folder = tmp_path / "tiny"
    folder.mkdir()
    trajectory[0].save_pdb(str(folder / "tiny_0.pdb"))
    residue = np.array([a.residue.index for a in trajectory.topology.atoms])
    order = np.lexsort((np.random.default_rng(1).random(len(residue)), residue))
    save_single(trajectory[1].atom_slice(np.arange(len(order))), folder / "tiny_1.pdb")
    lines = (folder / "tiny_1.pdb").read_text().splitlines()
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    (folder / "tiny_1.pdb").write_text("\n".join(atoms[i] for i in order) + "\nEND\n")
    found = only(tmp_path)
    assert everything(found) == pytest.approx(angstrom(trajectory)[:2], abs=1e-5)
    text = (folder / "tiny_0.pdb").read_text()
    (folder / "tiny_0.pdb").write_text(text.replace("SER", "HIE"))
    assert {a.residue.name for a in only(tmp_path).topology.atoms} == {"GLY", "HIS", "ALA", "HOH"}


def test_of_alternate_locations_the_first_is_read_in_every_model(tmp_path: Path) -> None:
    trajectory = ensemble(n_frames=2)
    trajectory.save_pdb(str(tmp_path / "plain.pdb"))
    lines = []
    for line in (tmp_path / "plain.pdb").read_text().splitlines():
        if line[12:21] == " OG  SER ":
            lines += [line[:16] + "A" + line[17:], line[:16] + "B" + line[17:30] + "   9.999" * 3]
        else:
            lines.append(line)
    (tmp_path / "plain.pdb").write_text("\n".join(lines) + "\n")
    assert everything(only(tmp_path)) == pytest.approx(angstrom(trajectory), abs=1e-5)


# --- what is broken ---


def test_one_broken_target_never_hides_the_others(tmp_path: Path) -> None:
    written("xtc", tmp_path, ensemble(), "good")
    lonely = written("xtc", tmp_path, ensemble(), "lonely") / "lonely"
    (lonely / "lonely.pdb").unlink()
    double = written("xtc", tmp_path, ensemble(), "double") / "double"
    shutil.copy(double / "double.xtc", double / "double_R1.xtc")
    shutil.move(double / "double.xtc", double / "double_prod_R1_fit.xtc")
    (tmp_path / "zipped_protein.zip").write_bytes(b"no zip")
    (tmp_path / "logs").mkdir()
    usable, failed = find_references(tmp_path)
    assert list(usable) == ["good"]
    assert set(failed) == {"lonely", "double", "zipped"}
    assert "topology" in failed["lonely"]
    assert "replica" in failed["double"]
    assert "broken" in failed["zipped"]


def test_the_same_name_twice_is_a_failure_of_that_name_alone(tmp_path: Path) -> None:
    written("xtc", tmp_path / "a", ensemble())
    written("models.pdb", tmp_path / "b", ensemble())
    written("models.pdb", tmp_path / "b", ensemble(), "other")
    usable, failed = find_samples([tmp_path / "a", tmp_path / "b"])
    assert list(usable) == ["other"]
    assert "twice" in failed["tiny"]


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found nothing"):
        find_samples([tmp_path / "none"])
    with pytest.raises(UserError, match="no conformations"):
        find_references(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="no conformations"):
        find_samples([tmp_path, tmp_path / "notes.txt"])


def truncate(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


@pytest.mark.parametrize(
    "kind", ["xtc", "dcd", "trr", "nc", "h5", "models.pdb", "models.cif", "models.pdb.gz"]
)
@pytest.mark.parametrize("by", [30, 700])
def test_a_cut_file_is_an_error_that_names_it(kind: str, by: int, tmp_path: Path) -> None:
    root = written(kind, tmp_path, ensemble())
    suffix = kind.rpartition(".")[2]
    path = next(p for p in root.rglob(f"*.{suffix}"))
    truncate(path, by)
    with pytest.raises(UserError, match=path.name) as caught:
        everything(only(root))
    assert caught.value.hint


def test_a_packed_file_that_is_none_is_an_error_of_its_target_alone(tmp_path: Path) -> None:
    written("models.pdb.gz", tmp_path, ensemble())
    (tmp_path / "other_0.pdb.gz").write_bytes(b"no gzip")
    (tmp_path / "other_1.pdb.gz").write_bytes(b"no gzip")
    usable, failed = find_samples([tmp_path])
    assert list(usable) == ["tiny"]
    assert "other_0.pdb.gz" in failed["other"]
    assert "gzip" in failed["other"]


def test_models_of_an_mmcif_file_may_list_their_atoms_in_other_orders(tmp_path: Path) -> None:
    trajectory = ensemble()
    path = written("models.cif", tmp_path, trajectory) / "tiny.cif"
    lines = path.read_text().splitlines(keepends=True)
    rows = [n for n, line in enumerate(lines) if line.startswith(("ATOM", "HETATM"))]
    second = rows[trajectory.n_atoms : 2 * trajectory.n_atoms]
    for place, row in zip(second, [lines[n] for n in reversed(second)], strict=True):
        lines[place] = row
    path.write_text("".join(lines))
    assert everything(only(tmp_path)) == pytest.approx(angstrom(trajectory), abs=1e-5)
    lines[rows[0]], lines[rows[-1]] = lines[rows[-1]], lines[rows[0]]
    path.write_text("".join(lines))
    with pytest.raises(UserError, match=r"tiny\.cif.*stand apart"):
        everything(only(tmp_path))


def test_a_model_of_which_only_the_first_line_was_copied_is_missed(tmp_path: Path) -> None:
    path = written("models.pdb", tmp_path, ensemble()) / "tiny.pdb"
    text = path.read_text()
    path.write_text(text[: text.index("\n", text.rindex("MODEL"))])
    with pytest.raises(UserError, match=r"model 7 has no ENDMDL"):
        everything(only(tmp_path))


@pytest.mark.parametrize("kind", ["files.pdb", "files.cif"])
def test_a_conformation_that_lacks_atoms_is_an_error_that_names_its_file(
    kind: str, tmp_path: Path
) -> None:
    root = written(kind, tmp_path, ensemble())
    short = ensemble().atom_slice(range(10))[0]
    save_single(short, root / "tiny" / f"tiny_4.{kind[-3:]}")
    with pytest.raises(UserError, match=r"tiny_4\S* lacks other atoms than the first"):
        everything(only(root))


@pytest.mark.parametrize("kind", ["xtc", "dcd", "trr", "nc"])
def test_another_number_of_atoms_than_the_topology_is_an_error(kind: str, tmp_path: Path) -> None:
    root = written(kind, tmp_path, ensemble())
    ensemble().atom_slice(range(20)).save(str(root / "tiny" / f"tiny.{kind}"))
    with pytest.raises(UserError, match=r"20 atoms, its topology tiny\.pdb has 47"):
        only(root).n_frames  # noqa: B018


@pytest.mark.parametrize("kind", ["dcd", "trr", "nc", "models.pdb", "files.cif"])
def test_a_frame_that_is_not_finite_is_named(kind: str, tmp_path: Path) -> None:
    broken = ensemble()
    broken.xyz[5, 3, 0] = np.nan
    if kind == "models.pdb":  # mdtraj writes no NaN into a PDB file
        root = written(kind, tmp_path, ensemble())
        models = (root / "tiny.pdb").read_text().split("ENDMDL")
        at = models[5].index("ATOM") + 30
        models[5] = models[5][:at] + "     nan" + models[5][at + 8 :]
        (root / "tiny.pdb").write_text("ENDMDL".join(models))
    else:
        root = written(kind, tmp_path, broken)
    with pytest.raises(UserError, match=r"frame 5 of .*not finite"):
        everything(only(root))


@pytest.mark.parametrize("kind", ["xtc", "dcd", "trr", "nc", "models.pdb", "models.cif", "zip"])
def test_an_empty_or_foreign_file_is_an_error(kind: str, tmp_path: Path) -> None:
    root = written(kind, tmp_path, ensemble())
    suffix = kind.rpartition(".")[2]
    path = next(p for p in root.rglob(f"*.{suffix}"))
    for content in (b"", b"HEADER of something else\n" * 20):
        path.write_bytes(content)
        usable, failed = find_samples([root])
        if kind == "zip":
            assert "broken" in failed["tiny"]
            continue
        with pytest.raises(UserError):
            everything(usable["tiny"])


def test_an_archive_that_breaks_while_it_is_unpacked_is_an_error(tmp_path: Path) -> None:
    path = written("zip", tmp_path, ensemble()) / "tiny_protein.zip"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be unpacked"):
        everything(only(tmp_path))


# --- cost ---


@pytest.mark.parametrize("kind", ["models.pdb", "models.cif", "models.cif.gz"])
def test_models_are_read_one_by_one(kind: str, tmp_path: Path) -> None:
    path = next(written(kind.removesuffix(".gz"), tmp_path, ensemble()).glob("tiny.*"))
    last = f"{angstrom(ensemble())[-1, -1, 0]:.3f}"
    start, _, rest = path.read_text().rpartition(last)
    path.write_text(start + "x" * len(last) + rest)
    if kind.endswith(".gz"):
        path.with_name("tiny.cif.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    chunks = only(tmp_path).chunks(1, np.arange(4), 1)
    for expected in angstrom(ensemble())[:-1, None, :4]:
        assert next(chunks) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(UserError, match=r"cannot read .*tiny"):
        next(chunks)


def test_memory_is_that_of_a_chunk_not_of_the_file(tmp_path: Path) -> None:
    frames = 4000
    found = only(written("xtc", tmp_path, ensemble(n_frames=frames)))
    every = np.arange(found.topology.n_atoms)
    next(found.chunks(1, every, 100))  # what is loaded once
    tracemalloc.start()
    n_read = sum(len(chunk) for chunk in found.chunks(1, every, 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_read == frames
    assert peak < 0.2 * frames * len(every) * 3 * 4


def test_only_one_archive_is_unpacked_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    for name in ("one", "two", "three"):
        written("zip", tmp_path, ensemble(), name)
    for found in find_references(tmp_path)[0].values():
        everything(found)
        assert len(list(scratch.iterdir())) == 1


# --- real data ---


@NEEDS_REAL
def test_a_real_trajectory_with_water_is_read_as_mdtraj_reads_it(tmp_path: Path) -> None:
    for suffix in ("pdb", "xtc", "trr"):
        folder = tmp_path / suffix / "cobrotoxin"
        folder.mkdir(parents=True)
        (folder / "cobrotoxin.pdb").symlink_to(REAL / "cobrotoxin.pdb")
        if suffix != "pdb":
            (folder / f"cobrotoxin.{suffix}").symlink_to(REAL / f"cobrotoxin.{suffix}")
    packed, full = only(tmp_path / "xtc"), only(tmp_path / "trr")
    assert packed.topology == full.topology
    expected = mdtraj.load_trr(str(REAL / "cobrotoxin.trr"), top=full.topology)
    assert everything(full) == pytest.approx(expected.xyz * 10, abs=1e-4)
    assert everything(packed) == pytest.approx(expected.xyz * 10, abs=0.006)
    assert full.topology.n_residues > len(list(full.topology.select("protein and name CA"))) > 50


def test_real_models_are_bitwise_those_of_mdtraj(tmp_path: Path, eval_reference: Path) -> None:
    with gzip.open(eval_reference / "pred" / "4ew5_A.good_af37.pdb.gz", "rt") as lines:
        text = "".join(itertools.islice(lines, 6000))
    text = text[: text.rindex("ENDMDL") + 7]
    path = tmp_path / "4ew5_A.good_af37.pdb"
    path.write_text(text)
    found = only(tmp_path)
    assert found.name == "4ew5_A"
    expected = mdtraj.load(str(path))
    np.testing.assert_allclose(everything(found), expected.xyz * 10, rtol=0, atol=1e-5)
    assert found.topology == expected.topology
