import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from protenix_eba.core.errors import UserError
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.embeddings import (
    EmbeddingFolder,
    TrunkEmbeddings,
    as_stored,
    compute_embeddings,
    save_embeddings,
)
from protenix_eba.host.features import compact, protein_features
from protenix_eba.host.packing import pack, unpack
from protenix_eba.host.weights import build_diffusion_module, build_model
from protenix_eba.structures.sequences import Protein


def spread(kind, *shape):
    """Numbers with heavy tails, or rows of very different size, in channels of different size."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(shape, generator=generator)
    channels = torch.exp(torch.randn(shape[-1], generator=generator))
    rows = torch.exp(torch.randn((*shape[:-1], 1), generator=generator))
    # Student's t with 3 degrees of freedom
    tails = torch.randn((3, *shape), generator=generator).square().mean(dim=0).rsqrt()
    return normal * channels * {"normal": 1.0, "tails": tails, "rows": rows}[kind]


@pytest.mark.parametrize("kind", ["normal", "tails", "rows"])
def test_rounding_has_the_same_relative_error_whatever_the_tails(kind):
    """Of an even rounding: 1 / (sqrt(12) x 48) = 0.0060 of the root mean square."""
    values = spread(kind, 60, 60, 128)
    read = unpack(pack(values, 48))
    error, size = (read - values).square(), values.square()
    assert (error.sum() / size.sum()).sqrt().item() == pytest.approx(0.0060, rel=0.05)
    for dim in ((0, 1), 2):  # of each channel, of each row
        relative = (error.mean(dim) / size.mean(dim)).sqrt()
        assert relative.median().item() == pytest.approx(0.0060, rel=0.15)
    bfloat16 = (values.bfloat16().float() - values).square()
    assert (error.sum() / bfloat16.sum()).sqrt() < 4


@pytest.mark.parametrize(("kind", "n"), [("normal", 80), ("tails", 80), ("rows", 100)])
def test_files_are_at_most_a_quarter_of_float32_features_included(kind, n, tmp_path):
    protein = protein_features(Protein("x", ("ACDEFGHIKLMNPQRSTVWY" * (n // 20),)))
    made = TrunkEmbeddings(spread(kind, n, 449), spread(kind, n, 384), spread(kind, n, n, 128))
    save_embeddings(tmp_path / "x.safetensors", made, protein, "trunk", 1)
    float32 = sum(4 * tensor.numel() for tensor in made.tensors())
    assert (tmp_path / "x.safetensors").stat().st_size < float32 / 4


def test_zeros_and_extremes_survive():
    values = torch.zeros(4, 3, 5)
    values[1, 2] = torch.tensor([1e-20, 0.0, 1e15, -3.0, 2.0])
    values[2, 0, 4] = 2.0
    read = unpack(pack(values, 48))
    torch.testing.assert_close(read[2], values[2], rtol=0.02, atol=0)
    assert read[1, 2, 2].item() == pytest.approx(1e15, rel=0.02)
    assert torch.equal(unpack(pack(torch.zeros(3, 2), 48)), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="finite"):
        pack(torch.tensor([[1.0, torch.nan]]), 48)
    with pytest.raises(ValueError, match="finite"):
        pack(torch.tensor([[1.0, 1e30]]), 48)


@pytest.fixture(scope="module")
def protein():
    return protein_features(Protein("x", ("GAGWC",)))


@pytest.fixture(scope="module")
def made():
    return TrunkEmbeddings(torch.rand(5, 4), torch.rand(5, 3), torch.rand(5, 5, 2))


def test_a_reader_gets_the_arrays_that_the_writer_goes_on_with(made, protein, tmp_path):
    folder = EmbeddingFolder(tmp_path, "trunk1", 4)
    save_embeddings(folder.path(protein.protein), made, protein, "trunk1", 4)
    read = folder(protein.protein)
    for mine, other in zip(read.tensors(), as_stored(made).tensors(), strict=True):
        assert torch.equal(mine, other)
        assert mine.dtype == torch.float32
    torch.testing.assert_close(read.z_trunk, made.z_trunk, atol=0.02, rtol=0)


def test_files_are_as_open_to_others_as_any(made, protein, tmp_path):
    """A group's embeddings are made once."""
    save_embeddings(tmp_path / "x.safetensors", made, protein, "t", 1)
    (tmp_path / "any").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("x.safetensors", "any")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize(
    "chains", [("ACDEFGHIKLMNPQRSTVWY",), ("YGGFM", "G", "YGGFM", "WKV"), ("HE" * 130,)]
)
def test_stored_features_are_the_compact_ones_bit_for_bit(chains, tmp_path):
    protein = Protein("x", chains)
    expected = compact(protein_features(protein))
    n = protein.n_residues
    made = TrunkEmbeddings(torch.rand(n, 4), torch.rand(n, 3), torch.rand(n, n, 2))
    folder = EmbeddingFolder(tmp_path, "t", 1)
    save_embeddings(folder.path(protein), made, protein_features(protein), "t", 1)
    read = folder.features(protein)
    assert replace(read, features={}) == replace(expected, features={})
    assert read.features.keys() == expected.features.keys()
    for key, value in expected.features.items():
        assert read.features[key].dtype == value.dtype
        assert torch.equal(read.features[key], value), key


