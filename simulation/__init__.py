"""One machine: the in-process runtime, Flower's runtime, sweeps, the comparison and the report."""
