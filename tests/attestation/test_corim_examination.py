"""Whose reference values are these? Each test changes one fact of an honest manifest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.corim import (
    EDDSA,
    ES256,
    ES384,
    ES512,
    CorimPublisher,
    digest,
    element,
    environment,
    tagged,
)
from simulators.tpm import TpmMaker

from attestation.anchors import NONE, Anchors
from attestation.examined import FOREVER, Examined, Expected, Question
from attestation.schemes.corim import SCHEME

NOW = 1_790_000_000
DAY = 24 * 3600


@pytest.fixture
def publisher() -> CorimPublisher:
    return CorimPublisher()


def examine(
    corim: bytes | None,
    key: bytes | None = None,
    *,
    anchors: Anchors = NONE,
    root: bytes | None = None,
    expected: Expected | None = None,
    **evidence: bytes,
) -> Examined:
    roles = {**({} if corim is None else {"corim": corim}), **evidence}
    given = {"public_key": key, "root": root}
    collateral = {role: raw for role, raw in given.items() if raw is not None}
    return SCHEME.examine(Question(roles, anchors, NOW, collateral, expected or Expected()))


def refused(found: Examined, *codes: str) -> None:
    assert found.authentic is False
    assert tuple(reason.code for reason in found.reasons) == codes


@pytest.mark.parametrize("algorithm", [ES256, ES384, ES512, EDDSA])
def test_a_manifest_signed_by_the_given_key_is_authentic(algorithm: int) -> None:
    publisher = CorimPublisher(algorithm)
    signed = publisher.signed()
    found = examine(signed, publisher.public_key)
    assert found.authentic is True
    assert found.bound is False
    assert found.not_after == FOREVER
    assert found.claims["payload_bytes"] == len(publisher.unsigned())
    assert found.claims["outer_tag"] == signed[:3].hex()
    assert found.claims["signer"] == "publisher"
    assert found.claims["cose_alg"] == algorithm


def test_an_unsigned_manifest_has_no_notion_of_authenticity(publisher: CorimPublisher) -> None:
    for found in (
        examine(publisher.unsigned()),
        examine(None, comid=publisher.comid()),
        examine(None, comid=publisher.unsigned()),
        examine(cbor2.dumps(tagged(506, publisher.comid()))),
    ):
        assert found.authentic is None
        assert found.reasons == ()
        assert found.claims["signed"] is False


def test_an_unsigned_manifest_is_refused_where_a_key_was_given(publisher: CorimPublisher) -> None:
    refused(examine(publisher.unsigned(), publisher.public_key), "signature_missing")


def test_a_signed_manifest_without_a_key_to_verify_is_not_authentic(
    publisher: CorimPublisher,
) -> None:
    found = examine(publisher.signed())
    refused(found, "unknown_signing_key")
    assert [check.ok for check in found.checks] == [True, None, None]


def test_another_publishers_key_does_not_verify(publisher: CorimPublisher) -> None:
    refused(examine(publisher.signed(), CorimPublisher().public_key), "signature_invalid")


def test_a_flipped_bit_in_any_signed_byte_is_refused(publisher: CorimPublisher) -> None:
    signed = publisher.signed()
    for at in range(len(signed)):
        flipped = bytearray(signed)
        flipped[at] ^= 1 << at % 8
        assert examine(bytes(flipped), publisher.public_key).authentic is not True


def test_a_key_of_another_curve_is_refused(publisher: CorimPublisher) -> None:
    key = CorimPublisher(ES384).public_key
    refused(examine(publisher.signed(), key), "signature_invalid")


@pytest.mark.parametrize("algorithm", [0, -37, -257, 5, -19])
def test_another_algorithm_is_refused(publisher: CorimPublisher, algorithm: int) -> None:
    publisher.headers[1] = algorithm
    refused(examine(publisher.signed(), publisher.public_key), "signature_invalid")


@pytest.mark.parametrize("size", [0, 63, 65, 96])
def test_a_signature_of_another_length_is_refused(publisher: CorimPublisher, size: int) -> None:
    signed = publisher.signed(edit=lambda raw: (raw + bytes(64))[:size])
    refused(examine(signed, publisher.public_key), "signature_invalid")


def test_a_signature_for_another_use_is_refused(publisher: CorimPublisher) -> None:
    publisher.headers[3] = "application/eat+cwt"
    refused(examine(publisher.signed(), publisher.public_key), "profile_violation")
    publisher.headers[3] = 60
    refused(examine(publisher.signed(), publisher.public_key), "profile_violation")


@pytest.mark.parametrize("content_type", [..., 'application/rim+cbor; profile="x"'])
def test_a_content_type_may_be_absent_or_have_parameters(
    publisher: CorimPublisher, content_type: Any
) -> None:
    publisher.headers[3] = content_type
    assert examine(publisher.signed(), publisher.public_key).authentic is True


def test_an_unsigned_algorithm_is_refused(publisher: CorimPublisher) -> None:
    publisher.unprotected = {1: ES256}
    refused(examine(publisher.signed(), publisher.public_key), "evidence_malformed")


def test_a_critical_header_is_refused(publisher: CorimPublisher) -> None:
    publisher.headers[2] = [8]
    refused(examine(publisher.signed(), publisher.public_key), "evidence_malformed")


def with_kid(key: bytes, kid: str) -> dict[str, Any]:
    return {**json.loads(key), "kid": kid}


def test_the_key_is_chosen_from_a_set_by_its_id(publisher: CorimPublisher) -> None:
    publisher.headers[4] = b"mine"
    own = with_kid(publisher.public_key, "mine")
    other = with_kid(CorimPublisher().public_key, "other")

    def verdict(*keys: dict[str, Any]) -> Examined:
        return examine(publisher.signed(), json.dumps({"keys": keys}).encode())

    assert verdict(other, own).authentic is True
    refused(verdict(other), "unknown_signing_key")
    refused(verdict(own, own), "duplicate_kid")
    refused(verdict(), "key_set_malformed")


def test_a_single_key_of_another_id_is_refused(publisher: CorimPublisher) -> None:
    publisher.headers[4] = b"mine"
    key = json.dumps(with_kid(publisher.public_key, "other")).encode()
    refused(examine(publisher.signed(), key), "unknown_signing_key")


def test_a_key_in_pem_verifies_too(publisher: CorimPublisher) -> None:
    pem = publisher.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert examine(publisher.signed(), pem).authentic is True


def test_a_private_key_is_no_key_to_verify_with(publisher: CorimPublisher) -> None:
    pem = publisher.key.private_bytes(
        Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    refused(examine(publisher.signed(), pem), "key_set_malformed")


class Certified:
    """A publisher whose key a made-up authority certifies; the chain travels in the manifest."""

    def __init__(self, **facts: Any) -> None:
        self.maker = TpmMaker(NOW, "publisher")
        self.publisher = CorimPublisher()
        leaf = self.maker.certificate(
            "leaf", "publisher issuer", self.publisher.key, self.maker.issuer_key,
            **{"ca": False, **facts},
        )  # fmt: skip
        self.publisher.headers[33] = [leaf, self.maker.issuer]

    @property
    def anchors(self) -> Anchors:
        return Anchors(frozenset({hashlib.sha256(self.maker.root).digest()}))


def test_a_certified_key_counts_up_to_a_pinned_root() -> None:
    certified = Certified()
    root = x509.load_der_x509_certificate(certified.maker.root).public_bytes(Encoding.PEM)
    signed = certified.publisher.signed()
    found = examine(signed, anchors=certified.anchors, root=root)
    assert found.authentic is True
    assert found.not_after == NOW + 365 * DAY
    refused(examine(signed, root=root), "untrusted_root")
    refused(examine(signed, anchors=certified.anchors), "untrusted_root")


def test_a_root_that_travels_in_the_manifest_counts_only_if_pinned() -> None:
    certified = Certified()
    certified.publisher.headers[33].append(certified.maker.root)
    signed = certified.publisher.signed()
    assert examine(signed, anchors=certified.anchors).authentic is True
    refused(examine(signed, anchors=Certified().anchors), "untrusted_root")


def test_a_certificate_that_expired_is_refused() -> None:
    certified = Certified(start=-2 * DAY, end=-DAY)
    found = examine(
        certified.publisher.signed(), anchors=certified.anchors, root=certified.maker.root
    )
    refused(found, "certificate_not_valid_at_time")


def test_a_manifest_signed_by_another_key_than_its_certificate_is_refused() -> None:
    certified = Certified()
    certified.publisher.key = ec.generate_private_key(ec.SECP256R1())
    found = examine(
        certified.publisher.signed(), anchors=certified.anchors, root=certified.maker.root
    )
    refused(found, "signature_invalid")


def test_an_unsigned_copy_may_order_its_members_otherwise(publisher: CorimPublisher) -> None:
    module = cbor2.loads(publisher.comid())
    reordered = cbor2.dumps(dict(reversed(module.items())))
    copy = cbor2.dumps(tagged(501, {1: [tagged(506, reordered)], 0: "release 1"}))
    assert copy != publisher.unsigned()
    assert examine(publisher.signed(), publisher.public_key, unsigned=copy).authentic is True


def test_an_unsigned_copy_that_says_something_else_is_refused(publisher: CorimPublisher) -> None:
    signed = publisher.signed()
    publisher.reference(environment(), element("other"))
    found = examine(signed, publisher.public_key, unsigned=publisher.unsigned())
    refused(found, "copy_mismatch")
    refused(examine(signed, publisher.public_key, unsigned=signed), "copy_mismatch")
    refused(examine(signed, publisher.public_key, unsigned=b"\x00"), "evidence_malformed")


@pytest.mark.parametrize(
    ("expected", "code"),
    [
        (Expected(nonce=b"n"), "nonce_mismatch"),
        (Expected(report_data=bytes(64)), "report_data_mismatch"),
        (Expected(user_data=b"u"), "user_data_mismatch"),
    ],
)
def test_a_manifest_is_made_for_nobody_in_particular(
    publisher: CorimPublisher, expected: Expected, code: str
) -> None:
    refused(examine(publisher.signed(), publisher.public_key, expected=expected), code)


def test_exactly_one_manifest_is_examined(publisher: CorimPublisher) -> None:
    refused(examine(None), "evidence_malformed")
    both = examine(publisher.unsigned(), comid=publisher.comid())
    refused(both, "evidence_malformed")


@pytest.mark.parametrize("tags", [(500,), (502,), (500, 502)])
def test_the_wrappers_of_earlier_drafts_are_read(
    publisher: CorimPublisher, tags: tuple[int, ...]
) -> None:
    wrapped = cbor2.loads(publisher.signed())
    for tag in tags[::-1]:
        wrapped = tagged(tag, wrapped)
    found = examine(cbor2.dumps(wrapped), publisher.public_key)
    assert found.authentic is True
    assert found.claims["outer_tag"] == f"d9{tags[0]:04x}"


@settings(max_examples=300)
@given(data=st.data())
def test_only_our_error_leaves_the_parser_on_changed_bytes(data: st.DataObject) -> None:
    publisher = CorimPublisher(key=KEY).reference(
        environment(vendor="ACME", instance=tagged(550, b"\x01" + bytes(32))),
        element(
            "firmware", {1: tagged(552, 3), 2: [[1, digest("x")]], 14: {0: [[1, digest("y")]]}}
        ),
    )
    raw = bytearray(publisher.signed())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    found = examine(bytes(raw), publisher.public_key)
    assert found.authentic is not None or found.claims["signed"] is False


KEY = ec.generate_private_key(ec.SECP256R1())


@settings(max_examples=200)
@given(raw=st.binary(max_size=120))
def test_no_bytes_make_an_examination_raise(raw: bytes) -> None:
    assert examine(raw).authentic is not True
