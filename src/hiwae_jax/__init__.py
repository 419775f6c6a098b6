"""Importance-weighted variational bounds as pure JAX functions."""
