"""Metrics in their limits, atoms matched by name, and fidelity to AlphaFlow's script.

What does not depend on anything but the ensembles: order, names and place of the atoms, position
and orientation. The protocol draws MD frames by number, so that another order of the replicas
changes the frames that are drawn: only what all frames decide is then the same.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import gemmi
import mdtraj
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from protenix_eba.core.errors import UserError
from protenix_eba.eval.one_target import TargetSettings, evaluate_target
from protenix_eba.eval.protocol.alignment import superpose
from protenix_eba.eval.protocol.alphaflow_script import thread_starts
from protenix_eba.eval.protocol.draws import Draws
from protenix_eba.eval.protocol.ensemble import match_atoms
from protenix_eba.eval.protocol.exposure import EXPOSED_NM2, SideChains, mutual_information
from protenix_eba.eval.protocol.metrics import (
    gaussian_distances,
    jaccard,
    mean_pairwise_rmsd,
    pearson,
    principal_components,
    rmsf,
    root_mean_square,
    spearman,
    wasserstein2,
)
from protenix_eba.eval.protocol.panel import information_correlation
from protenix_eba.eval.protocol.surface_kernels import carried_areas
from protenix_eba.eval.target_result import TargetResult
from protenix_eba.structures.sources import Conformations, find_references, find_samples
from protenix_eba.structures.topologies import insertion_code, read_topology

SHARED = Path(__file__).parents[3] / "shared" / "data" / "eval_reference"
DATA = Path(__file__).parents[1] / "data"
SIDE = {"ALA": (), "SER": ("OG",), "GLY": (), "LEU": ("CG", "CD1"), "ASP": ("CG", "OD1", "OD2")}
# What all frames decide; the others depend on the frames that are drawn.
OF_ALL_FRAMES = ("pairwise_rmsd", "rmsf_pearson", "pc1_cosine")


@pytest.fixture(autouse=True)
def one_blas_thread() -> Iterator[None]:
    # On a busy machine OpenBLAS's threads wait for each other: a hundred times slower.
    with threadpool_limits(1):
        yield


@dataclasses.dataclass
class InMemory:
    """Conformations that are not on disk."""

    topology: mdtraj.Topology
    structure_xyz: np.ndarray
    replicas: dict[int, np.ndarray]
    name: str = "pep"
    notes: tuple[str, ...] = ()

    @property
    def n_frames(self) -> dict[int, int]:
        return {replica: len(xyz) for replica, xyz in self.replicas.items()}

    def chunks(self, replica: int, atoms: np.ndarray, size: int) -> Iterator[np.ndarray]:
        # Of uneven sizes: nothing may depend on them.
        xyz, start, step = self.replicas[replica], 0, 1
        while start < len(xyz):
            yield xyz[start : start + min(step, size)][:, atoms]
            start, step = start + min(step, size), 2 * step

    def frames(self, replica: int, indices: np.ndarray, atoms: np.ndarray) -> np.ndarray:
        return self.replicas[replica][indices][:, atoms]


def residues(n: int) -> list[tuple[str, tuple[str, ...]]]:
    names = [list(SIDE)[i % len(SIDE)] for i in range(n)]
    return [(x, ("N", "CA", *(() if x == "GLY" else ("CB",)), *SIDE[x], "C", "O")) for x in names]


def topology(
    n: int, first: int = 1, chains: str = "A", reverse: bool = False, ca_only: bool = False
) -> mdtraj.Topology:
    result = mdtraj.Topology()
    for chain in chains:
        added = result.add_chain(chain)
        for i, (name, atoms) in enumerate(residues(n)):
            residue = result.add_residue(name, added, resSeq=first + i)
            for atom in reversed(atoms) if reverse else atoms:
                if atom == "CA" or not ca_only:
                    symbol = mdtraj.element.Element.getBySymbol(atom[0])
                    result.add_atom(atom, symbol, residue)
    return result


def peptide(
    seed: int,
    n_frames: int = 60,
    n: int = 12,
    replicas: int = 1,
    spread: float = 0.6,
    size: float = 2.5,
) -> InMemory:
    """A flexible globule, frames scattered about one structure along one mode."""
    top = topology(n)
    structure = np.random.default_rng(0).normal(0.0, size, (top.n_atoms, 3))
    mode = np.random.default_rng(1).normal(size=structure.shape)
    random = np.random.default_rng(seed)
    frames = {
        number: (
            structure
            + random.normal(size=(n_frames, 1, 1)) * mode * spread
            + random.normal(0.0, spread / 3, (n_frames, *structure.shape))
        ).astype(np.float32)
        for number in range(1, replicas + 1)
    }
    return InMemory(top, structure, frames)


def reversed_atoms(ensemble: InMemory) -> InMemory:
    """The same conformations, the atoms of each residue in the opposite order."""
    top = ensemble.topology
    order = np.concatenate([[a.index for a in reversed(list(r.atoms))] for r in top.residues])
    return dataclasses.replace(
        ensemble,
        topology=topology(top.n_residues, reverse=True),
        structure_xyz=ensemble.structure_xyz[order],
        replicas={k: xyz[:, order] for k, xyz in ensemble.replicas.items()},
    )


def rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    q[:, 0] *= np.sign(np.linalg.det(q))
    return q


def evaluated(md: Conformations, samples: Conformations, **settings: object) -> TargetResult:
    return evaluate_target(md, samples, TargetSettings(**settings))  # type: ignore[arg-type]


def close(tolerance: float, expected: dict[str, float]) -> object:
    return pytest.approx(expected, rel=tolerance, abs=tolerance, nan_ok=True)


# --- atoms ---


def test_the_order_of_the_samples_atoms_changes_nothing() -> None:
    md, samples = peptide(2, replicas=3), peptide(3)
    expected, found = evaluated(md, samples), evaluated(md, reversed_atoms(samples))
    assert found.values == close(1e-9, expected.values)
    assert found.floor[0] == close(1e-9, expected.floor[0])
    assert np.isfinite([expected.values[key] for key in EXPECTED_KEYS]).all()


def test_the_order_of_the_md_atoms_changes_nothing() -> None:
    md, samples = peptide(2, replicas=2), peptide(3)
    expected, found = evaluated(md, samples), evaluated(reversed_atoms(md), samples)
    assert found.values == close(1e-9, expected.values)
    assert found.floor == [close(1e-9, row) for row in expected.floor]


def test_position_and_orientation_of_the_samples_change_nothing() -> None:
    md, samples = peptide(2), peptide(3)
    turned = [
        frame @ rotation(i) + np.random.default_rng(i).normal(0.0, 50.0, 3)
        for i, frame in enumerate(samples.replicas[1])
    ]
    moved = dataclasses.replace(samples, replicas={1: np.array(turned, dtype=np.float32)})
    # Not 1e-9: coordinates 50 angstrom away have lost two digits in float32.
    assert evaluated(md, moved).values == close(1e-5, evaluated(md, samples).values)


def test_the_order_of_the_replicas_does_not_change_what_all_frames_decide() -> None:
    md, samples = peptide(2, replicas=3), peptide(3)
    swapped = dataclasses.replace(md, replicas={4 - k: v for k, v in md.replicas.items()})
    found, expected = evaluated(swapped, samples), evaluated(md, samples)
    for key in OF_ALL_FRAMES:
        assert found.values[key] == pytest.approx(expected.values[key], rel=1e-9), key
    assert found.arrays["md_rmsf"] == pytest.approx(expected.arrays["md_rmsf"])
    in_order = expected.arrays["md_ca_rmsf_replicas"][::-1]
    assert found.arrays["md_ca_rmsf_replicas"] == pytest.approx(in_order)


@pytest.mark.parametrize("first", [11, 12])
def test_a_chain_that_is_numbered_otherwise_is_matched_by_its_sequence(first: int) -> None:
    """The sequence repeats every five residues: by number, 20 of 30 would be the wrong ones."""
    md, samples = peptide(2, n=30), peptide(3, n=30)
    shifted = dataclasses.replace(samples, topology=topology(30, first=first))
    found = evaluated(md, shifted)
    assert found.values == close(1e-9, evaluated(md, samples).values)
    assert f"- {first} to {first + 29} of the samples are - 1 to 30 of the ref" in found.notes[0]


def test_chains_that_are_numbered_through_are_matched_one_by_one() -> None:
    through, each = topology(4, chains="AB"), topology(4, chains="AB")
    for residue in through.chain(1).residues:
        residue.resSeq += 4
    match = match_atoms(through, each, "pep")
    assert match.sample_atoms.tolist() == list(range(each.n_atoms))
    assert any("B 1 to 4 of the samples are B 5 to 8" in note for note in match.notes)


def test_numbers_that_shift_within_a_chain_are_an_error() -> None:
    torn = topology(30)
    for residue in list(torn.residues)[10:]:
        residue.resSeq += 1
    with pytest.raises(UserError, match="residues have another name") as caught:
        match_atoms(topology(30), torn, "pep")
    assert "number" in caught.value.hint
    # Another sequence is another protein.
    with pytest.raises(UserError, match="Residues: reference 1 to 12, samples 1 to 11"):
        match_atoms(topology(12), topology(11, first=40), "pep")


def with_codes(path: Path, numbers: list[str]) -> mdtraj.Topology:
    """A peptide with these residue numbers as evaluate reads it from a PDB or mmCIF file."""
    lines = []
    for i, residue in enumerate(topology(len(numbers)).residues):
        number = numbers[i] if numbers[i][-1].isalpha() else f"{numbers[i]} "
        lines += [
            f"ATOM  {len(lines) + k:5d}  {atom.name:<3s} {residue.name} A{number:>5s}   "
            f"{3.8 * i:8.3f}{1.5 * k:8.3f}{0:8.3f}  1.00  0.00           {atom.element.symbol}"
            for k, atom in enumerate(residue.atoms, 1)
        ]
    text = "\n".join([*lines, "END", ""])
    if path.suffix == ".cif":
        structure = gemmi.read_pdb_string(text)
        structure.setup_entities()
        structure.assign_label_seq_id()
        structure.make_mmcif_document().write_file(str(path))
    else:
        path.write_text(text, encoding="ascii")
    return read_topology(path)[0]


CODED = ["51", "52", "52A", "52B", "53", "54"]


@pytest.mark.parametrize("suffix", ["pdb", "cif"])
def test_residues_with_insertion_codes_are_residues_of_their_own(
    suffix: str, tmp_path: Path
) -> None:
    md = with_codes(tmp_path / f"md.{suffix}", CODED)
    samples = with_codes(tmp_path / "samples.pdb", CODED)
    match = match_atoms(md, samples, "pep")
    assert match.sample_atoms.tolist() == list(range(md.n_atoms)) and not match.notes
    # A residue that one side lacks is not taken for its neighbour of the same number.
    of_52a = next(r for r in md.residues if insertion_code(r) == "A")
    less = md.subset([a.index for a in md.atoms if a.residue is not of_52a])
    with pytest.raises(UserError, match="missing -/52A/"):
        match_atoms(md, less, "pep")


@pytest.mark.parametrize("numbers", [list("123456"), ["101", "102", "103", "104", "105", "106"]])
@pytest.mark.parametrize("swapped", [False, True])
def test_insertion_codes_are_matched_to_plain_numbers_by_sequence(
    numbers: list[str], swapped: bool, tmp_path: Path
) -> None:
    sides = [with_codes(tmp_path / "a.pdb", CODED), with_codes(tmp_path / "b.pdb", numbers)]
    ends = [f"{CODED[0]} to {CODED[-1]}", f"{numbers[0]} to {numbers[-1]}"]
    if swapped:
        sides, ends = sides[::-1], ends[::-1]
    match = match_atoms(*sides, "pep")
    assert match.sample_atoms.tolist() == match.reference_atoms.tolist()
    assert f"- {ends[1]} of the samples are - {ends[0]} of the ref" in match.notes[0]


@pytest.mark.parametrize(
    "numbers",
    [["51", "52", "52A", "53", "54", "55"], ["51", "52", "52A", "52B", "54", "55"]],
    ids=["code lost", "jump"],
)
def test_insertion_codes_that_shift_within_a_chain_are_an_error(
    numbers: list[str], tmp_path: Path
) -> None:
    md, torn = with_codes(tmp_path / "a.pdb", CODED), with_codes(tmp_path / "b.pdb", numbers)
    with pytest.raises(UserError):
        match_atoms(md, torn, "pep")


def test_missing_atoms_are_an_error_that_names_them_or_a_note() -> None:
    md = topology(12)
    without_cb = md.subset([a.index for a in md.atoms if a.name != "CB"])
    with pytest.raises(UserError, match="-/1/CB"):
        match_atoms(md, without_cb, "pep")
    match = match_atoms(md, md.subset(range(md.n_atoms - 1)), "pep")
    assert 0.95 < match.coverage < 1.0
    assert match.notes == ["1 heavy atoms are not in the samples and were left out: -/12/O."]


def test_a_missing_terminal_oxygen_is_tolerated() -> None:
    plain, with_oxt = topology(12), topology(12)
    with_oxt.add_atom("OXT", mdtraj.element.oxygen, list(with_oxt.residues)[-1])
    match = match_atoms(with_oxt, plain, "pep")
    assert (len(match.ca), match.coverage, match.notes) == (12, 1.0, [])
    assert len(match_atoms(with_oxt, with_oxt, "pep").reference_atoms) == with_oxt.n_atoms


def test_alternative_names_are_the_same_atoms() -> None:
    standard, charmm = mdtraj.Topology(), mdtraj.Topology()
    names = {"HIS": ("ND1", "O"), "ILE": ("CD1", "O"), "ALA": ("CB", "O")}
    for top, alias in ((standard, {}), (charmm, {"HIS": "HSD", "CD1": "CD", "OXT": "OT2"})):
        chain = top.add_chain()
        for name, atoms in names.items():
            residue = top.add_residue(alias.get(name, name), chain)
            for atom in ("CA", *atoms, *(("OXT",) if name == "ALA" else ())):
                element = mdtraj.element.Element.getBySymbol(atom[0])
                top.add_atom(alias.get(atom, atom), element, residue)
    match = match_atoms(standard, charmm, "pep")
    assert match.sample_atoms.tolist() == list(range(standard.n_atoms))


def test_atoms_of_a_modified_residue_keep_their_names() -> None:
    """N-formylmethionine has an oxygen O1 that is not the end's O."""
    formyl = topology(4)
    first = formyl.residue(0)
    first.name = "FME"
    formyl.add_atom("O1", mdtraj.element.oxygen, first)
    match = match_atoms(formyl, formyl, "pep")
    assert len(match.sample_atoms) == formyl.n_atoms
    assert match.sample_atoms.tolist() == match.reference_atoms.tolist()


