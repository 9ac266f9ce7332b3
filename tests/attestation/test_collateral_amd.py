"""AMD's certificates, chains and lists are kept only for the chip and product asked for."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from simulators.kept_collateral import (
    CHAIN,
    CHIP,
    LEVELS,
    NOW,
    VCEK,
    Canned,
    fetched,
    refused,
    vendors_under,
)
from simulators.vendor_collateral import (
    DAY_S,
    AmdVendor,
    altered,
    amd_extension,
    certify,
    der,
    der_int,
    pem,
)

from attestation import collateral_key as keys
from attestation.anchors import NONE
from attestation.collateral.entry import BOUNDS, Entry, Piece
from attestation.collateral.fetcher import Response
from attestation.collateral.services import Services
from attestation.collateral.vendors import Vendors
from attestation.collateral.view import compose, witnesses
from wire.errors import MalformedError

if TYPE_CHECKING:
    from attestation.collateral_key import CollateralKey


def under(kds: AmdVendor, vendors: Vendors, key: CollateralKey, body: bytes) -> Entry:
    return vendors.fetch(key, Canned(Response(body)), NOW, Piece(kds.chain()))


def test_a_chips_certificate_is_kept_for_the_chip_and_levels_asked_for(
    vendors: Vendors, kds: AmdVendor
) -> None:
    entry = under(kds, vendors, VCEK, kds.vcek(CHIP, LEVELS))
    assert entry.expires == NOW + BOUNDS["vcek"].age_s


def test_turin_has_a_short_chip_id_and_a_fifth_level() -> None:
    turin = AmdVendor(NOW, "Turin")
    levels = (1, 1, 1, 4, 200)
    key = keys.vcek("Turin", CHIP[:8], levels)
    fetcher = Canned(Response(turin.vcek(CHIP[:8], levels)))
    vendors_under(turin.anchors.pins).fetch(key, fetcher, NOW, Piece(turin.chain()))
    assert fetcher.asked[0].url == (
        "https://kdsintf.amd.com/vcek/v1/Turin/0001020304050607"
        "?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=200"
    )


@pytest.mark.parametrize("number", range(4))
def test_a_certificate_at_another_level_is_refused(
    vendors: Vendors, kds: AmdVendor, number: int
) -> None:
    levels = tuple(v + 1 if i == number else v for i, v in enumerate(LEVELS))
    refused("collateral_mismatch", lambda: under(kds, vendors, VCEK, kds.vcek(CHIP, levels)))


def test_a_certificate_of_another_chip_or_product_is_refused(
    vendors: Vendors, kds: AmdVendor
) -> None:
    other = bytes(64)
    refused("collateral_mismatch", lambda: under(kds, vendors, VCEK, kds.vcek(other, LEVELS)))
    milan = kds.vcek(CHIP, LEVELS, "Milan-B0")
    refused("collateral_mismatch", lambda: under(kds, vendors, VCEK, milan))


def test_a_stepping_after_the_products_name_is_fine(vendors: Vendors, kds: AmdVendor) -> None:
    assert under(kds, vendors, VCEK, kds.vcek(CHIP, LEVELS, "Genoa-B1"))


@pytest.mark.parametrize(
    "level", [b"", b"\x02", b"\x02\x00", b"\x04\x01\x54", b"\x02\x02\x54", b"\x02\x03\x00\x00\x54"]
)
def test_a_level_that_is_no_small_integer_is_refused(
    vendors: Vendors, kds: AmdVendor, level: bytes
) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    extensions = [
        amd_extension("2", b"\x16\x05Genoa"),
        amd_extension("4", CHIP),
        *(
            amd_extension(s, der_int(v))
            for s, v in zip(("3.1", "3.2", "3.3"), LEVELS, strict=False)
        ),
        amd_extension("3.8", level),
    ]
    found = certify(
        "SEV-VCEK", key, "SEV-Genoa", kds.ask_key, NOW, ca=False, extensions=tuple(extensions),
        pss=True,
    )  # fmt: skip
    refused("collateral_mismatch", lambda: under(kds, vendors, VCEK, der(found)))


def test_a_level_below_zero_is_not_the_one_above_it(vendors: Vendors, kds: AmdVendor) -> None:
    levels = (*LEVELS[:3], 255)
    key, asked = ec.generate_private_key(ec.SECP384R1()), keys.vcek("Genoa", CHIP, levels)
    for last, taken in ((b"\x02\x02\x00\xff", True), (b"\x02\x01\xff", False)):
        stated = [der_int(level) for level in levels[:3]]
        named = zip(("3.1", "3.2", "3.3", "3.8"), (*stated, last), strict=True)
        extensions = (
            amd_extension("2", b"\x16\x05Genoa"),
            amd_extension("4", CHIP),
            *(amd_extension(suffix, value) for suffix, value in named),
        )
        made = der(
            certify("SEV-VCEK", key, "SEV-Genoa", kds.ask_key, NOW, ca=False,
                    extensions=extensions, pss=True)
        )  # fmt: skip
        if taken:
            assert under(kds, vendors, asked, made)
        else:
            refused("collateral_mismatch", lambda made=made: under(kds, vendors, asked, made))


def test_a_chain_under_the_root_of_another_product_is_refused() -> None:
    milan = AmdVendor(NOW, "Milan")
    milan.ask = certify(
        "SEV-Genoa", milan.ask_key, "ARK-Milan", milan.ark_key, NOW, ca=True, pss=True
    )
    pinned = vendors_under(milan.anchors.pins)
    refused("collateral_mismatch", lambda: fetched(pinned, CHAIN, milan.chain()))


def test_a_chain_ends_with_its_root_where_that_is_first() -> None:
    kds = AmdVendor(NOW)
    kds.ark = certify(
        "ARK-Genoa", kds.ark_key, "ARK-Genoa", kds.ark_key, NOW, ca=True, pss=True,
        life=timedelta(days=1),
    )  # fmt: skip
    assert fetched(vendors_under(kds.anchors.pins), CHAIN, kds.chain()).expires == NOW + DAY_S


def test_a_chain_of_one_or_three_certificates_is_malformed(
    vendors: Vendors, kds: AmdVendor
) -> None:
    for certificates in ((kds.ark,), (kds.ask, kds.ark, kds.ark)):
        with pytest.raises(MalformedError):
            fetched(vendors, CHAIN, pem(*certificates).encode())


def test_a_chain_ends_with_the_first_of_its_certificates(vendors: Vendors, kds: AmdVendor) -> None:
    end = int(kds.ark.not_valid_after_utc.timestamp())
    piece = Piece(kds.chain())
    assert vendors.admit(CHAIN, piece, fetched_at=end - 1, now=end - 1).expires == end
    refused(
        "certificate_not_valid_at_time",
        lambda: vendors.admit(CHAIN, piece, fetched_at=end, now=end),
    )


def test_what_the_chain_did_not_sign_is_refused(vendors: Vendors, kds: AmdVendor) -> None:
    other = AmdVendor(NOW)
    crl = keys.amd("crl", "vcek", "Genoa")
    refused("chain_invalid", lambda: under(kds, vendors, VCEK, other.vcek(CHIP, LEVELS)))
    refused("crl_invalid", lambda: under(kds, vendors, crl, other.crl()))


def test_without_the_chain_at_hand_nothing_below_it_is_kept(
    vendors: Vendors, kds: AmdVendor
) -> None:
    bodies = {VCEK: kds.vcek(CHIP, LEVELS), keys.amd("crl", "vcek", "Genoa"): kds.crl()}
    for key, body in bodies.items():
        assert witnesses(key) == (CHAIN,)
        refused("collateral_missing", lambda key=key, body=body: fetched(vendors, key, body))


def test_a_list_is_kept_with_its_date(vendors: Vendors, kds: AmdVendor) -> None:
    assert under(kds, vendors, keys.amd("crl", "vcek", "Genoa"), kds.crl()).sequence == NOW - 60


def test_a_certificate_outside_its_validity_is_refused(vendors: Vendors, kds: AmdVendor) -> None:
    piece = Piece(kds.vcek(CHIP, LEVELS))
    for now in (NOW + 3700 * DAY_S, NOW - 400 * DAY_S):
        refused(
            "certificate_not_valid_at_time",
            lambda now=now: vendors.admit(
                VCEK, piece, fetched_at=now, now=now, chain=Piece(kds.chain())
            ),
        )


def test_the_chain_above_is_kept_under_a_pinned_root_only(vendors: Vendors, kds: AmdVendor) -> None:
    pieces = {CHAIN: fetched(vendors, CHAIN, kds.chain()).piece}
    ca, root = (compose(keys.amd(kind, "vcek", "Genoa"), pieces) for kind in ("ca", "root"))
    assert kds.anchors.trusts(root)
    assert not kds.anchors.trusts(ca)
    refused("untrusted_root", lambda: fetched(vendors, CHAIN, AmdVendor(NOW).chain()))
    refused("untrusted_root", lambda: fetched(vendors_under(NONE.pins), CHAIN, kds.chain()))


def test_a_chain_of_another_product_or_signer_is_refused(vendors: Vendors, kds: AmdVendor) -> None:
    for key in (keys.amd("chain", "vcek", "Milan"), keys.amd("chain", "vlek", "Genoa")):
        refused("collateral_mismatch", lambda key=key: fetched(vendors, key, kds.chain()))


def test_an_ask_that_the_ark_did_not_sign_is_refused(vendors: Vendors, kds: AmdVendor) -> None:
    body = pem(AmdVendor(NOW).ask, kds.ark).encode()
    refused("chain_invalid", lambda: fetched(vendors, CHAIN, body))


def test_a_chain_root_first_is_refused(vendors: Vendors, kds: AmdVendor) -> None:
    refused("untrusted_root", lambda: fetched(vendors, CHAIN, pem(kds.ark, kds.ask).encode()))


def test_amds_list_is_kept_for_its_product_and_window(vendors: Vendors, kds: AmdVendor) -> None:
    assert under(kds, vendors, keys.amd("crl", "vcek", "Genoa"), kds.crl()).expires == NOW + DAY_S
    milan = keys.amd("crl", "vcek", "Milan")
    refused("collateral_mismatch", lambda: under(kds, vendors, milan, kds.crl()))
    old = altered(kds, now=NOW - 2 * DAY_S).crl(ends=DAY_S)
    refused("crl_expired", lambda: under(kds, vendors, keys.amd("crl", "vcek", "Genoa"), old))


@pytest.mark.parametrize(
    ("name", "product"),
    [("snp-milan-v3", "Milan"), ("snp-genoa-v3", "Genoa"), ("snp-turin-v5", "Turin")],
)
def test_real_certificates_are_kept_under_amds_real_roots(
    vectors: dict[str, Any], name: str, product: str
) -> None:
    vector = vectors[name]
    report, cert, ask, ark = (
        (vectors["root"] / vector["files"][role]).read_bytes()
        for role in ("report", "endorsement_cert", "ca", "root")
    )
    now = int(datetime.fromisoformat(vector["verify_at"]).timestamp())
    tcb = tuple(report[0x180:0x188])
    levels = (*tcb[:4], tcb[7]) if product == "Turin" else (*tcb[:2], *tcb[6:])
    chip = report[0x1A0:0x1A8] if product == "Turin" else report[0x1A0:0x1E0]
    key = keys.vcek(product, chip, levels)
    chain = Piece(pem(*(x509.load_der_x509_certificate(der) for der in (ask, ark))).encode())
    real = Vendors(Services(), bytes)
    (above,) = witnesses(key)
    real.admit(above, chain, fetched_at=now, now=now)
    fetcher = Canned(Response(cert))
    assert real.fetch(key, fetcher, now, chain).key == key
    assert fetcher.asked[0].url.startswith(f"https://kdsintf.amd.com/vcek/v1/{product}/")
    root = x509.load_der_x509_certificate(ark)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.crl_sign  # or its lists could not be kept
