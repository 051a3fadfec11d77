"""Words that options of `label` take, apart from what reads them: their help shall be instant."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["BACKENDS", "ENERGY_UNITS", "MATCHES", "Match"]

BACKENDS: Final = ("loky", "dask", "ray")
ENERGY_UNITS: Final = ("kj/mol", "kcal/mol", "kT")
Match = Literal["auto", "time", "row"]
MATCHES: Final = get_args(Match)
