"""Whatever a vendor sends: bytes that are nothing of the kind are refused with our errors only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.kept_collateral import CHAIN, FMSPC, NOW, QE, TCB, VCEK, vendors_under
from simulators.vendor_collateral import AmdVendor, IntelVendor, pem

from attestation import collateral_key as keys
from attestation.anchors import NONE
from attestation.collateral.entry import BOUNDS, Piece
from wire.errors import AnchorholdError, MalformedError

if TYPE_CHECKING:
    from attestation.collateral.vendors import Vendors
    from attestation.collateral_key import CollateralKey

STORED = (
    TCB, QE, keys.pck_crl("platform"), keys.root_crl(), VCEK, CHAIN,
    keys.amd("crl", "vcek", "Genoa"), keys.rim("NV"), keys.jwks("nvidia-nras"),
    keys.ocsp("sha384", bytes(48), bytes(48), 1),
)  # fmt: skip


@given(st.sampled_from(STORED), st.binary(max_size=400), st.text(max_size=80))
def test_arbitrary_bytes_are_refused_with_our_errors_only(
    key: CollateralKey, body: bytes, chain: str
) -> None:
    try:
        vendors_under(NONE.pins).admit(key, Piece(body, chain), fetched_at=NOW, now=NOW)
    except AnchorholdError:
        return
    assert key.kind == "rim"  # a manifest is opaque here


@given(st.data())
def test_mutated_pieces_are_refused_with_our_errors_only(
    vendors: Vendors, pcs: IntelVendor, kds: AmdVendor, data: st.DataObject
) -> None:
    genuine = {
        TCB: Piece(pcs.tcb("tdx", FMSPC.hex()), pem(pcs.signer, pcs.root)),
        keys.pck_crl("platform"): Piece(
            pcs.pck_crl("platform"), pem(pcs.cas["platform"], pcs.root)
        ),
        CHAIN: Piece(kds.chain()),
    }
    key = data.draw(st.sampled_from(list(genuine)))
    piece = genuine[key]
    raw = bytearray(piece.body)
    raw[data.draw(st.integers(0, 4096)) % len(raw)] ^= data.draw(st.integers(1, 255))
    try:
        vendors.admit(key, Piece(bytes(raw), piece.chain), fetched_at=NOW, now=NOW)
    except AnchorholdError:
        return


@pytest.mark.parametrize("key", STORED, ids=lambda key: key.kind)
def test_a_body_that_is_empty_or_larger_than_its_kind_may_be_is_refused(
    vendors: Vendors, key: CollateralKey
) -> None:
    for body in (b"", bytes(BOUNDS[key.kind].size + 1)):
        with pytest.raises(MalformedError):
            vendors.admit(key, Piece(body), fetched_at=NOW, now=NOW)


def test_a_chain_beside_what_has_none_is_refused(vendors: Vendors, kds: AmdVendor) -> None:
    with pytest.raises(MalformedError):
        vendors.admit(CHAIN, Piece(kds.chain(), "x"), fetched_at=NOW, now=NOW)
