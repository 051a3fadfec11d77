"""ANI potentials: published energies, torchani's own, and a small model written here."""

from __future__ import annotations

import bz2
import itertools
import math
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from ani_model import LONE_ATOM, SHAPE, SIZES, shipped, write_model
from scipy.optimize import minimize

from protenix_eba.core.errors import UserError
from protenix_eba.energy.ani import Ani
from protenix_eba.energy.ani_weights import read_ani_weights

DEMO = Path(__file__).parents[2] / "protenix_eba" / "demo_data"
METHANE = np.array(
    [
        [0.03192167, 0.00638559, 0.01301679],
        [-0.83140486, 0.39370209, -0.26395324],
        [-0.66518241, -0.84461308, 0.20759389],
        [0.45554739, 0.54289633, 0.81170881],
        [0.66091919, -0.16799635, -0.91037834],
    ]
)
# Of the methane in torchani's documentation, from the tests of the program qrefine (Q|R project),
# which had them from torchani in single precision: Hartree, and Hartree/angstrom for three atoms.
PUBLISHED = {
    "ani-1x": (
        -40.459022522,
        [[0.0306, -0.1316, -0.0527], [-0.1293, 0.1639, -0.0774], [0.0856, -0.0429, 0.0408]],
    ),
    "ani-1ccx": (
        -40.4256210327,
        [[0.0312, -0.1272, -0.0511], [-0.1200, 0.1628, -0.0761], [0.0856, -0.0448, 0.0407]],
    ),
}
# Of penta_alanine.pdb (53 atoms) by torchani 2.0 in double precision: energy, the norm of all
# forces and the force on the first atom. Its constants of the descriptors are rounded to single
# precision, which changes the energies by 1.3e-7 Hartree, 0.0004 kJ/mol.
TORCHANI = {
    "ani-1x": (
        -1312.6797058206257,
        0.22749279030883976,
        [-0.014585061010466886, -0.0058925448950517606, -0.0037534424954287645],
    ),
    "ani-1ccx": (
        -1311.7062216476977,
        0.2371359916769585,
        [-0.006244792453476787, -0.008293880496370054, -0.01958416236962487],
    ),
}
ANGSTROM_PER_BOHR = 0.529177210903


@pytest.mark.parametrize("name", PUBLISHED)
def test_methane_has_the_published_energy_and_forces(name: str) -> None:
    energy, forces = PUBLISHED[name]
    found = Ani(shipped(name), list("CHHHH"))(METHANE)
    assert found.hartree == pytest.approx(energy, abs=1e-6)
    assert found.forces[:3] == pytest.approx(np.array(forces), abs=6e-5)


@pytest.mark.parametrize("name", TORCHANI)
def test_a_peptide_has_the_energy_and_forces_of_torchani(name: str) -> None:
    peptide = mdtraj.load(str(DEMO / "penta_alanine" / "penta_alanine.pdb"))
    elements = [atom.element.symbol for atom in peptide.topology.atoms]
    xyz = np.round(10 * peptide.xyz[0].astype(float), 3)  # as the file has them
    energy, norm, first = TORCHANI[name]
    found = Ani(shipped(name), elements)(xyz)
    assert found.hartree == pytest.approx(energy, abs=2e-7)
    assert np.linalg.norm(found.forces) == pytest.approx(norm, rel=1e-5)
    assert found.forces[0] == pytest.approx(first, abs=1e-6)


def test_water_is_at_rest_where_the_tests_of_qcengine_have_its_minimum() -> None:
    """Lengths O-H and H-H in bohr and the angle, by geomeTRIC with torchani's ANI-1x."""
    potential = Ani(shipped("ani-1x"), list("OHH"))

    def evaluated(flat: np.ndarray) -> tuple[float, np.ndarray]:
        found = potential(flat.reshape(3, 3))
        return found.hartree, -found.forces.ravel()

    start = np.array([[0.0, 0, 0], [0.9, 0, 0], [0.0, 0.9, 0.1]])
    xyz = minimize(evaluated, start.ravel(), jac=True, options={"gtol": 1e-7}).x.reshape(3, 3)
    first, second = xyz[1] - xyz[0], xyz[2] - xyz[0]
    lengths = [np.linalg.norm(first), np.linalg.norm(xyz[2] - xyz[1])] / np.float64(
        ANGSTROM_PER_BOHR
    )
    assert lengths == pytest.approx([1.82581873750194, 2.866376526793269], abs=1e-3)
    angle = np.degrees(np.arccos(first @ second / np.linalg.norm(first) / np.linalg.norm(second)))
    assert angle == pytest.approx(103.4332610730292, abs=0.02)


