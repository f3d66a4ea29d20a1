"""Risks for the rights of those whom the records are about, and what stood against each in a run as it really was.

What stood against a risk is read from the run. How much is left is told in one of five words by the tables here, from
those facts and nothing else. The words are ours: no law has them, and a person decides what they mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from quire.privacy.secagg.params import default_colluders
from quire.reports import charter, facts
from quire.reports.document import Group, Standing, Statement, gap
from quire.reports.run import Run
from quire.reports.silo import Silo
from quire.reports.values import counted, figure, number, part
from quire.strategies.secure_words import SHORT_CUT

UNBOUNDED, HIGH, MODERATE, LOW, OPEN = "Not bounded", "High", "Moderate", "Low", "Open"
#: The largest epsilon for each word.
EPSILONS = ((1.0, LOW), (3.0, MODERATE), (10.0, HIGH))
_NOISED_AT_HOME = ("record",)
_SHARED = ("record_distributed", "silo_distributed")


def bounded(epsilon: float | None) -> str:
    """Return the word for an epsilon: for one record, or for one silo."""
    if epsilon is None:
        return OPEN
    return next((word for most, word in EPSILONS if epsilon <= most), UNBOUNDED)


def guessing(epsilon: float, delta: float) -> float:
    """Return how often who guesses whether a unit took part is right at most, where both are as likely.

    Notes
    -----
    ``(e^epsilon + delta) / (1 + e^epsilon)``: Kairouz, Oh and Viswanath 2015, theorem 2.1, for the sum of errors.
    """
    other = math.exp(-max(epsilon, 0.0))
    return min(1.0, (1.0 + delta * other) / (1.0 + other))


def risks(run: Run, silo: Silo | None) -> tuple[Group, ...]:
    """Return every risk, with what stood against it and what is left."""
    table: tuple[Callable[[Run, Silo | None], Group], ...] = (
        *(_sees, _membership, _reconstruction, _rare, _collusion, _poisoning, _release, _repeated, _other_code, _keys),
        *(_rewritten, _will, _server_goes_on),
    )
    return tuple(one(run, silo) for one in table)


def _left(run: Run, level: str, because: str, *needed: str) -> Statement:
    """Return what is left of a risk; nothing is known of it where a check that it rests on failed."""
    failed = [run.checks[name].title for name in ("files", "settings", *needed) if run.by(name) is Standing.FAILED]
    source = "the table of residual risks, from what stands above"
    if failed:
        words = (
            f"{OPEN}: a check that this rests on failed ({', '.join(failed)}), so nothing above is to be relied upon."
        )
        return Statement("Residual risk", (words,), source, Standing.FAILED)
    if run.short_cut:
        words = (
            f"{OPEN}: this run had no secure aggregation, by {SHORT_CUT}, and real silos refuse it. With real silos "
            f"and the whole protocol in its place: {level.lower()}."
        )
        return Statement("Residual risk", (words, f"Of that run: {because}"), source, Standing.FOLLOWS)
    if run.simulated:
        words = f"{OPEN}: a simulation guarantees nothing. With real silos and the same settings: {level.lower()}."
        return Statement("Residual risk", (words, because), source, Standing.FOLLOWS)
    return Statement("Residual risk", (f"{level}.", because), source, Standing.FOLLOWS)


def _at_home(run: Run) -> Statement:
    return Statement(
        "Records stay at home", ("No message of the protocol holds a row.",), "the code named above", Standing.UNCHECKED
    )


def _sees(run: Run, silo: Silo | None) -> Group:
    intro = "Who runs the server, or breaks into it, reads a silo's update, from which records can be inferred."
    if run.masked or run.short_cut:
        level, because = (
            LOW,
            "Only sums over several silos are opened, as long as no more silos collude than stated below.",
        )
    elif run.privacy in _NOISED_AT_HOME:
        level = bounded(run.epsilon)
        because = "The server sees each update, with the silo's own noise in it: its epsilon bounds what that tells."
    elif run.privacy == "silo":
        level, because = HIGH, "The server sees each silo's clipped update without noise: it has to be trusted."
    else:
        level, because = UNBOUNDED, "The server sees every silo's update in clear."
    needed = ("receipts",) if run.privacy != "none" else ()
    stood = (_at_home(run), facts.aggregation(run), facts.preprocessing(run))
    return Group("The server sees updates", intro, (*stood, _left(run, level, because, *needed)))


def _membership(run: Run, silo: Silo | None) -> Group:
    intro = "Who holds the model, or saw the rounds, finds out whether a given person's record was trained on."
    epsilon, delta = run.epsilon, number(part(run.silos[0], "statement", "delta")) if run.silos else 0.0
    level = bounded(epsilon)
    if epsilon is None:
        because = "Without a privacy card no epsilon is known."
    elif math.isinf(epsilon):
        because = "Without noise nothing bounds it."
    else:
        unit = part(run.silos[0], "statement", "unit")
        share = 100 * guessing(epsilon, delta or 0.0)
        because = (
            f"Epsilon {epsilon:.3g} for one {unit}: where it is as likely in as out, who guesses is right at most "
            f"{share:.1f} % of the time."
        )
        if unit == "record":
            because += " A record is one row: of a person with several rows more can be told."
        if unit == "silo":
            level = HIGH if level in (LOW, MODERATE) else level
            because += " What is promised is a silo's whole contribution; for a single record see the privacy card."
    return Group("Membership inference", intro, (facts.privacy(run), _left(run, level, because, "card", "receipts")))


def _reconstruction(run: Run, silo: Silo | None) -> Group:
    intro = "Who sees updates or the model rebuilds values of a record, such as a diagnosis or an image."
    epsilon = run.epsilon
    sums = run.masked or run.short_cut
    if epsilon is None:
        level, because = OPEN, "Without a privacy card no epsilon is known."
    elif not math.isinf(epsilon):
        level = bounded(epsilon)
        because = "Noise that hides whether a record took part hides its values at least as well."
    elif sums:
        level, because = (
            HIGH,
            "Only sums are seen, and nothing bounds what a sum, or the model, tells of a rare record.",
        )
    else:
        level, because = (
            UNBOUNDED,
            "Updates are seen one by one and without noise: from small batches rows can be rebuilt.",
        )
    stood = (facts.privacy(run), facts.aggregation(run))
    return Group("Reconstruction of records", intro, (*stood, _left(run, level, because, "card", "receipts")))


def _rare(run: Run, silo: Silo | None) -> Group:
    intro = "A rare value, such as an unusual age in a small town, stands for one person, in the rows or in the model."
    if silo is None:
        rules = gap(
            "Columns and redaction rules", "--silo silo.yaml, at each silo: what leaves its connector, and how."
        )
    else:
        rules = silo.rules() or silo.columns()
    record = run.epsilon is not None and not math.isinf(run.epsilon) and run.privacy.startswith("record")
    level = bounded(run.epsilon) if record else OPEN if silo is None else HIGH
    because = "Noise for each record covers rare ones like any other; rules cover what people at the silo see."
    if not record:
        because = "No noise covers a single record, so it rests on the columns and rules of each silo."
    return Group("Re-identification by rare values", intro, (rules, _left(run, level, because)))


def _collusion(run: Run, silo: Silo | None) -> Group:
    intro = "Silos join with the server, or with each other, and subtract what they know from what they see."
    members = len(run.roster.members) if run.roster is not None else len(run.journal.silos)
    if not run.masked and not run.short_cut:
        level = bounded(run.epsilon) if run.privacy in _NOISED_AT_HOME else UNBOUNDED
        says = f"aggregation={run.aggregation}: nobody has to collude, for the server sees each update as it is."
        because = "Each silo's own noise holds whoever else is dishonest." if level != UNBOUNDED else says
        stood = Statement("Against collusion", (says,), "settings.yaml", run.signed_settings)
        return Group("Collusion", intro, (stood, _left(run, level, because)))
    told = facts.colluders(run)
    against = told if told is not None else default_colluders(members)
    says = f"Up to {against} of {members} silos may side with a lying server: the others' sum stays under masks."
    if run.short_cut:
        says = "Nothing was masked: nobody had to collude, for the server saw each update on its own."
    stood = Statement("Against collusion", (says,), "settings.yaml, roster.json", run.signed_settings)
    level = MODERATE if against else HIGH
    because = "One more than that, and an update of an honest silo can be opened."
    alone = [found for one in run.silos if (found := number(part(one, "if_alone", "rdp"))) is not None]
    if run.privacy in _SHARED:
        told_alone = f" If all others lie, epsilon is {figure(max(alone))}." if alone else ""
        because = f"With more than that a silo's part of the noise is known, and epsilon no longer holds.{told_alone}"
    elif run.privacy in _NOISED_AT_HOME:
        level, because = bounded(run.epsilon), "Each silo's own noise holds whoever else is dishonest."
    return Group("Collusion", intro, (stood, _left(run, level, because)))


def _poisoning(run: Run, silo: Silo | None) -> Group:
    intro = "A member sends updates that make the model wrong, or wrong for some people only."
    clip = figure(run.setting("privacy", "clip"))
    if run.privacy == "silo":
        says, level = f"The server takes no update that is longer than the clip, {clip}.", MODERATE
    elif run.robust:
        says = (
            f"aggregation={run.aggregation}: updates that lie apart move the mean only so far. Small deviations, rows "
            "with wrong labels and backdoors that train like honest updates pass."
        )
        level = MODERATE
    elif run.privacy == "none":
        says, level = "No update is clipped: one silo can move the model as far as it likes.", HIGH
    else:
        says, level = f"An honest silo clips to {clip}; nothing holds a dishonest one to it.", HIGH
    stood = [Statement("Influence of one silo", (says,), "settings.yaml", run.signed_settings)]
    if run.masked:
        words = "Under masks nobody can look at one silo's update, and so nobody can tell a bad one."
        stood.append(Statement("What masks cost here", (words,), "settings.yaml", run.signed_settings))
    ran = "No rule that tells bad updates from good ones ran."
    if run.robust:
        ran = "A rule held against outliers ran, and none that tells a bad update that is no outlier."
    because = f"{ran} Look at the model's scores at each silo before it is used."
    return Group("Poisoned updates", intro, (*stood, _left(run, level, because)))


def _release(run: Run, silo: Silo | None) -> Group:
    intro = "The model goes to more people than meant, or for longer, and tells them what it learned."
    title = "Who may use the model"
    if run.charter is None:
        stood = charter.missing(run, title)
    else:
        stood = Statement(title, (run.charter.exit.use,), charter.source(run), Standing.DECLARED)
    level = bounded(run.epsilon)
    because = (
        "What the model tells of a record is bounded by its epsilon, whoever gets it and for as long as it exists."
    )
    if level == UNBOUNDED:
        because = "Nothing bounds what the model tells of a record; only who gets it can be limited."
    return Group("Release of the model", intro, (stood, _left(run, level, because, "card", "receipts")))


def _repeated(run: Run, silo: Silo | None) -> Group:
    intro = "Many runs over the same records tell together what no single run tells."
    books = [one for one in run.silos if part(one, "ledger") is not None]
    says = f"{len(books)} of {len(run.silos)} silos signed that a ledger of theirs was charged for this run."
    stood = [Statement("Ledgers", (says,), "privacy_card.json", run.by("card", "receipts"))]
    if not run.silos:
        says = "There is no privacy card, in which silos would sign that their ledgers were charged."
        stood = [Statement("Ledgers", (says,), "settings.yaml", run.signed_settings)]
    if silo is None:
        stood.append(gap("What records have spent over all runs", "--silo silo.yaml, at each silo: its own ledger."))
    else:
        stood += [one for one in silo.ledger() if isinstance(one, Statement)]
    capped = silo is not None and silo.operator.policy is not None and silo.operator.policy.capped
    charged = bool(books) and len(books) == len(run.silos)
    level = MODERATE if capped and charged else OPEN if charged else UNBOUNDED
    because = {
        MODERATE: "This silo's ledger is charged, and refuses what its budget does not cover; other silos keep theirs.",
        OPEN: "Ledgers are charged; how much they may still spend each silo knows alone.",
        UNBOUNDED: "Not every silo charged a ledger: nothing seen here limits other runs on the same records.",
    }[level]
    return Group("Repeated use of the same records", intro, (*stood, _left(run, level, because, "receipts")))


def _other_code(run: Run, silo: Silo | None) -> Group:
    intro = "Who runs the server sends other code, or other settings, than people agreed on."
    approvals = run.checks["approvals"]
    stood = (
        facts.code(run),
        Statement("Approvals", approvals.words, "approvals.jsonl", approvals.standing),
    )
    guarded = [part(one, "guarded") is True for one in run.silos]
    level = LOW if guarded and all(guarded) else MODERATE if approvals.standing is Standing.VERIFIED else HIGH
    because = {
        LOW: "Every silo says that its gate let in this code and no other.",
        MODERATE: "Operators approved code and settings by their hashes; not every silo had a gate that holds to it.",
        HIGH: "No gate held every silo's code: the server is taken to be honest but curious.",
    }[level]
    return Group("Other code or settings", intro, (*stood, _left(run, level, because, "receipts")))


def _keys(run: Run, silo: Silo | None) -> Group:
    intro = "A silo's private key, or an admin's, is lost or stolen: somebody else can sign in its name."
    roster = run.checks["roster"]
    says = (facts.roster_line(run), *roster.words)
    stood = Statement("Roster", says, "roster.json", roster.standing)
    level = MODERATE if roster.standing is Standing.VERIFIED else HIGH
    because = "A new roster, signed by a quorum of its admins, takes a key out; what it signed stays in doubt."
    if level == HIGH:
        because = "Nobody has compared a roster: keys may be anybody's. " + because
    return Group("Loss of keys", intro, (stood, _left(run, level, because, "roster")))


def _rewritten(run: Run, silo: Silo | None) -> Group:
    intro = "Afterwards somebody changes what is on record about the run, so that nobody can be held to it."
    log = run.checks["log"]
    stood = Statement("Transparency log", log.words, "log/", log.standing)
    witnessed = log.standing is Standing.VERIFIED and run.witnesses > 0
    level = LOW if witnessed else MODERATE if run.by("receipts") is Standing.VERIFIED else HIGH
    because = {
        LOW: "The log binds every line, and silos countersigned it: another one would need their signatures.",
        MODERATE: "Receipts are signed, each by its silo; what is left out altogether no signature shows.",
        HIGH: "No silo signed for it: the run folder is the server's word.",
    }[level]
    return Group("A record that is rewritten", intro, (stood, _left(run, level, because)))


def _will(run: Run, silo: Silo | None) -> Group:
    intro = "Records are used of people who did not consent, who withdrew, or who asked for erasure."
    if silo is None:
        stood: tuple[Statement, ...] = (
            gap(
                "Consent, withdrawals, erasure", "--silo silo.yaml, at each silo: what it leaves out, and how it knows."
            ),
        )
        level, because = OPEN, "Each silo alone knows whose rows it leaves out."
    else:
        requests = silo.requests()
        stood = (silo.consent(), *((requests,) if isinstance(requests, Statement) else ()))
        known = getattr(silo.own, "consent", None) is not None
        level = MODERATE if known else HIGH
        because = "Rows are left out from the next round on; a model that has learned from them before is not mended."
        if not known:
            because = "The silo knows no row as somebody's, so that nobody's withdrawal leaves a row out."
    return Group("Use against a person's will", intro, (*stood, _left(run, level, because)))


def _server_goes_on(run: Run, silo: Silo | None) -> Group:
    intro = "Rounds fail, silos drop out, and people rely on a model that was trained on fewer of them than they think."
    failed = sum(len(one.failed) for one in run.journal.lines)
    lost = sum(one.lost for one in run.journal.rounds)
    rounds = counted(len(run.journal.rounds), "round")
    says = f"{counted(failed, 'failure')} in {rounds}, {lost} of them without a sum that was used."
    stood = Statement("Failures", (says,), "metrics.jsonl", run.signed_rounds)
    few = [name for name, count in run.journal.trained.items() if 2 * count < len(run.journal.rounds)]
    level = MODERATE if failed or lost or few else LOW
    because = (
        f"{counted(len(few), 'silo')} took part in fewer than half of the rounds." if few else "See who took part."
    )
    return Group("Silos that are missing", intro, (stood, _left(run, level, because)))
