"""Energy-based alignment: the trainer, its objectives, and how a stopped run continues."""
