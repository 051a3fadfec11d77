"""The labels of a run: the energy, or the mixture of several, that the configuration names."""

from __future__ import annotations

from protenix_eba.energy.committee import energy_of, parse_mixture
from protenix_eba.energy.table import EnergyLabels, read_labels
from protenix_eba.host.config import EBAConfig

__all__ = ["training_labels"]


def training_labels(config: EBAConfig) -> EnergyLabels:
    """Read `eba.labels`, and take the energy of `eba.energy_column`.

    Raises:
        UserError: The table cannot be read, has no such energy, or a Boltzmann factor would count
            twice.
    """
    labels = read_labels(config.path("labels"))
    weights = parse_mixture(config.energy_column)
    return energy_of(labels, weights, double_counting=config.double_counting)