def test_chains_count_where_there_are_several() -> None:
    dimer = topology(4, chains="AB")
    swapped = topology(4, chains="BA")
    half = dimer.n_atoms // 2
    match = match_atoms(dimer, swapped, "pep")
    assert match.sample_atoms.tolist() == [*range(half, 2 * half), *range(half)]
    assert len(match_atoms(topology(4), topology(4, chains="X"), "pep").ca) == 4
    with pytest.raises(UserError, match="only 50"):
        match_atoms(dimer, topology(4), "pep")
    with pytest.raises(UserError, match="A/1/N occurs twice"):
        match_atoms(topology(4, chains="AA"), dimer, "pep")


def test_c_alpha_ensembles_are_marked_and_have_no_exposure() -> None:
    md, samples = peptide(2, replicas=2), peptide(3)
    is_ca = [a.index for a in md.topology.atoms if a.name == "CA"]
    ca = InMemory(
        topology(12, ca_only=True), samples.structure_xyz[is_ca], {1: samples.replicas[1][:, is_ca]}
    )
    found, all_atoms = evaluated(md, ca), evaluated(md, samples)
    assert (found.counts["ca_only"], all_atoms.counts["ca_only"]) == (1.0, 0.0)
    assert found.counts["n_atoms"] == 12
    for key in ("pairwise_rmsd", "md_pca_w2", "pc1_cosine", "weak_contacts_jaccard"):
        assert found.values[key] == pytest.approx(all_atoms.values[key], rel=1e-6), key
    assert np.isnan(found.values["exposed_residue_jaccard"])
    assert np.isnan(found.values["exposed_mi_spearman"])
    assert "md_exposed" not in found.arrays
    assert any("C-alpha atoms only" in note for note in found.notes)


