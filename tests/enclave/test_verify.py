"""Answers of enclaves, verified with `dcap-qvl` under a root of our own: every way to be refused, with its reason."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sgx_chain import MEASUREMENT, NOW, SIGNER, YEAR, Authority, authority

pytest.importorskip("dcap_qvl", reason="dcap-qvl, of the extra `enclave`, is not installed")

from quire.enclave.chain import collateral_of, dcap_chain
from quire.enclave.errors import EnclaveError, QuoteRefused
from quire.enclave.policy import Allowed, Signer, read_allowed
from quire.enclave.quotes import Quote, report_data
from quire.enclave.verify import Answer, Challenge, Challenges, verify
from quire.privacy.identity.keys import PrivateIdentity

KEY = PrivateIdentity.from_seed(b"1" * 32).public
OTHER = PrivateIdentity.from_seed(b"2" * 32).public
ASKED = Challenge(b"n" * 32, b"p" * 32, NOW - 10)
ALLOWED = Allowed(frozenset({MEASUREMENT.hex()}))
DATA = report_data(KEY, ASKED.nonce, ASKED.policy)


def held(raw=None, identity=KEY, asked=ASKED, allowed=ALLOWED, now=NOW, root=None, **collateral):
    raw = authority().quote(DATA) if raw is None else raw
    chain = dcap_chain(authority().root_der if root is None else root)
    return verify(raw, identity, asked, allowed, collateral_of(authority().collateral(**collateral)), now, chain)


def reason(**of):
    with pytest.raises(QuoteRefused) as caught:
        held(**of)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    return caught.value.reason


def quote(**of):
    return authority().quote(DATA, **of)


def test_an_answer_that_is_sound_is_believed():
    found, platform = held()
    assert (found.measurement, platform.status, platform.advisories) == (MEASUREMENT.hex(), "UpToDate", ())


def test_an_enclave_is_allowed_by_measurement_or_by_signer_with_product_and_least_version():
    none = frozenset()
    held(allowed=Allowed(none, (Signer(SIGNER.hex(), 1, 3),)))
    held(allowed=Allowed(none, (Signer(SIGNER.hex(), 1, 9), Signer(SIGNER.hex(), 1, 2))))
    for signers in ((Signer(SIGNER.hex(), 1, 4),), (Signer(SIGNER.hex(), 2, 0),), (Signer("00" * 32, 1, 0),), ()):
        assert reason(allowed=Allowed(none, signers)) == "measurement"


def test_a_measurement_is_allowed_as_one_key_signed_it_and_not_as_another_did(tmp_path):
    """Who signs an enclave anew does not change its measurement, and can open what it seals for its signer."""
    for signer, good in ((SIGNER.hex(), True), ("00" * 32, False)):
        pair = f"{{measurement: '{MEASUREMENT.hex()}', signer: '{signer}'}}"
        (tmp_path / "allow.yaml").write_text(f"signed_measurements: [{pair}]\n")
        allowed = read_allowed(tmp_path / "allow.yaml")
        if good:
            held(allowed=allowed)
            with pytest.raises(QuoteRefused, match="Neither the measurement"):
                held(allowed=allowed, raw=quote(measurement=b"\x12" * 32))
        else:
            with pytest.raises(QuoteRefused, match="but not as the signer 2222"):
                held(allowed=allowed)


def test_what_is_wrong_with_the_report_is_its_reason():
    assert reason(raw=quote(measurement=b"\x12" * 32)) == "measurement"
    assert reason(raw=quote(flags=0x7)) == "debug"
    assert reason(raw=quote(flags=0x4)) == "malformed"
    assert reason(raw=authority().quote(bytes(64))) == "report-data"
    assert reason(identity=OTHER) == "report-data"
    assert reason(asked=dataclasses.replace(ASKED, nonce=b"m" * 32)) == "report-data"
    assert reason(asked=dataclasses.replace(ASKED, policy=b"q" * 32)) == "report-data"


def test_debug_is_refused_by_the_lowest_layer_as_well():
    with pytest.raises(QuoteRefused) as caught:
        dcap_chain(authority().root_der)(quote(flags=0x7), collateral_of(authority().collateral()), NOW)
    assert caught.value.reason == "debug"


@pytest.mark.parametrize(("age", "good"), [(0, True), (300, True), (301, False), (-60, True), (-61, False)])
def test_a_challenge_is_fresh_or_refused(age, good):
    asked = dataclasses.replace(ASKED, issued=NOW - age)
    if good:
        held(asked=asked)
    else:
        assert reason(asked=asked) == "stale"


def test_a_challenge_is_answered_once():
    open_ones = Challenges(max_age=300, limit=2)
    first, second = open_ones.give(b"p" * 32, NOW), open_ones.give(b"p" * 32, NOW)
    assert first.nonce != second.nonce
    assert open_ones.take(first.nonce, NOW + 300) == first
    for nonce, now in ((first.nonce, NOW), (b"?" * 32, NOW), (second.nonce, NOW + 301), (second.nonce, NOW)):
        with pytest.raises(QuoteRefused) as caught:
            open_ones.take(nonce, now)
        assert caught.value.reason == "stale"
    kept = [open_ones.give(b"p" * 32, NOW) for _ in range(3)]
    with pytest.raises(QuoteRefused):
        open_ones.take(kept[0].nonce, NOW)
    assert open_ones.take(kept[2].nonce, NOW) == kept[2]


def test_what_is_wrong_with_the_platform_is_its_reason():
    assert reason(status="Revoked") == "revoked"
    assert reason(revoked=(authority().serials["pck"],)) == "revoked"
    assert reason(status="OutOfDate") == "status"
    assert reason(status="SWHardeningNeeded") == "status"
    assert reason(advisories=("INTEL-SA-00615",)) == "advisory"
    assert reason(expired=True) == "time"
    assert reason(now=NOW + 60 * 86400, asked=dataclasses.replace(ASKED, issued=NOW + 60 * 86400)) == "time"
    assert reason(now=NOW - 2 * YEAR, asked=dataclasses.replace(ASKED, issued=NOW - 2 * YEAR)) == "time"


def test_a_status_and_advisories_are_let_in_where_the_list_says_so():
    lenient = dataclasses.replace(
        ALLOWED, statuses=frozenset({"SWHardeningNeeded"}), advisories=frozenset({"INTEL-SA-00615"})
    )
    _, platform = held(allowed=lenient, status="SWHardeningNeeded", advisories=("INTEL-SA-00615",))
    assert platform.advisories == ("INTEL-SA-00615",)
    advised = ("INTEL-SA-00615", "INTEL-SA-00828")
    assert reason(allowed=lenient, status="SWHardeningNeeded", advisories=advised) == "advisory"
    assert reason(allowed=lenient) == "status"


def test_an_old_platform_matches_an_old_level():
    old = Authority(svn=2)
    chain, proof = dcap_chain(old.root_der), collateral_of(old.collateral())
    with pytest.raises(QuoteRefused) as caught:
        verify(old.quote(DATA), KEY, ASKED, ALLOWED, proof, NOW, chain)
    assert caught.value.reason == "status"


def test_another_root_is_refused_and_intels_is_not_ours():
    assert reason(root=Authority().root_der) == "chain"
    with pytest.raises(QuoteRefused) as caught:
        verify(quote(), KEY, ASKED, ALLOWED, collateral_of(authority().collateral()), NOW, dcap_chain())
    assert caught.value.reason == "chain"
    assert reason(root=b"no certificate") == "chain"


@settings(max_examples=80)
@given(st.data())
def test_no_flipped_bit_of_what_is_signed_is_believed(data):
    """Header, report, their signature and key, the quoting enclave's report: all but the PEM text, which has slack."""
    raw = bytearray(quote())
    at = data.draw(st.integers(0, raw.index(b"-----BEGIN") - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(QuoteRefused):
        held(raw=bytes(raw))


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=64), st.data())
def test_garbage_in_the_certificates_is_refused(noise, data):
    raw = bytearray(quote())
    start = raw.index(b"-----BEGIN")
    at = data.draw(st.integers(start + 30, start + 400))
    raw[at : at + len(noise)] = noise
    try:
        found, _ = held(raw=bytes(raw))
    except QuoteRefused:
        return
    assert found == Quote.decode(quote())  # the noise was what stood there, or a line end


