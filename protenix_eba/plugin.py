"""The plugin that protenix-eba offers to Protenix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protenix_eba.ebmfold.config import EBMFoldConfig
from protenix_eba.host.config import EBAConfig, section_defaults
from protenix_eba.host.environment import Plugin
from protenix_eba.training.data.replay_config import ReplayConfig

if TYPE_CHECKING:
    # What the registries do not say, since the host's know nothing of our kinds: that our own
    # components are what their kinds promise.
    from collections.abc import Callable
    from typing import Any

    from protenix_eba.ebmfold.heads import Head
    from protenix_eba.ebmfold.protenix_head import EBMFoldHead
    from protenix_eba.plugin_api import Trainer
    from protenix_eba.training.data.atlas import AtlasDataset
    from protenix_eba.training.data.interfaces import Dataset, EnsembleLoader, LoaderFactory
    from protenix_eba.training.data.loader import SequenceCoupledLoader, eba_loader
    from protenix_eba.training.data.replay import ReplayDataset
    from protenix_eba.training.objectives import ObjectiveFactory, eba_objective
    from protenix_eba.training.trainer import EBATrainer

    _objective: ObjectiveFactory = eba_objective
    _dataset: Callable[[EBAConfig], Dataset] = AtlasDataset
    _replay: Callable[[EBAConfig], Dataset] = ReplayDataset
    _dataloader: LoaderFactory = eba_loader
    _loader: type[EnsembleLoader] = SequenceCoupledLoader
    _head: Callable[[Any], Head] = EBMFoldHead
    _trainer: Callable[[Any], Trainer] = EBATrainer

__all__ = ["SECTIONS", "plugin"]

SECTIONS: Final = {"eba": EBAConfig, "ebmfold": EBMFoldConfig, "replay": ReplayConfig}
"""Our sections of configuration, each with the dataclass that checks its values."""


def _register() -> None:
    """Import the modules whose decorators register components."""
    import protenix_eba.ebmfold.protenix_head
    import protenix_eba.ebmfold.trainer
    import protenix_eba.training.data.loader
    import protenix_eba.training.objectives
    import protenix_eba.training.replay.trainer
    import protenix_eba.training.trainer  # noqa: F401


# `deepspeed` is passed on as it stands: DeepSpeed knows its own keys.
plugin = Plugin(
    "protenix_eba",
    {
        **{name: section_defaults(section) for name, section in SECTIONS.items()},
        "deepspeed": {},
    },
    _register,
)
