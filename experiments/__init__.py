"""Experiments: commands that train models with the library, and what they share."""
