"""docs/enclave.md does what it says: its blocks are run in order, as a reader would paste them."""

import re

import pytest
from pages import ROOT, Reader

from quire.charter.drafts import read_attestation
from quire.conf.strict_yaml import read_yaml
from quire.enclave.manifest import SGX
from quire.enclave.policy import read_allowed
from quire.enclave.settings import read_settings

PAGE = "enclave.md"


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path):
    reader = Reader(tmp_path)
    printed = reader.follow(PAGE)
    text = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")
    for words in (
        f"hospital-1.manifest is a sound {SGX} manifest.",
        "sgx.debug must be false, and is true.",
        "weak.manifest is no sound sgx-prod manifest: 1 problems.",
        "exit status 1",
        "NO CONFIDENTIALITY, NO ATTESTATION: direct-dev is for finding out whether things work.",
    ):
        assert words in printed
        assert words in text
    assert (reader.here / "hospital-1.manifest").is_file()


def test_the_page_names_every_reason_and_its_allow_list_is_read(tmp_path):
    text = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")
    sources = "".join(
        (ROOT / "enclave" / f"{name}.py").read_text(encoding="utf-8")
        for name in ("quotes", "policy", "chain", "verify")
    )
    reasons = set(re.findall(r'QuoteRefused\(\s*"([a-z-]+)"', sources))
    assert len(reasons) == 10
    table = text.split("| refused for | when |")[1].split("\n\n")[0]
    assert all(f"`{reason}`" in table for reason in reasons)
    (block,) = re.findall(r"^```yaml file=allow.yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "allow.yaml").write_text(block)
    assert read_allowed(tmp_path / "allow.yaml").statuses == {"UpToDate", "SWHardeningNeeded"}


def test_the_pages_worker_and_its_demand_are_read(tmp_path):
    text = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")
    for name, block in re.findall(r"^```yaml file=(\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(block)
    assert read_settings(tmp_path / "worker.yaml").command[:3] == ("-m", "quire.enclave.inside", "--work")
    entry = read_yaml(tmp_path / "attestation.yaml").mapping(["attestation"])["attestation"]
    found = read_attestation(entry)
    assert (found.of, found.signers) == ({"silos"}, {("22" * 32, 1, 3)})
