"""An MD's own force field: energies of plain OpenMM from its files, atoms matched by name.

`tests/data/md_files` was made by ParmEd 4.3.1 from Systems of OpenMM's ff14SB without constraints:
`parmed.openmm.load_topology(topology, system, xyz).save(...)`, radii by `changeRadii mbondi3` (that
of the last residue's O mended, which it gave to the atom before OXT). The PSF has a type for each
atom, CHARMM's names, and the caps inside the residue, as its patches do.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
from click.testing import CliRunner
from openmm import app, unit
from plain_openmm import DIPEPTIDE, evaluated, plain_system

from protenix_eba.cli.label import label
from protenix_eba.core.errors import UserError
from protenix_eba.energy.functions import create_system
from protenix_eba.energy.label import label_targets
from protenix_eba.energy.md_energy import part_of
from protenix_eba.energy.md_files import MdFile, MdFiles
from protenix_eba.energy.md_structure import md_structure
from protenix_eba.energy.protocol import PROTOCOLS, EnergyProtocol, customised
from protenix_eba.energy.structure import complete_structure
from protenix_eba.energy.table import EnergyLabels, read_labels
from protenix_eba.structures.frame_choice import FrameChoice

FILES = Path(__file__).parents[1] / "data" / "md_files"
GRGDS = Path(__file__).parents[2] / "protenix_eba" / "demo_data" / "grgds"
AS_IS = replace(PROTOCOLS["published"], minimise=False)
FEW = FrameChoice(stride=10_000)
MODELS = {"gbn2": app.GBn2, "obc2": app.OBC2, "none": None}


def frames_nm() -> np.ndarray:
    """The frames of grgds that FEW takes, one of each replica, `[F, M, 3]`."""
    paths = sorted(GRGDS.glob("*.xtc"))
    first = [mdtraj.load(str(path), top=str(GRGDS / "grgds.pdb")).xyz[0] for path in paths]
    return np.array(first, dtype=np.float64)


def labelled(
    path: Path, out: Path, inputs: Any = GRGDS, base: EnergyProtocol = AS_IS, **changes: Any
) -> EnergyLabels:
    systems = MdFiles.find(path)
    protocol = customised(base, system=True, **changes)
    return label_targets(inputs, out, protocol, systems=systems, choice=FEW).labels


def ff14sb(*solvent: str) -> openmm.System:
    """Return the System of grgds as OpenMM's own files have it, X-H bonds rigid."""
    topology = app.PDBFile(str(GRGDS / "grgds.pdb")).topology
    return plain_system(topology, ("amber14/protein.ff14SB.xml", *solvent))


def energies(system: openmm.System, xyz_nm: np.ndarray) -> list[float]:
    return [evaluated(system, xyz)[0] for xyz in xyz_nm]


@pytest.mark.parametrize(
    ("solvent", "salt"), [("gbn2", 0.0), ("gbn2", 150.0), ("obc2", 0.0), ("none", 0.0)]
)
def test_a_prmtop_has_the_energies_that_plain_openmm_reads_from_it(
    solvent: str, salt: float, tmp_path: Path
) -> None:
    """Of OBC2, whose radii the file has not, from ff14SB."""
    labels = labelled(FILES / "grgds.prmtop", tmp_path / "l.parquet", solvent=solvent, salt_mM=salt)
    plain = (
        ff14sb("implicit/obc2.xml")
        if solvent == "obc2"
        else app.AmberPrmtopFile(str(FILES / "grgds.prmtop")).createSystem(
            implicitSolvent=MODELS[solvent],
            implicitSolventSaltConc=salt * 1e-3 * unit.molar,
            temperature=300 * unit.kelvin,
            constraints=app.HBonds,
        )
    )
    assert labels.energy_kj_mol == pytest.approx(energies(plain, frames_nm()), abs=0.05)
    assert (labels.status == "ok").all() and (labels.n_residues == 5).all()
    assert np.isnan(labels.energy_solvent_kj_mol).all() == (solvent == "none")


