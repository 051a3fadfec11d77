import shutil
import threading
import time
from dataclasses import replace

import mdtraj
import numpy as np
import pytest
import torch

from protenix_eba.core.errors import UserError
from protenix_eba.energy.table import read_labels
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.embeddings import TrunkEmbeddings, save_embeddings
from protenix_eba.host.features import compact, complete, protein_features
from protenix_eba.structures.sequences import Protein, protein_of_target, read_proteins
from protenix_eba.structures.trajectories import find_targets, read_frames
from protenix_eba.training.data import epochs
from protenix_eba.training.data.conformers import (
    labels_by_target,
    load_conformers,
    match_atoms,
    within_deviations,
)
from protenix_eba.training.data.loader import SequenceCoupledLoader, eba_loader
from protenix_eba.training.data.prefetch import prefetch
from protenix_eba.training.data.split import check_split, replicas_of

BATCH_SAMPLERS = (epochs.structures, epochs.targets, epochs.energy, epochs.diverse)


@pytest.fixture(scope="module")
def target(demo_data):
    return find_targets(demo_data)[0]


@pytest.fixture(scope="module")
def labels(demo_data):
    return read_labels(demo_data / "labels.parquet")


@pytest.fixture(scope="module")
def protein(target):
    return protein_features(protein_of_target(target))


def test_atoms_are_matched_by_name_into_protenix_order(target, protein, labels):
    conformers = load_conformers(target, protein, labels, [1])
    topology = mdtraj.load_pdb(str(target.topology_path)).topology
    xyz = read_frames(target, 1, np.array([int(conformers.frame[0])]))[0]
    for (_, residue, name), found in zip(
        protein.atoms, conformers.coordinates([0])[0].numpy(), strict=True
    ):
        (atom,) = topology.select(f"resid {residue} and name {name}")
        np.testing.assert_array_equal(found, xyz[atom])
    assert conformers.mask.all()


def test_the_order_of_atoms_in_the_files_changes_nothing(
    target, protein, labels, shuffle_atoms, tmp_path
):
    """GROMACS orders a residue's atoms otherwise than Protenix: a match by position would fail."""
    md = mdtraj.load_xtc(str(target.trajectory_paths[1]), top=str(target.topology_path))
    folder = tmp_path / target.name
    folder.mkdir()
    shuffled = shuffle_atoms(md)
    shuffled[0].save_pdb(str(folder / f"{target.name}.pdb"))
    shuffled.save_xtc(str(folder / f"{target.name}_prod_R1_fit.xtc"))
    expected = read_frames(target, 1)[3][match_atoms(target, protein)]
    there = find_targets(folder)[0]
    found = read_frames(there, 1)[3][match_atoms(there, protein)]
    np.testing.assert_allclose(found, expected, atol=0.02)
    with pytest.raises(UserError, match="belongs to other coordinates"):
        load_conformers(there, protein, labels, [1]).coordinates([3])


def test_energies_stay_with_their_frames(target, protein, labels):
    conformers = load_conformers(target, protein, labels, [2])
    rows = labels.for_target(target.name)
    for replica, frame, energy in list(
        zip(conformers.replica, conformers.frame, conformers.energy_kj_mol, strict=True)
    )[::37]:
        match = (rows.replica == int(replica)) & (rows.frame == int(frame))
        assert rows.energy_kj_mol[match] == [float(energy)]


def test_another_sequence_is_refused(target, labels):
    with pytest.raises(UserError, match="expected the sequence GAG, found"):
        load_conformers(target, protein_features(Protein("x", ("GAG",))), labels)


def test_a_topology_with_renamed_atoms_is_refused(target, protein, labels, tmp_path):
    copied = shutil.copytree(target.topology_path.parent, tmp_path / target.name)
    pdb = copied / f"{target.name}.pdb"
    text = pdb.read_text().replace(" CA ", " QA ").replace(" C  ", " QC ")
    pdb.write_text(text)
    with pytest.raises(UserError, match="heavy atoms are not in"):
        load_conformers(find_targets(copied)[0], protein, labels)