# --- streaming ---


def test_streamed_moments_are_those_of_all_frames_at_once() -> None:
    md, samples = peptide(2, n_frames=300, replicas=2), peptide(3)
    found = evaluated(md, samples).arrays
    xyz = np.concatenate(list(md.replicas.values())).astype(np.float64)
    heavy = superpose(xyz, md.structure_xyz)
    assert found["md_rmsf"] == pytest.approx(rmsf(heavy), rel=1e-9)
    is_ca = [a.index for a in md.topology.atoms if a.name == "CA"]
    ca = superpose(xyz[:, is_ca], md.structure_xyz[is_ca])
    assert found["md_ca_rmsf"] == pytest.approx(rmsf(ca), rel=1e-9)
    for replica, expected in enumerate((ca[:300], ca[300:])):
        assert found["md_ca_rmsf_replicas"][replica] == pytest.approx(rmsf(expected), rel=1e-9)
    projected = principal_components(ca).project(superpose(
        samples.replicas[1][:, is_ca].astype(np.float64), md.structure_xyz[is_ca]
    ))  # fmt: skip
    assert found["sample_pca"] == pytest.approx(projected, abs=1e-5)


def test_draws_are_alphaflows_and_the_floor_draws_from_the_right_replicas() -> None:
    draws = Draws.of({1: 30, 2: 50, 3: 20}, n_samples=25, n_plotted=1500, seed=137)
    random = np.random.RandomState(137)
    for found, n in ((draws.first, 25), (draws.second, 25), (draws.gaussian, 1000)):
        assert np.array_equal(found, random.randint(0, 100, n))
    assert sorted(draws.plotted) == list(range(100))
    replica_of = np.repeat([1, 2, 3], [30, 50, 20])
    assert np.array_equal(draws.gaussian_replica, replica_of[draws.gaussian])
    for replica, floor in draws.floor.items():
        assert set(replica_of[floor.own]) == {replica}
        others = np.concatenate([floor.others, floor.second_others])
        assert set(replica_of[others]) == {1, 2, 3} - {replica}
    assert Draws.of({1: 30}, 5, 10, 137).floor == {}


