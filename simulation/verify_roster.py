"""Whose signatures count in a run folder: the roster that it is held against, and whose word that is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from quire.conf.schema import Settings
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.roster import Roster
from quire.privacy.identity.signed import SignedRoster, check_signed
from quire.privacy.receipts import simulated_roster
from quire.strategies.material import Material, read_roster


@dataclass
class Trusted:
    """What came out.

    Attributes
    ----------
    roster : Roster or None
        None where there is none.
    wrong, notes : list of str
        What does not hold, and whose word the roster is.
    """

    roster: Roster | None = None
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def trusted_roster(
    material: Material, settings: Settings | None, simulated: bool, given: Path | None, pin: str | None
) -> Trusted:
    """See to it that there is a roster, and say whose word it is.

    Parameters
    ----------
    material : Material
    settings : Settings or None
        As composed anew; None if they cannot be trusted, which is said elsewhere.
    simulated : bool
        Whether the silos were simulated: their keys follow from the seed, and nobody has signed their roster.
    given : pathlib.Path or None
        The consortium's roster, from where the reader trusts it; the run folder's own if None.
    pin : str or None
        The hash that the roster must have.

    Raises
    ------
    CardError
        If a roster cannot be read.
    """
    kept, made = material.roster, _of_seed(material, settings) if simulated else None
    signed = read_roster(given) if given is not None else kept
    if signed is None and made is not None and not material.private:  # such a run keeps none
        signed = SignedRoster(made)
    if signed is None:
        return Trusted(
            wrong=["No signature was checked: the run folder has no roster; name the consortium's with --roster FILE."]
        )
    result, digest = Trusted(signed.roster), signed.roster.hash
    if kept is not None and given is not None and kept.roster.hash != digest:
        result.wrong.append(f"The run folder's roster is {kept.roster.hash}, not the given {digest}.")
    if pin is not None and digest != pin:
        result.wrong.append(f"The roster's hash is {digest}, and the pin is {pin}.")
    if simulated:
        if settings is not None and signed.roster != made:
            result.wrong.append("The roster of this simulation is not the one that follows from its seed.")
        result.notes.append(
            f"Signatures: by keys made from the run's seed (roster {digest}); whoever knows the seed can make them."
        )
        return result
    try:
        check_signed(signed)
    except IdentityError as error:
        result.wrong.append(f"The roster does not hold: {error}")
    if pin is None and given is None:
        result.notes.append(
            f"Signatures: against the roster {digest}, which lies in the run folder itself; compare this hash with the "
            "consortium's, or name it with --pin."
        )
    else:
        result.notes.append(f"Signatures: against the roster {digest}, as you named it.")
    return result


def _of_seed(material: Material, settings: Settings | None) -> Roster | None:
    try:
        return None if settings is None else simulated_roster(settings.seed, material.start.get("silos", []))
    except (IdentityError, ValueError):
        return None
