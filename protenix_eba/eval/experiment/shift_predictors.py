"""Predictors of backbone chemical shifts, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import mdtraj
import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.eval.experiment.caustic import NUCLEI, Caustic
from protenix_eba.plugin_api import Registry

__all__ = ["NUCLEI", "SHIFT_PREDICTORS", "ShiftPredictor", "nucleus", "predictor"]

Float64s = NDArray[np.float64]

_DEFAULT: Final = "caustic"
_SAME: Final = {"HN": "H", "HA2": "HA", "HA3": "HA"}


class ShiftPredictor(Protocol):
    """Predicts the shifts of `NUCLEI` of one chain; registered in `SHIFT_PREDICTORS`."""

    @property
    def errors(self) -> Mapping[str, float]:
        """Standard deviation of its predictions from measured shifts, ppm, by nucleus."""

    @property
    def source(self) -> str:
        """Where its errors are from."""

    def version(self) -> str:
        """Return what decides its predictions.

        Raises:
            UserError: What it needs is not installed.
        """

    def predict(self, topology: mdtraj.Topology, xyz: NDArray[np.floating]) -> Float64s:
        """Return the shifts of one conformation `[N, 3]`, angstrom: `[R, 6]` ppm, NaN where none.

        It is called in many processes, so the predictor has to be pickled.
        """

    def random_coil(self, topology: mdtraj.Topology) -> Float64s:
        """Return the shifts of the sequence without structure, `[R, 6]` ppm, NaN where none."""

    def remarks(self, topology: mdtraj.Topology, xyz: NDArray[np.floating]) -> list[str]:
        """Say what it takes for something else, or does not see, in `[S, N, 3]` angstrom."""


SHIFT_PREDICTORS: Final[Registry[ShiftPredictor]] = Registry("shift predictor")
SHIFT_PREDICTORS.register(_DEFAULT)(Caustic())


def predictor(name: str) -> ShiftPredictor:
    """Return a predictor by its name, the default where that is empty.

    Raises:
        UserError: There is none of that name.
    """
    return SHIFT_PREDICTORS.get(name or _DEFAULT)


def nucleus(atom: str) -> str:
    """Return the nucleus of an atom: HN is H, and both alpha hydrogens of glycine are HA.

    Raises:
        UserError: It is not of the backbone, nor CB.
    """
    name = _SAME.get(atom, atom)
    if name not in NUCLEI:
        raise UserError(f"SHIFT: no shifts of {atom}", f"known: {', '.join(NUCLEI)}")
    return name
