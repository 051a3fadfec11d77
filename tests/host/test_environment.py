import importlib.metadata
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest

from protenix_eba.core.errors import UserError
from protenix_eba.host import environment

FEATURES = """
from protenix_eba.host.environment import ensure_ccd_cache, prepare_environment
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
    for variable in ("PROTENIX_ROOT_DIR", "XDG_CACHE_HOME", *environment.CPU_KERNELS):
        # setenv first, so that what the code under test sets is undone too
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "configs.configs_data", raising=False)
    return monkeypatch


@pytest.fixture(scope="module")
def ccd_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("ccd")
    environment._build_ccd_cache(root)
    return root


def fill(root):
    """A complete cache, as far as anyone looks from outside."""
    for name in (environment.COMPONENTS, environment.RDKIT_PICKLE):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_kernels_that_need_no_gpu_unless_the_user_chose(clean):
    clean.setattr(environment, "has_cuda", lambda: False)
    clean.setenv("TRIANGLE_ATTENTION", "deepspeed")
    environment.prepare_environment()
    chosen = {variable: os.environ[variable] for variable in environment.CPU_KERNELS}
    assert chosen == {**environment.CPU_KERNELS, "TRIANGLE_ATTENTION": "deepspeed"}


def test_kernels_stay_protenix_own_with_a_gpu(clean):
    clean.setattr(environment, "has_cuda", lambda: True)
    environment.prepare_environment()
    assert not os.environ.keys() & environment.CPU_KERNELS.keys()


def test_hidden_devices_are_no_devices(clean):
    clean.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not environment.has_cuda()


def test_devices_are_counted_by_the_driver(clean):
    def count(pointer):
        pointer._obj.value = 2
        return 0

    nvml = SimpleNamespace(nvmlInit_v2=lambda: 0, nvmlDeviceGetCount_v2=count)
    clean.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    clean.setattr(importlib.metadata, "version", lambda name: "2.7.1")
    clean.setattr(environment.ctypes, "CDLL", lambda name: nvml)
    assert environment.has_cuda()
    clean.setattr(importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert not environment.has_cuda()


@pytest.mark.parametrize("version", ["1.0.0", "2.1.0", "3.0"])
def test_other_releases_of_protenix_are_refused(clean, version):
    clean.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(UserError, match=rf"expected Protenix 2\.0\.x, found {version}"):
        environment.prepare_environment()


def test_the_cache_holds_amino_acids_and_their_conformers(ccd_root):
    text = (ccd_root / environment.COMPONENTS).read_text()
    assert text.count("data_") == 22
    with (ccd_root / environment.RDKIT_PICKLE).open("rb") as handle:
        molecules = pickle.load(handle)
    assert set(molecules) == set(environment.COMPONENT_CODES)
    assert all(m.ref_conf_type == "rdkit" and m.ref_mask.all() for m in molecules.values())
    assert molecules["ALA"].atom_map["CA"] == 1 and molecules["TRP"].GetNumAtoms() == 27
    assert [p.name for p in ccd_root.iterdir()] == ["common"]


def test_the_cache_lies_in_the_users_cache_folder(clean, tmp_path):
    assert environment.protenix_root().parent == tmp_path / ".cache" / "protenix-eba"
    clean.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    root = environment.protenix_root()
    assert root.parent == tmp_path / "xdg" / "protenix-eba"
    assert root.name == f"ccd-rdkit{importlib.metadata.version('rdkit')}"


def test_the_users_own_components_are_preferred(clean, tmp_path):
    clean.setattr(environment, "_build_ccd_cache", lambda root: pytest.fail("built"))
    own = fill(tmp_path / "own")
    clean.setenv("PROTENIX_ROOT_DIR", str(own))
    assert environment.ensure_ccd_cache() == own
    clean.delenv("PROTENIX_ROOT_DIR")
    fill(tmp_path)  # HOME is Protenix's own default
    assert environment.ensure_ccd_cache() == tmp_path
    assert os.environ["PROTENIX_ROOT_DIR"] == str(tmp_path)


def test_an_incomplete_folder_of_the_user_is_left_alone(clean, tmp_path, caplog):
    clean.setattr(environment, "_build_ccd_cache", fill)
    clean.setenv("PROTENIX_ROOT_DIR", str(tmp_path / "data"))
    root = environment.ensure_ccd_cache()
    assert os.environ["PROTENIX_ROOT_DIR"] == str(root) != str(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert "has no chemical components" in caplog.text


def test_it_is_too_late_after_the_import_of_protenix(clean, tmp_path):
    module = SimpleNamespace(PROTENIX_ROOT_DIR=str(tmp_path / "elsewhere"))
    clean.setitem(sys.modules, "configs.configs_data", module)
    with pytest.raises(RuntimeError, match="elsewhere"):
        environment.ensure_ccd_cache(tmp_path)


def test_a_second_process_that_was_faster_wins(clean, tmp_path):
    def slow(path):
        path.write_text("ours")
        fill(tmp_path)

    clean.setattr(environment, "_write_components", slow)
    clean.setattr(
        environment, "_write_rdkit_pickle", lambda components, path: path.write_text("ours")
    )
    assert environment.ensure_ccd_cache(tmp_path) == tmp_path
    assert (tmp_path / environment.COMPONENTS).read_text() == environment.COMPONENTS
    assert [p.name for p in tmp_path.iterdir()] == ["common"]


def test_half_a_cache_is_not_overwritten(clean, tmp_path):
    fill(tmp_path)
    (tmp_path / environment.RDKIT_PICKLE).unlink()
    clean.setattr(environment, "_write_components", lambda path: path.write_text("ours"))
    clean.setattr(
        environment, "_write_rdkit_pickle", lambda components, path: path.write_text("ours")
    )
    with pytest.raises(UserError, match=r"lacks components.cif or its RDKit pickle"):
        environment.ensure_ccd_cache(tmp_path)
    assert (tmp_path / environment.COMPONENTS).read_text() == environment.COMPONENTS


def test_an_error_leaves_nothing_behind(clean, tmp_path):
    def fail(path):
        raise ValueError

    clean.setattr(environment, "_write_components", fail)
    with pytest.raises(ValueError):
        environment.ensure_ccd_cache(tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_the_root_of_pred_holds_all_that_it_would_download(clean, tmp_path):
    own = fill(tmp_path / "own")
    clean.setenv("PROTENIX_ROOT_DIR", str(own))
    (tmp_path / "weights.pt").write_text("weights")
    root = environment.prepare_pred_root(tmp_path / "root", tmp_path / "weights.pt", "tiny")
    assert (root / "checkpoint" / "tiny.pt").read_text() == "weights"
    assert (root / environment.COMPONENTS).read_text() == environment.COMPONENTS
    assert sorted(p.name for p in (root / "common").iterdir()) == [
        "clusters-by-entity-40.txt",
        "components.cif",
        "components.cif.rdkit_mol.pkl",
        "obsolete_release_date.csv",
    ]
    (tmp_path / "newer.pt").write_text("newer")
    environment.prepare_pred_root(root, tmp_path / "newer.pt", "tiny")
    assert (root / "checkpoint" / "tiny.pt").read_text() == "newer"
    assert (tmp_path / "weights.pt").read_text() == "weights"
    assert environment.protenix_pred_environment(root)["PROTENIX_ROOT_DIR"] == str(root)


def test_pred_refuses_to_replace_a_real_checkpoint(clean, tmp_path):
    root = fill(tmp_path / "root")
    (root / "checkpoint").mkdir()
    released = root / "checkpoint" / "tiny.pt"
    released.write_text("released")
    (tmp_path / "ours.pt").write_text("ours")
    with pytest.raises(UserError, match="is in the way"):
        environment.prepare_pred_root(root, tmp_path / "ours.pt", "tiny")
    environment.prepare_pred_root(root, released, "tiny")
    assert released.read_text() == "released" and not released.is_symlink()
    with pytest.raises(UserError, match="checkpoint: expected a file"):
        environment.prepare_pred_root(root, tmp_path / "absent.pt", "tiny")


def test_the_environment_of_pred(clean, tmp_path):
    clean.setattr(environment, "has_cuda", lambda: False)
    clean.setenv("TRIANGLE_ATTENTION", "deepspeed")
    variables = environment.protenix_pred_environment(tmp_path)
    assert variables["LAYERNORM_TYPE"] == "torch"
    assert variables["TRIANGLE_ATTENTION"] == "deepspeed"
    assert variables["PATH"] == os.environ["PATH"]
    assert "LAYERNORM_TYPE" not in os.environ


@pytest.mark.slow
def test_protenix_makes_features_of_a_sequence_offline(ccd_root):
    variables = {**os.environ, "PROTENIX_ROOT_DIR": str(ccd_root)}
    result = subprocess.run(
        [sys.executable, "-c", FEATURES], env=variables, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-3:] == ["77", "10", "True"]
