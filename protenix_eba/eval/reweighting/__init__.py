"""Weights of least change with which averages agree with measurements."""
