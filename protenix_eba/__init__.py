"""Energy-based alignment for Protenix: ensembles with Boltzmann weights."""

__version__ = "0.1.0"
