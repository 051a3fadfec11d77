"""Words that options of `label` take, apart from what reads them: their help shall be instant."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["BACKENDS", "ENERGY_UNITS", "MATCHES", "MEANINGS", "Match", "Meaning"]

BACKENDS: Final = ("loky", "dask", "ray")
ENERGY_UNITS: Final = ("kj/mol", "kcal/mol", "kT")
Match = Literal["auto", "time", "row"]
MATCHES: Final = get_args(Match)

Meaning = Literal["energy", "bias", "weights"]
MEANINGS: Final[dict[Meaning, str]] = {
    "energy": "as given for each frame",
    "bias": "minus the bias potential of each frame",
    "weights": "minus kT times the logarithm of each frame's weight",
}
"""What imported numbers are, and how the provenance of their labels says it."""
