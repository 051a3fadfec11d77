"""Scenes of an evaluation against MD: a few frames of MD and of each model's samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.eval.metrics.distributions import evenly
from protenix_eba.eval.report.plots.style import Targets, label_colours, positions
from protenix_eba.eval.report.scene import BACKGROUND, Choice, Layer, Residue, Scene
from protenix_eba.eval.target_result import TargetResult

__all__ = ["md_scenes"]

_BACKBONE: Final = ("N", "CA", "C", "O")
# The ribbon of a shorter chain shows no fold: its side chains say more, and their atoms are few.
_FEW_RESIDUES: Final = 10
# Share of the backbone's atoms that a ribbon needs; files differ in the name of the last oxygen.
_COMPLETE: Final = 0.9
# Of all frames of a layer: 64 kB in the page, so a few MB of twelve large proteins.
_MAX_ATOMS: Final = 8000

# Row of the residue, name.
_Atom = tuple[int, str]


def md_scenes(targets: Targets, labels: Sequence[str]) -> list[Scene]:
    """Return a scene of each target: MD, and each model on top of it.

    Args:
        targets: Those with frames.
        labels: Models, in the order of their colours.
    """
    colours = label_colours(labels)
    return [_scene(name, results, colours) for name, results in targets.items()]


def _scene(name: str, results: Mapping[str, TargetResult], colours: Mapping[str, str]) -> Scene:
    first = next(iter(results.values()))
    same = {label: r for label, r in results.items() if _residues(r) == _residues(first)}
    atoms, styles = _chosen(first, [set(_atoms(result)) for result in same.values()])
    md = _frames(first, "md_frames", atoms)
    layers = [Layer("MD", BACKGROUND, md[_thinned(md)], stays=True)]
    choices: list[Choice] = []
    for label, result in same.items():
        xyz = _frames(result, "sample_frames", atoms)
        ends = _ends(result)
        rows = _thinned(xyz, *ends.values())
        frames = {word: int(np.searchsorted(rows, row)) for word, row in ends.items()}
        choices += [
            Choice(f"{label}, {word} MD: {_sample(result, row)}", len(layers), frames[word])
            for word, row in ends.items()
        ]
        layers.append(Layer(label, colours[label], xyz[rows]))
    return Scene(name, styles, _numbered(first), atoms, layers, choices)


def _thinned(xyz: NDArray[np.float32], *always: int) -> NDArray[np.int64]:
    """Return the frames to show, evenly spaced, fewer of a large protein; these ones always."""
    n = max(_MAX_ATOMS // xyz.shape[1], 2)
    return np.unique([*evenly(len(xyz), n), *always]).astype(np.int64)


def _ends(result: TargetResult) -> dict[str, int]:
    """Return the frames of the samples that are nearest to the MD and farthest from it."""
    distance = np.asarray(result.arrays["sample_from_md"], dtype=np.float64)
    return {"nearest to": int(distance.argmin()), "farthest from": int(distance.argmax())}


def _sample(result: TargetResult, row: int) -> str:
    number, distance = (result.arrays[key][row] for key in ("sample_shown", "sample_from_md"))
    return f"sample {int(number)}, {float(distance):.2f} Å"


def _residues(result: TargetResult) -> list[tuple[str, int]]:
    chains = [str(chain) for chain in result.arrays["chain_ids"]]
    numbers = [int(number) for number in result.arrays["residue_numbers"]]
    return list(zip(chains, numbers, strict=True))


def _numbered(result: TargetResult) -> list[Residue]:
    names = [str(name) for name in result.arrays["residue_names"]]
    chains = [chain for chain, _ in _residues(result)]
    numbers = [int(number) for number in positions(result)]
    return [Residue(*each) for each in zip(chains, numbers, names, strict=True)]


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
