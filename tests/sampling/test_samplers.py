import json
import math

import mdtraj
import numpy as np
import pytest
import torch

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.host.denoiser import ConformerDenoiser
from protenix_eba.host.trunk import Trunk
from protenix_eba.host.weights import build_diffusion_module
from protenix_eba.sampling.samplers import (
    TargetSampler,
    in_chunks,
    noise_levels,
    sample_coordinates,
)
from protenix_eba.sampling.settings import PRESETS, SamplerSettings
from protenix_eba.structures.sequences import Protein

CPU = torch.device("cpu")


def generators(numbers):
    return [torch.Generator().manual_seed(n) for n in numbers]


def spread_of_gaussian_samples(spread, **settings):
    """Standard deviation of samples of the exact denoiser of N(0, s^2): s^2/(s^2 + sigma^2) x."""

    def denoise(x, sigma):
        return spread**2 / (spread**2 + sigma[:, None, None] ** 2) * x

    made = SamplerSettings(**{"n_steps": 1000} | settings)
    x = sample_coordinates(denoise, 400, generators(range(20)), made, CPU)
    return (x - x.mean(dim=1, keepdim=True)).std().item()


def test_samples_of_an_exact_gaussian_denoiser_have_its_spread():
    """Without churn the sampler solves the probability-flow equation: exact as steps grow."""
    assert spread_of_gaussian_samples(4.0, gamma0=0.0) == pytest.approx(4.0, rel=0.015)


def test_heuns_steps_have_a_tenth_of_eulers_error_at_equal_cost():
    schedule = {"gamma0": 0.0, "s_max": 4.0, "s_min": 0.001}
    euler, heun = (
        abs(spread_of_gaussian_samples(4.0, n_steps=n, order=order, **schedule) / 4.0 - 1)
        for n, order in ((60, 1), (30, 2))
    )
    assert heun < 0.1 * euler
    assert euler > 0.02


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


@pytest.fixture(scope="module")
def inputs(awake):
    """A model that gives no zeros, with a protein's features and embeddings."""
    configs, state, _ = awake()
    denoiser = ConformerDenoiser(build_diffusion_module(configs, state)).eval()
    return denoiser, *Trunk(configs, state, None).inputs(Protein("x", ("MKTAY",)))


def test_chunks_of_1_and_7_and_all_samples_are_the_same_to_a_ten_thousandth(inputs):
    """Not to the bit: matrix products round differently for other numbers of rows."""
    sampler = TargetSampler(*inputs, SamplerSettings(), seed=5)
    made = [
        np.concatenate([xyz for _, xyz in in_chunks(sampler, range(10), size)])
        for size in (1, 7, 10)
    ]
    assert made[0].std(axis=0).min() > 0.01
    np.testing.assert_allclose(made[1], made[0], atol=1e-4, rtol=0)
    np.testing.assert_allclose(made[2], made[0], atol=1e-4, rtol=0)
    again = np.concatenate([xyz for _, xyz in in_chunks(sampler, range(10), 7)])
    np.testing.assert_array_equal(again, made[1])


def test_other_seeds_give_other_samples(inputs):
    first, second = (TargetSampler(*inputs, SamplerSettings(), seed=s)([0]) for s in (5, 6))
    assert abs(first - second).max() > 1.0


@torch.no_grad()
def test_the_sampler_denoises_as_upstreams_plain_forward(inputs):
    """Though it shares the conditioning between steps and between samples."""
    denoiser, protein, embeddings = inputs
    settings = SamplerSettings(n_steps=2, noise_scale=1.75, step_scale=1.25)
    x = TargetSampler(denoiser, protein, embeddings, settings, seed=0)
    sigma = torch.full((3,), 7.0)
    noisy = 8.0 * torch.randn(3, len(protein.atoms), 3, generator=generators([0])[0])
    theirs = denoiser.diffusion_module(
        x_noisy=noisy,
        t_hat_noise_level=sigma,
        input_feature_dict=protein.features,
        s_inputs=embeddings.s_inputs,
        s_trunk=embeddings.s_trunk,
        z_trunk=embeddings.z_trunk,
        pair_z=None,
        p_lm=None,
        c_l=None,
    )
    torch.testing.assert_close(x._denoise(noisy, sigma), theirs, rtol=1e-4, atol=1e-4)


def test_bfloat16_stays_near_float32(inputs):
    denoiser, protein, embeddings = inputs
    rough = ConformerDenoiser(denoiser.diffusion_module, torch.bfloat16).eval()
    x = [
        TargetSampler(d, protein, embeddings, SamplerSettings(), seed=0)([0, 1])
        for d in (denoiser, rough)
    ]
    assert 0 < np.sqrt(np.mean((x[0] - x[1]) ** 2)) < 0.3


