import json
import os
import signal
from dataclasses import replace

import mdtraj
import numpy as np
import pytest
import torch
from biotite.structure.io import pdbx
from torch import nn

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.host.embeddings import TrunkEmbeddings
from protenix_eba.host.features import ProteinFeatures, protein_features
from protenix_eba.protein.validity import Checker
from protenix_eba.sampling.chunk_size import free_memory, samples_at_a_time
from protenix_eba.sampling.ensembles import EnsembleFolder, topology_of, write_ensemble
from protenix_eba.sampling.run import Plan, SamplingRun
from protenix_eba.sampling.samplers import in_chunks
from protenix_eba.sampling.settings import SamplerSettings
from protenix_eba.structures.sequences import Protein

PROTEIN = Protein("enkephalin", tuple(["YGGFM"]))


class Crystal(nn.Module):
    """The denoiser of a few known conformations: the one that fits the noisy structure best."""

    def __init__(self, conformations):
        super().__init__()
        self.known = nn.Parameter(conformations - conformations.mean(dim=1, keepdim=True))

    def prepare(self, features, z_trunk):
        return ()

    def forward(self, features, embeddings, coordinates, sigma, shared):
        noisy = coordinates[:, 0]
        centre = noisy.mean(dim=1, keepdim=True)
        u, _, vt = torch.linalg.svd(
            torch.einsum("kni,bnj->bkij", self.known, noisy - centre), full_matrices=False
        )
        fix = torch.ones(*u.shape[:2], 1, 3)
        fix[..., 2] = torch.linalg.det(u @ vt)[..., None]
        moved = torch.einsum("kni,bkij->bknj", self.known, (u * fix) @ vt) + centre[:, None]
        best = ((moved - noisy[:, None]) ** 2).sum((-1, -2)).argmin(dim=1)
        return moved[torch.arange(len(noisy)), best][:, None]


@pytest.fixture(scope="module")
def features():
    return protein_features(PROTEIN)


@pytest.fixture(scope="module")
def conformations(features, demo_data):
    """A conformation of MD in the features' order of atoms, and its mirror image."""
    folder = demo_data / "met_enkephalin"
    md = mdtraj.load(str(folder / "met_enkephalin.pdb"))
    where = {(a.residue.index, a.name): a.index for a in md.topology.atoms}
    whole = 10 * md.xyz[0][[where[residue, name] for _, residue, name in features.atoms]]
    return torch.tensor(np.stack([whole, whole * [1.0, 1.0, -1.0]]), dtype=torch.float32)


def nothing(_):
    pass


@pytest.fixture
def ensemble(features, conformations, tmp_path):
    """Sample with the crystal denoiser; returns the outcome and the folder."""
    embeddings = TrunkEmbeddings(torch.zeros(5, 1), torch.zeros(5, 1), torch.zeros(5, 5, 1))

    def make(n, *, known=slice(None), out="out", tell=nothing, **plan):
        settings = plan.pop("settings", SamplerSettings(n_steps=8))
        plan = Plan(n, settings, **{"chunk": 3, **plan})
        denoiser = Crystal(conformations[known])
        inputs = lambda _: (features, embeddings)  # noqa: E731
        made = SamplingRun(denoiser, inputs, plan, {"checkpoint_sha256": "x"}, tmp_path / out)
        return made.ensemble(PROTEIN, "none", tell)

    return make


def frames(folder):
    name = folder.name
    return mdtraj.load_xtc(str(folder / f"{name}.xtc"), top=str(folder / f"{name}.pdb"))


def record(ensemble):
    return json.loads((ensemble.folder / f"{ensemble.folder.name}.json").read_text())


def contents(ensemble):
    return (ensemble.folder / f"{ensemble.folder.name}.xtc").read_bytes()


def test_invalid_samples_are_counted_and_kept(ensemble):
    made = ensemble(12)
    assert 0 < len(made.invalid) < 12
    assert set(made.invalid.values()) == {"D-amino acid: 3"}
    assert made.remark == f"{len(made.invalid)} of 12 samples invalid: D-amino acid in " + str(
        len(made.invalid)
    )
    loaded = frames(made.folder)
    assert record(made)["numbers"] == list(range(12))
    valid = Checker.of(loaded.topology).check(10 * loaded.xyz).valid
    assert [n for n in range(12) if not valid[n]] == sorted(made.invalid)


def test_valid_only_gives_the_first_n_valid_samples_whatever_the_chunks(ensemble):
    whole = ensemble(12)
    valid = [n for n in range(12) if n not in whole.invalid]
    for chunk in (1, 4):
        made = ensemble(
            len(valid), valid_only=True, max_attempts=40, chunk=chunk, out=f"valid{chunk}"
        )
        assert not made.is_short
        assert record(made)["numbers"] == valid
        np.testing.assert_allclose(
            frames(made.folder).xyz, frames(whole.folder).xyz[valid], atol=2e-3
        )


