"""COSE_Sign1 with Ed25519 only: official messages, and the classic ways to talk past a verifier."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from simulators.log import flip

from attestation.formats.cbor import CborValue, Tagged
from evidence.cbor import encode
from evidence.cose import HEADER_KID, parse_sign1, sign1, verify_sign1
from wire.errors import MalformedError

if TYPE_CHECKING:
    from pathlib import Path

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
PAYLOAD = b'{"v":1}'
MESSAGE = sign1(KEY, {HEADER_KID: b"key"}, PAYLOAD)


def craft(
    protected: CborValue,
    unprotected: CborValue,
    payload: CborValue = PAYLOAD,
    key: Ed25519PrivateKey = KEY,
) -> bytes:
    """A message correctly signed over whatever headers it has."""
    raw = encode(protected) if not isinstance(protected, bytes) else protected
    body = payload if isinstance(payload, bytes) else b""
    covered = b"" if raw == b"\xa0" else raw
    signature = key.sign(encode(["Signature1", covered, b"", body]))
    return encode(Tagged(18, [raw, unprotected, payload, signature]))


def test_a_signed_message_verifies_and_gives_its_payload() -> None:
    assert verify_sign1(parse_sign1(MESSAGE), PUBLIC) == PAYLOAD


def test_algorithm_minus_8_is_accepted_on_import() -> None:
    assert verify_sign1(parse_sign1(craft({1: -8}, {})), PUBLIC) == PAYLOAD


@given(st.integers(0, 8 * len(MESSAGE) - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    with pytest.raises(MalformedError):
        verify_sign1(parse_sign1(flip(MESSAGE, bit)), PUBLIC)


@pytest.mark.parametrize("alg", [-7, -257, 5, 0, -999, "none", b"\xed"])
def test_another_algorithm_is_refused(alg: CborValue) -> None:
    with pytest.raises(MalformedError) as caught:
        verify_sign1(parse_sign1(craft({1: alg}, {})), PUBLIC)
    assert caught.value.code == "cose_algorithm"


def test_an_algorithm_outside_the_signature_is_refused() -> None:
    for message in (craft({}, {1: -19}), craft(b"", {1: -19}), craft({4: b"k"}, {1: -8})):
        with pytest.raises(MalformedError) as caught:
            verify_sign1(parse_sign1(message), PUBLIC)
        assert caught.value.code == "cose_algorithm"


def test_a_missing_algorithm_is_refused() -> None:
    with pytest.raises(MalformedError):
        verify_sign1(parse_sign1(craft({4: b"k"}, {})), PUBLIC)


def test_a_header_in_both_places_is_refused() -> None:
    with pytest.raises(MalformedError, match="one place"):
        parse_sign1(craft({1: -19, 4: b"a"}, {4: b"b"}))


@pytest.mark.parametrize("where", [({1: -19, 2: [99]}, {}), ({1: -19}, {2: [99]})])
def test_a_critical_header_we_do_not_know_is_refused(where: tuple[CborValue, CborValue]) -> None:
    with pytest.raises(MalformedError, match="critical"):
        verify_sign1(parse_sign1(craft(*where)), PUBLIC)


def test_another_key_is_refused() -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(MalformedError) as caught:
        verify_sign1(parse_sign1(MESSAGE), other)
    assert caught.value.code == "cose_signature"


def test_other_associated_data_is_refused() -> None:
    with pytest.raises(MalformedError):
        verify_sign1(parse_sign1(MESSAGE), PUBLIC, b"context")


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        [b"", {}, b"", b""],
        Tagged(18, [b"", {}, b""]),
        Tagged(18, [b"", [], b"", b""]),
        Tagged(18, [b"", {}, "text payload", b""]),
        Tagged(18, [b"\x01", {}, b"", b""]),
        Tagged(18, [b"", {}, b"", "s"]),
    ],
)
def test_another_structure_is_refused(value: CborValue) -> None:
    with pytest.raises(MalformedError):
        parse_sign1(encode(value))


# ---------------------------------------------------------------- official vectors


def _examples(vectors: Path, folder: str) -> list[tuple[str, dict[str, object]]]:
    found = sorted((vectors / "cose/cose-wg-examples" / folder).glob("*.json"))
    assert found
    return [(path.stem, json.loads(path.read_text())) for path in found]


def test_official_ed25519_example_verifies(vectors: Path) -> None:
    case = dict(_examples(vectors, "eddsa-examples"))["eddsa-sig-01"]
    public = bytes.fromhex(case["input"]["sign0"]["key"]["x_hex"])
    message = parse_sign1(bytes.fromhex(case["output"]["cbor"]))
    assert verify_sign1(message, public) == b"This is the content."


def test_official_examples_of_other_algorithms_are_refused(vectors: Path) -> None:
    for name, case in [
        *_examples(vectors, "sign1-tests"),
        *_examples(vectors, "ecdsa-examples"),
        *_examples(vectors, "eddsa-examples"),
    ]:
        if name == "eddsa-sig-01":
            continue
        with pytest.raises(MalformedError):  # ES256/384/512, Ed448, and the published failures
            verify_sign1(parse_sign1(bytes.fromhex(case["output"]["cbor"])), PUBLIC)


def test_we_sign_over_the_published_structures(vectors: Path) -> None:
    checked = 0
    for name, case in [
        *_examples(vectors, "sign1-tests"),
        *_examples(vectors, "ecdsa-examples"),
        *_examples(vectors, "eddsa-examples"),
    ]:
        if case.get("fail") or name == "sign-fail-01":
            continue
        message = parse_sign1(bytes.fromhex(case["output"]["cbor"]))
        external = bytes.fromhex(case["input"]["sign0"].get("external", ""))
        expected = bytes.fromhex(case["intermediates"]["ToBeSign_hex"])
        assert message.to_be_signed(external) == expected
        checked += 1
    assert checked == 7
