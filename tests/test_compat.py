import importlib.metadata
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest

from protenix_eba import compat
from protenix_eba.core.errors import UserError

FEATURES = """
from protenix_eba.compat import ensure_ccd_cache, prepare_environment
prepare_environment()
ensure_ccd_cache()
from protenix.data.inference.json_to_feature import SampleDictToFeatures
chain = {"sequence": "GYDPETGTWG", "count": 1}
sample = SampleDictToFeatures({"name": "x", "sequences": [{"proteinChain": chain}]})
features, atoms, tokens = sample.get_feature_dict()
print(len(atoms), len(tokens), float(features["ref_pos"].abs().max()) > 1)
"""


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No Protenix imported, nothing chosen by the user, an empty home."""
    for variable in ("PROTENIX_ROOT_DIR", "XDG_CACHE_HOME", *compat.CPU_KERNELS):
        # setenv first, so that what the code under test sets is undone too
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "configs.configs_data", raising=False)
    return monkeypatch


@pytest.fixture(scope="module")
def ccd_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("ccd")
    compat._build_ccd_cache(root)
    return root


def fill(root):
    """A complete cache, as far as anyone looks from outside."""
    for name in (compat.COMPONENTS, compat.RDKIT_PICKLE):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_kernels_that_need_no_gpu_unless_the_user_chose(clean):
    clean.setattr(compat, "has_cuda", lambda: False)
    clean.setenv("TRIANGLE_ATTENTION", "deepspeed")
    compat.prepare_environment()
    chosen = {variable: os.environ[variable] for variable in compat.CPU_KERNELS}
    assert chosen == {**compat.CPU_KERNELS, "TRIANGLE_ATTENTION": "deepspeed"}


def test_kernels_stay_protenix_own_with_a_gpu(clean):
    clean.setattr(compat, "has_cuda", lambda: True)
    compat.prepare_environment()
    assert not os.environ.keys() & compat.CPU_KERNELS.keys()


def test_hidden_devices_are_no_devices(clean):
    clean.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not compat.has_cuda()


def test_devices_are_counted_by_the_driver(clean):
    def count(pointer):
        pointer._obj.value = 2
        return 0

    nvml = SimpleNamespace(nvmlInit_v2=lambda: 0, nvmlDeviceGetCount_v2=count)
    clean.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    clean.setattr(importlib.metadata, "version", lambda name: "2.7.1")
    clean.setattr(compat.ctypes, "CDLL", lambda name: nvml)
    assert compat.has_cuda()
    clean.setattr(importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert not compat.has_cuda()


@pytest.mark.parametrize("version", ["1.0.0", "2.1.0", "3.0"])
def test_other_releases_of_protenix_are_refused(clean, version):
    clean.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(UserError, match=rf"expected Protenix 2\.0\.x, found {version}"):
        compat.prepare_environment()


def test_the_cache_holds_amino_acids_and_their_conformers(ccd_root):
    text = (ccd_root / compat.COMPONENTS).read_text()
    assert text.count("data_") == 22
    with (ccd_root / compat.RDKIT_PICKLE).open("rb") as handle:
        molecules = pickle.load(handle)
    assert set(molecules) == set(compat.COMPONENT_CODES)
    assert all(m.ref_conf_type == "rdkit" and m.ref_mask.all() for m in molecules.values())
    assert molecules["ALA"].atom_map["CA"] == 1 and molecules["TRP"].GetNumAtoms() == 27
    assert [p.name for p in ccd_root.iterdir()] == ["common"]


def test_the_cache_lies_in_the_users_cache_folder(clean, tmp_path):
    assert compat.protenix_root().parent == tmp_path / ".cache" / "protenix-eba"
    clean.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    root = compat.protenix_root()
    assert root.parent == tmp_path / "xdg" / "protenix-eba"
    assert root.name == f"ccd-rdkit{importlib.metadata.version('rdkit')}"


def test_the_users_own_components_are_preferred(clean, tmp_path):
    clean.setattr(compat, "_build_ccd_cache", lambda root: pytest.fail("built"))
    own = fill(tmp_path / "own")
    clean.setenv("PROTENIX_ROOT_DIR", str(own))
    assert compat.ensure_ccd_cache() == own
    clean.delenv("PROTENIX_ROOT_DIR")
    fill(tmp_path)  # HOME is Protenix's own default
    assert compat.ensure_ccd_cache() == tmp_path
    assert os.environ["PROTENIX_ROOT_DIR"] == str(tmp_path)


def test_an_incomplete_folder_of_the_user_is_left_alone(clean, tmp_path, caplog):
    clean.setattr(compat, "_build_ccd_cache", fill)
    clean.setenv("PROTENIX_ROOT_DIR", str(tmp_path / "data"))
    root = compat.ensure_ccd_cache()
    assert os.environ["PROTENIX_ROOT_DIR"] == str(root) != str(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert "has no chemical components" in caplog.text


def test_it_is_too_late_after_the_import_of_protenix(clean, tmp_path):
    module = SimpleNamespace(PROTENIX_ROOT_DIR=str(tmp_path / "elsewhere"))
    clean.setitem(sys.modules, "configs.configs_data", module)
    with pytest.raises(RuntimeError, match="elsewhere"):
        compat.ensure_ccd_cache(tmp_path)


def test_a_second_process_that_was_faster_wins(clean, tmp_path):
    def slow(path):
        path.write_text("ours")
        fill(tmp_path)

    clean.setattr(compat, "_write_components", slow)
    clean.setattr(compat, "_write_rdkit_pickle", lambda components, path: path.write_text("ours"))
    assert compat.ensure_ccd_cache(tmp_path) == tmp_path
    assert (tmp_path / compat.COMPONENTS).read_text() == compat.COMPONENTS
    assert [p.name for p in tmp_path.iterdir()] == ["common"]


def test_half_a_cache_is_not_overwritten(clean, tmp_path):
    fill(tmp_path)
    (tmp_path / compat.RDKIT_PICKLE).unlink()
    clean.setattr(compat, "_write_components", lambda path: path.write_text("ours"))
    clean.setattr(compat, "_write_rdkit_pickle", lambda components, path: path.write_text("ours"))
    with pytest.raises(UserError, match=r"lacks components.cif or its RDKit pickle"):
        compat.ensure_ccd_cache(tmp_path)
    assert (tmp_path / compat.COMPONENTS).read_text() == compat.COMPONENTS


def test_an_error_leaves_nothing_behind(clean, tmp_path):
    def fail(path):
        raise ValueError

    clean.setattr(compat, "_write_components", fail)
    with pytest.raises(ValueError):
        compat.ensure_ccd_cache(tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_the_root_of_pred_holds_all_that_it_would_download(clean, tmp_path):
    own = fill(tmp_path / "own")
    clean.setenv("PROTENIX_ROOT_DIR", str(own))
    (tmp_path / "weights.pt").write_text("weights")
    root = compat.prepare_pred_root(tmp_path / "root", tmp_path / "weights.pt", "tiny")
    assert (root / "checkpoint" / "tiny.pt").read_text() == "weights"
    assert (root / compat.COMPONENTS).read_text() == compat.COMPONENTS
    assert sorted(p.name for p in (root / "common").iterdir()) == [
        "clusters-by-entity-40.txt",
        "components.cif",
        "components.cif.rdkit_mol.pkl",
        "obsolete_release_date.csv",
    ]
    (tmp_path / "newer.pt").write_text("newer")
    compat.prepare_pred_root(root, tmp_path / "newer.pt", "tiny")
    assert (root / "checkpoint" / "tiny.pt").read_text() == "newer"
    assert (tmp_path / "weights.pt").read_text() == "weights"
    assert compat.protenix_pred_environment(root)["PROTENIX_ROOT_DIR"] == str(root)


def test_pred_refuses_to_replace_a_real_checkpoint(clean, tmp_path):
    root = fill(tmp_path / "root")
    (root / "checkpoint").mkdir()
    released = root / "checkpoint" / "tiny.pt"
    released.write_text("released")
    (tmp_path / "ours.pt").write_text("ours")
    with pytest.raises(UserError, match="is in the way"):
        compat.prepare_pred_root(root, tmp_path / "ours.pt", "tiny")
    compat.prepare_pred_root(root, released, "tiny")
    assert released.read_text() == "released" and not released.is_symlink()
    with pytest.raises(UserError, match="checkpoint: expected a file"):
        compat.prepare_pred_root(root, tmp_path / "absent.pt", "tiny")


def test_the_environment_of_pred(clean, tmp_path):
    clean.setattr(compat, "has_cuda", lambda: False)
    clean.setenv("TRIANGLE_ATTENTION", "deepspeed")
    environment = compat.protenix_pred_environment(tmp_path)
    assert environment["LAYERNORM_TYPE"] == "torch"
    assert environment["TRIANGLE_ATTENTION"] == "deepspeed"
    assert environment["PATH"] == os.environ["PATH"]
    assert "LAYERNORM_TYPE" not in os.environ


@pytest.mark.slow
def test_protenix_makes_features_of_a_sequence_offline(ccd_root):
    environment = {**os.environ, "PROTENIX_ROOT_DIR": str(ccd_root)}
    result = subprocess.run(
        [sys.executable, "-c", FEATURES], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-3:] == ["77", "10", "True"]
