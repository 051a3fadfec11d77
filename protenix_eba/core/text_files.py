"""Reading text of any program: byte order marks, UTF-16, CRLF, NUL between records."""

from __future__ import annotations

import codecs
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from protenix_eba.core.errors import UserError

__all__ = ["read_text", "text_lines", "without_mark"]

_MARKS: Final = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Databases of alignments (ffindex, ColabFold) separate records by NUL.
_SEPARATORS: Final = re.compile(r"^\0+|\0+$", re.MULTILINE)


def read_text(path: Path, hint: str = "save it as text in UTF-8", *, strict: bool = True) -> str:
    """Read a text file, its lines ended by a line feed, without a byte order mark.

    NUL at the ends of lines is left out; within a line it stays, and is a mistake there.

    Args:
        path: The file.
        hint: What to do where it is none.
        strict: Refuse bytes that are no UTF-8. Otherwise they become question marks: names of
            authors in a structure file's remarks are in all encodings.

    Raises:
        UserError: It cannot be opened, or is no text.
    """
    try:
        data = path.read_bytes()
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        errors = "strict" if strict else "replace"
        text = data.decode("utf-16" if utf16 else "utf-8-sig", errors)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}", hint) from error
    return _SEPARATORS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def text_lines(path: Path, hint: str = "save it as text in UTF-8") -> list[str]:
    """Return the lines of a text file with their ends, for `csv.reader`; see `read_text`."""
    return read_text(path, hint).splitlines(keepends=True)


@contextmanager
def without_mark(path: Path) -> Iterator[Path]:
    """Return the file, or a copy in UTF-8 if it begins with a byte order mark.

    For readers of other libraries, to which the mark is a part of the first line: they pass over
    that line's atom.
    """
    with path.open("rb") as file:
        marked = file.read(3).startswith(_MARKS)
    if not marked:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_text(read_text(path, strict=False), encoding="utf-8")
        yield copy
