"""`aws-nitro-document`: the attestation document of an AWS Nitro enclave. Parse only.

    COSE_Sign1([{1: -35}, {}, payload, r ‖ s])        tag 18 before it or not
    payload = {"module_id", "digest", "timestamp", "pcrs": {0..31: bytes}, "certificate",
               "cabundle": [root, …, issuer], "public_key"?, "user_data"?, "nonce"?}

`pcrs` holds the *locked* registers only, as the Nitro Secure Module's documentation defines it: a
register that may still change is not in a document at all. Optional members may be null.

Spec: docs/spec/evidence.md; AWS, "Nitro Enclaves Attestation Process" (aws-nitro-enclaves-nsm-api,
docs/attestation_process.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from wire.errors import MalformedError
from wire.excerpt import cut

from .cbor import TAG_SIGN1, Dialect, decode
from .cose import Sign1, parse_sign1

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .cbor import CborKey, CborValue

PAYLOAD_MAX: Final = 16_384  # AWS: the payload is at most this long
DOCUMENT_MAX: Final = PAYLOAD_MAX + 256  # and its envelope: headers, lengths, 96 bytes of signature
CERT_MAX: Final = 1024  # AWS: one certificate
BUNDLE_MAX: Final = 8  # a root and three issuers in practice
PCR_COUNT: Final = 32
# The grammar of the AWS document gives 1024 to all three, its list of checks 512 to two of them;
# the module's own test program (nsm-check) asks for 1024 in each and gets them.
DATA_MAX: Final = 1024
TEXT_MAX: Final = 256
TIME_MAX: Final = 2**53 - 1  # milliseconds; what JSON can carry
DEBUG_PCR: Final = 0  # an enclave in debug mode has zeros here, whatever its image

DIGESTS: Final[Mapping[str, int]] = MappingProxyType({"SHA256": 32, "SHA384": 48, "SHA512": 64})

_ENVELOPE = Dialect("Nitro document", DOCUMENT_MAX, 3, 16, frozenset({TAG_SIGN1}))
_HEADER = Dialect("Nitro document header", 64, 1, 8)
# Some releases of the payload's encoder stream its outer map (0xbf … 0xff).
_PAYLOAD = Dialect("Nitro document payload", PAYLOAD_MAX, 2, 128, indefinite_maps=True)

_REQUIRED = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
_OPTIONAL = ("public_key", "user_data", "nonce")


@dataclass(frozen=True, slots=True)
class NitroDocument:
    """A parsed, unverified document.

    Attributes:
        message: the COSE_Sign1 around it.
        module_id: which enclave of which instance.
        digest: hash of the registers, a key of DIGESTS.
        timestamp_ms: when the hypervisor made it, Unix milliseconds.
        pcrs: locked registers by number.
        certificate: DER of the certificate whose key signed; lives some three hours.
        cabundle: DER from the root down to the certificate's issuer; nothing in it is an anchor.
        public_key, user_data, nonce: what the enclave asked to have signed, or None.
    """

    message: Sign1
    module_id: str
    digest: str
    timestamp_ms: int
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None

    @property
    def debug(self) -> bool:
        """Whether the enclave says it runs in debug mode: its console is readable, PCR 0 zero."""
        value = self.pcrs.get(DEBUG_PCR)
        return value is not None and not any(value)

    def claims(self) -> dict[str, Any]:
        """What it says, for JSON."""
        return {
            "module_id": self.module_id,
            "digest": self.digest,
            "timestamp_ms": self.timestamp_ms,
            "pcrs": {str(number): value.hex() for number, value in sorted(self.pcrs.items())},
            "public_key": _hex(self.public_key),
            "user_data": _hex(self.user_data),
            "nonce": _hex(self.nonce),
            "debug": self.debug,
            "cose_alg": self.message.algorithm,
            "cose_tag_present": self.message.tagged,
        }


def parse_document(data: bytes) -> NitroDocument:
    """A document from its bytes.

    Raises:
        MalformedError: not exactly the format; members, types and sizes are all checked.
    """
    message = parse_sign1(decode(data, _ENVELOPE), _HEADER)
    if len(message.protected) != 1 or message.unprotected:
        raise MalformedError(
            f"Nitro document: found {len(message.protected)} signed and "
            f"{len(message.unprotected)} unsigned headers, expected the algorithm alone"
        )
    fields = _fields(decode(message.payload, _PAYLOAD))
    digest = _text(fields, "digest")
    if digest not in DIGESTS:
        raise _wrong("digest", f'"{cut(digest)}"', f"one of {', '.join(DIGESTS)}")
    timestamp = fields["timestamp"]
    if isinstance(timestamp, bool) or not isinstance(timestamp, int):
        raise _wrong("timestamp", "another type", "an integer")
    if not 0 < timestamp <= TIME_MAX:
        raise _wrong("timestamp", str(timestamp), f"1 to {TIME_MAX}")
    return NitroDocument(
        message,
        _text(fields, "module_id"),
        digest,
        timestamp,
        _pcrs(fields["pcrs"], DIGESTS[digest]),
        _bytes(fields["certificate"], "certificate", 1, CERT_MAX),
        _bundle(fields["cabundle"]),
        _data(fields, "public_key", 1),
        _data(fields, "user_data", 0),
        _data(fields, "nonce", 0),
    )


def _fields(payload: CborValue) -> dict[CborKey, CborValue]:
    if not isinstance(payload, dict):
        raise MalformedError("Nitro document: expected a map as payload")
    for key in payload:
        if key not in (*_REQUIRED, *_OPTIONAL):
            raise MalformedError(f'Nitro document: found unknown member "{cut(str(key))}"')
    for name in _REQUIRED:
        if name not in payload:
            raise MalformedError(f'Nitro document: member "{name}" is missing')
    return payload


def _pcrs(value: CborValue, size: int) -> Mapping[int, bytes]:
    if not isinstance(value, dict) or not 1 <= len(value) <= PCR_COUNT:
        raise _wrong("pcrs", "something else", f"a map of 1 to {PCR_COUNT}")
    found: dict[int, bytes] = {}
    for number, register in value.items():
        if not isinstance(number, int) or not 0 <= number < PCR_COUNT:
            raise _wrong("pcrs", "another key", f"only numbers from 0 to {PCR_COUNT - 1}")
        found[number] = _bytes(register, "pcrs", size, size)
    return MappingProxyType(found)


def _bundle(value: CborValue) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= BUNDLE_MAX:
        raise _wrong("cabundle", "something else", f"an array of 1 to {BUNDLE_MAX}")
    return tuple(_bytes(item, "cabundle", 1, CERT_MAX) for item in value)


def _data(fields: Mapping[CborKey, CborValue], name: str, low: int) -> bytes | None:
    value = fields.get(name)
    return None if value is None else _bytes(value, name, low, DATA_MAX)


def _bytes(value: CborValue, name: str, low: int, high: int) -> bytes:
    if not isinstance(value, bytes):
        raise _wrong(name, "another type", "bytes")
    if not low <= len(value) <= high:
        raise _wrong(name, f"{len(value)} bytes", str(low) if low == high else f"{low} to {high}")
    return value


def _text(fields: Mapping[CborKey, CborValue], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or not 1 <= len(value) <= TEXT_MAX:
        raise _wrong(name, "something else", f"1 to {TEXT_MAX} characters")
    return value


def _hex(data: bytes | None) -> str | None:
    return None if data is None else data.hex()


def _wrong(name: str, found: str, expected: str) -> MalformedError:
    return MalformedError(f"Nitro document.{name}: found {found}, expected {expected}")
