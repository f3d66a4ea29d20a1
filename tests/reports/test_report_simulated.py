"""Documents of a real simulation: all of it is verified, and it is said that it guarantees nothing."""

from __future__ import annotations

import re

import pytest
from report_runs import DAY, notices, residual, said
from shared_runs import RECORD

import quire
from quire.clients.identity import new_identity
from quire.reports.audit import audit
from quire.reports.checks import Keys
from quire.reports.details import Details
from quire.reports.document import Group, Standing
from quire.reports.dpia import dpia
from quire.reports.inputs import Inputs
from quire.reports.run import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    new_identity(place / "log.key")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIRE_LOG_KEY", str(place / "log.key"))
        quire.run(f"{RECORD} strategy.rounds=1 output.transcripts=true", place / "run")
    return read_run(place / "run", Keys(), Inputs())


def test_every_check_of_shared_noise_under_masks_is_made(run):
    document = audit([run], None, [], Inputs(), DAY)
    assert not document.failed
    absent = {one.key for one in run.checks.values() if one.standing is Standing.ABSENT}
    assert absent == {"roster", "charter", "approvals"}
    assert run.witnesses == 5
    assert any("sums opened again" in one for one in run.checks["transcripts"].words)


def test_a_simulation_says_in_every_place_that_it_guarantees_nothing(run):
    document = dpia(run, None, Details(), None, Inputs(), DAY)
    assert "noise and keys come from a seed" in notices(document)["A simulation: it guarantees nothing"]
    assert "whoever knows the seed can make every signature" in notices(document)["Whose keys"]
    groups = [item for section in document.sections for item in section.items if isinstance(item, Group)]
    for group in groups:
        words = group.statements[-1].says[0]
        assert re.match(r"Open: a simulation guarantees nothing\. With real silos and the same settings: \w", words)
    assert residual(document, "A record that is rewritten").says[0].endswith(": low.")
    assert "Up to 1 of 5 silos may side with a lying server" in said(document, "Against collusion").says[0]
    assert "If all others lie, epsilon is" in residual(document, "Collusion").says[1]
    assert "The server sees one sum of updates for each round" in said(document, "Aggregation").says[0]
