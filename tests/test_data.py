import shutil
from dataclasses import replace

import mdtraj
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protenix_eba.data.conformers import load_conformers, match_atoms
from protenix_eba.data.features import protein_features
from protenix_eba.data.loader import SequenceCoupledLoader, epoch_blocks
from protenix_eba.data.sequences import Protein, protein_of_target, read_proteins
from protenix_eba.embeddings import TrunkEmbeddings, load_embeddings, save_embeddings
from protenix_eba.energy.table import read_labels
from protenix_eba.errors import UserError
from protenix_eba.trajectories import find_targets, read_frames


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    k=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_an_epoch_draws_every_structure_once_in_blocks_of_one_sequence(sizes, k, seed):
    blocks = epoch_blocks(sizes, k, seed, 0)
    for which, size in enumerate(sizes):
        drawn = [i for target, rows in blocks if target == which for i in rows]
        assert len(drawn) == len(set(drawn)) == size // k * k
        assert all(0 <= i < size for i in drawn)
    assert all(len(rows) == k for _, rows in blocks)


def test_neighbouring_items_are_of_different_sequences_and_epochs_differ():
    blocks = epoch_blocks([30, 30, 30], 3, 0, 0)
    for start in range(0, len(blocks), 3):
        assert len({which for which, _ in blocks[start : start + 3]}) == 3
    assert blocks != epoch_blocks([30, 30, 30], 3, 0, 1)
    assert blocks == epoch_blocks([30, 30, 30], 3, 0, 0)


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
        protein.atoms, conformers.coordinates[0].numpy(), strict=True
    ):
        (atom,) = topology.select(f"resid {residue} and name {name}")
        np.testing.assert_array_equal(found, xyz[atom])
    assert conformers.mask.all()


def test_the_order_of_atoms_in_the_files_changes_nothing(target, protein, labels, tmp_path):
    """GROMACS orders a residue's atoms otherwise than Protenix: a match by position would fail."""
    md = mdtraj.load_xtc(str(target.trajectory_paths[1]), top=str(target.topology_path))
    residue = np.array([atom.residue.index for atom in md.topology.atoms])
    order = np.lexsort((np.random.default_rng(0).permutation(md.n_atoms), residue))
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    made = [topology.add_residue(r.name, chain, resSeq=r.resSeq) for r in md.topology.residues]
    for index in order:
        atom = md.topology.atom(index)
        topology.add_atom(atom.name, atom.element, made[atom.residue.index])
    folder = tmp_path / target.name
    folder.mkdir()
    shuffled = mdtraj.Trajectory(md.xyz[:, order], topology)
    shuffled[0].save_pdb(str(folder / f"{target.name}.pdb"))
    shuffled.save_xtc(str(folder / f"{target.name}_prod_R1_fit.xtc"))
    expected = read_frames(target, 1)[3][match_atoms(target, protein)]
    there = find_targets(folder)[0]
    found = read_frames(there, 1)[3][match_atoms(there, protein)]
    np.testing.assert_allclose(found, expected, atol=0.02)
    with pytest.raises(UserError, match="belongs to other coordinates"):
        load_conformers(there, protein, labels, [1])


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
    return TrunkEmbeddings(torch.zeros(n, 4), torch.zeros(n, 3), torch.zeros(n, n, 2))


@pytest.fixture(scope="module")
def loader(target, protein, labels):
    conformers = load_conformers(target, protein, labels, [1])
    n = protein.protein.n_residues
    return SequenceCoupledLoader([conformers], [embeddings(n)], n_conformers=3, seed=5)


def test_an_item_is_the_same_whenever_it_is_asked_for(loader):
    first, again = loader[7], loader[7]
    assert first.frames == again.frames
    assert torch.equal(first.coordinates, again.coordinates)
    assert torch.equal(first.features["ref_pos"], again.features["ref_pos"])
    assert loader[8].frames != first.frames
    draws = [torch.rand(3, generator=loader.generator(7)) for _ in range(2)]
    assert torch.equal(*draws)


def test_more_conformers_than_there_are_is_an_error(target, protein, labels):
    conformers = load_conformers(target, protein, labels, [1])
    with pytest.raises(UserError, match="fewer than"):
        SequenceCoupledLoader([conformers], [embeddings(5)], n_conformers=10**6, seed=0)


def test_embeddings_survive_the_disk_and_stale_ones_are_refused(protein, tmp_path):
    path = tmp_path / "x.safetensors"
    made = TrunkEmbeddings(torch.rand(5, 4), torch.rand(5, 3), torch.rand(5, 5, 2))
    save_embeddings(path, made, protein, "trunk1", 4)
    read = load_embeddings(path, protein, "trunk1", 4)
    assert torch.equal(read.z_trunk, made.z_trunk)
    other = replace(protein, protein=Protein(protein.protein.name, ("GAG",)))
    for arguments, what in (
        ((protein, "trunk2", 4), "trunk"),
        ((protein, "trunk1", 9), "n_cycles"),
        ((other, "trunk1", 4), "sequence"),
    ):
        with pytest.raises(UserError, match=f"another {what}"):
            load_embeddings(path, *arguments)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="not a whole embedding file"):
        load_embeddings(path, protein, "trunk1", 4)


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
