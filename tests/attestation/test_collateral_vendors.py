"""What each vendor sends is kept only if it is what was asked for, genuine and in force."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509 import ocsp as ocsp_lib
from hypothesis import given
from hypothesis import strategies as st
from simulators.vendor_collateral import (
    DAY_S,
    AmdVendor,
    IntelVendor,
    OcspVendor,
    amd_extension,
    certify,
    der,
    der_int,
    key_set,
    pem,
    rim_answer,
    sign_crl,
    stamp,
)

from attestation import collateral_key as keys
from attestation.anchors import NONE, Anchors
from attestation.collateral.entry import BOUNDS, CHAIN_MAX, Entry, Piece
from attestation.collateral.fetcher import Request, Response
from attestation.collateral.services import Services
from attestation.collateral.vendors import Vendors
from attestation.collateral.view import compose, rests_on, witnesses
from wire.errors import AnchorholdError, AttestationError, MalformedError
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from attestation.collateral_key import CollateralKey

NOW = 1_790_000_000
FMSPC = bytes.fromhex("00806f050000")
CHIP = bytes(range(64))
LEVELS = (10, 0, 23, 84)
TCB = keys.tcb_info("tdx", FMSPC)
QE = keys.qe_identity("tdx")
VCEK = keys.vcek("Genoa", CHIP, LEVELS)
CHAIN = keys.amd("chain", "vcek", "Genoa")


@pytest.fixture(scope="module")
def intel() -> IntelVendor:
    return IntelVendor(NOW)


@pytest.fixture(scope="module")
def amd() -> AmdVendor:
    return AmdVendor(NOW)


@pytest.fixture(scope="module")
def responder() -> OcspVendor:
    return OcspVendor(NOW)


@pytest.fixture(scope="module")
def vendors(intel: IntelVendor, amd: AmdVendor) -> Vendors:
    return build(intel.anchors.pins | amd.anchors.pins)


def build(pins: frozenset[bytes]) -> Vendors:
    return Vendors(Services(), lambda n: b"\7" * n, Anchors(pins))


class Canned:
    """A `Fetcher` with one answer: bytes and headers, or a function of the request."""

    def __init__(self, answer: Response | Callable[[Request], Response]) -> None:
        self._answer = answer
        self.asked: list[Request] = []

    def fetch(self, request: Request) -> Response:
        self.asked.append(request)
        return self._answer if isinstance(self._answer, Response) else self._answer(request)


def fetched(vendors: Vendors, key: CollateralKey, body: bytes, **headers: str) -> Entry:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return vendors.fetch(key, Canned(Response(body, named)), NOW)


def under(amd: AmdVendor, vendors: Vendors, key: CollateralKey, body: bytes) -> Entry:
    return vendors.fetch(key, Canned(Response(body)), NOW, Piece(amd.chain()))


def beside(intel: IntelVendor, vendors: Vendors, root_crl: bytes) -> Entry:
    """Intel's root list, fetched with the chain of a PCK list at hand."""
    chain = Piece(b"any", pem(intel.cas["platform"], intel.root))
    return vendors.fetch(keys.root_crl(), Canned(Response(root_crl)), NOW, chain)


def altered(vendor: Any, **changes: Any) -> Any:
    other = copy.copy(vendor)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


def refused(code: str, call: Callable[[], Any]) -> None:
    with pytest.raises(AttestationError) as caught:
        call()
    assert caught.value.reasons == (code,)


# ------------------------------------------------------------------ Intel


def tcb(vendors: Vendors, intel: IntelVendor, **changes: Any) -> Entry:
    chain = intel.header(intel.signer)
    return fetched(
        vendors, TCB, intel.tcb("tdx", FMSPC.hex(), **changes), tcb_info_issuer_chain=chain
    )


def qe(vendors: Vendors, intel: IntelVendor, tee: str = "tdx", **changes: Any) -> Entry:
    chain = intel.header(intel.signer)
    body = intel.qe(tee, **changes)
    return fetched(vendors, QE, body, sgx_enclave_identity_issuer_chain=chain)


def test_tcb_info_is_kept_with_its_number_for_at_most_a_day(
    vendors: Vendors, intel: IntelVendor
) -> None:
    entry = tcb(vendors, intel)
    assert entry.sequence == 17
    assert entry.expires == NOW + DAY_S


