"""What holds of any protein: rigid motions, handedness, bonds, sound shapes, residue names."""
