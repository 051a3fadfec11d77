"""Karplus curves: three-bond couplings across the backbone torsion phi.

J = A cos^2(phi + phase) + B cos(phi + phase) + C. A set is named for its paper. A curve that was
fitted to the torsions of one rigid structure contains the motion of that protein, which an average
over an ensemble then counts once more; where motion was taken out, the amplitudes are larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError

__all__ = ["COUPLINGS", "DEFAULT_SET", "SOURCES", "Karplus", "karplus"]

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Karplus:
    """One Karplus curve.

    Attributes:
        a: Hz.
        b: Hz.
        c: Hz.
        phase: Degrees, added to phi.
        error: Hz, root mean square deviation of the fit from the measured couplings.
    """

    a: float
    b: float
    c: float
    phase: float
    error: float

    def couplings(self, phi: Floats) -> Floats:
        """Return couplings in Hz for torsions in radians, of any shape."""
        cosine = np.cos(phi + np.deg2rad(self.phase))
        result: Floats = self.a * cosine**2 + self.b * cosine + self.c
        return result


SOURCES: Final = {
    "vogeli2007": "Voegeli, Ying, Grishaev, Bax, J. Am. Chem. Soc. 129, 9377 (2007), Table 1, the "
    "larger amplitudes: motion taken out; fitted to GB3",
    "vogeli2007_rigid": "the same paper, the smaller amplitudes: of the structure as it stands",
    "hu1997": "Hu, Bax, J. Am. Chem. Soc. 119, 6360 (1997): fitted to ubiquitin's structure",
    "schmidt1999": "Schmidt, Bluemel, Loehr, Rueterjans, J. Biomol. NMR 14, 1 (1999): fitted to "
    "flavodoxin's torsions and curves at once",
}
DEFAULT_SET: Final = "vogeli2007"

# As in mdtraj's table (vogeli2007; a test holds all that it has) and in analysis_parameters.py of
# openforcefield/proteinbenchmark (the others), which cite these papers; not read from the papers.
COUPLINGS: Final[dict[str, dict[str, Karplus]]] = {
    "3J_HN_HA": {
        "vogeli2007": Karplus(8.4, -1.36, 0.33, -60.0, 0.36),
        "vogeli2007_rigid": Karplus(7.97, -1.26, 0.63, -60.0, 0.42),
        "hu1997": Karplus(7.09, -1.42, 1.55, -60.0, 0.91),
        "schmidt1999": Karplus(7.90, -1.05, 0.65, -60.0, 0.35),
    },
    "3J_HN_CB": {
        "vogeli2007": Karplus(3.71, -0.59, 0.08, 60.0, 0.22),
        "vogeli2007_rigid": Karplus(3.51, -0.53, 0.14, 60.0, 0.25),
        "hu1997": Karplus(3.06, -0.74, 0.13, 60.0, 0.39),
        "schmidt1999": Karplus(2.90, -0.56, 0.18, 60.0, 0.35),
    },
    "3J_HN_C": {
        "vogeli2007": Karplus(4.36, -1.08, -0.01, 180.0, 0.30),
        "vogeli2007_rigid": Karplus(4.12, -1.10, 0.11, 180.0, 0.31),
        "hu1997": Karplus(4.29, -1.01, 0.00, 180.0, 0.59),
        "schmidt1999": Karplus(4.41, -1.36, 0.24, 180.0, 0.35),
    },
    # Voegeli et al. did not measure this one; those who use their sets take Hu and Bax's.
    "3J_HA_C": {
        "hu1997": Karplus(3.72, -2.18, 1.28, 120.0, 0.38),
        "schmidt1999": Karplus(3.76, -1.63, 0.89, 120.0, 0.35),
    },
}


def karplus(coupling: str, name: str = "") -> Karplus:
    """Return a curve by the name of its coupling and set.

    Args:
        coupling: A key of `COUPLINGS`.
        name: A set; empty for the default, or for hu1997 where that one has no such coupling.

    Raises:
        UserError: No such set.
    """
    known = COUPLINGS[coupling]
    name = name or (DEFAULT_SET if DEFAULT_SET in known else "hu1997")
    if name not in known:
        raise UserError(
            f"{coupling}: there is no Karplus set {name!r}", f"known are: {', '.join(known)}"
        )
    return known[name]