def test_a_file_that_ends_early_is_an_error() -> None:
    class Cut(InMemory):
        def chunks(self, replica: int, atoms: np.ndarray, size: int) -> Iterator[np.ndarray]:
            yield self.replicas[replica][:-1][:, atoms]

    md = peptide(2)
    with pytest.raises(UserError, match="59 frames, 60 were expected"):
        evaluated(Cut(md.topology, md.structure_xyz, md.replicas), peptide(3))


def test_one_conformation_is_not_an_ensemble() -> None:
    with pytest.raises(UserError, match="1 conformations in the samples"):
        evaluated(peptide(2), peptide(3, n_frames=1))


# --- superposition ---


def test_superposition_undoes_a_rigid_motion_but_no_reflection() -> None:
    structure = np.random.default_rng(0).normal(size=(20, 3))
    centred = structure - structure.mean(axis=0)
    moved = (structure @ rotation(7) + 100.0)[None]
    assert superpose(moved, structure)[0] == pytest.approx(centred, abs=1e-12)
    mirrored = superpose((structure * [-1.0, 1.0, 1.0])[None], structure)[0]
    assert np.abs(mirrored - centred).max() > 0.1
    assert np.linalg.norm(mirrored[1] - mirrored[0]) == pytest.approx(
        np.linalg.norm(structure[1] - structure[0])
    )


