"""Labels of earlier runs, and checks of whether they may be mixed with this run's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protenix_eba.core.errors import UserError
from protenix_eba.energy.journal import JOURNAL_SUFFIX, read_journal
from protenix_eba.energy.protocol import EnergyProtocol
from protenix_eba.energy.table import FINISHED, EnergyLabels, labels_from_rows, read_labels

__all__ = ["KnownLabels", "LabelFiles", "merged", "parts_folder"]


def parts_folder(out: Path) -> Path:
    """Return the folder of the journals of a run that has not finished."""
    return out.with_name(out.name + ".parts")


@dataclass(frozen=True)
class LabelFiles:
    """Files that hold rows of one label table.

    Attributes:
        table: The final table, if it is there.
        shares: Tables of finished shares, see `energy.shards`.
        parts: Journals of runs and of shares that have not finished, see `energy.journal`.
    """

    table: list[Path]
    shares: list[Path]
    parts: list[Path]

    @classmethod
    def beside(cls, out: Path) -> LabelFiles:
        """Find all files of the table `out`."""
        name = f"{out.stem}.shard-*-of-*{out.suffix}"
        shares = sorted(out.parent.glob(name))
        folders = [parts_folder(out), *sorted(out.parent.glob(f"{name}.parts"))]
        parts = [path for folder in folders for path in sorted(folder.glob(f"*{JOURNAL_SUFFIX}"))]
        return cls([out] if out.exists() else [], shares, parts)

    def read(self) -> list[EnergyLabels]:
        """Read all tables; raise UserError for one that cannot be read."""
        tables = [read_labels(path) for path in (*self.table, *self.shares)]
        # One that is cut in its first row does not even say how its rows are made.
        return tables + [found for found in map(read_journal, self.parts) if len(found)]

    def remove(self, keep: Path) -> None:
        """Remove these files but `keep`, and the folders that this leaves empty."""
        for path in {*self.shares, *self.parts} - {keep}:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in self.parts}:
            if not any(folder.iterdir()):
                folder.rmdir()


def merged(tables: Sequence[EnergyLabels]) -> EnergyLabels:
    """Merge tables to one row for each frame; one with an energy replaces one without.

    Raises:
        UserError: Tables of different protocols, or of different topologies of a target, or one of
            several energies.
    """
    if any(table.others for table in tables):
        raise UserError(
            "a table of several energies (`label combine`) takes no more rows",
            "label into the tables that it was made from, then combine them again",
        )
    rows: dict[Any, dict[str, Any]] = {}
    for row in (row for table in tables for row in table.rows()):
        key = (row["target"], row["replica"], row["frame"])
        if key not in rows or rows[key]["status"] not in FINISHED:
            rows[key] = row
    hashes = sorted({row["protocol_hash"] for row in rows.values()})
    if len(hashes) > 1:
        raise UserError(
            f"labels of different protocols ({', '.join(hashes)})",
            "energies of two protocols must not be mixed: label one of them again",
        )
    _refuse_two_topologies(rows.values())
    return labels_from_rows(list(rows.values()), tables[-1].provenance)


def _refuse_two_topologies(rows: Iterable[Mapping[str, Any]]) -> None:
    """Raise UserError where energies of one target are of different systems."""
    known: dict[str, str] = {}
    for row in rows:
        if row["status"] in FINISHED and row["topology_hash"]:
            found = known.setdefault(row["target"], row["topology_hash"])
            if found != row["topology_hash"]:
                raise UserError(
                    f"labels of {row['target']} with different topologies ({found} and "
                    f"{row['topology_hash']})",
                    "residues, protonation, disulfides or the file of --system differ: label one "
                    "of them again",
                )


class KnownLabels:
    """Rows of earlier runs.

    Attributes:
        labels: All of them; None when there is no table yet.
        files: The files in which they stand.
        used: Rows that `has` found.
    """

    def __init__(self, labels: EnergyLabels | None, files: LabelFiles, out: Path) -> None:
        self.labels = labels
        self.files = files
        self._out = out
        rows = labels.rows() if labels is not None else []
        self._rows = {(r["target"], r["replica"], r["frame"]): r for r in rows}
        self._topologies = {r["target"]: r["topology_hash"] for r in rows if r["topology_hash"]}
        self.used = 0

    @classmethod
    def load(cls, out: Path, protocol: EnergyProtocol) -> KnownLabels:
        """Read the finished table, the shares and the parts.

        Raises:
            UserError: A table that cannot be read, or rows of another protocol.
        """
        files = LabelFiles.beside(out)
        tables = files.read()
        for table in tables:
            for found in set(table.protocol_hash.tolist()) - {protocol.hash}:
                theirs = table.provenance.get("protocol", {}).get("name", "?")
                raise UserError(
                    f"{out} holds labels of another protocol ({theirs}, {found}) than the one "
                    f"asked for ({protocol.name}, {protocol.hash})",
                    "give another --out: energies of two protocols must not be mixed",
                )
        return cls(merged(tables) if tables else None, files, out)

    def has(self, target: str, replica: int, frame: int, frame_hash: str) -> bool:
        """Tell whether this frame has a label that need not be computed again.

        Raises:
            UserError: The label belongs to other coordinates.
        """
        row = self._rows.get((target, replica, frame))
        if row is None or row["status"] not in FINISHED:
            return False
        if row["frame_hash"] != frame_hash:
            raise UserError(
                f"{self._out}: the label of {target} replica {replica} frame {frame} belongs to "
                "other coordinates than the trajectory's",
                "the trajectory has changed since: give another --out",
            )
        self.used += 1
        return True

    def check_topology(self, target: str, topology_hash: str) -> None:
        """Make sure that labels of this target are of this topology.

        Raises:
            UserError: They are not.
        """
        found = self._topologies.get(target, topology_hash)
        if found != topology_hash:
            raise UserError(
                f"{self._out} holds labels of {target} with another topology ({found}) than its "
                f"files give now ({topology_hash})",
                "residues, protonation, disulfides or the file of --system differ: give another "
                "--out",
            )
