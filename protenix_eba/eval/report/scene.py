"""Scenes for `viewer.js`: conformations superposed, small enough for one HTML file."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BACKGROUND", "Choice", "Layer", "Residue", "Scene", "scenes_json", "viewer_scripts"]

# Lighter than in the figures, where lines are thin.
BACKGROUND: Final = "#8b9098"
# Hundredths of an angstrom in 16 bits: up to 327 angstrom from the centre.
_STEP_ANGSTROM: Final = 0.01
_CHAIN_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class Residue:
    """A residue as readers know it."""

    chain: str
    number: int
    name: str


@dataclass(frozen=True)
class Layer:
    """Conformations that are switched on and off together.

    Attributes:
        label: Name for the legend.
        colour: `#rrggbb`.
        xyz: `[F, n, 3]` angstrom.
        stays: Whether it is also there when a single conformation of another layer is shown.
        thick: Whether it is to stand out.
    """

    label: str
    colour: str
    xyz: NDArray[np.floating]
    stays: bool = False
    thick: bool = False


@dataclass(frozen=True)
class Choice:
    """A single conformation that can be shown by its name."""

    text: str
    layer: int
    frame: int


@dataclass(frozen=True)
class Scene:
    """Conformations of one protein, superposed.

    Attributes:
        name: The protein.
        styles: How it can be drawn, the first to begin with: cartoon, stick or trace.
        residues: `L` of them.
        atoms: `n` rows of a residue and names of an atom, in the order of the residues, N, CA, C
            and O before others.
        layers: The first decides on the first view.
        choices: What can be shown alone.
    """

    name: str
    styles: Sequence[str]
    residues: Sequence[Residue]
    atoms: Sequence[tuple[int, str]]
    layers: Sequence[Layer]
    choices: Sequence[Choice] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the viewer."""
        layers = zip(self.layers, _face_on([layer.xyz for layer in self.layers]), strict=True)
        return {
            "name": self.name,
            "styles": list(self.styles),
            "atoms": _lines(self.residues, self.atoms),
            "layers": [
                {
                    "label": layer.label,
                    "colour": layer.colour,
                    "stays": layer.stays,
                    "thick": layer.thick,
                    "frames": len(xyz),
                    "packed": _packed(xyz),
                }
                for layer, xyz in layers
            ],
            "choices": [[c.text, f"{c.layer} {c.frame}"] for c in self.choices],
        }


def scenes_json(scenes: Sequence[Scene]) -> str:
    """Return JSON for a script element, which no `<` in it may end early; empty of no scene."""
    if not scenes:
        return ""
    data = {"targets": [scene.to_json() for scene in scenes]}
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def viewer_scripts() -> str:
    """Return 3Dmol.js under its licence and the code that uses it, to stand in one script."""
    folder = resources.files("protenix_eba.eval.report")
    licence, library, ours = (
        folder.joinpath(*path).read_text("utf-8")
        for path in (("3dmol", "LICENSE"), ("3dmol", "3Dmol-min.js"), ("viewer.js",))
    )
    return f"/*!\n{licence}*/\n{library}\n{ours}"


def _face_on(sides: Sequence[NDArray[np.floating]]) -> list[NDArray[np.floating]]:
    """Return all sides turned so that the first is widest in x, then in y, with 0 in the middle."""
    points = sides[0].reshape(-1, 3)
    axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2]
    axes[2] *= np.sign(np.linalg.det(axes))  # a mirror image would be another protein
    turned = [xyz @ axes.T for xyz in sides]
    everything = np.concatenate([xyz.reshape(-1, 3) for xyz in turned])
    middle = 0.5 * (everything.min(axis=0) + everything.max(axis=0))
    return [xyz - middle for xyz in turned]


def _lines(residues: Sequence[Residue], atoms: Sequence[tuple[int, str]]) -> list[str]:
    """Return the lines of a PDB file up to the coordinates, of which the viewer knows bonds."""
    chains = dict.fromkeys(residue.chain for residue in residues)
    letter = {chain: _CHAIN_LETTERS[n % len(_CHAIN_LETTERS)] for n, chain in enumerate(chains)}
    return [
        f"ATOM  {n % 100000:5d}  {name:<3.3s} {residue.name:>3.3s} {letter[residue.chain]}"
        f"{str(residue.number)[-4:]:>4s}    "
        for n, (row, name) in enumerate(atoms, 1)
        if (residue := residues[row])
    ]


def _packed(xyz: NDArray[np.floating]) -> str:
    limits = np.iinfo(np.int16)
    steps = np.clip(np.rint(xyz / _STEP_ANGSTROM), limits.min, limits.max).astype("<i2")
    return base64.b64encode(steps.tobytes()).decode("ascii")
