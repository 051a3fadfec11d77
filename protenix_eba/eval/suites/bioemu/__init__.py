"""The benchmarks of BioEmu (Lewis et al., Science 2025), by the data of their package."""
