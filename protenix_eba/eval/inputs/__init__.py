"""Ensembles on disk: which targets there are, and their frames, one part at a time."""
