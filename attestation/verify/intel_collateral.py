"""Intel's collateral: that it holds now, fits the quote, and is Intel's.

Steps:
 1. TCB info and QE identity are within their dates, both ends included, or issued so little ahead
    of our clock that honest clocks differ by as much;
 2. they are for this TEE, platform family and provisioning enclave, and the PCK CRL comes with the
    CA that issued this platform's certificate;
 3. both are signed by a certificate that the pinned root issued for statements;
 4. neither that certificate, nor the PCK, nor its CA, nor the root is revoked, by whole lists that
    hold now, of issuers that may sign lists.

Reason codes: `collateral_expired`, `collateral_not_yet_valid` (1), `collateral_fmspc_mismatch`,
`qe_identity_wrong_type`, `chain_invalid` (2), `untrusted_root`, `chain_invalid`,
`certificate_not_valid_at_time`, `signature_invalid` (3), `crl_invalid`, `crl_not_yet_valid`,
`crl_expired`, `revoked` (4).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID, NameOID

from attestation.formats.x509_errors import UNREADABLE
from wire.errors import refused
from wire.limits import CLOCK_SKEW_S

from .crl import check_crl, check_dates, load_crl
from .dcap_quote import check_form, check_signature, p256, read
from .x509 import check_standing, issued_by, load_certificate, verify_chain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

    from attestation.formats.dcap_quote import Quote
    from attestation.formats.intel_collateral import Collateral
    from attestation.formats.intel_statements import QeIdentity, TcbInfo
    from attestation.formats.pck import Chain, Pck

    from .dcap_quote import Certified

_refused: Final = partial(refused, about="collateral")
_SIGNER: Final = "Intel SGX TCB Signing"
_PARTIAL: Final = (ExtensionOID.DELTA_CRL_INDICATOR, ExtensionOID.ISSUING_DISTRIBUTION_POINT)


def check_statement_dates(
    info: TcbInfo, identity: QeIdentity, now: int, *, skew: int = CLOCK_SKEW_S
) -> int:
    """Both statements hold now (step 1); returns the Unix second at which the first one ends.

    Raises:
        AttestationError: `collateral_expired` or `collateral_not_yet_valid`.
    """
    for what, statement in (("TCB info", info), ("QE identity", identity)):
        if now + skew < statement.issued:
            raise _refused(
                "collateral_not_yet_valid",
                f"{what}: found issue date {statement.issued}, expected at most {now} and {skew} s",
            )
        if now > statement.expires:
            raise _refused(
                "collateral_expired",
                f"{what}: found next update {statement.expires}, expected {now} or later",
            )
    return min(info.expires, identity.expires)


def check_match(
    quote: Quote,
    pck: Pck,
    issuers: Sequence[bytes],
    roots: Sequence[bytes],
    collateral: Collateral,
    info: TcbInfo,
    identity: QeIdentity,
) -> str:
    """The statements are about this quote's platform (step 2).

    Args:
        quote, pck: of the platform.
        issuers: DER of the certificates above the PCK's in the quote.
        roots: DER of the pinned roots; a statement's signer has no other certificate above it.
        collateral, info, identity: as parsed.

    Raises:
        AttestationError: the codes of step 2.
    """
    if info.id != quote.tee:
        raise _refused(
            "collateral_fmspc_mismatch", f"TCB info: found {info.id}, expected {quote.tee}"
        )
    if (info.fmspc, info.pceid) != (pck.fmspc, pck.pceid):
        raise _refused(
            "collateral_fmspc_mismatch",
            f"TCB info: found FMSPC {info.fmspc.hex()}, PCEID {info.pceid.hex()}, "
            f"expected {pck.fmspc.hex()}, {pck.pceid.hex()}",
        )
    expected = "TD_QE" if quote.tee == "TDX" else "QE"
    if identity.id != expected:
        raise _refused(
            "qe_identity_wrong_type", f"QE identity: found {identity.id}, expected {expected}"
        )
    _check_crl_issuer(collateral.pck_chain, pck, issuers, roots)
    for chain in (collateral.tcb_chain, collateral.qe_chain, collateral.pck_chain):
        if any(der not in roots for der in chain.ders[1:]):
            raise _refused("chain_invalid", "issuer chain: found more than one link to the root")
    return f"FMSPC {info.fmspc.hex()}, TCB evaluation {info.eval_number}"


def check_signers(collateral: Collateral, now: int) -> int:
    """The statements' signers, whose certificates were verified, are certified for statements.

    One that a platform holds, such as a PCK, must not pass for Intel's word on all platforms.

    Returns:
        Unix second at which the first of their certificates ends.

    Raises:
        AttestationError: `chain_invalid`, `certificate_not_valid_at_time`.
    """
    ends = []
    for chain in dict.fromkeys((collateral.tcb_chain, collateral.qe_chain)):
        signer = read(chain.ders[0])
        check_form(signer)
        names = signer.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if [name.value for name in names] != [_SIGNER]:
            raise _refused("chain_invalid", f'statement signer: expected "{_SIGNER}"')
        ends.append(check_standing((signer,), now))
    return min(ends)


def verify_signatures(collateral: Collateral, root: bytes, now: int) -> None:
    """Both statements are signed under the pinned root (step 3).

    Raises:
        AttestationError: the codes of step 3.
    """
    key = _signer(collateral.tcb_chain, root, now)
    check_signature(key, collateral.tcb_info_signature, collateral.tcb_info, "TCB info")
    if collateral.qe_chain != collateral.tcb_chain:
        key = _signer(collateral.qe_chain, root, now)
    check_signature(key, collateral.qe_identity_signature, collateral.qe_identity, "QE identity")


def check_list_dates(collateral: Collateral, now: int, *, skew: int = CLOCK_SKEW_S) -> int:
    """Both lists are whole and hold now (step 4).

    Returns:
        Unix second at which the first one ends.

    Raises:
        AttestationError: `crl_invalid`, `crl_not_yet_valid` or `crl_expired`.
    """
    ends = []
    for der in (collateral.pck_crl, collateral.root_crl):
        crl = load_crl(der)
        # Critical or not: what a part of a list does not name may stand in another part.
        if any(extension.oid in _PARTIAL for extension in crl.extensions):
            raise _refused("crl_invalid", "revocation list: found a part, expected the whole")
        if not isinstance(crl.signature_hash_algorithm, hashes.SHA256):
            raise _refused("crl_invalid", "revocation list: expected it signed with SHA-256")
        ends.append(check_dates(crl, now, skew=skew))
    return min(ends)


def check_list_issuers(issuers: Iterable[x509.Certificate]) -> str:
    """The issuers of the two lists, whose signatures were verified, may sign lists (step 4).

    Raises:
        AttestationError: `crl_invalid`.
    """
    for issuer in issuers:
        for extension in issuer.extensions:
            if isinstance(extension.value, x509.KeyUsage) and not extension.value.crl_sign:
                raise _refused(
                    "crl_invalid",
                    "revocation list: its issuer may not sign lists",
                    case_of="chain_invalid",
                )
    return "by dcap-qvl"


def check_revocation(
    collateral: Collateral, certified: Certified, now: int, *, skew: int = CLOCK_SKEW_S
) -> str:
    """Nothing in the chains is revoked (step 4).

    Raises:
        AttestationError: the codes of step 4.
    """
    *below, root = (load_certificate(der) for der in certified.chain)
    signers = [_leaf(collateral.tcb_chain), _leaf(collateral.qe_chain)]
    check_crl(collateral.pck_crl, below[1], below[:1], now, skew=skew)
    check_crl(collateral.root_crl, root, [below[1], *signers, root], now, skew=skew)
    for der in (collateral.pck_crl, collateral.root_crl):
        _check_entries(der)
    return "nothing is on the two lists"


def _check_entries(der: bytes) -> None:
    try:
        critical = any(
            extension.critical for entry in load_crl(der) for extension in entry.extensions
        )
    except UNREADABLE:
        raise _refused("crl_invalid", "revocation list: an entry does not parse") from None
    if critical:  # such as one that says whose certificate the entry is about
        raise _refused("crl_invalid", "revocation list: found a critical extension of an entry")


def _check_crl_issuer(
    chain: Chain, pck: Pck, issuers: Sequence[bytes], roots: Sequence[bytes]
) -> None:
    if chain.ders[0] in issuers:  # nearly always, and it spares the rest
        return
    ca = _leaf(chain)  # the CA's certificate was issued again since the quote was made, or is no CA
    if ca.subject != pck.certificate.issuer or not any(
        issued_by(ca, load_certificate(root)) for root in roots
    ):
        raise _refused("chain_invalid", "PCK CRL chain: of another CA than this PCK's")


def _signer(chain: Chain, root: bytes, now: int) -> ec.EllipticCurvePublicKey:
    leaf, _ = verify_chain(chain.ders[0], chain.ders[1:], (root,), now)
    return p256(leaf)


def _leaf(chain: Chain) -> x509.Certificate:
    return load_certificate(chain.ders[0])
