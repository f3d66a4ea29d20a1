"""Robust aggregation: means of updates that a bounded number of silos can move only so far, whatever they send."""
