"""Names of files that mdtraj's readers and writers in C can open."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ascii_path"]


@contextmanager
def ascii_path(path: Path) -> Iterator[str]:
    """Yield a name for a file, there or not yet, that mdtraj's readers and writers in C can open.

    They refuse letters outside ASCII: a link stands for such a path.
    """
    if str(path).isascii():
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"link{path.suffix}"
        link.symlink_to(path.absolute())
        yield str(link)
