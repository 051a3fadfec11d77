"""Kinds of the plain values in `metrics.json`, which anyone may have edited."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = [
    "INTERVAL",
    "MAPPING",
    "NUMBER",
    "REASONS",
    "SEED",
    "TEXT",
    "TEXTS",
    "Kind",
    "check_format",
    "check_kinds",
]

# What readers call it, and whether a value is one.
Kind = tuple[str, Callable[[Any], bool]]


def _is_number(value: Any) -> bool:
    # JSON may hold whole numbers that no float can, and Python writes NaN into it.
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) <= sys.float_info.max


def _are_texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


TEXT: Final[Kind] = ("text", lambda v: isinstance(v, str))
TEXTS: Final[Kind] = ("a list of texts", lambda v: isinstance(v, list) and _are_texts(v))
SEED: Final[Kind] = (
    "a whole number, 0 or more",
    lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0,
)
NUMBER: Final[Kind] = ("a number or null", lambda v: v is None or _is_number(v))
INTERVAL: Final[Kind] = (
    "two numbers or null",
    lambda v: v is None or (isinstance(v, list) and len(v) == 2 and all(map(_is_number, v))),
)
MAPPING: Final[Kind] = ("names with values", lambda v: isinstance(v, dict))
REASONS: Final[Kind] = (
    "names with texts",
    lambda v: isinstance(v, dict) and _are_texts(v.values()),
)


def check_kinds(content: Any, kinds: Mapping[str, Kind], where: str = "") -> None:
    """Check that a mapping holds values of these kinds; others may be there besides.

    Args:
        content: What was read.
        kinds: Key to the kind of its value.
        where: What stands before the key in messages.

    Raises:
        ValueError: It is no mapping, lacks a key, or a value is of another kind.
    """
    if not isinstance(content, dict):
        raise ValueError(
            f"{where.rstrip('.') or 'the whole'}: expected {MAPPING[0]}, found {_shown(content)}"
        )
    for key, (words, fits) in kinds.items():
        if key not in content:
            raise ValueError(f"{where}{key}: expected {words}, found nothing")
        if not fits(content[key]):
            raise ValueError(f"{where}{key}: expected {words}, found {_shown(content[key])}")


def check_format(content: Any, expected: int) -> None:
    """Check the version of a file's layout.

    Raises:
        ValueError: It is another one, or there is none.
    """
    check_kinds(content, {"format": (str(expected), lambda v: v == expected)})


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