def test_the_bound_of_attempts_is_reported_and_a_higher_one_goes_on(ensemble):
    whole = ensemble(12)
    n_valid = 12 - len(whole.invalid)
    short = ensemble(11, valid_only=True, max_attempts=12, out="valid")
    assert short.is_short
    assert (short.n_written, short.attempts) == (n_valid, 12)
    assert f"only {n_valid} of 11 samples can be used" in short.remark
    again = ensemble(11, valid_only=True, max_attempts=12, out="valid")
    assert again == short
    enough = ensemble(11, valid_only=True, max_attempts=60, out="valid")
    assert not enough.is_short
    assert record(enough)["numbers"][:n_valid] == [n for n in range(12) if n not in whole.invalid]


def test_no_usable_sample_is_an_error_that_says_why(ensemble):
    with pytest.raises(UserError, match=r"only 0 of 2 .* D-amino acid in 6"):
        ensemble(2, known=slice(1, 2), valid_only=True, max_attempts=6)
    with pytest.raises(UserError, match=r"not finite.* in 2"):
        ensemble(2, settings=SamplerSettings(n_steps=2, noise_scale=1e30), out="huge")


@pytest.mark.parametrize("first", [1, 3, 7])
def test_more_samples_are_added_to_those_that_are_there(ensemble, first):
    straight = ensemble(9, chunk=1, out="straight")
    ensemble(first, chunk=1)
    before = contents(ensemble(first, chunk=1))
    made = ensemble(9, chunk=1)
    assert contents(made) == contents(straight)
    assert contents(made).startswith(before)
    assert record(made) == record(straight)


def test_an_interrupted_ensemble_goes_on_from_its_finished_chunks(ensemble, tmp_path):
    straight = ensemble(9, out="straight")

    def stop(there):
        if there >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensemble(9, tell=stop)
    assert not (tmp_path / "out" / PROTEIN.name).exists()
    told = []
    made = ensemble(9, tell=told.append)
    assert told == [6, 9]
    assert contents(made) == contents(straight)
    assert record(made) == record(straight)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [PROTEIN.name]


def test_a_damaged_chunk_is_made_again(ensemble, tmp_path):
    straight = ensemble(6, out="straight")

    def stop(there):
        if there >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensemble(6, tell=stop)
    (part,) = (tmp_path / "out").glob(".*/*.npz")
    part.write_bytes(part.read_bytes()[:200])
    assert contents(ensemble(6)) == contents(straight)


def test_a_run_killed_between_trajectory_and_record_is_completed(ensemble):
    """The new trajectory stands beside the old record: its first frames are the recorded ones."""
    made = ensemble(4, chunk=1)
    old = (made.folder / f"{made.folder.name}.json").read_bytes()
    straight = contents(ensemble(7, chunk=1))
    (made.folder / f"{made.folder.name}.json").write_bytes(old)
    assert contents(ensemble(7, chunk=1)) == straight


def test_what_is_there_is_not_computed_or_written_again(ensemble):
    made = ensemble(4)
    path = made.folder / f"{made.folder.name}.xtc"
    before = path.stat().st_mtime_ns
    again = ensemble(4, tell=pytest.fail)
    assert again == made
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"seed": 1}, "made with other seed"),
        ({"settings": SamplerSettings(n_steps=8, step_scale=1.5)}, "made with other sampler"),
        ({"valid_only": True, "max_attempts": 9}, "made with other valid_only"),
        ({"n": 2}, "holds 4 samples, 2 are asked for"),
    ],
)
def test_samples_of_another_kind_are_not_touched(ensemble, plan, message):
    made = ensemble(4)
    before = contents(made)
    with pytest.raises(UserError, match=message):
        ensemble(plan.pop("n", 4), **plan)
    assert contents(made) == before


