"""What travels beside a masked update: under differential privacy the receipt, and what simulated silos show."""

from __future__ import annotations

from base64 import b64encode

from flwr.app import RecordDict

from quire.strategies.replies import Private, read_private, weighted_mean
from quire.strategies.report import RoundReport


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
