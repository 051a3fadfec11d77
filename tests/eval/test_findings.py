from types import SimpleNamespace

import pytest

from protenix_eba.cli.demo_stages import Demo, copy_data
from protenix_eba.core.errors import UserError
from protenix_eba.eval.report.findings import findings, read_curve, training_settings
from protenix_eba.eval.report.training import training_figures
from protenix_eba.structures.trajectories import find_targets


def metrics(before, after):
    def model(w1):
        energies = {
            "energy_median_above_md_kj_mol": w1 + 1.0,
            "energy_w1_boltzmann_kj_mol": w1,
            "energy_target_above_md_kj_mol": -4.0,
        }
        return SimpleNamespace(values={**energies, "rmwd": 1.5}, floor={"rmwd": 0.5})

    return {"SFT": model(before), "EBA": model(after)}


def test_an_alignment_that_helped_is_said_to_be_nearer():
    text = " ".join(findings(metrics(9.0, 5.0), {}))
    assert "EBA are nearer to the Boltzmann-weighted ensemble than those of SFT (9.0 to 5.0" in text
    assert "RMWD in angstrom, lower is better: SFT 1.50 (MD against itself 0.50)" in text


def test_an_alignment_that_did_not_help_is_said_so():
    assert "EBA are no nearer to" in " ".join(findings(metrics(5.0, 9.0), {}))


def test_held_out_measures_are_read_from_the_run(tmp_path):
    (tmp_path / "config.yaml").write_text("eba: {objective: eba}")
    (tmp_path / "validation.csv").write_text(
        "step,mse,lddt,kl,effective_energy,effective_model\n"
        "0,1,0.5,2.0,2.5,1.1\n50,1.1,0.5,0.5,2.5,2.0\n"
    )
    sentence = findings(metrics(5.0, 4.0), {"EBA": tmp_path})[2]
    assert "went from 2.000 to 0.500 nats" in sentence
    assert "from 1.10 to 2.00 (energies: 2.50)" in sentence


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match="configuration of EBA"):
        training_settings({"EBA": tmp_path})
    (tmp_path / "log.csv").write_text("step,loss\n1,abc\n")
    with pytest.raises(UserError, match="expected numbers"):
        read_curve(tmp_path / "log.csv")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"step,loss\n1,2\n2", b"step\n\xff\n"])
def test_a_table_that_is_none_of_a_run_is_refused(tmp_path, content):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"log\.csv: expected numbers"):
        read_curve(tmp_path / "log.csv")


@pytest.mark.parametrize("name", ["log.csv", "replay.csv"])
def test_a_line_that_is_cut_is_named(tmp_path, name):
    (tmp_path / name).write_text("step,loss\n1,2.0\n2")
    with pytest.raises(UserError, match=rf"{name}: expected numbers: line 3 is cut, or has more"):
        read_curve(tmp_path / name)


@pytest.mark.parametrize("rows", ["", "0,nan,nan\n"])
def test_samples_of_which_nothing_is_known_yet_are_not_drawn(tmp_path, rows):
    (tmp_path / "log.csv").write_text("step,loss\n1,2.0\n")
    (tmp_path / "replay.csv").write_text(f"step,valid,coverage\n{rows}")
    assert [figure.name for figure in training_figures({"m": tmp_path})] == ["training"]


def test_the_demo_starts_with_the_shipped_md_and_the_sequences_it_samples(tmp_path):
    demo = Demo(tmp_path / "demo", jobs=1)
    copy_data(demo)
    fasta = (tmp_path / "demo/sequences.fasta").read_text().split()
    names = ["AAA", "FAS", "SAG", "SAL", "TAL"]
    assert fasta == [line for name in names for line in (f">{name}", name)]
    seen, truth = ([t.name for t in find_targets(f)] for f in (demo.data, demo.truth))
    assert seen == truth == names
    shipped = sum(f.stat().st_size for f in (tmp_path / "demo").rglob("*") if f.is_file())
    assert shipped < 10_000_000
    (demo.truth / "AAA").rename(demo.truth / "gly4")
    with pytest.raises(UserError, match="holds FAS, SAG, SAL, TAL, gly4; the demo's MD is of AAA"):
        copy_data(demo)
