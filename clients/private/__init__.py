"""Differential privacy inside a silo: what a run costs its records, clipped gradients, noisy steps."""
