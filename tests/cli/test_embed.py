import shutil
import signal
from pathlib import Path

import mdtraj
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from protenix_eba.cli.main import run
from protenix_eba.host.weights import save_checkpoint

SEQUENCES = {"one": "MKTAYIAKQR", "two": "GSHMLEDPVW", "three": "YGGFM"}


@pytest.fixture(scope="module")
def command(small_run, awake, tmp_path_factory):
    """`embed` of three sequences by a trunk whose weights give no zeros."""
    folder = tmp_path_factory.mktemp("embed")
    _, state, _ = awake()
    save_checkpoint(folder / "awake.pt", state)
    fasta = "".join(f">{name}\n{sequence}\n" for name, sequence in SEQUENCES.items())
    (folder / "three.fasta").write_text(fasta)
    return [
        "embed", "--config", str(small_run / "small.yaml"),
        "--checkpoint", str(folder / "awake.pt"), "--input", str(folder / "three.fasta"),
    ]  # fmt: skip


@pytest.fixture
def msas(tmp_path, a3m):
    folder = tmp_path / "msas"
    folder.mkdir()
    for seed, (name, sequence) in enumerate(SEQUENCES.items()):
        (folder / f"{name}.a3m").write_text(a3m(sequence, n_rows=40, seed=seed))
    return folder


def contents(folder):
    """Provenance and tensors of each file; the order of entries in a header is any."""
    made = {}
    for path in sorted(folder.glob("[!.]*")):  # without what a killed run was writing
        with safe_open(path, framework="pt") as handle:
            provenance = handle.metadata()
        made[path.stem] = (provenance, {k: v.tolist() for k, v in load_file(path).items()})
    return made


def test_the_same_msas_give_the_same_files_and_others_do_not(command, msas, tmp_path, a3m, capsys):
    """The trunk draws rows at random in each cycle: from a seed of its own."""
    made = {}
    for name, words in (
        ("first", ["--msa", str(msas)]),
        ("again", ["--msa", str(msas)]),
        ("alone", []),
    ):
        torch.manual_seed(len(made))
        state = torch.random.get_rng_state()
        assert run([*command, "--out", str(tmp_path / name), *words]) == 0
        assert torch.equal(torch.random.get_rng_state(), state)
        made[name] = contents(tmp_path / name)
    printed = capsys.readouterr().err
    assert f"3 targets: MSAs from {msas}" in printed and "3 targets: no MSA" in printed
    assert made["first"] == made["again"]
    for name in SEQUENCES:
        assert made["first"][name][0]["msa_sequences"] == "42"  # the query is paired and unpaired
        assert made["alone"][name][0]["msa"] == "none"
        for key in ("s_inputs.low", "s_trunk.low", "z_trunk.low"):
            assert made["first"][name][1][key] != made["alone"][name][1][key]