def test_labels_of_no_replica_asked_for_are_an_error(target, protein, labels):
    with pytest.raises(UserError, match="labels is usable here"):
        load_conformers(target, protein, labels, [9])


def embeddings(n):
    generator = torch.Generator().manual_seed(n)
    shapes = (n, 4), (n, 3), (n, n, 2)
    return TrunkEmbeddings(*(torch.rand(shape, generator=generator) for shape in shapes))


def loader_of(source, **settings):
    n = source.protein.protein.n_residues
    return SequenceCoupledLoader([source], lambda _: embeddings(n), seed=5, **settings)


@pytest.fixture(scope="module")
def source(target, protein, labels):
    return load_conformers(target, compact(protein), labels, [1])


@pytest.fixture(scope="module")
def loader(source):
    return loader_of(source, n_conformers=3)


@pytest.mark.parametrize("sampler", BATCH_SAMPLERS)
def test_an_item_is_the_same_whoever_asks_for_it_and_when(source, sampler):
    """So each rank can ask for its own, and a resumed run goes on where it was."""
    first = loader_of(source, n_conformers=3, sampler=sampler)
    other = loader_of(source, n_conformers=3, sampler=sampler)
    indices = [7, 8, first.epoch_length + 3]
    again = {index: other[index] for index in reversed(indices)}
    assert len({item.frames for item in again.values()}) == 3
    for index in indices:
        item = first[index]
        assert item.frames == again[index].frames
        assert torch.equal(item.coordinates, again[index].coordinates)
        assert torch.equal(item.features["ref_pos"], again[index].features["ref_pos"])
        draws = [torch.rand(3, generator=loader.generator(index)) for loader in (first, other)]
        assert torch.equal(*draws)


def test_an_item_has_the_features_that_the_diffusion_module_reads(loader, protein):
    features = loader[0].features
    made_anew = {"ref_pos", "d_lm", "v_lm", "pad_info"}
    for key in features.keys() - made_anew:
        torch.testing.assert_close(
            features[key], protein.features[key], rtol=0, atol=0, check_dtype=False
        )
    whole = complete(compact(protein).features)
    assert torch.equal(loader.protein(0).features["d_lm"], protein.features["d_lm"])
    assert features.keys() == whole.keys()
    assert "bond_mask" not in features  # N_atom x N_atom


def test_items_draw_nothing_from_the_global_generators(source):
    cropping = loader_of(source, n_conformers=3, crop_size=3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), np.random.get_state()[2]
    assert cropping[3].n_tokens == 3
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all() and np.random.get_state()[2] == before[2]


def test_an_item_longer_than_the_crop_is_cropped(source):
    n = source.protein.protein.n_residues
    cropping = loader_of(source, n_conformers=3, crop_size=n - 1)
    item, whole = cropping[7], loader_of(source, n_conformers=3, crop_size=n)[7]
    assert (item.n_tokens, item.n_residues) == (n - 1, n)
    assert (whole.n_tokens, whole.n_residues) == (n, n)
    assert [cropping.length(7), loader_of(source, n_conformers=3).length(7)] == [n - 1, n]
    assert item.frames == whole.frames and torch.equal(item.energy_kj_mol, whole.energy_kj_mol)
    assert item.coordinates.shape[1] == len(item.features["ref_pos"]) == item.mask.shape[1]
    assert item.embeddings.z_trunk.shape[:2] == item.features["relp"].shape[:2] == (n - 1, n - 1)
    assert torch.equal(cropping[7].coordinates, item.coordinates)
    draws = [
        one.generator(7).initial_seed() for one in (cropping, loader_of(source, n_conformers=3))
    ]
    assert draws[0] == draws[1]


