"""Kill -9 between any two writes: nothing is lost, nothing is issued twice, and the same command again mends it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from consortium_parties import NOW, Parties
from cryptography import x509

from quire.consortium import documents
from quire.consortium.about import Server
from quire.consortium.certificates import check_client
from quire.consortium.errors import ConsortiumError
from quire.consortium.founding import init
from quire.consortium.index import append, read_index
from quire.consortium.joining import join
from quire.consortium.operator import opened
from quire.consortium.pinning import pinned_roster
from quire.consortium.places import read_key
from quire.consortium.settling import read_crl
from quire.consortium.silo import authority_of, certificate_of, read_invitation, renew, request
from quire.consortium.standing import standing


def killed_at(point: int, command: Callable[[], object], calls: tuple[str, ...]) -> bool:
    """Call a command in a child that dies by SIGKILL before its so-manieth write; False if it got to its end before."""
    child = os.fork()
    if child == 0:
        count = 0

        def counting(original: Callable[..., None]) -> Callable[..., None]:
            def call(*args: object) -> None:
                nonlocal count
                if count == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                original(*args)

            return call

        status = 1
        try:
            for name in calls:
                setattr(os, name, counting(getattr(os, name)))
            command()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def kills(
    template: Path, work: Path, command: Callable[[], object], calls: tuple[str, ...] = ("replace", "fsync")
) -> Iterator[int]:
    """Put the template in place and kill the command at every point, one after another."""
    for point in range(500):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(template, work, symlinks=True)
        if not killed_at(point, command, calls):
            assert point > 5, "the command wrote next to nothing: the kills hit air"
            return
        yield point


@pytest.fixture
def waiting(tmp_path: Path, no_power_cuts: None) -> tuple[Path, Parties, documents.Document]:
    """A consortium with one member, and the request of another; its template lies beside."""
    parties = Parties(tmp_path / "work").found()
    parties.bring("hospital-1")
    asked = parties.ask("hospital-2")
    shutil.copytree(parties.root, tmp_path / "template")
    return tmp_path / "template", parties, asked


def check_operator(parties: Parties, members: list[str]) -> None:
    """Index, roster, list of revoked certificates and the members' folders all say the same."""
    folder = parties.operator
    state = read_index(folder.issued)
    assert sorted(state.members) == members
    with opened(folder.root, None, NOW) as operator:
        assert operator.settle(NOW) == []
    assert not standing(folder.root, NOW).failing
    newest = documents.read(folder.bulletin, documents.BULLETIN).rosters()[-1]
    assert sorted(member.name for member in newest.roster.members) == members
    crl = read_crl(folder.crl)
    assert crl is not None
    assert {one.serial_number for one in crl} == set(state.revoked)
    assert sorted(path.name for path in folder.members.iterdir()) == members


def serials_outside(parties: Parties) -> set[int]:
    """Every certificate that lies in a member's folder, and so could have left."""
    places = [*parties.operator.members.rglob("client.pem"), *parties.operator.former.rglob("client.pem")]
    return {x509.load_pem_x509_certificate(path.read_bytes()).serial_number for path in places}


def admit_killed(waiting: tuple[Path, Parties, documents.Document], *calls: str) -> int:
    """Kill ``admit`` at every one of these calls and mend it; return how often it had decided and was not done."""
    template, parties, asked = waiting
    cut_short = 0
    for _ in kills(template, parties.root, lambda: parties.admit(asked), calls):
        state = read_index(parties.operator.issued)
        assert serials_outside(parties) <= {one.certificate.serial_number for one in state.issued}
        found = standing(parties.operator.root, NOW)
        cut_short += found.failing
        assert all("call it again" in item.words for item in found.items if item.state == "WRONG")
        admission = parties.admit(asked)
        check_operator(parties, ["hospital-1", "hospital-2"])
        assert len([one for one in read_index(parties.operator.issued).issued if one.name == "hospital-2"]) == 1
        join(parties.silo("hospital-2").root, admission, now=NOW)
        assert not standing(parties.silo("hospital-2").root, NOW).failing
    return cut_short


def test_admit_killed_before_any_file_takes_its_place(waiting: tuple[Path, Parties, documents.Document]) -> None:
    assert admit_killed(waiting, "replace") >= 3, "index, roster, admission: killed between each two of them"


def test_admit_of_a_former_member_killed_before_any_file_takes_its_place(
    waiting: tuple[Path, Parties, documents.Document],
) -> None:
    """Its earlier folder is kept under `former/`; whatever command opens the folder next goes on."""
    template, parties, asked = waiting
    parties.admit(asked)
    parties.revoke("hospital-2")
    again = parties.ask("hospital-2", folder="anew")
    shutil.rmtree(template)
    shutil.copytree(parties.root, template)
    for _ in kills(template, parties.root, lambda: parties.admit(again), ("replace", "mkdir")):
        parties.revoke("hospital-1")
        parties.admit(again)
        check_operator(parties, ["hospital-2"])
        assert parties.operator.request("hospital-2").read_bytes() == again.encode()


@pytest.mark.slow
def test_admit_killed_between_any_two_writes(waiting: tuple[Path, Parties, documents.Document]) -> None:
    assert admit_killed(waiting, "replace", "fsync") >= 6


@pytest.mark.slow
def test_revoke_killed_between_any_two_writes(waiting: tuple[Path, Parties, documents.Document]) -> None:
    template, parties, asked = waiting
    parties.admit(asked)
    shutil.rmtree(template)
    shutil.copytree(parties.root, template)
    for _ in kills(template, parties.root, lambda: parties.revoke("hospital-2")):
        parties.revoke("hospital-2")
        check_operator(parties, ["hospital-1"])
        assert len(read_index(parties.operator.issued).revoked) == 1


