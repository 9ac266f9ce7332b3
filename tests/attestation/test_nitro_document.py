"""The Nitro document's bytes: read whole and typed, or refused. One fact changed in each test."""

from __future__ import annotations

import hashlib
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulators.nitro import NitroEnclave, NitroVendor, streamed

from attestation.formats.nitro import DOCUMENT_MAX, NitroDocument, parse_document
from wire.errors import MalformedError

NOW = 1_790_000_000


@pytest.fixture(scope="module")
def aws() -> NitroVendor:
    return NitroVendor(NOW)


@pytest.fixture
def enclave(aws: NitroVendor) -> NitroEnclave:
    return NitroEnclave(aws)


def refused(document: bytes, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        parse_document(document)


def test_every_member_is_read_as_the_enclave_stated_it(enclave: NitroEnclave) -> None:
    enclave.nonce, enclave.user_data, enclave.public_key = b"n", b"", b"key"
    found = parse_document(enclave.document())
    assert isinstance(found, NitroDocument)
    assert found.claims() == {
        "module_id": enclave.module_id,
        "digest": "SHA384",
        "timestamp_ms": NOW * 1000,
        "pcrs": {str(number): enclave.pcrs[number].hex() for number in range(16)},
        "public_key": b"key".hex(),
        "user_data": "",
        "nonce": b"n".hex(),
        "debug": False,
        "cose_alg": -35,
        "cose_tag_present": False,
    }
    assert found.certificate == enclave.vendor.chain["enclave"]
    assert found.cabundle == tuple(enclave.vendor.bundle)


def test_the_cose_tag_may_stand_before_a_document(enclave: NitroEnclave) -> None:
    enclave.tagged = True
    assert parse_document(enclave.document()).claims()["cose_tag_present"] is True


def test_a_streamed_payload_is_read_like_a_counted_one(enclave: NitroEnclave) -> None:
    counted = parse_document(enclave.document()).claims()
    enclave.encode = streamed
    assert parse_document(enclave.document()).claims() == counted


@pytest.mark.parametrize("name", ["nonce", "user_data", "public_key"])
def test_an_optional_member_may_be_absent_or_null(enclave: NitroEnclave, name: str) -> None:
    enclave.members[name] = ...
    assert parse_document(enclave.document()).claims()[name] is None


@pytest.mark.parametrize(
    "name", ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"]
)
def test_a_required_member_may_not_be_missing(enclave: NitroEnclave, name: str) -> None:
    enclave.members[name] = ...
    refused(enclave.document(), f'"{name}" is missing')


def test_an_unknown_member_is_refused(enclave: NitroEnclave) -> None:
    enclave.members["nitrotpm_pcrs"] = {}
    refused(enclave.document(), "unknown member")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("module_id", "", "1 to 256"),
        ("module_id", "m" * 257, "1 to 256"),
        ("module_id", b"m", "1 to 256"),
        ("module_id", None, "1 to 256"),
        ("digest", "SHA1", "one of SHA256"),
        ("digest", None, "1 to 256"),
        ("timestamp", 0, "1 to"),
        ("timestamp", -1, "1 to"),
        ("timestamp", 2**53, "1 to"),
        ("timestamp", True, "an integer"),
        ("timestamp", "1", "an integer"),
        ("timestamp", 1.0, "float"),
        ("timestamp", 2**64, "tag 2"),
        ("pcrs", {}, "a map of 1 to 32"),
        ("pcrs", [bytes(48)], "a map of 1 to 32"),
        ("pcrs", None, "a map of 1 to 32"),
        ("pcrs", {32: bytes(48)}, "numbers from 0 to 31"),
        ("pcrs", {-1: bytes(48)}, "numbers from 0 to 31"),
        ("pcrs", {"0": bytes(48)}, "numbers from 0 to 31"),
        ("pcrs", {0.0: bytes(48)}, "float"),
        ("pcrs", {0: bytes(47)}, "47 bytes"),
        ("pcrs", {0: bytes(32)}, "32 bytes"),
        ("pcrs", {0: bytes(64)}, "64 bytes"),
        ("pcrs", {0: None}, "another type"),
        ("pcrs", {0: "0" * 48}, "another type"),
        ("pcrs", {0: [bytes(48)]}, "nesting"),
        ("certificate", b"", "0 bytes"),
        ("certificate", bytes(1025), "1025 bytes"),
        ("certificate", None, "another type"),
        ("cabundle", [], "an array of 1 to 8"),
        ("cabundle", [b"c"] * 9, "an array of 1 to 8"),
        ("cabundle", [b""], "0 bytes"),
        ("cabundle", [bytes(1025)], "1025 bytes"),
        ("cabundle", b"c", "an array of 1 to 8"),
        ("public_key", b"", "0 bytes"),
        ("public_key", bytes(1025), "1025 bytes"),
        ("user_data", bytes(1025), "1025 bytes"),
        ("nonce", bytes(1025), "1025 bytes"),
        ("nonce", "n", "another type"),
        ("nonce", {}, "another type"),
    ],
)
def test_a_member_of_another_type_or_size_is_refused(
    enclave: NitroEnclave, name: str, value: Any, why: str
) -> None:
    enclave.members[name] = value
    refused(enclave.document(), why)


