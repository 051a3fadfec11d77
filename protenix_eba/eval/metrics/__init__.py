"""What the protocol lacks: torsions, shape, coverage, kinetics, soundness, energies."""
