"""Files, units, progress, run folders, processes and seeds: no proteins, no Protenix."""