def test_the_vendors_own_end_comes_first_where_it_is_earlier(
    vendors: Vendors, intel: IntelVendor
) -> None:
    soon = "2026-09-21T14:13:25Z"
    entry = tcb(vendors, intel, nextUpdate=soon)
    assert entry.expires == int(datetime.fromisoformat(soon).timestamp()) < NOW + DAY_S


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"fmspc": "00806F050001"}, "collateral_fmspc_mismatch"),
        ({"fmspc": None}, "collateral_fmspc_mismatch"),
        ({"id": "SGX"}, "collateral_mismatch"),
        ({"version": 2}, "collateral_mismatch"),
        ({"nextUpdate": "2026-09-21T13:33:20Z"}, "collateral_expired"),
        ({"issueDate": "2026-09-22T13:33:20Z"}, "collateral_not_yet_valid"),
    ],
)
def test_tcb_info_of_something_else_or_another_time_is_refused(
    vendors: Vendors, intel: IntelVendor, changes: dict[str, Any], code: str
) -> None:
    refused(code, lambda: tcb(vendors, intel, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"nextUpdate": "2026-13-21T13:33:20Z"},
        {"nextUpdate": 5},
        {"tcbEvaluationDataNumber": "17"},
        {"tcbEvaluationDataNumber": True},
        {"tcbEvaluationDataNumber": -1},
    ],
)
def test_signed_fields_of_the_wrong_form_are_malformed(
    vendors: Vendors, intel: IntelVendor, changes: dict[str, Any]
) -> None:
    with pytest.raises(MalformedError):
        tcb(vendors, intel, **changes)


def test_the_sgx_identity_is_no_tdx_identity(vendors: Vendors, intel: IntelVendor) -> None:
    assert qe(vendors, intel).sequence == 17
    refused("qe_identity_wrong_type", lambda: qe(vendors, intel, "sgx"))


def test_one_flipped_bit_in_signed_json_is_refused(vendors: Vendors, intel: IntelVendor) -> None:
    body = intel.tcb("tdx", FMSPC.hex()).replace(b'"pcesvn":11', b'"pcesvn":10')
    chain = intel.header(intel.signer)
    refused("signature_invalid", lambda: fetched(vendors, TCB, body, tcb_info_issuer_chain=chain))


def test_signed_json_that_was_spelled_again_is_refused(
    vendors: Vendors, intel: IntelVendor
) -> None:
    body = intel.tcb("tdx", FMSPC.hex()).replace(b'"pcesvn":11', b'"pcesvn": 11')
    chain = intel.header(intel.signer)
    refused("signature_invalid", lambda: fetched(vendors, TCB, body, tcb_info_issuer_chain=chain))


