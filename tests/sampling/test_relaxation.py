import csv
import json
from dataclasses import replace

import mdtraj
import pytest

from protenix_eba.core.errors import UserError
from protenix_eba.energy.protocol import PROTOCOLS
from protenix_eba.sampling.relaxation import relax_ensemble
from protenix_eba.structures.trajectories import find_targets, load_topology, read_frames

# Without the quench: the energies need not repeat here, and a minimisation takes a tenth.
PROTOCOL = PROTOCOLS["two-stage"]
NAME = "grgds"


@pytest.fixture
def sampled(demo_data, tmp_path):
    """Frames of MD without hydrogens as samples 3, 5, 8; of 5, two atoms are in one place."""
    md = mdtraj.load(str(demo_data / NAME / f"{NAME}_prod_R1_fit.xtc"),
                     top=str(demo_data / NAME / f"{NAME}.pdb"))[::90]  # fmt: skip
    md = md.atom_slice(md.topology.select("not element H"))
    md.xyz[1, 7] = md.xyz[1, 6]
    folder = tmp_path / "out" / NAME
    folder.mkdir(parents=True)
    md[0].save_pdb(str(folder / f"{NAME}.pdb"))
    md.save_xtc(str(folder / f"{NAME}.xtc"))
    (folder / f"{NAME}.json").write_text(json.dumps({"numbers": [3, 5, 8]}), encoding="utf-8")
    return folder


def table(folder):
    with (folder / "energies.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_samples_are_minimised_and_failures_told_through_an_interrupt(sampled, tmp_path):
    def stop(done):
        if done == 2:
            raise KeyboardInterrupt

    out, told = tmp_path / "relaxed" / NAME, []
    with pytest.raises(KeyboardInterrupt):
        relax_ensemble(sampled, out, PROTOCOL, tell=stop)
    assert not out.exists()
    failed = relax_ensemble(sampled, out, PROTOCOL, tell=told.append)
    assert told == [2, 3]
    assert [path.name for path in out.parent.iterdir()] == [NAME]
    assert list(failed) == [5]
    assert "one place" in failed[5]
    rows = table(out)
    assert [row["sample"] for row in rows] == ["3", "5", "8"]
    assert [row["frame"] for row in rows] == ["0", "", "1"]
    before, after = (
        mdtraj.load_xtc(str(folder / f"{NAME}.xtc"), top=str(folder / f"{NAME}.pdb"))
        for folder in (sampled, out)
    )
    assert [str(a) for a in after.topology.atoms] == [str(a) for a in before.topology.atoms]
    for row, frame in ((rows[0], 0), (rows[2], 2)):
        assert float(row["energy_kj_mol"]) < float(row["initial_energy_kj_mol"])
        moved = 10 * mdtraj.rmsd(after[int(row["frame"])], before[frame])[0]
        # The table's has the hydrogens in it.
        assert 0.01 < moved < 1.5 * float(row["rmsd_angstrom"])

    stamp = (out / "energies.csv").stat().st_mtime_ns
    assert relax_ensemble(sampled, out, PROTOCOL) == failed
    assert (out / "energies.csv").stat().st_mtime_ns == stamp

    (sampled / f"{NAME}.json").write_text(json.dumps({"numbers": [3, 5]}), encoding="utf-8")
    assert relax_ensemble(sampled, out, PROTOCOL, tell=lambda done: told.append(done)) == failed
    assert told[-1] == 2  # both are known: of another number of samples only the files change
    assert [row["sample"] for row in table(out)] == ["3", "5"]
    assert table(out)[0] == rows[0]


def test_an_ensemble_with_an_mmcif_topology_is_relaxed_into_one(sampled, tmp_path):
    pdb = sampled / f"{NAME}.pdb"
    before = mdtraj.load(str(pdb))
    before.save_cif(str(sampled / f"{NAME}.cif"))
    pdb.unlink()
    out = tmp_path / "relaxed" / NAME
    short = replace(PROTOCOL, max_iterations=20)
    assert list(relax_ensemble(sampled, out, short)) == [5]
    assert not (out / f"{NAME}.pdb").exists()
    (target,) = find_targets(out)
    after = load_topology(target)
    assert [str(a) for a in after.atoms] == [str(a) for a in before.topology.atoms]
    assert read_frames(target, 1).shape == (2, before.n_atoms, 3)
    assert list(relax_ensemble(sampled, out, short)) == [5]


def test_an_ensemble_without_a_topology_is_refused(sampled, tmp_path):
    (sampled / f"{NAME}.pdb").unlink()
    with pytest.raises(UserError, match="topology of the samples"):
        relax_ensemble(sampled, tmp_path / "relaxed" / NAME, PROTOCOL)