def test_presets_are_settings_and_alphafolds_are_upstreams_defaults():
    import inspect

    from protenix.model.generator import sample_diffusion

    for values in PRESETS.values():
        SamplerSettings(**values)
    theirs = inspect.signature(sample_diffusion).parameters
    assert PRESETS["alphafold3"] == {
        "gamma0": theirs["gamma0"].default,
        "noise_scale": theirs["noise_scale_lambda"].default,
        "step_scale": theirs["step_scale_eta"].default,
    }
    assert SamplerSettings().gamma_min == theirs["gamma_min"].default
    assert len({tuple(values.items()) for values in PRESETS.values()}) == len(PRESETS)


def test_the_exact_preset_alone_leaves_a_gaussians_spread():
    spread = {name: spread_of_gaussian_samples(4.0, **PRESETS[name]) for name in PRESETS}
    wrong = {name: abs(value / 4.0 - 1) for name, value in spread.items()}
    assert wrong.pop("exact") < 0.015
    assert min(wrong.values()) > 0.05


def test_noise_levels_are_upstreams():
    from protenix.model.generator import InferenceNoiseScheduler

    torch.testing.assert_close(
        noise_levels(SamplerSettings(n_steps=20)), InferenceNoiseScheduler()(N_step=20)
    )


def test_no_step_is_refused():
    with pytest.raises(UserError, match="at least 1 denoising step"):
        SamplerSettings(n_steps=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"s_max": 4e-4}, "s_max: expected a number above s_min"),
        ({"s_max": math.inf}, "s_max: expected a number above s_min"),
        ({"s_max": math.nan}, "s_max: expected a number above s_min"),
        ({"s_min": 0.0}, "s_min: expected a number above 0"),
        ({"order": 3}, "order: expected 1 or 2, found 3"),
        ({"rho": 0.0}, "rho: expected a number above 0"),
        ({"gamma_min": -1.0}, "gamma_min: expected 0 or above"),
    ],
)
def test_a_schedule_that_cannot_be_sampled_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        SamplerSettings(**values)


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
    record = json.loads((out / "other/other.json").read_text())
    assert record["n_samples"] == 5
    assert record["numbers"] == [0, 1, 2, 3, 4]


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


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def test_shards_together_are_the_whole_byte_for_byte(command, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = [*command, "-n", "3", "--batch", "2", "--out"]
    assert run([*words, str(whole)]) == 0
    for number, names in ((3, set()), (2, {"other"}), (1, {"other", "short"})):
        assert run([*words, str(parts), "--shard", f"{number}/3"]) == 0  # of three, one is empty
        assert {path.name for path in parts.iterdir()} == names
    assert contents(parts) == contents(whole)


@pytest.mark.slow
def test_two_processes_make_what_one_makes_byte_for_byte(command, tmp_path, capfd):
    """And within a share of an array of jobs."""
    words = [*command, "-n", "3", "--batch", "2", "--out"]
    assert run([*words, str(tmp_path / "one")]) == 0
    capfd.readouterr()
    assert run([*words, str(tmp_path / "two"), "--processes", "2"]) == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    lines = capfd.readouterr().err.splitlines()
    assert {line[:3] for line in lines} == {"1: ", "2: "}
    assert run([*words, str(tmp_path / "part"), "--processes", "2", "--shard", "2/2"]) == 0
    assert [path.name for path in (tmp_path / "part").iterdir()] == ["other"]


@pytest.mark.slow
def test_what_ends_all_processes_has_the_exit_status_of_one(command, tmp_path, capfd):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"nothing")
    words = ["--checkpoint", str(broken), "--out", str(tmp_path / "out"), "--processes", "2"]
    assert run([*command[:5], *command[7:], *words]) == 2
    assert capfd.readouterr().err.count(f"error: {broken}") == 2