def test_a_crop_knows_its_symmetric_atoms(source):
    cropping = loader_of(source, n_conformers=3, crop_size=source.protein.protein.n_residues - 1)
    for index in range(4):
        item, whole = cropping[index], loader_of(source, n_conformers=3)[index]
        assert torch.equal(item.partners[item.partners], torch.arange(item.mask.shape[1]))
        moved = item.coordinates[:, item.partners]
        expected = whole.coordinates[:, whole.partners]
        # an atom's coordinates tell which it is
        rows = {tuple(xyz.tolist()): n for n, xyz in enumerate(whole.coordinates[0])}
        kept = [rows[tuple(xyz.tolist())] for xyz in item.coordinates[0]]
        assert torch.equal(moved, expected[:, kept])


@pytest.fixture
def copied(target, tmp_path):
    """A target whose files may be spoilt."""
    shutil.copytree(target.topology_path.parent, tmp_path / target.name)
    return find_targets(tmp_path)[0]


def cut(path):
    path.write_bytes(path.read_bytes()[:100])  # less than a frame


def replace_frames(path):
    """By frames of another time, as a trajectory that was made anew has."""
    with mdtraj.formats.XTCTrajectoryFile(str(path)) as handle:
        xyz, times, step, box = handle.read()
    with mdtraj.formats.XTCTrajectoryFile(str(path), "w") as handle:
        handle.write(xyz[::-1], times, step, box)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut, "cannot read"),
        (lambda path: path.unlink(), "cannot read"),
        (lambda path: path.write_text("no trajectory"), "cannot read"),
        (replace_frames, "belongs to other coordinates"),
    ],
    ids=["cut", "deleted", "no trajectory", "made anew"],
)
def test_an_item_that_cannot_be_read_says_why_and_the_others_are_whole(
    copied, protein, labels, spoil, reason
):
    conformers = load_conformers(copied, compact(protein), labels, [1, 2])
    whole = loader_of(conformers, n_conformers=2, crop_size=3)
    spoil(copied.trajectory_paths[1])
    spoilt = 0
    for index in range(40):
        item = whole[index]
        bad = [frame for replica, frame in item.frames if replica == 1]
        assert bool(item.problem) == bool(bad) and item.n_tokens == 3
        assert item.coordinates.isnan().all() if bad else item.coordinates.isfinite().all()
        if bad:
            spoilt += 1
            assert reason in item.problem and copied.name in item.problem
            assert "replica 1" in item.problem
            assert any(f"frame {frame}" in item.problem for frame in bad)
    assert 0 < spoilt < 40


def test_diverse_items_of_a_spoilt_target_say_why(copied, protein, labels):
    conformers = load_conformers(copied, compact(protein), labels, [1])
    diverse = loader_of(conformers, n_conformers=3, sampler=epochs.diverse)
    assert not diverse[0].problem
    again = loader_of(conformers, n_conformers=3, sampler=epochs.diverse)
    copied.trajectory_paths[1].unlink()
    assert again.length(0) == diverse.length(0)
    assert "cannot read" in again[0].problem and len(again[0].frames) == 3


def test_nothing_is_read_before_an_item_is_asked_for(copied, protein, labels):
    for path in copied.trajectory_paths.values():
        path.write_text("no trajectory")
    conformers = load_conformers(copied, compact(protein), labels)
    for sampler in BATCH_SAMPLERS:
        made = loader_of(conformers, n_conformers=3, sampler=sampler)
        assert len(made.targets) == 1 and made.length(0) > 0
    assert made[0].problem


def test_labels_of_a_replica_that_is_not_there_are_an_error(copied, protein, labels):
    copied.trajectory_paths[2].unlink()
    with pytest.raises(UserError, match=r"labels name replica 2, the folder has \[1, 3\]"):
        load_conformers(find_targets(copied.topology_path.parent)[0], protein, labels)


def test_labels_are_grouped_as_they_are_found_one_by_one(labels):
    shuffled = labels.select(np.random.default_rng(0).permutation(len(labels)))
    for some in (labels, shuffled):
        groups = labels_by_target(some)
        assert list(groups) == labels.targets
        for name, rows in groups.items():
            np.testing.assert_array_equal(rows.frame_hash, some.for_target(name).frame_hash)


