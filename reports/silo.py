"""What a silo keeps to itself: labels, columns, consent, lineage, ledger, approvals. Only where ``--silo`` names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from quire.clients.data.consent.lineage import lines_of
from quire.clients.data.consent.place import Place
from quire.clients.data.consent.requests import requests_of
from quire.clients.data.consent.sieve import REASONS
from quire.clients.data.rules.cells import Bucket, Day, Hash, Keep, Mapped, Rule
from quire.clients.data.rules.labels import described
from quire.clients.data.silo_file import ShippedFile, SiloFile, read_silo_file
from quire.clients.identity import read_key_file
from quire.clients.policy.model import Operator
from quire.clients.store.decision_book import look
from quire.clients.store.inspection import Inspection
from quire.errors import QuireError
from quire.privacy.dp.contract import PrivacyError
from quire.reports.document import Standing, Statement, Table, gap
from quire.reports.errors import ReportInput
from quire.reports.inputs import Inputs
from quire.reports.values import counted, names, without, word
from quire.text import TEXT, visible

_SOURCE, _DELTA, _RUNS = "silo.yaml", 1e-5, 500
_MB = 2**20


@dataclass(frozen=True, eq=False)
class Silo:
    """One silo, by its own file.

    Attributes
    ----------
    own : SiloFile or ShippedFile
    name : str
    root : pathlib.Path
        The folder of the file, which no sentence names.
    """

    own: SiloFile | ShippedFile
    name: str
    root: Path

    @property
    def operator(self) -> Operator:
        """What its operator laid down."""
        return self.own.operator

    def _fingerprint(self) -> str | None:
        """Return that of the silo's own key; None where it has none yet."""
        key = self.operator.identity
        return read_key_file(key).fingerprint if key.exists() else None

    def _said(self, error: BaseException) -> str:
        return without(str(error), self.operator.store, self.root)

    def _book(self, title: str, source: str, read: Callable[[], Statement | Table]) -> Statement | Table:
        try:
            return read()
        except (QuireError, PrivacyError, OSError) as error:
            return Statement(title, (f"It cannot be used: {self._said(error)}",), source, Standing.FAILED)

    # ------------------------------------------------------------------------------------------- what its file says
    def labels(self) -> Statement:
        """Say how sensitive the rows are, where what is learned may go, and what for."""
        dataset = self.operator.dataset
        if dataset is None:
            return gap("Labels of the data set", "'dataset' in silo.yaml: sensitivity, residency, purposes.")
        says = [*described(dataset), *(f"Permitted: {one}" for one in dataset.purposes or ())]
        return Statement("Labels of the data set", tuple(says), _SOURCE, Standing.OWN)

    def columns(self) -> Statement:
        """Say which columns leave the connector."""
        title = "Columns that leave the connector"
        if isinstance(self.own, ShippedFile):
            return Statement(title, ("Rows of a data set that ships with Quire.",), _SOURCE, Standing.OWN)
        columns = self.own.data.columns
        if columns is None:
            if self.own.schema.image is not None:
                return Statement(title, ("None: the rows are images.",), _SOURCE, Standing.OWN)
            return gap(
                title,
                "'columns' in silo.yaml with 'allow': the columns that may leave the connector.",
                "There is no list of columns: all that the schema asks for leave it as they are.",
            )
        allowed = "All but those that are dropped." if columns.allow is None else f"{names(sorted(columns.allow))}."
        dropped = f"Dropped: {names(sorted(columns.dropped))}." if columns.dropped else "None is dropped by a rule."
        confirmed = f"Confirmed: {visible(columns.confirmed)}." if columns.confirmed else "Nobody has confirmed it."
        return Statement(title, (allowed, dropped, confirmed), _SOURCE, Standing.OWN)

    def rules(self) -> Statement | None:
        """Say what is done to values before anything sees a row; None where no list of columns is kept."""
        columns = None if isinstance(self.own, ShippedFile) else self.own.data.columns
        if columns is None:
            return None
        says = tuple(f"{visible(name)}: {_rule(rule)}." for name, rule in sorted(columns.rules, key=lambda one: one[0]))
        return Statement("Redaction rules", says or ("None but what is dropped.",), _SOURCE, Standing.OWN)

    def consent(self) -> Statement:
        """Say whose rows are left out."""
        if isinstance(self.own, ShippedFile):
            says = "Rows of a data set that ships with Quire: there is nobody to ask."
            return Statement("Consent", (says,), _SOURCE, Standing.OWN)
        consent = self.own.consent
        if consent is None:
            return gap(
                "Consent",
                "'consent' in silo.yaml, if rows are about people: the subjects' column, and a table.",
                "The silo knows no row as somebody's: nobody's withdrawal leaves a row out.",
            )
        told = [f"Rows are known as somebody's by the column {visible(consent.subject)}, which is not learned from."]
        if consent.table is None:
            told.append("No table of consent: rows are left out for requests for erasure alone.")
        elif consent.table.means == "withdrawn":
            told.append("Opt-out: rows of who is in the table of withdrawals are left out from the next round on.")
        else:
            told.append("Opt-in: only rows of who is in the table of consent, with a positive flag, are trained on.")
        return Statement("Consent", tuple(told), _SOURCE, Standing.OWN)

    def policy(self) -> Statement:
        """Say what the silo accepts."""
        policy = self.operator.policy
        if policy is None:
            return gap("Policy", "'policy' in silo.yaml: without one no real run is answered.")
        cap = f"epsilon {policy.epsilon:g} at delta {policy.delta:g}" if policy.capped else "no cap on epsilon"
        days = f" in {counted(policy.period_days, 'day')}" if policy.period_days is not None else ", ever"
        says = (
            f"Privacy {names(sorted(policy.modes))}; aggregation {names(sorted(policy.aggregation))}; {cap}{days}.",
            f"At least {policy.min_cohort} silos in a sum, of which {policy.colluders} may side with the server; clip "
            f"at most {policy.max_clip:g}, noise multiplier at least {policy.min_noise:g}.",
            f"Code: {counted(len(policy.code), 'approved hash', 'approved hashes') if policy.code else 'any'}; "
            f"approval of each run: {'yes' if policy.approval else 'no'}; transparency log: {visible(policy.log)}; "
            f"a seed from the server: {'accepted' if policy.test_seed else 'refused'}.",
        )
        return Statement("Policy", says, _SOURCE, Standing.OWN)

    # --------------------------------------------------------------------------------------------- what its books say
    def lineage(self, run: object) -> Statement | Table:
        """Say what each round was trained on, in counts."""
        return self._book("Lineage", "lineage.jsonl", lambda: self._lineage(run))

    def _lineage(self, run: object) -> Statement | Table:
        lines = lines_of(Place.of(self.operator))
        mine = [one for one in lines if str(one.run) == str(run)]
        if not mine:
            why = "The silo keeps no lineage." if not lines else "The silo's lineage has no round of this run."
            return gap("Lineage", "'consent' in silo.yaml: with it the silo notes what each round is trained on.", why)
        rows = tuple(
            (
                str(one.round),
                str(one.came),
                *(str(one.left_out.get(why, 0)) for why in REASONS),
                str(one.trained),
                str(one.scored),
            )
            for one in mine[:_RUNS]
        )
        head = ("Round", "Rows that came in", *(f"left out: {why}" for why in REASONS), "trained on", "kept for scores")
        return Table("Lineage of this run", head, rows, "lineage.jsonl", Standing.OWN, max(0, len(mine) - _RUNS))

    def requests(self) -> Statement | Table:
        """Say how many requests for erasure there are."""
        return self._book("Requests for erasure", "erasures.jsonl", self._requests)

    def _requests(self) -> Statement:
        found = requests_of(Place.of(self.operator))
        attested = sum(bool(one.attested) for one in found.values())
        says = f"{counted(len(found), 'request')} recorded, {attested} of them attested."
        return Statement("Requests for erasure", (says,), "erasures.jsonl", Standing.OWN)

    def ledger(self) -> list[Statement | Table]:
        """Say what the records have spent, once every signature and booking of the ledger was checked."""
        title, source = "Privacy ledger", "store/ledger"
        operator = self.operator
        if not (operator.store / "ledger").is_dir():
            return [Statement(title, ("The store has no ledger yet: nothing was charged.",), source, Standing.OWN)]
        try:
            return list(self._ledger())
        except (QuireError, PrivacyError, OSError) as error:
            return [Statement(title, (f"It does not hold: {self._said(error)}",), source, Standing.FAILED)]

    def _ledger(self) -> Iterator[Statement | Table]:
        operator, policy = self.operator, self.operator.policy
        inspection = Inspection(operator.store, operator.witness, self._fingerprint())
        signer = inspection.about.public.fingerprint
        for name in inspection.populations():
            books = inspection.books(name, whole=True)
            capped = policy is not None and policy.capped and policy.population.name == name
            delta = policy.delta if policy is not None and capped else _DELTA
            says = [f"{counted(books.entries, 'entry', 'entries')}, sound, signed by {signer}."]
            for unit in books.units():
                spent = books.spent(unit).epsilon(delta)
                budget = f", of {policy.epsilon:g}" if policy is not None and capped else ""
                says.append(f"Each {unit} has spent epsilon {spent:.4g} at delta {delta:g}{budget}, over all runs.")
            if policy is not None and capped and policy.period_days is not None:
                says.append(f"The budget is that of any {policy.period_days} days; what is told here is over all time.")
            for one in books.openings:
                if one.because is not None:
                    says.append(f"Overridden on {one.day}: {visible(one.because, TEXT)}")
            yield Statement(f"Privacy ledger of {visible(name)}", tuple(says), "store/ledger", Standing.VERIFIED)
            rows = tuple(
                (word(session), first.isoformat(), str(unit), str(rounds), f"{spending.epsilon(delta):.4g}")
                for (session, unit), (first, rounds, spending) in list(books.runs.items())[:_RUNS]
            )
            head = ("Run", "Begun", "Unit", "Rounds", f"Epsilon at delta {delta:g}")
            left = max(0, len(books.runs) - _RUNS)
            yield Table(f"Entries of {visible(name)}, by run", head, rows, "store/ledger", Standing.VERIFIED, left)

    def decisions(self) -> Statement | Table:
        """Say what the operator was asked and decided."""
        return self._book("Approvals at this silo", "approvals.jsonl of the store", self._decisions)

    def _decisions(self) -> Statement | Table:
        operator, source = self.operator, "approvals.jsonl of the store"
        own = self._fingerprint()
        if not (operator.store / "store.json").exists():
            return Statement("Approvals at this silo", ("The store has no book yet.",), source, Standing.OWN)
        book = look(operator.store, operator.witness, own)
        rows = tuple(
            (
                word(matter.request.binding.run),
                made.decision,
                word(made.by),
                visible(made.why, TEXT) or "none given",
                f"{made.at:%Y-%m-%d %H:%M} UTC",
            )
            for matter in list(book.matters.values())[:_RUNS]
            for made in matter.decisions
        )
        if not rows:
            return Statement("Approvals at this silo", ("Nothing was decided here.",), source, Standing.OWN)
        head = ("Run", "Decision", "By", "Why", "When")
        return Table("Approvals at this silo", head, rows, source, Standing.VERIFIED)


