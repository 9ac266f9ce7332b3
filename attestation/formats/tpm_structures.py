"""TPM 2.0 structures as they appear in quotes: big-endian, length-prefixed. Parse only.

Source: TCG TPM 2.0 Library Specification, Part 2 (Structures), revision 1.59. Every structure must
fill its bytes exactly; an algorithm, curve or type this module does not know is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from wire.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

GENERATED: Final = 0xFF544347  # TPM_GENERATED_VALUE: "\xffTCG", which no restricted key signs
#                                unless the TPM itself made the message
ST_ATTEST_QUOTE: Final = 0x8018
HASHES: Final[Mapping[int, str]] = MappingProxyType(
    {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
)
ALG_RSA, ALG_NULL, ALG_RSAES, ALG_OAEP = 0x0001, 0x0010, 0x0015, 0x0017
ALG_RSASSA, ALG_RSAPSS, ALG_ECDSA = 0x0014, 0x0016, 0x0018
ALG_ECC = 0x0023
CURVES: Final[Mapping[int, ec.EllipticCurve]] = MappingProxyType(
    {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1()}
)
RSA_BITS: Final = (2048, 3072, 4096)
RSA_EXPONENT_DEFAULT: Final = 65537

FIXED_TPM, FIXED_PARENT, SENSITIVE_DATA_ORIGIN = 1 << 1, 1 << 4, 1 << 5
RESTRICTED, DECRYPT, SIGN = 1 << 16, 1 << 17, 1 << 18

SELECTIONS_MAX: Final = 4  # PCR banks in one quote
PCR_BYTES_MAX: Final = 4  # 32 registers; platforms have 24
BLOB_MAX: Final = 1024  # no TPM2B in these structures is longer
TPM2B_MAX: Final = 4096
DER_PAIR_MAX: Final = 144  # two integers of a 521-bit curve


@dataclass(frozen=True, slots=True)
class Selection:
    """One bank's selected registers, ascending."""

    bank: str
    registers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quote:
    """TPMS_ATTEST of type quote; unverified.

    Attributes:
        signer: qualified name of the signing key.
        extra_data: the caller's bytes.
        clock: milliseconds the TPM has been powered.
        resets, restarts: how often it was.
        safe: whether `clock` has not gone back.
        firmware: vendor's version number.
        selections: registers the digest covers, in order.
        pcr_digest: digest over the selected registers' values.
        raw: the signed bytes.
    """

    signer: bytes
    extra_data: bytes
    clock: int
    resets: int
    restarts: int
    safe: bool
    firmware: int
    selections: tuple[Selection, ...]
    pcr_digest: bytes
    raw: bytes

    @property
    def covered(self) -> tuple[Selection, ...]:
        """The selections with registers; all of them if none has any.

        Without are the banks that were asked for and that the TPM does not keep.
        """
        return tuple(each for each in self.selections if each.registers) or self.selections


@dataclass(frozen=True, slots=True)
class Signature:
    """TPMT_SIGNATURE: scheme and hash ids, then RSA bytes or the ECDSA pair."""

    scheme: int
    hash_name: str
    rsa: bytes
    r: int
    s: int


@dataclass(frozen=True, slots=True)
class Public:
    """TPM2B_PUBLIC; unverified.

    Attributes:
        attributes: TPMA_OBJECT bits.
        scheme: signing scheme id, ALG_NULL for none.
        scheme_hash: the scheme's hash, "" for none.
        symmetric: (algorithm, bits, mode) of a storage key's protection, zeros for none.
        name: TPM name computed over these bytes by us: u16 hash id ‖ digest.
        name_hash: the hash in the name.
        key: the public key.
        raw: the bytes as received.
    """

    attributes: int
    scheme: int
    scheme_hash: str
    symmetric: tuple[int, int, int]
    name: bytes
    name_hash: str
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    raw: bytes

    def has(self, bits: int) -> bool:
        """Whether every attribute in `bits` is set."""
        return self.attributes & bits == bits


