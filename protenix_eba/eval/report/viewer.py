"""Data for `viewer.js`: a few frames of MD and samples, small enough for one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.report.plots.style import Targets, label_colours, positions
from protenix_eba.eval.target_result import TargetResult

__all__ = ["viewer_data", "viewer_scripts"]

# Hundredths of an angstrom in 16 bits: up to 327 angstrom from the centre.
_STEP_ANGSTROM: Final = 0.01
_BACKBONE: Final = ("N", "CA", "C", "O")
# The ribbon of a shorter chain shows no fold: its side chains say more, and their atoms are few.
_FEW_RESIDUES: Final = 10
# Share of the backbone's atoms that a ribbon needs; files differ in the name of the last oxygen.
_COMPLETE: Final = 0.9
_CHAIN_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

# Lighter than in the figures, where lines are thin.
_MD: Final = "#8b9098"
# Row of the residue, name.
_Atom = tuple[int, str]


def viewer_scripts() -> str:
    """Return 3Dmol.js under its licence and the code that uses it, to stand in one script."""
    folder = resources.files("protenix_eba.eval.report")
    licence, library, ours = (
        folder.joinpath(*path).read_text("utf-8")
        for path in (("3dmol", "LICENSE"), ("3dmol", "3Dmol-min.js"), ("viewer.js",))
    )
    return f"/*!\n{licence}*/\n{library}\n{ours}"


def viewer_data(targets: Targets, labels: Sequence[str]) -> dict[str, Any]:
    """Return the frames of these targets, for JSON.

    Args:
        targets: Those with frames.
        labels: Models, in the order of their colours.
    """
    colours = label_colours(labels)
    return {"targets": [_target(name, results, colours) for name, results in targets.items()]}


def _target(
    name: str, results: Mapping[str, TargetResult], colours: Mapping[str, str]
) -> dict[str, Any]:
    first = next(iter(results.values()))
    same = {label: r for label, r in results.items() if _residues(r) == _residues(first)}
    atoms, styles = _chosen(first, [set(_atoms(result)) for result in same.values()])
    sides = [_frames(first, "md_frames", atoms)]
    sides += [_frames(result, "sample_frames", atoms) for result in same.values()]
    md, *samples = _face_on(sides)
    groups: list[dict[str, Any]] = [{"label": "MD", "colour": _MD, "samples": None, **_packed(md)}]
    for (label, result), xyz in zip(same.items(), samples, strict=True):
        named = {
            "number": [int(number) for number in result.arrays["sample_shown"]],
            "from_md": [round(float(x), 2) for x in result.arrays["sample_from_md"]],
        }
        groups.append({"label": label, "colour": colours[label], "samples": named, **_packed(xyz)})
    return {"name": name, "styles": styles, "atoms": _lines(first, atoms), "groups": groups}


def _face_on(sides: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return all sides turned so that the first is widest in x, then in y, with 0 in the middle."""
    points = sides[0].reshape(-1, 3)
    axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2]
    axes[2] *= np.sign(np.linalg.det(axes))  # a mirror image would be another protein
    turned = [xyz @ axes.T for xyz in sides]
    everything = np.concatenate([xyz.reshape(-1, 3) for xyz in turned])
    middle = 0.5 * (everything.min(axis=0) + everything.max(axis=0))
    return [xyz - middle for xyz in turned]


def _residues(result: TargetResult) -> list[tuple[str, int]]:
    chains = [str(chain) for chain in result.arrays["chain_ids"]]
    numbers = [int(number) for number in result.arrays["residue_numbers"]]
    return list(zip(chains, numbers, strict=True))


def _atoms(result: TargetResult) -> list[_Atom]:
    rows = [int(row) for row in result.arrays["atom_residue"]]
    return list(zip(rows, map(str, result.arrays["atom_names"]), strict=True))


def _chosen(first: TargetResult, known: Sequence[set[_Atom]]) -> tuple[list[_Atom], list[str]]:
    """Return the atoms to show, the backbone of each residue first, and how they can be drawn.

    All atoms of a peptide, the backbone of a protein, C-alpha atoms where there are no others.
    """
    shared = [a for a in _atoms(first) if a[0] >= 0 and all(a in atoms for atoms in known)]
    place = {name: n for n, name in enumerate(_BACKBONE)}
    shared.sort(key=lambda atom: (atom[0], place.get(atom[1], len(place))))
    length = len(first.arrays["residue_numbers"])
    backbone = [atom for atom in shared if atom[1] in place]
    if len(backbone) < _COMPLETE * len(place) * length:
        return [atom for atom in shared if atom[1] == "CA"], ["trace"]
    if length < _FEW_RESIDUES:
        return shared, ["stick", "trace"]
    return backbone, ["cartoon", "trace"]


def _frames(result: TargetResult, key: str, atoms: Sequence[_Atom]) -> NDArray[np.float32]:
    """Return these atoms of each frame, `[F, n, 3]` in angstrom."""
    column = {atom: n for n, atom in enumerate(_atoms(result))}
    rows = [column[atom] for atom in atoms]
    return np.asarray(result.arrays[key][:, rows], dtype=np.float32)


def _lines(result: TargetResult, atoms: Sequence[_Atom]) -> list[str]:
    """Return the lines of a PDB file up to the coordinates, of which the viewer knows bonds."""
    names, chains = (
        [str(word) for word in result.arrays[key]] for key in ("residue_names", "chain_ids")
    )
    letter = {
        chain: _CHAIN_LETTERS[n % len(_CHAIN_LETTERS)]
        for n, chain in enumerate(dict.fromkeys(chains))
    }
    numbers = positions(result)
    return [
        f"ATOM  {n % 100000:5d}  {name:<3.3s} {names[row]:>3.3s} {letter[chains[row]]}"
        f"{str(numbers[row])[-4:]:>4s}    "
        for n, (row, name) in enumerate(atoms, 1)
    ]


def _packed(xyz: NDArray[np.float32]) -> dict[str, Any]:
    limits = np.iinfo(np.int16)
    steps = np.clip(np.rint(xyz / _STEP_ANGSTROM), limits.min, limits.max).astype("<i2")
    packed = base64.b64encode(steps.tobytes()).decode("ascii")
    return {"frames": len(xyz), "packed": packed}
