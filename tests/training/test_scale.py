"""A set of ATLAS's shape on the frames of one small peptide: what grows, and how.

Four times as many targets may take four times the time and memory, not sixteen times.
"""

import cProfile
import gc
import pstats
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from protenix_eba.energy.table import EnergyLabels, read_labels, write_labels
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.embeddings import TrunkEmbeddings, save_embeddings
from protenix_eba.host.features import protein_features
from protenix_eba.structures import trajectories
from protenix_eba.structures.sequences import protein_of_target
from protenix_eba.structures.trajectories import find_targets
from protenix_eba.training.data import epochs
from protenix_eba.training.data.conformers import labels_by_target
from protenix_eba.training.data.epochs import Epoch, Pool
from protenix_eba.training.data.loader import eba_loader

FEW, MANY = 20, 82
FRAMES = 100  # of each of three replicas, as in ATLAS when every 100th is taken
RATIO = MANY / FEW
K = 2


def labels_of(labels, names):
    """The labels of one target's first frames, again for each name."""
    rows = np.flatnonzero(labels.frame < FRAMES)
    many = labels.select(np.tile(rows, len(names)))
    return replace(many, target=np.repeat(np.array(names), len(rows)))


@pytest.fixture(scope="module")
def one(demo_data):
    target = find_targets(demo_data)[0]
    return target, read_labels(demo_data / "labels.parquet").for_target(target.name)


@pytest.fixture(scope="module")
def make(one, tmp_path_factory):
    """A folder with n targets whose files are links, and its configuration."""
    import torch

    target, labels = one
    protein = protein_features(protein_of_target(target))
    n = protein.protein.n_residues
    embeddings = TrunkEmbeddings(torch.ones(n, 4), torch.ones(n, 3), torch.ones(n, n, 2))

    def write(n_targets, **options):
        root = tmp_path_factory.mktemp("scale")
        names = [f"{number:04d}_A" for number in range(n_targets)]
        for name in names:
            (root / name).mkdir()
            (root / name / f"{name}.pdb").symlink_to(target.topology_path)
            for replica, path in target.trajectory_paths.items():
                (root / name / f"{name}_prod_R{replica}_fit.xtc").symlink_to(path)
            renamed = replace(protein, protein=replace(protein.protein, name=name))
            save_embeddings(root / f"{name}.safetensors", embeddings, renamed, "trunk", 1)
        write_labels(root / "labels.parquet", labels_of(labels, names))
        return EBAConfig(
            data_dir=str(root), labels=str(root / "labels.parquet"), embeddings=str(root),
            n_conformers=K, **options,
        )  # fmt: skip

    return write


def load(config):
    return eba_loader(config, held_out=False, seed=0, trunk="trunk", n_cycles=1)


def calls(work):
    """Function calls that some work takes: as time, but the same every time."""
    profile = cProfile.Profile()
    result = profile.runcall(work)
    return result, pstats.Stats(profile).total_calls


def kept_bytes(work):
    gc.collect()
    tracemalloc.start()
    try:
        result = work()
        gc.collect()
        return result, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def loaders(make):
    """Few and many targets: configuration, loader, calls and memory of its start."""
    load(make(2))  # imports, and what is made once
    made = []
    for n in (FEW, MANY):
        config = make(n)
        loader, n_calls = calls(lambda config=config: load(config))
        made.append((config, loader, n_calls))
    return made


def test_a_loader_starts_in_time_that_grows_with_the_number_of_targets(loaders):
    (_, few, n_few), (_, many, n_many) = loaders
    assert (len(few.targets), len(many.targets)) == (FEW, MANY)
    assert many.epoch_length == MANY * 3 * FRAMES // K
    assert 0.8 * RATIO < n_many / n_few < 1.2 * RATIO