# --- metrics whose value can be written down ---


def test_identical_gaussians_have_no_distance_and_singular_ones_no_nan() -> None:
    xyz = peptide(2).replicas[1].astype(np.float64)
    for frames in (xyz, xyz[:2], np.repeat(xyz[:1], 5, axis=0)):
        translation, variance = gaussian_distances(frames, frames)
        assert translation.max() == 0.0
        assert variance.max() < 1e-6


def test_gaussian_distance_of_known_gaussians() -> None:
    """With commuting covariances the covariance part is the distance of the roots."""
    points = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1.0]])
    # Covariances diag(a, b, c)^2 / 3, means 0 and (3, 4, 0).
    scale_1, scale_2 = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 1.0])
    first = (points * scale_1)[:, None] @ rotation(1)
    second = (points * scale_2)[:, None] @ rotation(1) + np.array([3.0, 4.0, 0.0])
    translation, variance = gaussian_distances(first, second)
    assert translation[0] == pytest.approx(5.0)
    assert variance[0] == pytest.approx(np.sqrt(np.square(scale_1 - scale_2).sum() / 3.0))


def test_rmsf_is_about_the_own_mean_and_pools_chunks() -> None:
    xyz = np.zeros((5000, 2, 3), dtype=np.float32)
    xyz[::2, 1, 0] = 2.0
    assert rmsf(xyz + np.float32(1000.0)) == pytest.approx([0.0, 1.0])


def test_pearson_limits() -> None:
    x = np.array([1.0, 2.0, 4.0])
    assert pearson(x, 3.0 * x + 1.0) == pytest.approx(1.0)
    assert pearson(x, -x) == pytest.approx(-1.0)
    assert np.isnan(pearson(x, np.ones(3)))
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert np.isnan(spearman(np.ones(3), x))
    assert root_mean_square(np.array([3.0, 4.0])) == pytest.approx(np.sqrt(12.5))


def test_pairwise_rmsd_of_two_conformations_counts_the_diagonal() -> None:
    two = np.zeros((2, 4, 3))
    two[1, :, 0] = 3.0
    assert mean_pairwise_rmsd(two, two) == pytest.approx(1.5)
    assert mean_pairwise_rmsd(two[:1], two[1:]) == pytest.approx(3.0)


def test_jaccard_limits() -> None:
    a, b = np.array([True, True, False]), np.array([False, True, False])
    assert jaccard(a, b) == 0.5
    assert jaccard(a, a) == 1.0
    assert np.isnan(jaccard(a & ~a, b & ~b))


def test_w2_of_a_shifted_ensemble_is_the_shift() -> None:
    points = np.random.default_rng(0).normal(size=(50, 2))
    shifted = np.random.default_rng(1).permutation(points) + np.array([3.0, 4.0])
    assert wasserstein2(points, shifted) == pytest.approx(5.0)
    with pytest.raises(ValueError, match="50 and 49"):
        wasserstein2(points, shifted[:-1])


@pytest.mark.parametrize("n_frames", [8, 400])
def test_pca_finds_the_axes_by_covariance_and_by_gram_matrix(n_frames: int) -> None:
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(15, 2)))[0].T
    amplitudes = np.random.default_rng(1).normal(size=(n_frames, 2))
    amplitudes -= amplitudes.mean(axis=0)
    amplitudes = np.linalg.qr(amplitudes)[0] * [30.0, 10.0]
    xyz = (amplitudes @ axes).reshape(n_frames, 5, 3) + 7.0
    found = principal_components(xyz)
    assert np.abs(found.axes @ axes.T) == pytest.approx(np.eye(2), abs=1e-9)
    assert np.abs(found.project(xyz)) == pytest.approx(np.abs(amplitudes) / np.sqrt(5), abs=1e-9)


def test_pca_beyond_the_rank_is_zero() -> None:
    xyz = np.zeros((2, 5, 3))
    xyz[1] = 1.0
    found = principal_components(xyz)
    assert np.linalg.norm(found.axes, axis=1) == pytest.approx([1.0, 0.0])


# --- exposure ---


def noisy_globule(n_frames: int) -> tuple[mdtraj.Topology, np.ndarray]:
    structure = mdtraj.load(str(DATA / "cobrotoxin" / "cobrotoxin.pdb"))
    structure = structure.atom_slice(structure.topology.select("element != H"))
    noise = np.random.default_rng(0).normal(0.0, 0.6, (n_frames, structure.n_atoms, 3))
    return structure.topology, (10.0 * structure.xyz + noise).astype(np.float32)