@pytest.mark.parametrize("name", ["nonce", "user_data", "public_key"])
def test_what_the_secure_module_signs_for_a_caller_may_have_1024_bytes(
    enclave: NitroEnclave, name: str
) -> None:
    setattr(enclave, name, bytes(1024))
    assert parse_document(enclave.document()).claims()[name] == bytes(1024).hex()


def test_registers_have_the_size_of_the_documents_digest(enclave: NitroEnclave) -> None:
    enclave.digest = "SHA512"
    enclave.members["pcrs"] = {0: bytes(64)}
    assert parse_document(enclave.document()).pcrs == {0: bytes(64)}
    enclave.members["pcrs"] = {0: bytes(48)}
    refused(enclave.document(), "48 bytes")


def test_a_member_twice_is_refused(enclave: NitroEnclave) -> None:
    def twice(payload: bytes) -> bytes:
        return bytes([payload[0] + 1]) + payload[1:] + cbor2.dumps("nonce") + cbor2.dumps(b"other")

    enclave.payload_edit = twice
    refused(enclave.document(), "twice")


def test_a_register_twice_is_refused(enclave: NitroEnclave) -> None:
    pcr = b"\x00\x58\x30" + enclave.pcrs[0]
    enclave.payload_edit = lambda payload: payload.replace(b"\xb0" + pcr, b"\xb1" + pcr + pcr)
    refused(enclave.document(), "twice")


@pytest.mark.parametrize("where", ["cabundle", "certificate"])
def test_an_indefinite_length_inside_the_payload_is_refused(
    enclave: NitroEnclave, where: str
) -> None:
    spelled = {
        "cabundle": (b"\x68cabundle\x84", b"\x68cabundle\x9f"),
        "certificate": (b"\x6bcertificate\x59", b"\x6bcertificate\x5f"),
    }
    enclave.payload_edit = lambda payload: payload.replace(*spelled[where])
    refused(enclave.document(), "indefinite")


def test_a_streamed_map_of_registers_without_its_end_is_refused(enclave: NitroEnclave) -> None:
    enclave.payload_edit = lambda payload: payload.replace(b"\xb0\x00\x58", b"\xbf\x00\x58")
    with pytest.raises(MalformedError):
        parse_document(enclave.document())


def test_a_streamed_payload_without_its_end_is_refused(enclave: NitroEnclave) -> None:
    enclave.encode = streamed
    enclave.payload_edit = lambda payload: payload[:-1]
    refused(enclave.document(), "length of 1")


def test_bytes_after_the_payload_are_refused(enclave: NitroEnclave) -> None:
    enclave.payload_edit = lambda payload: payload + b"\x00"
    refused(enclave.document(), "after the item")


def test_bytes_after_the_document_are_refused(enclave: NitroEnclave) -> None:
    refused(enclave.document() + b"\x00", "after the item")


