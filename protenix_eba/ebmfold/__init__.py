"""EBM-Fold (Wu et al., 2021, arXiv 2105.04771): C-alpha traces from inter-residue predictions.

A score network reads predicted distances and orientations of residue pairs; annealed sampling
with it gives decoys. Only `protenix_head`, which reads what a Protenix model says, `heads` and
`trainer` need the host.

Letters: B decoys, L residues, K noise levels, C channels. Coordinates are in angstrom. Numbers of
equations and sections are those of the paper unless another source is named.
"""
