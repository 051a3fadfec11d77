"""Words that options of `label` take, apart from what reads them: their help shall be instant."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["BACKENDS", "ENERGY_UNITS", "MATCHES", "MEANINGS", "WEIGHTS", "Match", "Meaning"]

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

WEIGHTS: Final = {
    "ani-1x": "84719cd1118b08f72dc67cc656c12e5f408e690c01b1d5bcd62ad2587484013c",
    "ani-1ccx": "9252a74fecc215867389e7187f2524ba0f3041a32892c492e020f55d6a596f0b",
}
"""Learned potentials, and SHA-256 of their weights, as `ani_weights.read_ani_weights` gives it."""