def read_own(path: Path, inputs: Inputs) -> Silo:
    """Read a silo's file, and note which of its books a document is made of.

    Raises
    ------
    QuireError
        If the file cannot be read, or says something that it cannot say.
    """
    if not path.is_file():
        raise ReportInput(f"There is no file '{path}': --silo names a silo's own file, silo.yaml.")
    own = read_silo_file(path)
    inputs.look(path, f"silo: {path.name}", _MB)
    if isinstance(own, SiloFile):
        inputs.look(own.schema_path, f"silo: {own.schema_path.name}", _MB)
    store = own.operator.store
    for folder, pattern in (("", "approvals.jsonl"), ("ledger", "*.jsonl"), ("consent", "*.jsonl")):
        place = store / folder
        for file in sorted(place.glob(pattern)) if place.is_dir() else ():
            inputs.look(file, f"silo: store/{folder + '/' if folder else ''}{file.name}", 2**40)
    return Silo(own, word(own.name, "this silo"), path.parent)


def _rule(rule: Rule) -> str:
    if isinstance(rule, Hash):
        return "hashed under the silo's key" + (f", into {rule.buckets} buckets" if rule.buckets is not None else "")
    if isinstance(rule, Bucket):
        if rule.edges:
            return f"the middle of its interval, of {len(rule.edges) - 1}"
        return f"the middle of its interval, {rule.width:g} wide"
    if isinstance(rule, Keep):
        return f"its first {counted(rule.characters, 'character')}"
    if isinstance(rule, Day):
        return f"its {rule.part}"
    return f"one of {len({value for _, value in rule.named})} groups" if isinstance(rule, Mapped) else "a rule"
