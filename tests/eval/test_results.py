"""From targets to aggregates, intervals, files and comparisons."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from protenix_eba.core.errors import UserError
from protenix_eba.eval.aggregate import (
    RESAMPLES,
    TargetTable,
    aggregate,
    differences,
    floor_aggregate,
    intervals,
    resamples,
    sample_table,
)
from protenix_eba.eval.models import compare_evaluations
from protenix_eba.eval.published import published_rows
from protenix_eba.eval.results import Evaluation, load_evaluation
from protenix_eba.eval.store import read_target, target_path, write_target
from protenix_eba.eval.target_result import TargetResult

NAN = float("nan")


def target(name: str, seed: int = 0, **values: float) -> TargetResult:
    random = np.random.default_rng(seed)
    md = random.random(6)
    defaults = {"rmwd": 1.0, "pc1_cosine": 0.9, "pairwise_rmsd": 1.0, "md_pairwise_rmsd": 1.0}
    return TargetResult(
        name=name,
        values=defaults | values,
        compat={},
        floor=[{"rmwd": 0.5}, {"rmwd": 0.7}],
        counts={"n_samples": 250, "coverage": 1.0},
        arrays={"md_rmsf": md, "sample_rmsf": md + 0.1 * random.random(6),
                "floor_rmsf": np.stack([[md, 2.0 * md]] * 2)},
        notes=["a note"],
    )  # fmt: skip


def evaluation(label: str, *targets: TargetResult, **settings: object) -> Evaluation:
    by_name = {t.name: t for t in targets}
    return Evaluation(label, by_name, {}, [], [], {"seed": 1, **settings}, {})


def table(**values: list[float]) -> TargetTable:
    columns = {key: np.array(column) for key, column in values.items()}
    n = len(next(iter(columns.values())))
    return TargetTable(columns, np.full((n, 6), NAN))


def test_aggregates_are_medians_of_what_is_defined_and_say_of_how_many() -> None:
    found = aggregate(table(rmwd=[1.0, 2.0, NAN, 9.0], pc1_cosine=[0.6, 0.4, 0.7, NAN]))
    assert found["n_targets"] == 4
    assert found["rmwd"] == 2.0 and found["n_rmwd"] == 3
    assert found["pc_sim_percent"] == pytest.approx(200.0 / 3.0)
    assert aggregate(table(rmwd=[NAN, NAN])) == {"n_targets": 2}


def test_correlations_over_targets_equal_those_of_all_atoms_and_targets_at_once() -> None:
    targets = [target(f"t{i}", i, pairwise_rmsd=i**1.5, md_pairwise_rmsd=i) for i in range(5)]
    found = aggregate(sample_table(targets))
    md, own = (np.concatenate([t.arrays[k] for t in targets]) for k in ("md_rmsf", "sample_rmsf"))
    assert found["global_rmsf_pearson"] == pytest.approx(np.corrcoef(md, own)[0, 1], abs=1e-12)
    expected = np.corrcoef(np.arange(5.0), np.arange(5.0) ** 1.5)[0, 1]
    assert found["pairwise_rmsd_pearson"] == pytest.approx(expected, abs=1e-12)
    assert "pairwise_rmsd_pearson" not in aggregate(sample_table(targets[:2]))


def test_equal_fluctuations_have_no_correlation() -> None:
    flat = target("t")
    flat.arrays["sample_rmsf"] = np.full(6, 0.3)
    assert "global_rmsf_pearson" not in aggregate(sample_table([flat]))


def test_intervals_are_those_of_scipy() -> None:
    values = np.random.default_rng(0).normal(2.0, 1.0, 30)
    found = intervals(table(rmwd=values.tolist()), seed=5)["rmwd"]
    expected = scipy.stats.bootstrap(
        (values,), np.median, n_resamples=RESAMPLES, method="percentile", rng=5
    ).confidence_interval
    assert found == pytest.approx(tuple(expected), abs=1e-12)


def test_intervals_hold_the_true_value_as_often_as_they_say() -> None:
    # The median of a uniform distribution is one half; 95% intervals miss it in 5% of samples.
    random = np.random.default_rng(3)
    hits = 0
    for seed in range(300):
        low, high = intervals(table(rmwd=random.random(40).tolist()), seed)["rmwd"]
        hits += low <= 0.5 <= high
    assert 0.90 < hits / 300 < 0.985


def test_two_targets_have_no_interval() -> None:
    assert intervals(table(rmwd=[1.0, 2.0]), 0) == {}
    assert "low" not in differences(table(rmwd=[1.0, 2.0]), table(rmwd=[1.0, 2.0]), 0)


def test_the_order_of_targets_changes_no_value() -> None:
    targets = [target(f"t{i}", i, rmwd=float(i)) for i in range(7)]
    forward, backward = (aggregate(sample_table(t)) for t in (targets, targets[::-1]))
    assert forward == pytest.approx(backward, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(NAN)), min_size=1, max_size=9))
def test_medians_agree_with_numpy_whatever_is_missing(values: list[float]) -> None:
    chosen = resamples(len(values), 0, 20)
    found = table(rmwd=values).statistics(chosen)["rmwd"]
    for row, value in zip(np.array(values)[chosen], found, strict=True):
        known = row[np.isfinite(row)]
        assert (math.isnan(value) and not len(known)) or value == pytest.approx(np.median(known))


def test_a_constant_difference_is_certain_however_much_targets_vary() -> None:
    first = np.random.default_rng(0).normal(0.0, 100.0, 25)
    found = differences(table(rmwd=first.tolist()), table(rmwd=(first - 0.5).tolist()), 0)["rmwd"]
    assert found == pytest.approx((-0.5, -0.5, -0.5), abs=1e-9)
    unpaired = intervals(table(rmwd=first.tolist()), 0)["rmwd"]
    assert unpaired[1] - unpaired[0] > 10.0


def test_differences_need_the_same_targets() -> None:
    with pytest.raises(ValueError, match="same targets"):
        differences(table(rmwd=[1.0]), table(rmwd=[1.0, 2.0]), 0)


def test_the_floor_is_the_mean_over_replicas() -> None:
    found = floor_aggregate([target("a"), target("b")])
    assert found["rmwd"] == pytest.approx(0.6)
    assert found["n_targets"] == 2
    assert found["global_rmsf_pearson"] == pytest.approx(1.0)


def test_a_target_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = target_path(tmp_path, "a")
    result = target("a", exposed_mi_spearman=NAN)
    write_target(path, result, "inputs")
    found = read_target(path, "inputs")
    assert found is not None
    assert found.values.keys() == result.values.keys()
    assert math.isnan(found.values["exposed_mi_spearman"])
    assert found.floor == result.floor and found.notes == result.notes
    np.testing.assert_array_equal(found.arrays["md_rmsf"], result.arrays["md_rmsf"])


def test_a_target_of_other_inputs_or_cut_short_is_computed_again(tmp_path: Path) -> None:
    path = target_path(tmp_path, "a")
    assert read_target(path, "inputs") is None
    write_target(path, target("a"), "inputs")
    assert read_target(path, "others") is None
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert read_target(path, "inputs") is None


def test_metrics_file_has_the_promised_keys(tmp_path: Path) -> None:
    targets = [target(f"t{i}", i, rmwd=float(i), exposed_mi_spearman=NAN) for i in range(4)]
    evaluation("m", *targets).write(tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["targets"]["t1"]["exposed_mi_spearman"] is None
    assert found["aggregate"]["rmwd"] == 1.5
    low, high = found["intervals"]["rmwd"]
    assert low < 1.5 < high
    assert found["floor"]["aggregate"]["rmwd"] == pytest.approx(0.6)
    assert found["floor"]["targets"]["t0"]["rmwd"] == pytest.approx(0.6)
    assert found["failed"] == {}
    assert "compat" not in found


def test_compatible_numbers_stand_apart(tmp_path: Path) -> None:
    one = target("a", exposed_residue_jaccard=0.9)
    one.compat.update(one.values, exposed_residue_jaccard=0.5)
    found = evaluation("m", one).to_json()
    assert found["aggregate"]["exposed_residue_jaccard"] == 0.9
    assert found["compat"]["aggregate"]["exposed_residue_jaccard"] == 0.5


def test_c_alpha_only_targets_are_aggregated_apart() -> None:
    atoms, ca = target("a", rmwd=1.0), target("c", rmwd=5.0)
    ca.counts["ca_only"] = 1.0
    found = evaluation("m", atoms, ca).to_json()
    assert found["aggregate"]["rmwd"] == 1.0 and found["aggregate"]["n_targets"] == 1
    assert found["ca_only"]["aggregate"]["rmwd"] == 5.0
    mixed = compare_evaluations([evaluation("m", atoms, ca)])
    assert [(g.ca_only, g.targets) for g in mixed.groups] == [(False, ["a"]), (True, ["c"])]
    with pytest.raises(UserError, match="no target in common"):
        compare_evaluations([])
    alone = evaluation("ca", ca)
    apart = compare_evaluations([evaluation("m", atoms), alone])
    assert [list(g.summaries) for g in apart.groups] == [["m"], ["ca"]]


def test_models_are_compared_over_common_targets() -> None:
    first = evaluation("first", *(target(f"t{i}", rmwd=float(i)) for i in range(5)))
    second = evaluation("second", *(target(f"t{i}", rmwd=i - 0.25) for i in range(1, 7)))
    found = compare_evaluations([first, second])
    (group,) = found.groups
    assert group.targets == ["t1", "t2", "t3", "t4"]
    assert group.differences["second"]["rmwd"] == pytest.approx((-0.25, -0.25, -0.25))
    assert found.left_out == {"first": ["t0"], "second": ["t5", "t6"]}
    assert found.to_json()["groups"][0]["aggregate"]["first"]["rmwd"] == 2.5


def test_what_makes_models_incomparable_is_said() -> None:
    small = target("a")
    small.counts["n_samples"] = 10
    models = [evaluation("one", target("a"), reference="md"),
              evaluation("two", small, reference="other")]  # fmt: skip
    notes = " ".join(compare_evaluations(models).notes)
    assert "different MD references" in notes
    assert "one: 250, two: 10" in notes
    with pytest.raises(UserError, match="two evaluations are called 'one'"):
        compare_evaluations([models[0], models[0]])


def test_an_evaluation_is_read_back_and_a_broken_one_refused(tmp_path: Path) -> None:
    original = evaluation("m", target("a"))
    write_target(target_path(tmp_path, "a"), original.targets["a"], "inputs")
    original.write(tmp_path)
    assert load_evaluation(tmp_path).to_json() == original.to_json()
    target_path(tmp_path, "a").unlink()
    with pytest.raises(UserError, match="result of a target"):
        load_evaluation(tmp_path)
    (tmp_path / "metrics.json").write_text('{"ensembles": {}}')
    with pytest.raises(UserError, match="not the metrics of an evaluation"):
        load_evaluation(tmp_path)
    with pytest.raises(UserError, match="expected a file"):
        load_evaluation(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("label", 3, "label: expected text, found 3"),
        ("targets", ["a"], "targets: expected names with values, found ['a']"),
        ("settings", {"seed": "x"}, "settings.seed: expected a whole number, 0 or more, found 'x'"),
        ("settings", {"seed": 1, "training": 2}, "settings.training: expected text, found 2"),
        ("failed", {"b": None}, "failed: expected names with texts, found {'b': None}"),
        ("notes", "torn", "notes: expected a list of texts, found 'torn'"),
        ("format", None, "format: expected 2, found None"),
    ],
)
def test_a_damaged_value_is_named_with_its_file_and_key(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    evaluation("m", target("a")).write(tmp_path)
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError) as caught:
        load_evaluation(tmp_path)
    assert f"{path}: " in str(caught.value) and said in str(caught.value)


def test_published_rows_cite_and_warn() -> None:
    rows = {row.label: row for row in published_rows()}
    assert {"EBA", "AlphaFlow-MD", "ConfDiff-OF-r3-MD", "MDGen", "BioEmu"} <= rows.keys()
    assert all(row.source and row.split for row in rows.values())
    assert "atom order" in rows["AlphaFlow-MD"].caveat
    assert rows["AlphaFlow-MD"].unsafe == ["exposed_residue_jaccard", "exposed_mi_spearman"]
    # The parts of the RMWD add up in squares within a model; medians of the parts nearly do: the
    # farthest is MSA subsampling at depth 48.
    for row in rows.values():
        parts = [row.values.get(k) for k in ("rmwd_translation", "rmwd_variance")]
        if None not in parts:
            assert math.hypot(*parts) == pytest.approx(row.values["rmwd"], rel=0.13), row.label


PAPER = Path(__file__).parents[3] / "shared" / "data" / "papers" / "eba_tables.yaml"
LABELS = {
    "EBA (K = 2)": "EBA",
    "EBA pre-train": "EBA, pre-trained",
    "Stage2-SFT": "EBA, SFT",
    "ESMFlow-MD full": "ESMFlow-MD",
    "ESMFlow-MD distilled": "ESMFlow-MD, distilled",
}


@pytest.mark.skipif(
    not PAPER.is_file(), reason="needs the paper's tables in shared/data, see docs/checks.md"
)
def test_the_rows_of_the_paper_are_as_its_own_text_has_them() -> None:
    import yaml

    tables = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    entries = tables["table_1_main"] | tables["appendix_b"]
    wanted = {LABELS.get(name, name.replace("g ", "g, ")): e for name, e in entries.items()}
    ablation = tables["table_2_mini_batch_size"]
    wanted |= {f"EBA, K = {k}": ablation[f"K={k}"] for k in (3, 5)}
    rows = {r.label: r for r in published_rows() if "2505.24203" in r.source}
    assert len(rows) == 14
    for label, row in rows.items():
        printed = zip(tables["columns"], wanted[label]["values"], strict=True)
        assert row.values == {key: value for key, value in printed if value is not None}, label