@settings(max_examples=40)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda text: f'{{"tcb_info": "{text}"}}'.encode())))
def test_what_is_no_collateral_is_refused(raw):
    with pytest.raises(EnclaveError, match="collateral"):
        collateral_of(raw)


@settings(max_examples=40)
@given(
    st.sampled_from(["root_ca_crl", "pck_crl", "tcb_info", "qe_identity", "tcb_info_signature"]), st.text(max_size=60)
)
def test_damaged_collateral_is_refused(name, text):
    found = json.loads(authority().collateral()) | {name: text}
    with pytest.raises(QuoteRefused):
        dcap_chain(authority().root_der)(quote(), collateral_of(json.dumps(found).encode()), NOW)


def test_a_chain_in_the_collateral_is_not_looked_at():
    found = json.loads(authority().collateral()) | {"pck_certificate_chain": "-----BEGIN NONSENSE-----"}
    assert (
        dcap_chain(authority().root_der)(quote(), collateral_of(json.dumps(found).encode()), NOW).status == "UpToDate"
    )


def test_answers_and_challenges_travel_as_json():
    for one in (Answer(KEY, b"quote"), Answer(KEY, None)):
        assert Answer.decode(one.encode()) == one
    assert Challenge.decode(ASKED.encode()) == ASKED


