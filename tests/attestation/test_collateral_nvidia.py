"""NVIDIA's answers, manifests and key sets are kept only if they are what was asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.x509 import ocsp as ocsp_lib
from simulators.kept_collateral import NOW, Canned, fetched, refused, vendors_under
from simulators.vendor_collateral import DAY_S, OcspVendor, altered, key_set, rim_answer

from attestation import collateral_key as keys
from attestation.collateral.entry import Entry, Piece
from attestation.collateral.fetcher import Request, Response
from wire.errors import MalformedError
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from attestation.collateral.vendors import Vendors
    from attestation.collateral_key import CollateralKey


def asked(vendors: Vendors, responder: OcspVendor, key: CollateralKey | None = None) -> Entry:
    def answer(request: Request) -> Response:
        return Response(responder.answer(request.body))

    return vendors.fetch(key or keys.ocsp(*responder.cert_id()), Canned(answer), NOW)


def test_an_ocsp_answer_is_kept_for_an_hour(vendors: Vendors, responder: OcspVendor) -> None:
    entry = asked(vendors, responder)
    assert (entry.expires, entry.sequence) == (NOW + 3600, NOW - 60)


def test_the_question_names_the_certificate_and_carries_a_fresh_nonce(
    vendors: Vendors, responder: OcspVendor
) -> None:
    key = keys.ocsp(*responder.cert_id())
    request = vendors.request(key, b"\1" * 32)
    found = ocsp_lib.load_der_ocsp_request(request.body)
    assert request.method == "POST"
    assert found.serial_number == responder.device.serial_number
    assert found.extensions[0].value.nonce == b"\1" * 32  # type: ignore[attr-defined]  # its type


def test_an_answer_without_the_questions_nonce_is_a_replay(
    vendors: Vendors, responder: OcspVendor
) -> None:
    silent = altered(responder, echo=False)
    key = keys.ocsp(*silent.cert_id())
    refused("nonce_mismatch", lambda: asked(vendors, silent, key))
    replayed = responder.answer(vendors.request(key, b"\2" * 32).body)
    refused("nonce_mismatch", lambda: fetched(vendors, key, replayed))


def test_an_answer_about_another_certificate_is_refused(
    vendors: Vendors, responder: OcspVendor
) -> None:
    name, issuer_name, issuer_key, serial = responder.cert_id()
    other = bytes(len(issuer_key))
    for key in (
        keys.ocsp(name, issuer_name, issuer_key, serial + 1),
        keys.ocsp(name, other, issuer_key, serial),
        keys.ocsp(name, issuer_name, other, serial),  # of the same name, with another key
        keys.ocsp("sha256", issuer_name[:32], issuer_key[:32], serial),
    ):
        refused("collateral_mismatch", lambda key=key: asked(vendors, responder, key))


def test_an_answer_dated_ahead_of_the_clock_is_refused() -> None:
    for ahead, taken in ((CLOCK_SKEW_S, True), (CLOCK_SKEW_S + 1, False)):
        early = OcspVendor(NOW + 60 + ahead)  # which dates its answers a minute back
        if taken:
            assert asked(vendors_under(frozenset()), early)
        else:
            refused(
                "collateral_not_yet_valid",
                lambda early=early: asked(vendors_under(frozenset()), early),
            )


def test_an_answer_that_names_no_end_ends_a_week_after_its_date_wherever_it_was_since() -> None:
    vendors, old = vendors_under(frozenset()), OcspVendor(NOW - 6 * DAY_S, ends=None)
    key = keys.ocsp(*old.cert_id())
    piece = Piece(old.answer(vendors.request(key, bytes(32)).body))
    carried = vendors.admit(key, piece, fetched_at=NOW, now=NOW, offline=True)
    assert carried.expires == NOW - 60 + DAY_S


def test_an_answer_past_its_update_is_refused(vendors: Vendors, responder: OcspVendor) -> None:
    old = altered(responder, ends=-1)
    key = keys.ocsp(*old.cert_id())
    refused("collateral_expired", lambda: asked(vendors, old, key))


@pytest.mark.parametrize("body", [b"\x30\x03\x0a\x01\x06", b"x", b"\x30\x82\xff\xff"])
def test_no_answer_is_malformed(vendors: Vendors, responder: OcspVendor, body: bytes) -> None:
    with pytest.raises(MalformedError):
        fetched(vendors, keys.ocsp(*responder.cert_id()), body)


def test_a_manifest_is_kept_under_its_own_id_only(vendors: Vendors) -> None:
    key = keys.rim("NV_GPU_DRIVER_GH100_550")
    manifest = b"<SoftwareIdentity/>"
    body = rim_answer("NV_GPU_DRIVER_GH100_550", manifest)
    assert fetched(vendors, key, body).piece.body == manifest
    for wrong in (
        rim_answer("NV_OTHER", manifest),
        b"[]",
        b"{}",
        body.replace(b'": "', b'": 5, "'),
        rim_answer("NV_GPU_DRIVER_GH100_550", manifest).replace(b"PFNvZn", b"PF!NvZn"),
    ):
        with pytest.raises(MalformedError):
            fetched(vendors, key, wrong)
    with pytest.raises(MalformedError):
        fetched(vendors, key, rim_answer("NV_GPU_DRIVER_GH100_550", b""))


def test_a_key_set_has_public_keys_with_distinct_names(vendors: Vendors) -> None:
    key = keys.jwks("nvidia-nras")
    assert fetched(vendors, key, key_set("a", "b")).expires == NOW + 3600
    private = json.loads(key_set("a"))
    private["keys"][0]["d"] = "AAAA"
    single = json.loads(key_set("a"))["keys"][0]
    symmetric = {"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}
    for body in (
        key_set("a", "a"),
        b"{}",
        b'{"keys":[]}',
        *map(dump, (private, symmetric, single)),
    ):
        with pytest.raises(MalformedError):
            fetched(vendors, key, body)


def dump(document: Any) -> bytes:
    return json.dumps(document).encode()
