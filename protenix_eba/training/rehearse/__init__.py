"""A dry run: what a training run would cost and leave out, measured before it begins."""
