import json
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from ebmfold_domain_sets import (
    Selection,
    as_domain,
    folder_chains,
    ideal_cb,
    promod3_chains,
    read_topologies,
    select_domains,
    split_by_topology,
    structure_chains,
)
from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.domains import read_domains

COBROTOXIN = Path(__file__).parents[1] / "data" / "cobrotoxin" / "cobrotoxin.pdb"
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_domain_set.py"


@pytest.fixture(scope="module")
def cobrotoxin():
    ((name, sequence, backbone),) = structure_chains(COBROTOXIN)
    return name, sequence, backbone


@pytest.fixture
def database(tmp_path, cobrotoxin):
    """The toxin twice, written as ProMod3 writes its database."""
    _, sequence, backbone = cobrotoxin
    shift = backbone.reshape(-1, 3).min(0) - 1.0
    oxygen = backbone[:, 2:] + 1.0
    steps = np.round((np.concatenate([backbone, oxygen], 1) - shift) / 0.01).astype("<u2")
    table = b"".join(
        struct.pack("<I", 4) + name + struct.pack("<I", 1) + b"B"
        + struct.pack("<IHH3f", offset, len(sequence), 7, *shift)
        for name, offset in ((b"1ABC", 0), (b"2XYZ", len(sequence)))
    )  # fmt: skip
    n = struct.pack("<Q", 2 * len(sequence))
    arrays = n + 2 * sequence.encode() + n + 2 * steps.tobytes()
    path = tmp_path / "structure_db.dat"
    path.write_bytes(bytes(0x4D) + struct.pack("<Q", 2) + table + arrays)
    return path


def test_promod3_database_gives_names_sequences_and_coordinates_to_its_resolution(
    database, cobrotoxin
):
    _, sequence, backbone = cobrotoxin
    chains = list(promod3_chains(database))
    assert [name for name, *_ in chains] == ["1abc.B", "2xyz.B"]
    for _, letters, atoms in chains:
        assert letters == sequence
        np.testing.assert_allclose(atoms, backbone, atol=0.0051)


@pytest.mark.parametrize("keep", [30, 200, 900])
def test_a_cut_database_is_refused(database, keep):
    database.write_bytes(database.read_bytes()[:keep])
    with pytest.raises(UserError, match="or it is cut"):
        list(promod3_chains(database))


def test_ideal_c_beta_atoms_lie_where_those_of_a_structure_do(cobrotoxin):
    """In a frame of MD; those of the other hand would be 2.5 angstrom away."""
    from biotite.structure.io import load_structure

    atoms = load_structure(COBROTOXIN, model=1)
    of_cb = atoms[(atoms.atom_name == "CB")]
    has_one = np.isin(np.unique(atoms.res_id), of_cb.res_id)
    made = ideal_cb(torch.from_numpy(cobrotoxin[2]))[has_one, 0].numpy()
    distance = np.linalg.norm(made - of_cb.coord, axis=-1)
    assert distance.mean() < 0.2 and distance.max() < 0.6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s, x: (s, x), ""),
        (lambda s, x: (s[:30], x[:30]), "not 40 to 256"),
        (lambda s, x: ("X" + s[1:], x), "beyond the 20"),
        (lambda s, x: (s, np.where(x == x[3, 1, 2], np.nan, x)), "not finite"),
        (lambda s, x: (s[:20] + s[25:], np.delete(x, range(20, 25), 0)), "chain break"),
    ],
)
def test_only_whole_chains_of_the_20_amino_acids_are_taken(cobrotoxin, change, reason):
    complaint = Selection().complaint(*change(*cobrotoxin[1:]))
    assert reason in complaint and bool(reason) == bool(complaint)


CATH = "# CATH list\n1abcB00     2    10    60    10\n2xyzB01 1 20 5 3\n2xyzB02 2 10 60 1\n"


@pytest.mark.parametrize(
    "text",
    [CATH, json.dumps({"cath_nodes": {"1abc.B": ["2.10.60"], "2xyz.B": ["1.20.5", "2.10.60"]}})],
)
def test_a_chain_with_several_topologies_has_none(tmp_path, text):
    path = tmp_path / "list"
    path.write_text(text)
    assert read_topologies(path) == {"1abc.B": "2.10.60"}


@pytest.mark.parametrize("text", ["", "hello world\n", "{}", '{"cath_nodes": 3}', "1abcB00 2 10\n"])
def test_another_file_in_the_place_of_the_list_is_refused(tmp_path, text):
    path = tmp_path / "list"
    path.write_text(text)
    with pytest.raises(UserError, match="no list of CATH topologies"):
        read_topologies(path)


@pytest.fixture
def many(cobrotoxin):
    """180 domains of 60 topologies, one to five of each."""
    _, sequence, backbone = cobrotoxin
    return [
        as_domain(f"d{fold}.{n}", f"1.1.{fold}", sequence, backbone)
        for fold in range(60)
        for n in range(1 + fold % 5)
    ]


def test_splits_share_no_topology_and_have_the_sizes_asked_for(many):
    made = split_by_topology(many, 12, 8, seed=0)
    of = {
        split: {d.topology for d in made if d.split == split}
        for split in ("train", "valid", "test")
    }
    assert not of["train"] & of["valid"] and not of["train"] & of["test"]
    assert not of["valid"] & of["test"]
    sizes = Counter(domain.split for domain in made)
    assert sizes["valid"] == 12 and sizes["test"] == 8 and sizes["train"] > 150
    assert [d.name for d in made] == [d.name for d in split_by_topology(many, 12, 8, seed=0)]
    assert Counter(d.split for d in split_by_topology(many, 12, 8, 0, n_train=8))["train"] == 8
    with pytest.raises(UserError, match="too few"):
        split_by_topology(many, 200, 5, seed=0)


def test_a_folder_with_a_broken_file_gives_the_others_and_says_so(tmp_path, cobrotoxin, capsys):
    (tmp_path / "1abc.pdb").write_bytes(COBROTOXIN.read_bytes())
    (tmp_path / "2bad.pdb").write_text("nothing\n")
    left_out = Counter()
    found = list(folder_chains(tmp_path, left_out))
    assert [(name.split(".")[0], sequence) for name, sequence, _ in found] == [
        ("1abc", cobrotoxin[1])
    ]
    assert sum(left_out.values()) == 1 and "2bad.pdb" in capsys.readouterr().err
    assert select_domains(found, {}, Selection(), left_out) == []
    assert left_out["no topology in the list, or several"] == 1


def test_the_script_writes_a_set_that_training_reads(tmp_path, cobrotoxin):
    folder = tmp_path / "structures"
    folder.mkdir()
    nodes = {}
    for n in range(8):
        (folder / f"{n}toy.pdb").write_bytes(COBROTOXIN.read_bytes())
        nodes[f"{n}toy.{cobrotoxin[0].split('.')[1]}"] = [f"1.1.{n}"]
    (tmp_path / "cath.json").write_text(json.dumps({"cath_nodes": nodes}))
    words = ["--structures", folder, "--cath", tmp_path / "cath.json", "--out", tmp_path / "d.npz"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *words, "--n-valid", "2", "--n-test", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Counter(d.split for d in read_domains(tmp_path / "d.npz")) == {
        "train": 5, "valid": 2, "test": 1,
    }  # fmt: skip