def test_outliers_are_marked_in_their_item(source):
    energy = source.energy_kj_mol.clone()
    energy[11] += 1e4
    odd = replace(source, energy_kj_mol=energy)
    frame = (int(odd.replica[11]), int(odd.frame[11]))
    marked = loader_of(odd, n_conformers=3, outlier_z=20.0)
    for index in range(marked.epoch_length):
        item = marked[index]
        assert item.keep.tolist() == [f != frame for f in item.frames]
    everything = loader_of(odd, n_conformers=3)
    assert all(everything[index].keep.all() for index in range(everything.epoch_length))


def test_the_modified_z_score_is_iglewicz_and_hoaglins():
    """Of 0, 1 .. 20 the median is 10 and the median distance 5: a score of 1 is at 10 +- 7.41."""
    energy = torch.arange(21, dtype=torch.float64)
    assert within_deviations(energy, 1.0).nonzero().flatten().tolist() == list(range(3, 18))
    assert within_deviations(energy, 10.1 / 7.413).all()
    assert within_deviations(energy, 0.0).all()
    assert within_deviations(energy[:19], 1.0).all()  # too few to judge
    assert within_deviations(torch.tensor([0.0] * 20 + [9.0]), 3.5).all()  # no spread


def test_more_conformers_than_there_are_is_an_error(source):
    with pytest.raises(UserError, match="fewer than"):
        loader_of(source, n_conformers=10**6)


def test_no_frame_is_both_trained_on_and_held_out():
    targets = {"a": (1, 2, 3), "b": (1, 3), "c": (3,)}
    config = EBAConfig(validation_targets=("b",), validation_replicas=(3,))
    check_split(config, targets)
    parts = [
        [replicas_of(config, *target, held_out=held) for target in targets.items()]
        for held in (False, True)
    ]
    assert parts == [[(1, 2), (), ()], [(3,), (1, 3), (3,)]]
    config = EBAConfig(validation_replicas=(3,), replicas=(2,))
    assert replicas_of(config, "a", targets["a"], held_out=False) == (2,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"validation_targets": ("aa",)}, r"no target 'aa' in .*it has a, b"),
        ({"validation_replicas": (7,)}, "has replica 7; there are 1, 2, 3"),
        ({"replicas": (2,)}, r"target b has none of \[2\], it has \[1, 3\]"),
    ],
)
def test_names_and_numbers_that_are_not_there_are_errors(values, message):
    with pytest.raises(UserError, match=message):
        check_split(EBAConfig(**values), {"a": (1, 2, 3), "b": (1, 3)})


@pytest.fixture(scope="module")
def section(demo_data, tmp_path_factory):
    """A configuration with embeddings on disk of all shipped peptides."""
    folder = tmp_path_factory.mktemp("embeddings")
    for target in find_targets(demo_data):
        protein = protein_features(protein_of_target(target))
        made = embeddings(protein.protein.n_residues)
        save_embeddings(folder / f"{target.name}.safetensors", made, protein, "trunk", 1)
    labels = str(demo_data / "labels.parquet")
    return EBAConfig(
        data_dir=str(demo_data), labels=labels, embeddings=str(folder), validation_replicas=(3,)
    )


COMMON = {"seed": 1, "trunk": "trunk", "n_cycles": 1}


def test_training_excludes_what_is_held_out(section, labels):
    """An empty `replicas` means all that are not held out, not all."""
    config = replace(section, validation_targets=("grgds",))
    parts = {}
    for held_out in (False, True):
        made = eba_loader(config, held_out=held_out, **COMMON)
        parts[held_out] = {
            (source.protein.protein.name, int(r), int(f))
            for source in made.sources
            for r, f in zip(source.replica, source.frame, strict=True)
        }
    assert not parts[False] & parts[True]
    assert len(parts[False] | parts[True]) == labels.ok.sum()
    assert {replica for name, replica, _ in parts[True] if name != "grgds"} == {3}
    assert {replica for name, replica, _ in parts[True] if name == "grgds"} == {1, 2, 3}


