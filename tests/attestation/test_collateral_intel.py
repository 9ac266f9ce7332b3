"""Intel's signed statements are kept only if they are what was asked for, genuine and in force."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from simulators.kept_collateral import FMSPC, NOW, QE, TCB, fetched, refused, vendors_under
from simulators.vendor_collateral import DAY_S, IntelVendor, certify, pem, stamp

from attestation import collateral_key as keys
from attestation.collateral.entry import CHAIN_MAX, Entry, Piece
from attestation.collateral.services import Services
from attestation.collateral.vendors import Vendors
from attestation.collateral.view import compose, rests_on, witnesses
from wire.errors import AttestationError, MalformedError
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Callable


def tcb(vendors: Vendors, pcs: IntelVendor, **changes: Any) -> Entry:
    chain = pcs.header(pcs.signer)
    return fetched(
        vendors, TCB, pcs.tcb("tdx", FMSPC.hex(), **changes), tcb_info_issuer_chain=chain
    )


def qe(vendors: Vendors, pcs: IntelVendor, tee: str = "tdx", **changes: Any) -> Entry:
    chain = pcs.header(pcs.signer)
    body = pcs.qe(tee, **changes)
    return fetched(vendors, QE, body, sgx_enclave_identity_issuer_chain=chain)


def test_tcb_info_is_kept_with_its_number_for_at_most_a_day(
    vendors: Vendors, pcs: IntelVendor
) -> None:
    entry = tcb(vendors, pcs)
    assert entry.sequence == 17
    assert entry.expires == NOW + DAY_S


def test_the_vendors_own_end_comes_first_where_it_is_earlier(
    vendors: Vendors, pcs: IntelVendor
) -> None:
    soon = "2026-09-21T14:13:25Z"
    entry = tcb(vendors, pcs, nextUpdate=soon)
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
    vendors: Vendors, pcs: IntelVendor, changes: dict[str, Any], code: str
) -> None:
    refused(code, lambda: tcb(vendors, pcs, **changes))


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
    vendors: Vendors, pcs: IntelVendor, changes: dict[str, Any]
) -> None:
    with pytest.raises(MalformedError):
        tcb(vendors, pcs, **changes)


def test_the_sgx_identity_is_no_tdx_identity(vendors: Vendors, pcs: IntelVendor) -> None:
    assert qe(vendors, pcs).sequence == 17
    refused("qe_identity_wrong_type", lambda: qe(vendors, pcs, "sgx"))


def test_one_flipped_bit_in_signed_json_is_refused(vendors: Vendors, pcs: IntelVendor) -> None:
    body = pcs.tcb("tdx", FMSPC.hex()).replace(b'"pcesvn":11', b'"pcesvn":10')
    chain = pcs.header(pcs.signer)
    refused("signature_invalid", lambda: fetched(vendors, TCB, body, tcb_info_issuer_chain=chain))


def test_signed_json_that_was_spelled_again_is_refused(vendors: Vendors, pcs: IntelVendor) -> None:
    body = pcs.tcb("tdx", FMSPC.hex()).replace(b'"pcesvn":11', b'"pcesvn": 11')
    chain = pcs.header(pcs.signer)
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
    vendors: Vendors, pcs: IntelVendor, name: str
) -> None:
    body = AROUND[name](pcs.tcb("tdx", FMSPC.hex()))
    with pytest.raises(MalformedError):
        fetched(vendors, TCB, body, tcb_info_issuer_chain=pcs.header(pcs.signer))


def test_a_root_that_looks_alike_vouches_for_nothing(vendors: Vendors) -> None:
    other = IntelVendor(NOW)
    refused("untrusted_root", lambda: tcb(vendors, other))


def test_a_pinned_root_that_did_not_issue_the_signer_vouches_for_nothing(
    vendors: Vendors, pcs: IntelVendor
) -> None:
    other = IntelVendor(NOW)
    body = other.tcb("tdx", FMSPC.hex())
    piece = Piece(body, pem(other.signer, pcs.root))
    with pytest.raises(AttestationError):
        vendors.admit(TCB, piece, fetched_at=NOW, now=NOW)


def test_a_chain_without_its_header_or_of_another_length_is_malformed(
    vendors: Vendors, pcs: IntelVendor
) -> None:
    body = pcs.tcb("tdx", FMSPC.hex())
    with pytest.raises(MalformedError, match="issuer chain"):
        fetched(vendors, TCB, body)
    for chain in (pem(pcs.signer), pem(pcs.root, pcs.root, pcs.root), "", "x"):
        with pytest.raises(MalformedError):
            fetched(vendors, TCB, body, tcb_info_issuer_chain=chain)


def test_a_chain_in_a_header_is_bounded(vendors: Vendors, pcs: IntelVendor) -> None:
    body = pcs.tcb("tdx", FMSPC.hex())
    escaped = "%41" * (2 * CHAIN_MAX // 3 + 1)  # too long to be taken apart, short after that
    with pytest.raises(MalformedError, match="expected an issuer chain in the header"):
        fetched(vendors, TCB, body, tcb_info_issuer_chain=escaped)


def test_what_a_certificate_signed_ends_with_it(vendors: Vendors) -> None:
    pcs = IntelVendor(NOW)
    pcs.signer = certify(
        "Intel SGX TCB Signing", pcs.signer_key, "Intel SGX Root CA", pcs.root_key, NOW,
        ca=False, life=timedelta(hours=1),
    )  # fmt: skip
    body, chain = pcs.tcb("tdx", FMSPC.hex()), pcs.header(pcs.signer)
    found = fetched(vendors_under(pcs.anchors.pins), TCB, body, tcb_info_issuer_chain=chain)
    assert found.expires == NOW + 3600


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
    vendors: Vendors, pcs: IntelVendor
) -> None:
    assert tcb(vendors, pcs, nextUpdate=clock(1)).expires == NOW + 1
    refused("collateral_expired", lambda: tcb(vendors, pcs, nextUpdate=clock(0)))
    assert tcb(vendors, pcs, issueDate=clock(CLOCK_SKEW_S))
    late = clock(CLOCK_SKEW_S + 1)
    refused("collateral_not_yet_valid", lambda: tcb(vendors, pcs, issueDate=late))


@pytest.mark.parametrize(("number", "fine"), [(0, True), (2**31 - 1, True), (2**31, False)])
def test_a_number_is_small(vendors: Vendors, pcs: IntelVendor, number: int, fine: bool) -> None:
    if fine:
        assert tcb(vendors, pcs, tcbEvaluationDataNumber=number).sequence == number
    else:
        with pytest.raises(MalformedError):
            tcb(vendors, pcs, tcbEvaluationDataNumber=number)


def test_signed_json_under_a_key_of_another_kind_is_refused(
    vendors: Vendors, pcs: IntelVendor
) -> None:
    for key in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        signer = certify(
            "Intel SGX TCB Signing", key, "Intel SGX Root CA", pcs.root_key, NOW, ca=False
        )
        piece = Piece(pcs.tcb("tdx", FMSPC.hex()), pem(signer, pcs.root))
        refused("chain_invalid", lambda p=piece: vendors.admit(TCB, p, fetched_at=NOW, now=NOW))