def test_a_cut_trajectory_or_record_is_refused(ensemble):
    made = ensemble(4)
    path = made.folder / f"{made.folder.name}.xtc"
    whole = path.read_bytes()
    path.write_bytes(whole[: 3 * len(whole) // 4])
    with pytest.raises(UserError, match=r"enkephalin\.xtc"):
        ensemble(5)
    path.write_bytes(whole)
    path.with_suffix(".json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="not whole"):
        ensemble(5)


def test_split_files_hold_the_frames_under_the_topologys_names(ensemble):
    made = ensemble(3)
    ensemble(3, split_cif=True)
    loaded = frames(made.folder)
    names = sorted(path.name for path in made.folder.glob("*.cif"))
    assert names == [f"enkephalin_{n}.cif" for n in range(3)]
    for number, name in enumerate(names):
        one = pdbx.get_structure(pdbx.CIFFile.read(made.folder / name), model=1)
        assert one.atom_name.tolist() == [a.name for a in loaded.topology.atoms]
        assert one.res_name.tolist() == [a.residue.name for a in loaded.topology.atoms]
        assert one.res_id.tolist() == [a.residue.resSeq for a in loaded.topology.atoms]
        np.testing.assert_allclose(one.coord, 10 * loaded.xyz[number], atol=0.006)


def test_more_chains_than_a_pdb_file_names_make_the_topology_an_mmcif(tmp_path):
    n = 28
    atoms = tuple((chain, 0, "CA") for chain in range(n))
    many = ProteinFeatures(Protein("many", ("G",) * n), {}, atoms, ("C",) * n)
    xyz = np.arange(3 * n, dtype=np.float32).reshape(1, n, 3)
    write_ensemble(tmp_path, many, xyz, {})
    assert not (tmp_path / "many.pdb").exists()
    read = pdbx.get_structure(pdbx.CIFFile.read(tmp_path / "many.cif"), model=1)
    assert read.chain_id.tolist()[24:] == ["Y", "Z", "AA", "AB"]
    np.testing.assert_allclose(read.coord, xyz[0], atol=0.001)


def test_chunks_shrink_until_they_fit_into_memory():
    tried = []

    def sampler(numbers):
        tried.append(len(numbers))
        if len(numbers) > 2:
            raise torch.OutOfMemoryError("no")
        return np.array(numbers, dtype=np.float32)

    made = [n for chunk, _ in in_chunks(sampler, range(7), 6) for n in chunk]
    assert made == list(range(7))
    assert tried == [6, 3, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: 9 bytes")])
def test_no_memory_for_one_sample_is_an_error_of_the_user(error):
    def sampler(numbers):
        raise error

    with pytest.raises(UserError, match="not enough memory for one sample"):
        list(in_chunks(sampler, range(3), 2))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def sampler(numbers):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(in_chunks(sampler, range(3), 2))


def test_chunks_grow_with_memory_and_shrink_with_length():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    sizes = [samples_at_a_time(217, 1800, cuda, gb * 10**9) for gb in (0, 1, 4, 16, 80)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-1] == samples_at_a_time(217, 1800, cuda, 10**15) > sizes[1]
    assert samples_at_a_time(217, 1800, cpu, 10**15) < sizes[-1]
    by_length = [samples_at_a_time(n, 8 * n, cuda, 16 * 10**9) for n in (50, 300, 900, 3000)]
    assert by_length == sorted(by_length, reverse=True)


def test_the_hosts_free_memory_is_read():
    free = free_memory(torch.device("cpu"))
    assert free is None or 0 <= free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_topology_and_its_features_have_the_same_atoms(features):
    topology = topology_of(features)
    keys = [(a.residue.chain.index, a.residue.index, a.name) for a in topology.atoms]
    assert keys == list(features.atoms)


def test_parts_of_other_settings_are_refused(ensemble, tmp_path):
    folder = EnsembleFolder(tmp_path / "out", PROTEIN, {"seed": 7})
    folder.keep([0], np.zeros((1, 40, 3), dtype=np.float32))
    with pytest.raises(UserError, match="made with other"):
        ensemble(2)


@pytest.fixture(scope="module")
def straight(small_run, tmp_path_factory):
    """Words of a run, and the file that it writes when nothing stops it."""
    folder = tmp_path_factory.mktemp("straight")
    (folder / "one.fasta").write_text(">short\nGAG\n", encoding="utf-8")
    words = [
        "sample", "--config", small_run / "small.yaml", "--input", folder / "one.fasta",
        "--checkpoint", small_run / "start.pt", "-n", "40", "--batch", "2",
    ]  # fmt: skip
    words = [str(word) for word in words]
    assert run([*words, "--out", str(folder)]) == 0
    return words, (folder / "short/short.xtc").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_resumes_to_the_same_file(straight, tmp_path, number, ended):
    words, expected = straight
    out = tmp_path / "killed"
    assert ended(number, ".npz", [*words, "--out", out]) in (-signal.SIGKILL, 130)
    assert 0 < len(list(out.glob(".short.parts/*.npz"))) < 20
    assert not (out / "short").exists()
    assert run([*words, "--out", str(out)]) == 0
    assert (out / "short/short.xtc").read_bytes() == expected


def test_plans_that_make_no_sense_are_refused():
    plan = Plan(2, SamplerSettings())
    for changes, message in (
        ({"n_samples": 0}, "--samples: expected at least 1"),
        ({"chunk": 0}, "--batch: expected at least 1"),
        ({"seed": -1}, "--seed: expected 0 or above"),
        ({"valid_only": True, "max_attempts": 1}, "--max-attempts-factor"),
    ):
        with pytest.raises(UserError, match=message):
            replace(plan, **changes)