AROUND: dict[str, Callable[[bytes], bytes]] = {
    "a member after": lambda b: b[:-1] + b',"more":1}',
    "a member before": lambda b: b'{"more":1,' + b[1:],
    "text after": lambda b: b + b" x",
    "a longer signature": lambda b: b.replace(b'"signature":"', b'"signature":"00'),
    "twice": lambda b: b.replace(b'{"tcbInfo":{', b'{"tcbInfo":{},"tcbInfo":{'),
    "signature first": lambda _: b'{"signature":"' + b"00" * 64 + b'","tcbInfo":{}}',
    "cut": lambda b: b[: len(b) // 2],
    "html": lambda _: b"<html>maintenance</html>",
    "an array": lambda _: b"[]",
}


@pytest.mark.parametrize("name", AROUND)
def test_text_around_signed_json_is_malformed(
    vendors: Vendors, intel: IntelVendor, name: str
) -> None:
    body = AROUND[name](intel.tcb("tdx", FMSPC.hex()))
    with pytest.raises(MalformedError):
        fetched(vendors, TCB, body, tcb_info_issuer_chain=intel.header(intel.signer))


def test_a_root_that_looks_alike_vouches_for_nothing(vendors: Vendors) -> None:
    other = IntelVendor(NOW)
    refused("untrusted_root", lambda: tcb(vendors, other))


def test_a_pinned_root_that_did_not_issue_the_signer_vouches_for_nothing(
    vendors: Vendors, intel: IntelVendor
) -> None:
    other = IntelVendor(NOW)
    body = other.tcb("tdx", FMSPC.hex())
    piece = Piece(body, pem(other.signer, intel.root))
    with pytest.raises(AttestationError):
        vendors.admit(TCB, piece, fetched_at=NOW, now=NOW)


def test_a_chain_without_its_header_or_of_another_length_is_malformed(
    vendors: Vendors, intel: IntelVendor
) -> None:
    body = intel.tcb("tdx", FMSPC.hex())
    with pytest.raises(MalformedError, match="issuer chain"):
        fetched(vendors, TCB, body)
    for chain in (pem(intel.signer), pem(intel.root, intel.root, intel.root), "", "x"):
        with pytest.raises(MalformedError):
            fetched(vendors, TCB, body, tcb_info_issuer_chain=chain)


def test_a_chain_in_a_header_is_bounded(vendors: Vendors, intel: IntelVendor) -> None:
    body = intel.tcb("tdx", FMSPC.hex())
    escaped = "%41" * (2 * CHAIN_MAX // 3 + 1)  # too long to be taken apart, short after that
    with pytest.raises(MalformedError, match="expected an issuer chain in the header"):
        fetched(vendors, TCB, body, tcb_info_issuer_chain=escaped)


def test_what_a_certificate_signed_ends_with_it(vendors: Vendors) -> None:
    intel = IntelVendor(NOW)
    intel.signer = certify(
        "Intel SGX TCB Signing", intel.signer_key, "Intel SGX Root CA", intel.root_key, NOW,
        ca=False, life=timedelta(hours=1),
    )  # fmt: skip
    body, chain = intel.tcb("tdx", FMSPC.hex()), intel.header(intel.signer)
    found = fetched(build(intel.anchors.pins), TCB, body, tcb_info_issuer_chain=chain)
    assert found.expires == NOW + 3600


@pytest.mark.parametrize("ca", ["platform", "processor"])
def test_a_pck_list_is_kept_with_its_date_as_der_or_a_mirrors_hex(
    vendors: Vendors, intel: IntelVendor, ca: Any
) -> None:
    crl = intel.pck_crl(ca, number=5)
    chain = intel.header(intel.cas[ca])
    for body in (crl, crl.hex().encode(), crl.hex().upper().encode() + b"\n"):
        entry = fetched(vendors, keys.pck_crl(ca), body, sgx_pck_crl_issuer_chain=chain)
        assert entry.piece.body == crl
        assert entry.sequence == NOW - 60


def test_the_list_of_the_other_ca_is_refused(vendors: Vendors, intel: IntelVendor) -> None:
    chain = intel.header(intel.cas["processor"])
    crl = intel.pck_crl("processor")
    key = keys.pck_crl("platform")
    refused(
        "collateral_mismatch", lambda: fetched(vendors, key, crl, sgx_pck_crl_issuer_chain=chain)
    )


def test_a_list_signed_by_another_key_or_past_its_update_is_refused(
    vendors: Vendors, intel: IntelVendor
) -> None:
    name = "Intel SGX PCK Platform CA"
    chain = intel.header(intel.cas["platform"])
    key = keys.pck_crl("platform")
    forged = sign_crl(name, ec.generate_private_key(ec.SECP256R1()), NOW)
    refused("crl_invalid", lambda: fetched(vendors, key, forged, sgx_pck_crl_issuer_chain=chain))
    old = sign_crl(name, intel.ca_key, NOW - 2 * DAY_S, ends=DAY_S)
    refused("crl_expired", lambda: fetched(vendors, key, old, sgx_pck_crl_issuer_chain=chain))


def test_a_list_as_pem_is_refused(vendors: Vendors, intel: IntelVendor) -> None:
    chain = intel.header(intel.cas["platform"])
    body = b"-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n"
    refused(
        "crl_invalid",
        lambda: fetched(vendors, keys.pck_crl("platform"), body, sgx_pck_crl_issuer_chain=chain),
    )


def test_the_root_list_is_kept_and_no_other_list_in_its_place(
    vendors: Vendors, intel: IntelVendor
) -> None:
    root = intel.root_crl()
    entry = beside(intel, vendors, root.hex().encode())
    assert (entry.piece.body, entry.sequence) == (root, NOW - 60)
    refused("collateral_mismatch", lambda: beside(intel, vendors, intel.pck_crl("platform")))


def test_a_root_list_that_the_pinned_root_did_not_sign_is_refused(
    vendors: Vendors, intel: IntelVendor
) -> None:
    forged = IntelVendor(NOW).root_crl()
    refused("crl_invalid", lambda: beside(intel, vendors, forged))
    refused("untrusted_root", lambda: beside(IntelVendor(NOW), vendors, forged))
    early = sign_crl("Intel SGX Root CA", intel.root_key, NOW + 2 * CLOCK_SKEW_S)
    refused("crl_not_yet_valid", lambda: beside(intel, vendors, early))


def test_without_a_chain_at_hand_the_root_list_is_not_kept(
    vendors: Vendors, intel: IntelVendor
) -> None:
    assert witnesses(keys.root_crl()) == (keys.pck_crl("platform"), keys.pck_crl("processor"))
    refused("collateral_missing", lambda: fetched(vendors, keys.root_crl(), intel.root_crl()))


def test_real_collateral_gives_the_nine_members_it_came_from(vectors: dict[str, Any]) -> None:
    done = 0
    for vector in (v for k, v in vectors.items() if k.startswith(("tdx-", "sgx-"))):
        if "collateral" not in vector["files"] or not vector["expected"]["authentic"]:
            continue
        document = json.loads((vectors["root"] / vector["files"]["collateral"]).read_bytes())
        now = int(datetime.fromisoformat(vector["verify_at"]).timestamp())
        assert spelled(nine_members(document, now)) == spelled(document)
        done += 1
    assert done >= 3


def spelled(document: dict[str, str]) -> dict[str, str]:
    return {
        name: text.lower() if name.endswith(("crl", "signature")) else text.strip()
        for name, text in document.items()
    }


def nine_members(document: dict[str, str], now: int) -> dict[str, str]:
    """Through the services' own form, the checks under Intel's real root, and back."""
    info = json.loads(document["tcb_info"])
    ca: Any = (
        "platform" if "Platform" in str(load(document["pck_crl_issuer_chain"])) else "processor"
    )
    tee: Any = info["id"].lower()
    wanted = keys.dcap(tee, bytes.fromhex(info["fmspc"]), ca)
    signed = {"tcb": ("tcb_info", "tcbInfo"), "qe": ("qe_identity", "enclaveIdentity")}
    texts = {
        kind: (
            f'{{"{member}":{document[name]},"signature":"{document[f"{name}_signature"]}"}}'.encode(),
            document[f"{name}_issuer_chain"],
        )
        for kind, (name, member) in signed.items()
    }
    lists: dict[str, tuple[bytes, str]] = {
        "pck-crl": (bytes.fromhex(document["pck_crl"]), document["pck_crl_issuer_chain"]),
        "root-crl": (bytes.fromhex(document["root_ca_crl"]), ""),
    }
    pieces = {key: Piece(*(texts | lists)[key.kind]) for key in rests_on(wanted)}
    real = Vendors(Services(), bytes)
    for key, piece in pieces.items():
        chain = next((pieces[above] for above in witnesses(key) if above in pieces), None)
        real.admit(key, piece, fetched_at=now, now=now, chain=chain)
    found: dict[str, str] = json.loads(compose(wanted, pieces))
    return found


def load(chain: str) -> Any:
    return x509.load_pem_x509_certificates(chain.encode())[0].subject


def clock(seconds: int) -> str:
    return stamp(NOW + seconds)


def test_signed_json_counts_from_its_issue_until_just_before_its_next_update(
    vendors: Vendors, intel: IntelVendor
) -> None:
    assert tcb(vendors, intel, nextUpdate=clock(1)).expires == NOW + 1
    refused("collateral_expired", lambda: tcb(vendors, intel, nextUpdate=clock(0)))
    assert tcb(vendors, intel, issueDate=clock(CLOCK_SKEW_S))
    late = clock(CLOCK_SKEW_S + 1)
    refused("collateral_not_yet_valid", lambda: tcb(vendors, intel, issueDate=late))


@pytest.mark.parametrize(("number", "fine"), [(0, True), (2**31 - 1, True), (2**31, False)])
def test_a_number_is_small(vendors: Vendors, intel: IntelVendor, number: int, fine: bool) -> None:
    if fine:
        assert tcb(vendors, intel, tcbEvaluationDataNumber=number).sequence == number
    else:
        with pytest.raises(MalformedError):
            tcb(vendors, intel, tcbEvaluationDataNumber=number)


def test_signed_json_under_a_key_of_another_kind_is_refused(
    vendors: Vendors, intel: IntelVendor
) -> None:
    for key in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        signer = certify(
            "Intel SGX TCB Signing", key, "Intel SGX Root CA", intel.root_key, NOW, ca=False
        )
        piece = Piece(intel.tcb("tdx", FMSPC.hex()), pem(signer, intel.root))
        refused("chain_invalid", lambda p=piece: vendors.admit(TCB, p, fetched_at=NOW, now=NOW))


def test_a_pck_list_under_a_root_that_looks_alike_is_refused(vendors: Vendors) -> None:
    other = IntelVendor(NOW)
    key = keys.pck_crl("platform")
    piece = Piece(other.pck_crl("platform"), pem(other.cas["platform"], other.root))
    refused("untrusted_root", lambda: vendors.admit(key, piece, fetched_at=NOW, now=NOW))


def test_a_pck_list_whose_issuer_the_pinned_root_did_not_sign_is_refused(
    vendors: Vendors, intel: IntelVendor
) -> None:
    other = IntelVendor(NOW)
    key = keys.pck_crl("platform")
    piece = Piece(other.pck_crl("platform"), pem(other.cas["platform"], intel.root))
    refused("chain_invalid", lambda: vendors.admit(key, piece, fetched_at=NOW, now=NOW))


def test_a_pck_list_with_half_a_chain_is_malformed(vendors: Vendors, intel: IntelVendor) -> None:
    key = keys.pck_crl("platform")
    piece = Piece(intel.pck_crl("platform"), pem(intel.cas["platform"]))
    with pytest.raises(MalformedError, match="issuer chain"):
        vendors.admit(key, piece, fetched_at=NOW, now=NOW)


def test_the_root_list_counts_until_just_before_its_next_update(
    vendors: Vendors, intel: IntelVendor
) -> None:
    name = "Intel SGX Root CA"
    soon, ended = (sign_crl(name, intel.root_key, NOW, ends=ends) for ends in (1, 0))
    assert beside(intel, vendors, soon).expires == NOW + 1
    refused("collateral_expired", lambda: beside(intel, vendors, ended))


# ------------------------------------------------------------------ AMD


def test_a_chips_certificate_is_kept_for_the_chip_and_levels_asked_for(
    vendors: Vendors, amd: AmdVendor
) -> None:
    entry = under(amd, vendors, VCEK, amd.vcek(CHIP, LEVELS))
    assert entry.expires == NOW + BOUNDS["vcek"].age_s


def test_turin_has_a_short_chip_id_and_a_fifth_level() -> None:
    turin = AmdVendor(NOW, "Turin")
    levels = (1, 1, 1, 4, 200)
    key = keys.vcek("Turin", CHIP[:8], levels)
    fetcher = Canned(Response(turin.vcek(CHIP[:8], levels)))
    build(turin.anchors.pins).fetch(key, fetcher, NOW, Piece(turin.chain()))
    assert fetcher.asked[0].url == (
        "https://kdsintf.amd.com/vcek/v1/Turin/0001020304050607"
        "?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=200"
    )


@pytest.mark.parametrize("number", range(4))
def test_a_certificate_at_another_level_is_refused(
    vendors: Vendors, amd: AmdVendor, number: int
) -> None:
    levels = tuple(v + 1 if i == number else v for i, v in enumerate(LEVELS))
    refused("collateral_mismatch", lambda: under(amd, vendors, VCEK, amd.vcek(CHIP, levels)))


def test_a_certificate_of_another_chip_or_product_is_refused(
    vendors: Vendors, amd: AmdVendor
) -> None:
    other = bytes(64)
    refused("collateral_mismatch", lambda: under(amd, vendors, VCEK, amd.vcek(other, LEVELS)))
    milan = amd.vcek(CHIP, LEVELS, "Milan-B0")
    refused("collateral_mismatch", lambda: under(amd, vendors, VCEK, milan))


def test_a_stepping_after_the_products_name_is_fine(vendors: Vendors, amd: AmdVendor) -> None:
    assert under(amd, vendors, VCEK, amd.vcek(CHIP, LEVELS, "Genoa-B1"))


@pytest.mark.parametrize(
    "level", [b"", b"\x02", b"\x02\x00", b"\x04\x01\x54", b"\x02\x02\x54", b"\x02\x03\x00\x00\x54"]
)
def test_a_level_that_is_no_small_integer_is_refused(
    vendors: Vendors, amd: AmdVendor, level: bytes
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
        "SEV-VCEK", key, "SEV-Genoa", amd.ask_key, NOW, ca=False, extensions=tuple(extensions),
        pss=True,
    )  # fmt: skip
    refused("collateral_mismatch", lambda: under(amd, vendors, VCEK, der(found)))


def test_a_level_below_zero_is_not_the_one_above_it(vendors: Vendors, amd: AmdVendor) -> None:
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
            certify("SEV-VCEK", key, "SEV-Genoa", amd.ask_key, NOW, ca=False,
                    extensions=extensions, pss=True)
        )  # fmt: skip
        if taken:
            assert under(amd, vendors, asked, made)
        else:
            refused("collateral_mismatch", lambda made=made: under(amd, vendors, asked, made))


def test_a_chain_under_the_root_of_another_product_is_refused() -> None:
    milan = AmdVendor(NOW, "Milan")
    milan.ask = certify(
        "SEV-Genoa", milan.ask_key, "ARK-Milan", milan.ark_key, NOW, ca=True, pss=True
    )
    pinned = build(milan.anchors.pins)
    refused("collateral_mismatch", lambda: fetched(pinned, CHAIN, milan.chain()))


def test_a_chain_ends_with_its_root_where_that_is_first() -> None:
    amd = AmdVendor(NOW)
    amd.ark = certify(
        "ARK-Genoa", amd.ark_key, "ARK-Genoa", amd.ark_key, NOW, ca=True, pss=True,
        life=timedelta(days=1),
    )  # fmt: skip
    assert fetched(build(amd.anchors.pins), CHAIN, amd.chain()).expires == NOW + DAY_S


def test_a_chain_of_one_or_three_certificates_is_malformed(
    vendors: Vendors, amd: AmdVendor
) -> None:
    for certificates in ((amd.ark,), (amd.ask, amd.ark, amd.ark)):
        with pytest.raises(MalformedError):
            fetched(vendors, CHAIN, pem(*certificates).encode())


def test_a_chain_ends_with_the_first_of_its_certificates(vendors: Vendors, amd: AmdVendor) -> None:
    end = int(amd.ark.not_valid_after_utc.timestamp())
    piece = Piece(amd.chain())
    assert vendors.admit(CHAIN, piece, fetched_at=end - 1, now=end - 1).expires == end
    refused(
        "certificate_not_valid_at_time",
        lambda: vendors.admit(CHAIN, piece, fetched_at=end, now=end),
    )


def test_what_the_chain_did_not_sign_is_refused(vendors: Vendors, amd: AmdVendor) -> None:
    other = AmdVendor(NOW)
    crl = keys.amd("crl", "vcek", "Genoa")
    refused("chain_invalid", lambda: under(amd, vendors, VCEK, other.vcek(CHIP, LEVELS)))
    refused("crl_invalid", lambda: under(amd, vendors, crl, other.crl()))


def test_without_the_chain_at_hand_nothing_below_it_is_kept(
    vendors: Vendors, amd: AmdVendor
) -> None:
    bodies = {VCEK: amd.vcek(CHIP, LEVELS), keys.amd("crl", "vcek", "Genoa"): amd.crl()}
    for key, body in bodies.items():
        assert witnesses(key) == (CHAIN,)
        refused("collateral_missing", lambda key=key, body=body: fetched(vendors, key, body))


def test_a_list_is_kept_with_its_date(vendors: Vendors, amd: AmdVendor) -> None:
    assert under(amd, vendors, keys.amd("crl", "vcek", "Genoa"), amd.crl()).sequence == NOW - 60


def test_a_certificate_outside_its_validity_is_refused(vendors: Vendors, amd: AmdVendor) -> None:
    piece = Piece(amd.vcek(CHIP, LEVELS))
    for now in (NOW + 3700 * DAY_S, NOW - 400 * DAY_S):
        refused(
            "certificate_not_valid_at_time",
            lambda now=now: vendors.admit(
                VCEK, piece, fetched_at=now, now=now, chain=Piece(amd.chain())
            ),
        )


def test_the_chain_above_is_kept_under_a_pinned_root_only(vendors: Vendors, amd: AmdVendor) -> None:
    pieces = {CHAIN: fetched(vendors, CHAIN, amd.chain()).piece}
    ca, root = (compose(keys.amd(kind, "vcek", "Genoa"), pieces) for kind in ("ca", "root"))
    assert amd.anchors.trusts(root)
    assert not amd.anchors.trusts(ca)
    refused("untrusted_root", lambda: fetched(vendors, CHAIN, AmdVendor(NOW).chain()))
    refused("untrusted_root", lambda: fetched(build(NONE.pins), CHAIN, amd.chain()))


def test_a_chain_of_another_product_or_signer_is_refused(vendors: Vendors, amd: AmdVendor) -> None:
    for key in (keys.amd("chain", "vcek", "Milan"), keys.amd("chain", "vlek", "Genoa")):
        refused("collateral_mismatch", lambda key=key: fetched(vendors, key, amd.chain()))


def test_an_ask_that_the_ark_did_not_sign_is_refused(vendors: Vendors, amd: AmdVendor) -> None:
    body = pem(AmdVendor(NOW).ask, amd.ark).encode()
    refused("chain_invalid", lambda: fetched(vendors, CHAIN, body))


def test_a_chain_root_first_is_refused(vendors: Vendors, amd: AmdVendor) -> None:
    refused("untrusted_root", lambda: fetched(vendors, CHAIN, pem(amd.ark, amd.ask).encode()))


def test_amds_list_is_kept_for_its_product_and_window(vendors: Vendors, amd: AmdVendor) -> None:
    assert under(amd, vendors, keys.amd("crl", "vcek", "Genoa"), amd.crl()).expires == NOW + DAY_S
    milan = keys.amd("crl", "vcek", "Milan")
    refused("collateral_mismatch", lambda: under(amd, vendors, milan, amd.crl()))
    old = altered(amd, now=NOW - 2 * DAY_S).crl(ends=DAY_S)
    refused("crl_expired", lambda: under(amd, vendors, keys.amd("crl", "vcek", "Genoa"), old))


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


# ------------------------------------------------------------------ NVIDIA


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
            assert asked(build(frozenset()), early)
        else:
            refused(
                "collateral_not_yet_valid",
                lambda early=early: asked(build(frozenset()), early),
            )


def test_an_answer_that_names_no_end_ends_a_week_after_its_date_wherever_it_was_since() -> None:
    vendors, old = build(frozenset()), OcspVendor(NOW - 6 * DAY_S, ends=None)
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


# ------------------------------------------------------------------ key sets


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


# ------------------------------------------------------------------ all of them

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
        build(NONE.pins).admit(key, Piece(body, chain), fetched_at=NOW, now=NOW)
    except AnchorholdError:
        return
    assert key.kind == "rim"  # a manifest is opaque here


@given(st.data())
def test_mutated_pieces_are_refused_with_our_errors_only(
    vendors: Vendors, intel: IntelVendor, amd: AmdVendor, data: st.DataObject
) -> None:
    genuine = {
        TCB: Piece(intel.tcb("tdx", FMSPC.hex()), pem(intel.signer, intel.root)),
        keys.pck_crl("platform"): Piece(
            intel.pck_crl("platform"), pem(intel.cas["platform"], intel.root)
        ),
        CHAIN: Piece(amd.chain()),
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


def test_a_chain_beside_what_has_none_is_refused(vendors: Vendors, amd: AmdVendor) -> None:
    with pytest.raises(MalformedError):
        vendors.admit(CHAIN, Piece(amd.chain(), "x"), fetched_at=NOW, now=NOW)
