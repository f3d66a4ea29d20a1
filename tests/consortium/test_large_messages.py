"""Messages of 256 MiB get through both proxies, larger ones are refused: in words, and before anybody trains."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from provisioned import Provisioned
from proxied import Place, needs_haproxy, running

import quire
from quire.conf.compose import compose
from quire.consortium.about import Server
from quire.consortium.loopback import make_loopback, write_private
from quire.consortium.proxy import KEY_HEADER, MOST_BODY, SiloProxy
from quire.consortium.services import free_ports
from quire.consortium.superlink import MOST_MESSAGE
from quire.consortium.too_large import Refusals
from quire.errors import RunFailed
from quire.privacy.randomness import stream
from quire.privacy.receipts import simulated_roster
from quire.strategies.build import build_strategy
from quire.strategies.message_size import LIMIT_VARIABLE, message_bytes
from quire.strategies.rounds import RoundState
from quire.strategies.secure import SecureRounds

SMALL = "task=breast_cancer partition=iid strategy.rounds=1 output.report=false output.baselines=false"


def began(overrides: str) -> tuple[Any, RoundState]:
    from quire.clients.tasks import task_of

    settings = compose(overrides)
    return build_strategy(settings), RoundState(0, task_of(settings).initial_arrays(stream(settings.seed, "model")))


def test_the_bytes_of_a_message_are_those_of_its_arrays() -> None:
    strategy, state = began(SMALL)
    size = 4 * sum(array.size for array in state.model.values())
    assert message_bytes(strategy, state) == (size, size)
    strategy, state = began(f"{SMALL} strategy=scaffold")
    down, up = message_bytes(strategy, state)
    assert down >= 2 * size
    assert up >= 2 * size


@pytest.mark.parametrize("aggregation", ["plain", "secure"])
def test_a_model_that_is_too_large_is_refused_before_anybody_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aggregation: str
) -> None:
    overrides = f"{SMALL} aggregation={aggregation}"
    _, state = began(SMALL)
    size = 4 * sum(array.size for array in state.model.values())
    monkeypatch.setenv(LIMIT_VARIABLE, str(size - 1))
    with pytest.raises(RunFailed, match=r"This model has 31 parameters, .* is the most that this server carries"):
        quire.run(overrides, tmp_path / "large")
    journal = [json.loads(line) for line in (tmp_path / "large" / "metrics.jsonl").read_text().splitlines()]
    assert [line["event"] for line in journal] == ["end"]
    monkeypatch.setenv(LIMIT_VARIABLE, str(MOST_MESSAGE))
    quire.run(overrides, tmp_path / "fits")


def test_the_masked_vector_counts_as_it_is_packed(tmp_path: Path) -> None:
    """Its words have fewer bits than the model's numbers, or more: what it takes on the wire is what counts."""
    overrides = f"{SMALL} aggregation=secure"
    quire.run(overrides, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (about,) = [line["secure"] for line in lines if line["event"] == "round"]
    mask = about["attempts"][0]["stages"]["mask"]
    strategy, state = began(overrides)
    settings, names = compose(overrides), [f"hospital-{place}" for place in range(1, 6)]
    members = simulated_roster(settings.seed, names)
    strategy.secure = SecureRounds(settings, settings.aggregation, members, 1, True)  # type: ignore[arg-type]
    down, up = message_bytes(strategy, state)
    assert down == 4 * 31
    assert up <= mask["bytes_up"] / mask["answered"] < up + 400  # with what the protocol says beside it


def test_what_the_proxy_refused_for_its_size_is_told_once_in_a_while(tmp_path: Path) -> None:
    log = tmp_path / "proxy.log"
    line = '{"time":"x","member":"MEMBER","path":"/v1/fleet/push-object","status":STATUS,"bytes_in":1,"state":"PR"}\n'
    log.write_text(line.replace("MEMBER", "old").replace("STATUS", "413"))
    found: list[tuple[str, str]] = []
    refusals = Refusals(log)
    refusals.tell = lambda name, words: found.append((name, words))
    with log.open("a") as file:
        for member, status in (("clinic", "200"), ("clinic", "413"), ("clinic", "413"), ("\\u0007ward", "413")):
            file.write(line.replace("MEMBER", member).replace("STATUS", status))
        file.write('"status":413,\n{"status":413,\n[1,"status":413,]\n')
        file.write('{"time":"x","path":"/v1/fleet/push-object","status":413,"bytes_in":1}\n')
    refusals.look()
    refusals.look()
    assert [name for name, _ in found] == ["messages"] * 3
    assert [words.split(" was refused")[0] for _, words in found] == [
        "a message of clinic",
        "a message of ?ward",
        "a message of this silo",
    ]
    assert f"more than {MOST_BODY // 2**20} MiB in one piece" in found[0][1]


@needs_haproxy
@pytest.mark.slow
def test_256_mib_in_one_piece_get_through_both_proxies_and_more_than_the_limit_is_told(
    place: Place, tmp_path: Path
) -> None:
    made: Provisioned = place.made
    silo = made.silos["clinic"]
    client = write_private(tmp_path / "client.pem", silo.client_certificate.read_bytes() + silo.client_key.read_bytes())
    own = make_loopback(tmp_path)
    front, out, metrics, others = free_ports(4)
    server = replace(place.proxy, bind=Server("127.0.0.1", front), body=MOST_BODY, metrics=metrics)
    way = SiloProxy(Server("localhost", front), client, silo.ca_certificate, silo.crl, out, own.both, others)
    _, _, key = place.key("clinic").partition(": ")
    context = ssl.create_default_context(cafile=str(own.certificate))
    piece = bytes(2**20)

    def push(mebibytes: int) -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", out, timeout=120, context=context)
        try:
            headers = {KEY_HEADER: key, "content-length": str(mebibytes * 2**20)}
            connection.request("POST", "/v1/fleet/push-object", (piece for _ in range(mebibytes)), headers)
            return connection.getresponse().status
        except (BrokenPipeError, ConnectionError, ssl.SSLError):
            return 0  # refused while it was still being sent
        finally:
            connection.close()

    found: list[str] = []
    with running(tmp_path, "server", server.render(), front), running(tmp_path, "silo", way.render(), out):
        refusals = Refusals(tmp_path / "server.log")
        refusals.tell = lambda name, words: found.append(words)
        assert push(256) == 200
        refusals.look()
        assert found == []
        assert push(MOST_BODY // 2**20 + 1) in (0, 413)
        refusals.look()
    assert [words.split(" was refused")[0] for words in found] == ["a message of clinic"]
