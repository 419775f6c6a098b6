"""Fits of proposals to a density in two dimensions."""
