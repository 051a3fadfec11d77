import json

import mdtraj
import numpy as np
import pytest
import torch

from protenix_eba.cli.main import run
from protenix_eba.errors import UserError
from protenix_eba.sample import SamplerSettings, noise_levels, sample_coordinates

CPU = torch.device("cpu")


def generators(numbers):
    return [torch.Generator().manual_seed(n) for n in numbers]


def spread_of_gaussian_samples(spread, **settings):
    """Standard deviation of samples of the exact denoiser of N(0, s^2): s^2/(s^2 + sigma^2) x."""

    def denoise(x, sigma):
        return spread**2 / (spread**2 + sigma[:, None, None] ** 2) * x

    made = SamplerSettings(n_steps=1000, **settings)
    x = sample_coordinates(denoise, 400, generators(range(20)), made, CPU)
    return (x - x.mean(dim=1, keepdim=True)).std().item()


def test_samples_of_an_exact_gaussian_denoiser_have_its_spread():
    """Without churn the sampler solves the probability-flow equation: exact as steps grow."""
    assert spread_of_gaussian_samples(4.0, gamma0=0.0) == pytest.approx(4.0, rel=0.015)


def test_churn_narrows_the_samples_however_many_steps():
    """Each churned Euler step spans a factor 1.8 in noise, so its error stays with more steps."""
    assert spread_of_gaussian_samples(4.0, gamma0=0.8) == pytest.approx(3.5, rel=0.02)


def test_a_step_scale_above_1_narrows_the_samples():
    def denoise(x, sigma):
        return 16.0 / (16.0 + sigma[:, None, None] ** 2) * x

    spread = [
        sample_coordinates(
            denoise, 100, generators(range(10)), SamplerSettings(step_scale=eta), CPU
        )
        .std(dim=1)
        .mean()
        for eta in (1.0, 1.5)
    ]
    assert spread[1] < spread[0]


def test_a_sample_is_the_same_in_any_batch():
    def denoise(x, sigma):
        return 0.5 * x

    together = sample_coordinates(denoise, 9, generators([0, 1, 2]), SamplerSettings(), CPU)
    alone = sample_coordinates(denoise, 9, generators([1]), SamplerSettings(), CPU)
    torch.testing.assert_close(together[1], alone[0])


def test_noise_levels_are_upstreams():
    from protenix.model.generator import InferenceNoiseScheduler

    torch.testing.assert_close(
        noise_levels(SamplerSettings(n_steps=20)), InferenceNoiseScheduler()(N_step=20)
    )


def test_no_step_is_refused():
    with pytest.raises(UserError, match="at least 1 denoising step"):
        SamplerSettings(n_steps=0)


@pytest.fixture
def command(small_run, tmp_path):
    fasta = tmp_path / "two.fasta"
    fasta.write_text(">short\nGAG\n>other\nYGGFM\n", encoding="utf-8")
    return [
        "sample", "--config", str(small_run / "small.yaml"), "--steps", "3",
        "--checkpoint", str(small_run / "start.pt"), "--input", str(fasta),
    ]  # fmt: skip


def test_sampling_from_sequences_writes_topology_and_trajectory(command, tmp_path):
    out = tmp_path / "out"
    assert run([*command, "--out", str(out), "-n", "5"]) == 0
    ensemble = mdtraj.load_xtc(str(out / "other/other.xtc"), top=str(out / "other/other.pdb"))
    assert ensemble.n_frames == 5
    assert [r.name for r in ensemble.topology.residues] == ["TYR", "GLY", "GLY", "PHE", "MET"]
    assert json.loads((out / "other/other.json").read_text())["n_samples"] == 5


def test_batch_size_does_not_change_samples_and_a_second_run_keeps_them(command, tmp_path):
    ensembles = []
    for batch in ("1", "2", "5"):
        out = tmp_path / batch
        assert run([*command, "--out", str(out), "-n", "5", "--batch", batch]) == 0
        ensembles.append(
            mdtraj.load_xtc(str(out / "short/short.xtc"), top=str(out / "short/short.pdb")).xyz
        )
    # XTC keeps 0.001 nm; matrix products round differently for other batch sizes.
    np.testing.assert_allclose(ensembles[0], ensembles[1], atol=0.003)
    np.testing.assert_allclose(ensembles[0], ensembles[2], atol=0.003)
    before = (tmp_path / "5/short/short.xtc").stat().st_mtime_ns
    assert run([*command, "--out", str(tmp_path / "5"), "-n", "5"]) == 0
    assert (tmp_path / "5/short/short.xtc").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "0"], "--samples: expected at least 1"),
        (["--input", "absent.fasta"], "expected a file at absent.fasta"),
        (["--checkpoint", "absent.pt"], "expected a file at absent.pt"),
        (["--config", "absent.yaml"], "expected a file at absent.yaml"),
    ],
)
def test_unusable_input_is_named(command, words, message, tmp_path, capsys):
    assert run([*command, "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_residue_is_named(command, tmp_path, capsys):
    (tmp_path / "two.fasta").write_text(">odd\nGAXG\n", encoding="utf-8")
    assert run([*command, "--out", str(tmp_path / "out")]) == 2
    assert "unknown residues X" in capsys.readouterr().err


def test_other_settings_do_not_overwrite_samples(command, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert run([*command, *out, "-n", "2"]) == 0
    assert run([*command, *out, "-n", "3"]) == 2
    assert "samples made with other n_samples" in capsys.readouterr().err


def test_a_cut_checkpoint_is_refused(command, small_run, tmp_path, capsys):
    cut = tmp_path / "cut.pt"
    cut.write_bytes((small_run / "start.pt").read_bytes()[:100000])
    assert run([*command, "--out", str(tmp_path / "out"), "--checkpoint", str(cut)]) == 2
    assert "not a whole checkpoint" in capsys.readouterr().err
