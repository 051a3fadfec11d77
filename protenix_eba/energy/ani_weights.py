"""Weights of an ANI potential in the files of NeuroChem, the program that trains them.

A folder holds `*.params` (the shape of the descriptors), `sae_linfit.dat` (the energy of a lone
atom of each element) and, for each network of an ensemble, `train0/networks`, `train1/networks` and
so on. There `ANN-H.nnf` describes the layers for hydrogens in compressed text, and names the files
beside it that hold their numbers in single precision. Nothing in them is code.
"""

from __future__ import annotations

import bz2
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import natural_order

__all__ = ["AniWeights", "Layer", "read_ani_weights"]

_CELU: Final = "9"
_LINEAR: Final = "6"
_LAYER: Final = re.compile(r"layer\s*\[(.*?;)\s*\]", re.DOTALL)
_VALUE: Final = re.compile(r"(\w+)\s*=\s*(?:FILE:)?([^;[\s]+)")


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of E networks; all but the last are followed by CELU with alpha = 0.1.

    Attributes:
        weight: `[E, out, in]`.
        bias: `[E, out]`.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AniWeights:
    """An ensemble of E networks for each element.

    Attributes:
        shape: Constants of the descriptors by NeuroChem's names: the cutoffs `Rcr` and `Rca` in
            angstrom, the widths `EtaR` and `EtaA` in 1/angstrom^2, the centres `ShfR` and `ShfA`
            in angstrom and `ShfZ` in radian, and the exponent `Zeta`.
        self_energies_hartree: Energy of a lone atom by element, in the order of the descriptors.
        networks: Layers by element.
        digest: SHA-256 of all that was read.
    """

    shape: dict[str, NDArray[np.float64]]
    self_energies_hartree: dict[str, float]
    networks: dict[str, list[Layer]]
    digest: str


class _Reader:
    """Reads files, and their digest on the way."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def read(self, path: Path) -> bytes:
        found = path.read_bytes()
        self.sha256.update(found)
        return found


def read_ani_weights(folder: Path) -> AniWeights:
    """Read the weights of an ensemble.

    Args:
        folder: Such as `torchani/resources/ani-1x_8x`.

    Raises:
        UserError: A file is missing, is cut off or says what no ANI potential has.
    """
    reader = _Reader()
    try:
        (shape_file,) = folder.glob("*.params")
        shape, elements = _shape(reader.read(shape_file).decode("ascii"))
        energies = _self_energies(reader.read(folder / "sae_linfit.dat").decode("ascii"))
        members = sorted(
            folder.glob("train*/networks"), key=lambda path: natural_order(path.parent)
        )
        networks = {
            element: _ensemble([_network(reader, path, element) for path in members])
            for element in elements
        }
        return AniWeights(
            shape, {one: energies[one] for one in elements}, networks, reader.sha256.hexdigest()
        )
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder}: expected an ANI potential as NeuroChem writes it (*.params, "
            f"sae_linfit.dat, train0/networks/ANN-H.nnf ...), found {error!r}",
            "check the path, or copy the folder again",
        ) from error


def _shape(text: str) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    values = dict(re.findall(r"(\w+)\s*=\s*\[?([^\]\n]*)", text))
    elements = values.pop("Atyp").split(",")
    names = ("Rcr", "Rca", "EtaR", "ShfR", "EtaA", "Zeta", "ShfA", "ShfZ")
    return {name: np.array(values[name].split(","), dtype=np.float64) for name in names}, elements


def _self_energies(text: str) -> dict[str, float]:
    found = re.findall(r"(\w+)\s*,\s*\d+\s*=\s*(\S+)", text)
    return {element: float(energy) for element, energy in found}


def _network(reader: _Reader, folder: Path, element: str) -> list[Layer]:
    packed = reader.read(folder / f"ANN-{element}.nnf")
    text = bz2.decompress(packed.partition(b"=\n")[2]).decode("ascii")
    layers = [dict(_VALUE.findall(block)) for block in _LAYER.findall(text)]
    if [one["activation"] for one in layers] != [_CELU] * (len(layers) - 1) + [_LINEAR]:
        raise ValueError(f"activations in {folder} that are not CELU and, at the end, none")
    found = []
    for one in layers:
        weight, bias = (
            np.frombuffer(reader.read(folder / one[name]), dtype="<f4").astype(np.float64)
            for name in ("weights", "biases")
        )
        size = int(one["nodes"]), int(one["blocksize"])
        found.append(Layer(weight.reshape(1, *size), bias.reshape(1, size[0])))
    return found


def _ensemble(members: list[list[Layer]]) -> list[Layer]:
    if not members:
        raise ValueError("no folder train0/networks")
    return [
        Layer(np.concatenate([m.weight for m in layers]), np.concatenate([m.bias for m in layers]))
        for layers in zip(*members, strict=True)
    ]