def test_options_win_over_a_preset_and_the_json_gives_seed_and_copies(command, tmp_path):
    chains = [{"proteinChain": {"sequence": "GAG", "count": 2}}]
    query = tmp_path / "dimer.json"
    query.write_text(json.dumps([{"name": "dimer", "sequences": chains, "modelSeeds": [101]}]))
    words = ["--preset", "tuned", "--step-scale", "1.1", "--input", str(query), "-n", "2"]
    out = tmp_path / "größer"  # mdtraj's C code takes ASCII alone
    assert run([*command, *words, "--out", str(out)]) == 0
    assert run([*command, *words, "--out", str(out), "-n", "3"]) == 0
    assert mdtraj.load(str(out / "dimer/dimer.pdb")).n_frames == 1
    record = json.loads((out / "dimer/dimer.json").read_text())
    assert record["n_samples"] == 3
    assert record["seed"] == 101
    assert record["sampler"]["noise_scale"] == PRESETS["tuned"]["noise_scale"]
    assert record["sampler"]["step_scale"] == 1.1
    topology = mdtraj.load(str(out / "dimer/dimer.pdb")).topology
    assert ["".join(r.code for r in c.residues) for c in topology.chains] == ["GAG", "GAG"]


def test_each_of_several_checkpoints_has_a_folder(command, small_run, tmp_path, capsys):
    start = small_run / "start.pt"
    out = tmp_path / "out"
    words = [*command, "--out", str(out), "-n", "1", "--checkpoint", f"again={start}"]
    assert run(words) == 0
    first, second = (out / name / "short/short.xtc" for name in ("start", "again"))
    assert first.read_bytes() == second.read_bytes()
    assert run([*words, "--checkpoint", str(start)]) == 2
    assert "two checkpoints are called start" in capsys.readouterr().err


def test_stored_and_new_embeddings_give_the_same_samples(command, tmp_path):
    made = []
    for name, words in (
        ("alone", []),
        ("stores", ["--embeddings", str(tmp_path / "stored")]),
        ("reads", ["--embeddings", str(tmp_path / "stored")]),
    ):
        assert run([*command, "--out", str(tmp_path / name), "-n", "2", *words]) == 0
        made.append((tmp_path / name / "other/other.xtc").read_bytes())
    assert made[0] == made[1] == made[2]


def test_too_few_valid_samples_are_exit_status_3(command, tmp_path, capsys):
    """A lone glycine is always valid, what an untrained model makes of longer chains is not."""
    (tmp_path / "two.fasta").write_text(">lone\nG\n>other\nYGGFM\n", encoding="utf-8")
    words = ["--out", str(tmp_path / "out"), "-n", "2", "--valid-only", "--batch", "4"]
    assert run([*command, *words]) == 3
    assert (tmp_path / "out/lone/lone.xtc").is_file()
    assert not (tmp_path / "out/other").exists()
    assert "only 0 of 2 samples can be used; 8 of 8 samples invalid" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "0"], "--samples: expected at least 1"),
        (["--input", "absent.fasta"], "expected a file at absent.fasta"),
        (["--checkpoint", "absent.pt"], "expected a file at absent.pt"),
        (["--batch", "many"], "expected 'auto' or a number"),
        (["--seed", "-1"], "--seed: expected 0 or above"),
        (["--noise-scale", "nan"], "nan is not a finite number"),
        (["--s-max", "1e-5"], "s_max: expected a number above s_min, which is 0.0004"),
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
    assert run([*command, *out, "-n", "2", "--preset", "tuned"]) == 2
    assert "samples made with other sampler" in capsys.readouterr().err


def test_the_schedule_is_recorded_and_another_one_is_refused(command, tmp_path, capsys):
    words = [*command, "--out", str(tmp_path / "out"), "-n", "1", "--preset", "exact"]
    schedule = {"s_max": 40.0, "s_min": 0.001, "gamma_min": 0.5, "rho": 5.0}
    for name, value in schedule.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    assert run(words) == 0
    recorded = json.loads((tmp_path / "out/other/other.json").read_text())["sampler"]
    assert {name: recorded[name] for name in schedule} == schedule
    assert recorded["gamma0"] == 0.0
    assert run([*words, "--rho", "7"]) == 2
    assert "samples made with other sampler" in capsys.readouterr().err


def test_samples_from_before_there_was_an_order_are_continued(command, tmp_path):
    words = [*command, "--out", str(tmp_path / "out")]
    assert run([*words, "-n", "1"]) == 0
    recorded = json.loads((tmp_path / "out/other/other.json").read_text())["sampler"]
    assert "order" not in recorded and recorded["gamma0"] == 0.8


def test_a_cut_checkpoint_is_refused(command, small_run, tmp_path, capsys):
    cut = tmp_path / "cut.pt"
    cut.write_bytes((small_run / "start.pt").read_bytes()[:100000])
    assert run([*command, "--out", str(tmp_path / "out"), "--checkpoint", str(cut)]) == 2
    assert "not a whole checkpoint" in capsys.readouterr().err