class Cursor:
    """Reads big-endian fields; a short or over-long structure is refused."""

    __slots__ = ("_at", "_data", "_where")

    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._where, self._at = data, where, 0

    def take(self, n: int) -> bytes:
        """The next `n` bytes."""
        part = self._data[self._at : self._at + n]
        if len(part) != n:
            raise MalformedError(f"{self._where}: found {len(part)} bytes, expected {n} more")
        self._at += n
        return part

    def uint(self, n: int) -> int:
        """An unsigned integer of `n` bytes."""
        return int.from_bytes(self.take(n), "big")

    def blob(self, limit: int = BLOB_MAX) -> bytes:
        """A TPM2B: u16 length and that many bytes."""
        length = self.uint(2)
        if length > limit:
            raise MalformedError(f"{self._where}: found length {length}, expected ≤ {limit}")
        return self.take(length)

    def hash_name(self) -> str:
        """A hash algorithm id."""
        found = self.uint(2)
        if found not in HASHES:
            raise MalformedError(f"{self._where}: found hash {found:#06x}, expected a known one")
        return HASHES[found]

    def end(self) -> None:
        """Refuse bytes after the structure."""
        if self._at != len(self._data):
            extra = len(self._data) - self._at
            raise MalformedError(f"{self._where}: found {extra} bytes after the end")


def parse_quote(raw: bytes) -> Quote:
    """The quote in TPMS_ATTEST bytes.

    Raises:
        MalformedError: other magic, other type than quote, any length that does not fit.
    """
    cursor = Cursor(raw, "TPMS_ATTEST")
    magic, kind = cursor.uint(4), cursor.uint(2)
    if magic != GENERATED:
        raise MalformedError(f"TPMS_ATTEST: found magic {magic:#010x}, expected {GENERATED:#010x}")
    if kind != ST_ATTEST_QUOTE:
        raise MalformedError(f"TPMS_ATTEST: found type {kind:#06x}, expected a quote")
    signer, extra = cursor.blob(), cursor.blob()
    clock, resets, restarts = cursor.uint(8), cursor.uint(4), cursor.uint(4)
    safe = cursor.uint(1)
    if safe > 1:
        raise MalformedError("TPMS_ATTEST: clock safety is neither 0 nor 1")
    firmware = cursor.uint(8)
    selections = _selections(cursor)
    digest = cursor.blob()
    cursor.end()
    return Quote(
        signer, extra, clock, resets, restarts, safe == 1, firmware, selections, digest, bytes(raw)
    )


def _selections(cursor: Cursor) -> tuple[Selection, ...]:
    count = cursor.uint(4)
    if not 1 <= count <= SELECTIONS_MAX:
        raise MalformedError(f"PCR selection: found {count} banks, expected 1 to {SELECTIONS_MAX}")
    found = []
    for _ in range(count):
        bank, size = cursor.hash_name(), cursor.uint(1)
        if not 1 <= size <= PCR_BYTES_MAX:
            raise MalformedError(f"PCR selection: found {size} bytes, expected ≤ {PCR_BYTES_MAX}")
        bits = int.from_bytes(cursor.take(size), "little")
        found.append(Selection(bank, tuple(i for i in range(8 * size) if bits >> i & 1)))
    if len({selection.bank for selection in found}) != len(found):
        raise MalformedError("PCR selection: found a bank twice, expected distinct banks")
    return tuple(found)


def parse_signature(raw: bytes) -> Signature:
    """The signature in TPMT_SIGNATURE bytes.

    Raises:
        MalformedError: a scheme other than RSASSA, RSAPSS or ECDSA, or lengths that do not fit.
    """
    cursor = Cursor(raw, "TPMT_SIGNATURE")
    scheme = cursor.uint(2)
    if scheme not in (ALG_RSASSA, ALG_RSAPSS, ALG_ECDSA):
        raise MalformedError(f"TPMT_SIGNATURE: found scheme {scheme:#06x}, expected RSA or ECDSA")
    hash_name = cursor.hash_name()
    if scheme == ALG_ECDSA:
        r, s = (int.from_bytes(cursor.blob(), "big") for _ in range(2))
        signature = Signature(scheme, hash_name, b"", r, s)
    else:
        signature = Signature(scheme, hash_name, cursor.blob(), 0, 0)
    cursor.end()
    return signature


def parse_any_signature(raw: bytes, hash_name: str = "sha256") -> Signature:
    """The signature in TPMT_SIGNATURE bytes, or a plain one as tools also write it.

    Args:
        raw: TPMT_SIGNATURE; or RSASSA bytes as long as their key's modulus; or an ECDSA pair in
            DER. No TPMT_SIGNATURE has a modulus' length, and none begins like a DER sequence.
        hash_name: the hash of a plain one, which does not name it.

    Raises:
        MalformedError: none of these.
    """
    if len(raw) * 8 in RSA_BITS:
        return Signature(ALG_RSASSA, hash_name, bytes(raw), 0, 0)
    if raw[:1] == b"\x30" and len(raw) <= DER_PAIR_MAX:
        try:
            return Signature(ALG_ECDSA, hash_name, b"", *decode_dss_signature(raw))
        except ValueError:
            raise MalformedError(
                "signature: found a DER sequence, expected an ECDSA pair"
            ) from None
    return parse_signature(raw)


