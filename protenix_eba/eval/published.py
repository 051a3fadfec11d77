"""Numbers from papers, each with its source, to compare a user's own with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any

import yaml

__all__ = ["PublishedRow", "published_rows"]


@dataclass(frozen=True)
class PublishedRow:
    """The numbers of one method in one published table.

    Attributes:
        label: The method.
        source: Paper and table.
        split: The proteins that it was measured on.
        n_targets: How many; None where the source does not say.
        n_samples: Conformations of each; None where the source does not say.
        values: Metric key of the aggregate to the printed value.
        caveat: What a reader must know before comparing.
        unsafe: Keys to which the caveat applies.
    """

    label: str
    source: str
    split: str
    n_targets: int | None
    n_samples: int | None
    values: dict[str, float]
    caveat: str = ""
    unsafe: list[str] = field(default_factory=list)

    @property
    def cite(self) -> str:
        """Source, split and sizes in one line."""
        parts = [self.source, self.split]
        parts += [f"{self.n_targets} targets"] if self.n_targets else []
        parts += [f"{self.n_samples} conformations each"] if self.n_samples else []
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def published_rows() -> list[PublishedRow]:
    """Return the rows of the package's `published.yaml`, in its order."""
    text = resources.files("protenix_eba.eval").joinpath("published.yaml").read_text("utf-8")
    content = yaml.safe_load(text)
    caveats = content["caveats"]
    rows = []
    for entry in content["rows"]:
        caveat = caveats[entry.pop("caveat")] if "caveat" in entry else {}
        source = content["sources"][entry.pop("source")]
        rows.append(PublishedRow(**entry, **source, **caveat))
    return rows
