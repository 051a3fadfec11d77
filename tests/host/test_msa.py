import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protenix_eba.core.errors import UserError
from protenix_eba.host.embeddings import compute_embeddings
from protenix_eba.host.features import protein_features
from protenix_eba.host.msa import MsaFiles
from protenix_eba.host.weights import build_model
from protenix_eba.structures.sequences import Protein

A, B = "MKTAYIAKQRQISF", "GSHMLEDPVW"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def own_folders(tmp_path, a3m):
    """Two chains with alignments as Protenix's own search writes them."""
    for number, chain in enumerate((B, A)):
        folder = tmp_path / "msa" / str(number)
        write(folder / "pairing.a3m", a3m(chain, seed=number, species=True))
        write(folder / "non_pairing.a3m", a3m(chain, n_rows=4, seed=2 + number))
    write(tmp_path / "msa/0.a3m", a3m(B, seed=9))  # what the search server sent
    return tmp_path / "msa"


def test_files_are_found_by_name_and_given_to_chains_by_query(tmp_path, a3m):
    write(tmp_path / "x.a3m", a3m(A))
    write(tmp_path / "two/first.a3m", a3m(B))
    write(tmp_path / "two/second.a3m", a3m(A))
    files = MsaFiles(tmp_path)
    assert files.of(Protein("x", (A,))).unpaired == (a3m(A),)
    two = files.of(Protein("two", (A, B, A)))
    assert two.unpaired == (a3m(A), a3m(B), a3m(A)) and two.paired == ("", "", "")
    assert MsaFiles(tmp_path / "x.a3m").of(Protein("any", (A,))).unpaired == (a3m(A),)


@pytest.mark.parametrize("below", ["", "two"])
def test_protenixs_own_folders_are_found_by_sequence_and_by_name(own_folders, tmp_path, a3m, below):
    if below:
        own_folders = own_folders.rename(tmp_path / "two").parent
    found = MsaFiles(own_folders).of(Protein("two", (A, B)))
    assert found.paired == tuple(
        a3m(chain, seed=number, species=True) for number, chain in ((1, A), (0, B))
    )
    assert found.unpaired == (a3m(A, n_rows=4, seed=3), a3m(B, n_rows=4, seed=2))


def test_equal_chains_have_one_alignment(own_folders):
    """Protenix's search makes a folder for each chain, and uses one of those that are equal."""
    shutil.copytree(own_folders / "1", own_folders / "2")
    found = MsaFiles(own_folders).of(Protein("two", (A, A)))
    assert found.paired == ((own_folders / "2/pairing.a3m").read_text(),) * 2


def test_records_of_a_database_end_with_nul(tmp_path):
    for number, text in enumerate((f"\ufeff>q\n{A}\n\0", f">q\r\n{A}\r\n\0>h\r\n{A}\r\n")):
        write(tmp_path / f"{number}.a3m", text)
        found = MsaFiles(tmp_path / f"{number}.a3m").of(Protein("x", (A,)))
        assert found.unpaired[0].split()[:2] == [">q", A] and "\0" not in found.unpaired[0]


def test_no_alignment_is_needed_where_protenix_reads_none(tmp_path, a3m):
    """`FeatureAssemblyLine.assemble` leaves out chains of up to 4 residues."""
    assert MsaFiles(None).of(Protein("x", (A,))) is None
    assert MsaFiles(tmp_path).of(Protein("x", ("GAGA",))) is None
    write(tmp_path / "x.a3m", a3m(A))
    assert MsaFiles(tmp_path).of(Protein("x", ("GAGA", A))).unpaired == ("", a3m(A))


ROWS = f">query\n{A}\n>hit1\n{'-' * 5}{A[5:]}\n>hit2\n{A[:3]}hsD{A[4:]}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f">q\n{B}\n", "10 residues, which is that of chain 1 .* up to residue 0 only"),
        (ROWS.replace("AY", "AF", 1), "of chain 1 .* up to residue 4 only"),
        (ROWS[:-5], r"row 3 \(hit2\): expected 14 columns as in the query, found 10"),
        (ROWS + ">las", r"row 4 \(las\): expected 14 columns as in the query, found 0"),
        ("", "expected an a3m file .* found an empty file"),
        (A, "expected an a3m file .* found another kind of file"),
        (ROWS.replace("--", ".-"), r"row 2 \(hit1\): expected letters and '-', found \['.'\]"),
        (b"\x00\xff\x80" * 9, "cannot be read as text"),
        (ROWS.replace("--", "\0-"), r"row 2 \(hit1\): expected letters .* found \['\\x00'\]"),
        (None, "no alignment of chain 1 of x in"),
    ],
    ids=["other", "residue", "cut", "header", "empty", "plain", "dots", "binary", "nul", "none"],
)
def test_files_that_cannot_be_used_are_named_with_their_reason(tmp_path, content, message):
    if content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "x.a3m").write_bytes(data)
    with pytest.raises(UserError, match=message):
        MsaFiles(tmp_path).of(Protein("x", (A,)))


