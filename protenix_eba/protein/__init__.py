"""Properties of any protein: rigid motions, handedness, bonds, sound shapes, residue names."""
