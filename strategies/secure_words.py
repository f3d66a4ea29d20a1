"""What secure aggregation promises, and what it does not, in sentences: for privacy cards and for report pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quire.conf.asked import fewest_in_sum
from quire.conf.schema import PlainAggregation, SecureAggregation, Settings
from quire.errors import RunFailed

#: What a run with ``aggregation.simulate=exact_sum`` is called wherever it is spoken of.
SHORT_CUT = "aggregation.simulate=exact_sum, a short cut for simulations"
#: What is said of it first.
NOT_SECURE = (
    f"This run had NO secure aggregation: {SHORT_CUT}, added up in clear what the protocol would have masked. Its "
    "model is the one that the whole protocol comes to, bit for bit; what is said of masks elsewhere is not true of it."
)


@dataclass(frozen=True)
class Masked:
    """What the sentences depend on.

    Attributes
    ----------
    members : int
        Of the roster.
    colluders : int
        Of them, how many may side with a lying server.
    min_silos : int
        The fewest silos that the strategy goes on with.
    noised : bool
        Whether every silo adds noise of its own.
    shared : bool
        Whether that is a share, and only the sum of shares is what is accounted for.
    chained : bool
        Whether silos work out every model themselves; see :mod:`quire.clients.secure.chain`.
    clear : bool
        Whether nothing was masked, by the short cut of a simulation.
    groups, byzantine : int
        In how many groups silos are summed apart, and how many silos may send anything; 0 of one sum of all.
    normalized : bool
        Whether the lengths of the silos' courses are summed beside (FedNova).
    """

    members: int
    colluders: int
    min_silos: int = 0
    noised: bool = False
    shared: bool = False
    chained: bool = False
    clear: bool = False
    groups: int = 0
    byzantine: int = 0
    normalized: bool = False

    @property
    def smallest(self) -> int:
        """Members of the smallest group, or of the roster."""
        return self.members // (self.groups or 1)

    @property
    def least(self) -> int:
        """The fewest silos whose sum is opened."""
        return fewest_in_sum(self.smallest, self.colluders, self.min_silos, bool(self.groups))


def sees(masked: Masked) -> list[str]:
    """Say who sees what of the updates."""
    if masked.clear:
        noise = ", with no more than its own share of the noise" if masked.shared else ", with its own noise in it"
        return [NOT_SECURE, f"The server saw every silo's update on its own{noise if masked.noised else ''}."]
    noise = "with the noise of each of these silos in it" if masked.noised else "without noise"
    what = noise if masked.shared else f"{noise}, and the sum of their weights"
    sums = f"one sum of updates for each round, over at least {masked.least} of {masked.members} silos, {what}"
    if masked.groups:
        largest = -(-masked.members // masked.groups)
        of = f"{masked.smallest}" if largest == masked.smallest else f"{masked.smallest} or {largest}"
        sums = (
            f"{masked.groups} sums of updates for each round, one for each group of {of} silos and over at least "
            f"{masked.least} of them, {what}; the groups stay the same in all rounds"
        )
    text = [
        f"The server sees {sums}. It sees no silo's update, and neither does anybody else.",
        "The server also sees who takes part, who drops out and at which exchange, how many bytes each silo sends and "
        "when, and whose messages do not hold.",
    ]
    if not masked.noised:
        besides = ", and of the lengths of their courses" if masked.normalized else ""
        text.append(
            "With each sum of updates goes one, over the same silos and under the same masks, of their training "
            f"losses and of the shares of their updates that were cut to aggregation.bound, each times its weight"
            f"{besides}. No silo's own is seen."
        )
    if masked.noised and masked.shared:
        text.append(
            "The epsilon stated here is that of the sums, with the shares of noise that nobody else knows: it rests on "
            "the masks."
        )
    elif masked.noised:
        text.append(
            "The epsilon stated here is each silo's own, against everybody: the noise of the other silos is in the sum "
            "too, and is not counted. It would hold as well if the masks did not."
        )
    if masked.chained:
        text.append(
            "Each silo works out the next model itself, from the last one that it took part with and the sum, and "
            "trains from no other: what the server chooses is the first model of the run. It could still tell all "
            "silos a false sum in every round, within the bound that honest ones keep to, and so walk the model on."
        )
    return text


def trusted(masked: Masked) -> list[str]:
    """Say who is trusted with what."""
    if masked.clear:
        return ["The server, with every silo's update: nothing was masked."]
    if masked.groups:
        side = "none" if not masked.colluders else f"no more than {masked.colluders}"
        who = (
            f"{side} of the members of any one group {'side' if masked.colluders > 1 else 'sides'} with a lying server"
        )
    elif masked.colluders:
        side = "sides" if masked.colluders == 1 else "side"
        who = (
            f"no more than {masked.colluders} of the {masked.members} members of the roster {side} with a lying server"
        )
    else:
        who = f"none of the {masked.members} members of the roster sides with a lying server"
    then = ": if more do, they can come to see an update on its own."
    if masked.noised:
        then = (
            ": if more do, they can come to see an update on its own, with its noise in it, for which the stated "
            "epsilon still holds."
        )
    if masked.noised and masked.shared:
        then = ": if more do, they can come to see an update on its own, with no more than its own share of the noise."
    text = [
        f"For the masks: {who}{then}",
        "The roster that each silo has pinned, and so the admins who signed it: a quorum of them could enrol members "
        "of their own making.",
    ]
    if masked.groups:
        most = "one of all silos sends" if masked.byzantine == 1 else f"{masked.byzantine} of all silos send"
        text.append(f"For the model: no more than {most} anything but what Quire's code makes of its rows.")
    if masked.members == 2:
        text.append("With two silos each knows the other's update once it sees the sum; no protocol helps there.")
    return text


def not_protected(masked: Masked) -> list[str]:
    """Say what secure aggregation does nothing for."""
    if masked.clear:
        return ["Any silo's update, from the server: the whole protocol hides it (aggregation.simulate=protocol)."]
    right = (
        "That the sum is right: a silo can put any numbers into it, and nobody sees which one did. Only a sum beyond "
        "what honest silos can come to together is rejected, and its round lost."
    )
    if masked.groups:
        right = (
            "That the sum of a group is right: a silo can put any numbers into it, and nobody sees which one did. As "
            f"long as no more than {masked.byzantine} of all silos do, every number of the update lies within those "
            "that good groups come to; what honest silos of a bad group have learned is lost with it. A mean over few "
            "silos also tells more of each than one over all, and the sums of runs in several numbers of groups, put "
            "together, tell each silo's update."
        )
    text = [
        "That a round succeeds: the server can stop it, and so can silos that drop out in numbers.",
        right,
        "Who dropped out, when, and at which exchange.",
    ]
    if not masked.noised:
        text.insert(
            0,
            "The sum itself: nothing was added to it, so that it can tell of single records. Sums of several rounds "
            "tell more: a lying server that shows one model twice, the second time without a silo, learns about that "
            "silo's update from their difference. Only noise helps, as privacy=record adds it.",
        )
    return text


def about_masks(settings: Settings) -> dict[str, Any]:
    """Return what ``run.json`` says of a run whose masks are no run's: a self-test of the noise, or none at all."""
    short = isinstance(settings.aggregation, SecureAggregation) and settings.aggregation.exact
    return {
        **({"selftest": True} if settings.selftest else {}),
        **({"secure_aggregation": f"none: {SHORT_CUT}"} if short else {}),
    }


def check_short_cut(aggregation: PlainAggregation | SecureAggregation, simulated: bool, logged: bool) -> None:
    """Refuse the short cut of a simulation wherever it would pass for secure aggregation.

    Parameters
    ----------
    aggregation : PlainAggregation or SecureAggregation
    simulated : bool
        Whether silos are simulated.
    logged : bool
        Whether the run has a transparency log.

    Raises
    ------
    RunFailed
    """
    if not isinstance(aggregation, SecureAggregation) or not aggregation.exact:
        return
    if not simulated:
        raise RunFailed(
            f"{SHORT_CUT[0].upper()}{SHORT_CUT[1:]}, has no secure aggregation, and these silos are real ones, which "
            "refuse it: leave it out."
        )
    if logged:
        raise RunFailed(
            f"A transparency log binds what silos sign, and with {SHORT_CUT}, they sign nothing: take "
            "aggregation.simulate=protocol, or start without a key for the log (QUIRE_LOG_KEY)."
        )