def test_a_prmtop_of_ff14sb_gives_the_labels_of_ff14sb_minimised_as_well(tmp_path: Path) -> None:
    base = PROTOCOLS["default"]
    ours = labelled(FILES / "grgds.prmtop", tmp_path / "l.parquet", base=base)
    protocol = customised(base, force_field="amber14")
    theirs = label_targets(GRGDS, tmp_path / "f.parquet", protocol, choice=FEW).labels
    assert ours.initial_energy_kj_mol == pytest.approx(theirs.initial_energy_kj_mol, abs=0.05)
    assert ours.energy_kj_mol == pytest.approx(theirs.energy_kj_mol, abs=0.5)
    assert (ours.energy_kj_mol < ours.initial_energy_kj_mol - 100).all()


def gromacs(folder: Path) -> Path:
    """Write grgds' topology with its types in a file that it includes, water and salt behind."""
    text = (FILES / "grgds.top").read_text()
    types, rest = text[: text.index("[ moleculetype ]")], text[text.index("[ moleculetype ]") :]
    (folder / "field.ff").mkdir()
    types += "OW 8 16.0 0.0 A 0.315 0.636\nHW 1 1.008 0.0 A 0.1 0.0\nNa 11 22.99 0.0 A 0.24 0.366\n"
    (folder / "field.ff" / "types.itp").write_text(types)
    (folder / "field.ff" / "field.itp").write_text('#include "types.itp"\n')
    water = """
[ moleculetype ]
SOL 2
[ atoms ]
1 OW 1 SOL OW 1 -0.834
2 HW 1 SOL HW1 1 0.417
3 HW 1 SOL HW2 1 0.417
[ settles ]
1 1 0.09572 0.15139
[ exclusions ]
1 2 3
2 1 3
3 1 2
[ moleculetype ]
NA 1
[ atoms ]
1 Na 1 NA NA 1 1.0
"""
    rest = rest.replace("[ system ]", f"{water}\n[ system ]")
    (folder / "topol.top").write_text(f'#include "field.ff/field.itp"\n{rest}\nSOL 3\nNA 2\n')
    return folder / "topol.top"


def test_a_gromacs_topology_with_includes_loses_its_water_and_salt(tmp_path: Path) -> None:
    top = gromacs(tmp_path)
    dry = app.GromacsTopFile(str(FILES / "grgds.top")).createSystem(constraints=app.HBonds)
    assert app.GromacsTopFile(str(top)).topology.getNumAtoms() == dry.getNumParticles() + 11
    vacuum = labelled(top, tmp_path / "v.parquet", solvent="none").energy_kj_mol
    assert vacuum == pytest.approx(energies(dry, frames_nm()), abs=0.05)
    wet = labelled(top, tmp_path / "w.parquet").energy_kj_mol
    amber = labelled(FILES / "grgds.prmtop", tmp_path / "a.parquet").energy_kj_mol
    assert wet == pytest.approx(amber, abs=0.1)


def dipeptide(folder: Path) -> Path:
    """Write the alanine dipeptide's heavy atoms as a frame."""
    (folder / "ala.pdb").write_text(DIPEPTIDE)
    return folder / "ala.pdb"


@pytest.mark.parametrize("solvent", MODELS)
def test_a_psf_with_caps_inside_its_residue_fits_frames_without_hydrogens(
    solvent: str, tmp_path: Path
) -> None:
    pdb = dipeptide(tmp_path)
    labels = labelled(FILES / "dipeptide.psf", tmp_path / "l.parquet", pdb, solvent=solvent)
    structure = complete_structure(pdb)
    plain = app.CharmmPsfFile(str(FILES / "dipeptide.psf")).createSystem(
        app.CharmmParameterSet(str(FILES / "dipeptide.prm")),
        implicitSolvent=MODELS[solvent],
        constraints=app.HBonds,
        flexibleConstraints=False,
        sasaMethod="ACE",
    )
    expected = evaluated(plain, structure.reference_nm)[0]
    assert labels.energy_kj_mol[0] == pytest.approx(expected, abs=0.05)
    assert labels.n_residues[0] == 1 and labels.built_fraction[0] == pytest.approx(12 / 22)


