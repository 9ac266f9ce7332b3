"""Evidence as it travels, and the software attester that makes the simplest kind."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from simulators.tee import NOW, SoftwareTee

from attestation.collect.software import SoftwareAttester, software_root
from attestation.evidence import EVIDENCE_MAX, Evidence, evidence_list
from attestation.formats.software import parse_body
from attestation.result import AppraisedEvidence
from attestation.verify.credential import challenge_for
from wire.errors import ConfigError, MalformedError, UnavailableError
from wire.ids import b64u

if TYPE_CHECKING:
    from pathlib import Path


def test_evidence_travels_as_json_and_back() -> None:
    item = Evidence("software", b"body")
    assert evidence_list([item.to_json(), Evidence("later", b"").to_json()]) == (
        item,
        Evidence("later", b""),
    )


@pytest.mark.parametrize(
    "items",
    [
        None,
        [],
        {},
        [{}],
        [{"kind": "a"}],
        [{"kind": "", "body": ""}],
        [{"kind": "a", "body": "="}],
        [{"kind": "a", "body": 7}],
        [{"kind": "a", "body": "", "more": 1}],
        [{"kind": "a", "body": b64u(bytes(EVIDENCE_MAX + 1))}],
        [{"kind": "a", "body": ""}] * 5,
    ],
)
def test_items_outside_the_format_are_refused(items: object) -> None:
    with pytest.raises(MalformedError):
        evidence_list(items)


@given(st.binary(max_size=300))
def test_arbitrary_software_bodies_raise_only_our_error(body: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_body(body)


def test_the_software_attesters_evidence_is_accepted_under_its_anchor(tmp_path: Path) -> None:
    tee = SoftwareTee()
    attester = SoftwareAttester(software_root(tmp_path / "root.pem"))
    tee.rule["roots"] = [attester.trust_anchor()]
    assert attester.measure(tee.parts) == tee.measurement()
    assert attester.measure(tee.parts) == tee.measurement()
    binding = tee.binding()
    evidence = attester.attest(binding, NOW * 1000)
    verdict = tee.appraise(binding_raw=binding, evidence=[evidence])
    assert isinstance(verdict, AppraisedEvidence)
    assert verdict.trust == attester.trust == "software"
    assert challenge_for(evidence, bytes) is None
    attester.close()


def test_the_software_attester_refuses_what_it_cannot_do() -> None:
    attester = SoftwareAttester(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(RuntimeError, match="measure the worker first"):
        attester.attest(b"", 0)
    attester.measure(SoftwareTee().parts)
    with pytest.raises(RuntimeError, match="already given other parts"):
        attester.measure({"model": SoftwareTee().measurement()})
    with pytest.raises(UnavailableError, match="no TPM"):
        attester.activate({})


def test_the_development_root_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    first, second = software_root(path), software_root(path)
    assert first.private_bytes_raw() == second.private_bytes_raw()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_development_root_that_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    path.write_bytes(b"hello")
    with pytest.raises(ConfigError, match=r"root\.pem: found no key, expected an Ed25519"):
        software_root(path)
