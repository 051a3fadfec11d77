"""Packing of the evaluator's reference ensembles into `tests/data/eval_reference`.

    python scripts/pack_eval_reference.py REFERENCE tests/data/eval_reference

REFERENCE holds `4ew5_A/` (PDB and three XTC files), `pred/` (250 models in two orders of atoms) and
`expected.json`. Kept are heavy atoms, which are all that the evaluator reads, to the last digit of
the files. Coordinates become integers, less those of the atom before and the median over the
frames: xz packs the small numbers that are left to a quarter of the size. `unpack` writes the files
of REFERENCE again.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import sys
from pathlib import Path

import mdtraj
import numpy as np
from numpy.typing import NDArray

TARGET = "4ew5_A"
REPLICAS = (1, 2, 3)
ORDERS = ("good_af37", "good_reforder")
UNITS_PER_NM = 1000  # an XTC file's digits
UNITS_PER_ANGSTROM = 1000  # a PDB file's
SHIFTS = (0, 8, 16)  # of the three bytes of a number

Integers = NDArray[np.int64]


def main() -> None:
    reference, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(reference / "expected.json", folder / "expected.json")
    pdb = reference / TARGET / f"{TARGET}.pdb"
    heavy = [line for line in pdb.read_text().splitlines(True) if line[76:78].strip() != "H"]
    (folder / f"{TARGET}.pdb").write_text("".join(heavy))
    top = mdtraj.load(str(pdb))
    atoms = top.topology.select("element != H")
    paths = [str(reference / TARGET / f"{TARGET}_prod_R{r}_fit.xtc") for r in REPLICAS]
    xyz_nm = mdtraj.load(paths, top=top, atom_indices=atoms).xyz
    write_packed(folder / "md.npy.xz", np.rint(UNITS_PER_NM * xyz_nm).astype(np.int64))
    for order in ORDERS:
        text = gzip.decompress((reference / "pred" / f"{TARGET}.{order}.pdb.gz").read_bytes())
        models = text.decode().split("ENDMDL\n")[:-1]
        (folder / f"{order}.pdb").write_text(f"{models[0]}ENDMDL\n")
        if order == ORDERS[0]:
            write_packed(folder / "models.npy.xz", np.array([coordinates(m) for m in models]))


def unpack(folder: Path, out: Path) -> None:
    """Write what `main` read, except hydrogens, below `out`."""
    md, pred = out / TARGET, out / "pred"
    md.mkdir(parents=True)
    pred.mkdir()
    shutil.copyfile(folder / "expected.json", out / "expected.json")
    shutil.copyfile(folder / f"{TARGET}.pdb", md / f"{TARGET}.pdb")
    topology = mdtraj.load_topology(str(md / f"{TARGET}.pdb"))
    xyz = read_packed(folder / "md.npy.xz")
    for number, frames in zip(REPLICAS, np.split(xyz, len(REPLICAS)), strict=True):
        replica = mdtraj.Trajectory(frames / UNITS_PER_NM, topology)
        replica.save_xtc(str(md / f"{TARGET}_prod_R{number}_fit.xtc"))
    models = read_packed(folder / "models.npy.xz") / UNITS_PER_ANGSTROM
    place = {name: i for i, name in enumerate(names(folder / f"{ORDERS[0]}.pdb"))}
    for order in ORDERS:
        template = folder / f"{order}.pdb"
        ours = models[:, [place[name] for name in names(template)]]
        text = "".join(model_text(template, n, xyz) for n, xyz in enumerate(ours, start=1))
        packed = gzip.compress(f"{text}END\n".encode(), compresslevel=1)
        (pred / f"{TARGET}.{order}.pdb.gz").write_bytes(packed)


def atom_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("ATOM")]


def names(path: Path) -> list[str]:
    """Return name, residue, chain and number of each atom, as the file writes them."""
    return [line[12:27] for line in atom_lines(path.read_text())]


def coordinates(text: str) -> Integers:
    xyz = [[float(line[i : i + 8]) for i in (30, 38, 46)] for line in atom_lines(text)]
    return np.rint(UNITS_PER_ANGSTROM * np.array(xyz)).astype(np.int64)


def model_text(template: Path, number: int, xyz: NDArray[np.float64]) -> str:
    """Write one model with the atoms of a PDB file of one model, coordinates in angstrom."""
    first, *rest = template.read_text().splitlines()
    rows = iter(xyz)
    lines = [
        line[:30] + "".join(f"{x:8.3f}" for x in next(rows)) + line[54:]
        if line.startswith("ATOM")
        else line
        for line in rest
    ]
    return "\n".join([f"{first[:5]}{number:9d}", *lines, ""])


def write_packed(path: Path, xyz: Integers) -> None:
    """Write integer coordinates `[F, N_atom, 3]` as three planes of bytes, the low one first."""
    steps = np.diff(xyz, axis=1, prepend=0).transpose(1, 2, 0)
    typical = np.rint(np.median(steps, axis=2, keepdims=True)).astype(np.int64)
    signed = np.concatenate([typical, steps - typical], axis=2)
    positive = np.where(signed < 0, -2 * signed - 1, 2 * signed)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "pb": 0}]
    with lzma.open(path, "wb", filters=filters) as file:
        np.save(file, np.stack([positive >> shift & 255 for shift in SHIFTS]).astype(np.uint8))


def read_packed(path: Path) -> Integers:
    """Read the coordinates that `write_packed` was given."""
    with lzma.open(path) as file:
        planes = np.load(file).astype(np.int64)
    positive = sum(plane << shift for plane, shift in zip(planes, SHIFTS, strict=True))
    signed = np.where(positive % 2, -(positive + 1) // 2, positive // 2)
    return (signed[..., :1] + signed[..., 1:]).cumsum(axis=0).transpose(2, 0, 1)


if __name__ == "__main__":
    main()
