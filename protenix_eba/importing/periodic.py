"""Repair of molecules that a periodic box has cut."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import mdtraj
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.spatial import cKDTree

__all__ = ["Connections", "box_fault", "chains_touch", "connections_of", "make_whole"]

# C-alpha atoms of chains in contact are nearer than this; such chains stay as they are.
_CONTACT_ANGSTROM = 8.0
# A box thinner than this does not tell a bond from its image.
_SMALLEST_BOX_ANGSTROM = 10.0


@dataclass(frozen=True)
class Connections:
    """The bonds by which the atoms of a topology hang together.

    Attributes:
        child: `[E]` atoms in an order in which each comes after its parent.
        parent: `[E]` the atom that each is placed next to.
        alpha_carbons: Indices of each chain's C-alpha atoms (of one atom if it has none).
        chain: `[N_atom]` chain number of each atom.
    """

    child: NDArray[np.int64]
    parent: NDArray[np.int64]
    alpha_carbons: tuple[NDArray[np.int64], ...]
    chain: NDArray[np.int64]


def connections_of(topology: mdtraj.Topology) -> Connections:
    """Build a tree over the atoms of each chain.

    It follows the bonds. Atoms without bonds (hydrogens under unknown names) hang on an atom of
    their residue, residues without a bond to the one before (a gap) on that one's last atom.
    """
    chain = np.array([atom.residue.chain.index for atom in topology.atoms])
    edges = [(a.index, b.index) for a, b in topology.bonds if a.residue.chain is b.residue.chain]
    edges += _missing_edges(topology, edges)
    n = topology.n_atoms
    first, second = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(n, n)).tocsr()
    children, parents = [], []
    for start in np.flatnonzero(np.diff(chain, prepend=-1)):
        order, before = breadth_first_order(graph, start, directed=False)
        children.append(order[1:])
        parents.append(before[order[1:]])
    alpha = [
        np.array([a.index for a in c.atoms if a.name == "CA"] or [c.atom(0).index], dtype=np.int64)
        for c in topology.chains
    ]
    child, parent = (np.concatenate(x).astype(np.int64) for x in (children, parents))
    return Connections(child, parent, tuple(alpha), chain)


def _missing_edges(
    topology: mdtraj.Topology, edges: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return edges that make each chain one piece where the bonds do not."""
    n = topology.n_atoms
    first, second = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(n, n))
    _, piece = connected_components(graph, directed=False)
    added = []
    for chain in topology.chains:
        anchor = previous = None
        joined: set[int] = set()
        for residue in chain.residues:
            atoms = list(residue.atoms)
            anchor = next((a for a in atoms if a.name == "CA"), atoms[0])
            for atom in [anchor, *atoms]:
                if piece[atom.index] in joined:
                    continue
                joined.add(piece[atom.index])
                other = previous if atom is anchor else anchor
                if other is not None:
                    added.append((other.index, atom.index))
            previous = next((a for a in atoms if a.name == "C"), anchor)
    return added


def make_whole(
    xyz: NDArray[np.float32], box: NDArray[np.float32] | None, connections: Connections
) -> tuple[NDArray[np.float32], bool]:
    """Undo the cuts of the periodic box: bonds first, then chains of a complex to each other.

    Every atom is moved by whole box vectors to the image nearest to the one it hangs on. Chains
    whose C-alpha atoms are within 8 angstrom of each other stay; others go where they are nearest.

    Args:
        xyz: `[N_atom, 3]` in angstrom; non-finite coordinates stay as they are.
        box: `[3, 3]` box vectors as rows, angstrom; None where there is none.
        connections: Bonds of the topology.

    Returns:
        The coordinates, and whether any was changed.
    """
    if box is None or box_fault(box) or not np.isfinite(xyz).all():
        return xyz, False
    atoms = _bond_shifts(xyz, box, connections)
    moved = xyz + atoms @ box
    chains = _chain_shifts(moved, box, connections)
    if not atoms.any() and not chains.any():
        return xyz, False
    return np.asarray(moved + (chains @ box)[connections.chain], dtype=np.float32), True


