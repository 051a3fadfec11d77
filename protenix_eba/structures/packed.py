"""Files packed by gzip, and the temporary folders that unpacked files lie in."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

__all__ = ["Scratch", "format_of", "plain"]

_PACKED: Final = ".gz"


class Scratch:
    """A temporary folder that goes with this object, or with the process."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="protenix-eba-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def format_of(path: Path) -> str:
    """Return the suffix that tells the format: ".pdb" for NAME.pdb and NAME.PDB.gz."""
    return (Path(path.stem) if path.suffix.lower() == _PACKED else path).suffix.lower()


@contextmanager
def plain(path: Path) -> Iterator[Path]:
    """Yield the file, or the one that it packs, unpacked until another one is asked for.

    Raises:
        OSError, EOFError, zlib.error: A packed file that is cut or none at all.
    """
    if path.suffix.lower() != _PACKED:
        yield path
        return
    held = _unpacked(path, path.stat().st_mtime_ns)  # the file stays as long as this does
    yield held.path / path.stem
    del held


@lru_cache(maxsize=1)
def _unpacked(path: Path, modified_ns: int) -> Scratch:
    scratch = Scratch()
    with gzip.open(path, "rb") as source, open(scratch.path / path.stem, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    return scratch