def test_exposure_is_mdtrajs_of_single_frames_to_the_bit() -> None:
    top, xyz = noisy_globule(6)
    side = SideChains.of(list(top.atoms), np.array([a.residue.index for a in top.atoms]))
    frames = mdtraj.Trajectory((xyz / 10.0).astype(np.float32), top)
    areas = np.concatenate([mdtraj.shrake_rupley(f, probe_radius=0.28) for f in frames])
    exposed = side.by_residue(areas) > EXPOSED_NM2
    assert 0.2 < exposed.mean() < 0.9
    assert np.array_equal(side.exposed(xyz), exposed)
    ours = (side.points(xyz) * side.nm2_per_point).astype(np.float32)
    assert np.array_equal(ours[:, side.counted], areas[:, side.counted])
    assert np.array_equal(side.buried(xyz[0]), side.by_residue(areas)[0] < EXPOSED_NM2)
    shuffled = np.random.default_rng(1).permutation(top.n_atoms)
    scattered = SideChains.of([top.atom(i) for i in shuffled], side.residue[shuffled])
    assert np.array_equal(scattered.exposed(xyz[:, shuffled]), exposed)


def test_mutual_information_limits() -> None:
    coin = np.random.default_rng(0).integers(0, 2, 4000).astype(bool)
    other = np.random.default_rng(1).integers(0, 2, 4000).astype(bool)
    always = np.ones(4000, dtype=bool)
    found = mutual_information(np.stack([coin, ~coin, other, always], axis=1))
    p = coin.mean()
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    assert found[0, 1] == pytest.approx(entropy)
    assert 0.0 <= found[0, 2] < 0.002
    # What is always exposed tells nothing, but for rounding.
    assert np.abs(found[3]).max() < 1e-15
    assert not np.diag(found).any()


def test_an_isolated_side_chain_is_exposed_and_a_walled_in_one_is_not() -> None:
    top = topology(2)
    xyz = np.random.default_rng(0).normal(0.0, 1.0, (1, top.n_atoms, 3)).astype(np.float32)
    side = SideChains.of(list(top.atoms), np.array([a.residue.index for a in top.atoms]))
    assert side.exposed(xyz).tolist() == [[True, True]]
    wall = mdtraj.Topology()
    residue = wall.add_residue("ALA", wall.add_chain())
    for _ in range(201):
        wall.add_atom("CB", mdtraj.element.carbon, residue)
    points = np.random.default_rng(0).normal(size=(200, 3))
    points *= 4.0 / np.linalg.norm(points, axis=1, keepdims=True)
    rows = np.array([0] + [1] * 200)
    closed = SideChains.of(list(wall.atoms), rows)
    xyz = np.concatenate([np.zeros((1, 3)), points])[None].astype(np.float32)
    assert closed.exposed(xyz).tolist() == [[False, True]]


# --- limits of the whole ---


def test_an_ensemble_against_itself() -> None:
    md = peptide(2, n_frames=400)
    found = evaluated(md, md).values
    for key in ("rmsf_pearson", "pc1_cosine"):
        assert found[key] == pytest.approx(1.0), key
    for key in ("weak_contacts_jaccard", "transient_contacts_jaccard", "exposed_residue_jaccard"):
        assert found[key] > 0.85, key
    # RMWD and W2 compare with draws from the MD: small, not zero.
    assert found["pairwise_rmsd"] == pytest.approx(found["md_pairwise_rmsd"], rel=0.1)
    assert found["rmwd"] < 0.15
    assert found["md_pca_w2"] < 0.25


def test_rmwd_and_w2_of_gaussian_ensembles_are_those_of_the_formulas() -> None:
    """All atoms isotropic; the samples swell about the same mean.

    RMWD, variance: sqrt(3) (s2 - s1). Along any axis the projection, divided by sqrt(L), is a
    Gaussian with s / sqrt(L), so W2 in a plane is sqrt(2 / L) (s2 - s1), and independent
    conformations are sqrt(6) s apart.
    """
    s1, s2, n = 0.25, 0.75, 40
    top = topology(n)
    structure = np.random.default_rng(0).normal(0.0, 20.0, (top.n_atoms, 3))
    random = np.random.default_rng(4)
    md, samples = (
        InMemory(
            top,
            structure,
            {1: (structure + random.normal(0.0, s, (f, top.n_atoms, 3))).astype(np.float32)},
        )
        for s, f in ((s1, 6000), (s2, 400))
    )
    found = evaluated(md, samples).values
    assert found["rmwd_translation"] < 0.08
    assert found["rmwd_variance"] == pytest.approx(np.sqrt(3.0) * (s2 - s1), rel=0.03)
    assert found["rmwd"] == pytest.approx(np.sqrt(3.0) * (s2 - s1), rel=0.03)
    assert found["md_pca_w2"] == pytest.approx(np.sqrt(2.0 / n) * (s2 - s1), rel=0.15)
    assert found["md_pairwise_rmsd"] == pytest.approx(np.sqrt(6.0) * s1, rel=0.03)
    diagonal = 1.0 - 1.0 / 400
    assert found["pairwise_rmsd"] == pytest.approx(diagonal * np.sqrt(6.0) * s2, rel=0.03)


