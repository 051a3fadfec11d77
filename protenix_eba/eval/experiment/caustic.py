"""Backbone chemical shifts by CAUSTIC, a neural network over the atoms of one chain.

The package caustic-nmr (MIT; its weights CC BY 4.0: Maximilian Zinke, 2026) reads structure files,
one for each conformation, so that its own command line has the same numbers of the same files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.protein.residue_names import HEAVY_ATOMS, standard_residue

__all__ = ["NUCLEI", "Caustic", "pdb_text"]

Float64s = NDArray[np.float64]

NUCLEI: Final = ("H", "HA", "N", "CA", "CB", "C")
_DISTRIBUTION: Final = "caustic-nmr"
_DISULFIDE_ANGSTROM: Final = 2.5
_LONGEST_PEPTIDE_BOND_ANGSTROM: Final = 2.0
_SHOWN: Final = 5
# Mean absolute errors over 735 proteins that the network was not trained on, ppm, of README.md of
# caustic-nmr 0.4.1, as standard deviations of a Gaussian.
_ABSOLUTE: Final = {"H": 0.309, "HA": 0.175, "N": 1.713, "CA": 0.764, "CB": 0.860, "C": 0.804}


class Caustic:
    """A predictor of shifts, see `shift_predictors.ShiftPredictor`."""

    errors: Final = {n: float(e * np.sqrt(np.pi / 2.0)) for n, e in _ABSOLUTE.items()}
    source: Final = (
        "caustic-nmr 0.4.1: its mean absolute errors on 735 held-out proteins, times sqrt(pi / 2)"
    )

    def version(self) -> str:
        """Return what decides the predictions.

        Raises:
            UserError: The package is not installed, or cannot be imported.
        """
        try:
            import caustic  # noqa: F401  it imports torch
            import onnxruntime  # noqa: F401

            return f"{_DISTRIBUTION} {version(_DISTRIBUTION)}"
        except (ImportError, PackageNotFoundError) as error:
            raise UserError(
                f'chemical shifts need {_DISTRIBUTION}: pip install "protenix-eba[shifts]" '
                f"({error})",
                "install the extra, or take the values of the kind SHIFT out of the file",
            ) from error

    def predict(self, topology: mdtraj.Topology, xyz: NDArray[np.floating]) -> Float64s:
        """Return the shifts of one conformation of one chain, `[R, 6]` ppm, NaN where none.

        Args:
            topology: The chain's atoms.
            xyz: `[N, 3]` angstrom.
        """
        from caustic import predict_shifts_onnx

        path, session = _network()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "chain.pdb"
            file.write_text(pdb_text(topology, xyz), encoding="ascii")
            found = predict_shifts_onnx(
                file, path, chain_id="A", use_ensemble=False, session=session
            )
        shifts = np.full((topology.n_residues, len(NUCLEI)), np.nan)
        rows = np.array(found.seq_ids) - 1
        shifts[rows] = np.stack([found.mean[nucleus] for nucleus in NUCLEI], axis=1)
        return shifts

    def random_coil(self, topology: mdtraj.Topology) -> Float64s:
        """Return shifts of the sequence without structure, `[R, 6]` ppm, NaN at the ends.

        Source: POTENCI, Nielsen and Mulder, J. Biomol. NMR 70, 141 (2018), at 298 K and pH 7, as
            caustic-nmr has it.
        """
        from caustic.potenci import compute_random_coil_array, sequence_3to1

        names = [standard_residue(r.name) or r.name for r in topology.residues]
        return np.asarray(compute_random_coil_array(sequence_3to1(names)), dtype=np.float64)

    def remarks(self, topology: mdtraj.Topology, xyz: NDArray[np.floating]) -> list[str]:
        """Say what the network takes for something else, or does not see, of a chain.

        Args:
            topology: The chain's atoms.
            xyz: `[S, N, 3]` angstrom.
        """
        residues = [(r, {atom.name: atom.index for atom in r.atoms}) for r in topology.residues]
        bare = sum(not {"H", "HN", "H1"} & names.keys() for r, names in residues if r.name != "PRO")
        bare += sum(not {"HA", "HA2", "HA3"} & names.keys() for _, names in residues)
        without = [r for r, names in residues if r.name != "GLY" and "CB" not in names]
        others = [f"{_label(r)} ({what})" for r, _ in residues if (what := _taken_for(r.name))]
        torn = [
            f"{_label(one)} and {_label(two)}"
            for (one, here), (two, there) in pairwise(residues)
            if _apart(xyz, here.get("C"), there.get("N"))
        ]
        said = {
            f"{bare} hydrogens H and HA are not in the files: they are built": bare,
            f"no side chain of {_few(map(_label, without))}: its effects lack": without,
            f"other residues than the amino acids are taken for those: {_few(others)}": others,
            f"residues lack between {_few(torn)}, which are taken for neighbours": torn,
        }
        return [words for words, so in said.items() if so]


def _label(residue: mdtraj.core.topology.Residue) -> str:
    return f"{residue.resSeq} {residue.name}"


def _few(words: Iterable[str]) -> str:
    found = list(words)
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" * (len(found) > _SHOWN))


def _taken_for(residue: str) -> str:
    """Return the amino acid that the network takes another residue for."""
    from caustic.features import AA_THREE_TO_IDX

    name = standard_residue(residue) or residue
    if name in HEAVY_ATOMS:
        return ""
    known = {AA_THREE_TO_IDX[standard]: standard for standard in HEAVY_ATOMS}
    return known.get(AA_THREE_TO_IDX.get(name, -1), "unknown to it: doubt the shifts about it")


def _apart(xyz: NDArray[np.floating], carbon: int | None, nitrogen: int | None) -> bool:
    if carbon is None or nitrogen is None:
        return False
    lengths = np.linalg.norm(xyz[:, carbon] - xyz[:, nitrogen], axis=1)
    return bool(np.median(lengths) > _LONGEST_PEPTIDE_BOND_ANGSTROM)


@cache
def _network() -> tuple[str, Any]:
    """Return the path of the weights, and a session of one thread: processes share the cores."""
    import onnxruntime
    from caustic.provenance import bundled_model_path

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = str(bundled_model_path())
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return path, session


def pdb_text(topology: mdtraj.Topology, xyz: NDArray[np.floating]) -> str:
    """Return a PDB file of one chain A, its residues numbered from 1, with B-factors of 0.

    Cysteines whose sulphurs are within 2.5 angstrom get an SSBOND line, as deposited structures
    have it: the network reads it.

    Args:
        topology: The chain's atoms.
        xyz: `[N, 3]` angstrom.
    """
    lines, sulphurs = [], []
    for atom, (x, y, z) in zip(topology.atoms, xyz.tolist(), strict=True):
        residue, number = atom.residue.name, atom.residue.index + 1
        name = standard_residue(residue) or residue
        column = f"{atom.name:<4}" if len(atom.name) == 4 else f" {atom.name:<3}"
        lines.append(
            f"ATOM  {(atom.index + 1) % 100000:5d} {column} {name:<3} A{number:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {atom.element.symbol.upper():>2}"
        )
        if atom.name == "SG":
            sulphurs.append((number, np.array([x, y, z])))
    pairs = [
        (one, two)
        for n, (one, here) in enumerate(sulphurs)
        for two, there in sulphurs[n + 1 :]
        if np.linalg.norm(here - there) <= _DISULFIDE_ANGSTROM
    ]
    bonds = [
        f"SSBOND{n:4d} CYS A {one:4d}    CYS A {two:4d}" for n, (one, two) in enumerate(pairs, 1)
    ]
    return "\n".join([*bonds, *lines, "END", ""])
