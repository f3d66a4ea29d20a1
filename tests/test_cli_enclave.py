"""`quire enclave` as its users meet it: sentences, exit codes, files."""

import json
import os

import pytest
from command_line import command_line
from enclaves import enclave, signature
from sgx_chain import MEASUREMENT, NOW, SIGNER, authority

from quire.clients.identity.keyfile import write_public
from quire.enclave.inside import BANNER
from quire.enclave.quotes import report_data
from quire.enclave.verify import Answer, Challenge
from quire.privacy.identity.keys import PrivateIdentity

KEY = PrivateIdentity.from_seed(b"1" * 32).public
ASKED = Challenge(b"n" * 32, b"p" * 32, NOW - 10)


@pytest.fixture
def quire(tmp_path, monkeypatch, capsys):
    """Call the command line in a folder with a small enclave."""
    enclave(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # no Gramine there
    return command_line(monkeypatch, capsys)


def sentence(found, words, status=2):
    code, out, err = found
    assert (code, out) == (status, ""), (out, err)
    assert err.startswith("quire: ")
    assert err.count("\n") == 1
    assert err.rstrip().endswith(".")
    assert words in err


def test_render_and_check(quire, tmp_path):
    status, out, err = quire("enclave", "render", "enclave.yaml")
    assert (status, err) == (0, "")
    assert "hospital-1.manifest: sgx-prod, 3 files" in out
    status, out, _ = quire("enclave", "check", "hospital-1.manifest", "--files")
    assert status == 0
    assert "is a sound sgx-prod manifest" in out
    assert "gramine-manifest-check is not on the PATH" in out
    assert BANNER not in out
    status, out, _ = quire("enclave", "check", "hospital-1.manifest", "--profile", "direct-dev")
    assert status == 1
    assert "sgx.debug must be true" in out
    text = (tmp_path / "hospital-1.manifest").read_text()
    (tmp_path / "hospital-1.manifest").write_text(text.replace("debug = false", "debug = true"))
    status, out, _ = quire("enclave", "check", "hospital-1.manifest")
    assert (status, out.splitlines()[0]) == (1, "sgx.debug must be false, and is true.")


def test_the_banner_is_wherever_direct_dev_shows_up(quire, tmp_path):
    for command in (
        ("render", "enclave.yaml", "--profile", "direct-dev", "--out", "try.manifest"),
        ("check", "try.manifest", "--profile", "direct-dev"),
    ):
        status, out, _ = quire("enclave", *command)
        assert status == 0
        assert BANNER in out
    assert BANNER in (tmp_path / "try.manifest").read_text()
    starter = tmp_path / "bin" / "gramine-direct"
    starter.parent.mkdir()
    starter.write_text('#!/bin/sh\n[ "$1" = try ] && exit 5\n')
    starter.chmod(0o755)
    status, out, err = quire("enclave", "run", "try.manifest", "--mode", "direct")
    assert (status, out) == (5, "")  # standard output is for what runs inside
    assert BANNER in err
    starter.write_text("")
    status, out, err = quire("enclave", "run", "try.manifest", "--mode", "direct")
    assert (status, out) == (2, "")
    assert "quire: " in err
    assert "gramine-direct could not be run: Exec format error." in err


def test_trace_writes_the_list(quire, tmp_path):
    (tmp_path / "work.py").write_text("import json\n")
    (tmp_path / "enclave.yaml").write_text((tmp_path / "enclave.yaml").read_text() + f"command: [{tmp_path}/work.py]\n")
    before = (tmp_path / "enclave-files.json").read_bytes()
    status, out, err = quire("enclave", "trace", "enclave.yaml")
    assert (status, err) == (0, "")
    assert "files; compiled modules are in" in out
    after = (tmp_path / "enclave-files.json").read_bytes()
    assert after != before
    (tmp_path / "work.py").write_text("raise SystemExit(4)\n")
    sentence(quire("enclave", "trace", "enclave.yaml"), "ended with 4")
    status, _, err = quire("enclave", "trace", "enclave.yaml", "--seconds", "9" * 20)
    assert status == 2
    assert "is not in the range" in err
    assert (tmp_path / "enclave-files.json").read_bytes() == after


def test_measure(quire, tmp_path):
    (tmp_path / "silo.sig").write_bytes(signature())
    status, out, _ = quire("enclave", "measure", "silo.sig")
    assert status == 0
    assert "measurement  " + "33" * 32 in out
    assert "debug        no" in out
    (tmp_path / "silo.sig").write_bytes(signature(flags=0x6))
    status, out, _ = quire("enclave", "measure", "silo.sig", "--json")
    assert (status, json.loads(out)["debug"]) == (1, True)
    (tmp_path / "silo.sig").write_bytes(b"x")
    sentence(quire("enclave", "measure", "silo.sig"), "1808 bytes")
    sentence(quire("enclave", "measure", "none.sig"), "cannot be read: No such file")


def test_doctor(quire):
    status, out, _ = quire("enclave", "doctor", "enclave.yaml", "--mode", "direct")
    assert status == 1
    assert "NO   gramine-direct" in out
    assert "SGX device" not in out.splitlines()[-1]
    status, out, _ = quire("enclave", "doctor", "--json")
    assert status == 1
    assert {"what", "good", "words", "mode"} == set(json.loads(out)[0])


def test_mistakes_are_one_sentence(quire, tmp_path):
    sentence(quire("enclave", "render", "none.yaml"), "none.yaml cannot be read")
    sentence(quire("enclave", "render", "enclave.yaml", "--out", "x.toml"), "not named NAME.manifest")
    sentence(quire("enclave", "check", "none.manifest"), "cannot be read")
    sentence(
        quire("enclave", "render", "enclave.yaml", "--out", "none/x.manifest"), "none/x.manifest cannot be written: No"
    )
    sentence(
        quire("enclave", "challenge", "--policy", "00" * 32, "--out", "none/c"), "none/c cannot be written: No such"
    )
    (tmp_path / "torn.manifest").write_text("a = [")
    sentence(quire("enclave", "check", "torn.manifest"), "not TOML")
    (tmp_path / "evil.manifest").write_text('"\\u001b[2J\\u202e" = 1\n')
    status, out, _ = quire("enclave", "check", "evil.manifest")
    assert status == 1
    assert "\x1b" not in out
    assert "\u202e" not in out
    quire("enclave", "render", "enclave.yaml")
    sentence(quire("enclave", "sign", "hospital-1.manifest", "--key", "none.pem"), "gramine-sgx-gen-private-key")
    (tmp_path / "key.pem").touch()
    sentence(quire("enclave", "sign", "hospital-1.manifest", "--key", "key.pem"), "no gramine-sgx-sign on the PATH")
    sentence(quire("enclave", "run", "hospital-1.manifest"), "quire enclave sign")
    sentence(quire("enclave", "run", "hospital-1.manifest", "--mode", "direct"), "no sound direct-dev manifest")
    os.remove("enclave-files.json")
    sentence(quire("enclave", "render", "enclave.yaml"), "`quire enclave trace` makes it")
    sentence(quire("enclave", "challenge", "--policy", "00", "--out", "c.json"), "64 hexadecimal digits")


def test_challenge(quire, tmp_path):
    command = ("enclave", "challenge", "--policy", "ab" * 32, "--out", "c.json")
    assert quire(*command)[0] == 0
    found = Challenge.decode((tmp_path / "c.json").read_bytes())
    assert found.policy == b"\xab" * 32
    sentence(quire(*command), "c.json exists")


class TestVerify:
    """Needs dcap-qvl."""

    @pytest.fixture
    def verify(self, quire, tmp_path):
        pytest.importorskip("dcap_qvl", reason="dcap-qvl, of the extra `enclave`, is not installed")
        (tmp_path / "answer.json").write_bytes(self.answer())
        (tmp_path / "collateral.json").write_bytes(authority().collateral())
        (tmp_path / "challenge.json").write_bytes(ASKED.encode())
        (tmp_path / "allow.yaml").write_text(f"measurements: ['{MEASUREMENT.hex()}']\n")
        (tmp_path / "root.der").write_bytes(authority().root_der)

        def call(*more, answer="answer.json"):
            given = ("--collateral", "collateral.json", "--allow", "allow.yaml", "--challenge", "challenge.json")
            return quire("enclave", "verify", answer, *given, *more)

        return call

    def answer(self, **of):
        return Answer(KEY, authority().quote(report_data(KEY, ASKED.nonce, ASKED.policy), **of)).encode()

    ours = ("--root", "root.der", "--at", str(NOW))

    def test_a_sound_answer_is_accepted(self, verify):
        status, out, err = verify(*self.ours)
        assert (status, err) == (0, "")
        assert f"accepted     {KEY}" in out
        assert "NOT INTEL'S" in out
        status, out, _ = verify(*self.ours, "--json")
        found = json.loads(out)
        assert (status, found["accepted"], found["status"], found["root"]) == (0, True, "UpToDate", "given")

    def test_a_time_before_all_time_is_one_sentence(self, verify, tmp_path):
        (tmp_path / "challenge.json").write_bytes(Challenge(ASKED.nonce, ASKED.policy, 0).encode())
        status, out, err = verify("--root", "root.der", "--at", "-1")
        assert (status, out) == (2, "")
        assert "-1 is not in the range x>=0" in err

    def test_a_bare_quote_needs_its_key(self, verify, tmp_path):
        (tmp_path / "quote").write_bytes(Answer.decode(self.answer()).quote)
        (tmp_path / "key.pub").write_bytes(write_public(KEY, None))
        assert verify(*self.ours, "--identity", "key.pub", answer="quote")[0] == 0
        sentence(verify(*self.ours, answer="quote"), "give the key with --identity")
        sentence(verify(*self.ours, "--identity", "key.pub"), "leave --identity out")

    def test_a_signer_with_product_and_version_is_enough(self, verify, tmp_path):
        line = f"signers: [{{signer: '{SIGNER.hex()}', product: 1, version: %d}}]\n"
        (tmp_path / "allow.yaml").write_text(line % 3)
        assert verify(*self.ours)[0] == 0
        (tmp_path / "allow.yaml").write_text(line % 4)
        sentence(verify(*self.ours), "at least 4 is allowed", 1)

    def test_what_proves_nothing_is_refused_with_its_reason(self, verify, tmp_path):
        sentence(verify("--root", "root.der"), "challenge", 1)  # now is another time
        sentence(verify("--at", str(NOW)), "The chain from the quote to the root does not hold", 1)
        (tmp_path / "answer.json").write_bytes(self.answer(flags=0x7))
        sentence(verify(*self.ours), "debug mode", 1)
        status, out, _ = verify(*self.ours, "--json")
        assert (status, json.loads(out)["reason"]) == (1, "debug")
        (tmp_path / "answer.json").write_bytes(Answer(KEY, None).encode())
        sentence(verify(*self.ours), BANNER, 1)

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("allow.yaml", "statuses: [UpToDate]\n", "allows nothing"),
            ("allow.yaml", "measurements: [33]\n", "must be a text"),
            ("allow.yaml", "measurements: ['33']\n", "64 hexadecimal digits"),
            ("allow.yaml", f"measurements: ['{'3' * 64}']\nstatuses: [Revoked]\n", "no such status"),
            ("allow.yaml", f"measurements: ['{'3' * 64}']\nadvisories: [all]\n", "INTEL-SA-00615"),
            ("allow.yaml", f"measurements: ['{'3' * 64}']\nmax_age: 0\n", "from 1 to 86400"),
            ("allow.yaml", f"measurements: ['{'3' * 64}']\ndebug: true\n", "no key 'debug'"),
            ("collateral.json", "{}", "not collateral"),
            ("collateral.json", "[" * 100_000, "not collateral"),
            ("challenge.json", "{", "no challenge"),
            ("answer.json", '{"identity": "00", "quote": null}', "cannot be read"),
        ],
    )
    def test_bad_files_are_one_sentence(self, verify, tmp_path, name, content, words):
        (tmp_path / name).write_text(content)
        sentence(verify(*self.ours), words)

    def test_missing_files_are_one_sentence(self, verify, tmp_path):
        for name in ("answer.json", "collateral.json", "allow.yaml", "challenge.json", "root.der"):
            content = (tmp_path / name).read_bytes()
            os.remove(tmp_path / name)
            sentence(verify(*self.ours), f"{name} cannot be read")
            (tmp_path / name).write_bytes(content)
