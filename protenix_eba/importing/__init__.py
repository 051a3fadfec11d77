"""MD of any origin -> targets in the layout that everything else reads: no torch, no Protenix."""
