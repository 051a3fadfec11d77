"""Text as people's programs write it: byte order marks, UTF-16, CRLF, NUL between records."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Final

from protenix_eba.core.errors import UserError

__all__ = ["read_text"]

# Databases of alignments (ffindex, ColabFold) separate records by NUL.
_SEPARATORS: Final = re.compile(r"^\0+|\0+$", re.MULTILINE)


def read_text(path: Path, hint: str = "save it as text in UTF-8") -> str:
    """A text file, its lines ended by a line feed, without byte order mark.

    NUL at the ends of lines is left out; within a line it stays, and is a mistake there.

    Args:
        path: The file.
        hint: What to do where it is none.

    Raises:
        UserError: It cannot be opened, or is no text.
    """
    try:
        data = path.read_bytes()
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}", hint) from error
    return _SEPARATORS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