def test_nothing_held_out_gives_no_loader(section):
    nothing = replace(section, validation_replicas=())
    assert eba_loader(nothing, held_out=True, **COMMON) is None
    everything = tuple(t.name for t in find_targets(section.data_dir))
    with pytest.raises(UserError, match=r"all targets in .* are held out"):
        eba_loader(replace(nothing, validation_targets=everything), held_out=False, **COMMON)


def test_stale_embeddings_are_refused_at_the_start(section):
    with pytest.raises(UserError, match="another trunk: expected new, found trunk"):
        eba_loader(section, held_out=False, **COMMON | {"trunk": "new"})


def test_items_have_the_embeddings_on_disk(section):
    made = eba_loader(section, held_out=False, **COMMON)
    item = made[0]
    n = item.n_tokens
    torch.testing.assert_close(item.embeddings.z_trunk, embeddings(n).z_trunk, atol=0.03, rtol=0)
    assert torch.equal(
        made.embedding(made.targets.index(item.target)).z_trunk, item.embeddings.z_trunk
    )


def test_the_sampler_chooses_what_is_trained_on_and_not_what_is_measured(section):
    frames = {}
    for held_out in (False, True):
        for name in ("structures", "energy"):
            made = eba_loader(replace(section, sampler=name), held_out=held_out, **COMMON)
            frames[held_out, name] = [made[index].frames for index in range(6)]
    assert frames[True, "structures"] == frames[True, "energy"]
    assert frames[False, "structures"] != frames[False, "energy"]


class Slow:
    """A loader that notes what it has loaded, and fails at some item."""

    def __init__(self, fails_at=None):
        self.loaded, self.threads, self.fails_at = [], set(), fails_at

    def __getitem__(self, index):
        time.sleep(0.01)
        self.threads.add(threading.get_ident())
        if index == self.fails_at:
            raise ValueError("no such item")
        self.loaded.append(index)
        return f"item {index}"


def prefetching():
    return [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_prefetched_items_come_in_order_from_one_thread_two_ahead():
    loader = Slow()
    for number, (index, item) in enumerate(prefetch(loader, [5, 3, 9, 1, 1, 4])):
        assert (index, item) == ([5, 3, 9, 1, 1, 4][number], f"item {index}")
        time.sleep(0.05)
        assert loader.loaded == [5, 3, 9, 1, 1, 4][: number + 3]
    assert len(loader.threads) == 1 and threading.get_ident() not in loader.threads
    assert not prefetching()


def test_an_items_exception_comes_in_its_place():
    coming = prefetch(Slow(fails_at=3), range(9))
    assert [next(coming)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no such item"):
        next(coming)
    assert not prefetching()


@pytest.mark.parametrize("how", ["close", "interrupt", "forget"])
def test_the_thread_ends_with_the_iterator(how):
    loader = Slow()
    coming = prefetch(loader, iter(range(10**9)))
    next(coming)
    assert prefetching()
    if how == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            coming.throw(KeyboardInterrupt())
    elif how == "close":
        coming.close()
    else:
        del coming
    assert not prefetching()
    assert len(loader.loaded) <= 3


def test_fasta_and_csv_give_the_same_proteins(tmp_path):
    (tmp_path / "a.fasta").write_text(">one text\nGA\nG\n>two\nAC:DE\n")
    (tmp_path / "a.csv").write_text("name,seqres\none,GAG\ntwo,AC/DE\n")
    expected = [Protein("one", ("GAG",)), Protein("two", ("AC", "DE"))]
    assert read_proteins(tmp_path / "a.fasta") == read_proteins(tmp_path / "a.csv") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found the columns none"),
        (">a\n", "an empty sequence"),
        (">a\nGA\n>a\nGG\n", "occur twice"),
        (">../a\nGA\n", "cannot be the name"),
        ("id,sequence\na,GG\n", "found the columns id, sequence"),
        (">a\nGB1\n", "unknown residues 1, B"),
    ],
)
def test_unusable_sequences_are_named(tmp_path, text, message):
    (tmp_path / "bad").write_text(text)
    with pytest.raises(UserError, match=message):
        read_proteins(tmp_path / "bad")
