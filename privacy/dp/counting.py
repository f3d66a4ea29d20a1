"""How many there are, with noise: the two-sided geometric mechanism, drawn exactly.

Source: Ghosh, Roughgarden and Sundararajan (2009), "Universally utility-maximizing privacy mechanisms"; drawn by
Algorithm 2 of Canonne, Kamath and Steinke (2020), in which no floating-point number occurs.
"""

from __future__ import annotations

import math
from fractions import Fraction

from quire.privacy.csprng import Csprng
from quire.privacy.dp.rejection import discrete_laplace


def noisy_count(count: int, epsilon: Fraction, source: Csprng) -> int:
    """Return a count with noise P(k) proportional to exp(-epsilon |k|), never below 0.

    Parameters
    ----------
    count : int
        Moves by at most one with a record, added or removed.
    epsilon : fractions.Fraction
        Above 0; costs :class:`~quire.privacy.dp.events.Geometric`.
    source : quire.privacy.csprng.Csprng
        Of this one release.
    """
    noise = discrete_laplace(epsilon.denominator, source, epsilon.numerator)
    return max(0, count + noise)  # what is done to the sum afterwards costs nothing


def error_bound(epsilon: Fraction, chance: float = 0.05) -> int:
    """Return the smallest k such that the noise is beyond k, up or down, with at most this probability."""
    ratio = math.exp(-float(epsilon))
    # P(|noise| > k) = 2 ratio^(k+1) / (1 + ratio)
    return max(0, math.ceil(math.log(chance * (1 + ratio) / 2) / math.log(ratio) - 1))
