"""Files of inter-residue predictions, by several programs."""

import json
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import softmax

from protenix_eba.core.errors import UserError
from protenix_eba.ebmfold.prediction_files import read_predictions
from protenix_eba.ebmfold.predictions import HOST_EDGES, rebin_distogram

REAL = Path(__file__).parents[3] / "shared" / "data" / "trrosetta_T1008" / "T1008.npz"
# AlphaFold 2 (config.py, model.heads.distogram): 64 bins, jnp.linspace(2.3125, 21.6875, 63).
ALPHAFOLD_EDGES = np.linspace(2.3125, 21.6875, 63)


def uniform(n, bins):
    return np.full((n, n, bins), 1 / bins, dtype=np.float32)


def distances(n):
    """Neighbours at 5.25 angstrom, others anywhere, in trRosetta's bins."""
    made = np.full((n, n, 37), 1 / 36, dtype=np.float32)
    made[..., 1] = 0  # nothing is so near
    for i in range(n - 1):
        made[i, i + 1] = made[i + 1, i] = np.eye(37)[7]
    return made


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def host_logits(n):
    """Logits of Protenix's bins with neighbours about 5.6 angstrom apart."""
    middles = 2.15 + 0.3125 * np.arange(64)
    far = np.abs(np.arange(n)[:, None] - np.arange(n))
    return -np.square((middles - 5.6 * np.maximum(far, 0.5)[..., None]) / 1.5)


def test_a_file_of_trrosetta_is_read_as_it_is(tmp_path):
    arrays = {"dist": distances(5), "omega": uniform(5, 25), "theta": uniform(5, 25)}
    read = read_predictions(save(tmp_path / "a.npz", **arrays, phi=uniform(5, 13), other=3))
    assert read.has_orientations
    np.testing.assert_array_equal(read.distance, arrays["dist"])


def test_a_distogram_of_the_host_is_rebinned_when_it_is_read(tmp_path):
    given = softmax(host_logits(5), axis=-1)
    read = read_predictions(save(tmp_path / "a.npz", dist=given))
    assert read.distance.shape == (5, 5, 37) and not read.has_orientations
    np.testing.assert_allclose(read.distance, rebin_distogram(given), atol=1e-6)


@pytest.mark.parametrize("nested", [True, False])
def test_alphafolds_distogram_is_that_of_the_host_before_its_softmax(tmp_path, nested):
    logits, edges = host_logits(5), ALPHAFOLD_EDGES
    np.testing.assert_allclose(edges, HOST_EDGES)
    given = {"logits": logits.tolist(), "bin_edges": edges.tolist()}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"distogram": given, "plddt": [1.0]} if nested else given))
    expected = rebin_distogram(softmax(logits, axis=-1))
    np.testing.assert_allclose(read_predictions(path).distance, expected, atol=1e-6)
    other = read_predictions(save(tmp_path / "a.npz", logits=logits, bin_edges=edges))
    np.testing.assert_allclose(other.distance, expected, atol=1e-6)


def test_bins_of_another_width_keep_their_distances(tmp_path):
    """A distogram of 1 angstrom from 2 to 22, all pairs from 5 to 6: two bins of trRosetta."""
    logits = np.full((5, 5, 22), -30.0)
    logits[..., 4] = 0.0
    read = read_predictions(save(tmp_path / "a.npz", logits=logits, bin_edges=np.arange(2.0, 23.0)))
    np.testing.assert_allclose(read.distance[..., 7:9], 0.5, atol=1e-6)