def test_embeddings_of_another_msa_are_refused_and_left_as_they_are(
    command, msas, tmp_path, a3m, capsys
):
    out = tmp_path / "out"
    assert run([*command, "--out", str(out), "--msa", str(msas)]) == 0
    before = contents(out)
    (msas / "two.a3m").write_text(a3m(SEQUENCES["two"], seed=7))
    assert run([*command, "--out", str(out), "--msa", str(msas)]) == 3
    printed = capsys.readouterr().err
    assert f"{out}: 0 embedded, 2 kept, 1 failed" in printed
    assert f"failed: two: {out}/two.safetensors was made for another msa" in printed
    assert run([*command, "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("another msa: expected none, found") == 3
    assert contents(out) == before


def test_a_target_that_fails_is_named_and_the_others_are_embedded(command, msas, tmp_path, capsys):
    out = tmp_path / "out"
    (msas / "two.a3m").write_bytes((msas / "two.a3m").read_bytes()[:-3])
    (msas / "three.a3m").unlink()
    assert run([*command, "--out", str(out), "--msa", str(msas)]) == 3
    printed = capsys.readouterr().err
    assert f"{out}: 1 embedded, 0 kept, 2 failed" in printed
    assert f"failed: two: {msas}/two.a3m: row 41" in printed
    assert "failed: three: no alignment of chain 1 of three" in printed
    assert list(contents(out)) == ["one"]
    (msas / "one.a3m").write_text("")
    assert run([*command, "--out", str(tmp_path / "none"), "--msa", str(msas)]) == 2
    assert "0 embedded, 0 kept, 3 failed" in capsys.readouterr().err


def test_a_broken_topology_is_one_failed_target(command, demo_data, tmp_path, capsys):
    names = [folder.name for folder in sorted(demo_data.iterdir()) if folder.is_dir()][:2]
    for name in names:
        shutil.copytree(demo_data / name, tmp_path / "md" / name)
    (tmp_path / "md" / names[0] / f"{names[0]}.pdb").write_text("ATOM  nonsense\n")
    words = ["--input", str(tmp_path / "md"), "--out", str(tmp_path / "out")]
    assert run([*command, *words]) == 3
    assert f"failed: {names[0]}: " in capsys.readouterr().err
    assert list(contents(tmp_path / "out")) == [names[1]]


def test_what_is_no_targets_fault_ends_the_command(command, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text(Path(command[2]).read_text().replace("c_z: 16", "c_z: 32"))
    esm = tmp_path / "esm.yaml"
    esm.write_text(Path(command[2]).read_text() + "esm: {enable: true}\n")
    for words, message in (
        (["--config", str(other), "--out", str(tmp_path / "out")], "not fit the configured model"),
        (["--config", str(esm), "--out", str(tmp_path / "out")], "embeddings of a language model"),
        (["--out", str(other)], f"cannot write into {other}: File exists"),
    ):
        assert run([*command, *words]) == 2
        printed = capsys.readouterr().err
        assert printed.count(message) == 1 and "failed:" not in printed


def test_shards_together_are_the_whole(command, tmp_path, capsys):
    for number, names in ((1, {"one", "three"}), (2, {"two"})):
        out = tmp_path / str(number)
        assert run([*command, "--out", str(out), "--shard", f"{number}/2"]) == 0
        assert contents(out).keys() == names
    assert run([*command, "--out", str(tmp_path / "4"), "--shard", "4/4"]) == 0  # no target left
    for wrong in ("0/2", "3/2", "2", "a/b"):
        assert run([*command, "--out", str(tmp_path), "--shard", wrong]) == 2
        assert "--shard: expected i/n with i from 1 to n" in capsys.readouterr().err


def test_a_killed_run_is_resumed_to_the_same_files(command, tmp_path, ended):
    letters = "ACDEFGHIKLMNPQRSTVWY"
    fasta = tmp_path / "many.fasta"
    fasta.write_text("".join(f">p{n}\n{letters[n:]}{letters}\n" for n in range(20)))
    command, out = [*command, "--input", str(fasta), "--out"], tmp_path / "out"
    assert ended(signal.SIGKILL, ".safetensors", [*command, out]) == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in out.glob("[!.]*.safetensors")}
    assert 0 < len(kept) < 20
    assert run([*command, str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert run([*command, str(tmp_path / "whole")]) == 0
    made, whole = contents(out), contents(tmp_path / "whole")
    assert len(whole) == 20 and made == whole


def test_sampling_takes_msas_and_says_which(command, msas, tmp_path, capsys):
    sample = ["sample", *command[1:], "-n", "1", "--steps", "1"]
    assert run([*sample, "--out", command[2]]) == 2
    assert "cannot write into" in capsys.readouterr().err
    out, embeddings = tmp_path / "out", tmp_path / "embeddings"
    words = ["--embeddings", str(embeddings), "--msa", str(msas)]
    (msas / "three.a3m").write_text("")
    assert run([*sample, "--out", str(out), *words]) == 3
    assert "failed: three: " in capsys.readouterr().err
    assert mdtraj.load_pdb(str(out / "one/one.pdb")).n_residues == len(SEQUENCES["one"])
    # Embeddings that are there are taken as they are, and what they are is recorded.
    before = (out / "one/one.json").read_bytes()
    again = [*sample, "--embeddings", str(embeddings), "--out"]
    assert run([*again, str(tmp_path / "again")]) == 0
    assert (tmp_path / "again/one/one.json").read_bytes() == before
    assert '"msa": "none"' in (tmp_path / "again/three/three.json").read_text()
    # Without them the sequences are embedded on their own: these are other samples.
    assert run([*sample, "--out", str(out)]) == 3
    assert "holds samples made with other msa" in capsys.readouterr().err
