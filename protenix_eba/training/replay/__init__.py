"""On-policy alignment: conformations that the model samples while it trains."""