@settings(deadline=None)
@given(
    st.binary()
    | st.text("AMK>-\n#q .", max_size=40).map(lambda text: (f">q\n{A}\n" + text).encode())
)
def test_any_bytes_are_whole_rows_of_the_target_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "x.a3m"
    path.write_bytes(data)
    try:
        found = MsaFiles(path).of(Protein("x", (A,)))
    except UserError:
        return
    assert found.unpaired[0].replace("\n", "").startswith(f">q{A}")
    protein_features(Protein("x", (A,)), msa=found)


def test_small_letters_are_insertions(tmp_path):
    write(tmp_path / "x.a3m", "# made by hand\n" + ROWS)
    features = protein_features(Protein("x", (A,)), msa=MsaFiles(tmp_path).of(Protein("x", (A,))))
    deletions = features.features["deletion_matrix"]
    assert deletions.shape == (4, len(A))  # the query is there as a paired row as well
    assert deletions.nonzero().tolist() == [[3, 3]] and deletions[3, 3] == 2


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"expected a folder or an a3m file at .*, found nothing"):
        MsaFiles(tmp_path / "absent")


@pytest.fixture(scope="module")
def model(awake):
    configs, state, _ = awake()
    return configs, build_model(configs, state)


def stock_trunk(model, configs, tmp_path, sequences):
    """Trunk outputs by Protenix's own input pipeline and forward pass, seeds set as ours are."""
    from protenix.data.inference.infer_dataloader import InferenceDataset

    path = write(tmp_path / "input.json", json.dumps([{"name": "x", "sequences": sequences}]))
    configs.update({"input_json_path": str(path), "dump_dir": str(tmp_path)})
    configs.update({"use_msa": True, "use_template": False, "msa_pair_as_unpair": True})
    state = np.random.get_state()
    np.random.seed(0)
    data, _, error = InferenceDataset(configs)[0]
    np.random.set_state(state)
    assert not error
    outputs = []

    def noted(**arguments):
        torch.manual_seed(0)
        outputs.append(type(model).get_pairformer_output(model, **arguments))
        raise StopIteration

    model.get_pairformer_output = noted
    try:
        with torch.no_grad(), pytest.raises(StopIteration):
            model(data["input_feature_dict"], None, None, mc_dropout_apply_rate=0.0)
    finally:
        del model.get_pairformer_output
    return outputs[0]


@pytest.mark.parametrize("keys", ["paths", "old folder"])
def test_embeddings_are_those_of_stock_protenix_for_a_json_with_these_files(
    model, own_folders, tmp_path, keys
):
    configs, model = model
    protein = Protein("x", (A, B))
    msa = MsaFiles(own_folders).of(protein)
    made = compute_embeddings(model, protein_features(protein, msa=msa), model.N_cycle)
    alone = compute_embeddings(model, protein_features(protein), model.N_cycle)
    assert min((a - b).std() for a, b in zip(made.tensors(), alone.tensors(), strict=True)) > 0.01
    chains = []
    for number, sequence in ((1, A), (0, B)):
        folder = own_folders / str(number)
        paths = {"pairedMsaPath": "pairing.a3m", "unpairedMsaPath": "non_pairing.a3m"}
        files = {key: str(folder / name) for key, name in paths.items()}
        old = {"msa": {"precomputed_msa_dir": str(folder), "pairing_db": "uniref100"}}
        chain = {"sequence": sequence, "count": 1, **(files if keys == "paths" else old)}
        chains.append({"proteinChain": chain})
    for ours, stock in zip(
        made.tensors(), stock_trunk(model, configs, tmp_path, chains), strict=True
    ):
        torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)