def by_hand(folder: Path, elements: str, xyz: np.ndarray) -> list[float]:
    """Energies of each network from the equations, atom by atom, neighbour by neighbour."""
    kinds, shape = list(LONE_ATOM), {key: np.array(values) for key, values in SHAPE.items()}
    pairs = list(itertools.combinations_with_replacement(kinds, 2))

    def cutoff(distance: float, end: str) -> float:
        inside = distance < shape[end][0]
        return 0.5 * math.cos(math.pi * distance / shape[end][0]) + 0.5 if inside else 0.0

    def seen_by(i: int) -> np.ndarray:
        radial = {kind: np.zeros(3) for kind in kinds}
        angular = {pair: np.zeros((2, 2)) for pair in pairs}
        others = [j for j in range(len(elements)) if j != i]
        for j in others:
            r = math.dist(xyz[i], xyz[j])
            bell = np.exp(-shape["EtaR"] * (r - shape["ShfR"]) ** 2)
            radial[elements[j]] += 0.25 * bell * cutoff(r, "Rcr")
        for j, k in itertools.combinations(others, 2):
            a, b = xyz[j] - xyz[i], xyz[k] - xyz[i]
            angle = math.acos(0.95 * a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            r = (np.linalg.norm(a) + np.linalg.norm(b)) / 2
            for m, n in itertools.product(range(2), range(2)):
                sharp = ((1 + math.cos(angle - shape["ShfZ"][n])) / 2) ** shape["Zeta"][0]
                bell = math.exp(-shape["EtaA"][0] * (r - shape["ShfA"][m]) ** 2)
                near = cutoff(np.linalg.norm(a), "Rca") * cutoff(np.linalg.norm(b), "Rca")
                pair = tuple(sorted((elements[j], elements[k])))
                angular[pair][m, n] += 2 * sharp * bell * near
        return np.concatenate([*radial.values(), *(angular[pair].ravel() for pair in pairs)])

    energies = []
    for member in sorted(folder.glob("train*")):
        total = sum(LONE_ATOM[element] for element in elements)
        for i, element in enumerate(elements):
            values, sizes = seen_by(i), SIZES[element]
            for number, (inside, outside) in enumerate(itertools.pairwise(sizes), 1):
                path = member / "networks" / f"ANN-{element}.nnf-l{number}"
                weight, bias = (np.fromfile(f"{path}.{kind}param", "<f4") for kind in "wb")
                values = weight.reshape(outside, inside).astype(float) @ values + bias
                if outside > 1:
                    values = np.where(values > 0, values, 0.1 * np.expm1(values / 0.1))
            total += values.item()
        energies.append(total)
    return energies


ELEMENTS = "OHHOHHO"


def conformation(seed: int = 0) -> np.ndarray:
    """Atoms 1 to 5 angstrom apart, so that both cutoffs cut some pairs."""
    corners = np.array(list(itertools.product((0, 1.1, 2.2), repeat=3)))
    rng = np.random.default_rng(seed)
    return rng.permutation(corners)[: len(ELEMENTS)] + rng.normal(size=(len(ELEMENTS), 3)) * 0.1


def test_a_model_written_here_has_the_energy_of_the_equations(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "own")
    expected = by_hand(folder, ELEMENTS, conformation())
    found = Ani(read_ani_weights(folder), list(ELEMENTS))(conformation())
    assert found.hartree == pytest.approx(np.mean(expected), abs=1e-9)
    assert found.spread_hartree == pytest.approx(np.std(expected, ddof=1), abs=1e-9)


def test_forces_are_minus_the_slope_of_the_energy(tmp_path: Path) -> None:
    potential = Ani(read_ani_weights(write_model(tmp_path / "own")), list(ELEMENTS))
    xyz, step = conformation(), 1e-5
    for atom, axis in itertools.product(range(len(ELEMENTS)), range(3)):
        ends = []
        for side in (-1, 1):
            moved = xyz.copy()
            moved[atom, axis] += side * step
            ends.append(potential(moved).hartree)
        slope = (ends[1] - ends[0]) / (2 * step)
        assert potential(xyz).forces[atom, axis] == pytest.approx(-slope, abs=1e-7)


def test_energy_is_the_same_wherever_the_molecule_is_and_however_atoms_are_ordered(
    tmp_path: Path,
) -> None:
    weights, xyz = read_ani_weights(write_model(tmp_path / "own")), conformation()
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    order = np.random.default_rng(2).permutation(len(ELEMENTS))
    here = Ani(weights, list(ELEMENTS))(xyz)
    there = Ani(weights, list(ELEMENTS))(xyz @ rotation.T + [30.0, -5.0, 7.0])
    shuffled = Ani(weights, [ELEMENTS[i] for i in order])(xyz[order])
    assert there.hartree == pytest.approx(here.hartree, abs=1e-10)
    assert there.forces == pytest.approx(here.forces @ rotation.T, abs=1e-10)
    assert shuffled.hartree == pytest.approx(here.hartree, abs=1e-10)
    assert shuffled.forces == pytest.approx(here.forces[order], abs=1e-10)


def test_atoms_that_see_nobody_have_the_energy_of_lone_atoms_with_empty_surroundings(
    tmp_path: Path,
) -> None:
    weights = read_ani_weights(write_model(tmp_path / "own"))
    alone = [Ani(weights, [element])(np.zeros((1, 3))).hartree for element in "OH"]
    apart = Ani(weights, ["O", "H"])(np.array([[0.0, 0, 0], [9.0, 0, 0]]))
    assert apart.hartree == pytest.approx(sum(alone), abs=1e-12)
    assert not apart.forces.any()


def test_a_single_network_has_no_spread(tmp_path: Path) -> None:
    weights = read_ani_weights(write_model(tmp_path / "own", networks=1))
    assert math.isnan(Ani(weights, list(ELEMENTS))(conformation()).spread_hartree)


def test_the_digest_differs_where_any_number_does(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "own")
    before = read_ani_weights(folder).digest
    assert read_ani_weights(folder).digest == before
    path = folder / "train1" / "networks" / "ANN-O.nnf-l2.bparam"
    path.write_bytes((np.fromfile(path, "<f4") + np.float32(1e-6)).tobytes())
    assert read_ani_weights(folder).digest != before


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("own.params", None),
        ("own.params", b""),
        ("own.params", b"Rcr = 4\nAtyp = [H,O]\n"),
        ("own.params", b"\xff\xfe"),
        ("sae_linfit.dat", b"H,0=-0.5\n"),
        ("train1/networks/ANN-O.nnf", None),
        ("train1/networks/ANN-O.nnf", b"40=\nBZh91AY"),
        ("train1/networks/ANN-O.nnf", b"40=\n" + bz2.compress(b"layer [\nactivation=5;\n]\n")),
        ("train1/networks/ANN-O.nnf", b"40=\n" + bz2.compress(b"")),
        ("train1/networks/ANN-O.nnf-l1.wparam", b"\0" * 7),
        ("train1/networks/ANN-O.nnf-l1.wparam", b"\0" * 8),
    ],
)
def test_files_that_are_missing_or_cut_are_told_with_the_folder(
    file: str, content: bytes | None, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "own")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=r"own: expected an ANI potential"):
        read_ani_weights(folder)


def test_a_folder_without_networks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder train0/networks"):
        read_ani_weights(write_model(tmp_path / "own", networks=0))