def serialised(folder: Path, system: openmm.System, topology: Any, xyz_nm: Any) -> Path:
    (folder / "grgds.xml").write_text(openmm.XmlSerializer.serialize(system))
    with (folder / "grgds.pdb").open("w") as handle:
        app.PDBFile.writeFile(topology, xyz_nm, handle, keepIds=True)
    return folder / "grgds.xml"


def test_a_serialised_system_in_a_box_of_water_becomes_that_of_its_solute(tmp_path: Path) -> None:
    """PME, a barostat, water, salt and heavy hydrogens of the MD."""
    pdb = app.PDBFile(str(GRGDS / "grgds.pdb"))
    field = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
    box = app.Modeller(pdb.topology, pdb.positions)
    box.addSolvent(field, padding=0.3 * unit.nanometer, ionicStrength=0.5 * unit.molar)
    wet = field.createSystem(
        box.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.5 * unit.nanometer,
        constraints=app.HBonds,
        hydrogenMass=3.0,
    )
    wet.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    assert wet.getNumParticles() > 1000
    path = serialised(tmp_path, wet, box.topology, box.positions)
    for solvent, files in (("none", ()), ("gbn2", ("implicit/gbn2.xml",))):
        labels = labelled(path, tmp_path / f"{solvent}.parquet", solvent=solvent)
        expected = energies(ff14sb(*files), frames_nm())
        assert labels.energy_kj_mol == pytest.approx(expected, abs=0.05)
        assert (labels.status == "ok").all()


def test_a_part_of_a_system_has_the_terms_among_its_atoms_and_refuses_what_it_does_not_know() -> (
    None
):
    """CHARMM36 with GBn2 has the most kinds of terms: CMAP, impropers, tables, pairs."""
    topology = app.PDBFile(str(GRGDS / "grgds.pdb")).topology
    system = create_system(topology, PROTOCOLS["default"], constrained=True)
    order = np.random.default_rng(0).permutation(system.getNumParticles()).tolist()
    xyz_nm = frames_nm()[0]
    same = part_of(system, order)
    assert evaluated(same, xyz_nm[order])[0] == pytest.approx(evaluated(system, xyz_nm)[0])
    system.addForce(openmm.CustomCentroidBondForce(1, "x1"))
    with pytest.raises(UserError, match="CustomCentroidBondForce"):
        part_of(system, order)


def test_atoms_in_another_order_get_their_own_parameters(tmp_path: Path) -> None:
    """Protenix orders atoms otherwise than Amber does; so may the topology of a System."""
    pdb = app.PDBFile(str(GRGDS / "grgds.pdb"))
    made, atoms, order = app.Topology(), {}, []
    chain = made.addChain("A")
    for residue in pdb.topology.residues():
        named = made.addResidue(residue.name, chain, residue.id)
        for atom in reversed(list(residue.atoms())):
            atoms[atom] = made.addAtom(atom.name, atom.element, named)
            order.append(atom.index)
    for first, second in pdb.topology.bonds():
        made.addBond(atoms[first], atoms[second])
    system = app.ForceField("amber14/protein.ff14SB.xml").createSystem(
        made, constraints=app.HBonds, removeCMMotion=False
    )
    positions = np.array(pdb.positions.value_in_unit(unit.nanometer))[order]
    path = serialised(tmp_path, system, made, positions * unit.nanometer)
    ours = labelled(path, tmp_path / "l.parquet", solvent="none").energy_kj_mol
    assert ours == pytest.approx(energies(system, frames_nm()[:, order]), abs=0.05)


