"""The metrics of AlphaFlow's protocol, from matched atoms and one pass over the frames."""
