"""Exit statuses of the commands; 0 means success, and 1 a traceback: a defect of ours."""

from __future__ import annotations

from typing import Final

__all__ = ["INTERRUPTED", "SOME_FAILED", "TERMINATED", "UNUSABLE_INPUT"]

UNUSABLE_INPUT: Final = 2
SOME_FAILED: Final = 3
# As a shell gives them: 128 and the number of SIGINT or SIGTERM.
INTERRUPTED: Final = 130
TERMINATED: Final = 143
