"""Poisoning: what colluding silos of a simulation answer instead of what they should, and what comes of it."""

#: What came of the attack, in the folder of an attacked run; named here, where no torch is imported.
OUTCOME_FILE = "attack.json"
