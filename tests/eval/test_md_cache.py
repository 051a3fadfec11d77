"""What a second model's evaluation reads of the first one's: the same numbers, and no other MD."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pytest

import protenix_eba
from protenix_eba.cli.main import run
from protenix_eba.eval import one_target
from protenix_eba.eval.evaluate import evaluate
from protenix_eba.eval.md_cache import MdArrays

PEPTIDES = Path(protenix_eba.__file__).parent / "demo_data"
NAMES = ("grgds", "thymopentin")


def prepare(root: Path, names: tuple[str, ...]) -> Path:
    """Shipped MD of peptides, and as two models other frames of it, of which one is blown up."""
    for name in names:
        shutil.copytree(PEPTIDES / name, root / "md" / name)
        frames = mdtraj.load(
            str(root / f"md/{name}/{name}_prod_R2_fit.xtc"), top=str(root / f"md/{name}/{name}.pdb")
        )
        for model, scale in (("aligned", 1.0), ("base", 1.1)):
            folder = root / model / name
            folder.mkdir(parents=True)
            frames[0].save_pdb(str(folder / f"{name}.pdb"))
            some = frames[::7]
            some.xyz *= scale
            some.save_xtc(str(folder / f"{name}.xtc"))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("cache"), NAMES)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the targets whose MD is read, as it happens."""
    names: list[str] = []
    original = one_target.reference_arrays

    def counted(reference: Any, *rest: Any) -> Any:
        names.append(reference.name)
        return original(reference, *rest)

    monkeypatch.setattr(one_target, "reference_arrays", counted)
    return names


def found(data: Path, out: Path, model: str = "aligned", **options: Any) -> Any:
    result = evaluate(data / "md", [data / model], out, label=model, **options)
    assert not result.failed
    return json.dumps(result.to_json()), {
        name: {key: value.tobytes() for key, value in target.arrays.items()}
        for name, target in result.targets.items()
    }


def test_a_second_model_reads_no_md_and_gets_the_same_numbers(
    data: Path, tmp_path: Path, read: list[str]
) -> None:
    """Every digit of metrics.json and of the arrays behind the figures."""
    expected = found(data, tmp_path / "alone")
    cache = tmp_path / "cache"
    found(data, tmp_path / "first", "base", md_cache=cache)
    assert len(list(cache.iterdir())) == 2
    read.clear()
    assert found(data, tmp_path / "second", md_cache=cache) == expected
    assert read == []
    # Worker processes have other numbers of BLAS threads, so they are compared with each other.
    alone = found(data, tmp_path / "workers alone", jobs=2)
    assert found(data, tmp_path / "workers", md_cache=cache, jobs=2) == alone


def test_other_md_and_another_number_of_samples_are_not_taken_for_the_same(
    data: Path, tmp_path: Path, read: list[str]
) -> None:
    cache, root = tmp_path / "cache", prepare(tmp_path / "data", ("grgds",))
    first = found(root, tmp_path / "first", "base", md_cache=cache)
    (root / "md/grgds/grgds_prod_R2_fit.xtc").write_bytes(
        (root / "md/grgds/grgds_prod_R1_fit.xtc").read_bytes()
    )
    second = found(root, tmp_path / "second", "base", md_cache=cache)
    assert second != first and second == found(root, tmp_path / "alone", "base")
    one = root / "base/grgds"
    (one / "more.xtc").write_bytes((one / "grgds.xtc").read_bytes())
    twice = found(root, tmp_path / "twice", "base", md_cache=cache)
    assert twice == found(root, tmp_path / "twice_alone", "base")
    assert read == ["grgds"] * 5


@pytest.mark.parametrize("damage", ["cut", "empty", "one bit", "a folder"])
def test_a_damaged_file_is_said_and_computed_again(
    data: Path, tmp_path: Path, read: list[str], damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    first = found(data, tmp_path / "first", md_cache=cache, targets=["grgds"])
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    broken = bytearray(whole)
    broken[len(broken) // 2] ^= 1
    kept.unlink()
    if damage == "a folder":
        kept.mkdir()
    else:
        kept.write_bytes({"cut": whole[:-100], "empty": b"", "one bit": bytes(broken)}[damage])
    again = found(data, tmp_path / "again", md_cache=cache, targets=["grgds"])
    assert again == first
    assert f"{kept} is damaged" in capsys.readouterr().err
    assert read == ["grgds"] * 2
    if kept.is_file():
        assert kept.read_bytes() == whole


def test_values_that_a_valid_file_did_not_hold_when_it_was_written_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The archive's own sums are right, as if another program had written it."""
    path = tmp_path / "kept.npz"
    first = MdArrays(path)
    first.get("one", lambda: {"x": np.arange(6.0).reshape(2, 3).T, "nothing": np.empty((0, 2))})
    first.write()
    same = MdArrays(path).get("one", lambda: {})
    assert same["x"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "one/x": arrays["one/x"] + 1.0})
    assert MdArrays(path).get("one", lambda: {"x": np.zeros(1)})["x"].tolist() == [0.0]
    assert "is damaged" in capsys.readouterr().err


def test_the_command_keeps_it_beside_the_results_and_does_without_where_it_cannot(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--reference", str(data / "md"), "--samples", str(data / "base"), "--out"]
    assert run([*words, str(tmp_path / "results/base")]) == 0
    assert len(list((tmp_path / "results/.md-cache").glob("*.npz"))) == 2
    (tmp_path / "file").write_text("")
    place = ["--md-cache", str(tmp_path / "file")]
    capsys.readouterr()
    assert run([*words, str(tmp_path / "other/base"), *place]) == 0
    assert "is not kept for other models: cannot write into" in capsys.readouterr().err
    one, other = (json.loads((tmp_path / p / "base/metrics.json").read_text())
                  for p in ("results", "other"))  # fmt: skip
    assert one == other
