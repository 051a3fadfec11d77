"""Files that are either whole or absent, and their fingerprints."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from protenix_eba.core.errors import UserError

__all__ = [
    "atomic_path",
    "cache_folder",
    "check_place",
    "fingerprint",
    "make_folder",
    "natural_order",
    "require_file",
    "sha256_of_file",
    "write_json",
]


def make_folder(path: Path) -> None:
    """Make a folder for results; called before they are computed, so that errors come early.

    Raises:
        UserError: It cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission to write")
    except OSError as error:
        raise UserError(
            f"cannot write into {path}: {error.strerror}", "choose a folder that you can write to"
        ) from error


def check_place(path: Path) -> None:
    """Check that a folder could be made and written to, without making it.

    Raises:
        UserError: It could not, as far as its permissions and those of its parents tell.
    """
    there = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "no permission to write" if there.is_dir() else "it is a file"
        raise UserError(
            f"cannot write into {path}: {there}: {reason}", "choose a folder that you can write to"
        )


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of `path`, renamed to it when the block ends without an error.

    The temporary name keeps the suffix, since some writers choose their format by it.

    Args:
        path: The finished file or folder; its parent folders are made.

    Raises:
        UserError: The folder cannot be written to.
    """
    path = Path(path)
    # Processes on several nodes may have the same number.
    process = f"{platform.node()}.{os.getpid()}"
    temporary = path.with_name(f".{path.stem}.{process}.tmp{path.suffix}")
    make_folder(path.parent)
    try:
        yield temporary
        if path.is_dir() and temporary.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Return the user's folder for what can be computed again: it may be deleted."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "protenix-eba"


def require_file(
    path: Path | str, what: str, hint: str = "check the path", *, pipe: bool = False
) -> Path:
    """Return `path` as a Path, if it is a readable file.

    Args:
        path: The file.
        what: Its name in messages.
        hint: What to do where it is none.
        pipe: Whether a named pipe will do, as it does for what is read once, from its start.

    Raises:
        UserError: It is not; `what` names it ("energy labels", "checkpoint").
    """
    path = Path(path)
    if not path.is_file() and not (pipe and path.is_fifo()):
        found = "a folder" if path.is_dir() else "a pipe" if path.is_fifo() else "nothing"
        raise UserError(f"{what}: expected a file at {path}, found {found}", hint)
    return path


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Return a key to sort paths by: frame_10 comes after frame_9."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def sha256_of_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Return a 16-digit fingerprint of anything that JSON can hold, whatever the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def write_json(path: Path | str, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity are refused."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
