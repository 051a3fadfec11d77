"""The suites of this package, in the order in which they are shown."""

from __future__ import annotations

from typing import Final

from protenix_eba.eval.suites.bioemu.folding import FOLDING
from protenix_eba.eval.suites.bioemu.md import MD
from protenix_eba.eval.suites.bioemu.multiconf import MULTICONF
from protenix_eba.eval.suites.nmr import NMR
from protenix_eba.eval.suites.registry import SUITES, Suite
from protenix_eba.eval.suites.saxs import SAXS
from protenix_eba.eval.suites.states import STATES

__all__ = ["ATLAS", "SUITES", "known_suites"]

ATLAS: Final = Suite(
    name="atlas",
    measures="How near ensembles are to MD: the 13 metrics of AlphaFlow's protocol and more.",
    reference="MD: a folder of targets as ATLAS and `protenix-eba import` lay them out.",
    n_samples="250",
    data="ATLAS (Vander Meersche et al., NAR 2024), CC BY-NC 4.0, by scripts/download_atlas.sh; "
    "or any MD of yours",
    compute=None,
)

_OWN: Final = (ATLAS, STATES, MULTICONF, MD, FOLDING, NMR, SAXS)
for _suite in _OWN:
    SUITES.register(_suite.name)(_suite)


def known_suites() -> list[Suite]:
    """Return our own suites, then those of plugins by their names."""
    ours = [suite.name for suite in _OWN]
    return [*_OWN, *(SUITES.get(name) for name in SUITES if name not in ours)]
