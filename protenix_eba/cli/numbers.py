"""Numbers as options take them: finite, where click's own types also take nan and infinity."""

from __future__ import annotations

import math
from typing import Any

import click

__all__ = ["Number", "NumberRange"]


class Number(click.types.FloatParamType):
    """A finite number."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; `nan` and `inf` end the command as text would."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class NumberRange(Number, click.FloatRange):
    """A finite number within a range."""
