"""A package, so that the consortium of its tests ends with them."""
