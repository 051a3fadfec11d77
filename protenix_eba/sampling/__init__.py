"""From sequences to ensembles: diffusion samplers, runs over many proteins, relaxation."""