def parse_public(raw: bytes) -> Public:
    """The key in TPM2B_PUBLIC bytes (u16 length ‖ TPMT_PUBLIC).

    Raises:
        MalformedError: another key type, curve or size, a point off the curve, bad lengths.
    """
    outer = Cursor(raw, "TPM2B_PUBLIC")
    area = outer.blob(TPM2B_MAX)
    outer.end()
    return _public(area, raw)


def parse_public_area(raw: bytes) -> Public:
    """The key in TPMT_PUBLIC bytes, or in TPM2B_PUBLIC: tools write either.

    Raises:
        MalformedError: as `parse_public`.
    """
    if int.from_bytes(raw[:2], "big") == len(raw) - 2:  # no TPMT_PUBLIC is as long as its type id
        return parse_public(raw)
    if len(raw) > TPM2B_MAX:
        raise MalformedError(f"TPMT_PUBLIC: found {len(raw)} bytes, expected ≤ {TPM2B_MAX}")
    return _public(raw, raw)


def _public(area: bytes, raw: bytes) -> Public:
    cursor = Cursor(area, "TPMT_PUBLIC")
    kind, name_alg = cursor.uint(2), cursor.uint(2)
    name_hash = HASHES.get(name_alg, "")
    if name_hash not in ("sha256", "sha384", "sha512"):
        raise MalformedError(f"TPMT_PUBLIC: found name hash {name_alg:#06x}, expected SHA-2")
    attributes = cursor.uint(4)
    cursor.blob()  # authPolicy: part of the name, so it needs no meaning here
    symmetric = _symmetric(cursor)
    scheme, scheme_hash = _scheme(cursor)
    if kind == ALG_RSA:
        key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey = _rsa(cursor)
    elif kind == ALG_ECC:
        key = _ecc(cursor)
    else:
        raise MalformedError(f"TPMT_PUBLIC: found type {kind:#06x}, expected RSA or ECC")
    cursor.end()
    name = name_alg.to_bytes(2, "big") + hashlib.new(name_hash, area).digest()
    return Public(attributes, scheme, scheme_hash, symmetric, name, name_hash, key, bytes(raw))


def _symmetric(cursor: Cursor) -> tuple[int, int, int]:
    algorithm = cursor.uint(2)
    if algorithm == ALG_NULL:
        return (0, 0, 0)
    return (algorithm, cursor.uint(2), cursor.uint(2))


def _scheme(cursor: Cursor) -> tuple[int, str]:
    scheme = cursor.uint(2)
    if scheme in (ALG_NULL, ALG_RSAES):
        return scheme, ""
    if scheme not in (ALG_RSASSA, ALG_RSAPSS, ALG_OAEP, ALG_ECDSA):
        raise MalformedError(f"TPMT_PUBLIC: found scheme {scheme:#06x}, expected a known one")
    return scheme, cursor.hash_name()


def _rsa(cursor: Cursor) -> rsa.RSAPublicKey:
    bits, exponent = cursor.uint(2), cursor.uint(4) or RSA_EXPONENT_DEFAULT
    modulus = cursor.blob()
    if bits not in RSA_BITS or len(modulus) * 8 != bits or modulus[0] < 0x80:
        raise MalformedError(f"TPMT_PUBLIC: found an RSA key of {bits} bits, expected {RSA_BITS}")
    try:
        return rsa.RSAPublicNumbers(exponent, int.from_bytes(modulus, "big")).public_key()
    except ValueError:
        raise MalformedError("TPMT_PUBLIC: the RSA key is not usable") from None


def _ecc(cursor: Cursor) -> ec.EllipticCurvePublicKey:
    curve = CURVES.get(cursor.uint(2))
    if curve is None:
        raise MalformedError("TPMT_PUBLIC: found another curve, expected P-256 or P-384")
    if cursor.uint(2) != ALG_NULL:
        cursor.hash_name()  # key derivation scheme: unused by signing keys, part of the name
    x, y = (int.from_bytes(cursor.blob(), "big") for _ in range(2))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError:
        raise MalformedError("TPMT_PUBLIC: the point is not on its curve") from None
