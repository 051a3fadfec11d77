"""Several energies of the same frames: one table, its report, and what may be mixed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import rankdata

from protenix_eba.cli.main import run
from protenix_eba.core.errors import UserError
from protenix_eba.core.units import thermal_energy_kj_mol
from protenix_eba.energy.choices import MEANINGS
from protenix_eba.energy.committee import combine, energies_by_name, energy_of, parse_mixture
from protenix_eba.energy.committee_report import agreement
from protenix_eba.energy.resume import merged
from protenix_eba.energy.table import EnergyLabels, labels_from_rows, read_labels, write_labels
from protenix_eba.host.config import EBAConfig
from protenix_eba.training.data.labels import training_labels

ENERGIES = [3.0, -1.0, 0.5, 2.0]


def table(
    energies: list[float], *, kind: str = "", protocol: str = "p", **changes: Any
) -> EnergyLabels:
    """Labels of frames 0, 1, ... of one target; NaN makes a failed row."""
    rows = [
        {
            "target": "pep",
            "replica": 1,
            "frame": frame,
            "initial_energy_kj_mol": 2 * energy,
            "energy_kj_mol": energy,
            "rmsd_angstrom": 0.1,
            "n_residues": 4,
            "status": "ok" if math.isfinite(energy) else "failed",
            "reason": "" if math.isfinite(energy) else "no convergence",
            "topology_hash": "t",
            "protocol_hash": protocol,
            "frame_hash": f"f{frame}",
            **changes,
        }
        for frame, energy in enumerate(energies)
    ]
    return labels_from_rows(rows, {"energy": MEANINGS[kind]} if kind else {"imported": protocol})


def two(other: list[float] = ENERGIES[::-1]) -> EnergyLabels:
    return combine({"a": table(ENERGIES), "b": table(other, protocol="q")})


def test_a_table_of_several_energies_comes_back_from_disk_with_each_protocol(
    tmp_path: Path,
) -> None:
    write_labels(tmp_path / "l.parquet", two())
    found = energies_by_name(read_labels(tmp_path / "l.parquet"))
    assert list(found) == ["a", "b"]
    assert found["a"].energy_kj_mol.tolist() == ENERGIES
    assert found["b"].energy_kj_mol.tolist() == ENERGIES[::-1]
    assert [set(part.protocol_hash) for part in found.values()] == [{"p"}, {"q"}]
    assert [part.provenance for part in found.values()] == [{"imported": "p"}, {"imported": "q"}]
    # and by another program
    columns = pq.read_table(tmp_path / "l.parquet").to_pydict()
    assert columns["energy_kj_mol"] == ENERGIES
    assert columns["energy_kj_mol:b"] == ENERGIES[::-1]


def test_the_chosen_energy_is_what_a_reader_of_one_energy_finds() -> None:
    labels = combine({"a": table(ENERGIES), "b": table(ENERGIES[::-1])}, "b")
    assert labels.energy_kj_mol.tolist() == ENERGIES[::-1]
    assert labels.others["a"].energy_kj_mol.tolist() == ENERGIES


def test_frames_that_a_table_lacks_stay_with_the_reason() -> None:
    labels = two([1.0, math.nan])
    other = labels.others["b"]
    assert other.status.tolist() == ["ok", "failed", "skipped", "skipped"]
    assert other.reason.tolist()[1:3] == ["no convergence", "not in the table of b"]
    assert labels.ok.all()
    mixed = energy_of(labels, {"a": 0.5, "b": 0.5})
    assert mixed.status.tolist() == other.status.tolist()
    assert mixed.reason.tolist()[:3] == ["", "b: no convergence", "b: not in the table of b"]


@pytest.mark.parametrize(
    ("tables", "chosen", "message"),
    [
        ({"a": table(ENERGIES)}, None, "two tables"),
        ({}, None, "two tables"),
        ({"a": table(ENERGIES), "b": table(ENERGIES)}, "c", "chosen: c"),
        ({"a": table(ENERGIES), "b=2": table(ENERGIES)}, None, "name 'b=2'"),
        ({"a": table(ENERGIES), "b": table(ENERGIES, frame_hash="x")}, None, "frame_hash of pep"),
        ({"a": table(ENERGIES), "b": table(ENERGIES, n_residues=5)}, None, "n_residues of pep"),
        ({"a": table(ENERGIES), "b": table([math.nan])}, None, "no frame has an energy in all"),
        ({"a": table(ENERGIES), "b": two()}, None, "the table of b has several"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(tables, chosen, message) -> None:
    with pytest.raises(UserError) as found:
        combine(tables, chosen)
    assert message in str(found.value)


def test_no_rows_are_added_to_a_table_of_several_energies() -> None:
    with pytest.raises(UserError, match="takes no more rows"):
        merged([two()])


def test_rank_correlations_are_those_of_the_ranks_and_even_weights_count_all() -> None:
    other = [10.0, 0.0, 30.0, -5.0]
    first, second = agreement(two(other))
    by_hand = np.corrcoef(rankdata(ENERGIES), rankdata(other))[0, 1]
    assert first.ranks == pytest.approx((1.0, by_hand))
    assert second.ranks == pytest.approx((by_hand, 1.0))
    assert agreement(two([1.0] * 4))[1].effective_number == pytest.approx(4.0)
    assert math.isnan(agreement(two([1.0] * 4))[0].ranks[1])


def test_two_levels_have_the_effective_number_of_their_entropy() -> None:
    """Weights 1 and e**-x of two states: p = 1 / (1 + e**-x), exp(-p ln p - (1 - p) ln(1 - p))."""
    gap = 2 * 1.5 * thermal_energy_kj_mol(300.0)  # sqrt(N) = 2
    rows = agreement(combine({"a": table([0.0, gap]), "b": table([0.0, 0.0])}))
    p = 1 / (1 + math.exp(-1.5))
    expected = math.exp(-p * math.log(p) - (1 - p) * math.log(1 - p))
    assert rows[0].effective_number == pytest.approx(expected)


def test_a_sum_is_that_of_the_energies_with_a_hash_of_its_own() -> None:
    labels = two()
    mixed = energy_of(labels, {"a": 0.25, "b": 0.75})
    np.testing.assert_allclose(
        mixed.energy_kj_mol, 0.25 * np.array(ENERGIES) + 0.75 * np.array(ENERGIES[::-1])
    )
    np.testing.assert_allclose(mixed.initial_energy_kj_mol, 2 * mixed.energy_kj_mol)
    (hash_,) = set(mixed.protocol_hash)
    (swapped,) = set(energy_of(labels, {"a": 0.75, "b": 0.25}).protocol_hash)
    assert len({hash_, swapped, "p", "q"}) == 4
    assert "protocol" not in mixed.provenance


def test_noise_of_a_sum_adds_in_squares() -> None:
    a, b = table(ENERGIES, noise_kj_mol=3.0), table(ENERGIES, noise_kj_mol=8.0, repeats=4)
    mixed = energy_of(combine({"a": a, "b": b}), {"a": 0.5, "b": 0.5})
    np.testing.assert_allclose(mixed.noise_kj_mol, 2.5)  # sqrt((3 / 2)**2 + (8 / 2 / 2)**2)


@pytest.mark.parametrize(
    ("words", "expected"), [([], ENERGIES), (["a"], ENERGIES), (["b"], ENERGIES[::-1])]
)
def test_training_takes_the_energy_that_the_configuration_names(words, expected, tmp_path) -> None:
    path = tmp_path / "l.parquet"
    write_labels(path, two())
    labels = training_labels(EBAConfig(labels=str(path), energy_column=tuple(words)))
    assert labels.energy_kj_mol.tolist() == expected
    assert not labels.others


@pytest.mark.parametrize("word", ["a=", "a=x", "a=nan", "a=0", "a=inf"])
def test_a_weight_is_a_number(word: str) -> None:
    with pytest.raises(UserError, match=r"NAME or NAME=WEIGHT"):
        parse_mixture([word])


def test_an_energy_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UserError, match="no energy c: they have a, b"):
        energy_of(two(), {"c": 1.0})
    with pytest.raises(UserError, match="a single energy without a name"):
        energy_of(table(ENERGIES), {"a": 1.0})


def several() -> EnergyLabels:
    kinds = {"u": "energy", "w": "energy", "bias": "bias", "wall": "bias", "mbar": "weights"}
    return combine({name: table(ENERGIES, kind=kind) for name, kind in kinds.items()})


@pytest.mark.parametrize(
    "words",
    [
        ["u=0.5"],
        ["u", "w"],
        ["u", "bias"],
        ["u=0.5", "w=0.5", "mbar"],
        ["bias", "mbar"],
        ["bias=2"],
        ["mbar=-1"],
    ],
)
def test_a_boltzmann_factor_that_counts_twice_is_refused_unless_it_is_meant(words) -> None:
    weights = parse_mixture(words)
    with pytest.raises(UserError, match=r"eba\.double_counting"):
        energy_of(several(), weights)
    meant = energy_of(several(), weights, double_counting=True)
    np.testing.assert_allclose(meant.energy_kj_mol, sum(weights.values()) * np.array(ENERGIES))


@pytest.mark.parametrize(
    "words",
    [
        ["u"],
        ["u=0.3", "w=0.7"],
        ["mbar"],
        ["bias"],
        ["bias", "wall"],
        ["u=-1", "w=1"],  # from the MD's energy to another
        ["u=-1", "w=1", "bias"],
    ],
)
def test_sums_that_are_one_ensembles_energy_are_taken(words) -> None:
    weights = parse_mixture(words)
    found = energy_of(several(), weights).energy_kj_mol
    np.testing.assert_allclose(found, sum(weights.values()) * np.array(ENERGIES), atol=1e-12)


def test_the_commands_combine_and_report(tmp_path: Path, capsys) -> None:
    for name, energies in (("a", ENERGIES), ("b", ENERGIES[::-1])):
        write_labels(tmp_path / f"{name}.parquet", table(energies))
    out, words = tmp_path / "both.parquet", [f"{n}={tmp_path / n}.parquet" for n in "ab"]
    assert run(["label", "combine", *words, "--energy-column", "b", "--out", str(out)]) == 0
    assert run(["label", "report", str(out), "--out", str(tmp_path / "report.md")]) == 0
    assert "Rank correlations" in capsys.readouterr().out
    assert "| pep | 2 a | 4 |" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "report_energies.png").stat().st_size > 1000
    before = out.read_bytes()
    assert run(["label", "combine", *words[:1], words[0], "--out", str(out)]) == 2
    assert run(["label", "combine", str(tmp_path / "a.parquet"), "--out", str(out)]) == 2
    assert run(["label", "combine", "a=nowhere", words[1], "--out", str(out)]) == 2
    assert out.read_bytes() == before


def test_a_table_whose_further_columns_are_cut_off_is_refused(tmp_path: Path) -> None:
    write_labels(tmp_path / "l.parquet", two())
    whole = pq.read_table(tmp_path / "l.parquet")
    assert "others" in json.loads(whole.schema.metadata[b"protenix_eba"])
    pq.write_table(whole.drop_columns(["status:b"]), tmp_path / "l.parquet")
    with pytest.raises(UserError, match="lacks status:b"):
        read_labels(tmp_path / "l.parquet")
