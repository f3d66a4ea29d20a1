"""The Flower class around the round core: thin, and usable from any Flower app.

It is a ``flwr.serverapp.strategy.Strategy``: its hooks work under Flower's own ``start`` and wrappers. Its own
``start`` adds what Flower's lacks: a minimum of good replies, a journal and a checkpoint after every round, and a
stop that loses nothing.
"""

from __future__ import annotations

import logging
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from quire.clients import contract
from quire.clients.arrays import byte_size, decode, encode, fingerprint
from quire.errors import RunFailed
from quire.strategies.cohort import Roster
from quire.strategies.exchange import AT_ONCE, Deadlines, exchanged, timed
from quire.strategies.receipts import Receipts
from quire.strategies.replies import Private, exposed, read_evaluate_replies, read_train_replies, weighted_mean
from quire.strategies.report import Observer, RoundReport
from quire.strategies.rounds import Aggregator, Algorithm, Arrays, Cohort, RoundState, advance, checked, weighed
from quire.strategies.secure import SecureRounds
from quire.strategies.secure_replies import Beside
from quire.strategies.secure_round import RoundLost

LOG = logging.getLogger("quire.strategies")

# Keys of a silo's entry in the journal that its scores must not overwrite.
_ABOUT_TRAINING = ("rows", "train_loss")

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class FederatedStrategy(Strategy):
    """A strategy made of an algorithm and an aggregator.

    Parameters
    ----------
    algorithm : Algorithm
        What silos are told, and how the mean update moves the model.
    aggregator : Aggregator
        How updates become one mean.
    fraction_train : float
        Share of the roster asked to train in a round, in (0, 1].
    fraction_evaluate : float
        Share of the roster asked to evaluate, in [0, 1]; 0 asks nobody.
    evaluate_every : int
        Evaluate after every so many rounds, and after the last.
    min_silos : int
        Fewest good replies that make a round.
    seed : int or None
        Decides the cohorts. None draws them from the operating system.
    private : bool
        Read replies as under differential privacy: the update, the silo's public figures, its receipt. Silos are then
        weighted by the records that they declare when they join.
    simulated : bool
        Whether silos are simulated: only then does anybody score the model in a private or a secure run.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        aggregator: Aggregator,
        *,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 1.0,
        evaluate_every: int = 1,
        min_silos: int = 2,
        seed: int | None = None,
        private: bool = False,
        simulated: bool = True,
    ) -> None:
        if not 0.0 < fraction_train <= 1.0 or not 0.0 <= fraction_evaluate <= 1.0:
            raise ValueError("fraction_train must be in (0, 1] and fraction_evaluate in [0, 1]")
        if min_silos < 1 or evaluate_every < 1:
            raise ValueError("min_silos and evaluate_every must be at least 1")
        self.algorithm, self.aggregator, self._standing = algorithm, aggregator, aggregator
        self.fraction_train, self.fraction_evaluate = fraction_train, fraction_evaluate
        self.evaluate_every, self.min_silos, self.seed = evaluate_every, min_silos, seed
        self.private, self.simulated = private, simulated
        self.roster: Roster | None = None
        self.receipts: Receipts | None = None  # what silos' receipts are held against, once the silos are known
        self.secure: SecureRounds | None = None  # sums updates under masks, once the silos are known
        self._enrolled, self.deadlines = False, Deadlines()
        self.report, self._state, self._sent = RoundReport(0), RoundState(0, {}), list[Message]()

    # ------------------------------------------------------------------------------- Flower's hooks
    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Draw this round's cohort and write its messages, as a list."""
        self.report = RoundReport(server_round)
        memory = self._state.memory if server_round > 1 else {}
        self._state = RoundState(server_round - 1, decode(arrays), memory)
        cohort = self._roster(grid).sample(self.fraction_train, self.min_silos, self.seed, contract.TRAIN, server_round)
        self.report.cohort = list(cohort.values())
        self._standing = self.aggregator.at(self._state)
        of_aggregator = self._standing.client_config(self._cohort())
        told = ConfigRecord({**config, **self.algorithm.client_config(), **of_aggregator, contract.ROUND: server_round})
        if self.secure is not None:
            secure, silos = self.secure, self._roster(grid)
            return secure.begin(grid, silos, self.report.cohort, self._state, arrays, told, self.deadlines)
        extra = self.algorithm.told(self._state)
        return self._messages(cohort, arrays, told, contract.TRAIN, encode(extra) if extra else None)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check the replies and complete the round; (None, None) if too few hold."""
        if self.secure is not None:
            return self._aggregate_secure(self.secure, replies)
        roster, model, fold = self.roster or Roster({}), self._state.model, self._standing.fold()
        good, failed = read_train_replies(
            self._sent,
            replies,
            roster.silos,
            model,
            roster.code_hash,
            self._standing.reply_form(self.algorithm.reply_form(model)),
            self._objection,
            self._private(fingerprint(model)) if self.private else None,
            (lambda update: fold.add(weighed(update, self.algorithm))) if fold else None,
        )
        self._standing = self._standing.without(exposed(failed))
        (report := self.report).failed += failed
        report.replied = [reply.update.silo for reply in good]
        report.bytes_up += sum(reply.received for reply in good)
        if len(good) < self.min_silos:
            return None, None
        started = time.perf_counter()
        state = advance(
            self._state,
            [reply.update for reply in good],
            self.algorithm,
            self._standing,
            share=len(good) / len(roster.silos),
            cohort=self._cohort(),
            fold=fold,
        )
        self._state = checked(state, len(good))
        self._standing.tell(report, state.memory)
        report.seconds["aggregate"] = report.seconds.get("aggregate", 0.0) + time.perf_counter() - started
        report.train = weighted_mean((reply.update.weight, reply.metrics) for reply in good)
        for reply in good:
            about = report.silos.setdefault(reply.update.silo, {})
            about.update({key.replace("-", "_"): value for key, value in reply.metrics.items()})
            about["records" if self.private else "rows"] = reply.update.weight
            if reply.receipt:
                report.receipts[reply.update.silo] = b64encode(reply.receipt).decode()
        return encode(self._state.model), MetricRecord(dict(report.train))

    def _aggregate_secure(self, secure: SecureRounds, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Complete a round whose updates are summed under masks: nobody's own is ever here."""
        started, report, silos = time.perf_counter(), self.report, self.roster.silos if self.roster else {}
        beside = Beside(self._private(fingerprint(self._state.model)) if self.private else None, report)
        try:
            collected = secure.complete(replies, beside, self._state.memory)
        except RoundLost as why:
            report.lost = str(why)
            secure.tell(report)
            self._state = RoundState(self._state.round + 1, self._state.model, {**self._state.memory, **secure.kept})
            return encode(self._state.model), MetricRecord()
        count = len(collected.silos)
        after = self.algorithm.step(self._state, collected.mean, count / len(silos))
        self._state = checked(replace(after, memory={**after.memory, **collected.kept}), count)
        report.train, report.released = report.train if self.private else collected.metrics, collected.released
        secure.tell(report)
        report.seconds["aggregate"] = time.perf_counter() - started
        return encode(self._state.model), MetricRecord(dict(report.train))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Write the messages that ask silos to score the model; an empty list if none are to be asked."""
        if self.fraction_evaluate == 0.0 or ((self.private or self.secure) and not self.simulated):
            self._sent = []
            return []
        cohort = self._roster(grid).sample(self.fraction_evaluate, 1, self.seed, contract.EVALUATE, server_round)
        told = ConfigRecord({**config, contract.ROUND: server_round})
        return self._messages(cohort, arrays, told, contract.EVALUATE)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Check the scores and average them by rows; None if no silo gave any."""
        roster = self.roster or Roster({})
        good, failed = read_evaluate_replies(self._sent, replies, roster.silos, roster.code_hash)
        self.report.failed += failed
        for reply in good:
            about = self.report.silos.setdefault(reply.silo, {})
            about.update({key: value for key, value in reply.metrics.items() if key not in _ABOUT_TRAINING})
            about["test_rows"] = reply.weight
        if not good:
            return None
        self.report.evaluate = weighted_mean((reply.weight, reply.metrics) for reply in good)
        return MetricRecord(dict(self.report.evaluate))

    def summary(self) -> None:
        """Log what this strategy is."""
        LOG.info(
            "%s: %s, %s, fraction_train=%g, fraction_evaluate=%g, min_silos=%d",
            type(self).__name__,
            self.algorithm,
            self.aggregator,
            self.fraction_train,
            self.fraction_evaluate,
            self.min_silos,
        )

    # ------------------------------------------------------------------------------- our own loop
    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
        *,
        roster: Roster | None = None,
        observer: Observer | None = None,
        resume_from: RoundState | None = None,
    ) -> Result:
        """Run the rounds.

        Parameters
        ----------
        grid : flwr.serverapp.Grid
        initial_arrays : flwr.app.ArrayRecord
            The first global model.
        num_rounds : int
        timeout : float
            Seconds to wait for the replies of one exchange, unless ``deadlines`` has others for its stage.
        train_config, evaluate_config : flwr.app.ConfigRecord, optional
            Sent along to the silos.
        evaluate_fn : callable, optional
            Scores the global model at the server, before the first round and after each.
        roster : Roster, optional
            Who may take part. Without one: in each round the nodes that have joined, at least ``min_silos``.
        observer : Observer, optional
            Told of every completed round.
        resume_from : RoundState, optional
            Go on after this state's round; ``initial_arrays`` are not used then.

        Returns
        -------
        flwr.serverapp.strategy.Result
            The final model and the metrics of all rounds.

        Raises
        ------
        RunFailed
            If a round has fewer than ``min_silos`` good replies. What the observer was told stands. A round of secure
            aggregation that is lost leaves the model as it is, and costs no more than itself.
        """
        self.roster, self._enrolled = roster, roster is not None
        self.deadlines = replace(self.deadlines, default=timeout)
        self.summary()
        train_config, evaluate_config = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
        result = Result()
        self._state = resume_from or RoundState(0, {})
        result.arrays = arrays = encode(resume_from.model) if resume_from else initial_arrays
        if evaluate_fn and resume_from is None and (scores := evaluate_fn(0, arrays)) is not None:
            result.evaluate_metrics_serverapp[0] = scores
        for number in range(self._state.round + 1, num_rounds + 1):
            try:
                messages = self.configure_train(number, arrays, train_config, grid)
                replies = self._exchange(grid, messages, contract.TRAIN)
                aggregated, metrics = self.aggregate_train(number, replies)
            except RunFailed as error:
                if self.secure is not None and observer is not None:
                    self.secure.tell(self.report, failed=True)
                    observer.round_failed(self.report, str(error))
                raise
            if aggregated is None:
                raise RunFailed(self.report.too_few(self.min_silos))
            result.arrays = arrays = aggregated
            if metrics is not None:
                result.train_metrics_clientapp[number] = metrics
            if number % self.evaluate_every == 0 or number == num_rounds:
                messages = self.configure_evaluate(number, arrays, evaluate_config, grid)
                replies = self._exchange(grid, messages, contract.EVALUATE)
                if (scores := self.aggregate_evaluate(number, replies)) is not None:
                    result.evaluate_metrics_clientapp[number] = scores
            if evaluate_fn and (scores := evaluate_fn(number, arrays)) is not None:
                result.evaluate_metrics_serverapp[number] = scores
            if observer is not None:
                observer.round_done(self.report, self._state)
        return result

    def _private(self, model: str) -> Private:
        cohort = self._cohort()
        if self.receipts is None:
            return Private(cohort.records, self.simulated)
        told = self._standing.client_config(cohort).get(contract.CLIP)
        return Private(
            cohort.records, self.simulated, self.receipts.objections(cohort.records, cohort.round, model, told)
        )

    def _objection(self, update: Arrays) -> str | None:
        """Say why an update of the right form cannot be used: what the algorithm says, then the aggregator."""
        return self.algorithm.objection(update) or self._standing.objection(update)

    def _cohort(self) -> Cohort:
        return Cohort(self.report.round, tuple(self.report.cohort), self.roster.records if self.roster else {})

    def _exchange(self, grid: Grid, messages: Iterable[Message], stage: str) -> Iterable[Message]:
        messages = list(messages)
        seconds = self.deadlines.seconds(messages[0].metadata.message_type if messages else stage)
        for message in messages:
            message.metadata.ttl = seconds
        needed = 0 if stage != contract.TRAIN else self.secure.fewest if self.secure else self.min_silos
        one_by_one = stage == contract.TRAIN and self.secure is None
        replies = exchanged(grid, messages, seconds, needed, AT_ONCE if one_by_one else max(len(messages), 1))
        taken = timed(replies, self.report.seconds, stage, "aggregate" if one_by_one else None)
        return taken if one_by_one else list(taken)

    def _roster(self, grid: Grid) -> Roster:
        """Return the run's roster; without one, the nodes that are there now, once they are enough."""
        if self.roster is None or not self._enrolled:
            limit = self.deadlines.default
            deadline = time.monotonic() + limit
            while len(nodes := list(grid.get_node_ids())) < self.min_silos:
                if time.monotonic() > deadline:
                    raise RunFailed(f"{len(nodes)} nodes joined within {limit:g} seconds, {self.min_silos} are needed.")
                time.sleep(0.1)
            self.roster = Roster.of_nodes(nodes)
        return self.roster

    def _messages(
        self,
        cohort: dict[int, str],
        arrays: ArrayRecord,
        config: ConfigRecord,
        stage: str,
        told: ArrayRecord | None = None,
    ) -> list[Message]:
        content = RecordDict({contract.ARRAYS: arrays, contract.CONFIG: config})
        if told is not None:
            content[contract.TOLD] = told
        group = str(config[contract.ROUND])
        self._sent = [Message(content, node, stage, group_id=group) for node in cohort]
        self.report.bytes_down += len(cohort) * (byte_size(arrays) + (byte_size(told) if told else 0))
        return self._sent
