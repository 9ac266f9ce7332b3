"""Intel's revocation lists are kept only if the issuer they name signed them, and in their time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from simulators.kept_collateral import NOW, Canned, fetched, refused
from simulators.vendor_collateral import DAY_S, IntelVendor, pem, sign_crl

from attestation import collateral_key as keys
from attestation.collateral.entry import Entry, Piece
from attestation.collateral.fetcher import Response
from attestation.collateral.view import witnesses
from wire.errors import MalformedError
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from attestation.collateral.vendors import Vendors


def beside(pcs: IntelVendor, vendors: Vendors, root_crl: bytes) -> Entry:
    """Intel's root list, fetched with the chain of a PCK list at hand."""
    chain = Piece(b"any", pem(pcs.cas["platform"], pcs.root))
    return vendors.fetch(keys.root_crl(), Canned(Response(root_crl)), NOW, chain)


@pytest.mark.parametrize("ca", ["platform", "processor"])
def test_a_pck_list_is_kept_with_its_date_as_der_or_a_mirrors_hex(
    vendors: Vendors, pcs: IntelVendor, ca: Any
) -> None:
    crl = pcs.pck_crl(ca, number=5)
    chain = pcs.header(pcs.cas[ca])
    for body in (crl, crl.hex().encode(), crl.hex().upper().encode() + b"\n"):
        entry = fetched(vendors, keys.pck_crl(ca), body, sgx_pck_crl_issuer_chain=chain)
        assert entry.piece.body == crl
        assert entry.sequence == NOW - 60


def test_the_list_of_the_other_ca_is_refused(vendors: Vendors, pcs: IntelVendor) -> None:
    chain = pcs.header(pcs.cas["processor"])
    crl = pcs.pck_crl("processor")
    key = keys.pck_crl("platform")
    refused(
        "collateral_mismatch", lambda: fetched(vendors, key, crl, sgx_pck_crl_issuer_chain=chain)
    )


def test_a_list_signed_by_another_key_or_past_its_update_is_refused(
    vendors: Vendors, pcs: IntelVendor
) -> None:
    name = "Intel SGX PCK Platform CA"
    chain = pcs.header(pcs.cas["platform"])
    key = keys.pck_crl("platform")
    forged = sign_crl(name, ec.generate_private_key(ec.SECP256R1()), NOW)
    refused("crl_invalid", lambda: fetched(vendors, key, forged, sgx_pck_crl_issuer_chain=chain))
    old = sign_crl(name, pcs.ca_key, NOW - 2 * DAY_S, ends=DAY_S)
    refused("crl_expired", lambda: fetched(vendors, key, old, sgx_pck_crl_issuer_chain=chain))


def test_a_list_as_pem_is_refused(vendors: Vendors, pcs: IntelVendor) -> None:
    chain = pcs.header(pcs.cas["platform"])
    body = b"-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n"
    refused(
        "crl_invalid",
        lambda: fetched(vendors, keys.pck_crl("platform"), body, sgx_pck_crl_issuer_chain=chain),
    )


def test_the_root_list_is_kept_and_no_other_list_in_its_place(
    vendors: Vendors, pcs: IntelVendor
) -> None:
    root = pcs.root_crl()
    entry = beside(pcs, vendors, root.hex().encode())
    assert (entry.piece.body, entry.sequence) == (root, NOW - 60)
    refused("collateral_mismatch", lambda: beside(pcs, vendors, pcs.pck_crl("platform")))


def test_a_root_list_that_the_pinned_root_did_not_sign_is_refused(
    vendors: Vendors, pcs: IntelVendor
) -> None:
    forged = IntelVendor(NOW).root_crl()
    refused("crl_invalid", lambda: beside(pcs, vendors, forged))
    refused("untrusted_root", lambda: beside(IntelVendor(NOW), vendors, forged))
    early = sign_crl("Intel SGX Root CA", pcs.root_key, NOW + 2 * CLOCK_SKEW_S)
    refused("crl_not_yet_valid", lambda: beside(pcs, vendors, early))


def test_without_a_chain_at_hand_the_root_list_is_not_kept(
    vendors: Vendors, pcs: IntelVendor
) -> None:
    assert witnesses(keys.root_crl()) == (keys.pck_crl("platform"), keys.pck_crl("processor"))
    refused("collateral_missing", lambda: fetched(vendors, keys.root_crl(), pcs.root_crl()))


def test_a_pck_list_under_a_root_that_looks_alike_is_refused(vendors: Vendors) -> None:
    other = IntelVendor(NOW)
    key = keys.pck_crl("platform")
    piece = Piece(other.pck_crl("platform"), pem(other.cas["platform"], other.root))
    refused("untrusted_root", lambda: vendors.admit(key, piece, fetched_at=NOW, now=NOW))


def test_a_pck_list_whose_issuer_the_pinned_root_did_not_sign_is_refused(
    vendors: Vendors, pcs: IntelVendor
) -> None:
    other = IntelVendor(NOW)
    key = keys.pck_crl("platform")
    piece = Piece(other.pck_crl("platform"), pem(other.cas["platform"], pcs.root))
    refused("chain_invalid", lambda: vendors.admit(key, piece, fetched_at=NOW, now=NOW))


def test_a_pck_list_with_half_a_chain_is_malformed(vendors: Vendors, pcs: IntelVendor) -> None:
    key = keys.pck_crl("platform")
    piece = Piece(pcs.pck_crl("platform"), pem(pcs.cas["platform"]))
    with pytest.raises(MalformedError, match="issuer chain"):
        vendors.admit(key, piece, fetched_at=NOW, now=NOW)


def test_the_root_list_counts_until_just_before_its_next_update(
    vendors: Vendors, pcs: IntelVendor
) -> None:
    name = "Intel SGX Root CA"
    soon, ended = (sign_crl(name, pcs.root_key, NOW, ends=ends) for ends in (1, 0))
    assert beside(pcs, vendors, soon).expires == NOW + 1
    refused("collateral_expired", lambda: beside(pcs, vendors, ended))
