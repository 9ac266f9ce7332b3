"""AMD's Key Distribution Service: certificates of chips, the CAs above them, and their CRLs.

A VCEK is kept only if its own extensions name the chip and the firmware levels that were asked for:
an answer for another chip is no answer. It, and the CRL, must be signed by the chain's ASK and ARK;
the chain itself is kept only under a pinned ARK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from attestation.formats.pem import certificate, certificates
from attestation.verify.crl import check_crl, load_crl
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError, MalformedError

from .entry import BOUNDS, Checked, Piece
from .fetcher import Request
from .intel import crl_sequence

if TYPE_CHECKING:
    from attestation.anchors import Anchors
    from attestation.collateral_key import CollateralKey

    from .fetcher import Response
    from .services import Services

_AMD: Final = "1.3.6.1.4.1.3704.1"
PRODUCT_OID: Final = f"{_AMD}.2"
HWID_OID: Final = f"{_AMD}.4"
# Name in KDS queries and OID in the certificate, in the order that keys have.
LEVELS: Final = (
    ("blSPL", f"{_AMD}.3.1"),
    ("teeSPL", f"{_AMD}.3.2"),
    ("snpSPL", f"{_AMD}.3.3"),
    ("ucodeSPL", f"{_AMD}.3.8"),
)
TURIN_LEVELS: Final = (("fmcSPL", f"{_AMD}.3.9"), *LEVELS)
CHAIN_LEN: Final = 2  # ASK or ASVK, and ARK
_IA5: Final = 0x16
_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_SHORT: Final = 0x80  # lengths below it take one byte in DER
_DER_INT_MAX: Final = 2  # bytes that a level of 0 to 255 takes


def request(key: CollateralKey, services: Services) -> Request:
    """The question for one key."""
    kind = key.kind
    if kind == "vcek":
        _, product, hwid, tcb = key.parts
        names = (name for name, _ in _levels(product))
        query = "&".join(
            f"{name}={int(level):02}" for name, level in zip(names, tcb.split("."), strict=True)
        )
        path = f"vcek/v1/{product}/{hwid}?{query}"
    else:
        _, signer, product = key.parts
        path = f"{signer}/v1/{product}/{'cert_chain' if kind == 'chain' else 'crl'}"
    return Request(f"{services.amd_kds}/{path}", BOUNDS[kind].size, kind)


def unwrap(key: CollateralKey, response: Response) -> Piece:
    """KDS sends certificates and CRLs in DER, chains in PEM.

    Raises:
        MalformedError: a certificate that is neither DER nor PEM.
    """
    return Piece(certificate(response.body, "VCEK") if key.kind == "vcek" else response.body)


def check(
    key: CollateralKey, piece: Piece, anchors: Anchors, now: int, chain: Piece | None
) -> Checked:
    """Whether the piece is what its key says, genuine and in force.

    Args:
        key: what was asked.
        piece: what came.
        anchors: roots under which a chain counts.
        now: Unix seconds.
        chain: the admitted chain above a VCEK or a CRL.

    Raises:
        AttestationError: with a reason.
        MalformedError: it does not follow its format.
    """
    if key.kind == "chain":
        return _check_chain(key, piece, anchors, now)
    if chain is None:
        raise _refused("collateral_missing", f"AMD {key.kind}: the chain above it is not at hand")
    ask, ark = map(load_certificate, split_chain(chain))
    if key.kind == "vcek":
        return _check_vcek(key, piece, ask, now)
    return _check_crl(key, piece, ark, now)


def split_chain(piece: Piece) -> tuple[bytes, bytes]:
    """ASK (or ASVK) and ARK of a chain, DER.

    Raises:
        MalformedError: not these two.
    """
    found = certificates(piece.body, "AMD chain", CHAIN_LEN)
    if len(found) != CHAIN_LEN:
        raise MalformedError(f"AMD chain: found {len(found)} certificates, expected {CHAIN_LEN}")
    return found[0], found[1]


def _check_vcek(key: CollateralKey, piece: Piece, ask: x509.Certificate, now: int) -> Checked:
    _, product, hwid, tcb = key.parts
    found = load_certificate(piece.body)
    values = {
        extension.oid.dotted_string: extension.value.value
        for extension in found.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    chip = values.get(HWID_OID, b"")
    wanted = bytes.fromhex(hwid)
    if chip not in (wanted, bytes([_OCTETS, len(wanted)]) + wanted):
        raise _refused("collateral_mismatch", "VCEK: of another chip than asked for")
    name = _text(values.get(PRODUCT_OID, b""))
    if name.split("-")[0] != product:
        raise _refused("collateral_mismatch", "VCEK: of another product than asked for")
    for (level, oid), text in zip(_levels(product), tcb.split("."), strict=True):
        if _small(values.get(oid, b"")) != int(text):
            raise _refused("collateral_mismatch", f"VCEK: another {level} than asked for")
    _check_signed(found, ask, "VCEK: it is not signed by the ASK")
    return Checked(_until(found, now))


def _check_chain(key: CollateralKey, piece: Piece, anchors: Anchors, now: int) -> Checked:
    _, signer, product = key.parts
    ask_der, ark_der = split_chain(piece)
    if not anchors.trusts(ark_der):
        raise _refused("untrusted_root", "AMD chain: its ARK is not pinned")
    ask, ark = load_certificate(ask_der), load_certificate(ark_der)
    names = (f"SEV-VLEK-{product}" if signer == "vlek" else f"SEV-{product}", f"ARK-{product}")
    for found, expected in zip((ask, ark), names, strict=True):
        _check_name(found.subject, expected)
    _check_signed(ask, ark, "AMD chain: the ASK is not signed by the ARK")
    return Checked(min(_until(ask, now), _until(ark, now)))


def _check_crl(key: CollateralKey, piece: Piece, ark: x509.Certificate, now: int) -> Checked:
    _check_name(load_crl(piece.body).issuer, f"ARK-{key.parts[2]}")
    # Whom it revokes is for the verifier: a list refused here for naming the ASK would be absent
    # there, and a policy may do without a list.
    return Checked(check_crl(piece.body, ark, (), now), crl_sequence(piece.body))


def _check_signed(found: x509.Certificate, issuer: x509.Certificate, otherwise: str) -> None:
    try:
        found.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        raise _refused("chain_invalid", otherwise) from None


def _check_name(name: x509.Name, expected: str) -> None:
    found = [item.value for item in name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    if found != [expected]:
        raise _refused("collateral_mismatch", f"AMD: another name, expected {expected}")


def _until(found: x509.Certificate, now: int) -> int:
    until = int(found.not_valid_after_utc.timestamp())
    if until <= now or found.not_valid_before_utc.timestamp() > now:
        raise _refused("certificate_not_valid_at_time", "AMD: a certificate is not valid now")
    return until


def _levels(product: str) -> tuple[tuple[str, str], ...]:
    return TURIN_LEVELS if product == "Turin" else LEVELS


def _text(der: bytes) -> str:
    return der[2:].decode("ascii", "replace") if _exact(der, _IA5) else ""


def _small(der: bytes) -> int | None:
    exact = _exact(der, _INTEGER) and 0 < len(der) - 2 <= _DER_INT_MAX
    return int.from_bytes(der[2:], "big", signed=True) if exact else None


def _exact(der: bytes, tag: int) -> bool:
    return len(der) > 1 and der[0] == tag and der[1] == len(der) - 2 < _SHORT


def _refused(code: str, detail: str) -> AttestationError:
    return AttestationError(detail, reasons=(code,))
