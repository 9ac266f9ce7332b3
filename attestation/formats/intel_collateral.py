"""The set of Intel's statements and lists that a quote is verified with. Parse only.

Two forms of the same set reach a verifier:

    role `collateral`: JSON of nine members, as quote verifiers exchange it
        tcb_info, qe_identity (the signed texts), *_signature (hex), *_issuer_chain (PEM),
        pck_crl_issuer_chain (PEM), pck_crl and root_ca_crl (hex of DER);
        a tenth, pck_certificate_chain, may be there for quotes without one, and is never read
    one role a part: tcb_info, qe_identity (JSON as Intel sends it, {"tcbInfo": …, "signature":
        hex}), tcb_sign_chain, pck_sign_chain (PEM), pck_crl, root_crl (DER)

Never both: whichever was not read could be the list that revokes the platform.

The inner JSON text that a signature covers is cut out, never written again; what it says is for
`intel_statements` to read.

Source: Intel SGX and TDX Provisioning Certification Service API v4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from attestation.members import Members
from wire.canonical import parse_strict
from wire.errors import MalformedError

from .intel_statements import SIGNED_MAX, hexed
from .pck import CHAIN_PEM_MAX, Chain, parse_chain

if TYPE_CHECKING:
    from collections.abc import Mapping

COLLATERAL_MAX: Final = 256 * 1024  # the nine members are under 20 KiB; a CRL may grow
CRL_MAX: Final = 96 * 1024  # in hex it still fits into the whole
SIGNATURE_LEN: Final = 64

ROLES: Final = (
    "tcb_info", "qe_identity", "tcb_sign_chain", "pck_sign_chain", "pck_crl", "root_crl",
)  # fmt: skip

_MEMBERS: Final = (
    "pck_crl_issuer_chain", "root_ca_crl", "pck_crl", "tcb_info_issuer_chain", "tcb_info",
    "tcb_info_signature", "qe_identity_issuer_chain", "qe_identity", "qe_identity_signature",
)  # fmt: skip
_UNREAD: Final = ("pck_certificate_chain",)  # a quote that is accepted brings its own
_WRAPPED: Final = re.compile(
    rb'\{"(tcbInfo|enclaveIdentity)":(\{.*\}),"signature":"([0-9A-Fa-f]{128})"\}\s*', re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Collateral:
    """The set, cut apart; unverified.

    Attributes:
        tcb_info, qe_identity: the signed JSON texts, byte for byte.
        tcb_info_signature, qe_identity_signature: raw r and s, 64 bytes.
        tcb_chain, qe_chain, pck_chain: issuers of the two statements and of the PCK CRL.
        pck_crl, root_crl: as given; DER is checked where they are read.
    """

    tcb_info: bytes
    tcb_info_signature: bytes
    tcb_chain: Chain
    qe_identity: bytes
    qe_identity_signature: bytes
    qe_chain: Chain
    pck_chain: Chain
    pck_crl: bytes
    root_crl: bytes


def parse_collateral(roles: Mapping[str, bytes]) -> Collateral:
    """The set in either form.

    Args:
        roles: role name to bytes; either `collateral` or all of `ROLES`.

    Raises:
        MalformedError: a part is missing or not of its form, or both forms are there.
    """
    whole = roles.get("collateral")
    if whole is None:
        return _from_roles(roles)
    beside = [role for role in ROLES if role in roles]
    if beside:
        raise MalformedError(f"collateral: found {', '.join(beside)} beside it, expected one form")
    members = Members(
        parse_strict(whole, max_bytes=COLLATERAL_MAX),
        "collateral",
        required=_MEMBERS,
        optional=_UNREAD,
    )
    tcb_chain_text = _text(members, "tcb_info_issuer_chain")
    qe_chain_text = _text(members, "qe_identity_issuer_chain")
    tcb_chain = _chain(tcb_chain_text, "TCB signing chain")
    same = tcb_chain_text == qe_chain_text
    return Collateral(
        tcb_info=_text(members, "tcb_info"),
        tcb_info_signature=hexed(members, "tcb_info_signature", SIGNATURE_LEN, SIGNATURE_LEN),
        tcb_chain=tcb_chain,
        qe_identity=_text(members, "qe_identity"),
        qe_identity_signature=hexed(members, "qe_identity_signature", SIGNATURE_LEN, SIGNATURE_LEN),
        qe_chain=tcb_chain if same else _chain(qe_chain_text, "QE identity chain"),
        pck_chain=_chain(_text(members, "pck_crl_issuer_chain"), "PCK CRL chain"),
        pck_crl=hexed(members, "pck_crl", 1, CRL_MAX),
        root_crl=hexed(members, "root_ca_crl", 1, CRL_MAX),
    )


def _from_roles(roles: Mapping[str, bytes]) -> Collateral:
    absent = [role for role in ROLES if role not in roles]
    if absent:
        raise MalformedError(f"collateral: {', '.join(absent)} missing, expected all parts")
    tcb_info, tcb_signature = _unwrap(roles["tcb_info"], b"tcbInfo", "TCB info")
    identity, signature = _unwrap(roles["qe_identity"], b"enclaveIdentity", "QE identity")
    chain = _chain(roles["tcb_sign_chain"], "TCB signing chain")
    for role in ("pck_crl", "root_crl"):
        if not 1 <= len(roles[role]) <= CRL_MAX:
            raise MalformedError(f"{role}: found {len(roles[role])} bytes, expected 1 to {CRL_MAX}")
    return Collateral(
        tcb_info=tcb_info,
        tcb_info_signature=tcb_signature,
        tcb_chain=chain,
        qe_identity=identity,
        qe_identity_signature=signature,
        qe_chain=chain,
        pck_chain=_chain(roles["pck_sign_chain"], "PCK CRL chain"),
        pck_crl=roles["pck_crl"],
        root_crl=roles["root_crl"],
    )


def _unwrap(raw: bytes, name: bytes, where: str) -> tuple[bytes, bytes]:
    """The signed text and its signature from {"<name>": text, "signature": hex}."""
    if len(raw) > SIGNED_MAX:
        raise MalformedError(f"{where}: found {len(raw)} bytes, expected ≤ {SIGNED_MAX}")
    found = _WRAPPED.fullmatch(raw)
    if found is None or found[1] != name:
        raise MalformedError(f"{where}: expected the signed object and its signature, nothing else")
    return found[2], bytes.fromhex(found[3].decode("ascii"))


def _text(members: Members, key: str) -> bytes:
    value: Any = members.value(key)
    if not isinstance(value, str) or not value or len(value) > SIGNED_MAX:
        raise members.fail(key, f"a text of 1 to {SIGNED_MAX} characters")
    return value.encode("utf-8")


def _chain(pem: bytes, what: str) -> Chain:
    if len(pem) > CHAIN_PEM_MAX:
        raise MalformedError(f"{what}: found {len(pem)} bytes, expected ≤ {CHAIN_PEM_MAX}")
    chain = parse_chain(pem, what)
    if not chain.pem:
        raise MalformedError(f"{what}: found DER, expected PEM")
    return chain
