"""Benchmarks: commands that measure the library, and what they share."""