def test_json_holds_what_npz_holds(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"dist": distances(5).tolist()}))
    read = read_predictions(tmp_path / "a.json")
    np.testing.assert_allclose(read.distance, distances(5), rtol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"other": uniform(5, 37)}, "expected an array `dist`"),
        ({"logits": uniform(5, 64)}, "`logits` and `bin_edges`"),
        ({"logits": uniform(5, 64), "bin_edges": HOST_EDGES[1:]}, "one bin more than the 62"),
        ({"logits": uniform(5, 64), "bin_edges": HOST_EDGES / 10}, "expected angstrom in rising"),
        ({"logits": uniform(5, 64), "bin_edges": HOST_EDGES[::-1]}, "expected angstrom in rising"),
        ({"logits": uniform(5, 64), "bin_edges": HOST_EDGES}, "neighbours in the sequence"),
        ({"logits": 1j * uniform(5, 64), "bin_edges": HOST_EDGES}, "expected numbers"),
        ({"logits": np.inf * uniform(5, 64), "bin_edges": HOST_EDGES}, "logits: expected finite"),
        (
            {"logits": uniform(5, 64), "bin_edges": np.nan * HOST_EDGES},
            "bin_edges: expected finite",
        ),
        ({"dist": uniform(5, 64)}, "neighbours in the sequence"),
        ({"dist": 3 * uniform(5, 64)}, "sum"),
        ({"dist": uniform(5, 36)}, "shape"),
        ({"dist": uniform(5, 37)[:4]}, "shape"),
        ({"dist": 3 * uniform(5, 37)}, "sum"),
        ({"dist": -uniform(5, 37)}, "negative"),
        ({"dist": np.nan * uniform(5, 37)}, "NaN"),
        ({"dist": uniform(0, 37)}, "shape"),
        ({"dist": distances(5), "omega": uniform(5, 25)}, "missing theta, phi"),
        ({"dist": uniform(5, 37).astype(str)}, "numbers"),
        ({"dist": np.array([{}])}, "cannot read"),
        ({"dist": uniform(5, 37)}, "neighbours in the sequence would be 11.* angstrom apart"),
        ({"dist": distances(5)[..., ::-1]}, "the bins have another order or width"),
        ({"dist": np.full((5, 5, 37), np.eye(37)[7])}, "the first and the last channel are empty"),
    ],
)
def test_what_is_not_a_prediction_is_refused_by_name(tmp_path, arrays, said):
    with pytest.raises(UserError, match=said) as caught:
        read_predictions(save(tmp_path / "a.npz", **arrays))
    assert "a.npz" in str(caught.value)


def test_a_file_of_rosettafold_is_brought_into_trrosettas_bins(tmp_path):
    """Where everything is sharp, the bins are known: "no contact" last, angles by 10 degrees."""
    dist = np.roll(distances(5), -1, axis=-1)
    angles = {name: np.zeros((5, 5, n), np.float32) for name, n in
              (("omega", 37), ("theta", 37), ("phi", 19))}  # fmt: skip
    angles["omega"][..., -1] = 1
    angles["theta"][..., 3] = 1  # -150 to -140 degrees: the third bin of 15
    angles["phi"][..., 1] = 1  # 10 to 20 degrees: half in the first bin, half in the second
    read = read_predictions(save(tmp_path / "a.npz", dist=dist, **angles))
    np.testing.assert_array_equal(read.distance, distances(5))
    assert (read.omega[..., 0] == 1).all() and (read.theta[..., 3] == 1).all()
    np.testing.assert_allclose(read.phi[..., 1:3], 0.5, atol=1e-6)


ROSETTAFOLD = Path(__file__).parents[3] / "shared" / "data" / "rosettafold_T1078"


@pytest.mark.skipif(
    not ROSETTAFOLD.is_dir(),
    reason="needs a RoseTTAFold prediction in shared/data, see docs/checks.md",
)
def test_rosettafolds_own_model_has_the_distances_that_are_read():
    read = read_predictions(ROSETTAFOLD / "t000.npz")
    model = mdtraj.load(str(ROSETTAFOLD / "e2e.pdb"))
    n, ca, c = (10 * model.xyz[0, model.topology.select(f"name {x}")] for x in ("N", "CA", "C"))
    b, d = ca - n, c - ca
    cb = ca - 0.5827 * np.cross(b, d) + 0.5680 * b - 0.5407 * d
    near = cdist(cb, cb)
    sure = (read.distance[..., 1:].max(-1) > 0.5) & ~np.eye(read.n_residues, dtype=bool)
    middle = 1.75 + 0.5 * read.distance.argmax(-1)
    assert sure.sum() > 300
    assert abs(np.median(near[sure] - middle[sure])) < 0.25  # half a bin


def test_distances_alone_do_not_look_at_the_orientations(tmp_path):
    path = save(tmp_path / "a.npz", dist=distances(5), omega=uniform(3, 99))
    assert not read_predictions(path, orientations=False).has_orientations


def test_a_truncated_file_and_one_that_is_no_archive_are_refused(tmp_path):
    whole = save(tmp_path / "a.npz", dist=uniform(5, 37)).read_bytes()
    for name, content in {"cut": whole[:500], "text": b"hello", "empty": b""}.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(UserError, match="cannot read"):
            read_predictions(tmp_path / f"{name}.npz")
    deep = '{"dist": ' + 100_000 * "["
    for text in (deep, "{", "[1, 2]", '{"dist": [[1], [2, 3]]}', '{"dist": "x"}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(UserError, match=r"a\.json"):
            read_predictions(tmp_path / "a.json")
    np.save(tmp_path / "single.npy", uniform(5, 37))
    with pytest.raises(UserError, match="not an npz"):
        read_predictions(tmp_path / "single.npy")


@pytest.mark.skipif(
    not REAL.is_file(), reason="needs a trRosetta prediction in shared/data, see docs/checks.md"
)
def test_a_real_prediction_is_read():
    read = read_predictions(REAL)
    assert read.n_residues == 80 and read.has_orientations
