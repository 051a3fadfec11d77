"""Reweighting: the least change of weights that makes averages agree with measurements."""
