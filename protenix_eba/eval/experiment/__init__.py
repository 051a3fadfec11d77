"""Measured observables of proteins, and what an ensemble says of them."""
