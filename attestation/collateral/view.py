"""From stored entries to the bytes a scheme asked for: several in one, or a part of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_der_x509_certificate

from attestation.collateral_key import AMD_KDS, INTEL_PCS, CollateralKey, pck_crl, root_crl
from attestation.formats.pem import certificates
from wire.canonical import encode

from .amd import split_chain
from .entry import BOUNDS
from .signed_json import parse_statement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .entry import Piece


def rests_on(key: CollateralKey) -> tuple[CollateralKey, ...]:
    """The stored keys whose entries give the bytes of `key`; itself, for most."""
    kind, *fields = key.parts
    if key.source == INTEL_PCS and kind == "collateral":
        tee, fmspc, ca, *early = fields
        names = (
            "/".join(("tcb", tee, fmspc, *early)),
            "/".join(("qe", tee, *early)),
            f"pck-crl/{ca}",
            "root-crl",
        )
        return tuple(CollateralKey(INTEL_PCS, name) for name in names)
    if key.source == INTEL_PCS and kind in {"pck-chain", "root"}:
        return (CollateralKey(INTEL_PCS, f"pck-crl/{fields[0]}"),)
    if key.source == AMD_KDS and kind in {"ca", "root"}:
        return (CollateralKey(AMD_KDS, f"chain/{fields[0]}/{fields[1]}"),)
    return (key,)


def witnesses(key: CollateralKey) -> tuple[CollateralKey, ...]:
    """The stored keys, any one of whose entries checks the signature of `key`'s; none for most.

    AMD sends certificates and lists without their issuers, Intel the list of its root. Unchecked, a
    mirror could fill the cache with what verifiers then refuse for a month.
    """
    if key == root_crl():
        return pck_crl("platform"), pck_crl("processor")
    if key.source == AMD_KDS and key.kind in {"vcek", "crl"}:
        signer, product = ("vcek", key.parts[1]) if key.kind == "vcek" else key.parts[1:3]
        return (CollateralKey(AMD_KDS, f"chain/{signer}/{product}"),)
    return ()


def compose(key: CollateralKey, pieces: Mapping[CollateralKey, Piece]) -> bytes:
    """The bytes of `key`.

    Args:
        key: what a scheme asked for.
        pieces: those of `rests_on(key)`, each admitted under its own key.

    Raises:
        MalformedError: a stored piece is not what was admitted.
    """
    found = [pieces[stored] for stored in rests_on(key)]
    if key.kind == "collateral":
        return _nine_members(*found)
    if key.source == AMD_KDS and key.kind in {"ca", "root"}:
        ask, ark = split_chain(found[0])
        return ask if key.kind == "ca" else ark
    if key.kind == "pck-chain":
        return found[0].chain.encode()
    if key.kind == "root":
        return certificates(found[0].chain.encode(), "issuer chain")[-1]
    return found[0].body


def _nine_members(tcb: Piece, qe: Piece, pck_list: Piece, root_list: Piece) -> bytes:
    info = parse_statement(tcb.body, "tcbInfo", BOUNDS["tcb"].size)
    identity = parse_statement(qe.body, "enclaveIdentity", BOUNDS["qe"].size)
    return encode(
        {
            "tcb_info": info.raw.decode(),
            "tcb_info_signature": info.signature.hex(),
            "tcb_info_issuer_chain": _pem(tcb),
            "qe_identity": identity.raw.decode(),
            "qe_identity_signature": identity.signature.hex(),
            "qe_identity_issuer_chain": _pem(qe),
            "pck_crl": pck_list.body.hex(),
            "pck_crl_issuer_chain": _pem(pck_list),
            "root_ca_crl": root_list.body.hex(),
        }
    )


def _pem(piece: Piece) -> str:
    """The issuer chain in one spelling, whatever the service's line breaks were."""
    chain = certificates(piece.chain.encode(), "issuer chain")
    return "".join(
        load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM).decode()
        for der in chain
    )
