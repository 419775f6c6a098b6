"""A training step in this library and in others: the same loss, and the time that it takes."""
