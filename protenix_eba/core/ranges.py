"""A base class for values of a configuration that checks their ranges."""

from __future__ import annotations

from typing import ClassVar

from protenix_eba.core.errors import UserError

__all__ = ["Ranged"]


class Ranged:
    """Base of dataclasses that check their values when they are made.

    Attributes:
        prefix: Prefix of the names in messages, such as "eba." for a section of the configuration.
    """

    prefix: ClassVar[str] = ""

    def _require(self, key: str, holds: bool, expected: str) -> None:
        """Raise an error unless a value is inside its range.

        Raises:
            UserError: It does not hold.
        """
        if not holds:
            found = getattr(self, key)
            raise UserError(f"{self.prefix}{key}: expected {expected}, found {found!r}")
