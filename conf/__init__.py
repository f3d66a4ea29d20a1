"""Settings: YAML groups that hold the values, typed dataclasses that say what is possible, one ``compose``."""