def box_fault(box: NDArray[np.float32]) -> str:
    """Return why a box `[3, 3]` cannot tell where the images are; empty where it can."""
    if not np.isfinite(box).all():
        return "not finite"
    volume = np.linalg.det(box.astype(np.float64))
    if volume <= 0:
        return f"volume {volume:.1f} cubic angstrom"
    # The rows of the inverse's transpose are one over the heights of the cell.
    height = float((1 / np.linalg.norm(np.linalg.inv(box.astype(np.float64)), axis=0)).min())
    return "" if height >= _SMALLEST_BOX_ANGSTROM else f"height {height:.1f} angstrom"


def chains_touch(xyz: NDArray[np.float32], connections: Connections) -> bool:
    """Tell whether the chains of `[N_atom, 3]` hang together as they are."""
    if not np.isfinite(xyz).all():
        return True
    return _in_contact([xyz[atoms] for atoms in connections.alpha_carbons])


def _bond_shifts(
    xyz: NDArray[np.float32], box: NDArray[np.float32], connections: Connections
) -> NDArray[np.int64]:
    """Return box vectors `[N_atom, 3]` to add to each atom."""
    step = xyz[connections.child] - xyz[connections.parent]
    crossed = -np.rint(step.astype(np.float64) @ np.linalg.inv(box.astype(np.float64)))
    shift = np.zeros((len(xyz), 3), dtype=np.int64)
    if crossed.any():
        for child, parent, own in zip(
            connections.child, connections.parent, crossed.astype(np.int64), strict=True
        ):
            shift[child] = shift[parent] + own
    return shift


def _chain_shifts(
    xyz: NDArray[np.float32], box: NDArray[np.float32], connections: Connections
) -> NDArray[np.int64]:
    """Return box vectors `[N_chain, 3]` to add to each chain, nearest chains first."""
    alpha = [xyz[atoms] for atoms in connections.alpha_carbons]
    shifts = np.zeros((len(alpha), 3), dtype=np.int64)
    if _in_contact(alpha):
        return shifts
    images = np.array(sorted(itertools.product((-1, 0, 1), repeat=3), key=np.count_nonzero))
    placed, waiting = alpha[:1], set(range(1, len(alpha)))
    while waiting:
        tree = cKDTree(np.concatenate(placed))
        best = min((*_nearest_image(tree, alpha[c], box, images), c) for c in waiting)
        _, image, chain = best
        shifts[chain] = image
        placed.append(np.asarray(alpha[chain] + np.array(image) @ box, dtype=np.float32))
        waiting.remove(chain)
    return shifts


def _in_contact(chains: list[NDArray[np.float32]]) -> bool:
    """Tell whether the chains hang together as they are, the usual case."""
    number = np.repeat(np.arange(len(chains)), [len(points) for points in chains])
    pairs = cKDTree(np.concatenate(chains)).query_pairs(_CONTACT_ANGSTROM, output_type="ndarray")
    first, second = number[pairs].T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(chains),) * 2)
    return bool(connected_components(graph, directed=False, return_labels=False) == 1)


def _nearest_image(
    tree: cKDTree,
    points: NDArray[np.float32],
    box: NDArray[np.float32],
    images: NDArray[np.int64],
) -> tuple[float, tuple[int, ...]]:
    """Return the least distance to the tree and its box vectors; none if in contact."""
    as_is = float(tree.query(points)[0].min())
    if as_is < _CONTACT_ANGSTROM:
        return as_is, (0, 0, 0)
    # Drifted chains may be several boxes away: the neighbours of the nearest cell are tried.
    middle = (tree.data.mean(axis=0) - points.mean(axis=0)) @ np.linalg.inv(box)
    candidates = images + np.rint(middle).astype(np.int64)
    moved = points[None] + (candidates @ box)[:, None]
    distance = tree.query(moved.reshape(-1, 3))[0].reshape(len(candidates), -1).min(axis=1)
    best = int(distance.argmin())
    return float(distance[best]), tuple(int(i) for i in candidates[best])