def test_the_floor_is_below_a_wrong_ensemble_and_needs_two_replicas() -> None:
    samples = peptide(9, spread=2.0)
    found = evaluated(peptide(2, replicas=3, n_frames=200), samples)
    assert len(found.floor) == 3
    assert found.arrays["floor_rmsf"].shape == (3, 2, found.counts["n_atoms"])
    for floor in found.floor:
        assert floor.keys() >= EXPECTED_KEYS.keys()
        assert floor["rmwd"] < 0.5 * found.values["rmwd"]
    alone = evaluated(peptide(2), samples)
    assert alone.floor == []
    assert any("one replica" in note for note in alone.notes)


@pytest.mark.parametrize("n_samples", [2, 3])
def test_few_samples_give_numbers_or_nan_with_a_reason(n_samples: int) -> None:
    found = evaluated(peptide(2), peptide(3, n_frames=n_samples))
    assert np.isfinite([found.values[key] for key in ("rmwd", "md_pca_w2", "pc1_cosine")]).all()
    undefined = [key for key in EXPECTED_KEYS if np.isnan(found.values[key])]
    assert [note.split()[0] for note in found.notes if "is not defined:" in note] == undefined


def test_an_ensemble_that_does_not_move_has_no_correlation() -> None:
    still = peptide(3)
    still = dataclasses.replace(still, replicas={1: np.repeat(still.replicas[1][:1], 20, axis=0)})
    found = evaluated(peptide(2), still)
    for key in ("rmsf_pearson", "pc1_cosine", "exposed_mi_spearman"):
        assert np.isnan(found.values[key]), key
        assert any(note.startswith(f"{key} is not defined: ") for note in found.notes)
    assert found.values["pairwise_rmsd"] == 0.0
    assert np.isfinite(found.values["rmwd"])


# --- fidelity ---


def test_numbers_are_those_of_other_libraries() -> None:
    """Of mdtraj, scikit-learn, POT and scipy, see scripts/make_eval_expected.py."""
    structure = mdtraj.load(str(DATA / "cobrotoxin" / "cobrotoxin.pdb"))
    structure = structure.atom_slice(structure.topology.select("element != H"))
    md, samples = (
        InMemory(
            structure.topology,
            10.0 * structure.xyz[0],
            {1: 10.0 * fluctuating(structure.xyz[0], seed, n, size)},
        )
        for seed, n, size in ((1, 120, 0.2), (2, 20, 0.25))
    )
    expected = json.loads((DATA / "eval_expected.json").read_text())
    found = evaluated(md, samples).values
    # The protocol's own formula ranks rounding errors.
    expected["exposed_mi_spearman_exact"] = expected.pop("exposed_mi_spearman")
    assert {key: found[key] for key in expected} == close(2e-5, expected)


def test_pairs_without_information_tie_only_where_rounding_is_counted_as_zero() -> None:
    """Thirty of fifty residues never change: the protocol ranks what is left of 1 - s / n."""
    sides = []
    for seed in (0, 1):
        random = np.random.default_rng(seed)
        moving = random.random((250, 20)) < random.uniform(0.1, 0.9, 20)
        sides.append(np.concatenate([moving, np.zeros((250, 30), dtype=bool)], axis=1))
    exact = information_correlation(*sides, exact=True)
    assert exact > 0.9
    assert information_correlation(*sides) < exact - 0.05


def fluctuating(xyz_nm: np.ndarray, seed: int, n_frames: int, size_nm: float) -> np.ndarray:
    """Five slow waves through the structure and a little noise: `[F, N, 3]`."""
    random = np.random.RandomState(seed)
    centred = xyz_nm - xyz_nm.mean(axis=0)
    result = np.repeat(centred[None].astype(np.float64), n_frames, axis=0)
    for wave in range(1, 6):
        field = np.sin(wave * (centred[:, [1, 2, 0]] + 0.3 * wave))
        result += random.normal(size=(n_frames, 1, 1)) * field * size_nm / wave
    return (result + random.normal(scale=0.04, size=result.shape)).astype(np.float32)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_areas_go_over_from_frame_to_frame_as_mdtrajs_do(n_threads: int) -> None:
    top, xyz = noisy_globule(7)
    side = SideChains.of(list(top.atoms), np.array([a.residue.index for a in top.atoms]))
    frames = mdtraj.Trajectory((xyz / 10.0).astype(np.float32), top)
    with threadpool_limits(n_threads):
        areas = mdtraj.shrake_rupley(frames, probe_radius=0.28)[:, side.counted]
    points = side.points(xyz)
    found = carried_areas(points, side.nm2_per_point, thread_starts(len(xyz), n_threads))
    assert np.array_equal(found[:, side.counted], areas)
    assert not np.array_equal(found, (points * side.nm2_per_point).astype(np.float32))


