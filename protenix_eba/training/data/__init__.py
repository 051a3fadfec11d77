"""From sequences, trajectories and labels to what the diffusion module is trained on."""
