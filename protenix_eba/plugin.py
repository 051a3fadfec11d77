"""What protenix-eba offers to Protenix."""

from __future__ import annotations

from protenix_eba.config import EBAConfig, section_defaults
from protenix_eba.plugin_api import Plugin

__all__ = ["plugin"]


def _register() -> None:
    """Import the modules whose decorators register components."""
    import protenix_eba.data.loader
    import protenix_eba.objectives
    import protenix_eba.trainer  # noqa: F401


plugin = Plugin("protenix_eba", {"eba": section_defaults(EBAConfig)}, _register)
