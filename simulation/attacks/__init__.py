"""Attacks on federations of our own: what each observer sees of a run, taken from the run, and what it gives away."""
