"""Formulas of the documentation as MathML, which browsers show without a script or a network.

A hook of mkdocs. The pages write formulas as GitHub shows them: a fenced block ```math, and
$`...`$ in a line.
"""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

_FENCE = re.compile(r"^```math\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"\$`([^`]+)`\$")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace all formulas of a page."""
    markdown = _FENCE.sub(lambda found: _block(found[1]), markdown)
    # In a span, since a line that begins with <math> would be a paragraph of its own.
    return _INLINE.sub(lambda found: f"<span>{convert(found[1])}</span>", markdown)


def _block(formula: str) -> str:
    return f'<div class="formula">{convert(formula, display="block")}</div>'
