"""A figure of a report, with its title, its caption and its files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from protenix_eba.core.files import atomic_path
from protenix_eba.eval.report.plots.style import Drawing

__all__ = ["Figure", "write_figures"]


@dataclass(frozen=True)
class Figure:
    """A figure of a report.

    Attributes:
        name: Name of its files, without a suffix.
        title: Title for readers.
        caption: How to read it.
        drawing: The drawing in both formats.
    """

    name: str
    title: str
    caption: str
    drawing: Drawing

    @property
    def source(self) -> str:
        """The picture as a data address, for an `img`."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.drawing.svg).decode("ascii")


def write_figures(folder: Path, figures: Sequence[Figure]) -> None:
    """Write each figure as NAME.svg and NAME.png."""
    for figure in figures:
        for suffix, content in (("svg", figure.drawing.svg), ("png", figure.drawing.png)):
            with atomic_path(folder / f"{figure.name}.{suffix}") as temporary:
                temporary.write_bytes(content)
