"""Metrics beyond AlphaFlow's protocol: torsions, shape, coverage, kinetics, soundness, energies."""
