"""The error that a user is meant to read."""

from __future__ import annotations

# It lives with the plugin API, which raises it and must stand alone.
from protenix_eba.plugin_api import UserError

__all__ = ["UserError"]
