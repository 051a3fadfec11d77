"""Structures that nobody here made, and odd ones: read as gemmi reads them, or refused."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import gemmi
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openmm import app, unit
from plain_openmm import plain_energies

from protenix_eba.core.errors import UserError
from protenix_eba.energy.protocol import protocol_by_name
from protenix_eba.energy.structure import complete_structure
from protenix_eba.energy.system import TargetEnergy
from protenix_eba.protein.residue_names import CAP_ATOMS
from protenix_eba.structures.md_topology import read_protein

# Folders of packages that the tests may have, with structures.
FOLDERS = [("pdbfixer", "tests/data"), ("openmm", "app/data"), ("fastmdanalysis", "data"),
           ("pdbeccdutils", "tests/test_files")]  # fmt: skip
LARGEST = 1_500_000  # bytes; reading takes a second for each megabyte
THYMOPENTIN = (
    Path(__file__).parents[2] / "protenix_eba" / "demo_data" / "thymopentin" / "thymopentin.pdb"
)


def files_of_others() -> list[Path]:
    found: list[Path] = []
    for package, folder in FOLDERS:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            inside = sorted((Path(spec.origin).parent / folder).rglob("*"))
            found += [p for p in inside if p.suffix in (".pdb", ".cif", ".ent")]
    return [path for path in found if path.stat().st_size < LARGEST]


# Names of MD programs that gemmi's table of the PDB's components has not, or has as others.
MD_NAMES = {"LYN": "K", "LYP": "K", "HID": "H", "HIE": "H", "HIP": "H", "CYX": "C"}


def letter(name: str) -> str:
    known = gemmi.find_tabulated_residue(name).one_letter_code.upper()
    return MD_NAMES.get(name, known)


def read_by_gemmi(path: Path) -> tuple[str, list[int]]:
    """Amino acids of the first model, by name or by their backbone, and how many atoms each has.

    Of alternate locations of an atom one counts.
    """
    structure = gemmi.read_structure(str(path))
    structure.setup_entities()
    letters, atoms = [], []
    for chain in structure[0]:
        for residue in chain:
            names = {atom.name for atom in residue}
            known = residue.name in MD_NAMES
            known |= gemmi.find_tabulated_residue(residue.name).is_amino_acid()
            if known or {"N", "CA", "C"} <= names:
                letters.append(letter(residue.name))
                atoms.append(len(names))
    return "".join(letters), atoms


def read_here(path: Path) -> tuple[str, list[int]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = read_protein(path)
    protein = [residue for residue in source.residues if residue.name not in CAP_ATOMS]
    letters = "".join(letter(residue.name) for residue in protein)
    return letters, [len(residue.atoms) for residue in protein]


@pytest.mark.parametrize("path", files_of_others(), ids=lambda path: path.name)
def test_a_file_of_a_package_has_gemmis_sequence_and_atoms_or_is_refused(path: Path) -> None:
    try:
        found = read_here(path)
    except UserError:
        return
    assert found == read_by_gemmi(path)


LINES = [
    line for line in THYMOPENTIN.read_text(encoding="utf-8").splitlines() if line[:4] == "ATOM"
]


@st.composite
def odd_structures(draw: st.DrawFn) -> list[str]:
    """Thymopentin with other numbers, insertion codes, chain, names, fewer atoms, a cap."""
    # Near each other, so that codes matter; of equal ones gemmi makes one residue.
    place = st.tuples(st.integers(-9, 9), st.sampled_from(" AB"))
    places = draw(st.lists(place, min_size=5, max_size=5, unique=True))
    shift = draw(st.sampled_from([0, 99, 9990]))
    chain = draw(st.sampled_from("A z9"))
    lysine = draw(st.sampled_from(["LYS", "LYN", "LYP", "KCX", "ALA"]))
    gone = draw(st.sets(st.integers(0, len(LINES) - 1), max_size=6))
    made = []
    if draw(st.booleans()):
        name = draw(st.sampled_from(["ACE", "FOR", "GLY"]))
        made = [f"HETATM    1  CH3 {name} {chain}   0      20.000  20.000  20.000  1.00  0.00"
                "           C"]  # fmt: skip
    for index, line in enumerate(LINES):
        if index in gone:
            continue
        which = int(line[22:26]) - 1
        name = f"{lysine:<4s}" if which == 1 else line[17:20] + " "
        number, code = places[which]
        made.append(f"{line[:17]}{name}{chain}{number + shift:4d}{code}{line[27:]}")
    return made


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=odd_structures())
def test_an_odd_structure_has_gemmis_sequence_and_atoms_or_is_refused(
    lines: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "odd.pdb"
    path.write_text("\n".join([*lines, "END", ""]), encoding="utf-8")
    try:
        found = read_here(path)
    except UserError:
        return
    assert found == read_by_gemmi(path)


@pytest.mark.parametrize(
    ("chain", "places"),
    [("z", "-9 ,-9A,0 ,1 ,1B"), ("9", "9998 ,9999 ,9999A,9999B,9999C"), (" ", "5A,5 ,7 ,8 ,2 ")],
    ids=["codes and negative numbers", "the last number", "out of order"],
)
def test_odd_numbers_change_no_energy_of_plain_openmm(
    chain: str, places: str, tmp_path: Path
) -> None:
    numbers = [f"{place:>5s}" for place in places.split(",")]
    lines = [f"{s[:21]}{chain}{numbers[int(s[22:26]) - 1]}{s[27:]}" for s in LINES]
    path = tmp_path / "odd.pdb"
    path.write_text("\n".join([*lines, "END", ""]), encoding="utf-8")
    structure = complete_structure(path)
    assert structure.topology.getNumAtoms() == len(LINES)
    as_is = protocol_by_name("default", minimise=False)
    label = TargetEnergy(structure, as_is, "Reference").label(structure.reference_nm)

    file = app.PDBFile(str(THYMOPENTIN))
    xyz_nm = np.array(file.positions.value_in_unit(unit.nanometer))
    expected = plain_energies(file.topology, xyz_nm[None], as_is.force_field)
    assert [label.energy_kj_mol] == pytest.approx(expected, abs=0.15)
