"""Energy-based alignment: the trainer, what it minimises, and how it goes on after a stop."""
