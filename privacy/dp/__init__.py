"""Differential privacy, pure: contracts, events, accounting, calibration, discrete noise, cards and audits."""