def test_a_loader_looks_at_each_label_once(loaders, monkeypatch):
    """A target is found by comparing names, each of which would be compared for every target."""
    looked_at = []
    whole = EnergyLabels.for_target

    def counting(labels, name):
        looked_at.append(len(labels))
        return whole(labels, name)

    monkeypatch.setattr(EnergyLabels, "for_target", counting)
    load(loaders[0][0])
    assert sum(looked_at) == FEW * 3 * FRAMES


def test_what_a_loader_keeps_grows_with_the_number_of_targets_without_coordinates(loaders):
    sizes = []
    for config, *_ in loaders:
        trajectories._topology.cache_clear()  # of these some are kept, whoever read them
        sizes.append(kept_bytes(lambda config=config: load(config)))
    (_, kept_few), (many, kept_many) = sizes
    assert kept_many / kept_few < 1.2 * RATIO
    n_atoms = len(many.sources[0].mask)
    coordinates = MANY * 3 * FRAMES * n_atoms * 12
    # Frame hashes, energies and some topologies, of a very small protein.
    assert kept_many < 0.5 * coordinates


def test_an_item_costs_the_same_whatever_the_number_of_targets(loaders):
    costs = [calls(lambda loader=loader: [loader[i] for i in range(0, 40, 4)])[1]
             for _, loader, _ in loaders]  # fmt: skip
    assert costs[1] < 1.1 * costs[0]


def test_items_leave_no_coordinates_in_memory(loaders):
    loader = loaders[0][1]
    for index in range(60):  # where the frames of each file stand is found once, and kept
        loader[index]
    tracemalloc.start()
    for index in range(60):
        loader[index]
    gc.collect()
    arrays = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
    kept = tracemalloc.take_snapshot().filter_traces([arrays]).statistics("filename")
    tracemalloc.stop()
    coordinates = 60 * K * len(loader.sources[0].mask) * 12
    assert sum(entry.size for entry in kept) < 0.1 * coordinates


@pytest.fixture(scope="module")
def pools(one):
    energy = np.random.default_rng(0).normal(size=3 * FRAMES)
    groups = np.array_split(np.arange(3 * FRAMES), K)
    return lambda n: [Pool(energy, lambda: groups)] * n


@pytest.mark.parametrize("sampler", ["structures", "targets", "energy", "diverse"])
def test_an_epoch_takes_time_and_memory_that_grow_with_its_structures(pools, sampler):
    def work(n):
        epoch = Epoch(pools(n), getattr(epochs, sampler), K, 0, 0, 16)
        return epoch, [epoch[i] for i in range(0, len(epoch), 50)]

    (_, n_few), (_, n_many) = calls(lambda: work(FEW)), calls(lambda: work(MANY))
    assert n_many / n_few < 1.2 * RATIO
    few, many = (kept_bytes(lambda n=n: work(n)[0])[1] for n in (FEW, MANY))
    assert many / few < 1.2 * RATIO


def test_targets_of_very_different_sizes_make_an_epoch_as_fast(pools):
    """A single long target must not make all others be looked at in each of its rounds."""
    rest = [Pool(np.zeros(4), lambda: [])] * 5000
    times = []
    for size in (4, 40_000):
        started = time.process_time()
        Epoch([Pool(np.zeros(size), lambda: []), *rest], epochs.structures, K, 0, 0, 16)
        times.append(time.process_time() - started)
    assert times[1] < times[0] + 1.0


def test_labels_of_atlas_size_are_grouped_by_reading_each_row_once(one, monkeypatch):
    """So that time grows with the rows; a look at all rows for each target would be 1,266 times."""
    labels = labels_of(one[1], [f"{number:04d}_A" for number in range(1266)])
    read, select = [], EnergyLabels.select

    def counted(self, rows):
        read.append(len(rows))
        return select(self, rows)

    monkeypatch.setattr(EnergyLabels, "select", counted)
    groups = labels_by_target(labels)
    assert len(groups) == 1266 and all(len(rows) == 300 for rows in groups.values())
    assert sum(read) == len(labels)