@settings(max_examples=40)
@given(
    st.one_of(st.binary(max_size=100), st.recursive(st.none() | st.text(), st.lists).map(lambda v: repr(v).encode()))
)
def test_what_is_neither_is_refused(raw):
    for kind in (Answer, Challenge):
        with pytest.raises(EnclaveError):
            kind.decode(raw)


@pytest.mark.parametrize(
    "body",
    [
        '{"identity": 7, "quote": null}',
        '{"identity": "zz", "quote": null}',
        f'{{"identity": "{KEY.encode().hex()}", "quote": "not base64!"}}',
        f'{{"identity": "{KEY.encode().hex()}", "quote": 7}}',
        f'{{"identity": "{KEY.encode().hex()}"}}',
        f'{{"nonce": "{"00" * 31}", "policy": "{"00" * 32}", "issued": 1}}',
        f'{{"nonce": "{"00" * 32}", "policy": null, "issued": 1}}',
        f'{{"nonce": "{"00" * 32}", "policy": "{"00" * 32}", "issued": true}}',
        f'{{"nonce": "{"00" * 32}", "policy": "{"00" * 32}", "issued": -1}}',
        f'{{"nonce": "{"00" * 32}", "policy": "{"00" * 32}", "issued": 1, "more": 1}}',
    ],
)
def test_malformed_answers_and_challenges_are_refused(body):
    kind = Challenge if "nonce" in body else Answer
    with pytest.raises(EnclaveError):
        kind.decode(body.encode())


def test_a_published_quote_of_a_real_processor_verifies_at_its_time():
    """Needs a folder with `sgx_quote` and `sgx_quote_collateral.json` as dcap-qvl's own samples have them."""
    folder = os.environ.get("QUIRE_SAMPLE_QUOTES")
    if not folder:
        pytest.skip("QUIRE_SAMPLE_QUOTES names no folder with a published quote and its collateral")
    raw = (Path(folder) / "sgx_quote").read_bytes()
    proof = collateral_of((Path(folder) / "sgx_quote_collateral.json").read_bytes())
    found = dcap_chain()(raw, proof, 1_750_334_171)
    assert found.status == "ConfigurationAndSWHardeningNeeded"
    assert Quote.decode(raw).data.startswith(b"Hello, world!")
    for changed in (raw[:112] + bytes(32) + raw[144:], raw[:400] + b"?" + raw[401:]):
        with pytest.raises(QuoteRefused) as caught:
            dcap_chain()(changed, proof, 1_750_334_171)
        assert caught.value.reason == "chain"
    with pytest.raises(QuoteRefused) as caught:
        dcap_chain()(raw, proof, NOW)
    assert caught.value.reason == "time"
