"""A folder of decoys with their scores, from which a killed run continues."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from protenix_eba import __version__
from protenix_eba.core.errors import UserError
from protenix_eba.core.files import write_json

__all__ = ["ScoreFolder"]

_SCORES: Final = "scores.json"


class ScoreFolder:
    """A folder of decoys with `scores.json`, which has a row for each decoy in it.

    It is written anew with each decoy, so that a run that is killed goes on where it was.

    Args:
        out: The folder.
        made: What the decoys depend on; compared with what is there.
        files: Names of the decoys that are wanted, in the order of their rows.

    Raises:
        UserError: It holds decoys made in another way, or others, or scores that are damaged.
    """

    def __init__(self, out: Path, made: Mapping[str, Any], files: Sequence[str]) -> None:
        self.out = out
        self.files = list(files)
        self._path = out / _SCORES
        self._made = dict(made)
        self._rows: dict[str, dict[str, Any]] = {}
        if not self._path.is_file():
            return
        try:
            before = json.loads(self._path.read_text(encoding="utf-8"))
            changed = [key for key, value in made.items() if before["made"].get(key) != value]
            rows = {row["file"]: row for row in before["decoys"]}
        except (ValueError, KeyError, TypeError, AttributeError):
            changed, rows = ["settings, or they are damaged"], {}
        if changed:
            raise UserError(
                f"{out} holds decoys made with other {', '.join(changed)}",
                "choose another --out, or delete the folder",
            )
        self._rows = {file: row for file, row in rows.items() if (out / file).is_file()}
        if not self._rows.keys() <= set(files):
            raise UserError(
                f"{out} holds {len(self._rows)} decoys, {len(files)} are asked for",
                f"ask for {len(self._rows)} or more, or choose another --out",
            )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the decoys that are in the folder."""
        return [self._rows[file] for file in self.files if file in self._rows]

    @property
    def missing(self) -> list[str]:
        """Names of the decoys that are not in the folder."""
        return [file for file in self.files if file not in self._rows]

    def add(self, file: str, row: Mapping[str, Any]) -> None:
        """Enter the row of a decoy whose file is written."""
        self._rows[file] = {"file": file, **row}
        self.write({})

    def write(self, failed: Mapping[str, str]) -> None:
        """Write the scores, and the reasons why some decoys have none.

        The decoy that the predictions make likeliest is `selected`.
        """
        likeliest = min((row["negative_log_likelihood"] for row in self.rows), default=None)
        for row in self.rows:
            row["selected"] = row["negative_log_likelihood"] == likeliest
        made = self._made | {"version": __version__}
        write_json(self._path, {"made": made, "failed": dict(failed), "decoys": self.rows})

    @property
    def selected(self) -> dict[str, Any]:
        """Row of the decoy that the predictions make likeliest."""
        return next(row for row in self.rows if row["selected"])
