"""Observables of bond directions: residual dipolar couplings and order parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.constants import h, mu_0

from protenix_eba.core.errors import UserError
from protenix_eba.eval.experiment.frames import Frames
from protenix_eba.eval.experiment.measurements import Measurement
from protenix_eba.eval.protocol.alignment import placements, superpose

__all__ = [
    "alignment_tensor",
    "dipolar_constant_hz",
    "dipolar_couplings",
    "order_parameters",
    "second_moments",
]

Float64s = NDArray[np.float64]

# Gyromagnetic ratios in rad / s / T: CODATA 2018 for 1H; 13C and 15N from Harris et al., Pure Appl.
# Chem. 73, 1795 (2001).
_GYROMAGNETIC: Final = {"H": 2.6752218744e8, "C": 6.728284e7, "N": -2.71261804e7}
_LONGEST_BOND_ANGSTROM: Final = 1.8
_SUPERPOSITIONS: Final = 5
_TENSOR_COMPONENTS: Final = 5


def dipolar_constant_hz(first: str, second: str, distance_angstrom: float) -> float:
    """Return the largest dipolar coupling of two nuclei, Hz: -mu0 g1 g2 h / (8 pi^3 r^3).

    A rigid bond at the angle t to the field, in a molecule that does not tumble, would have
    this times (3 cos^2 t - 1) / 2, the splitting that one measures.

    Args:
        first: Element of a nucleus: H, C or N.
        second: Element of the other nucleus.
        distance_angstrom: Distance between the nuclei.

    Raises:
        UserError: Another element.

    Source: Bax, Protein Sci. 12, 1 (2003), Eq. 1.
    """
    for element in (first, second):
        if element not in _GYROMAGNETIC:
            raise UserError(f"RDC: no gyromagnetic ratio of {element}", "couplings of H, C and N")
    ratios = _GYROMAGNETIC[first] * _GYROMAGNETIC[second]
    return float(-mu_0 * ratios * h / (8.0 * np.pi**3 * (distance_angstrom * 1e-10) ** 3))


def _bonds(frames: Frames, measurements: Sequence[Measurement]) -> tuple[Float64s, Float64s]:
    """Unit vectors `[S, M, 3]`, superposed on the mean, and mean lengths `[M]` in angstrom."""
    turned = _turns(frames)
    ends = [[frames.position(group[0]) for group in m.groups] for m in measurements]
    vectors = np.stack([two - one for one, two in ends], axis=1)
    lengths = np.linalg.norm(vectors, axis=-1)
    mean = lengths.mean(axis=0)
    for measurement, length in zip(measurements, mean, strict=True):
        if length > _LONGEST_BOND_ANGSTROM:
            raise UserError(
                f"{measurement.label}: the atoms are {length:.2f} Å apart, they are not bonded",
                "give bonded atoms: 5:N 5:H",
            )
    units = np.einsum("smi,sij->smj", vectors / lengths[..., None], turned)
    return units, mean


def _turns(frames: Frames) -> Float64s:
    """Return rotations `[S, 3, 3]` that superpose the C-alpha atoms on their mean structure.

    The overall tumbling is no internal motion. All conformations enter the mean alike, so that the
    frame does not move with the weights.
    """
    ca = np.asarray(frames.ca, dtype=np.float64)
    mean = ca[0]
    for _ in range(_SUPERPOSITIONS):
        mean = superpose(ca, mean).mean(axis=0)
    return placements(ca, mean - mean.mean(axis=0))[1]


def second_moments(
    frames: Frames, measurements: Sequence[Measurement]
) -> tuple[Float64s, Float64s]:
    """Compute the bonds' second moments and lengths, from which both observables follow.

    Returns:
        `[S, M, 3, 3]` products of the bonds' unit vectors with themselves, `[M]` lengths, angstrom.
    """
    units, lengths = _bonds(frames, measurements)
    return units[..., :, None] * units[..., None, :], lengths


def order_parameters(moments: Float64s) -> Float64s:
    """Return S^2 from averaged second moments `[..., 3, 3]`: 3/2 sum <u_i u_j>^2 - 1/2.

    Source: Henry and Szabo, J. Chem. Phys. 82, 4753 (1985), Eq. 21.
    """
    result: Float64s = 1.5 * np.square(moments).sum(axis=(-1, -2)) - 0.5
    return result


def _design(moments: Float64s) -> Float64s:
    """Return the matrix `[M, 5]` from the tensor's xx, yy, xy, xz, yz to the couplings."""
    xx, yy, zz = (moments[:, i, i] for i in range(3))
    pairs = [2.0 * moments[:, i, j] for i, j in ((0, 1), (0, 2), (1, 2))]
    return np.stack([xx - zz, yy - zz, *pairs], axis=1)


def alignment_tensor(
    moments: Float64s, constants: Float64s, values: Float64s, errors: Float64s
) -> Float64s:
    """Fit the order matrix `[3, 3]` to measured couplings, by singular values.

    Args:
        moments: `[M, 3, 3]` averaged second moments of the bonds.
        constants: `[M]` of `dipolar_constant_hz`.
        values: `[M]` measured, Hz.
        errors: `[M]`.

    Raises:
        UserError: As many free components as couplings, or bonds that do not determine them.

    Source: Losonczi et al., J. Magn. Reson. 138, 334 (1999).
    """
    if len(values) <= _TENSOR_COMPONENTS:
        raise UserError(
            f"RDC: {len(values)} couplings of one medium, the tensor has {_TENSOR_COMPONENTS} free "
            "components",
            "six couplings or more; `set` names the medium",
        )
    rows = _design(moments) * constants[:, None]
    solution, _, rank, _ = np.linalg.lstsq(rows / errors[:, None], values / errors, rcond=1e-8)
    if rank < _TENSOR_COMPONENTS:
        raise UserError(
            f"RDC: the bonds determine {rank} of {_TENSOR_COMPONENTS} components of the tensor",
            "add couplings of bonds of other directions",
        )
    xx, yy, xy, xz, yz = solution
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, -xx - yy]])


def dipolar_couplings(moments: Float64s, constants: Float64s, tensor: Float64s) -> Float64s:
    """Return couplings `[M]` in Hz: the constant times sum S_ij <u_i u_j>."""
    result: Float64s = constants * np.einsum("mij,ij->m", moments, tensor)
    return result
