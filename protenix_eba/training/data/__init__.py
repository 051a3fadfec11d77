"""Data for the diffusion module, made from sequences, trajectories and labels."""
