"""Intel's Provisioning Certification Service, version 4, and PCCS mirrors of it.

`request` asks, `unwrap` takes the protocol's packing off, `check` decides whether the piece may be
kept under its key: right kind, right platform, signed under a pinned root, in force. A PCCS answers
the same paths; it sends the root CRL as hex text.
"""

from __future__ import annotations

import binascii
import warnings
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from attestation.formats.pem import certificates
from attestation.verify.crl import check_crl, load_crl
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError, MalformedError

from .entry import BOUNDS, CHAIN_MAX, Checked, Piece
from .fetcher import Request
from .signed_json import (
    check_window,
    evaluation_number,
    parse_statement,
    verify_statement,
)

if TYPE_CHECKING:
    from attestation.anchors import Anchors
    from attestation.collateral_key import CollateralKey

    from .fetcher import Response
    from .services import Services

CHAIN_HEADERS: Final = {
    "tcb": ("tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"),
    "qe": ("sgx-enclave-identity-issuer-chain",),
    "pck-crl": ("sgx-pck-crl-issuer-chain",),
}
CRL_CHAIN_LEN: Final = 2  # the PCK CA and the root
_TCB_VERSION: Final = 3
_QE_VERSION: Final = 2
_TCB_ID: Final = {"sgx": "SGX", "tdx": "TDX"}
_QE_ID: Final = {"sgx": "QE", "tdx": "TD_QE"}
_CA_NAME: Final = {
    "processor": "Intel SGX PCK Processor CA",
    "platform": "Intel SGX PCK Platform CA",
}
_ROOT_NAME: Final = "Intel SGX Root CA"


def request(key: CollateralKey, services: Services) -> Request:
    """The question for one key; the key's fields are checked, the rest is configuration."""
    kind, *fields = key.parts
    base = services.intel_pcs
    limit = BOUNDS[kind].size
    if kind == "tcb":
        tee, fmspc, *policy = fields
        url = f"{base}/{tee}/certification/v4/tcb?fmspc={fmspc}{_update('&', policy)}"
    elif kind == "qe":
        tee, *policy = fields
        url = f"{base}/{tee}/certification/v4/qe/identity{_update('?', policy)}"
    elif kind == "pck-crl":
        url = f"{base}/sgx/certification/v4/pckcrl?ca={fields[0]}&encoding=der"
    else:
        url, limit = services.intel_root_crl, 2 * limit  # room for hex
    return Request(url, limit, key.kind)


def unwrap(key: CollateralKey, response: Response) -> Piece:
    """Body, and the issuer chain from its header.

    Raises:
        MalformedError: the header is missing or too long.
    """
    if key.kind == "root-crl":
        return Piece(_der(response.body))
    names = CHAIN_HEADERS[key.kind]
    packed = next((response.headers[name] for name in names if name in response.headers), None)
    if packed is None or len(packed) > 2 * CHAIN_MAX:
        raise MalformedError(f"{key.kind}: expected an issuer chain in the header {names[0]}")
    chain = unquote(packed)
    body = _der(response.body) if key.kind == "pck-crl" else response.body
    return Piece(body, chain)


def check(
    key: CollateralKey, piece: Piece, anchors: Anchors, now: int, chain: Piece | None
) -> Checked:
    """Whether the piece is what its key says, genuine and in force.

    Args:
        key: what was asked.
        piece: what came.
        anchors: roots under which it counts.
        now: Unix seconds.
        chain: for the root CRL, which comes without its issuer: a piece that came with the root.

    Raises:
        AttestationError: with a reason.
        MalformedError: it does not follow its format.
    """
    if key.kind == "pck-crl":
        return _check_pck_crl(key, piece, anchors, now)
    if key.kind == "root-crl":
        return _check_root_crl(piece, anchors, now, chain)
    member = "tcbInfo" if key.kind == "tcb" else "enclaveIdentity"
    statement = parse_statement(piece.body, member, BOUNDS[key.kind].size)
    until = verify_statement(statement, piece, anchors, now)
    found = statement.fields
    tee = key.parts[1]
    if key.kind == "tcb":
        expected, version = _TCB_ID[tee], _TCB_VERSION
        fmspc = found.get("fmspc")
        if not isinstance(fmspc, str) or fmspc.lower() != key.parts[2]:
            raise _refused("collateral_fmspc_mismatch", "TCB info of another platform family")
    else:
        expected, version = _QE_ID[tee], _QE_VERSION
    if found.get("id") != expected or found.get("version") != version:
        code = "collateral_mismatch" if key.kind == "tcb" else "qe_identity_wrong_type"
        raise _refused(code, f"{member}: expected id {expected}, version {version}")
    return Checked(min(until, check_window(found, now)), evaluation_number(found))


def _check_pck_crl(key: CollateralKey, piece: Piece, anchors: Anchors, now: int) -> Checked:
    issuer, root = map(load_certificate, _chain(piece, anchors))
    try:
        issuer.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        raise _refused("chain_invalid", "the issuer is not signed by the root") from None
    _check_name(issuer.subject, _CA_NAME[key.parts[1]])
    return Checked(check_crl(piece.body, issuer, (), now), crl_sequence(piece.body))


def _chain(piece: Piece, anchors: Anchors) -> tuple[bytes, bytes]:
    """The PCK CA and the pinned root beside a PCK CRL."""
    found = certificates(piece.chain.encode("ascii", "replace"), "issuer chain", CRL_CHAIN_LEN)
    if len(found) != CRL_CHAIN_LEN:
        raise MalformedError(
            f"issuer chain: found {len(found)} certificates, expected {CRL_CHAIN_LEN}"
        )
    if not anchors.trusts(found[1]):
        raise _refused("untrusted_root", "the issuer chain does not end in a pinned root")
    return found[0], found[1]


def _check_root_crl(piece: Piece, anchors: Anchors, now: int, chain: Piece | None) -> Checked:
    crl = load_crl(piece.body)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a hostile name must not choose what is printed
        issuer = crl.issuer
    _check_name(issuer, _ROOT_NAME)
    if crl.next_update_utc is None or crl.next_update_utc.timestamp() <= now:
        raise _refused("collateral_expired", "the root CRL's next update is past")
    if chain is None:
        raise _refused("collateral_missing", "Intel root-crl: no chain with the root is at hand")
    # Unchecked, one forged list would stand in the genuine one's place for a day.
    root = load_certificate(_chain(chain, anchors)[1])
    return Checked(check_crl(piece.body, root, (), now), crl_sequence(piece.body))


def _check_name(name: x509.Name, expected: str) -> None:
    found = [item.value for item in name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    if found != [expected]:
        raise _refused("collateral_mismatch", f"CRL: another issuer's, expected {expected}")


def crl_sequence(der: bytes) -> int:
    """A verified CRL's date, which never falls in later ones: Intel's all have the number 1."""
    return max(0, int(load_crl(der).last_update_utc.timestamp()))


def _der(body: bytes) -> bytes:
    """A CRL in DER; PCCS mirrors send it as hex text, which starts with the digits of 0x30."""
    if body[:2] != b"30":
        return body
    try:
        return binascii.unhexlify(body.strip())
    except binascii.Error:
        raise MalformedError("CRL: expected DER, or the hex text of a PCCS") from None


def _update(separator: str, policy: list[str]) -> str:
    return f"{separator}update={policy[0] if policy else 'standard'}"


def _refused(code: str, detail: str) -> AttestationError:
    return AttestationError(detail, reasons=(code,))
