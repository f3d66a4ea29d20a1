"""Nine silos in three groups: the smallest federation whose groups can be summed apart."""

from secure_silos import POLICY, overrides_of

NAMES = [f"hospital-{place + 1}" for place in range(9)]
IN_GROUPS = f"{POLICY}, groups: 3"
GROUPS = [NAMES[group::3] for group in range(3)]


def grouped(rounds: int, more: str = "") -> str:
    """Return the overrides of a run with them."""
    asked = overrides_of(len(NAMES), rounds, f"strategy.fraction_evaluate=0 {more}".strip())
    asked = asked.replace(f"strategy.min_silos={len(NAMES) - 1} ", "strategy.min_silos=3 ")
    return asked.replace("aggregation=secure ", "aggregation=secure aggregation.groups=3 aggregation.colluders=0 ")


GROUPED = grouped(2)
