import json
import logging

import pytest
import torch

from protenix_eba.core.errors import UserError
from protenix_eba.host.features import protein_features
from protenix_eba.structures.sequences import Protein, read_proteins, read_seed


def chain(sequence, **more):
    return {"proteinChain": {"sequence": sequence, **more}}


def entry(*sequences, name="x", **more):
    return {"name": name, "sequences": list(sequences), **more}


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "input.json"
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_json_gives_the_same_proteins_as_fasta(written, tmp_path):
    fasta = tmp_path / "x.fasta"
    fasta.write_text(">one\nGAG\n>dimer\nYGG:YGG:ACD\n", encoding="utf-8")
    path = written(
        [
            entry(chain("GAG", count=1), name="one", modelSeeds=[]),
            entry(chain("ygg", count=2), chain("ACD", count=1), name="dimer"),
        ]
    )
    assert read_proteins(path) == read_proteins(fasta)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([entry({"ligand": {"ligand": "CCD_ATP", "count": 1}})], "found ligand"),
        ([entry(chain("GAG"), {"dnaSequence": {"sequence": "ACGT", "count": 1}})], "dnaSequence"),
        ([entry({"proteinChain": {"sequence": "GA"}, "ion": {}})], "found ion, proteinChain"),
        ([entry("GAG")], "found str"),
        ([entry(chain("GAG", modifications=[{"ptmType": "CCD_SEP"}]))], "modifications"),
        ([entry(chain("GAG"), covalent_bonds=[{"entity1": 1}])], "covalent_bonds"),
        ([entry(chain("GAG"), constraint={"contact": []})], "constraint"),
        ([entry(chain("GAG", count=0))], "count of 1 or more"),
        ([entry(chain(7))], "expected a sequence"),
        ([entry()], "list of sequences"),
        ([{"sequences": [chain("GAG")]}], "expected a name"),
        ([entry(chain("GAX"))], "unknown residues X"),
        ([entry(chain("GA")), entry(chain("GA"))], "x occur twice"),
        ([], "no sequence"),
        (entry(chain("GAG")), "expected a list of entries"),
        ('[{"name": "x", "sequ', "not whole JSON"),
    ],
)
def test_what_cannot_be_sampled_from_a_json_is_named(written, content, message):
    with pytest.raises(UserError, match=message):
        read_proteins(written(content))


def test_empty_extras_of_a_json_are_no_obstacle_and_alignments_are_told(written, caplog):
    extras = {"modifications": [], "id": ["A"], "unpairedMsaPath": "x.a3m"}
    with caplog.at_level(logging.WARNING):
        assert read_proteins(written([entry(chain("GAG", **extras), covalent_bonds=[])]))
    assert "give them with --msa" in caplog.text


def test_the_seed_is_that_of_the_first_entry(written, tmp_path):
    fasta = tmp_path / "x.fasta"
    fasta.write_text(">one\nGAG\n", encoding="utf-8")
    assert read_seed(fasta) is None
    assert read_seed(written([entry(chain("GAG"))])) is None
    assert read_seed(written([entry(chain("GAG"), modelSeeds=[101]), entry(chain("A"))])) == 101
    with pytest.raises(UserError, match="at most one number in modelSeeds"):
        read_seed(written([entry(chain("GAG"), modelSeeds=[1, 2])]))


@pytest.mark.parametrize("text", ["name,seqres\nx,\n", "name,seqres\nx\n", ">x\n"])
def test_an_empty_sequence_is_named(tmp_path, text):
    path = tmp_path / "x.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="an empty sequence"):
        read_proteins(path)


def test_equal_chains_are_copies_of_one_entity_as_in_stock_protenix():
    """In its JSON a homo-oligomer is one entry with a count: the copies are symmetric (sym_id)."""
    features = protein_features(Protein("x", ("GAG", "GAG", "YG"))).features
    assert features["entity_id"].tolist() == [0] * 6 + [1] * 2
    assert features["sym_id"].tolist() == [0] * 3 + [1] * 3 + [0] * 2
    assert features["asym_id"].tolist() == [0] * 3 + [1] * 3 + [2] * 2
    alone = protein_features(Protein("x", ("GAG",)))
    torch.testing.assert_close(features["restype"][3:6], alone.features["restype"])


@pytest.mark.parametrize("text", [">", ">\n", ">\nGAG\n"])
def test_a_fasta_record_without_a_name_is_refused(tmp_path, text):
    path = tmp_path / "x.fasta"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="cannot be the name"):
        read_proteins(path)