def test_a_ligand_that_no_force_field_here_knows_is_part_of_the_energy(tmp_path: Path) -> None:
    """Methane beside the peptide: by hand, bonds of 345 kJ/mol/nm^2 and no other terms."""
    pdb = app.PDBFile(str(GRGDS / "grgds.pdb"))
    topology, xyz_nm = pdb.topology, pdb.positions.value_in_unit(unit.nanometer)
    system = app.ForceField("amber14/protein.ff14SB.xml").createSystem(
        topology, constraints=app.HBonds, removeCMMotion=False
    )
    kinds = {type(force).__name__: force for force in system.getForces()}
    ligand = topology.addResidue("MTH", topology.addChain("B"), "1")
    corners = (
        0.109 / 3**0.5 * np.array([(0, 0, 0), (1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
    )
    added = []
    for name, corner in zip(("C1", "H11", "H12", "H13", "H14"), corners, strict=True):
        element = app.element.carbon if name == "C1" else app.element.hydrogen
        added.append(topology.addAtom(name, element, ligand))
        system.addParticle(element.mass)
        kinds["NonbondedForce"].addParticle(0.1, 0.3, 0.1)
        xyz_nm.append(openmm.Vec3(*(corner + 3.0)))
        if name != "C1":
            topology.addBond(added[0], added[-1])
            kinds["HarmonicBondForce"].addBond(added[0].index, added[-1].index, 0.1, 345.0)
    for first, second in combinations(added, 2):
        kinds["NonbondedForce"].addException(first.index, second.index, 0.0, 0.3, 0.0)
    path = serialised(tmp_path, system, topology, xyz_nm * unit.nanometer)
    labels = labelled(path, tmp_path / "l.parquet", path.with_suffix(".pdb"), solvent="none")
    expected = evaluated(system, np.array(xyz_nm))[0]
    assert labels.energy_kj_mol == pytest.approx([expected], abs=0.05)
    assert labels.n_residues[0] == 5


def without(name: str) -> str:
    lines = (GRGDS / "grgds.pdb").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if line[12:16].strip() != name)


def test_the_first_atom_that_differs_is_named(tmp_path: Path) -> None:
    file = MdFile(FILES / "grgds.prmtop")
    other = GRGDS.parent / "thymopentin" / "thymopentin.pdb"
    with pytest.raises(UserError, match=r"lack N of GLY 1"):
        md_structure(file, other, "frames")
    heavy = tmp_path / "heavy.pdb"
    pdb = mdtraj.load(str(GRGDS / "grgds.pdb"))
    pdb.atom_slice(pdb.top.select("element != H")).save_pdb(str(heavy))
    assert md_structure(file, heavy, "frames").topology.getNumAtoms() == 64
    with pytest.raises(UserError, match=r"file lacks HD2 of ASP 4 of the frames"):
        md_structure(file, heavy, "ASP4=ASH")
    short = tmp_path / "short.pdb"
    short.write_text(without("OXT"))
    with pytest.raises(UserError, match=r"frames lack OXT of SER 5"):
        md_structure(file, short, "frames")
    with pytest.raises(UserError, match=r"lack CAY of ALA 2"):
        md_structure(MdFile(FILES / "dipeptide.psf"), GRGDS / "grgds.pdb", "frames")


def test_a_target_that_does_not_fit_is_a_row_with_its_reason(tmp_path: Path) -> None:
    labels = labelled(FILES / "dipeptide.psf", tmp_path / "l.parquet")
    assert set(labels.status) == {"skipped"}
    assert "dipeptide.psf does not fit grgds.pdb" in labels.reason[0]


def test_frames_that_are_torn_fail_as_with_any_force_field(tmp_path: Path) -> None:
    """An atom that lies far off, of a residue behind the peptide bond."""
    lines = (GRGDS / "grgds.pdb").read_text().splitlines(keepends=True)
    i = next(i for i, line in enumerate(lines) if line[12:20] == " CZ  ARG")
    lines[i] = lines[i][:30] + f"{90.0:8.3f}" * 3 + lines[i][54:]
    (tmp_path / "grgds.pdb").write_text("".join(lines))
    labels = labelled(FILES / "grgds.prmtop", tmp_path / "l.parquet", tmp_path / "grgds.pdb")
    assert labels.status[0] == "failed" and "bonds can explain" in labels.reason[0]


def test_tables_of_two_files_never_mix_and_what_is_included_counts(tmp_path: Path) -> None:
    top = gromacs(tmp_path)
    out = tmp_path / "l.parquet"
    labelled(top, out)
    types = top.parent / "field.ff" / "types.itp"
    types.write_text(types.read_text().replace("0.4577296", "0.4577297"))
    with pytest.raises(UserError, match="the file of --system differ"):
        labelled(top, out)
    shutil.copytree(FILES, tmp_path / "psf")
    psf = tmp_path / "psf" / "dipeptide.psf"
    before = MdFile(psf).digest()
    (psf.parent / "more.str").write_text("* more\n")
    assert MdFile(psf).digest() != before


def test_a_folder_holds_a_file_for_each_target(tmp_path: Path) -> None:
    """By the command; the target without a file is a row with its reason."""
    folder = tmp_path / "files"
    folder.mkdir()
    shutil.copy(FILES / "grgds.prmtop", folder)
    penta = GRGDS.parent / "penta_alanine" / "penta_alanine.pdb"
    out = tmp_path / "l.parquet"
    words = ["--input", str(GRGDS / "grgds.pdb"), str(penta), "--out", str(out), "--no-minimize"]
    words += ["--jobs", "2"]
    result = CliRunner().invoke(label, [*words, "--system", str(folder)])
    assert result.exit_code == 3
    assert f"{folder} holds no force field for penta_alanine" in result.output.replace("\n", "")
    # Another file joins: a PSF without its parameters, which stops nobody else.
    shutil.copy(FILES / "dipeptide.psf", folder / "penta_alanine.psf")
    before = read_labels(out).for_target("grgds")
    result = CliRunner().invoke(label, [*words, "--system", str(folder)])
    assert result.exit_code == 3
    labels = read_labels(out)
    assert labels.for_target("grgds").energy_kj_mol.tolist() == before.energy_kj_mol.tolist()
    assert "no CHARMM parameters beside" in labels.for_target("penta_alanine").reason[0]
    one = CliRunner().invoke(label, [*words, "--system", str(folder / "grgds.prmtop")])
    assert "of one target, and there are 2" in str(one.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--system", str(GRGDS / "grgds.pdb")], "no force field of an MD"),
        (["--system", str(FILES / "grgds.prmtop"), "--force-field", "amber14"], "give one of them"),
        (["--system", str(FILES / "grgds.prmtop"), "--solvent", "tip3p"], "explicit water"),
        (["--energy", "md"], "no file of it was given"),
    ],
)
def test_wrong_choices_are_told(words: list[str], message: str, tmp_path: Path) -> None:
    base = ["--input", str(GRGDS / "grgds.pdb"), "--out", str(tmp_path / "l.parquet")]
    result = CliRunner().invoke(label, [*base, *words])
    found = str(result.exception) if isinstance(result.exception, UserError) else result.output
    assert message in found.replace("\n", " ")


def test_an_implicit_solvent_of_the_file_is_kept_and_never_doubled(tmp_path: Path) -> None:
    pdb = app.PDBFile(str(GRGDS / "grgds.pdb"))
    system = ff14sb("implicit/gbn2.xml")
    path = serialised(tmp_path, system, pdb.topology, pdb.positions)
    own = labelled(path, tmp_path / "o.parquet", solvent="none")
    assert own.energy_kj_mol == pytest.approx(energies(system, frames_nm()), abs=0.05)
    twice = labelled(path, tmp_path / "t.parquet")
    assert set(twice.status) == {"failed"} and "of its own" in twice.reason[0]


def test_a_system_with_the_masses_of_other_atoms_is_refused(tmp_path: Path) -> None:
    pdb = app.PDBFile(str(GRGDS / "grgds.pdb"))
    system = app.ForceField("amber14/protein.ff14SB.xml").createSystem(pdb.topology)
    path = serialised(tmp_path, system, pdb.topology, pdb.positions)
    system.setParticleMass(0, 16.0)
    path.write_text(openmm.XmlSerializer.serialize(system))
    with pytest.raises(UserError, match=r"N of GLY 1 has a mass that is off by 2\.0 Da"):
        MdFile(path).topology()
    path.with_suffix(".pdb").unlink()
    with pytest.raises(UserError, match=r"names no atoms"):
        MdFile(path).topology()
