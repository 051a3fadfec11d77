"""One way to say that a value of a configuration is outside its range."""

from __future__ import annotations

from typing import ClassVar

from protenix_eba.core.errors import UserError

__all__ = ["Ranged"]


class Ranged:
    """Values that are checked when they are put together: a base of dataclasses.

    Attributes:
        prefix: Prefix of the names in messages, such as "eba." for a section of the configuration.
    """

    prefix: ClassVar[str] = ""

    def _require(self, key: str, holds: bool, expected: str) -> None:
        """Refuse a value.

        Raises:
            UserError: It does not hold.
        """
        if not holds:
            found = getattr(self, key)
            raise UserError(f"{self.prefix}{key}: expected {expected}, found {found!r}")
