"""The silo's side of secure aggregation: it keeps its update to itself, and sends it under masks that cancel."""
