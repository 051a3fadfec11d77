"""Measured observables of proteins, and their values in an ensemble."""
