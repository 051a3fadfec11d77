"""What earlier runs have labelled, and whether it may be mixed with this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from protenix_eba.energy.protocol import EnergyProtocol
from protenix_eba.energy.table import EnergyLabels, labels_from_rows, read_labels
from protenix_eba.errors import UserError

__all__ = ["KnownLabels"]


class KnownLabels:
    """Rows of earlier runs.

    Attributes:
        labels: All of them; None when there is no table yet.
        used: Rows that `has` found.
    """

    def __init__(self, labels: EnergyLabels | None) -> None:
        self.labels = labels
        rows = labels.rows() if labels is not None else []
        self._rows = {(r["target"], r["replica"], r["frame"]): r for r in rows}
        self._topologies = {r["target"]: r["topology_hash"] for r in rows if r["topology_hash"]}
        self.used = 0

    @classmethod
    def load(cls, out: Path, parts: Path, protocol: EnergyProtocol) -> KnownLabels:
        """Read the finished table and the parts; later rows take the place of failed ones.

        Raises:
            UserError: A table that cannot be read, or rows of another protocol.
        """
        tables = [read_labels(out)] if out.exists() else []
        tables += [read_labels(p) for p in sorted(parts.glob("[!.]*.parquet"))]
        for table in tables:
            for found in set(table.protocol_hash.tolist()) - {protocol.hash}:
                theirs = table.provenance.get("protocol", {}).get("name", "?")
                raise UserError(
                    f"{out} holds labels of another protocol ({theirs}, {found}) than the one "
                    f"asked for ({protocol.name}, {protocol.hash})",
                    "give another --out: energies of two protocols must not be mixed",
                )
        if not tables:
            return cls(None)
        rows: dict[Any, dict[str, Any]] = {}
        for row in (row for table in tables for row in table.rows()):
            key = (row["target"], row["replica"], row["frame"])
            if key not in rows or rows[key]["status"] == "failed":
                rows[key] = row
        return cls(labels_from_rows(list(rows.values()), tables[-1].provenance))

    def has(self, target: str, replica: int, frame: int, frame_hash: str, out: Path) -> bool:
        """Whether this frame has a label that need not be computed again.

        Raises:
            UserError: The label belongs to other coordinates.
        """
        row = self._rows.get((target, replica, frame))
        if row is None or row["status"] == "failed":
            return False
        if row["frame_hash"] != frame_hash:
            raise UserError(
                f"{out}: the label of {target} replica {replica} frame {frame} belongs to other "
                "coordinates than the trajectory's",
                "the trajectory has changed since: give another --out",
            )
        self.used += 1
        return True

    def check_topology(self, target: str, topology_hash: str, out: Path) -> None:
        """Make sure that labels of this target are of this topology.

        Raises:
            UserError: They are not.
        """
        found = self._topologies.get(target, topology_hash)
        if found != topology_hash:
            raise UserError(
                f"{out} holds labels of {target} with another topology ({found}) than its PDB file "
                f"gives now ({topology_hash})",
                "residues, protonation or disulfides differ: give another --out",
            )
