"""On-policy alignment: a model is trained on samples of its own, made while it trains."""
