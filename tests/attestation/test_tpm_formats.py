"""TPM structures: exact lengths, known algorithms, and nothing but our errors on any bytes."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.tpm import (
    AK_ATTRIBUTES,
    EK_ATTRIBUTES,
    TpmTee,
    public_area,
    quote_bytes,
    rsa_key,
    sign_quote,
)

from attestation.evidence import Evidence
from attestation.formats.tpm import parse_body
from attestation.formats.tpm_structures import (
    FIXED_TPM,
    RESTRICTED,
    SIGN,
    parse_public,
    parse_quote,
    parse_signature,
)
from attestation.policy import parse_policy
from attestation.verify.credential import challenge_for, make_credential
from attestation.verify.tpm import check_extra_data
from attestation.verify.x509 import load_certificate, verify_chain
from wire.errors import AttestationError, MalformedError, PolicyError
from wire.ids import b64u

TEE = TpmTee()
QUOTE = quote_bytes(bytes(32), TEE.registers)
ECDSA = sign_quote(TEE.ak_key, QUOTE)
RSA = sign_quote(rsa_key("ak"), QUOTE)
AK = public_area(TEE.ak_key, AK_ATTRIBUTES)
EK = public_area(TEE.ek_key, EK_ATTRIBUTES)
BODY = TEE.evidence(TEE.binding()).body
CERT = TEE.maker.endorse(TEE.ek_key)

PARSERS = [
    pytest.param(parse_quote, QUOTE, id="quote"),
    pytest.param(parse_signature, ECDSA, id="ecdsa"),
    pytest.param(parse_signature, RSA, id="rsa"),
    pytest.param(parse_public, AK, id="ecc-public"),
    pytest.param(parse_public, EK, id="rsa-public"),
]


def test_the_structures_say_what_was_put_in() -> None:
    quote = parse_quote(QUOTE)
    assert quote.selections[0].bank == "sha256"
    assert quote.selections[0].registers == (*range(8), 11)
    assert (quote.extra_data, quote.firmware, quote.safe) == (bytes(32), 0x2019102300163636, True)
    public = parse_public(AK)
    assert public.has(RESTRICTED | SIGN | FIXED_TPM)
    assert public.key.public_numbers() == TEE.ak_key.public_key().public_numbers()
    assert parse_public(EK).symmetric == (6, 128, 0x43)
    assert len(parse_signature(RSA).rsa) == 256


@pytest.mark.parametrize(("parse", "raw"), PARSERS)
def test_every_truncation_is_refused(parse: Any, raw: bytes) -> None:
    for length in range(len(raw)):
        with pytest.raises(MalformedError):
            parse(raw[:length])


@pytest.mark.parametrize(("parse", "raw"), PARSERS)
def test_a_byte_after_the_end_is_refused(parse: Any, raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(raw + b"\0")


@pytest.mark.parametrize(("parse", "raw"), PARSERS)
def test_any_changed_byte_is_parsed_or_refused(parse: Any, raw: bytes) -> None:
    for at in range(len(raw)):
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            with contextlib.suppress(MalformedError):
                parse(raw[:at] + bytes([value]) + raw[at + 1 :])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_our_errors(raw: bytes) -> None:
    for parse in (parse_quote, parse_signature, parse_public, parse_body):
        with pytest.raises(MalformedError):
            parse(raw)


@given(st.integers(0, len(QUOTE) - 1), st.binary(min_size=1, max_size=8))
def test_overwritten_quotes_raise_only_our_error(at: int, junk: bytes) -> None:
    with contextlib.suppress(MalformedError):
        parse_quote(QUOTE[:at] + junk + QUOTE[at + len(junk) :])


@given(st.integers(0, len(CERT) - 1), st.binary(min_size=1, max_size=4))
def test_overwritten_certificates_raise_only_our_error(at: int, junk: bytes) -> None:
    with contextlib.suppress(AttestationError):
        verify_chain(
            CERT[:at] + junk + CERT[at + len(junk) :], TEE.chain, [TEE.maker.root], TEE.now
        )


@pytest.mark.parametrize(
    ("found", "put"),
    [
        ("a003020102", "a003020130"),  # a version no certificate has
        ("06082a8648ce3d040302", "06082a8648ce3d040307"),  # a signature algorithm nobody knows
        ("06082a8648ce3d030107", "06082a8648ce3d030155"),  # a curve nobody knows
        ("0603551d13", "0603551d0f"),  # an extension twice
    ],
    ids=["version", "algorithm", "curve", "duplicate-extension"],
)
def test_certificates_that_fail_late_in_the_library_are_refused(found: str, put: str) -> None:
    issuer = TEE.maker.issuer
    assert bytes.fromhex(found) in issuer
    changed = issuer.replace(bytes.fromhex(found), bytes.fromhex(put))
    with pytest.raises(AttestationError) as caught:
        verify_chain(CERT, [changed], [TEE.maker.root], TEE.now)
    assert caught.value.reasons == ("chain_invalid",)
    pem = pem_of(changed)
    with pytest.raises(PolicyError, match="PEM texts of one certificate"):
        parse_policy(json.dumps({**TEE.demands, "accept": [{**TEE.rule, "roots": [pem]}]}).encode())


def pem_of(der: bytes) -> str:
    text = base64.encodebytes(der).decode("ascii")
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


@given(st.binary(max_size=100))
def test_arbitrary_certificates_raise_only_our_error(der: bytes) -> None:
    with pytest.raises(AttestationError):
        load_certificate(der)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(sorted(json.loads(BODY))), _JSON)
def test_any_json_in_any_member_of_the_body_is_refused(key: str, value: Any) -> None:
    try:
        parse_body(json.dumps({**json.loads(BODY), key: value}).encode())
    except MalformedError:
        return
    # An empty chain is one, and whether bytes are a certificate is seen where it is verified.
    assert key in ("chain", "ek_cert")


@pytest.mark.parametrize(
    "pcrs",
    [
        {},
        {"sha1": {"0": "00" * 20}},
        {"sha256": {}},
        {"sha256": {"24": "00" * 32}},
        {"sha256": {"00": "00" * 32}},
        {"sha256": {"0": "00" * 31}},
        {"sha256": {"0": "AA" * 32}},
        {"sha256": {"0": 0}},
        {"sha256": {"0": "00" * 32}, "sha1": {"0": "00" * 20}},
    ],
)
def test_registers_outside_the_format_are_refused(pcrs: object) -> None:
    with pytest.raises(MalformedError):
        parse_body(json.dumps({**json.loads(BODY), "pcrs": pcrs}).encode())


def test_more_intermediates_than_a_chain_has_are_refused() -> None:
    chain = [b64u(TEE.maker.issuer)] * 5
    with pytest.raises(MalformedError, match="chain"):
        parse_body(json.dumps({**json.loads(BODY), "chain": chain}).encode())


def test_a_point_off_its_curve_is_refused() -> None:
    with pytest.raises(MalformedError, match="not on its curve"):
        parse_public(AK[:-1] + bytes([AK[-1] ^ 1]))


def test_a_bank_selected_twice_is_refused() -> None:
    selection = bytes.fromhex("000b03ff0800")
    single = b"\0\0\0\1" + selection
    assert single in QUOTE
    with pytest.raises(MalformedError, match="bank twice"):
        parse_quote(QUOTE.replace(single, b"\0\0\0\2" + selection * 2))


def test_an_empty_challenge_is_a_callers_bug() -> None:
    with pytest.raises(ValueError, match="proves nothing"):
        check_extra_data(parse_quote(QUOTE), b"", "nonce_mismatch")


def test_a_credential_needs_an_endorsement_key_of_the_usual_kind() -> None:
    with pytest.raises(AttestationError) as caught:
        make_credential(AK, b"name", bytes(32), bytes)
    assert caught.value.reasons == ("ek_attributes",)
    with pytest.raises(ValueError, match="secret of 16 to 32"):
        make_credential(EK, b"name", bytes(15), bytes)


def test_no_challenge_is_made_from_malformed_evidence() -> None:
    with pytest.raises(MalformedError):
        challenge_for(Evidence("tpm2", b"{}"), bytes)
