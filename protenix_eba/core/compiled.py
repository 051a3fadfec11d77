"""Functions that numba compiles once per machine, or in each process where it cannot keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import numba

__all__ = ["compiler"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiler(
    *, error_model: Literal["python", "numpy"] = "python", fastmath: bool = False
) -> Callable[[_Function], _Function]:
    """Return a decorator for loops: `numba.njit` that keeps its machine code if it can.

    numba keeps it beside the source file, or in the user's cache folder where that cannot be
    written, and refuses to if it can write to neither: a package of the system's, no home folder.

    Args:
        error_model: "numpy" leaves out the check for division by zero.
        fastmath: Whether sums may be made in another order than is written.
    """

    def compiled(function: _Function) -> _Function:
        options: dict[str, Any] = {"error_model": error_model, "fastmath": fastmath}
        try:
            made = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # "cannot cache function": seconds in each process
            made = numba.njit(**options)(function)
        return cast(_Function, made)

    return compiled
