"""Questions about ensembles beyond MD: one registered suite for each, see `registry`."""
