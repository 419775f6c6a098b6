"""Bias, noise and cost of the gradient estimators."""
