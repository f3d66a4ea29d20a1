"""Poisoning: what colluding silos of a simulation answer instead of what they should, and what comes of it."""
