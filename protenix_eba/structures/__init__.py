"""Reading structures, trajectories and sequences: which there are, and what is in them.

Needs neither torch nor OpenMM nor Protenix.
"""