def test_a_payload_that_is_no_map_is_refused(enclave: NitroEnclave) -> None:
    enclave.payload_edit = lambda _: cbor2.dumps([1])
    refused(enclave.document(), "expected a map")


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({2: 1}, "no critical"),
        ({4: b"kid"}, "the algorithm alone"),
        ({"x": 0}, "the algorithm alone"),
        ({1: "ES384"}, "algorithm number"),
        ({1: True}, "algorithm number"),
        ({1: None}, "algorithm number"),
    ],
)
def test_another_signed_header_is_refused(
    enclave: NitroEnclave, headers: dict[Any, Any], why: str
) -> None:
    enclave.headers |= headers
    refused(enclave.document(), why)


@pytest.mark.parametrize(
    ("headers", "why"),
    [({1: -35}, "unsigned algorithm"), ({2: []}, "no critical"), ({4: b"kid"}, "algorithm alone")],
)
def test_an_unsigned_header_is_refused(
    enclave: NitroEnclave, headers: dict[Any, Any], why: str
) -> None:
    enclave.unprotected = headers
    refused(enclave.document(), why)


def test_an_algorithm_outside_the_signed_header_only_is_refused(enclave: NitroEnclave) -> None:
    enclave.unprotected = {1: -35}
    payload = cbor2.dumps(enclave.payload())
    refused(enclave.envelope(cbor2.dumps({}), payload, bytes(96)), "unsigned algorithm")


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "length of 1"),
        (b"\x80", "array of four"),
        (cbor2.dumps([b"", {}, b""]), "array of four"),
        (cbor2.dumps([b"", {}, b"", b"", b""]), "array of four"),
        (cbor2.dumps({0: 0}), "array of four"),
        (cbor2.dumps([{1: -35}, {}, b"", b""]), "expected bytes"),
        (cbor2.dumps([b"\xa1\x01\x38\x22", {}, None, b""]), "expected bytes"),
        (cbor2.dumps([b"\xa1\x01\x38\x22", {}, b"", None]), "expected bytes"),
        (cbor2.dumps([b"\x80", {}, b"", b""]), "a map as protected"),
        (cbor2.dumps([b"", {}, b"", b""]), "length of 1"),
        (cbor2.dumps(cbor2.CBORTag(17, [b"", {}, b"", b""])), "tag 17"),
        (cbor2.dumps(cbor2.CBORTag(18, cbor2.CBORTag(18, [b"", {}, b"", b""]))), "array of four"),
        (b"\x9f\xff", "indefinite"),
        (bytes(DOCUMENT_MAX + 1), "at most"),
        (b"\x84\x9f\xff\x00\x00\x00", "indefinite"),
        (b"\x84\x5b\xff\xff\xff\xff\xff\xff\xff\xff", "length of"),
    ],
)
def test_what_is_no_cose_sign1_is_refused(document: bytes, why: str) -> None:
    refused(document, why)


def test_a_document_cut_anywhere_is_refused(enclave: NitroEnclave) -> None:
    document = enclave.document()
    for end in range(len(document)):
        with pytest.raises(MalformedError):
            parse_document(document[:end])


def test_a_payload_cut_anywhere_is_refused(enclave: NitroEnclave) -> None:
    payload = cbor2.dumps(enclave.payload())
    header = cbor2.dumps({1: -35})
    for end in range(len(payload)):
        with pytest.raises(MalformedError):
            parse_document(enclave.envelope(header, payload[:end], bytes(96)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.data())
def test_only_our_error_leaves_the_parser_on_changed_bytes(
    enclave: NitroEnclave, data: st.DataObject
) -> None:
    document = bytearray(enclave.document())
    for _ in range(data.draw(st.integers(1, 4))):
        document[data.draw(st.integers(0, len(document) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse_document(bytes(document))
    except MalformedError as refusal:
        # A sentence names found and expected, never content.
        assert hashlib.sha384(b"image").hexdigest() not in refusal.message  # noqa: PT017
        return
    assert found.claims()["digest"] in ("SHA256", "SHA384", "SHA512")
