"""Compiled loops."""

from typing import Any

import numba
import pytest

from protenix_eba.core.compiled import compiler


def test_a_function_is_compiled_also_where_its_machine_code_cannot_be_kept() -> None:
    """As that of no file, for which numba has no place either."""
    names: dict[str, Any] = {}
    exec("def ratio(a, b): return a / b", names)
    with pytest.raises(RuntimeError, match="cannot cache function"):
        numba.njit(cache=True)(names["ratio"])
    assert compiler()(names["ratio"])(3.0, 2.0) == 1.5
    with pytest.raises(ZeroDivisionError):
        compiler()(names["ratio"])(1.0, 0.0)
    assert compiler(error_model="numpy")(names["ratio"])(1.0, 0.0) == float("inf")