@pytest.mark.slow
def test_renewal_of_the_server_killed_between_any_two_writes(
    waiting: tuple[Path, Parties, documents.Document],
) -> None:
    template, parties, _ = waiting

    def command() -> None:
        with opened(parties.operator.root, None, NOW) as operator:
            operator.renew_server(True, 365, NOW)

    for _ in kills(template, parties.root, command):
        check_operator(parties, ["hospital-1"])
        folder = parties.operator
        chain = x509.load_pem_x509_certificates(folder.server_certificate.read_bytes())
        assert chain[0].public_key() == read_key(folder.server_key).public_key()
        assert not folder.next_server_key.exists()


@pytest.mark.slow
def test_request_killed_between_any_two_writes(tmp_path: Path, no_power_cuts: None) -> None:
    parties = Parties(tmp_path / "work").found()
    invitation = read_invitation(parties.invite("hospital-1"))
    admin = invitation.identity("admin").fingerprint
    silo = parties.silo("hospital-1")
    shutil.copytree(parties.root, tmp_path / "template")

    def command() -> documents.Document:
        return request(silo.root, invitation, admin, now=NOW)

    for point in kills(tmp_path / "template", parties.root, command):
        asked = command()
        assert asked.encode() == silo.request.read_bytes()
        assert not list(silo.root.glob(".*part*")), "half a folder with keys is left behind"
        if point % 5 == 0:
            join(silo.root, parties.admit(asked), now=NOW)
            assert not standing(silo.root, NOW).failing


@pytest.mark.slow
def test_join_killed_between_any_two_writes(waiting: tuple[Path, Parties, documents.Document]) -> None:
    template, parties, asked = waiting
    silo = parties.silo("hospital-2")
    admission = parties.admit(asked)
    join(silo.root, admission, now=NOW)
    parties.bring("hospital-3")
    again = renew(silo.root, fresh=True, now=NOW + 1)
    with opened(parties.operator.root, None, NOW + 1) as operator:
        operator.renew(again, 90, NOW + 1)
    shutil.rmtree(template)
    shutil.copytree(parties.root, template)
    for _ in kills(template, parties.root, lambda: join(silo.root, admission, now=NOW + 1)):
        pinned_roster(silo)  # file and hash always agree
        join(silo.root, admission, now=NOW + 1)
        assert certificate_of(silo).public_key() == read_key(silo.client_key).public_key()
        check_client(certificate_of(silo), authority_of(silo), NOW + 1)
        assert not standing(silo.root, NOW + 1).failing


@pytest.mark.slow
def test_init_is_whole_or_not_there(tmp_path: Path, no_power_cuts: None) -> None:
    (tmp_path / "template").mkdir()
    work = tmp_path / "work"
    folder = work / "operator"

    def command() -> None:
        init(folder, "heart", Server("127.0.0.1"), None, now=NOW)

    for _ in kills(tmp_path / "template", work, command):
        if not folder.exists():
            command()
        check_operator_without_members(folder)


def check_operator_without_members(folder: Path) -> None:
    with opened(folder, None, NOW) as operator:
        assert operator.settle(NOW) == []
        assert operator.state.server is not None


def test_half_a_line_of_the_index_counts_for_nothing(parties: Parties) -> None:
    parties.bring("hospital-1")
    folder = parties.operator
    whole = folder.issued.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for length in (1, len(last) // 2, len(last) - 1):
        folder.issued.write_bytes(whole + last[:length])
        assert read_index(folder.issued).events == 2
    append(folder.issued, {"at": NOW, "event": "superseded", "name": "hospital-1"})
    assert folder.issued.read_bytes().startswith(whole)
    assert read_index(folder.issued).events == 3


@pytest.mark.parametrize("damage", [b"{}\n", b"[]\n", b"x\n", b"\xff\n", b'{"at":1,"event":"gone","name":"x"}\n'])
def test_a_damaged_line_is_named_and_nothing_goes_on(parties: Parties, damage: bytes) -> None:
    folder = parties.operator
    folder.issued.write_bytes(folder.issued.read_bytes() + damage)
    with pytest.raises(ConsortiumError, match=r"line 2: .*backup"), opened(folder.root, None, NOW):
        pass


def test_an_old_copy_of_the_index_revokes_nobody(parties: Parties) -> None:
    folder = parties.operator
    parties.bring("hospital-1")
    one_member = folder.issued.read_bytes()
    parties.bring("hospital-2")
    two_members, rosters = folder.issued.read_bytes(), folder.rosters()
    folder.issued.write_bytes(one_member)
    with pytest.raises(ConsortiumError, match="hospital-2 is in the roster"):
        parties.invite("hospital-3")
    assert folder.rosters() == rosters
    folder.issued.write_bytes(two_members)
    parties.revoke("hospital-2")
    folder.issued.write_bytes(two_members)
    with pytest.raises(ConsortiumError, match="old copy"):
        parties.invite("hospital-3")


def test_two_admits_at_once_issue_one_certificate(waiting: tuple[Path, Parties, documents.Document]) -> None:
    _, parties, asked = waiting
    third = parties.ask("hospital-3")
    children = []
    for each in (asked, asked, third, third):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                parties.admit(each)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0, 0]
    state = read_index(parties.operator.issued)
    assert sorted(one.name for one in state.issued) == ["-server", "hospital-1", "hospital-2", "hospital-3"]
    check_operator(parties, ["hospital-1", "hospital-2", "hospital-3"])
    rosters = documents.read(parties.operator.bulletin, documents.BULLETIN).rosters()
    assert [one.roster.version for one in rosters] == [1, 2, 3]
