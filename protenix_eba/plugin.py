"""What protenix-eba offers to Protenix."""

from __future__ import annotations

from protenix_eba.compat import Plugin
from protenix_eba.config import EBAConfig, section_defaults
from protenix_eba.fold_config import EBMFoldConfig

__all__ = ["plugin"]


def _register() -> None:
    """Import the modules whose decorators register components."""
    import protenix_eba.data.loader
    import protenix_eba.fold_trainer
    import protenix_eba.objectives
    import protenix_eba.trainer  # noqa: F401


# `deepspeed` is passed on as it stands: DeepSpeed knows its own keys.
plugin = Plugin(
    "protenix_eba",
    {
        "eba": section_defaults(EBAConfig),
        "ebmfold": section_defaults(EBMFoldConfig),
        "deepspeed": {},
    },
    _register,
)