def test_only_alphaflows_exposure_depends_on_the_order_of_the_samples_atoms() -> None:
    md, samples = peptide(2), peptide(3)
    found = evaluated(md, samples, compat="alphaflow-1.9.9")
    assert found.compat.keys() == EXPECTED_KEYS.keys()
    same = [key for key in found.compat if not key.startswith("exposed")]
    assert [found.compat[key] for key in same] == [found.values[key] for key in same]
    other = evaluated(md, reversed_atoms(samples), compat="alphaflow-1.9.9")
    assert other.values == close(1e-9, found.values)
    assert abs(other.compat["exposed_mi_spearman"] - found.compat["exposed_mi_spearman"]) > 0.01
    assert evaluated(md, samples).compat == {}


def test_chains_that_alphaflow_mixes_up_have_no_compatible_values() -> None:
    one = peptide(2, n=6)
    xyz = one.replicas[1]
    dimer = InMemory(
        topology(6, chains="AB"),
        np.concatenate([one.structure_xyz, one.structure_xyz + 30.0]),
        {1: np.concatenate([xyz, xyz[::-1] + 30.0], axis=1)},
    )
    found = evaluated(dimer, dimer, compat="alphaflow-1.9.9")
    assert np.isnan(list(found.compat.values())).all()
    assert any("ignores chains" in note for note in found.notes)
    assert np.isfinite(found.values["rmwd"])


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match=r"expected alphaflow-1\.9\.9"):
        TargetSettings(compat="alphaflow")
    with pytest.raises(UserError, match="1 or more"):
        TargetSettings(compat="alphaflow-1.9.9", compat_threads=0)


EXPECTED_KEYS = {
    "pairwise_rmsd": "Pairwise RMSD",
    "md_pairwise_rmsd": "MD pairwise RMSD",
    "rmsf_pearson": "target RMSF r",
    "rmwd": "RMWD",
    "rmwd_translation": "trans",
    "rmwd_variance": "var",
    "md_pca_w2": "MD PCA W2",
    "joint_pca_w2": "joint PCA W2",
    "pc1_cosine": "|cos PC1|",
    "weak_contacts_jaccard": "weak J",
    "transient_contacts_jaccard": "trans J",
    "exposed_residue_jaccard": "exposed J",
    "exposed_mi_spearman": "MI rho",
}


@pytest.fixture(
    scope="module", params=["heavy atoms", pytest.param("all atoms", marks=pytest.mark.slow)]
)
def reference(request: pytest.FixtureRequest) -> Path:
    """The reference ensembles as this repository has them, and as they were made."""
    if request.param == "heavy atoms":
        return request.getfixturevalue("eval_reference")
    if not SHARED.is_dir():
        pytest.skip("needs the ensembles with hydrogens in shared/data, see docs/checks.md")
    return SHARED


@pytest.fixture(scope="module")
def published(
    reference: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, dict[str, float]]]:
    """Order of the atoms to ours and AlphaFlow's values and to the expected ones."""
    md = find_references(reference / "4ew5_A")[0]["4ew5_A"]
    expected = json.loads((reference / "expected.json").read_text())["4ew5_A"]
    by_kind = {key.split()[0].rstrip(","): value for key, value in expected.items()}
    result = {"expected": {k: {key: v[name] for key, name in EXPECTED_KEYS.items()}
                           for k, v in by_kind.items()}}  # fmt: skip
    for order in ("good_af37", "good_reforder"):
        path = tmp_path_factory.mktemp(order) / "4ew5_A.pdb"
        packed = reference / "pred" / f"4ew5_A.{order}.pdb.gz"
        path.write_bytes(gzip.decompress(packed.read_bytes()))
        (samples,) = find_samples([path])[0].values()
        compat = "alphaflow-1.9.9" if order == "good_af37" else None
        found = evaluated(md, samples, compat=compat, compat_threads=2, beyond=False)
        ours = {key: found.values[key] for key in EXPECTED_KEYS}
        result[order] = {"values": ours, "compat": found.compat}
        result[order]["medians"] = {
            "MD": float(np.median(found.arrays["md_rmsf"])),
            "samples": float(np.median(found.arrays["sample_rmsf"])),
        }
    result["medians"] = {"order_invariant": {
        "MD": by_kind["order_invariant"]["MD RMSF(med)"],
        "samples": by_kind["order_invariant"]["RMSF(med)"],
    }}  # fmt: skip
    return result


def test_both_orders_of_atoms_give_the_correct_numbers(published) -> None:
    expected = published["expected"]["order_invariant"]
    for order in ("good_af37", "good_reforder"):
        assert published[order]["values"] == close(1e-6, expected)
        assert published[order]["medians"] == close(1e-5, published["medians"]["order_invariant"])
    assert published["good_af37"]["values"] == close(1e-12, published["good_reforder"]["values"])


def test_alphaflows_own_numbers_are_repeated_for_the_order_of_the_file(published) -> None:
    expected = published["expected"]["alphaflow_script_mdtraj_1.9.9"]
    assert published["good_af37"]["compat"] == close(1e-6, expected)
