"""`tpm2-quote`: the forms its pieces come in, pieces that contradict each other, hostile bytes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.vtpm import NONCE, Vtpm, VtpmMaker, ec_key

from attestation.formats.pem import CERTIFICATE_MAX
from attestation.formats.tpm_attestation import parse_attestation
from attestation.formats.tpm_quote import parse_tpm_quotes
from attestation.formats.tpm_registers import parse_registers
from attestation.formats.tpm_structures import (
    ALG_ECDSA,
    parse_any_signature,
    parse_public_area,
)
from attestation.schemes.tpm_quote import SCHEME
from wire.errors import MalformedError

MAKER = VtpmMaker()
TPM = Vtpm(MAKER)
EVIDENCE = TPM.evidence()


def _varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _message(**changes: Any) -> bytes:
    """A go-tpm-tools message of the same evidence; fields are named, extra ones appended."""
    registers = _field(1, changes.get("bank", 0x0B)) + b"".join(
        _field(2, (_field(1, number) if number else b"") + _field(2, value))
        for number, value in TPM.registers["sha256"].items()
    )
    quote = _field(1, EVIDENCE["quote_msg"]) + _field(2, EVIDENCE["quote_sig"])
    quote += _field(3, changes.get("registers", registers)) + changes.get("in_quote", b"")
    return (
        _field(1, EVIDENCE["ak_public"])
        + _field(2, quote) * changes.get("quotes", 1)
        + _field(6, EVIDENCE["ak_cert"])
        + changes.get("more", b"")
    )


def _codes(evidence: dict[str, bytes]) -> list[str]:
    return [reason.code for reason in SCHEME.examine(MAKER.question(evidence)).reasons]


def _json(**changes: Any) -> bytes:
    quote = {
        "message": base64.b64encode(EVIDENCE["quote_msg"]).decode(),
        "signature": base64.b64encode(EVIDENCE["quote_sig"]).decode(),
        "pcrs": [value.hex() for value in TPM.registers["sha256"].values()],
    }
    top = {"ak_public": base64.b64encode(TPM.spki).decode(), "tpm_quote": {**quote, **changes}}
    return json.dumps(top).encode()


def test_one_message_holds_all_that_a_verifier_needs() -> None:
    assert _codes({"attestation_pb": _message()}) == []


def test_intermediates_in_the_message_are_used_and_are_no_anchors() -> None:
    raw = _message(more=_field(7, MAKER.issuer))
    question = MAKER.question({"attestation_pb": raw}, collateral={"root": MAKER.root})
    assert SCHEME.examine(question).authentic is True
    raw = _message(more=_field(7, MAKER.issuer) + _field(7, MAKER.root))
    question = MAKER.question({"attestation_pb": raw}, collateral={})
    assert [reason.code for reason in SCHEME.examine(question).reasons] == ["collateral_missing"]


def test_links_beside_a_message_must_be_the_messages_own() -> None:
    roles = {"attestation_pb": _message(more=_field(7, MAKER.issuer)), "ak_chain": MAKER.issuer}
    assert _codes(roles) == []
    assert _codes({**roles, "ak_chain": MAKER.root}) == ["evidence_malformed"]
    assert _codes({"attestation_pb": _message(), "ak_chain": MAKER.issuer}) == []


def test_a_message_and_its_parts_beside_it_must_agree() -> None:
    beside = {"attestation_pb": _message(), "ak_public": EVIDENCE["ak_public"]}
    assert _codes(beside) == []
    other = Vtpm(MAKER, ec_key("other")).evidence()
    for role in ("ak_public", "ak_cert"):
        assert _codes({"attestation_pb": _message(), role: other[role]}) == ["evidence_malformed"]
    message, signature = TPM.quote(b"another nonce")
    for role, data in (("quote_sha256", message), ("sig_sha256", signature)):
        assert _codes({"attestation_pb": _message(), role: data}) == ["evidence_malformed"]


def test_a_message_and_registers_beside_it_must_agree() -> None:
    TPM.registers["sha256"][4], kept = b"\1" * 32, TPM.registers["sha256"][4]
    pcrs = TPM.pcrs()
    TPM.registers["sha256"][4] = kept
    assert _codes({"attestation_pb": _message(), "pcrs": pcrs}) == ["evidence_malformed"]


@pytest.mark.parametrize(
    "change",
    [
        {"more": _field(1, EVIDENCE["ak_public"])},
        {"more": _field(17, b"x")},
        {"more": _field(3, 7)},
        {"more": b"\x1d\0\0\0\0"},
        {"more": b"\x1a\xff\xff\xff\xff\x0f"},
        {"more": b"\x1a\xff\xff\xff\xff\xff\xff\x0f"},
        {"more": _field(7, b"x") * 5},
        {"more": _field(4, b"x") * 300},
        {"quotes": 5},
        {"in_quote": _field(4, b"x")},
        {"in_quote": _field(1, b"x")},
        {"registers": _field(1, 0x0B) + _field(2, _field(1, 1) + _field(2, b"")) * 2},
        {"registers": _field(1, 0x0B) + _field(2, _field(1, 24) + _field(2, bytes(32)))},
        {"registers": _field(1, 0x0B) + _field(2, _field(3, 1))},
        {"registers": _field(1, 0x0B) + _field(3, b"")},
        {"registers": _field(2, _field(1, 1) + _field(2, bytes(32)))},
        {"bank": 0x7777},
    ],
)
def test_a_message_of_another_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse_attestation(_message(**change))


@pytest.mark.parametrize("field", [6, 7], ids=["attestation key's", "above it"])
def test_a_certificate_in_the_message_is_no_longer_than_elsewhere(field: int) -> None:
    raw = _field(1, EVIDENCE["ak_public"])
    found = parse_attestation(raw + _field(field, bytes(CERTIFICATE_MAX)))
    assert bytes(CERTIFICATE_MAX) in (found.ak_cert, *found.intermediates)
    with pytest.raises(MalformedError, match="expected ≤ 16384"):
        parse_attestation(raw + _field(field, bytes(CERTIFICATE_MAX + 1)))


def test_members_of_the_message_that_have_no_use_are_stepped_over() -> None:
    assert _codes({"attestation_pb": _message(more=_field(4, b"instance") + _field(9, b""))}) == []


def test_a_message_longer_than_any_is_refused() -> None:
    with pytest.raises(MalformedError):
        parse_attestation(bytes(1024 * 1024 + 1))


def test_the_json_form_gives_the_same_quote() -> None:
    question = MAKER.question({"evidence": _json()}, collateral={"ak_spki": TPM.spki})
    assert SCHEME.examine(question).authentic is True


def test_a_key_the_json_states_must_be_the_trusted_one() -> None:
    other = Vtpm(MAKER, ec_key("other"))
    question = MAKER.question({"evidence": _json()}, collateral={"ak_spki": other.spki})
    codes = [reason.code for reason in SCHEME.examine(question).reasons]
    assert codes == ["unknown_signing_key", "signature_invalid"]


def test_a_key_that_only_the_json_states_is_not_trusted() -> None:
    question = MAKER.question({"evidence": _json()}, collateral={})
    assert [reason.code for reason in SCHEME.examine(question).reasons] == ["collateral_missing"]


@pytest.mark.parametrize(
    "change",
    [
        {"message": ""},
        {"message": 7},
        {"message": base64.b64encode(EVIDENCE["quote_msg"]).decode() + "\n"},
        {"signature": "===="},
        {"pcrs": []},
        {"pcrs": ["00" * 32] * 25},
        {"pcrs": {"0": "00" * 32}},
        {"pcrs": ["00" * 31] * 24},
        {"pcrs": ["zz" * 32] * 24},
        {"unknown": 1},
    ],
)
def test_json_of_another_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse_tpm_quotes({"evidence": _json(**change)})


def test_registers_of_one_bank_may_be_listed_in_full() -> None:
    values = [value.hex() for value in TPM.registers["sha256"].values()]
    listed = json.dumps({"alg": "sha256", "pcrs": values}).encode()
    assert parse_registers(listed) == parse_registers(TPM.pcrs())


@pytest.mark.parametrize(
    "obj",
    [
        {},
        [],
        {"md5": {"0": "00" * 16}},
        {"sha256": {}},
        {"sha256": {"24": "00" * 32}},
        {"sha256": {"00": "00" * 32}},
        {"sha256": {"0": "00" * 31}},
        {"sha256": {"0": "0" * 63 + "g"}},
        {"sha256": {"0": 0}},
        {"alg": "md5", "pcrs": ["00" * 16] * 24},
        {"alg": "sha256", "pcrs": ["00" * 32] * 25},
        {"alg": "sha256"},
    ],
)
def test_registers_of_another_form_are_refused(obj: object) -> None:
    with pytest.raises(MalformedError):
        parse_registers(json.dumps(obj).encode())


def test_one_register_twice_is_refused() -> None:
    raw = b'{"sha256": {"0": "' + b"00" * 32 + b'", "0": "' + b"11" * 32 + b'"}}'
    with pytest.raises(MalformedError):
        parse_registers(raw)


def test_a_quote_of_another_bank_than_its_role_says_is_refused() -> None:
    message, signature = TPM.quote(NONCE)
    roles = {"quote_sha384": message, "sig_sha384": signature, "pcrs": TPM.pcrs()}
    with pytest.raises(MalformedError):
        parse_tpm_quotes(roles)


def test_one_bank_in_two_quotes_is_refused() -> None:
    message, signature = TPM.quote(NONCE)
    with pytest.raises(MalformedError):
        parse_tpm_quotes({**EVIDENCE, "quote_sha256": message, "sig_sha256": signature})


def test_registers_of_a_bank_that_no_quote_covers_never_count() -> None:
    tpm = Vtpm(MAKER, banks=("sha256", "sha384"))
    evidence = tpm.evidence()
    found = parse_tpm_quotes({**evidence, "pcrs": tpm.pcrs(("sha256", "sha384"))})
    assert found == parse_tpm_quotes(evidence)
    assert found.registers("sha384") == {}


@pytest.mark.parametrize("role", ["quote_msg", "quote_sig"])
def test_half_a_quote_is_refused(role: str) -> None:
    with pytest.raises(MalformedError):
        parse_tpm_quotes({name: data for name, data in EVIDENCE.items() if name != role})


def test_no_quote_is_refused() -> None:
    with pytest.raises(MalformedError):
        parse_tpm_quotes({})


def test_a_plain_signature_is_known_by_its_length_or_its_first_byte() -> None:
    assert parse_any_signature(bytes(256)).rsa == bytes(256)
    pair = bytes.fromhex("3006020101020102")
    assert (parse_any_signature(pair).scheme, parse_any_signature(pair).s) == (ALG_ECDSA, 2)
    for raw in (b"", bytes(255), b"\x30", pair + b"\0", b"\x30" * 200):
        with pytest.raises(MalformedError):
            parse_any_signature(raw)


def test_a_public_area_with_and_without_length_is_the_same_key() -> None:
    raw = EVIDENCE["ak_public"]
    assert parse_public_area(raw).name == parse_public_area(raw[2:]).name
    for wrong in (b"", raw[:-1], raw + b"\0", raw[2:-1], bytes(5000)):
        with pytest.raises(MalformedError):
            parse_public_area(wrong)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(EVIDENCE)), st.data())
def test_mutated_evidence_gives_a_verdict_or_our_error(role: str, data: st.DataObject) -> None:
    raw = bytearray(EVIDENCE[role])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    examined = SCHEME.examine(MAKER.question({**EVIDENCE, role: bytes(raw)}))
    assert examined.authentic is (not examined.reasons)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2000))
def test_hostile_messages_are_only_ever_refused(data: bytes, at: int) -> None:
    raw = _message()
    for hostile in (data, raw[:at] + data + raw[at:], raw[: at % len(raw)]):
        SCHEME.examine(MAKER.question({"attestation_pb": hostile}))