def test_features_are_read_without_protenix(made, protein, tmp_path):
    """Its featuriser takes seconds to import, on each rank."""
    save_embeddings(tmp_path / "x.safetensors", made, protein, "t", 4)
    program = (
        "import sys; from pathlib import Path\n"
        "from protenix_eba.structures.sequences import Protein\n"
        "from protenix_eba.host.embeddings import EmbeddingFolder\n"
        "folder, protein = EmbeddingFolder(Path(sys.argv[1]), 't', 4), Protein('x', ('GAGWC',))\n"
        "folder.check(protein); folder(protein); print(len(folder.features(protein).atoms))\n"
        "assert 'protenix' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == len(protein.atoms)


def test_stale_files_are_refused_and_say_why(made, protein, tmp_path):
    save_embeddings(tmp_path / "x.safetensors", made, protein, "trunk1", 4)
    known = protein.protein
    other = Protein("x", ("GAG",))
    for trunk, n_cycles, asked, msa, what in (
        ("trunk2", 4, known, None, "trunk: expected trunk2, found trunk1"),
        ("trunk1", 9, known, None, "n_cycles: expected 9, found 4"),
        ("trunk1", 4, other, None, "sequence: expected GAG, found GAGWC"),
        ("trunk1", 4, known, "abc", "msa: expected abc, found none"),
    ):
        with pytest.raises(UserError, match=f"another {what}\n.*delete it and run"):
            EmbeddingFolder(tmp_path, trunk, n_cycles).check(asked, msa)
    assert EmbeddingFolder(tmp_path, "trunk1", 4).check(known, "none") == "none"


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
def test_cut_files_are_refused(made, protein, tmp_path, share):
    path = tmp_path / "x.safetensors"
    save_embeddings(path, made, protein, "t", 4)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="not a whole embedding file"):
        EmbeddingFolder(tmp_path, "t", 4).check(protein.protein)


def test_files_of_earlier_versions_are_refused(made, protein, tmp_path):
    """They held float32, or no features; their provenance did not say so."""
    path = tmp_path / "x.safetensors"
    provenance = {"sequence": "GAGWC", "trunk": "t", "n_cycles": "4", "msa": "none"}
    save_file({"z_trunk": made.z_trunk}, path, metadata=provenance)
    with pytest.raises(UserError, match=r"another storage: expected features; .* found None"):
        EmbeddingFolder(tmp_path, "t", 4).check(protein.protein)


def test_targets_with_and_without_an_msa_in_one_folder_are_told(made, protein, tmp_path, caplog):
    """Said once, at the start: a training run may mean it so."""
    folder = EmbeddingFolder(tmp_path, "t", 4)
    for name, msa in (("a", "none"), ("b", "none"), ("c", "abc"), ("d", "none"), ("e", "xyz")):
        named = replace(protein, protein=replace(protein.protein, name=name), msa=msa)
        save_embeddings(folder.path(named.protein), made, named, "t", 4)
        assert folder.check(named.protein) == msa
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: the embeddings of c were made with an MSA, those of a without"
    ]


def test_a_folder_checks_headers_only_and_reads_what_is_asked(made, protein, tmp_path):
    path = tmp_path / "x.safetensors"
    save_embeddings(path, made, protein, "t", 4)
    whole = path.read_bytes()
    packed = load_file(path)["z_trunk.low"].numpy().tobytes()
    path.write_bytes(whole.replace(packed, bytes(len(packed))))
    folder = EmbeddingFolder(tmp_path, "t", 4)
    folder.check(protein.protein)
    assert folder.features(protein.protein).atoms == protein.atoms
    with pytest.raises(UserError, match="not a whole embedding file"):
        folder(protein.protein)
    path.write_bytes(whole)
    first = folder(protein.protein)
    assert folder(protein.protein) is first
    path.unlink()
    assert folder(protein.protein) is first
    with pytest.raises(UserError, match="embeddings of x: expected a file"):
        folder.check(protein.protein)


def test_embeddings_that_are_not_finite_are_not_written(made, protein, tmp_path):
    bad = replace(made, z_trunk=made.z_trunk / 0)
    with pytest.raises(UserError, match="embeddings of x: z_trunk: expected finite"):
        save_embeddings(tmp_path / "x.safetensors", bad, protein, "t", 4)
    assert not list(tmp_path.iterdir())


def test_they_are_float32_unless_told_otherwise(made):
    half = made.to(torch.device("cpu"), torch.bfloat16)
    assert {t.dtype for t in half.tensors()} == {torch.bfloat16}
    assert {t.dtype for t in half.to(torch.device("cpu")).tensors()} == {torch.float32}


@torch.no_grad()
def test_what_storage_changes_of_denoised_coordinates_is_bfloat16s_size(awake):
    """On weights whose outputs are not the zeros of a fresh diffusion module."""
    configs, state, generator = awake()
    protein = protein_features(Protein("x", ("MKTAYIAKQRQISFVKSHFSRQ",)))
    exact = compute_embeddings(build_model(configs, state), protein, 1)
    denoiser = ConformerDenoiser(build_diffusion_module(configs, state)).eval()
    sigma = torch.tensor([0.5, 2.0, 8.0, 32.0])
    noise = torch.randn(4, len(protein.atoms), 3, generator=generator)
    noisy = (100 + sigma[:, None, None] ** 2).sqrt() * noise

    def change(embeddings):
        moved = denoiser(protein.features, embeddings, noisy, sigma)
        return (moved - denoiser(protein.features, exact, noisy, sigma)).square().mean().sqrt()

    bfloat16 = exact.to(torch.device("cpu"), torch.bfloat16).to(torch.device("cpu"))
    assert change(as_stored(exact)) < 2 * change(bfloat16)
    pairs = [replace(exact, z_trunk=made.z_trunk) for made in (as_stored(exact), bfloat16)]
    assert change(pairs[0]) < 5 * change(pairs[1])
    nothing = replace(exact, z_trunk=torch.zeros_like(exact.z_trunk))
    assert change(pairs[0]) < 0.02 * change(nothing)
