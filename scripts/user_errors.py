"""What scripts do with errors of their users: the message and status 2, as the commands do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from protenix_eba.core.errors import UserError


@contextmanager
def ends_on_user_error() -> Iterator[None]:
    """End the script where a UserError is raised within.

    Raises:
        SystemExit: With status 2, after the message on the standard error.
    """
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
