"""Energies of conformations: force field, minimisation, labels on disk. No torch, no Protenix."""
