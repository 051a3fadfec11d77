"""The one exception that a user is meant to read."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(Exception):
    """Input or configuration that cannot be used.

    The commands print it without a traceback and exit with status 2. Its message says what was
    expected, what was found and where; `hint` says what to do about it.

    Args:
        message: What is wrong, with the path or key it was found at.
        hint: What the user can do, one sentence.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  What to do: {self.hint}" if self.hint else message
