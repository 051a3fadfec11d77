"""Sound conformations in an evaluation: the shares of samples with a known fault."""

import mdtraj
import numpy as np
import pytest

from protenix_eba.eval.metrics.soundness import SOUNDNESS, soundness
from protenix_eba.eval.protocol.drawn import Drawn


@pytest.fixture(scope="module")
def md(demo_data):
    folder = demo_data / "met_enkephalin"
    path = sorted(folder.glob("*.xtc"))[0]
    md = mdtraj.load_xtc(str(path), top=str(folder / "met_enkephalin.pdb"))[:40]
    md = md.atom_slice(md.topology.select("not element H"))
    return md.topology, 10 * md.xyz


def drawn(topology, md_xyz, sample_xyz):
    return Drawn(topology, md_xyz, np.repeat([1, 2], len(md_xyz) // 2), sample_xyz)


def test_one_mirrored_and_two_broken_samples_of_ten_are_found_beside_a_sound_md(md):
    topology, xyz = md
    samples = xyz[:10].copy()
    samples[0] *= -1
    samples[1:3, [a.index for a in topology.atoms if a.residue.index >= 3]] += 20.0
    found = soundness(drawn(topology, xyz, samples))
    values = found.values
    assert values["valid_percent"] == 70.0
    assert values["broken_percent"] == 20.0
    assert values["d_residue_percent"] == 10.0
    assert values["clash_percent"] == 0.0
    assert [row["valid_percent"] for row in found.floor] == [100.0, 100.0]


def test_c_alpha_atoms_alone_are_judged_by_their_chain_only(md):
    topology, xyz = md
    only = topology.select("name CA")
    values = soundness(drawn(topology.subset(only), xyz[:, only], xyz[:, only])).values
    assert values == {"valid_percent": 100.0, "broken_percent": 0.0}


def test_each_value_is_defined_for_readers(md):
    topology, xyz = md
    assert list(soundness(drawn(topology, xyz, xyz)).values) == [metric.key for metric in SOUNDNESS]
