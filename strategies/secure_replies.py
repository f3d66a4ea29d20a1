"""What travels beside a masked update: under differential privacy the receipt, and what simulated silos show."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping

from flwr.app import RecordDict

from quire.privacy.secagg.server_round import ServerRound
from quire.strategies.courier import Answer
from quire.strategies.log_bound import Bound
from quire.strategies.reading import Failure, Unusable, unreadable
from quire.strategies.replies import Private, read_private, weighted_mean
from quire.strategies.report import RoundReport
from quire.strategies.secure_log import AttemptLog


class Beside:
    """Collects it for one round.

    Parameters
    ----------
    private : Private or None
        None without privacy: then nothing is read.
    report : RoundReport
        Of the round.
    """

    def __init__(self, private: Private | None, report: RoundReport) -> None:
        self._private, self._report = private, report
        self._found: dict[str, tuple[dict[str, float], bytes]] = {}

    def accept(self, silo: str, content: RecordDict) -> None:
        """Read what a silo sent.

        Raises
        ------
        Unusable
            If its receipt cannot be taken; the silo is then left out.
        """
        if self._private is not None:
            self._found[silo] = read_private(silo, content, self._private)

    def opened(self, silos: list[str]) -> None:
        """Report whose updates are in the sum that was opened, with their receipts, whatever comes of the sum."""
        report = self._report
        report.replied = silos
        if self._private is None:
            return
        records = self._private.records
        found = {silo: self._found[silo] for silo in silos}
        for silo, (shown, receipt) in found.items():
            about = report.silos.setdefault(silo, {})
            about.update({key.replace("-", "_"): value for key, value in shown.items()})
            about["records"] = float(records[silo])
            if receipt:
                report.receipts[silo] = b64encode(receipt).decode()
        report.train = weighted_mean((float(records[silo]), shown) for silo, (shown, _) in found.items())


def take_in(
    answers: Iterable[Answer],
    server: ServerRound,
    log: AttemptLog,
    names: Mapping[int, str],
    beside: Beside,
    bound: Bound,
) -> Iterator[int]:
    """Take the answers to an attempt's first message, and what comes with them; yield who counts, by roster index.

    Parameters
    ----------
    answers : iterable of Answer
    server : ServerRound
    log : AttemptLog
        Learns who sent something that cannot be taken.
    names : mapping of int to str
        By roster index.
    beside : Beside
        Takes what comes beside the update.
    bound : Bound
        Takes what silos say of the transparency log.
    """
    for answer in answers:
        silo = names[answer.index]
        try:
            if answer.refuses:  # with a refusal nothing else comes along, and why counts for more
                bound.refused(silo, answer.content)
            else:
                bound.accept(silo, answer.content)
                beside.accept(silo, answer.content)
        except Unusable as why:
            log.failed.append(Failure(silo, "shares", why.code, why.words))
        except Exception:  # whatever that stumbles over, it is that silo's dropout
            log.failed.append(unreadable(silo, "shares"))
        else:
            if server.receive(answer.index, answer.data):
                yield answer.index
